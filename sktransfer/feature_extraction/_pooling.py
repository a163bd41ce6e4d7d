"""What becomes of a layer's output: pooled features, or source probabilities."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")


def pool(
    tensor: torch.Tensor,
    how: str | tuple[str, int] | Callable[..., torch.Tensor],
    batch: Any = None,
) -> torch.Tensor:
    """Pool a layer to float32 features (n, n_features), in memory of their own.

    Outputs with two axes pass through. Of three, (n, tokens, features), the last holds
    the features; of four and more, (n, features, height, width), the second does. A
    grid keeps k x k means of maps with two spatial axes, and one mean of others. A
    callable that takes two arguments gets the batch, too.
    """
    own, tensor = tensor, tensor.to(torch.float32)
    n_axes = tensor.ndim
    if callable(how):
        given = (tensor, batch) if _takes_two(how) else (tensor,)
        tensor = torch.as_tensor(how(*given), dtype=torch.float32)
    elif how == "flatten" or n_axes < 3:
        tensor = tensor.reshape(tensor.shape[0], -1)
    elif isinstance(how, tuple) and n_axes == 4:
        tensor = _pool_to_grid(tensor, how[1])
    else:
        axes = 1 if n_axes == 3 else tuple(range(2, n_axes))
        tensor = tensor.amax(axes) if how == "max" else tensor.mean(axes)
    # A view would change with a later layer that works in place. Tensors have no memory
    # while torch traces a network.
    if torch.compiler.is_compiling() or _memory(tensor) == _memory(own):
        return tensor.clone()
    return tensor


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _pool_to_grid(maps: torch.Tensor, k: int) -> torch.Tensor:
    """Adaptive average pooling of maps to k x k, flattened to (n, channels k k)."""
    n, c, h, w = maps.shape
    traced = torch.compiler.is_compiling()  # its tensors must not be cached
    if traced or not maps.is_cpu or k > 3 or h * w > 2**16:
        return torch.nn.functional.adaptive_avg_pool2d(maps, int(k)).flatten(1)
    # Here products take a fifth to three quarters of that time.
    cells = _grid(h, w, int(k))
    with torch.autocast("cpu", enabled=False):
        if maps.is_contiguous():
            return (maps.reshape(n * c, h * w) @ cells).reshape(n, -1)
        # The channels are last in memory.
        means = cells.T @ maps.permute(0, 2, 3, 1).reshape(n, h * w, c)
        return means.transpose(1, 2).reshape(n, -1)


@lru_cache(maxsize=64)
def _grid(h: int, w: int, k: int) -> torch.Tensor:
    """Matrix (h w, k k) that takes a flat map to the means of its cells."""
    with torch.inference_mode(False), torch.no_grad():
        rows, columns = (
            torch.nn.functional.adaptive_avg_pool1d(
                torch.eye(n, dtype=torch.float32, device="cpu"), k
            )
            for n in (h, w)
        )
        return torch.kron(rows, columns)


def _takes_two(function: Callable) -> bool:
    """Whether a function needs two arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some of those written in C do not tell
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters) == 2


def softmax(logits: torch.Tensor) -> torch.Tensor:
    """Float32 probabilities (n, n_classes) of logits (n, n_classes[, 1, 1])."""
    if logits.ndim < 2 or logits.shape[2:].numel() != 1:
        raise ValueError(
            "The source head must give logits of shape (n_samples, n_source_classes). "
            f"Got shape {tuple(logits.shape)}."
        )
    return torch.softmax(logits.to(torch.float32).flatten(1), dim=1)
