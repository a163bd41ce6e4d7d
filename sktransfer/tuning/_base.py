"""The training that the estimators share."""

from __future__ import annotations

import copy
import math
import os
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.callback import CallbackContext, CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from sktransfer.feature_extraction import check_samples, take_samples
from sktransfer.tuning._backbone import Backbone, make_backbone
from sktransfer.tuning._batches import BatchRows, Samples
from sktransfer.tuning._checkpoint import Checkpoint
from sktransfer.tuning._linear_probe import start_at_linear_probe
from sktransfer.tuning._net import TunedModule, TuningNet, forked_rng
from sktransfer.tuning._tuned import TunedMixin
from sktransfer.tuning._unlabelled import (
    check_unlabelled,
    digest_samples_seen,
)
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


class BaseFineTune(TunedMixin, CallbackSupportMixin, BaseEstimator, metaclass=ABCMeta):
    """Base class; subclasses add `_encode`, which validates y, and `_criterion`."""

    _criterion: type
    # What else could be meant where it is routed?
    __metadata_request__fit: ClassVar[dict] = {"unlabelled": True}

    _parameter_constraints: ClassVar[dict] = {
        "network": [str, callable, BaseEstimator],
        "head_init": [StrOptions({"random", "linear_probe"})],
        "penalty": [BasePenalty, None],
        "max_epochs": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "head_lr_factor": [Interval(Real, 0, None, closed="neither")],
        "optimizer": [StrOptions(set(_OPTIMIZERS)), callable],
        "clip_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
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
        head_init: str = "random",
        penalty: BasePenalty | None = None,
        max_epochs: int | str = "auto",
        lr: float = 0.03,
        head_lr_factor: float = 10,
        optimizer: str | Callable[..., Any] = "sgd",
        clip_grad_norm: float | None = 5.0,
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
        self.head_init = head_init
        self.penalty = penalty
        self.max_epochs = max_epochs
        self.lr = lr
        self.head_lr_factor = head_lr_factor
        self.optimizer = optimizer
        self.clip_grad_norm = clip_grad_norm
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
            More samples of the same kind, whose labels are not known. Penalties with
            teachers and :class:`FeatureMapDistance` learn from them, too; others leave
            them out. In a pipeline they are passed on as they are, unless its
            ``transform_input`` names them.

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
        ConvergenceWarning
            If the loss ends no lower than that of a constant prediction.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        X, n_samples = check_samples(X, self)
        check_consistent_length(X, y)
        # If this training fails, its classes must not meet the network of the last.
        vars(self).pop("net_", None)
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
        # A sample left over joins the last batch, with its unlabelled ones.
        n_unlabelled = math.ceil((batch_size + 1) * self.unlabelled_ratio) + 1
        n_together = batch_size + (0 if unlabelled is None else n_unlabelled)
        options = {"batch_size": n_together, "device": self.device}
        backbone = make_backbone(self.network, **options)
        with torch.enable_grad(), forked_rng(backbone.device):
            torch.manual_seed(initial)
            n_epochs = self._find_max_epochs(train)
            task = self._init_callback_context(
                max_subtasks=n_epochs + (self.penalty is not None)
            ).call_on_fit_task_begin(estimator=self)
            module = self._make_module(backbone, train, y, classes, task)
            net = self._make_net(module, train, valid)
            torch.manual_seed(training)
            with net.noticing_interrupts():
                self._train(net, train, checkpoint, seeds, task)
            task.call_on_fit_task_end(estimator=self)
        self._warn_of_nothing_learnt(net)
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
        task: CallbackContext,
    ) -> TunedModule:
        """The backbone with a new head and the bound penalty."""
        X, target = samples.X, samples.target
        n_features = backbone.transform(take_samples(X, np.arange(1))).shape[1]
        n_outputs = target.shape[1] if classes is None else len(classes)
        module = TunedModule(backbone, n_features, n_outputs)
        if self.head_init == "linear_probe":
            rows = samples.rows  # X is not cut, for a data set would be read whole
            start_at_linear_probe(
                module.head, backbone.transform(X)[rows], target[rows]
            )
        if self.penalty is not None:
            named = backbone.module.named_parameters()
            binding = task.subcontext(task_name="penalty", max_subtasks=None)
            binding.call_on_fit_task_begin(estimator=self)
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
                layers=backbone.follow_layers,
                track=partial(self._track, binding),
            )
            module.penalty = term = self.penalty.bind(context)
            binding.call_on_fit_task_end(estimator=self)
            if not callable(term):
                raise TypeError(
                    f"{type(self.penalty).__name__}.bind must return a callable "
                    f"term(batch). Got {term!r}."
                )
        return module

    def _track(
        self, task: CallbackContext, items: Iterable[Any], name: str
    ) -> Iterator[Any]:
        """The items, each a subtask for the callbacks that show progress."""
        for item in items:
            step = task.subcontext(task_name=name)
            step.call_on_fit_task_begin(estimator=self)
            yield item
            step.call_on_fit_task_end(estimator=self)

    def _find_batch_size(self, samples: Samples) -> int:
        if self.batch_size != "auto":
            return self.batch_size
        return int(np.clip(len(samples) // 8, 16, 64))

    def _count_batches(self, samples: Samples) -> int:
        return len(BatchRows(samples, self._find_batch_size(samples), shuffle=True))

    def _find_max_epochs(self, samples: Samples) -> int:
        if self.max_epochs != "auto":
            return self.max_epochs
        return max(20, math.ceil(400 / self._count_batches(samples)))

    def _make_net(
        self, module: TunedModule, train: Samples, valid: Samples | None
    ) -> TuningNet:
        device = module.backbone.device
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
            max_epochs=self._find_max_epochs(train),
            batch_size=self._find_batch_size(train),
            head_lr_factor=self.head_lr_factor,
            clip_grad_norm=self.clip_grad_norm,
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
        task: CallbackContext,
    ) -> None:
        """Train from the checkpoint, if any, to the last epoch or an early stop."""
        n_together = self.accumulate_grad_batches
        n_steps = net.max_epochs * math.ceil(self._count_batches(samples) / n_together)
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
        net.notify("on_train_begin", **data)
        if checkpoint is not None:
            checkpoint.restore_callbacks(net)
        while len(net.history) < net.max_epochs and not net.stopped:
            epoch = task.subcontext(task_name="epoch")
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

    def _warn_of_nothing_learnt(self, net: TuningNet) -> None:
        """Warn if the loss of the last epoch is not below that of a constant."""
        last = net.history[-1]
        loss = last["train_loss"] - net.penalty_weight * last.get("train_penalty", 0)
        constant = self._loss_of_constant
        # Of numbers that are all the same there is nothing to learn.
        if constant and not loss < constant:
            warnings.warn(
                f"The network has learnt nothing: its training loss is {loss:.3g}, and "
                f"that of a constant prediction {constant:.3g}. Try a smaller 'lr', "
                f"{'a smaller weight of the penalty, ' if net.penalty_weight else ''}"
                "or more epochs.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.no_validation = True
        tags.target_tags.required = True
        return tags
