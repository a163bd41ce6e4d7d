"""The maximum of the evidence: global, and right at every limit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

from sktransfer.exceptions import UnboundedEvidenceWarning
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.linear_model._evidence import _Problem, maximise_evidence, profile
from sktransfer.linear_model._spectrum import Spectrum

SOLVERS = ["newton", "fixed_point", "mackay"]
PATIENT = {"max_iter": 100_000, "tol": 1e-10}


def random_problem(rng, rank, n, n_targets, spread, explained):
    """Spectrum over `spread` e-folds; `explained` is the targets' reachable part."""
    s = np.sort(np.exp(rng.uniform(-spread, 0, size=rank)))[::-1]
    z2 = np.exp(rng.normal(scale=2, size=(rank, n_targets)))
    z2 *= explained / z2.sum(axis=0)
    residual = np.full(n_targets, 1.0 - explained)
    return _Problem(s / s[0], z2, residual, float(n))


def solve(problem, solver="newton", *, credible=True, **kwargs):
    spectrum = Spectrum(
        eigenvalues=problem.s,
        eigenbasis=None,
        projections=np.sqrt(problem.z2),
        residual=problem.residual,
        uncertain=np.zeros(len(problem.residual), dtype=bool),
        target_norms=problem.z2.sum(axis=0) + problem.residual,
        n_samples=problem.n,
        n_rows=int(problem.n),
        n_distinct=2 * len(problem.s) if credible else 0,
    )
    assert spectrum.credible == credible
    return maximise_evidence(spectrum, solver=solver, **{**PATIENT, **kwargs})


def brute_force(problem, grid):
    """Evidence of the first target from its definition, for t = exp(grid)."""
    shrink = 1 / (1 + problem.s[:, None] * np.exp(-grid))
    energy = problem.z2[:, 0] @ shrink + problem.residual[0]
    n = problem.n
    fit = n * (np.log(n / (2 * np.pi * energy)) - 1)
    return 0.5 * (fit + np.log(shrink).sum(axis=0))


