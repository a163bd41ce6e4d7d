"""A torch module while features are extracted with it, and as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sktransfer.utils._exclusive import exclusive
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")


def parts_of(module: torch.nn.Module) -> list:
    """All that other modules may share with a module: submodules and tensors."""
    submodules = list(module.modules())
    return submodules + tensors_of(submodules)


def tensors_of(submodules: list[torch.nn.Module]) -> list[torch.Tensor]:
    """Parameters and buffers, from one walk over all submodules."""
    own = [
        tensor
        for part in submodules
        for tensors in (part._parameters, part._buffers)
        for tensor in tensors.values()
    ]
    return [tensor for tensor in own if tensor is not None]


@contextmanager
def in_use(
    module: torch.nn.Module, device: torch.device, *, put_back: bool
) -> Iterator[None]:
    """Keep a module to this thread, in evaluation mode on the device.

    Parameters
    ----------
    module : torch.nn.Module

    device : torch.device

    put_back : bool
        Whether to move it back to where it was.

    Raises
    ------
    ValueError
        If the module has no weights yet.
    """
    submodules = list(module.modules())
    tensors = tensors_of(submodules)
    with exclusive(submodules + tensors):
        if any(tensor.is_meta for tensor in tensors):
            raise ValueError(
                f"{type(module).__name__} has tensors on the device 'meta', which "
                "hold no values. Load its weights before extracting features."
            )
        home = tensors[0].device if tensors else None
        modes = [(part, part.training) for part in submodules]
        try:
            module.to(device)
            for part, _ in modes:
                # A module in evaluation mode may have been brought there by hand.
                if part.training:
                    part.eval()
            yield
        finally:
            try:
                _restore(modes)
            finally:
                if put_back and home is not None:
                    module.to(home)


def _restore(modes: list[tuple[torch.nn.Module, bool]]) -> None:
    """Bring every submodule back to its own mode, parents before their children."""
    for part, training in modes:
        if part.training != training:
            part.train(training)  # which may do more, such as undo a merge of weights
    for part, training in modes:
        part.training = training  # where a parent's own train() had the last word
