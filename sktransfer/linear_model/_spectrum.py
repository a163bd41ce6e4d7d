"""The spectrum of features, and the targets seen from it.

Eigenvalues of D C D are as accurate as C is well conditioned, whatever the scales in
the diagonal matrix D. So the rank is decided on features scaled to unit length, whose
Gram matrix has an error that is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack, lstsq, solve_triangular, svd, svdvals

from sktransfer.linear_model._eigenbasis import Eigenbasis, RowEigenbasis, blocks, eigh
from sktransfer.linear_model._exact_fit import count_distinct
from sktransfer.linear_model._moments import Moments
from sktransfer.utils._array_api import from_numpy, get_namespace, to_numpy

_EPS = float(np.finfo(np.float64).eps)
# Relative errors of eigenvalues that are small enough to keep them.
_RESOLVED = 1e-4
# Samples that are looked at for directions that have been lost.
_LOOKED_AT = 1024
# Size of a feature beside the largest up to which it counts as zero.
_LEAST = 1e-12
# What of the features may come from arithmetic that made them, in eps.
_ROUNDING = 1e3


@dataclass(frozen=True)
class Spectrum:
    """Features and targets in the basis where the features are uncorrelated.

    The numerically non-zero part of G = V diag(s) V^T, and the targets seen from it.
    Small arrays live on the host in float64; `basis` and `feature_mean` stay on the
    device of the features.

    Attributes
    ----------
    eigenvalues : ndarray of shape (rank,)
        s, decreasing: squared singular values of the features.
    eigenbasis : Eigenbasis or None
        V, which `basis` gives as an array of shape (n_features, rank).
    projections : ndarray of shape (rank, n_targets)
        z = U^T Y, the targets projected on the left singular vectors.
    residual : ndarray of shape (n_targets,)
        The part of ||y||^2 that no linear function of the features reaches.
    uncertain : ndarray of shape (n_targets,), bool
        Whether rounding may hide that part, so that it is known only to be small:
        `residual` is then an upper bound, or zero where the bound is negligible.
    target_norms : ndarray of shape (n_targets,)
        ||y||^2.
    n_samples : float
        Number (sum of the weights) of the samples; one less if means were removed, as
        only the n - 1 contrasts of a target are left.
    n_rows, n_distinct : int
        Number of rows of positive weight, and how many of them are known to be copies
        of none before; one less as well.
    feature_mean, target_mean : array of shape (n_features,), ndarray (n_targets,)
        What was subtracted; None where nothing was.
    lengths2 : ndarray of shape (n_features,) or None
        The scale of the rounding in G, whose entry i, j is off by some `eps` times the
        roots of entries i and j; None where there is no such error.
    eps : float
    truncated : bool
        Whether that error hides directions, which count as absent.
    residual_error : ndarray of shape (n_targets,)
        How much it may change `residual`, about.
    """

    eigenvalues: np.ndarray
    eigenbasis: Eigenbasis | None
    projections: np.ndarray
    residual: np.ndarray
    uncertain: np.ndarray
    target_norms: np.ndarray
    n_samples: float
    n_rows: int
    n_distinct: int
    feature_mean: Any = None
    target_mean: np.ndarray | None = None
    lengths2: np.ndarray | None = None
    eps: float = _EPS
    truncated: bool = False
    residual_error: np.ndarray | float = 0.0

    @property
    def basis(self) -> Any:
        """V as an array."""
        return self.eigenbasis.vectors

    @property
    def believed(self) -> bool:
        """Whether there are enough samples to believe a target that fits exactly.

        With fewer the features fit because they are many, and samples repeat.
        """
        rank = len(self.eigenvalues)
        return self.n_samples >= 2 * rank or self.n_distinct >= 1.25 * rank

    @property
    def complete(self) -> bool:
        """Whether the features can reproduce any target on these rows."""
        return len(self.eigenvalues) >= self.n_rows


def spectrum_of_moments(
    moments: Moments, n_rows: int, eps: float, *, centred: bool
) -> Spectrum:
    """Spectrum from the Gram matrix.

    Parameters
    ----------
    moments : Moments
    n_rows : int
        Number of rows of positive weight.
    eps : float
        Relative error of the products that `moments` are sums of.
    centred : bool
        Whether to remove the means of features and targets.
    """
    xp, where = get_namespace(gram=moments.gram)
    about = moments.centred() if centred else moments.raw()
    diagonal = to_numpy(xp.linalg.diagonal(about.gram))
    # Entries have an error relative to what was multiplied, and to what is left.
    length2 = to_numpy(moments.squares) + (_EPS / eps) * diagonal
    dead = (diagonal <= 8 * eps * length2) | _is_tiny(diagonal)
    length2[dead] = 0.0
    values, basis = eigh(about.gram)
    rank = int(np.sum(~dead))
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
        # The eigensolver's errors know no scales; those of a factor are seen.
        solver = (
            math.sqrt(len(length2)) * _EPS * values[0] * _weights2(values, projections)
            if factor is None
            else np.abs(np.sum(projections**2, axis=0) - explained)
        )
        error = solver + _residual_error(
            values, basis, projections, residual - solver, moments, length2, eps
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
        lengths2=length2,
        eps=eps,
        truncated=len(values) < rank,
        residual_error=error,
    )


def _is_tiny(squares: np.ndarray) -> np.ndarray:
    """Features so small beside the largest that no decomposition can see them."""
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
    """How much the residuals can be off, given that all entries of G and B are by eps.

    With w the least-squares weights and l the features' lengths, d(residual) is
    -2 w^T dB + w^T dG w, about eps (2 |l w| |y| + |l w|^2).
    """
    norms = np.sqrt(moments.target_rounding)

    def error(scaled2: np.ndarray) -> np.ndarray:
        return 4 * eps * (2 * np.sqrt(scaled2) * norms + scaled2)

    # The largest of the lengths clears most targets of suspicion, at no cost.
    bound = error(length2.max() * _weights2(values, projections))
    if (residual > bound).all():
        return bound
    w = projections / np.sqrt(values)[:, None]
    w = to_numpy(basis.combine(_beside(w, basis)))
    return error(length2 @ w**2)


def _weights2(values: np.ndarray, projections: np.ndarray) -> np.ndarray:
    """Squared norms of the least-squares weights."""
    return np.sum(projections**2 / values[:, None], axis=0)


def _beside(values: np.ndarray, basis: Eigenbasis) -> Any:
    xp, where = get_namespace(example=basis.example)
    return from_numpy(values, xp, where)


@dataclass(frozen=True)
class _Factor:
    """R with R^T R = G / (length x length^T), of full rank; on the host.

    From a Cholesky decomposition with pivoting of the centred Gram matrix, whose
    pivots say which features add nothing to those before. A mean that was not removed
    comes in as one direction more, or within those that there are.
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
        alive = diagonal > floor * to_numpy(moments.squares)
        alive &= ~_is_tiny(np.maximum(diagonal, mean**2))
        length = np.sqrt(np.where(alive, diagonal, mean**2))
        length[length == 0] = 1.0
        mean /= length
        C = G / length / length[:, None]
        C[~alive, :] = C[:, ~alive] = 0.0
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
        """Eigenvalues, eigenvectors, and the targets on the left singular vectors.

        And what of ||y||^2 the features explain, which knows no scales.
        """
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


