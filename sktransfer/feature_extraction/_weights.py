"""Digests of torch modules, and of the weights that they load."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from typing import Any
from uuid import uuid4

from sktransfer.feature_extraction._fingerprint import UndigestibleError, digest
from sktransfer.feature_extraction._in_use import parts_of, tensors_of
from sktransfer.utils._exclusive import exclusive


def digest_module(module: Any) -> str:
    """Digest of a module as it is, while no other thread uses it."""
    with exclusive(parts_of(module)):
        return digest(module)


def digest_made(module: Any, cache: dict[str, Any]) -> str:
    """Digest of a module that a factory has made, as it was when first asked for.

    Use may leave traces in its attributes, but the same factory will make it without.
    New weights count: those that are changed in place tell by their versions.
    """
    tensors = tensors_of(list(module.modules()))
    if any(hasattr(tensor, "materialize") for tensor in tensors):
        raise UndigestibleError(
            f"Cannot make a fingerprint of {type(module).__name__}: it is lazy, and "
            "draws its weights at the first pass."
        )
    versions = [None if t.is_inference() else (id(t), t._version) for t in tensors]
    known, seen, found = cache.get("digest of the module", (None, None, None))
    if known is not module or seen != versions:
        found = digest_module(module)
        cache["digest of the module"] = module, versions, found
    return found


def check_weights(module: Any, pinned: str | None, owner: object) -> str:
    """Digest of a module's weights; a ValueError if they differ from those pinned."""
    weights = _digest_weights(module)
    if pinned not in (None, weights):
        raise ValueError(
            f"{type(owner).__name__} was scored with other weights than those loaded "
            "now. Its `network` must produce the same weights every time: load a "
            "checkpoint, set a seed, or pass the module itself."
        )
    return weights


def _digest_weights(module: Any) -> str:
    """Digest of all parameters and buffers that have values to read."""
    parts: list[Any] = []
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if hasattr(tensor, "materialize"):  # lazy: drawn at the first pass, each time
            parts.append(uuid4().hex)
        elif tensor.is_meta or str(tensor.layout) != "torch.strided":
            parts.append((name, str(tensor.layout)))
        else:
            with suppress(UndigestibleError):  # such as nested tensors
                parts.append((name, digest(tensor)))
    return digest(parts)
