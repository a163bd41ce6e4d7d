"""Tell whether weights that are loaded again are those that were scored."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from typing import Any
from uuid import uuid4

from sktransfer.feature_extraction._fingerprint import UndigestibleError, digest


def check_weights(module: Any, pinned: str | None, owner: object) -> str:
    """Refuse weights that differ from those that are pinned.

    Parameters
    ----------
    module : torch.nn.Module
    pinned : str or None
        Their digest; None if none were loaded yet.
    owner : object
        Named in the error.

    Returns
    -------
    str
        The digest of the module's weights.

    Raises
    ------
    ValueError
        If it is another.
    """
    weights = _digest_weights(module)
    if pinned not in (None, weights):
        raise ValueError(
            f"{type(owner).__name__} was scored with other weights than those it has "
            "loaded now. What makes the network must give the same weights every "
            "time: have it load a checkpoint or set a seed, or pass the module itself."
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
