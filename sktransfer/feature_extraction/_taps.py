"""Tensors taken from within a torch module as it runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")


_GIVEN = "what the network is given"


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
) -> dict[str, torch.Tensor]:
    """Run one forward pass, and reduce the tensor at each tap as it passes by.

    `reduce(name, tensor)` at once keeps no large activation alive, and sees it before
    a later layer can change it in place. Where a submodule runs more than once, its
    last run counts; a ValueError says if one did not run. The results are in the order
    of these runs. Left out are those of `candidates` that did not run, had no features
    of `n_samples`, had a copy of what is there, or had what the first of them had.
    """
    seen: dict[str, torch.Tensor] = {}
    copies = _Copies()
    has_begun = False

    def attach(name: str, tap: Tap):
        is_candidate = name in candidates

        def take(value: Any) -> None:
            nonlocal has_begun
            seen.pop(name, None)  # of an earlier run
            tensor = first_tensor(value)
            if is_candidate:
                is_first, has_begun = not has_begun, True
                if tensor is None or not is_layer(tensor, n_samples):
                    return
                if is_first:
                    copies.note(_GIVEN, tensor)
                    return
            elif tensor is None:
                raise ValueError(f"The layer {name!r} has no tensor in its output.")
            copied = copies.find(tensor)
            if is_candidate and (copied in seen or copied == _GIVEN):
                return
            if copied in candidates:
                seen.pop(copied, None)  # rather than the network's own features
            copies.note(name, tensor)
            seen[name] = reduce(name, tensor)

        if tap.on_input:
            return tap.submodule.register_forward_pre_hook(
                lambda _, args, kwargs: take((args, kwargs)), with_kwargs=True
            )
        return tap.submodule.register_forward_hook(lambda _, args, out: take(out))

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


def is_layer(tensor: torch.Tensor, n_samples: int | None) -> bool:
    """Whether a tensor is one of "all" layers: features of each sample."""
    return (
        _is_plain(tensor)
        and 2 <= tensor.ndim <= 4
        and len(tensor) == n_samples
        and tensor.numel() > 0
        and tensor.is_floating_point()
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested


class _Copies:
    """Tells tensors that are copies: the same values in the same memory."""

    def __init__(self) -> None:
        self._noted: dict[int, tuple] = {}

    def find(self, tensor: torch.Tensor) -> str | None:
        """The last tensor noted that has the values of this one, axes of 1 aside."""
        if not _has_version(tensor) or tensor.data_ptr() not in self._noted:
            return None
        name, alive, *noted = self._noted[tensor.data_ptr()]
        # Once a tensor is freed, a later one may have its place in memory.
        return name if alive() is not None and noted == _state(tensor) else None

    def note(self, name: str, tensor: torch.Tensor) -> None:
        """Note a tensor, without keeping it alive."""
        if _has_version(tensor):
            noted = name, weakref.ref(tensor), *_state(tensor)
            self._noted[tensor.data_ptr()] = noted


def _has_version(tensor: torch.Tensor) -> bool:
    """Whether a tensor tells its place in memory and how often it was changed."""
    # While torch traces a network, tensors have no memory.
    is_real = not torch.compiler.is_compiling()
    return is_real and _is_plain(tensor) and not tensor.is_inference()


def _state(tensor: torch.Tensor) -> list:
    """Number of changes in place, and the axes that are longer than 1."""
    axes = zip(tensor.shape, tensor.stride(), strict=True)
    return [tensor._version, [axis for axis in axes if axis[0] > 1]]


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