@pytest.mark.parametrize("u", [-12.0, -3.0, 0.0, 2.5, 10.0])
def test_profile_derivatives(u, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    problem = random_problem(rng, rank=7, n=30, n_targets=4, spread=6, explained=0.8)
    u, step = np.full(4, u), 1e-4
    value, slope, curvature = profile(problem, u)
    above, below = profile(problem, u + step), profile(problem, u - step)
    np.testing.assert_allclose(
        slope, (above[0] - below[0]) / (2 * step), rtol=1e-6, atol=1e-8
    )
    np.testing.assert_allclose(
        curvature, (above[1] - below[1]) / (2 * step), rtol=1e-6, atol=1e-8
    )
    np.testing.assert_allclose(value[0], brute_force(problem, u[:1])[0])


@pytest.mark.parametrize("shape", ["n > D", "n < D", "wide spectrum", "faint noise"])
def test_global_maximum(shape, global_random_seed):
    settings = {
        "n > D": {"rank": 6, "n": 40, "spread": 3, "explained": 0.6},
        "n < D": {"rank": 15, "n": 15, "spread": 4, "explained": 1.0},
        "wide spectrum": {"rank": 8, "n": 50, "spread": 25, "explained": 0.9},
        "faint noise": {"rank": 5, "n": 20, "spread": 10, "explained": 1 - 1e-6},
    }[shape]
    grid = np.arange(-60, 40, 0.02)
    for offset in range(25):
        rng = np.random.default_rng([global_random_seed, offset])
        problem = random_problem(rng, n_targets=1, **settings)
        best = max(brute_force(problem, grid).max(), brute_force(problem, np.inf))
        found = solve(problem).log_evidence[0]
        # The grid misses the top of a peak by little, and never exceeds it.
        assert found == pytest.approx(best, abs=5e-3)
        assert found >= best - 1e-9 * problem.n


def test_maximum_next_to_the_noiseless_limit():
    """Found by chance: a peak far below all eigenvalues, little above the limit."""
    rng = np.random.default_rng([33, 16])
    problem = random_problem(rng, 15, 15, n_targets=1, spread=4, explained=1.0)
    best = brute_force(problem, np.arange(-20, 10, 0.01)).max()
    assert best > brute_force(problem, np.array([-25.0]))[0] + 1e-5
    found = solve(problem)
    assert np.isfinite(found.beta[0])
    assert found.log_evidence[0] == pytest.approx(best, abs=1e-8)


def two_scales(share):
    """Strong features explain `share` of the target, a million times weaker others
    most of the rest: shrinking either away is a local maximum.
    """
    s = np.repeat([1.0, 1e-6], 10)
    z2 = np.repeat([share, 0.95 - share], 10)[:, None] / 10
    return _Problem(s, z2, np.array([0.05]), 100.0)


@pytest.mark.parametrize(("share", "winner"), [(0.8, "high"), (0.6, "low")])
def test_larger_of_two_maxima(share, winner, local_maxima):
    problem = two_scales(share)
    grid = np.arange(-40, 20, 0.01)
    curve = brute_force(problem, grid)
    peaks = local_maxima(curve)
    assert len(peaks) >= 2
    best = peaks[np.argmax(curve[peaks])]
    assert best == (peaks[-1] if winner == "high" else peaks[0])
    for solver in SOLVERS:
        found = solve(problem, solver)
        assert np.log(found.t[0]) == pytest.approx(grid[best], abs=0.02)
        assert found.log_evidence[0] >= curve[best]


def test_two_maxima_of_an_estimator(
    evidence_curve, local_maxima, with_spectrum, global_random_seed
):
    """The same from features: the answer does not depend on where a search starts."""
    rng = np.random.default_rng(global_random_seed)
    spectrum = np.repeat([1.0, 1e-3], 10)
    X = with_spectrum(rng, 100, 30, spectrum)
    left = np.linalg.svd(X)[0]
    y = left[:, :10].sum(axis=1) + left[:, 10:20].sum(axis=1) * 0.8
    y += 0.05 * left[:, 20:30].sum(axis=1)
    grid = np.arange(-30, 20, 0.01)
    curve = evidence_curve(X, y, grid)
    assert len(local_maxima(curve)) >= 2
    for solver in SOLVERS:
        model = LogME(solver=solver, **PATIENT).fit(X, y)
        assert model.logme_ == pytest.approx(curve.max() / 100, abs=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("max_iter", [1, 10, 1000])
@pytest.mark.parametrize("n_features", [5, 80])
def test_no_evidence(solver, max_iter, n_features, global_random_seed):
    """Theorem 2's condition fails: the supremum lies at infinite alpha."""
    rng = np.random.default_rng(global_random_seed)
    n = 50
    X = rng.normal(size=(n, n_features))
    # The weakest direction of the features alone is correlated with the target.
    left, singular, _ = np.linalg.svd(X)
    y = left[:, len(singular) - 1] + (4 * left[:, n - 1] if n_features < n else 0)
    share = (left.T[: len(singular)] @ y) ** 2 / (y @ y)
    assert n * singular**2 @ share <= (singular**2).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LogME(solver=solver, max_iter=max_iter).fit(X, y)
    assert model.converged_.all()
    assert np.isposinf(model.alpha_).all()
    np.testing.assert_array_equal(model.coef_, 0)
    np.testing.assert_allclose(model.beta_, n / (y @ y))
    np.testing.assert_array_equal(model.effective_dof_, 0)
    limit = -0.5 * (np.log(2 * np.pi * (y @ y) / n) + 1)
    assert model.logme_ == pytest.approx(limit, abs=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_inner_maximum_beats_infinity(solver):
    """Theorem 2's condition fails, and yet an inner maximum is higher."""
    s = np.r_[1.0, np.full(10, 1e-4)]
    problem = _Problem(s, np.r_[0.0, np.full(10, 0.09)][:, None], np.array([0.1]), 99.0)
    assert problem.n * (problem.s @ problem.z2)[0] <= problem.s.sum()
    grid = np.arange(-40, 37, 0.01)
    best = brute_force(problem, grid).max()
    assert best > brute_force(problem, np.inf) + 10
    found = solve(problem, solver)
    assert np.isfinite(found.alpha[0])
    assert found.log_evidence[0] == pytest.approx(best, abs=1e-3)
    # Cut short, the search must not mistake this for a target without evidence.
    short = solve(problem, solver, max_iter=1)
    assert np.isfinite(short.alpha[0])
    assert not short.converged[0]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_features", [4, 29])
def test_exactly_linear_target(solver, n_features, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(40, n_features))
    coef = rng.normal(size=n_features)
    with pytest.warns(UnboundedEvidenceWarning, match="explain target 0 without any"):
        model = LogME(solver=solver, **PATIENT).fit(X, X @ coef)
    assert np.isposinf(model.logme_)
    assert np.isposinf(model.beta_).all()
    np.testing.assert_allclose(model.coef_, coef)
    np.testing.assert_allclose(model.alpha_, 40 / (coef @ coef))
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, X @ coef)
    np.testing.assert_allclose(std, 0, atol=1e-12)


def test_exactly_linear_in_weak_features(global_random_seed):
    """The weaker the features that matter, the larger the rounding that hides it."""
    for offset in range(20):
        rng = np.random.default_rng([global_random_seed, offset])
        scales = np.geomspace(1, 1e-3, 60)
        X = rng.normal(size=(300, 60)) * scales
        with pytest.warns(UnboundedEvidenceWarning):
            model = LogME().fit(X, X @ (rng.normal(size=60) / scales))
        assert np.isposinf(model.logme_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_barely_more_samples_than_weak_features(dtype, global_random_seed):
    """A residual of a few degrees of freedom is small, but no rounding."""
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(205, 200)) * np.geomspace(1, 1e-3, 200)
    y = X[:, 0] + rng.normal(size=205)
    assert np.isfinite(LogME().fit(X.astype(dtype), y).logme_)


@pytest.mark.parametrize("solver", SOLVERS)
def test_unbounded_far_away(solver):
    """Nearly as many features as samples: the ascent begins below all eigenvalues."""
    s = np.geomspace(1, 1e-3, 299)
    z2 = np.where(s == s[-1], 1.0, 0.0)[:, None]
    found = solve(_Problem(s, z2, np.zeros(1), 300.0), solver)
    assert np.isposinf(found.log_evidence[0])
    assert np.isposinf(found.beta[0])
    assert found.alpha[0] == pytest.approx(300 * s[-1])


@pytest.mark.parametrize("solver", SOLVERS)
def test_spurious_fit_stops(solver):
    """One sample more than directions does not make an exact fit credible: t stops."""
    s = np.geomspace(1, 1e-3, 299)
    z2 = s[:, None] ** 1.5
    problem = _Problem(s, z2 / z2.sum(), np.zeros(1), 300.0)
    found = solve(problem, solver, credible=False)
    assert found.at_lower_bound[0]
    assert found.converged[0]
    assert found.t[0] == pytest.approx(1e-8 * s[-1])
    expected = brute_force(problem, np.log(1e-8 * s[-1:]))
    assert found.log_evidence[0] == pytest.approx(expected[0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_interior_maximum_of_a_spurious_fit(solver, local_maxima):
    """The evidence rises for ever as the noise vanishes, and has a maximum before."""
    s = np.geomspace(1, 1e-3, 299)
    z2 = s[:, None] ** 0.5
    problem = _Problem(s, z2 / z2.sum(), np.zeros(1), 300.0)
    grid = np.arange(-40, 20, 0.01)
    curve = brute_force(problem, grid)
    peaks = local_maxima(curve)
    assert len(peaks) == 1
    # Without noise it would be higher, and without bound.
    far = brute_force(problem, np.array([-300.0, -400.0]))
    assert curve[peaks[0]] < far[0] < far[1]
    found = solve(problem, solver, credible=False)
    assert not found.at_lower_bound[0]
    assert np.log(found.t[0]) == pytest.approx(grid[peaks[0]], abs=0.02)
    assert found.log_evidence[0] == pytest.approx(curve[peaks[0]], abs=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_leaked_target(dtype, global_random_seed):
    """One feature is the target, rounded like the others."""
    rng = np.random.default_rng(global_random_seed)
    X = np.maximum(rng.normal(size=(500, 40)), 0)
    y = rng.integers(3, size=500)
    X[:, 7] = y == 1
    with pytest.warns(UnboundedEvidenceWarning, match="explain class 1 without"):
        model = LogMEClassifier().fit(X.astype(dtype), y)
    np.testing.assert_array_equal(
        np.isposinf(model.log_evidence_), [False, True, False]
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_features", [20, 45])
def test_interpolation_limit(solver, n_features, with_spectrum, global_random_seed):
    """N <= D and a target that the prior without noise fits best: a finite limit.

    For beta to infinity y ~ N(0, X X^T / alpha), and alpha = n / y^T (X X^T)^-1 y.
    """
    rng = np.random.default_rng(global_random_seed)
    n, singular = 20, np.exp(rng.uniform(-1.5, 0, size=20))
    X = with_spectrum(rng, n, n_features, singular)
    covariance = X @ X.T
    values, vectors = np.linalg.eigh(covariance)
    y = vectors @ values**0.75
    precision = n / (y @ np.linalg.solve(covariance, y))

    def log_density(beta):
        C = covariance / precision + np.eye(n) / beta
        fit = y @ np.linalg.solve(C, y)
        return -0.5 * (n * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + fit)

    curve = [log_density(10.0**k) for k in range(2, 11)]
    assert (np.diff(curve) > -1e-8).all()

    model = LogME(solver=solver, **PATIENT).fit(X, y)
    assert model.log_evidence_[0] == pytest.approx(curve[-1], abs=1e-5)
    assert model.alpha_[0] == pytest.approx(precision, rel=1e-6)
    assert np.isposinf(model.beta_[0])
    np.testing.assert_allclose(model.predict(X), y, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("n_features", [3, 30])
@pytest.mark.parametrize("solver", SOLVERS)
def test_features_without_rank(fit_intercept, n_features, solver):
    y = np.array([1.0, 2.0, 4.0, -1.0, 0.5] * 2)
    model = LogME(fit_intercept=fit_intercept, solver=solver)
    model.fit(np.zeros((10, n_features)), y)
    centred, n = (y - y.mean(), 9) if fit_intercept else (y, 10)
    limit = -0.5 * (np.log(2 * np.pi * (centred @ centred) / n) + 1)
    assert model.logme_ == pytest.approx(limit)
    assert np.isposinf(model.alpha_).all()
    assert len(model.singular_values_) == 0
    np.testing.assert_array_equal(model.coef_, np.zeros(n_features))
    np.testing.assert_allclose(
        model.predict(np.ones((2, n_features))), y.mean() if fit_intercept else 0
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_samples", [178, 9])
def test_fixed_point_equations(solver, n_samples):
    """Gamma = alpha |m|^2 and n - gamma = beta |F m - y|^2."""
    X, y = load_wine(return_X_y=True)
    chosen = np.linspace(0, len(y) - 1, n_samples).astype(int)
    X, y = scale(X)[chosen], y[chosen]
    model = LogMEClassifier(solver=solver, **PATIENT).fit(X, y)
    gamma, m = model.effective_dof_, model.coef_
    errors = X @ m.T - (y[:, None] == model.classes_)
    np.testing.assert_allclose(gamma, model.alpha_ * (m**2).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(
        n_samples - gamma, model.beta_ * (errors**2).sum(axis=0), rtol=1e-6
    )
    s = model.singular_values_**2
    t = model.alpha_ / model.beta_
    np.testing.assert_allclose(gamma, (s / (s + t[:, None])).sum(axis=1))


def test_solvers_agree(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X, y = load_diabetes(return_X_y=True)
    X = np.maximum(X @ rng.normal(size=(10, 30)), 0)
    y = np.column_stack([y - y.mean(), y, X @ rng.normal(size=30)])
    y[:, 2] += 0.05 * rng.normal(size=len(y))
    models = [LogME(solver=name, **PATIENT).fit(X, y) for name in SOLVERS]
    for other in models[1:]:
        np.testing.assert_allclose(
            other.log_evidence_ / len(y),
            models[0].log_evidence_ / len(y),
            rtol=0,
            atol=1e-6,
        )
        np.testing.assert_allclose(other.alpha_, models[0].alpha_, rtol=1e-4)
        np.testing.assert_allclose(other.beta_, models[0].beta_, rtol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_not_converged(solver):
    X, y = load_wine(return_X_y=True)
    labels = np.array(["red", "rose", "white"])[y]
    model = LogMEClassifier(solver=solver, max_iter=1, tol=1e-12)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=1 .*class 'red', 'rose'"):
        model.fit(scale(X), labels)
    assert not model.converged_.any()
    np.testing.assert_array_equal(model.n_iter_, 1)


def test_newton_is_quick():
    X, y = load_wine(return_X_y=True)
    model = LogMEClassifier().fit(scale(X), y)
    assert model.converged_.all()
    assert model.n_iter_.max() <= 10
