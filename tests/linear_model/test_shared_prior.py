"""One prior for all classes, against a grid and beside the papers' number."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale

from sktransfer.linear_model import LogMEClassifier
from sktransfer.linear_model._evidence import _Problem, profile
from sktransfer.linear_model._shared_evidence import maximise_shared_evidence

pytestmark = pytest.mark.filterwarnings(
    "ignore::sktransfer.exceptions.UnboundedEvidenceWarning"
)

SHAPES = {
    "n < D": (12, 30),
    "n = D": (20, 20),
    "n = D + 1": (21, 20),
    "n > D": (60, 10),
    "n >> D": (90, 3),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_shared_prior_against_a_grid(shape, fit_intercept, unit, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    n, d = SHAPES[shape]
    X = rng.normal(size=(n, d)) + 0.3
    noise = 3 * rng.normal(size=(n, 3))
    y = np.argmax(X[:, :3] @ rng.normal(size=(3, 3)) + noise, axis=1)
    y[:3] = range(3)
    model = LogMEClassifier(fit_intercept=fit_intercept).fit(unit * X, y)
    spectrum = model._solve().spectrum
    maximum = maximise_shared_evidence(spectrum)
    problem = _Problem.of(spectrum)
    bottom = problem.lower_bound if problem.spurious.any() else -40.0
    grid = np.linspace(bottom, 37, 5001)
    each = [profile(problem, np.full(3, u))[0] for u in grid]
    on_grid = np.sum(each, axis=1) - 0.5 * problem.n * np.log(problem.norms).sum()
    found = maximum.log_evidence.sum()
    u = np.log(maximum.t[0] / problem.scale)
    if problem.spurious.any():
        # A local maximum is preferred to an evidence that rises without limit.
        inner = np.flatnonzero((np.diff(on_grid)[:-1] > 0) & (np.diff(on_grid)[1:] < 0))
        best = on_grid[inner + 1].max() if len(inner) else found
        assert found >= best - 1e-9 * abs(best)
    else:
        assert found >= on_grid.max() - 1e-9 * abs(found)
        assert found <= on_grid.max() + 1e-3
    assert np.isinf(u) or bottom - 1 <= u < 37
    np.testing.assert_array_equal(maximum.t, maximum.t[0])
    # It does not depend on the unit of the features.
    again = LogMEClassifier(fit_intercept=fit_intercept).fit(X, y)
    same = maximise_shared_evidence(again._solve().spectrum)
    np.testing.assert_allclose(maximum.t, unit**2 * same.t, rtol=1e-4)


def test_shared_prior_leaves_the_score(global_random_seed):
    X, y = load_wine(return_X_y=True)
    X = scale(X)
    papers = LogMEClassifier(std_error=True).fit(X, y)
    shared = LogMEClassifier(std_error=True, prior="shared").fit(X, y)
    for name in ("logme_", "std_error_", "log_evidence_", "influence_"):
        np.testing.assert_array_equal(getattr(shared, name), getattr(papers, name))
    assert not np.allclose(shared.coef_, papers.coef_)
    assert (
        np.ptp(shared.alpha_ / shared.beta_)
        < 1e-9
        < np.ptp(papers.alpha_ / papers.beta_)
    )
    stream = LogMEClassifier(prior="shared")
    for rows in np.array_split(np.random.default_rng(0).permutation(len(y)), 4):
        stream.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    np.testing.assert_allclose(stream.coef_, shared.coef_, rtol=1e-6, atol=1e-9)
    means = shared.predict_proba(X)
    shared.compact()
    np.testing.assert_array_equal(shared.predict_proba(X), means)
    again = pickle.loads(pickle.dumps(shared))
    np.testing.assert_array_equal(again.predict_proba(X), means)
