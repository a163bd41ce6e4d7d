"""What makes a torch module, by its name, and what tells a module from another."""

from __future__ import annotations

import operator
from collections.abc import Callable
from importlib import import_module
from typing import Any

from sktransfer.feature_extraction._fingerprint import (
    UndigestibleError,
    digest,
)
from sktransfer.feature_extraction._in_use import parts_of, tensors_of
from sktransfer.utils._exclusive import exclusive
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")


def import_factory(name: str) -> Callable[[], torch.nn.Module]:
    """Import what ``"package.module:factory"`` names; a ValueError if it cannot be."""
    module, _, path = name.partition(":")
    try:
        return operator.attrgetter(path)(import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            "The 'module' parameter of TorchFeatureExtractor must be, where it is a "
            f"str, an import name 'package.module:factory'. Got {name!r} instead "
            f"({type(error).__name__}: {error})."
        ) from error


def digest_module(module: torch.nn.Module) -> str:
    """Digest of a module as it is, which no thread uses meanwhile."""
    with exclusive(parts_of(module)):
        return digest(module)


def digest_made(module: torch.nn.Module, cache: dict[str, Any]) -> str:
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