def spectrum_of_rows(
    X: Any, targets: np.ndarray, weights: Any, moments: Moments, *, centred: bool
) -> Spectrum:
    """Spectrum of fewer samples than features, from the products of samples.

    Parameters
    ----------
    X : array of shape (n, n_features), float32 or float64
    targets : ndarray of shape (n, n_targets)
    weights : array of shape (n,), float64, or None
    moments : Moments
        Theirs, without a Gram matrix.
    centred : bool
        Whether to remove the means of features and targets.
    """
    xp, where = get_namespace(X=X)
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
    n_rows = len(targets) if weights is None else int(np.sum(to_numpy(weights) > 0))
    complete = rank >= n_rows - centred
    spread = float(values[0] / values[rank - 1]) if rank else 0.0
    projections, residual, uncertain = _projected(
        targets, norms, left.leading(rank), spread, X
    )
    if not complete and (
        (uncertain.any() and spread * _EPS * len(values) > _RESOLVED)
        or _is_hidden(left, rank, X, mean, root, values)
    ):
        whole = np.concatenate([to_numpy(b) for b in blocks(X, mean, root)], axis=1)
        U, singular, _ = svd(whole, full_matrices=False)
        rank = int(np.sum(singular > max(whole.shape) * _EPS * singular[0]))
        values, left = singular**2, Eigenbasis(from_numpy(U, xp, where))
        complete = rank >= n_rows - centred
        spread = float(singular[0] / singular[rank - 1])
        projections, residual, uncertain = _projected(
            targets, norms, left.leading(rank), spread, X
        )
    values, left = values[:rank], left.leading(rank)
    basis = RowEigenbasis(X, mean, root, left, np.sqrt(values))
    residual[complete | uncertain] = 0.0
    n_distinct = n_rows
    if not complete and not residual.all():
        n_distinct = count_distinct(X, weights, zero=centred)
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


