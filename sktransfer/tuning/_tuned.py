"""What a fitted estimator gives beside predictions: the network, and its export."""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sktransfer.feature_extraction import check_samples, take_samples
from sktransfer.tuning._batches import Samples
from sktransfer.tuning._export import export_network
from sktransfer.tuning._net import not_finite
from sktransfer.tuning._workers import batches_of
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class TunedMixin:
    """Outputs, parts and export of the network in `net_`."""

    # Means of numeric targets and their scale, in which the network predicts them.
    target_mean_ = target_scale_ = None

    def _outputs(self, X: Any) -> np.ndarray:
        """Outputs of the head, (n_samples, n_outputs)."""
        check_is_fitted(self)
        X, n_samples = check_samples(X, self)
        samples = Samples(X, torch.zeros(n_samples), np.arange(n_samples))
        self.net_.num_workers = self.num_workers
        with batches_of(self.net_.get_iterator(samples)) as batches:
            outputs = [self.net_.evaluation_step(batch)[0].cpu() for batch in batches]
        outputs = torch.cat(outputs)
        bad = not_finite(outputs).tolist()
        if bad:
            weights = self.net_.module_.parameters()
            sound = all(bool(torch.isfinite(w).all()) for w in weights)
            advice = "Look for NaN in these" if sound else "Train with a smaller 'lr'"
            raise ValueError(
                f"The outputs are NaN or infinite for {len(bad)} of {n_samples} "
                f"samples, the first of them sample {bad[0]}. {advice}."
            )
        return outputs.numpy()

    def export(self, X: Any, path: str | os.PathLike | None = None) -> torch.nn.Module:
        """Make a plain torch module of the tuned network and its head.

        Parameters
        ----------
        X : raw samples
            A few samples as in ``fit``, of which the first eight are used: outputs are
            compared on them, and the network is traced with them. They are not kept.
            Axes of the inputs that differ in size among them, such as the lengths of
            sequences, may have any size afterwards, as does that of the samples.
        path : str or path, default=None
            A file to write as well: ``.pt2`` (:func:`torch.export.save`) or ``.onnx``,
            which needs ``pip install "sktransfer[onnx]"``. A file that is there is
            replaced when the new one is complete.

        Returns
        -------
        module : torch.nn.Module
            Maps what the network reads, a preprocessed batch or the tensors of a
            tokenizer, to logits (n_samples, n_classes), in the order of `classes_`, or
            numbers (n_samples, n_targets). It is a copy, in evaluation mode, float32
            and on the CPU.

            It has the class of the network, with the new head in place of
            `source_head`, or is a :class:`torch.nn.Sequential` of the network and the
            head. If features are pooled or come from other layers, or the class is from
            sktransfer, it is a :class:`torch.fx.GraphModule`, traced by
            :func:`torch.export.export`: it cannot be pickled, so write it to a file.

        Raises
        ------
        ValueError
            If the network cannot be traced, because its forward pass depends on values
            of the inputs, or if outputs differ by more than 1e-5 (for ONNX 1e-4) of the
            largest one, or of 1. Nothing is written then.
        OSError
            If the folder of `path` does not exist or cannot be written to.

        Notes
        -----
        No file needs sktransfer or the code of the network. Each holds the classes,
        dtypes and shapes of the inputs (None is any size) and what is known about the
        preprocessing, in JSON, as ``sktransfer.json``: of a ``.pt2`` file among the
        `extra_files` of :func:`torch.export.load`, of an ``.onnx`` file in its metadata
        (``session.get_modelmeta().custom_metadata_map`` in onnxruntime).

        Numbers come out in float32: beside a mean of 1e6, digits below 0.06 are lost.

        A network that was tuned with mixed precision predicts with it, too; the
        exported one computes in float32, so that outputs agree to the precision of
        bfloat16 only.

        Examples
        --------
        >>> import torch
        >>> from sktransfer.datasets import load_dataset, load_zoo
        >>> from sktransfer.tuning import FineTuneClassifier
        >>> X, y = load_dataset(return_X_y=True)
        >>> ((_, network),) = load_zoo(["plain-handwritten"])
        >>> model = FineTuneClassifier(network, max_epochs=1).fit(X[:100], y[:100])
        >>> module = model.export(X[:8])
        >>> module(torch.from_numpy(X[:20])).shape
        torch.Size([20, 10])
        """
        check_is_fitted(self)
        X, n_samples = check_samples(X, self)
        # Traced with one sample, a network would take no other number of them.
        rows = np.arange(max(2, min(n_samples, 8))) % n_samples
        return export_network(
            self.net_.module_.backbone,
            self._head_in_units(),
            take_samples(X, rows),
            path,
            classes=getattr(self, "classes_", None),
        )

    def _head_in_units(self) -> torch.nn.Linear:
        """The head, giving numbers in their own unit rather than standardised."""
        head = copy.deepcopy(self.head_)
        if self.target_scale_ is not None:
            scale, mean = map(torch.from_numpy, (self.target_scale_, self.target_mean_))
            with torch.no_grad():
                head.weight.copy_(head.weight.cpu().double() * scale[:, None])
                head.bias.copy_(head.bias.cpu().double() * scale + mean)
        return head

    @property
    def history_(self) -> Any:
        """The net's history: one record per epoch."""
        return self.net_.history

    @property
    def module_(self) -> torch.nn.Module:
        """The tuned network, without its head."""
        return self.net_.module_.backbone.module

    @property
    def head_(self) -> torch.nn.Linear:
        """The head, learnt from the features."""
        return self.net_.module_.head

    @property
    def penalty_(self) -> torch.nn.Module | None:
        """The penalty's term, with what it has learnt."""
        return self.net_.module_.penalty
