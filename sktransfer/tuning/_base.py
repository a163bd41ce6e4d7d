"""The training that the estimators share."""

from __future__ import annotations

import copy
import math
import os
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sktransfer.feature_extraction import check_samples, take_samples
from sktransfer.tuning._backbone import Backbone, make_backbone
from sktransfer.tuning._batches import BatchRows, Samples
from sktransfer.tuning._checkpoint import Checkpoint
from sktransfer.tuning._export import export_network
from sktransfer.tuning._net import TunedModule, TuningNet, forked_rng, not_finite
from sktransfer.tuning._unlabelled import (
    check_unlabelled,
    digest_samples_seen,
)
from sktransfer.tuning._workers import batches_of
from sktransfer.tuning.penalties._base import BasePenalty, PenaltyContext
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")
skorch = import_optional("skorch", extra="tuning", needed_by="sktransfer.tuning")
helper = import_optional("skorch.helper", extra="tuning", needed_by="sktransfer.tuning")

_OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adamw": torch.optim.AdamW,
}
_COUNT = [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})]
_SCHEDULES = {
    "cosine": torch.optim.lr_scheduler.CosineAnnealingLR,
    "constant": lambda optimizer, n_steps: None,
}
_PRECISIONS = {
    True: torch.bfloat16,
    False: None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Parameters that do not change what is learnt.
_NOT_IN_CHECKPOINT = {"checkpoint_dir", "device", "num_workers", "verbose"}


class BaseFineTune(CallbackSupportMixin, BaseEstimator, metaclass=ABCMeta):
    """Base class; subclasses add `_encode`, which validates y, and `_criterion`."""

    _criterion: type
    # Means of numeric targets and their scale, in which the network predicts them.
    target_mean_ = target_scale_ = None

    # What else could be meant where it is routed?
    __metadata_request__fit: ClassVar[dict] = {"unlabelled": True}

    _parameter_constraints: ClassVar[dict] = {
        "network": [str, callable, BaseEstimator],
        "penalty": [BasePenalty, None],
        "max_epochs": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "head_lr_factor": [Interval(Real, 0, None, closed="neither")],
        "optimizer": [StrOptions(set(_OPTIMIZERS)), callable],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "schedule": [StrOptions(set(_SCHEDULES)), callable],
        "batch_size": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "accumulate_grad_batches": [Interval(Integral, 1, None, closed="left")],
        "unlabelled_ratio": [Interval(Real, 0, None, closed="neither")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), None],
        "augment": [callable, None],
        "callbacks": [list, None],
        "checkpoint_dir": [str, os.PathLike, None],
        "mixed_precision": [
            "boolean",
            StrOptions({"auto", "bfloat16", "float16"}),
        ],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        network: Any,
        *,
        penalty: BasePenalty | None = None,
        max_epochs: int | str = "auto",
        lr: float = 0.03,
        head_lr_factor: float = 10,
        optimizer: str | Callable[..., Any] = "sgd",
        weight_decay: float = 5e-3,
        schedule: str | Callable[..., Any] = "cosine",
        batch_size: int | str = "auto",
        accumulate_grad_batches: int = 1,
        unlabelled_ratio: float = 2.0,
        validation_fraction: float | None = None,
        n_iter_no_change: int | None = None,
        augment: Callable[[Any], Any] | None = None,
        callbacks: Sequence[Any] | None = None,
        checkpoint_dir: str | os.PathLike | None = None,
        mixed_precision: bool | str = "auto",
        num_workers: int = 0,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.network = network
        self.penalty = penalty
        self.max_epochs = max_epochs
        self.lr = lr
        self.head_lr_factor = head_lr_factor
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.batch_size = batch_size
        self.accumulate_grad_batches = accumulate_grad_batches
        self.unlabelled_ratio = unlabelled_ratio
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.augment = augment
        self.callbacks = callbacks
        self.checkpoint_dir = checkpoint_dir
        self.mixed_precision = mixed_precision
        self.num_workers = num_workers
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # The penalty checks its own parameters.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, unlabelled: Any = None) -> BaseFineTune:
        """Train a copy of the network, with a new head, on the task.

        Parameters
        ----------
        X : raw samples
            Whatever the extractor takes: arrays, images, texts, file paths, data sets.
        y : array-like of shape (n_samples,) or, for regression, (n_samples, n_targets)
            Labels or numbers.
        unlabelled : raw samples, default=None
            More samples of the same kind, whose labels are not known. A penalty with
            teachers learns from them, too; others leave them out. In a pipeline they
            are passed on as they are, unless its ``transform_input`` names them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Before training, if the teachers do not suit the target, a label would be
            missing from the training part, the unlabelled samples are not like X, or
            the checkpoint is damaged. During training, if a loss is NaN or infinite.

        Warns
        -----
        UserWarning
            If nothing learns from the unlabelled samples.
        WeakTeachersWarning
            If the teachers are not expected to help.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        X, n_samples = check_samples(X, self)
        check_consistent_length(X, y)
        y, target, classes = self._encode(y)
        if self.n_iter_no_change is not None and self.validation_fraction is None:
            raise ValueError(
                "The 'n_iter_no_change' parameter needs a 'validation_fraction'. Got "
                f"n_iter_no_change={self.n_iter_no_change!r} without one."
            )
        if self.penalty is not None:
            self.penalty.check(y, classes)
        weight = 0 if self.penalty is None else self.penalty.weight
        if unlabelled is not None:
            unlabelled = check_unlabelled(unlabelled, X, self)
            if not (weight and self.penalty.uses_unlabelled):
                unlabelled = None
        checkpoint = self._open_checkpoint(X, y, unlabelled)
        seeds = checkpoint.state["seeds"] if checkpoint and checkpoint.state else None
        if seeds is None:
            seeds = check_random_state(self.random_state).randint(2**31 - 1, size=3)
        split, initial, training = map(int, seeds)

        samples = Samples(X, target, np.arange(n_samples))
        train, valid = self._split(samples, split)
        train = replace(train, unlabelled=unlabelled, augment=self.augment)
        batch_size = self._find_batch_size(train)
        n_unlabelled = round(batch_size * self.unlabelled_ratio) + 1
        n_together = batch_size + (0 if unlabelled is None else n_unlabelled)
        options = {"batch_size": n_together, "device": self.device}
        backbone = make_backbone(self.network, **options)
        with forked_rng(backbone.device):
            torch.manual_seed(initial)
            module = self._make_module(backbone, train, y, classes)
            net = self._make_net(module, train, valid)
            torch.manual_seed(training)
            with net.noticing_interrupts():
                self._train(net, train, checkpoint, seeds)
        # What still holds the data.
        net.scheduler = net.train_split = None
        term = module.penalty
        module.penalty = copy.copy(term) if isinstance(term, torch.nn.Module) else None
        module.eval()
        self.net_ = net
        self.n_unlabelled_ = 0 if unlabelled is None else len(unlabelled)
        self._unlabelled_seen = digest_samples_seen(unlabelled)
        return self

    @abstractmethod
    def _encode(self, y: Any) -> tuple[np.ndarray, torch.Tensor, np.ndarray | None]:
        """The checked target, what the loss takes for it, and the classes."""

    def _open_checkpoint(
        self, X: Any, y: np.ndarray, unlabelled: Any
    ) -> Checkpoint | None:
        if self.checkpoint_dir is None:
            return None
        params = self.get_params(deep=False)
        own = {k: v for k, v in params.items() if k not in _NOT_IN_CHECKPOINT}
        samples = [X] if unlabelled is None else [X, unlabelled]
        return Checkpoint(self.checkpoint_dir, [type(self), own, y], samples)

    def _split(self, samples: Samples, seed: int) -> tuple[Samples, Samples | None]:
        """Samples to train on, and to validate on if wanted."""
        if self.validation_fraction is None:
            return samples, None
        codes = None
        if samples.target.ndim == 1:
            codes = samples.target.numpy()
            rare = self.classes_[np.bincount(codes) < 2]
            if len(rare):
                raise ValueError(
                    "With a 'validation_fraction' every label needs at least two "
                    "samples, otherwise it would be unseen in training or in "
                    f"validation. Got one sample of {rare.tolist()}."
                )
        train, valid = train_test_split(
            samples.rows,
            test_size=self.validation_fraction,
            stratify=codes,
            random_state=seed,
        )
        return (
            replace(samples, rows=np.sort(train)),
            replace(samples, rows=np.sort(valid)),
        )

    def _make_module(
        self,
        backbone: Backbone,
        samples: Samples,
        y: np.ndarray,
        classes: np.ndarray | None,
    ) -> TunedModule:
        """The backbone with a new head and the bound penalty."""
        X, target = samples.X, samples.target
        n_features = backbone.transform(take_samples(X, np.arange(1))).shape[1]
        n_outputs = target.shape[1] if classes is None else len(classes)
        module = TunedModule(backbone, n_features, n_outputs)
        if self.penalty is not None:
            named = backbone.module.named_parameters()
            context = PenaltyContext(
                module=backbone.module,
                start={name: value.detach().clone() for name, value in named},
                X=X,
                y=y,
                train=samples.rows,
                unlabelled=samples.unlabelled,
                classes=classes,
                center=self.target_mean_,
                scale=self.target_scale_,
                features=backbone.transform,
                precompute=self.augment is None,
            )
            module.penalty = term = self.penalty.bind(context)
            if not callable(term):
                raise TypeError(
                    f"{type(self.penalty).__name__}.bind must return a callable "
                    f"term(batch). Got {term!r}."
                )
        return module

    def _find_batch_size(self, samples: Samples) -> int:
        if self.batch_size != "auto":
            return self.batch_size
        return int(np.clip(len(samples) // 8, 16, 64))

    def _find_max_epochs(self, n_batches: int) -> int:
        if self.max_epochs != "auto":
            return self.max_epochs
        return max(20, math.ceil(400 / n_batches))

    def _make_net(
        self, module: TunedModule, train: Samples, valid: Samples | None
    ) -> TuningNet:
        device = module.backbone.device
        batch_size = self._find_batch_size(train)
        n_batches = len(BatchRows(train, batch_size, shuffle=True))
        optimizer = self.optimizer
        if isinstance(optimizer, str):
            optimizer = _OPTIMIZERS[optimizer]
        mixed = self.mixed_precision
        if mixed == "auto":
            mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()
        net = TuningNet(
            module,
            criterion=self._criterion,
            optimizer=optimizer,
            lr=self.lr,
            max_epochs=self._find_max_epochs(n_batches),
            batch_size=batch_size,
            head_lr_factor=self.head_lr_factor,
            weight_decay=self.weight_decay,
            mixed_precision=_PRECISIONS[mixed],
            accumulate_grad_batches=self.accumulate_grad_batches,
            num_workers=self.num_workers,
            callbacks=self.callbacks,
            device=str(device),
            verbose=self.verbose,
            train_split=None if valid is None else helper.predefined_split(valid),
            penalty_weight=0.0 if self.penalty is None else self.penalty.weight,
            iterator_train__unlabelled_ratio=self.unlabelled_ratio,
        )
        return net.initialize()

    def _train(
        self,
        net: TuningNet,
        samples: Samples,
        checkpoint: Checkpoint | None,
        seeds: np.ndarray,
    ) -> None:
        """Train from the checkpoint, if any, to the last epoch or an early stop."""
        max_epochs = net.max_epochs
        n_batches = len(BatchRows(samples, net.batch_size, shuffle=True))
        n_steps = max_epochs * math.ceil(n_batches / self.accumulate_grad_batches)
        schedule = self.schedule
        if isinstance(schedule, str):
            schedule = _SCHEDULES[schedule]
        net.scheduler = schedule(net.optimizer_, n_steps)
        patience = self.n_iter_no_change
        if patience is not None:  # last of all, for the log comes after its callbacks
            stop = skorch.callbacks.EarlyStopping(
                patience=patience, threshold=0, load_best=True, sink=skorch.utils.noop
            )
            net.callbacks_.append(("n_iter_no_change", stop.initialize()))
        if checkpoint is not None:
            checkpoint.restore(net)
        data = {"X": samples, "y": None}
        root = self._init_callback_context(
            max_subtasks=max_epochs
        ).call_on_fit_task_begin(estimator=self)
        net.notify("on_train_begin", **data)
        if checkpoint is not None:
            checkpoint.restore_callbacks(net)
        while len(net.history) < max_epochs and not net.stopped:
            epoch = root.subcontext(task_name="epoch")
            epoch.call_on_fit_task_begin(estimator=self)
            net.fit_loop(**data, epochs=1)
            if epoch.call_on_fit_task_end(estimator=self):
                net.stopped = True
            if checkpoint is not None:
                checkpoint.save(net, seeds)
        net.notify("on_train_end", **data)
        if patience is not None:
            net.callbacks_.pop()
        net.module_.backbone.finish()
        root.call_on_fit_task_end(estimator=self)

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

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.no_validation = True
        tags.target_tags.required = True
        return tags
