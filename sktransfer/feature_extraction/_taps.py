"""Tensors taken from within a torch module as it runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")


class Tap(NamedTuple):
    """Where a tensor is taken: a submodule's output, or what goes into it."""

    submodule: torch.nn.Module
    on_input: bool = False


def run_with_taps(
    call: Callable[[], Any],
    taps: Mapping[str, Tap],
    reduce: Callable[[str, torch.Tensor], torch.Tensor],
    *,
    candidates: Collection[str] = (),
    n_samples: int | None = None,
    linear: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """Run one forward pass, and reduce the tensor at each tap as it passes by.

    `reduce(name, tensor)` at once keeps no large activation alive, and sees it before
    a later layer can change it in place. Where a submodule runs more than once, its
    last run counts; a ValueError says if one did not run. The results are in the order
    of these runs, without those of `candidates` that did not run, gave no features of
    `n_samples` or gave a copy of what is there. Where `reduce` takes the means
    within the channels, as for the taps `linear`, those after a batch normalisation
    are computed from those before.
    """
    seen: dict[str, torch.Tensor] = {}
    copies = _Copies()

    def attach(name: str, tap: Tap):
        is_candidate = name in candidates

        def take(value: Any, source: str | None = None) -> None:
            means = seen.get(source)  # before an earlier run is removed
            seen.pop(name, None)
            tensor = first_tensor(value)
            if is_candidate:
                if tensor is None or not _is_layer(tensor, n_samples):
                    return
            elif tensor is None:
                raise ValueError(f"The layer {name!r} has no tensor in its output.")
            if (copied := copies.find(tensor)) in seen:
                if is_candidate:
                    return
                if copied in candidates:
                    del seen[copied]  # rather than the network's own features
            copies.note(name, tensor)
            if means is None:
                seen[name] = reduce(name, tensor)
            else:
                seen[name] = _normalise(tap.submodule, means)

        def take_output(_: Any, args: tuple, out: Any) -> None:
            is_known = name in linear and _only_normalises(tap.submodule, args)
            source = copies.find(args[0], itself=True) if is_known else None
            take(out, source if source in linear else None)

        if tap.on_input:
            return tap.submodule.register_forward_pre_hook(
                lambda _, args, kwargs: take((args, kwargs)), with_kwargs=True
            )
        return tap.submodule.register_forward_hook(take_output)

    with ExitStack() as hooks:
        for name, tap in taps.items():
            hooks.callback(attach(name, tap).remove)
        call()
    missing = [name for name in taps if name not in seen and name not in candidates]
    if missing:
        raise ValueError(
            f"The forward pass did not run {missing}, which therefore have no output."
        )
    return seen


def _only_normalises(module: torch.nn.Module, args: tuple) -> bool:
    """Whether a module rescales the channels of square maps, and does nothing else.

    Of other maps, those of timm may have their channels last.
    """
    return (
        type(module) is torch.nn.BatchNorm2d
        and not module.training
        and module.running_mean is not None
        and module.running_mean.dtype == torch.float32
        and "forward" not in vars(module)
        and len(module._forward_hooks) == 1  # others may change the output
        and len(args) == 1
        and args[0].shape[2] == args[0].shape[3]
    )


def _normalise(module: torch.nn.BatchNorm2d, means: torch.Tensor) -> torch.Tensor:
    """The means within the channels after a batch normalisation, of those before."""
    maps = means.reshape(len(means), module.num_features, -1, 1)
    return module.forward(maps).reshape(means.shape)


def _is_layer(tensor: torch.Tensor, n_samples: int | None) -> bool:
    """Whether an output is one of "all" layers: features of each sample."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_nested
        and 2 <= tensor.ndim <= 4
        and len(tensor) == n_samples
        and tensor.numel() > 0
        and tensor.is_floating_point()
    )


class _Copies:
    """Tells outputs that are copies: the same values in the same memory."""

    def __init__(self) -> None:
        self._noted: dict[int, tuple] = {}

    def find(self, tensor: torch.Tensor, *, itself: bool = False) -> str | None:
        """The last output noted that has the values of a tensor, axes of 1 aside.

        With `itself` it must be the same object.
        """
        if not _has_version(tensor) or tensor.data_ptr() not in self._noted:
            return None
        name, alive, version, shape, strides = self._noted[tensor.data_ptr()]
        # Once an output is freed, a later one may have its place in memory.
        is_copy = (
            (alive() is tensor if itself else alive() is not None)
            and tensor._version == version  # else something worked in place
            and _axes(tensor.shape, tensor.stride()) == _axes(shape, strides)
        )
        return name if is_copy else None

    def note(self, name: str, tensor: torch.Tensor) -> None:
        """Note an output, without keeping it alive."""
        if _has_version(tensor):
            what = tensor._version, tensor.shape, tensor.stride()
            self._noted[tensor.data_ptr()] = name, weakref.ref(tensor), *what


def _has_version(tensor: torch.Tensor) -> bool:
    """Whether a tensor tells its place in memory and how often it was changed."""
    is_plain = tensor.layout == torch.strided and not tensor.is_nested
    return is_plain and not tensor.is_inference()


def _axes(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Lengths and strides of the axes that are longer than 1."""
    return [axis for axis in zip(shape, strides, strict=True) if axis[0] > 1]


def first_tensor(value: Any) -> torch.Tensor | None:
    """The first tensor in a module's output, however deep in tuples and dicts."""
    queue = [value]
    while queue:
        value = queue.pop(0)
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, Mapping):
            queue[:0] = value.values()
        elif isinstance(value, (tuple, list)):
            queue[:0] = value
        elif hasattr(value, "__dataclass_fields__"):
            queue[:0] = vars(value).values()
    return None
