"""What rounding hides in sums of products, measured on the samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.linalg import svdvals

from sktransfer.linear_model._samples import Samples
from sktransfer.linear_model._spectrum import ROUNDING, Spectrum, count_distinct
from sktransfer.utils._array_api import from_numpy, to_numpy

# Samples handled at once, and samples inspected for directions.
_ROWS = 1024
_REFINEMENTS = 5


def measure_residual(spectrum: Spectrum, samples: Samples) -> Spectrum:
    """Measure the uncertain residuals of a spectrum on its samples.

    The least-squares weights are refined until the squared error stops falling. It
    counts as zero if it is within the rounding of the target and of its own sums.
    """
    which = np.flatnonzero(spectrum.uncertain)
    if not len(which):
        return spectrum
    X, xp, where = samples.X, samples.xp, samples.device
    basis = spectrum.eigenbasis
    root = np.sqrt(spectrum.eigenvalues)[:, None]
    step = spectrum.projections[:, which] / root
    coef = from_numpy(np.zeros((X.shape[1], len(which))), xp, where)
    best = np.full(len(which), np.inf)
    size = np.zeros(len(which))
    for _ in range(_REFINEMENTS):
        trial = coef + basis.combine(from_numpy(step, xp, where))
        square, gradient, reach = _errors(spectrum, samples, which, trial)
        better = square < best
        if not better.any():
            break
        best, size = np.where(better, square, best), np.where(better, reach, size)
        coef = xp.where(from_numpy(better, xp, where), trial, coef)
        step = to_numpy(basis.project(gradient)) / root**2 * better
    # Targets may be as rounded as the features, and sums lose what cancels.
    rounded = float(xp.finfo(X.dtype).eps) ** 2 * spectrum.target_norms[which]
    best[best <= 64 * (rounded + np.finfo(np.float64).eps ** 2 * size)] = 0.0
    residual = spectrum.residual.copy()
    residual[which] = best
    n_distinct = spectrum.n_distinct
    if (best == 0).any():
        centred = spectrum.feature_mean is not None
        n_distinct = count_distinct(samples, zero=centred) - centred
    return replace(
        spectrum,
        residual=residual,
        uncertain=np.zeros_like(spectrum.uncertain),
        n_distinct=n_distinct,
    )


def _errors(
    spectrum: Spectrum, samples: Samples, which: np.ndarray, coef: Any
) -> tuple:
    """Squared errors of weights, their gradients, and the squares that cancel."""
    xp, where = samples.xp, samples.device
    columns = from_numpy(which, xp, where)
    square, reach, gradient = 0.0, 0.0, 0.0
    for block in samples.blocks(_ROWS):
        part = xp.astype(block.X, xp.float64, copy=False)
        target = xp.take(block.columns, columns, axis=1)
        size = part**2 @ coef**2
        if spectrum.feature_mean is not None:
            part = part - spectrum.feature_mean
            target = target - from_numpy(spectrum.target_mean[which], xp, where)
        error = target - part @ coef
        w = block.weights
        w = xp.ones_like(error[:, :1]) if w is None else w[:, None]
        square = square + to_numpy(xp.sum(w * error**2, axis=0))
        reach = reach + to_numpy(xp.sum(w * size, axis=0))
        gradient = gradient + part.T @ (w * error)
    return square, gradient, reach


def loses_directions(spectrum: Spectrum, samples: Samples) -> bool:
    """Whether products lose a part of the features beyond their rounding."""
    if not spectrum.truncated:
        return False
    X, xp = samples.X, samples.xp
    chosen = samples.positive
    chosen = chosen[:: -(-len(chosen) // _ROWS)]
    some = to_numpy(xp.take(X, from_numpy(chosen, xp, samples.device), axis=0))
    some = some.astype(np.float64)
    if spectrum.feature_mean is not None:
        some = some - to_numpy(spectrum.feature_mean)
    length = np.linalg.norm(some, axis=0)
    singular = svdvals(some / np.where(length > 0, length, 1.0))
    seen = singular > ROUNDING * float(xp.finfo(X.dtype).eps) * singular[0]
    return int(np.sum(seen)) > len(spectrum.eigenvalues)
