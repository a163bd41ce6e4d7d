"""Stay close to the feature maps of the start."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import ClassVar

from sklearn.utils import gen_batches
from sklearn.utils._param_validation import StrOptions

from sktransfer.feature_extraction import take_samples
from sktransfer.tuning.penalties._base import (
    BasePenalty,
    PenaltyBatch,
    PenaltyContext,
)
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")

# Samples that are read at a time before training.
_BLOCK = 1024


class FeatureMapDistance(BasePenalty):
    r"""Keep the feature maps of the layers close to those of the pre-trained network.

    Parameters
    ----------
    layers : "all" or list of str, default="all"
        The layers to compare: names, with wildcards, among those of
        ``extract(X, all_layers=True).layers`` of the network's extractor. ``"all"`` is
        what every layer with weights reads, and the features; for language models it is
        all hidden states.
    weight : float, default=0.1
        Factor of the penalty.

    See Also
    --------
    L2SP : Stay close to the weights instead.
    sktransfer.tuning.FineTuneClassifier : Takes this as its `penalty`.

    Notes
    -----
    With the maps :math:`h_l` of L layers, those :math:`h^0_l` of the pre-trained
    network for the same inputs, and n samples, the loss gains

    .. math:: \frac{\lambda}{n L} \sum_{l=1}^L \frac1{v_l} \sum_{i=1}^n
              \big\| h_l(x_i) - h^0_l(x_i) \big\|^2

    where v_l is the sum of the variances of :math:`h^0_l` over the training samples.
    A layer thus counts by the fraction of its variance that has changed, whatever its
    scale and width. Layers that are the same for all samples at the start do not count.

    This is DELTA [1]_ without its attention, which weights channels by the loss when
    each of them in turn is switched off: one evaluation of the data set per channel.
    Further, maps are reduced to 2 x 2 means per channel, those of texts to the pooling
    of the extractor, so that padding does not count. Within a cell the maps are free to
    change.

    It needs no labels, so the n samples of a batch are labelled and unlabelled ones.

    A frozen copy of the network runs beside it in every step, on the same augmented
    inputs. It is in evaluation mode, but its batch normalisation uses the statistics of
    the batch. Without dropout the penalty is therefore 0 at the start.

    References
    ----------
    .. [1] X. Li, H. Xiong, H. Wang, Y. Rao, L. Liu, J. Huan, "DELTA: Deep Learning
       Transfer using Feature Map with Attention for Convolutional Networks", ICLR 2019.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.tuning import FeatureMapDistance, FineTuneClassifier
    >>> X, y = load_dataset(return_X_y=True)
    >>> ((_, network),) = load_zoo(["plain-emoji"])
    >>> list(network.extract(X[:2], all_layers=True).layers)[-2:]
    ['input(stage3.2.0)', 'penultimate']
    >>> penalty = FeatureMapDistance(layers=["input(stage3*)", "penultimate"])
    >>> model = FineTuneClassifier(network, penalty=penalty, max_epochs=2)
    >>> model = model.fit(X[:100], y[:100], unlabelled=X[100:300])
    >>> 0 < model.history_[-1, "train_penalty"] < 1
    np.True_
    """

    uses_unlabelled = True

    _parameter_constraints: ClassVar[dict] = {
        **BasePenalty._parameter_constraints,
        "layers": [StrOptions({"all"}), list, tuple],
    }

    def __init__(self, *, layers: str | Sequence[str] = "all", weight: float = 0.1):
        self.layers = layers
        self.weight = weight

    def bind(self, context: PenaltyContext) -> Callable[[PenaltyBatch], torch.Tensor]:
        """Copy the network, and run it once on the training samples.

        Parameters
        ----------
        context : PenaltyContext
            The network, its start and the data.

        Returns
        -------
        callable
            ``term(batch)``.

        Raises
        ------
        ValueError
            If `layers` names one that does not exist.
        """
        followed = context.layers()
        variances = _total_variances(
            layers
            for block in gen_batches(len(context.train), _BLOCK)
            for layers in followed.iter_start(
                take_samples(context.X, context.train[block])
            )
        )
        names = self._select(list(variances))

        def term(batch: PenaltyBatch) -> torch.Tensor:
            pairs = followed.take_pairs()
            errors = [
                (own[name] - start[name]).square().sum() / variances[name]
                for own, start in pairs
                for name in names
            ]
            return torch.stack(errors).sum() / (len(batch.rows) * len(names))

        return term

    def _select(self, available: list[str]) -> list[str]:
        """The names asked for, of those available."""
        if self.layers == "all":
            return available
        names = []
        for pattern in self.layers:
            found = [name for name in available if fnmatchcase(name, str(pattern))]
            if not found:
                raise ValueError(
                    "The 'layers' parameter of FeatureMapDistance must be 'all' or a "
                    f"list of layers. Got {pattern!r}. Available: {available}."
                )
            names += found
        if not names:
            raise ValueError(
                "The 'layers' parameter of FeatureMapDistance must hold at least one "
                "layer. Got none."
            )
        return list(dict.fromkeys(names))


def _total_variances(batches: Iterable[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Sum over features of the variance over samples, by layer.

    It is infinite where all samples are the same, such as first tokens before the first
    layer, so that such a layer does not count.
    """
    n_samples, sums, squares = 0, defaultdict(float), defaultdict(float)
    for layers in batches:
        for name, values in layers.items():
            values = values.double().cpu()
            sums[name] += values.sum(dim=0)
            squares[name] += values.square().sum(dim=0)
        n_samples += len(values)
    totals = {}
    for name, square in squares.items():
        total = (square / n_samples - (sums[name] / n_samples).square()).sum()
        is_rounding = total <= 1e-10 * square.sum() / n_samples
        totals[name] = math.inf if is_rounding else float(total)
    return totals
