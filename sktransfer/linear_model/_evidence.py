"""The maximum of the evidence of a Gaussian linear model, for all targets at once.

With beta at its optimum for a given t = alpha / beta, the evidence is a function of t
alone (see :func:`profile`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sktransfer.linear_model._spectrum import Spectrum

# Range of the search over u = log(t / max(s)); beyond the maximum exp(-u) is rounding.
_U_MAX = 37.0
_U_MIN = -150.0
_U_STEP = 0.25
# Distance to an asymptote at which the slope of the evidence has its final sign.
_U_MARGIN = 10.0
# Lower bound of t for spurious fits, relative to the smallest eigenvalue.
_LOWER_BOUND = 1e-8


@dataclass(frozen=True)
class EvidenceMaximum:
    """Hyper-parameters at the maximum of the evidence, arrays of shape (n_targets,)."""

    # t = alpha / beta. Both are infinite where the features carry no evidence, and beta
    # where the noise vanishes.
    t: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    log_evidence: np.ndarray  # in nats, for all samples together
    effective_dof: np.ndarray  # gamma, the number of weights that the data determine
    n_iter: np.ndarray
    converged: np.ndarray
    # Whether t was stopped at 1e-8 times the smallest eigenvalue, as the evidence of a
    # spurious fit has no maximum.
    at_lower_bound: np.ndarray
    shared: bool = False  # whether all targets have one t


@dataclass(frozen=True)
class _Problem:
    """Spectrum with eigenvalues relative to the largest, and targets of norm one.

    The search then depends on the scale of neither the features nor the targets.
    """

    s: np.ndarray  # (rank,)
    z2: np.ndarray  # (rank, n_targets)
    residual: np.ndarray  # (n_targets,)
    n: float
    credible: bool = True
    scale: float = 1.0  # of the eigenvalues
    norms: np.ndarray | float = 1.0  # squared, of the targets

    @classmethod
    def of(cls, spectrum: Spectrum) -> _Problem:
        norms = spectrum.target_norms
        scale = spectrum.eigenvalues[0] if len(spectrum.eigenvalues) else 1.0
        return cls(
            s=spectrum.eigenvalues / scale,
            z2=spectrum.projections**2 / norms,
            residual=spectrum.residual / norms,
            n=spectrum.n_samples,
            credible=spectrum.credible,
            scale=scale,
            norms=norms,
        )

    def take(self, targets: np.ndarray) -> _Problem:
        return replace(self, z2=self.z2[:, targets], residual=self.residual[targets])

    @property
    def spurious(self) -> np.ndarray:
        """Targets fitted exactly by fewer directions than samples, but not credibly.

        Their evidence rises without limit as the noise vanishes.
        """
        return (self.residual == 0) & (len(self.s) < self.n) & (not self.credible)

    @property
    def lower_bound(self) -> float:
        """Lower bound of u for spurious fits."""
        return math.log(_LOWER_BOUND * self.s[-1]) if len(self.s) else -math.inf


def profile(
    problem: _Problem, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Evidence of each target at its own u = log t, its slope, and its curvature.

    With q = t / (t + s), p = 1 - q, E = sum z^2 q + residual, gamma = sum p:

    L = n/2 [log(n / E) - 1 - log 2 pi] + 1/2 sum log q
    dL/du = 1/2 [gamma - n sum z^2 p q / E]
    """
    ratio = problem.s[:, None] * np.exp(-u)
    q = 1.0 / (1.0 + ratio)
    p = ratio * q
    pq = p * q
    energy = np.sum(problem.z2 * q, axis=0) + problem.residual
    first = np.sum(problem.z2 * pq, axis=0)
    second = np.sum(problem.z2 * pq * (p - q), axis=0)
    n = problem.n
    value = _log_evidence(energy, -np.sum(np.log1p(ratio), axis=0), n)
    slope = 0.5 * (np.sum(p, axis=0) - n * first / energy)
    pull = second / energy - (first / energy) ** 2
    curvature = 0.5 * (-np.sum(pq, axis=0) - n * pull)
    return value, slope, curvature


