"""The skorch net behind the estimators: outputs, loss and penalty of every step."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from sktransfer.tuning._backbone import Backbone
from sktransfer.tuning._batches import Batch, Samples, load_batches
from sktransfer.tuning._workers import Reader, WorkerLoader, batches_of
from sktransfer.tuning.penalties._base import PenaltyBatch
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")
skorch = import_optional("skorch", extra="tuning", needed_by="sktransfer.tuning")


class DivergenceError(ValueError):
    """A loss became NaN or infinite."""


class TunedModule(torch.nn.Module):
    """A backbone under a fresh linear head, beside the term of the penalty if any."""

    def __init__(self, backbone: Backbone, n_features: int, n_outputs: int):
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Linear(n_features, n_outputs, dtype=torch.float32)
        self.penalty = None

    def forward(
        self, X: Any, inputs: list | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs of the head, and the features that it reads."""
        features = self.backbone(X, inputs)
        return self.head(features), features

    def parameter_groups(self, lr: float, head_lr_factor: float) -> list[dict]:
        """The pre-trained parameters and the new ones, which learn faster."""
        old = {id(parameter) for parameter in self.backbone.parameters()}
        groups = [{"params": [], "lr": lr}, {"params": [], "lr": lr * head_lr_factor}]
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups[id(parameter) not in old]["params"].append(parameter)
        return [group for group in groups if group["params"]]


# Torch has one generator for all threads: those that train take turns.
_RNG_LOCK = threading.RLock()


@contextmanager
def forked_rng(device: torch.device) -> Iterator[None]:
    """Leave torch's random numbers, those of the device too, as they were before."""
    devices = []
    if device.type == "cuda":
        devices = [
            torch.cuda.current_device() if device.index is None else device.index
        ]
    with _RNG_LOCK, torch.random.fork_rng(devices=devices):
        yield


def not_finite(outputs: torch.Tensor) -> np.ndarray:
    """Rows that hold NaN or infinity."""
    return np.flatnonzero(~torch.isfinite(outputs.detach()).all(dim=1).cpu().numpy())


