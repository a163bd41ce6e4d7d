"""Sums over samples of products of features and targets, about a suitable origin.

Removing a large mean after a product loses digits. Removing it before costs one pass
over the features, so this is done where a mean dominates.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from sktransfer.linear_model._samples import Samples
from sktransfer.utils._array_api import (
    CHUNK,
    class_sums,
    cross_product,
    device,
    from_numpy,
    get_namespace,
    gram,
    to_numpy,
)

# A mean of more standard deviations is removed before products.
_DOMINANT = 2.0
# Rows on which means are judged.
_SAMPLE = 512
# Smallest sums of squares that are safe from underflow in float32 and float64.
_SMALLEST_SQUARE = 1e-25
_LEAST_SQUARE = 1e-280
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Moments:
    """Sums over weighted samples, of features x - c and targets y - b, in float64."""

    weight: float  # sum of the weights
    origin: Any  # c, (n_features,)
    target_origin: np.ndarray  # b, zero for classes, (n_targets,)
    gram: Any  # of (x - c)(x - c)^T, or None
    sums: Any  # of x - c
    # Diagonal of the Gram matrix as computed: the scale of its rounding, which later
    # changes of the origin do not reduce.
    squares: Any
    cross: Any  # of (x - c)(y - b)^T, (n_features, n_targets)
    target_sums: np.ndarray  # of y - b
    target_squares: np.ndarray  # of (y - b)^2
    target_rounding: np.ndarray  # the same as computed

    def about(self, origin: Any, target_origin: np.ndarray) -> Moments:
        """The same moments about another origin."""
        if origin is self.origin and target_origin is self.target_origin:
            return self
        xp, where = get_namespace(origin=self.origin)
        shift = self.origin - origin
        host = self.target_origin - target_origin
        target_shift = from_numpy(host, xp, where)
        target_sums = from_numpy(self.target_sums, xp, where)
        n = self.weight
        moved = self.gram
        if moved is not None and bool(xp.any(shift != 0)):
            outer = shift[:, None] * (self.sums + 0.5 * n * shift)[None, :]
            moved = moved + outer
            moved += outer.T
        cross = self.cross + shift[:, None] * target_sums[None, :]
        cross += (self.sums + n * shift)[:, None] * target_shift[None, :]
        squares = self.target_squares + 2 * host * self.target_sums + n * host**2
        return replace(
            self,
            origin=origin,
            target_origin=target_origin,
            gram=moved,
            sums=self.sums + n * shift,
            cross=cross,
            target_sums=self.target_sums + n * host,
            target_squares=np.maximum(squares, 0.0),
        )

    def centred(self) -> Moments:
        """The same moments about the means."""
        n = self.weight
        moments = self.about(
            self.origin + self.sums / n, self.target_origin + self.target_sums / n
        )
        # The remaining sums are the rounding of the means.
        return replace(
            moments,
            sums=moments.sums * 0.0,
            target_sums=np.zeros_like(moments.target_sums),
        )

    def raw(self) -> Moments:
        """The same moments about zero."""
        return self.about(self.origin * 0.0, np.zeros_like(self.target_origin))

    def __add__(self, other: Moments) -> Moments:
        other = other.about(self.origin, self.target_origin)
        kept = ("origin", "target_origin")
        with np.errstate(over="ignore"):
            total = Moments(
                **{
                    field.name: getattr(self, field.name)
                    if field.name in kept
                    else plus(getattr(self, field.name), getattr(other, field.name))
                    for field in fields(self)
                }
            )
        total.refuse_overflow()
        return total

    def refuse_overflow(self) -> None:
        """Raise a ValueError if sums of squares have left the range of float64."""
        for name, squares in (
            ("features", to_numpy(self.squares)),
            ("targets", self.target_squares),
        ):
            if not np.isfinite(squares).all():
                raise _out_of_range(f"{name} overflow")


def moments_of(
    samples: Samples,
    *,
    with_gram: bool = True,
    double: bool = False,
    near: Moments | None = None,
) -> Moments:
    """Moments of samples.

    Products are taken in float64 if `double`, else in the dtype of the features. The
    origin of earlier moments (`near`) is kept if it suits.
    """
    X, xp, n_classes = samples.X, samples.xp, samples.n_classes
    dtype = xp.float64 if double else X.dtype
    n = 1.0 if near is None or near.weight == 0 else near.weight
    origin = _origin(
        X[:: max(1, X.shape[0] // _SAMPLE), :],
        None if near is None else near.origin,
        None if near is None else near.squares / n,
        xp,
    )
    if n_classes is None:
        b = _origin(
            to_numpy(samples.targets),
            None if near is None else near.target_origin,
            None if near is None else near.target_rounding / n,
            get_namespace()[0],
        )
        shifted = samples.targets - from_numpy(b, xp, samples.device)
        samples = replace(samples, targets=shifted)
    else:
        b = np.zeros(n_classes)
    sums = functools.partial(_sums, samples, origin=origin, with_gram=with_gram)
    with np.errstate(over="ignore", invalid="ignore"):
        products = sums(dtype=dtype)
    if dtype != xp.float64 and not _within_range(products, X, origin, xp):
        products = sums(dtype=xp.float64)
    if not bool(xp.all(xp.isfinite(products["squares"]))):
        raise _out_of_range("features overflow")
    weights = samples.weights
    positive = weights is None or float(xp.max(weights)) > _EPS
    if (
        positive
        and float(xp.max(products["squares"])) < _LEAST_SQUARE
        and bool(xp.any(X != xp.astype(origin, X.dtype)))
    ):
        raise _out_of_range("features underflow")
    host, w = to_numpy(samples.targets), None if weights is None else to_numpy(weights)
    if n_classes is not None:
        counts = np.bincount(host, weights=w, minlength=n_classes)
        target_sums = target_squares = counts.astype(np.float64)
    else:
        w = np.ones(len(host)) if w is None else w
        with np.errstate(over="ignore", invalid="ignore"):
            target_sums, target_squares = w @ host, w @ host**2
        if not np.isfinite(target_squares).all():
            raise _out_of_range("targets overflow")
    return Moments(
        weight=float(X.shape[0] if weights is None else xp.sum(weights)),
        origin=origin,
        target_origin=b,
        **products,
        target_sums=target_sums,
        target_squares=target_squares,
        target_rounding=target_squares,
    )


def _out_of_range(what: str) -> ValueError:
    name = what.split()[0]
    return ValueError(
        f"The squares of the {what} float64: divide the {name} by their largest "
        "absolute value first."
    )


def _sums(samples: Samples, *, origin: Any, with_gram: bool, dtype: Any) -> dict:
    """Sums over samples of products in `dtype`."""
    xp, n_classes = samples.xp, samples.n_classes
    moved = bool(xp.any(origin != 0))
    unit = None
    if n_classes is None:
        # In units of their largest, targets of any size fit into float32.
        largest = np.abs(to_numpy(samples.targets)).max(axis=0, initial=0.0)
        largest = np.where(largest > 0, largest, 1.0)
        unit = from_numpy(largest, xp, samples.device)
        samples = replace(samples, targets=samples.targets / unit)
    total: dict = {}
    for block in samples.blocks(CHUNK):
        part = xp.astype(block.X, dtype, copy=False)
        if moved:
            part = part - xp.astype(origin, dtype)
        w = block.weights
        product = gram(part, xp, w) if with_gram else None
        parts = {
            "gram": product,
            "sums": cross_product(part, xp.ones_like(part[:, :1]), xp, w)[:, 0],
            "squares": _diagonal(product, part, w, xp),
            "cross": cross_product(part, block.targets, xp, w)
            if n_classes is None
            else class_sums(part, block.targets, n_classes, xp, w),
        }
        total = {name: plus(total.get(name), value) for name, value in parts.items()}
    if unit is not None:
        total["cross"] = total["cross"] * unit
    return total


def _diagonal(product: Any, part: Any, weights: Any, xp: Any) -> Any:
    if product is not None:
        return xp.linalg.diagonal(product) + 0.0
    squares = xp.astype(part, xp.float64, copy=False) ** 2
    return xp.sum(squares if weights is None else squares * weights[:, None], axis=0)


def _within_range(products: dict, X: Any, origin: Any, xp: Any) -> bool:
    """Whether all products of float32 numbers are in the range of float32."""
    squares = products["squares"]
    finite = all(
        bool(xp.all(xp.isfinite(products[name]))) for name in ("squares", "cross")
    )
    small = np.flatnonzero(to_numpy(squares) < _SMALLEST_SQUARE)
    if finite and len(small):
        columns = from_numpy(small, xp, device(X))
        part = xp.take(X, columns, axis=1)
        centre = xp.astype(xp.take(origin, columns), X.dtype)
        return not bool(xp.any(part != centre))
    return finite


def _origin(sample: Any, previous: Any, mean_squares: Any, xp: Any) -> Any:
    """The previous origin (or zero), but the means where they dominate."""
    values = xp.astype(sample, xp.float64)
    mean, spread = xp.mean(values, axis=0), xp.std(values, axis=0)
    start = xp.zeros_like(mean)
    if previous is not None:
        start, spread = previous, xp.maximum(spread, mean_squares**0.5)
    far = xp.abs(mean - start) > _DOMINANT * spread
    # In the precision of the features, so that subtraction is exact.
    return xp.astype(xp.astype(xp.where(far, mean, start), sample.dtype), xp.float64)


def plus(one: Any, other: Any) -> Any:
    """Sum of two arrays or moments; None counts as zero."""
    if one is None or other is None:
        return other if one is None else one
    return one + other