def _log_evidence(energy, sum_log_q, n):
    return 0.5 * n * (np.log(n / energy) - 1.0 - math.log(2 * math.pi)) + (
        0.5 * sum_log_q
    )


def _profile_on_grid(
    problem: _Problem, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope of all targets on one grid, of shape (n_targets, n_grid)."""
    ratio = problem.s[:, None] * np.exp(-grid)
    q = 1.0 / (1.0 + ratio)
    p = ratio * q
    energy = problem.z2.T @ q + problem.residual[:, None]
    value = _log_evidence(energy, -np.sum(np.log1p(ratio), axis=0), problem.n)
    slope = 0.5 * (p.sum(axis=0) - problem.n * (problem.z2.T @ (p * q)) / energy)
    return value, slope


def maximise_evidence(
    spectrum: Spectrum,
    *,
    solver: str = "newton",
    tol: float = 1e-6,
    max_iter: int = 100,
) -> EvidenceMaximum:
    """Maximise the evidence over alpha and beta for every target.

    `solver` is ``"newton"``, ``"fixed_point"`` or ``"mackay"``. It stops at a relative
    change `tol` of t (for ``"mackay"`` of alpha and beta).
    """
    problem = _Problem.of(spectrum)
    if len(problem.s):
        u, value, n_iter, converged = _SOLVERS[solver](problem, tol, max_iter)
        at_lower_bound = problem.spurious & (u == problem.lower_bound)
    else:
        value = _value_at_infinity(problem)
        u, n_iter = np.full(len(value), np.inf), np.zeros(len(value), dtype=int)
        at_lower_bound = n_iter > 0
        converged = ~at_lower_bound
    return _maximum_at(
        problem,
        u,
        value,
        n_iter=n_iter,
        converged=converged,
        at_lower_bound=at_lower_bound,
    )


def _maximum_at(
    problem: _Problem, u: np.ndarray, value: np.ndarray, **found
) -> EvidenceMaximum:
    """The maximum at u = log t, of the given value, in the units of the data."""
    p = problem.s[:, None] / (problem.s[:, None] + np.exp(u))
    energy = np.sum(problem.z2 * (1 - p), axis=0) + problem.residual
    norms, scale, n = problem.norms, problem.scale, problem.n
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        t = np.exp(u) * scale
        noiseless = np.isneginf(u) & (problem.residual == 0)
        beta = np.where(noiseless, np.inf, n / (energy * norms))
        weights_norm = np.sum(problem.z2 / problem.s[:, None], axis=0) * norms
        limit = n * scale / weights_norm  # of t * beta for t -> 0
        alpha = np.where(noiseless, limit, t * beta)
    return EvidenceMaximum(
        t=t,
        alpha=alpha,
        beta=beta,
        log_evidence=value - 0.5 * n * np.log(norms),
        effective_dof=np.sum(p, axis=0),
        **found,
    )


def _value_at_infinity(problem: _Problem) -> np.ndarray:
    """Evidence in the limit t -> infinity, where all weights are zero."""
    return _log_evidence(np.ones_like(problem.residual), 0.0, problem.n)


def _value_at_zero(problem: _Problem) -> np.ndarray:
    """Evidence in the limit t -> 0, where the noise vanishes.

    It is minus infinity for a target with a residual, plus infinity for a credible
    exact fit by fewer features than samples.
    """
    value = np.full(len(problem.residual), -np.inf)
    exact = problem.residual == 0
    rank = len(problem.s)
    if rank < problem.n:
        value[exact & ~problem.spurious] = np.inf
    elif rank == problem.n:
        energy = np.sum(problem.z2[:, exact] / problem.s[:, None], axis=0)
        value[exact] = _log_evidence(energy, -np.sum(np.log(problem.s)), problem.n)
    return value


def _search_grid(problem: _Problem) -> np.ndarray:
    """Grid of u that covers all zeros of the slope."""
    s, rank = problem.s, len(problem.s)
    left = math.log(s[-1])
    noisy = problem.residual > 0
    if rank < problem.n and noisy.any():
        # For t below all s the slope is that of rank/2 log t - n/2 log(r + t a).
        slack = np.sum(problem.z2[:, noisy] / s[:, None], axis=0)
        with np.errstate(divide="ignore"):
            crossing = np.log(
                problem.residual[noisy] * rank / ((problem.n - rank) * slack)
            )
        left = min(left, crossing.min())
    left -= _U_MARGIN
    if problem.spurious.any():
        left = min(left, problem.lower_bound)
    left = max(left, _U_MIN)
    return np.linspace(left, _U_MAX, int((_U_MAX - left) / _U_STEP) + 2)


def _newton(problem: _Problem, tol: float, max_iter: int) -> tuple[np.ndarray, ...]:
    """Bracket each local maximum on a grid, refine it, and take the largest."""
    n_targets = len(problem.residual)
    best_u = np.full(n_targets, np.inf)
    best_value = _value_at_infinity(problem)
    n_iter = np.zeros(n_targets, dtype=int)
    converged = np.ones(n_targets, dtype=bool)
    grid = _search_grid(problem)
    _, slope = _profile_on_grid(problem, grid)
    at_zero = _value_at_zero(problem)
    noiseless = at_zero >= best_value
    best_u[noiseless], best_value[noiseless] = -np.inf, at_zero[noiseless]

    peaks = _peaks(problem, grid, slope)
    stopped = _stops_at_lower_bound(problem, peaks)
    best_u[stopped] = problem.lower_bound
    best_value[stopped] = profile(problem.take(stopped), best_u[stopped])[0]
    targets, cells = np.nonzero(peaks)
    if len(targets):
        low, high = grid[cells], grid[cells + 1]
        # Regula falsi gives Newton's iteration a good start.
        fall = slope[targets, cells] - slope[targets, cells + 1]
        start = low + (high - low) * slope[targets, cells] / fall
        u, steps, done = _refine(
            lambda active, u: profile(problem.take(targets[active]), u)[1:],
            (start, low, high),
            tol,
            max_iter,
        )
        peak = profile(problem.take(targets), u)[0]
        for i in np.argsort(peak, kind="stable"):
            k = targets[i]
            if peak[i] >= best_value[k]:
                best_u[k], best_value[k] = u[i], peak[i]
            n_iter[k] = max(n_iter[k], steps[i])
            converged[k] &= done[i]
    return best_u, best_value, n_iter, converged


def _peaks(problem: _Problem, grid: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Cells of the grid with a local maximum, of shape (n_targets, n_grid - 1)."""
    peaks = (slope[:, :-1] > 0) & (slope[:, 1:] <= 0)
    peaks[np.ix_(problem.spurious, grid[:-1] < problem.lower_bound)] = False
    return peaks


def _stops_at_lower_bound(problem: _Problem, peaks: np.ndarray) -> np.ndarray:
    """Spurious fits whose evidence has no local maximum above the lower bound of t."""
    return problem.spurious & ~peaks.any(axis=1) & ~_rises_to_infinity(problem)


def _rises_to_infinity(problem: _Problem) -> np.ndarray:
    """Targets whose evidence rises as t -> infinity, as Theorem 2's condition fails."""
    return np.sum(problem.s) >= problem.n * (problem.s @ problem.z2)


def _refine(derivatives: Callable, bracket: tuple, tol: float, max_iter: int):
    """Safeguarded Newton iteration for zeros of slopes in a bracket.

    `bracket` holds starts and both ends. `derivatives` gives slopes and curvatures at
    the iterates of the given indices.
    """
    u, low, high = (part.copy() for part in bracket)
    n_iter = np.zeros(len(u), dtype=int)
    active = np.arange(len(u))
    for _ in range(max_iter):
        slope, curvature = derivatives(active, u[active])
        rising = slope > 0
        low[active] = np.where(rising, u[active], low[active])
        high[active] = np.where(rising, high[active], u[active])
        with np.errstate(divide="ignore", invalid="ignore"):
            step = u[active] - slope / curvature
        inside = (step > low[active]) & (step < high[active])
        step = np.where(inside, step, 0.5 * (low[active] + high[active]))
        change = np.abs(step - u[active])
        u[active] = step
        n_iter[active] += 1
        active = active[change > tol]
        if len(active) == 0:
            break
    done = np.ones(len(u), dtype=bool)
    done[active] = False
    return u, n_iter, done


def _iterate(problem: _Problem, tol: float, max_iter: int, change: Callable) -> tuple:
    """MacKay's iteration, alpha = gamma / ||m||^2, beta = (n - gamma) / ||F m - y||^2.

    Both right-hand sides depend on t alone, so this is a fixed-point iteration of t.
    It starts from the best point of the grid. The published start, t = 1, depends on
    the unit of the features and may lead to a lesser maximum.
    """
    n_targets = len(problem.residual)
    n_iter = np.zeros(n_targets, dtype=int)
    converged = np.ones(n_targets, dtype=bool)
    s = problem.s[:, None]
    grid = _search_grid(problem)
    on_grid, slope = _profile_on_grid(problem, grid)
    value = _value_at_infinity(problem)
    peaks = _peaks(problem, grid, slope)
    inner = np.c_[peaks, np.zeros(n_targets, dtype=bool)]
    on_grid = np.where(problem.spurious[:, None] & ~inner, -np.inf, on_grid)
    # The iteration would approach a maximum at infinity ever more slowly.
    none = _rises_to_infinity(problem)
    none &= on_grid.max(axis=1) <= value + 1e-12 * problem.n
    at_zero = _value_at_zero(problem)
    u = np.where(none, np.inf, grid[np.argmax(on_grid, axis=1)])
    u[np.isposinf(at_zero)] = -np.inf
    stopped = _stops_at_lower_bound(problem, peaks)
    u[stopped] = problem.lower_bound
    precision = np.full((2, n_targets), np.nan)
    active = np.flatnonzero(np.isfinite(u) & ~stopped)
    for _ in range(max_iter):
        t = np.exp(u[active])
        q, z2 = t / (t + s), problem.z2[:, active]
        gamma = np.sum(s / (t + s), axis=0)
        free = problem.n - len(s) + np.sum(q, axis=0)  # n - gamma, without cancellation
        weights_norm = np.sum(z2 * s / (t + s) ** 2, axis=0)
        error = np.sum(z2 * q**2, axis=0) + problem.residual[active]
        with np.errstate(divide="ignore", invalid="ignore"):
            new = np.stack([gamma / weights_norm, free / error])
            new_u = np.log(new[0]) - np.log(new[1])
        moving = change(u[active], new_u, precision[:, active], new) > tol
        u[active], precision[:, active] = new_u, new
        n_iter[active] += 1
        # Beyond either end of the range all further change is rounding.
        active = active[moving & (np.abs(new_u) < -_U_MIN)]
        if len(active) == 0:
            break
    converged[active] = False
    u[u >= _U_MAX] = np.inf
    u[u <= _U_MIN] = -np.inf

    finite = np.isfinite(u)
    value[finite] = profile(problem.take(finite), u[finite])[0]
    value[np.isneginf(u)] = at_zero[np.isneginf(u)]
    return u, value, n_iter, converged


def _change_of_t(u, new_u, old, new):
    """Criterion of Algorithm 3 of the JMLR paper."""
    return np.abs(np.expm1(new_u - u))


def _change_of_precisions(u, new_u, old, new):
    """Criterion of Algorithm 2 of the JMLR paper: the change of alpha and beta."""
    with np.errstate(invalid="ignore"):
        change = np.max(np.abs(new / old - 1), axis=0)
    return np.where(np.isnan(change), np.inf, change)


_SOLVERS = {
    "newton": _newton,
    "fixed_point": partial(_iterate, change=_change_of_t),
    "mackay": partial(_iterate, change=_change_of_precisions),
}