def _projected(
    targets: np.ndarray, norms: np.ndarray, left: Eigenbasis, spread: float, X: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets on left singular vectors, what is left of them, and where it is rounding.

    Of the features, and of the space that their weakest directions span.
    """
    xp, where = get_namespace(X=X)
    projections = to_numpy(left.project(from_numpy(targets, xp, where)))
    rest = targets - to_numpy(left.combine(from_numpy(projections, xp, where)))
    residual = np.sum(rest**2, axis=0)
    rounding = 8 * float(xp.finfo(X.dtype).eps) + len(targets) * _EPS * spread
    return projections, residual, residual <= rounding**2 * norms


def _is_hidden(
    left: Eigenbasis, rank: int, X: Any, mean: Any, root: Any, values: np.ndarray
) -> bool:
    """Whether rows have a part that their products lose, beyond the rows' rounding."""
    xp, _ = get_namespace(X=X)
    lost = left.vectors[:, rank:]
    parts = sum(xp.sum((lost.T @ b) ** 2, axis=1) for b in blocks(X, mean, root))
    norms = sum(xp.sum(block**2, axis=1) for block in blocks(X, None, root))
    rounding = 8 * float(xp.finfo(X.dtype).eps) + _ROUNDING * _EPS
    solver = len(values) * _EPS
    tolerance = rounding**2 * (lost**2).T @ norms + solver**2 * float(values[0])
    return bool(xp.any(parts > tolerance))


def loses_directions(spectrum: Spectrum, X: Any, weights: Any = None) -> bool:
    """Whether features have a part that their products hide, beyond their rounding.

    Parameters
    ----------
    spectrum : Spectrum
        Of these samples.
    X : array of shape (n, n_features)
    weights : array of shape (n,), optional
    """
    if not spectrum.truncated:
        return False
    xp, where = get_namespace(X=X)
    chosen = np.arange(X.shape[0])
    if weights is not None:
        chosen = np.flatnonzero(to_numpy(weights) > 0)
    chosen = chosen[:: -(-len(chosen) // _LOOKED_AT)]
    some = to_numpy(xp.take(X, from_numpy(chosen, xp, where), axis=0))
    some = some.astype(np.float64)
    if spectrum.feature_mean is not None:
        some = some - to_numpy(spectrum.feature_mean)
    length = np.linalg.norm(some, axis=0)
    singular = svdvals(some / np.where(length > 0, length, 1.0))
    seen = singular > _ROUNDING * float(xp.finfo(X.dtype).eps) * singular[0]
    return int(np.sum(seen)) > len(spectrum.eigenvalues)
