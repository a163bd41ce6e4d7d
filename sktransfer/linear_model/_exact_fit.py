"""Is a target an exact linear function of the features? The samples know.

Sums of products lose a residual below their rounding. Where that matters and the
samples are at hand, it is measured on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sktransfer.utils._array_api import chunks, from_numpy, get_namespace, to_numpy

if TYPE_CHECKING:
    from sktransfer.linear_model._spectrum import Spectrum

_ROWS = 1024
_REFINEMENTS = 5


def count_distinct(X: Any, weights: Any = None, *, zero: bool = True) -> int:
    """Number of different rows of positive weight.

    Parameters
    ----------
    X : array of shape (n, n_features)
    weights : array of shape (n,), optional
    zero : bool, default=True
        Whether a row of zeros counts.
    """
    counted = set()
    for rows in chunks(X.shape[0], _ROWS):
        part = to_numpy(X[rows, :]) + 0.0  # -0.0 is 0.0
        keep = np.ones(len(part), dtype=bool) if zero else part.any(axis=1)
        if weights is not None:
            keep &= to_numpy(weights[rows]) > 0
        counted.update(hash(row.tobytes()) for row in part[keep])
    return len(counted)


def measure_residual(
    spectrum: Spectrum, X: Any, target_rows: Callable[[slice], Any], weights: Any
) -> Spectrum:
    """The spectrum with its uncertain residuals measured on the samples.

    The least-squares weights are refined until the squared error falls no more; it
    counts as zero where it is within the rounding of the target and of its own sums.

    Parameters
    ----------
    spectrum : Spectrum
        Of these samples.
    X : array of shape (n, n_features)
    target_rows : callable
        Slice of rows -> their targets, of shape (m, n_targets), float64.
    weights : array of shape (n,), float64, or None

    Returns
    -------
    Spectrum
    """
    which = np.flatnonzero(spectrum.uncertain)
    if not len(which):
        return spectrum
    xp, where = get_namespace(X=X)
    basis = spectrum.eigenbasis
    root = np.sqrt(spectrum.eigenvalues)[:, None]
    step = spectrum.projections[:, which] / root
    coef = from_numpy(np.zeros((X.shape[1], len(which))), xp, where)
    best = np.full(len(which), np.inf)
    size = np.zeros(len(which))
    for _ in range(_REFINEMENTS):
        trial = coef + basis.combine(from_numpy(step, xp, where))
        square, gradient, reach = _errors(
            spectrum, X, target_rows, weights, which, trial
        )
        better = square < best
        if not better.any():
            break
        best, size = np.where(better, square, best), np.where(better, reach, size)
        coef = xp.where(from_numpy(better, xp, where), trial, coef)
        step = to_numpy(basis.project(gradient)) / root**2 * better
    # Targets may have been rounded like the features; sums are off by what cancels.
    rounded = float(xp.finfo(X.dtype).eps) ** 2 * spectrum.target_norms[which]
    best[best <= 64 * (rounded + np.finfo(np.float64).eps ** 2 * size)] = 0.0
    residual = spectrum.residual.copy()
    residual[which] = best
    n_distinct = spectrum.n_distinct
    if (best == 0).any():
        centred = spectrum.feature_mean is not None
        n_distinct = count_distinct(X, weights, zero=centred) - centred
    return replace(
        spectrum,
        residual=residual,
        uncertain=np.zeros_like(spectrum.uncertain),
        n_distinct=n_distinct,
    )


def _errors(spectrum, X, target_rows, weights, which, coef) -> tuple:
    """Squared errors of weights, their gradient, and the size of what cancels."""
    xp, where = get_namespace(X=X)
    columns = from_numpy(which, xp, where)
    square, reach, gradient = 0.0, 0.0, 0.0
    for rows in chunks(X.shape[0], _ROWS):
        part = xp.astype(X[rows, :], xp.float64, copy=False)
        target = xp.take(target_rows(rows), columns, axis=1)
        size = part**2 @ coef**2
        if spectrum.feature_mean is not None:
            part = part - spectrum.feature_mean
            mean = from_numpy(spectrum.target_mean[which], xp, where)
            target = target - mean
        error = target - part @ coef
        w = xp.ones_like(error[:, :1]) if weights is None else weights[rows, None]
        square = square + to_numpy(xp.sum(w * error**2, axis=0))
        reach = reach + to_numpy(xp.sum(w * size, axis=0))
        gradient = gradient + part.T @ (w * error)
    return square, gradient, reach
