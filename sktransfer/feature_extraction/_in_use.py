"""A torch module while features are extracted with it, and as it was afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sktransfer.utils._exclusive import exclusive
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")

# Set by transformers beside the hooks that it adds to a model and leaves there.
_HOOKS_FLAG = "_output_capturing_hooks_installed"
_open: list[_Use] = []


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


def copy_module(module: torch.nn.Module) -> torch.nn.Module:
    """Copy a module while no other thread uses it, which may have hooks on it."""
    with exclusive(parts_of(module)):
        return copy.deepcopy(module)


@contextmanager
def without_new_hooks(module: torch.nn.Module) -> Iterator[None]:
    """Remove the hooks that transformers adds to a module while it runs."""
    before = _hooks_of(list(module.modules()))
    try:
        yield
    finally:
        _remove_hooks(before)


@contextmanager
def in_use(
    module: torch.nn.Module, device: torch.device, *, put_back: bool
) -> Iterator[None]:
    """Keep a module to this thread, in evaluation mode on the device.

    With `put_back` it is moved back to where it was. Uses by one thread may overlap,
    as those of two streams that are read in turns: each lasts until those that began
    during it have ended. A ValueError says if the module has no weights yet.
    """
    use = _Use(module, device, put_back)
    try:
        yield
    finally:
        use.release()


class _Use:
    """A module's use, and the uses of its parts that began before and go on."""

    def __init__(self, module: torch.nn.Module, device: torch.device, put_back: bool):
        submodules = list(module.modules())
        tensors = tensors_of(submodules)
        with ExitStack() as undo:
            undo.enter_context(exclusive(submodules + tensors))
            if any(tensor.is_meta for tensor in tensors):
                raise ValueError(
                    f"{type(module).__name__} has tensors on the device 'meta', which "
                    "hold no values. Load its weights before extracting features."
                )
            if put_back and tensors:
                undo.callback(module.to, tensors[0].device)
            undo.callback(_restore, [(part, part.training) for part in submodules])
            undo.callback(_remove_hooks, _hooks_of(submodules))
            module.to(device)
            for part in submodules:
                # Some override eval(): it is called only where it changes the mode.
                if part.training:
                    part.eval()
            self.parts = {*map(id, submodules), *map(id, tensors)}
            self.earlier = [
                use for use in _open if not use.parts.isdisjoint(self.parts)
            ]
            for use in self.earlier:
                use.n_holders += 1
            self.n_holders = 1
            self.undo = undo.pop_all()
            _open.append(self)

    def release(self) -> None:
        self.n_holders -= 1
        if self.n_holders == 0:
            _open.remove(self)
            with ExitStack() as all_of_them:
                for use in self.earlier:
                    all_of_them.callback(use.release)
                self.undo.close()


def _restore(modes: list[tuple[torch.nn.Module, bool]]) -> None:
    """Bring every submodule back to its own mode, parents before their children."""
    for part, training in modes:
        if part.training != training:
            part.train(training)  # which may do more, such as undo a merge of weights
    for part, training in modes:
        part.training = training  # where a parent's own train() had the last word


def _hooks_of(submodules: list[torch.nn.Module]) -> list[tuple]:
    return [
        (part, set(part._forward_hooks), _HOOKS_FLAG in vars(part))
        for part in submodules
    ]


def _remove_hooks(before: list[tuple]) -> None:
    """Remove the hooks that transformers has added to collect hidden states.

    With them, a model can be neither pickled nor sent to another process.
    """
    for part, hooks, has_flag in before:
        for key, hook in list(part._forward_hooks.items()):
            owner = getattr(hook, "__module__", None) or ""
            if key not in hooks and owner.startswith("transformers."):
                del part._forward_hooks[key]
        if not has_flag:
            vars(part).pop(_HOOKS_FLAG, None)
