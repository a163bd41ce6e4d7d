"""Spectral decomposition of the features, with the targets in its basis.

Eigenvalues of D C D are as accurate as C is well conditioned, whatever the scales in
the diagonal matrix D. The rank is therefore determined on features of unit length,
whose Gram matrix has a known error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack, lstsq, solve_triangular, svd

from sktransfer.linear_model._eigenbasis import Eigenbasis, RowEigenbasis, blocks, eigh
from sktransfer.linear_model._moments import Moments
from sktransfer.linear_model._samples import Samples, take_rows
from sktransfer.utils._array_api import (
    beside,
    chunks,
    from_numpy,
    get_namespace,
    to_numpy,
)

_EPS = float(np.finfo(np.float64).eps)
# Largest relative error of an eigenvalue that is kept.
_RESOLVED = 1e-4
# The same of fewer samples than features, beyond which their products are not enough.
_PRECISE = 1e-7
# Size of a feature, relative to the largest, up to which it counts as zero.
_LEAST = 1e-12
# Rounding of the arithmetic that made the features, in eps.
ROUNDING = 1e3
# Eigenvalue whose inverse square root float32 still holds.
_SMALLEST_SINGLE = 1e-70
# Samples handled at once where there is one number per target or direction.
_ROWS = 1024
LEFT_ROWS = 4096


@dataclass(frozen=True)
class Spectrum:
    """The numerically non-zero part of G = V diag(s) V^T, and the targets in it.

    Small arrays are on the host in float64; `basis` and `feature_mean` are on the
    device of the features. With means removed all counts of samples are one less: they
    count the contrasts of a target.
    """

    eigenvalues: np.ndarray  # s, decreasing, (rank,)
    eigenbasis: Eigenbasis | None  # V
    # U^T Y, the targets projected on the left singular vectors, (rank, n_targets).
    projections: np.ndarray
    # The part of ||y||^2 that no linear function of the features explains, and whether
    # it is within its rounding (an upper bound, or zero if negligible), (n_targets,).
    residual: np.ndarray
    uncertain: np.ndarray
    target_norms: np.ndarray  # ||y||^2, (n_targets,)
    n_samples: float  # sum of the weights
    n_rows: int  # of positive weight
    n_distinct: int  # not known to be copies
    # What was subtracted, if anything, (n_features,) and (n_targets,).
    feature_mean: Any = None
    target_mean: np.ndarray | None = None
    # Scale of the rounding in G, if there is any, (n_features,): the error of an entry
    # is about `eps` times the square root of the two scales.
    squared_lengths: np.ndarray | None = None
    eps: float = _EPS
    truncated: bool = False  # whether directions within that error were dropped
    residual_error: np.ndarray | float = 0.0

    @property
    def basis(self) -> Any:
        """V as an array."""
        return self.eigenbasis.vectors

    @property
    def credible(self) -> bool:
        """Whether enough samples support a target that is fitted exactly.

        Otherwise it may be fitted because features are many and samples repeat.
        """
        rank = len(self.eigenvalues)
        return self.n_samples >= 2 * rank or self.n_distinct >= 1.25 * rank

    @property
    def interpolates(self) -> bool:
        """Whether the features can reproduce any target on these rows."""
        return len(self.eigenvalues) >= self.n_rows

    def left_blocks(
        self, X: Any, parts: Iterable[slice | np.ndarray] | None = None
    ) -> Iterator[tuple[slice | np.ndarray, Any]]:
        """Yield (rows, U): the left singular vectors, block by block.

        `X` holds the samples of the spectrum in their order; U ignores their weights,
        and of few rows it is zero where the weight is. `parts` are slices or places
        of rows; by default they cover all.
        """
        xp, _ = get_namespace(X=X)
        basis = self.eigenbasis
        parts = chunks(X.shape[0], LEFT_ROWS) if parts is None else parts
        if isinstance(basis, RowEigenbasis):
            for rows in parts:
                yield rows, basis.left_rows(rows)
            return
        mean, rest, dtype = self.mean_for(X)
        scaled = basis.vectors * beside(1 / np.sqrt(self.eigenvalues), basis.vectors)
        right = xp.astype(scaled, dtype, copy=False)
        for rows in parts:
            part = xp.astype(take_rows(X, rows), dtype, copy=False)
            if mean is not None:
                part = part - mean
            U = part @ right
            if rest is not None:
                U -= xp.astype(rest @ scaled, dtype)
            yield rows, U

    def mean_for(self, X: Any) -> tuple[Any, Any, Any]:
        """What is subtracted from X first, what after a product, and their dtype.

        The mean in float32 may be far from the mean, in units of the least direction.
        """
        xp, _ = get_namespace(X=X)
        # Features that are denormal in float32 have singular vectors beyond its range.
        small = self.eigenvalues.min(initial=np.inf) < _SMALLEST_SINGLE
        dtype = xp.float64 if self.eps == _EPS or small else X.dtype
        if self.feature_mean is None:
            return None, None, dtype
        mean = xp.astype(self.feature_mean, dtype)
        rest = self.feature_mean - xp.astype(mean, xp.float64)
        return mean, (rest if dtype != xp.float64 else None), dtype


def spectrum_of_moments(
    moments: Moments, n_rows: int, eps: float, *, centred: bool
) -> Spectrum:
    """Spectrum of `n_rows` rows from their Gram matrix, of relative error `eps`."""
    xp, where = get_namespace(gram=moments.gram)
    about = moments.centred() if centred else moments.raw()
    diagonal = to_numpy(xp.linalg.diagonal(about.gram))
    # The error is relative to the products, plus to what the shift of means left.
    length2 = to_numpy(moments.squares) + (_EPS / eps) * diagonal
    zero = (diagonal <= 8 * eps * length2) | _is_tiny(diagonal)
    length2[zero] = 0.0
    values, basis = eigh(about.gram)
    # Few rows may have positive weight; further directions are rounding.
    rank = min(int(np.sum(~zero)), n_rows - centred)
    d = len(diagonal)
    floor = 8 * math.sqrt(d) * eps + 4 * d * _EPS
    resolved = _is_resolved(values, rank)
    factor = None
    if rank and not (resolved and values[rank - 1] > floor * length2.max()):
        factor = _Factor.of(moments, floor, centred=centred)
        if resolved and len(factor.R) == rank:
            factor = None
    if factor is None:
        values, basis = values[:rank], basis.leading(rank)
        cross = to_numpy(basis.project(about.cross))
        projections = cross / np.sqrt(values)[:, None]
    else:
        values, V, projections, explained = factor.decompose(moments)
        basis = Eigenbasis(from_numpy(V, xp, where))

    norms = about.target_squares
    residual = np.maximum(norms - np.sum(projections**2, axis=0), 0.0)
    n_rows -= centred
    uncertain = np.zeros(len(residual), dtype=bool)
    error = np.zeros(len(residual))
    if len(values) >= n_rows:
        residual[:] = 0.0
    elif len(values):
        # The eigensolver's error is absolute; that of a factor is measured.
        solver_error = (
            math.sqrt(len(length2)) * _EPS * values[0] * _weights2(values, projections)
            if factor is None
            else np.abs(np.sum(projections**2, axis=0) - explained)
        )
        error = solver_error + _residual_error(
            values, basis, projections, residual - solver_error, moments, length2, eps
        )
        uncertain = residual <= error
        residual[uncertain] = np.minimum(error, norms)[uncertain]
        residual[uncertain & (error <= 1e-8 * norms)] = 0.0
    return Spectrum(
        eigenvalues=values,
        eigenbasis=basis,
        projections=projections,
        residual=residual,
        uncertain=uncertain,
        target_norms=norms,
        n_samples=moments.weight - centred,
        n_rows=n_rows,
        n_distinct=n_rows,
        feature_mean=about.origin if centred else None,
        target_mean=about.target_origin if centred else None,
        squared_lengths=length2,
        eps=eps,
        truncated=len(values) < rank,
        residual_error=error,
    )


def _is_tiny(squares: np.ndarray) -> np.ndarray:
    """Features too small beside the largest for any decomposition to resolve."""
    return squares <= _LEAST**2 * squares.max(initial=0.0)


def _is_resolved(values: np.ndarray, rank: int) -> bool:
    """Whether float64 gives the first `rank` eigenvalues to some digits."""
    error = len(values) * _EPS * max(values[0], 0.0)
    return rank == 0 or values[rank - 1] * _RESOLVED > error


def _residual_error(
    values: np.ndarray,
    basis: Eigenbasis,
    projections: np.ndarray,
    residual: np.ndarray,
    moments: Moments,
    length2: np.ndarray,
    eps: float,
) -> np.ndarray:
    """Error of the residuals, given relative errors eps of all entries of G and B.

    With w the least-squares weights and l the features' lengths, d(residual) is
    -2 w^T dB + w^T dG w, about eps (2 |l w| |y| + |l w|^2).
    """
    norms = np.sqrt(moments.target_rounding)

    def error(scaled2: np.ndarray) -> np.ndarray:
        return 4 * eps * (2 * np.sqrt(scaled2) * norms + scaled2)

    # A cheap bound, by the largest length, is enough for most targets.
    bound = error(length2.max() * _weights2(values, projections))
    if (residual > bound).all():
        return bound
    w = projections / np.sqrt(values)[:, None]
    w = to_numpy(basis.combine(beside(w, basis.example)))
    return error(length2 @ w**2)


def _weights2(values: np.ndarray, projections: np.ndarray) -> np.ndarray:
    """Squared norms of the least-squares weights."""
    return np.sum(projections**2 / values[:, None], axis=0)


@dataclass(frozen=True)
class _Factor:
    """R with R^T R = G / (length x length^T), of full rank; on the host.

    It comes from a pivoted Cholesky decomposition of the centred Gram matrix, which
    finds features that depend on others. A mean that was not removed adds a direction,
    unless the features span it.
    """

    R: np.ndarray  # (rank, n_features)
    length: np.ndarray  # (n_features,), > 0
    centred: bool

    @classmethod
    def of(cls, moments: Moments, floor: float, *, centred: bool) -> _Factor:
        middle = moments.centred()
        G = to_numpy(middle.gram)
        mean = math.sqrt(moments.weight) * to_numpy(middle.origin)
        diagonal = np.diagonal(G)
        varies = diagonal > floor * to_numpy(moments.squares)
        varies &= ~_is_tiny(np.maximum(diagonal, mean**2))
        length = np.sqrt(np.where(varies, diagonal, mean**2))
        length[length == 0] = 1.0
        mean /= length
        C = G / length / length[:, None]
        C[~varies, :] = C[:, ~varies] = 0.0
        U, pivots, rank, _ = lapack.dpstrf(C, tol=floor)
        pivots = pivots - 1
        R = np.empty((rank, len(C)))
        R[:, pivots] = np.triu(U)[:rank]
        if centred:
            return cls(R, length, centred)
        first = pivots[:rank]
        inside = solve_triangular(np.triu(U)[:rank, :rank], mean[first], trans="T")
        outside = mean - R.T @ inside
        tolerance = math.sqrt(floor) + 10 * _EPS * np.linalg.norm(mean)
        if np.linalg.norm(outside) > tolerance:
            return cls(np.vstack([R, mean]), length, centred)
        # R^T (I + b b^T) R = (L R)^T (L R)
        square = inside @ inside
        if square > 0:
            gain = (math.sqrt(1 + square) - 1) / square
            R = R + gain * inside[:, None] * (inside @ R)
        return cls(R, length, centred)

    def decompose(self, moments: Moments) -> tuple[np.ndarray, ...]:
        """Eigenvalues, eigenvectors, projections, and the explained part of ||y||^2."""
        M = self.R * self.length
        values, left = eigh(M @ M.T)
        if _is_resolved(values, len(values)):
            V = M.T @ left.vectors / np.sqrt(values)
        else:
            _, singular, rows = svd(M, full_matrices=False)
            kept = singular > _LEAST * singular[0]
            values, V = singular[kept] ** 2, rows[kept].T
        middle = moments.centred()
        cross = to_numpy(middle.cross)
        if not self.centred:
            mean, n = to_numpy(middle.origin), moments.weight
            cross = cross + n * mean[:, None] * middle.target_origin
        scaled, *_ = lstsq(
            self.R.T, cross / self.length[:, None], lapack_driver="gelsy"
        )
        projections = V.T @ cross / np.sqrt(values)[:, None]
        return values, V, projections, np.sum(scaled**2, axis=0)


def spectrum_of_rows(samples: Samples, moments: Moments, *, centred: bool) -> Spectrum:
    """Spectrum of fewer samples than features, from the products of samples.

    `moments` are theirs, without a Gram matrix.
    """
    X, xp, where = samples.X, samples.xp, samples.device
    targets, weights = to_numpy(samples.columns), samples.weights
    means = moments.centred() if centred else None
    root = None if weights is None else xp.sqrt(weights)
    mean = None if means is None else means.origin
    K = sum(block @ block.T for block in blocks(X, mean, root))
    values, left = eigh(K)
    rank = int(np.sum(values > 10 * len(values) * _EPS * values[0]))
    if means is not None:
        targets = targets - means.target_origin
    if root is not None:
        targets = targets * to_numpy(root)[:, None]
    norms = np.sum(targets**2, axis=0)
    n_rows = len(samples.positive)
    interpolates = rank >= n_rows - centred
    condition = float(values[0] / values[rank - 1]) if rank else 0.0
    projections, residual, uncertain = _project(
        targets, norms, left.leading(rank), condition, X
    )
    if condition * _EPS > _PRECISE or (
        not interpolates
        and (
            (uncertain.any() and condition * _EPS * len(values) > _RESOLVED)
            or _misses_directions(left, rank, X, mean, root, values)
        )
    ):
        whole = np.concatenate([to_numpy(b) for b in blocks(X, mean, root)], axis=1)
        U, singular, _ = svd(whole, full_matrices=False)
        rank = int(np.sum(singular > max(whole.shape) * _EPS * singular[0]))
        values, left = singular**2, Eigenbasis(from_numpy(U, xp, where))
        interpolates = rank >= n_rows - centred
        condition = float(singular[0] / singular[rank - 1])
        projections, residual, uncertain = _project(
            targets, norms, left.leading(rank), condition, X
        )
    values, left = values[:rank], left.leading(rank)
    basis = RowEigenbasis(X, mean, root, left, np.sqrt(values))
    residual[interpolates | uncertain] = 0.0
    n_distinct = n_rows
    if not interpolates and not residual.all():
        n_distinct = count_distinct(samples, zero=centred)
    return Spectrum(
        eigenvalues=values,
        eigenbasis=basis,
        projections=projections,
        residual=residual,
        uncertain=np.zeros(len(residual), dtype=bool),
        target_norms=norms,
        n_samples=moments.weight - centred,
        n_rows=n_rows - centred,
        n_distinct=n_distinct - centred,
        feature_mean=mean,
        target_mean=None if means is None else means.target_origin,
    )


def _project(
    targets: np.ndarray, norms: np.ndarray, left: Eigenbasis, condition: float, X: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Projections on the left singular vectors, residuals, and which are rounding.

    Rounding is that of the features, and of the space of their weakest directions.
    """
    xp, where = get_namespace(X=X)
    projections = to_numpy(left.project(from_numpy(targets, xp, where)))
    unexplained = targets - to_numpy(left.combine(from_numpy(projections, xp, where)))
    residual = np.sum(unexplained**2, axis=0)
    rounding = 8 * float(xp.finfo(X.dtype).eps) + len(targets) * _EPS * condition
    return projections, residual, residual <= rounding**2 * norms


def _misses_directions(
    left: Eigenbasis, rank: int, X: Any, mean: Any, root: Any, values: np.ndarray
) -> bool:
    """Whether rows have a part, larger than their rounding, that products lose."""
    xp, _ = get_namespace(X=X)
    lost = left.vectors[:, rank:]
    parts = sum(xp.sum((lost.T @ b) ** 2, axis=1) for b in blocks(X, mean, root))
    norms = sum(xp.sum(block**2, axis=1) for block in blocks(X, None, root))
    rounding = 8 * float(xp.finfo(X.dtype).eps) + ROUNDING * _EPS
    solver = len(values) * _EPS
    tolerance = rounding**2 * (lost**2).T @ norms + solver**2 * float(values[0])
    return bool(xp.any(parts > tolerance))


def count_distinct(samples: Samples, *, zero: bool = True) -> int:
    """Number of different rows of positive weight; `zero`: whether zeros count."""
    counted = set()
    for block in samples.blocks(_ROWS):
        part = to_numpy(block.X)[block.positive] + 0.0  # -0.0 is 0.0
        keep = slice(None) if zero else part.any(axis=1)
        counted.update(hash(row.tobytes()) for row in part[keep])
    return len(counted)
