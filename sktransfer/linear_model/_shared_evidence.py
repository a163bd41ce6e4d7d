"""The maximum of the evidence under one prior for all targets."""

from __future__ import annotations

import math

import numpy as np

from sktransfer.linear_model._evidence import (
    EvidenceMaximum,
    _maximum_at,
    _Problem,
    _profile_on_grid,
    _refine,
    _search_grid,
    _value_at_infinity,
    _value_at_zero,
    profile,
)
from sktransfer.linear_model._spectrum import Spectrum

# A bisection of a cell of the grid alone would need fewer.
_MAX_ITER = 100


def maximise_shared_evidence(
    spectrum: Spectrum, *, tol: float = 1e-6
) -> EvidenceMaximum:
    """Maximise the sum of all targets' log evidences over one t for all of them.

    Every target has its own beta.
    """
    problem = _Problem.of(spectrum)
    n_targets = len(problem.residual)
    u, n_iter, converged = _newton(problem, tol)
    at = np.full(n_targets, u)
    if np.isposinf(u):
        value = _value_at_infinity(problem)
    elif np.isneginf(u):
        value = _value_at_zero(problem)
    else:
        value = profile(problem, at)[0]
    return _maximum_at(
        problem,
        at,
        value,
        n_iter=np.full(n_targets, n_iter),
        converged=np.full(n_targets, converged),
        at_lower_bound=problem.spurious & (u == problem.lower_bound),
        shared=True,
    )


def _newton(problem: _Problem, tol: float) -> tuple[float, int, bool]:
    """Bracket each local maximum of the sum on a grid, refine it, take the largest."""
    if not len(problem.s):
        return math.inf, 0, True
    grid, bound = _search_grid(problem), problem.lower_bound
    spurious = problem.spurious.any()
    if spurious:
        grid = np.r_[bound, grid[grid > bound]]
    slope = _profile_on_grid(problem, grid)[1].sum(axis=0)
    cells = np.flatnonzero((slope[:-1] > 0) & (slope[1:] <= 0))
    best_u, best = math.inf, _value_at_infinity(problem).sum()
    if spurious and not len(cells):
        rises = len(problem.residual) * problem.s.sum()
        rises -= problem.n * np.sum(problem.s @ problem.z2)
        return (math.inf if rises >= 0 else bound), 0, True
    if not spurious and (at_zero := _sum_at_zero(problem)) >= best:
        best_u, best = -math.inf, at_zero

    def profiles(u: np.ndarray) -> np.ndarray:
        every = np.ones(len(problem.residual))
        sums = [[part.sum() for part in profile(problem, v * every)] for v in u]
        return np.array(sums).reshape(-1, 3).T

    low, high = grid[cells], grid[cells + 1]
    start = low + (high - low) * slope[cells] / (slope[cells] - slope[cells + 1])
    peaks, steps, done = _refine(
        lambda _, u: profiles(u)[1:], (start, low, high), tol, _MAX_ITER
    )
    for u, value in zip(peaks, profiles(peaks)[0], strict=True):
        if value >= best:
            best_u, best = u, value
    return float(best_u), int(steps.max(initial=0)), bool(done.all())


def _sum_at_zero(problem: _Problem) -> float:
    """Sum of the evidences as t -> 0, where only exact fits have no noise left."""
    exact = problem.residual == 0
    if exact.all():
        return _value_at_zero(problem).sum()
    # Its slope in u is half of (targets x rank - exact fits x n).
    rises = exact.sum() * problem.n > len(exact) * len(problem.s)
    return math.inf if rises else -math.inf
