"""Where an interrupted training goes on from."""

from __future__ import annotations

import copy
import inspect
import json
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from sktransfer.feature_extraction import BaseExtractor
from sktransfer.feature_extraction._fingerprint import (
    UndigestibleError,
    digest,
    digest_samples,
)
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.tuning._backbone import as_extractor
from sktransfer.tuning._net import TuningNet
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")
skorch = import_optional("skorch", extra="tuning", needed_by="sktransfer.tuning")


_KEYS = {
    "seeds",
    "module",
    "optimizer",
    "scheduler",
    "scaler",
    "callbacks",
    "history",
    "stopped",
    "random",
    "random_cuda",
}


class Checkpoint:
    """Everything that training depends on, in one file, replaced after every epoch.

    `identity` and the samples, labelled and not, distinguish this training from all
    others in the folder. `state` is what the file held at the start, or None. A damaged
    file raises ValueError, and something that cannot be identified by its content
    TypeError.
    """

    def __init__(
        self, folder: str | os.PathLike, identity: Any, samples: Sequence[Any]
    ):
        try:
            own = digest([_describe(identity), *map(_digest_samples, samples)])
        except UndigestibleError as error:
            raise TypeError(
                "The 'checkpoint_dir' parameter needs a training that is identified by "
                f"its content. {error} Replace it, or leave 'checkpoint_dir' out."
            ) from error
        self.path = Path(folder) / f"{own[:32]}.pt"
        self.state = None
        if self.path.exists():
            with self.path.open("rb") as file, self._blaming_damage():
                state = torch.load(file, map_location="cpu", weights_only=True)
                if set(state) != _KEYS:
                    raise ValueError("it holds something else")
            self.state = state
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def save(self, net: TuningNet, seeds: Sequence[int]) -> None:
        """Write the state after an epoch; if killed, the previous file stays intact."""
        device = net.module_.backbone.device
        on_cuda = device.type == "cuda"
        state = {
            "seeds": [int(seed) for seed in seeds],
            "module": net.module_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "scheduler": net.scheduler.state_dict() if net.scheduler else None,
            "scaler": net.scaler.state_dict(),
            "callbacks": {name: _remembered(own) for name, own in net.callbacks_},
            "history": json.dumps(net.history.to_list(), default=_plain),
            "stopped": net.stopped,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(device) if on_cuda else None,
        }
        # Threads of one process may do the same training, too.
        own = f"{os.getpid()}-{threading.get_ident()}"
        part = self.path.with_suffix(f".{own}.part")
        try:
            torch.save(state, part)
            os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)

    def restore(self, net: TuningNet) -> None:
        """Bring an initialised net to the state of the file, if there was one."""
        state = self.state
        if state is None:
            return
        with self._blaming_damage():
            net.module_.load_state_dict(state["module"])
            net.optimizer_.load_state_dict(state["optimizer"])
            if net.scheduler:
                net.scheduler.load_state_dict(state["scheduler"])
            net.scaler.load_state_dict(state["scaler"])
            net.history = skorch.history.History(json.loads(state["history"]))
            torch.set_rng_state(state["random"])
            device = net.module_.backbone.device
            if device.type == "cuda" and state["random_cuda"] is not None:
                torch.cuda.set_rng_state(state["random_cuda"], device)
        net.stopped = state["stopped"]

    def restore_callbacks(self, net: TuningNet) -> None:
        """Give callbacks back what they remembered, once training has begun."""
        if self.state is None:
            return
        callbacks = dict(net.callbacks_)
        with self._blaming_damage():
            for name, state in self.state["callbacks"].items():
                for attribute, (has_state, value) in state.items():
                    if has_state:
                        getattr(callbacks[name], attribute).load_state_dict(value)
                    else:
                        setattr(callbacks[name], attribute, value)
            # Schedulers of skorch's have set the learning rates when they were made.
            net.optimizer_.load_state_dict(self.state["optimizer"])

    @contextmanager
    def _blaming_damage(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # torch has one of its own for every damage
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"The checkpoint {self.path} is damaged, and training cannot go on "
                f"from it ({reason}). Delete the file to train from the start."
            ) from error


def _plain(value: Any) -> Any:
    """A value recorded by a callback as JSON, or as text if JSON lacks its type."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _remembered(callback: Any) -> dict[str, tuple[bool, Any]]:
    """What a callback keeps, by skorch's convention in attributes named "..._".

    Values are stored, of objects that have one the ``state_dict``; other objects, which
    can only be pickled, are left out.
    """
    state = {}
    for name, value in vars(callback).items():
        has_state = hasattr(value, "load_state_dict")
        with suppress(TypeError):
            if name.endswith("_"):
                value = value.state_dict() if has_state else value
                state[name] = has_state, _as_values(value)
    return state


def _as_values(value: Any) -> Any:
    """Nested values as they can be loaded without running code; others a TypeError."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(map(_as_values, value))
    if type(value) in (dict, OrderedDict, Counter):
        copied = copy.copy(value)  # with the metadata of a module's state
        for key, part in value.items():
            copied[key] = _as_values(part)
        return copied
    if value is None or type(value) in (bool, int, float, str, torch.Tensor):
        return value
    raise TypeError(type(value))


def _digest_samples(X: Any) -> str:
    try:
        return digest_samples(X)
    except UndigestibleError:
        # A data set that augments at random gives other samples each time, but it is
        # still the same training.
        return digest(X)


def _describe(value: Any) -> Any:
    """Estimators by what they compute, callbacks by their parameters, others as is."""
    if isinstance(value, BaseExtractor):
        return value.fingerprint()
    if isinstance(value, (LogME, LogMEClassifier)):
        # Six digits, because the number of threads affects the rounding.
        fitted = value.__sklearn_is_fitted__()
        logme = f"{value.logme_:.6g}" if fitted else None
        return type(value), value.get_params(), logme
    if isinstance(value, BaseEstimator):
        return type(value), _describe(value.get_params(deep=False))
    if isinstance(value, skorch.callbacks.Callback):
        return type(value), _describe(_callback_params(value))
    if isinstance(value, dict):
        # An import name stands for the code that it names.
        is_name = {"network"} if isinstance(value.get("network"), str) else set()
        return {
            key: _describe(as_extractor(part) if key in is_name else part)
            for key, part in value.items()
            if key != "memory"  # where features are kept
        }
    if isinstance(value, (list, tuple)):
        return [_describe(part) for part in value]
    return value


def _callback_params(callback: Any) -> dict[str, Any]:
    """The constructor arguments of a callback, without what it has stored since."""
    params = callback.get_params(deep=False)
    expected = inspect.signature(type(callback)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in expected.values()):
        return params
    return {name: value for name, value in params.items() if name in expected}