class TuningNet(skorch.NeuralNet):
    """A skorch net for :class:`TunedModule`, trained on :class:`Samples`.

    Parameters beside those of :class:`skorch.NeuralNet` are `head_lr_factor`,
    `clip_grad_norm`, `weight_decay`, `mixed_precision` (the type of autocast, or None),
    `accumulate_grad_batches`, `num_workers` and `penalty_weight`.

    Attributes
    ----------
    scheduler : torch.optim.lr_scheduler.LRScheduler or None
        Stepped after every step of the optimiser; set by the caller.
    scaler : torch.amp.GradScaler
        Scales the loss, so that small gradients survive float16.
    stopped : bool
        Whether a callback asked to stop.
    interrupted : bool
        Whether the user pressed Ctrl-C, as seen by :meth:`noticing_interrupts`.
    """

    def __init__(
        self,
        module: TunedModule,
        *,
        head_lr_factor: float,
        clip_grad_norm: float | None,
        weight_decay: float,
        mixed_precision: torch.dtype | None = None,
        accumulate_grad_batches: int = 1,
        num_workers: int = 0,
        penalty_weight: float = 0.0,
        **params: Any,
    ):
        self.head_lr_factor = head_lr_factor
        self.clip_grad_norm = clip_grad_norm
        self.weight_decay = weight_decay
        self.mixed_precision = mixed_precision
        self.accumulate_grad_batches = accumulate_grad_batches
        self.num_workers = num_workers
        self.penalty_weight = penalty_weight
        device = module.backbone.device.type
        in_half = mixed_precision == torch.float16
        self.scaler = torch.amp.GradScaler(device, enabled=in_half)
        self.scheduler = None
        self.stopped = False
        self.interrupted = False
        self._has_stepped = True
        self._n_batches = self._n_accumulated = 0
        super().__init__(
            module,
            iterator_train=load_batches,
            iterator_train__shuffle=True,
            iterator_valid=load_batches,
            **params,
        )

    @property
    def _default_callbacks(self) -> list:
        callbacks = super()._default_callbacks
        scores = []
        if self.module.penalty is not None:
            scores = [("train_penalty", {"on_train": True})]
        if self.criterion is torch.nn.CrossEntropyLoss:
            scores.append(("valid_acc", {"lower_is_better": False}))
        # Before the log, which prints what is there when its turn comes.
        callbacks[-1:-1] = [
            (name, skorch.callbacks.PassthroughScoring(name, **options))
            for name, options in scores
        ]
        if self.clip_grad_norm is not None:
            clip = skorch.callbacks.GradientNormClipping(self.clip_grad_norm)
            callbacks.append(("clip_grad_norm", clip))
        return callbacks

    def initialize_optimizer(self, triggered_directly: bool | None = None):
        """Make the optimiser, with the head's learning rate beside the backbone's."""
        groups = self.module_.parameter_groups(self.lr, self.head_lr_factor)
        self.optimizer_ = self.optimizer(
            groups, lr=self.lr, weight_decay=self.weight_decay
        )
        return self

    def get_iterator(
        self, dataset: Samples, training: bool = False
    ) -> torch.utils.data.DataLoader:
        """A loader of batches; several are read in workers if there are any."""
        loader = super().get_iterator(dataset, training=training)
        # Forks of several threads can lock each other out.
        is_main = threading.current_thread() is threading.main_thread()
        if not (self.num_workers and len(loader) > 1 and is_main):
            return loader
        backbone = self.module_.backbone
        return WorkerLoader(
            loader,
            min(self.num_workers, len(loader)),
            Reader(backbone.extractor, backbone.module),
            keep_samples=training and self.module_.penalty is not None,
        )

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Train or validate for an epoch, and end the workers."""
        if iterator is None:
            return
        self._n_batches = len(iterator)
        with batches_of(iterator) as batches:
            super().run_single_epoch(batches, training, prefix, step_fn, **fit_params)
        self._has_stepped = True  # for what follows an epoch

    def infer(self, x: Batch, **fit_params: Any):
        """Outputs and features of a batch."""
        precision = nullcontext()
        if self.mixed_precision is not None:
            device = self.module_.backbone.device
            precision = torch.autocast(device.type, dtype=self.mixed_precision)
        with precision:
            outputs, features = self.module_(x.X, x.inputs)
        return outputs.float(), features

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """The loss of the labelled samples and, in training, the penalty of all."""
        outputs, features = y_pred
        loss = super().get_loss(outputs[: len(y_true)], y_true)
        if not training or self.module_.penalty is None:
            return loss
        # With weight 0, what the term draws at random must not change the training.
        is_off = self.penalty_weight == 0
        batch = PenaltyBatch(features=features, outputs=outputs, X=X.X, rows=X.rows)
        with forked_rng(loss.device) if is_off else nullcontext():
            penalty = self.module_.penalty(batch)
        if not isinstance(penalty, torch.Tensor) or penalty.numel() != 1:
            raise TypeError(
                "The term of a penalty must return a tensor with one number, such as a "
                f"mean over the batch. Got {penalty!r:.80}."
            )
        self.history.record_batch("train_penalty", penalty.item())
        if is_off:  # a gradient of 0 would still have weights decay that are not used
            return loss
        return loss + self.penalty_weight * penalty

    def train_step(self, batch, **fit_params: Any) -> dict:
        """Gradients of a batch and, after the last of a group, a step.

        A loss of NaN is an error. In float16 the scaler skips the step; an epoch
        without any finite loss is the error then.
        """
        self._set_training(True)
        n_done = len(self.history[-1, "batches"])
        n_together = self.accumulate_grad_batches
        if (n_done - 1) % n_together == 0:
            self._zero_grad_optimizer()
            self._n_accumulated = 0
        outputs = self.infer(batch[0], **fit_params)
        loss = self.get_loss(outputs, batch[1], X=batch[0], training=True)
        step = {"loss": loss, "y_pred": outputs}
        self._check_loss(batch, step, is_last=n_done == self._n_batches)
        # A group is as one large batch: a mean over its samples.
        share = 1.0 if n_together == 1 else len(batch[1]) / self.batch_size
        self._n_accumulated += share
        self.scaler.scale(loss * share).backward()
        self._has_stepped = False
        if n_done % n_together == 0 or n_done == self._n_batches:
            self._step(batch)
        return step

    def _step(self, batch: Any) -> None:
        """One step of the optimiser and, unless it was skipped, of the schedule."""
        self.scaler.unscale_(self.optimizer_)
        if self._n_accumulated != 1:
            for parameter in self.module_.parameters():
                if parameter.grad is not None:
                    parameter.grad /= self._n_accumulated
        self.notify(
            "on_grad_computed",
            named_parameters=skorch.utils.TeeGenerator(self.get_all_learnable_params()),
            batch=batch,
            training=True,
        )
        self.scaler.step(self.optimizer_)
        scale = self.scaler.get_scale()
        self.scaler.update()
        self._has_stepped = self.scaler.get_scale() >= scale
        if self.scheduler is not None and self._has_stepped:
            self.scheduler.step()

    @property
    def accelerator(self) -> SimpleNamespace:
        """By this name skorch's LRScheduler asks whether there was a step."""
        return SimpleNamespace(optimizer_step_was_skipped=not self._has_stepped)

    def _check_loss(self, batch: Any, step: dict, is_last: bool) -> None:
        loss = step["loss"].item()
        if math.isfinite(loss):
            return
        if self.scaler.is_enabled():
            seen = [row.get("train_loss", loss) for row in self.history[-1, "batches"]]
            if not is_last or np.isfinite(seen).any():
                return
        bad = not_finite(step["y_pred"][0])
        where = "the samples"
        if 0 < len(bad) < len(batch[0]):
            where = batch[0].describe(bad)
        rates = [f"{group['lr']:.3g}" for group in self.optimizer_.param_groups]
        penalty = " or penalty 'weight'" if self.penalty_weight else ""
        raise DivergenceError(
            f"The loss was {loss} in epoch {self.history[-1, 'epoch']}, at the "
            f"learning rate(s) {', '.join(rates)} (lr={self.lr}, head_lr_factor="
            f"{self.head_lr_factor}). Try a smaller 'lr'{penalty}, and look for NaN in "
            f"{where}."
        )

    def validation_step(self, batch, **fit_params: Any) -> dict:
        """Loss and, for classification, accuracy of a batch."""
        step = super().validation_step(batch, **fit_params)
        loss = step["loss"].item()
        if not math.isfinite(loss):
            bad = not_finite(step["y_pred"][0])
            reason = (
                f"The outputs were NaN or infinity for {batch[0].describe(bad)}; look "
                "for NaN in these."
                if len(bad)
                else "The outputs are too large: try a smaller 'lr'."
            )
            raise DivergenceError(
                f"The validation loss was {loss} in epoch {self.history[-1, 'epoch']}. "
                f"{reason}"
            )
        if self.criterion is torch.nn.CrossEntropyLoss:
            hits = step["y_pred"][0].argmax(1).cpu() == batch[1]
            self.history.record_batch("valid_acc", hits.double().mean().item())
        return step

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Run the callbacks, which stop training by raising KeyboardInterrupt."""
        if self.interrupted:  # where an exception is ignored, as in a __del__
            raise KeyboardInterrupt
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            if self.interrupted:  # by the user, while a callback ran
                raise
            self.stopped = True

    @contextmanager
    def noticing_interrupts(self) -> Iterator[None]:
        """Distinguish Ctrl-C from a KeyboardInterrupt raised by a callback."""
        self.interrupted = False
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGINT)
        # Signals reach the main thread only, and raise only if Python handles them.
        if not (is_main and callable(before)):
            yield
            return

        def handle(number, frame):
            try:
                before(number, frame)
            except KeyboardInterrupt:
                self.interrupted = True
                raise

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
