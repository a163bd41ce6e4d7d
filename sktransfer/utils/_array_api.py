"""Namespace, device and dtype of the arrays that a user passes.

Large products run where the features are (NumPy, PyTorch, CuPy, through
array-api-compat); arrays as small as a spectrum are brought to the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from array_api_compat import (
    array_namespace,
    device,
    is_array_api_obj,
    is_cupy_array,
    is_numpy_array,
    is_numpy_namespace,
    is_torch_array,
)
from scipy.sparse import csc_array

__all__ = [
    "beside",
    "cached_rows",
    "chunks",
    "class_sums",
    "cross_product",
    "device",
    "from_numpy",
    "get_namespace",
    "gram",
    "in_range",
    "is_numpy_namespace",
    "real_floating",
    "to_numpy",
    "unit_rows",
]

# Rows (or columns) multiplied at once: long enough for a matrix product to run at
# full speed, short enough that float32 sums do not lose digits.
CHUNK = 16_384

# Entries that several operations can share while they are in the cache.
_IN_CACHE = 2**20


def get_namespace(**arrays: Any) -> tuple[Any, Any]:
    """Return the array namespace and device shared by the named arrays.

    Lists, data frames, labels of a non-numeric dtype and ``None`` fit any array, and
    count as NumPy's on their own. Different libraries or devices are a ValueError.
    """
    given = {
        name: array
        for name, array in arrays.items()
        if is_array_api_obj(array)
        and not (is_numpy_array(array) and array.dtype.kind in "OSUT")
    }
    if not given or all(is_numpy_array(array) for array in given.values()):
        return array_namespace(np.empty(0)), "cpu"
    homes = {
        name: (array_namespace(array), device(array)) for name, array in given.items()
    }
    first, *others = homes.values()
    if any(xp is not first[0] or where != first[1] for xp, where in others):
        described = ", ".join(
            f"{name}: {xp.__name__.rpartition('array_api_compat.')[2]} on {where}"
            for name, (xp, where) in homes.items()
        )
        raise ValueError(
            "All arrays must come from one library and live on one device; got "
            f"{described}."
        )
    return first


def to_numpy(array: Any) -> np.ndarray:
    """Copy an array of any namespace to host memory as a NumPy array."""
    if is_torch_array(array):
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":  # NumPy has none
            array = array.float()
        return array.numpy()
    if is_cupy_array(array):
        return array.get()
    return np.asarray(array)


def from_numpy(array: np.ndarray, xp: Any, device: Any) -> Any:
    """Bring a NumPy array to a namespace and device."""
    if is_numpy_namespace(xp):
        return array
    # Torch shares the memory, and has no arrays that are read only.
    return xp.asarray(np.require(array, requirements="W"), device=device)


def beside(y: Any, X: Any) -> Any:
    """Bring a target to the namespace and device of `X`; lists and text stay."""
    if not is_array_api_obj(y) or (is_numpy_array(y) and y.dtype.kind in "OSUT"):
        return y
    xp, device = get_namespace(X=X)
    if get_namespace(y=y) == (xp, device):
        return y
    return from_numpy(to_numpy(y), xp, device)


def real_floating(array: Any, xp: Any) -> Any:
    """Return `array` as float32 or float64: half precision and integers are raised."""
    if array.dtype in (xp.float32, xp.float64):
        return array
    if xp.isdtype(array.dtype, "complex floating"):
        raise ValueError("Complex data not supported.")
    half = xp.isdtype(array.dtype, "real floating")
    return xp.astype(array, xp.float32 if half else xp.float64)


def chunks(n: int, size: int = CHUNK) -> Iterator[slice]:
    """Yield consecutive slices that cover ``range(n)``."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def unit_rows(A: Any) -> Any:
    """Rows of `A` scaled to norm one; rows of zeros stay."""
    xp, _ = get_namespace(A=A)

    def divided(A: Any, sizes: Any) -> Any:
        return A / xp.where(sizes > 0, sizes, xp.ones_like(sizes))[:, None]

    # With a largest entry of 1 squares stay in the range of single precision.
    A = divided(A, xp.max(xp.abs(A), axis=1))
    return divided(A, xp.sqrt(xp.sum(A**2, axis=1)))


def in_range(A: Any) -> tuple[Any, int]:
    """Return (scaled, exponent), A = scaled * 2 ** exponent, exactly.

    The exponent is zero unless squares of entries would leave the range of the dtype.
    """
    xp, _ = get_namespace(A=A)
    exponent = math.frexp(float(xp.max(xp.abs(A))))[1]
    limit = math.frexp(float(xp.finfo(A.dtype).max))[1] // 4
    if abs(exponent) <= limit:
        return A, 0
    # In two steps, as 2 ** -exponent may itself be out of range.
    half = exponent // 2
    return A * 2.0**-half * 2.0 ** (half - exponent), exponent


def cached_rows(A: Any) -> Iterator[slice]:
    """Yield slices of rows of `A` that are still in the cache at the next operation."""
    return chunks(A.shape[0], max(1, _IN_CACHE // A.shape[1]))


def gram(A: Any, xp: Any, weights: Any = None) -> Any:
    """Return A^T diag(weights) A in float64.

    Products are taken in A's dtype and accumulated in float64, chunk by chunk.
    """
    total = None
    for rows in chunks(A.shape[0]):
        part = A[rows, :]
        if weights is not None:
            part = part * xp.astype(xp.sqrt(weights[rows]), A.dtype)[:, None]
        # Both factors are views of one buffer, which NumPy hands to BLAS as a
        # symmetric product: half the multiplications.
        total = _accumulate(total, part.T @ part, xp)
    return total


def cross_product(A: Any, Y: Any, xp: Any, weights: Any = None) -> Any:
    """Return A^T diag(weights) Y in float64, multiplied in A's dtype."""
    total = None
    for rows in chunks(A.shape[0]):
        target = Y[rows, :]
        if weights is not None:
            target = target * weights[rows, None]
        total = _accumulate(total, A[rows, :].T @ xp.astype(target, A.dtype), xp)
    return total


def class_sums(
    A: Any,
    codes: Any,
    n_classes: int,
    xp: Any,
    weights: Any = None,
    read: Callable[[slice], Any] | None = None,
) -> Any:
    """Return the (weighted) sum of the rows of `A` in every class, in float64.

    It equals ``cross_product(A, one_hot(codes))`` without the one-hot matrix. `read`
    gives rows of `A` for a slice, in blocks that stay in the cache.
    """
    total = None
    for rows in chunks(A.shape[0]) if read is None else cached_rows(A):
        part, labels = A[rows, :] if read is None else read(rows), codes[rows]
        values = xp.ones_like(part[:, 0]) if weights is None else weights[rows]
        values = xp.astype(values, A.dtype)
        if is_numpy_namespace(xp):
            # The transposed one-hot matrix: one entry per column, no sorting.
            one_hot = (values, labels, np.arange(len(labels) + 1))
            shape = (n_classes, len(labels))
            product = (csc_array(one_hot, shape=shape) @ part).T
        else:
            classes = xp.arange(n_classes, device=device(part))
            members = xp.astype(labels[:, None] == classes[None, :], A.dtype)
            product = part.T @ (members * values[:, None])
        total = _accumulate(total, product, xp)
    return total


def _accumulate(total: Any, product: Any, xp: Any) -> Any:
    if total is None:
        return xp.astype(product, xp.float64)
    total += product
    return total
