"""Left-out samples and groups against as many refits, by the normal equations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import norm
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from sktransfer.exceptions import UnboundedEvidenceWarning
from sktransfer.linear_model import (
    LogME,
    LogMEClassifier,
    r2_parts,
    standard_error,
)

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
WEIGHTS = {
    "none": lambda rng, n: None,
    "copies": lambda rng, n: rng.integers(0, 3, size=n).astype(float),
    "parts": lambda rng, n: rng.uniform(0.1, 2, size=n),
}
GROUPS = {
    "none": lambda rng, n: None,
    "alone": lambda rng, n: rng.permutation(n),
    "few": lambda rng, n: rng.integers(0, max(n // 3, 2), size=n),
    "two": lambda rng, n: np.arange(n) % 2,
}
EVERY = [
    pytest.mark.parametrize("shape", SHAPES),
    pytest.mark.parametrize("weights", WEIGHTS),
    pytest.mark.parametrize("groups", GROUPS),
    pytest.mark.parametrize("fit_intercept", [False, True]),
]


def on_every(test):
    for mark in EVERY:
        test = mark(test)
    return test


def draw(rng, n, d):
    X = rng.normal(size=(n, d)) + 0.3
    Y = X[:, :3] @ rng.normal(size=(3, 2)) + 3 * rng.normal(size=(n, 2))
    return X, Y


def refit(X, y, weights, t, fit_intercept):
    """Weights and intercept of ridge regression with penalty t, and its matrix."""
    if np.isinf(t):
        constant = weights @ y / weights.sum() if fit_intercept else 0.0
        return np.r_[np.zeros(X.shape[1]), constant], None
    A = np.c_[X, np.ones(len(X))]
    penalty = np.diag(np.r_[np.full(X.shape[1], t), 0.0])
    if not fit_intercept:
        A[:, -1], penalty[-1, -1] = 0.0, 1.0
    M = A.T @ (weights[:, None] * A) + penalty
    return np.linalg.solve(M, A.T @ (weights * y)), np.linalg.inv(M)


def refits(X, Y, weights, groups, t, fit_intercept):
    """Predictions, one refit for each group and target, and their variances."""
    n = len(X)
    weights = np.ones(n) if weights is None else weights
    groups = np.arange(n) if groups is None else groups
    predictions, variances = np.empty(Y.shape), np.ones(Y.shape)
    F = np.c_[X, np.ones(n)]
    F[:, -1] *= fit_intercept
    for group in np.unique(groups):
        out = groups == group
        rest = weights - out * np.minimum(weights, 1)
        for k, y in enumerate(Y.T):
            w, inverse = refit(X, y, rest, t[k], fit_intercept)
            if inverse is not None:
                predictions[out, k] = F[out] @ w
                variances[out, k] += np.sum(F[out] @ inverse * F[out], axis=1)
            else:
                predictions[out, k] = w[-1]
                variances[out, k] += fit_intercept / rest.sum()
    return predictions, variances


def solvable(model):
    """Targets for which the normal equations have digits left."""
    t = np.asarray(model.alpha_ / model.beta_)
    return t > 1e-5 * model.singular_values_[-1] ** 2


def make(cls, rng, shape, weights, groups):
    n, d = SHAPES[shape]
    X, Y = draw(rng, n, d)
    y = Y if cls is LogME else np.argmax(np.c_[Y, 0 * Y[:, :1]], axis=1)
    w, g = WEIGHTS[weights](rng, n), GROUPS[groups](rng, n)
    if cls is LogMEClassifier:
        y[:3], w = np.arange(3), None if w is None else np.r_[1.0, 1.0, 1.0, w[3:]]
    return X, y, w, g


def fit_noisy(model, rng, shape, weights="none", groups="none"):
    """Fit a model to data that some target does not follow exactly."""
    for _ in range(200):
        X, y, w, g = make(type(model), rng, shape, weights, groups)
        if g is not None and len(np.unique(g[w > 0] if w is not None else g)) < 2:
            continue
        model.fit(X, y, w, groups=g)
        if solvable(model).any():
            return X, y, w, g
    raise AssertionError("all data are fitted exactly")


def check_error(found, parts, variances, weights, groups):
    """A standard error of parts with these variances over training sets."""
    if weights is not None:  # whole ones, which are copies
        rows = np.repeat(np.arange(len(parts)), weights.astype(int))
        parts, variances = parts[rows], variances[rows]
        groups = None if groups is None else groups[rows]
    of_parts = standard_error(parts, None, groups)
    effect = 1.0
    if groups is not None and np.ptp(parts) > 0:
        effect = max(1.0, (of_parts / standard_error(parts)) ** 2)
    elif groups is not None:
        effect = np.mean([np.sum(groups == g) for g in groups])
    of_training = variances.mean() / len(parts) * effect**2
    expected = np.sqrt(of_parts**2 + of_training)
    assert found == pytest.approx(expected, rel=1e-3)  # one of two rivals may count


@on_every
def test_regression_equals_refits(
    shape, weights, groups, fit_intercept, global_random_seed
):
    rng = np.random.default_rng(global_random_seed)
    model = LogME(fit_intercept=fit_intercept, leave_one_out=True)
    X, Y, w, g = fit_noisy(model, rng, shape, weights, groups)
    k = solvable(model)
    t = (model.alpha_ / model.beta_)[k]
    expected, variances = refits(X, Y[:, k], w, g, t, fit_intercept)
    found = model.loo_predictions_
    np.testing.assert_allclose(found[:, k], expected, rtol=1e-8, atol=1e-8)
    r2 = r2_score(Y, found, sample_weight=w)
    assert model.loo_r2_ == pytest.approx(r2, rel=1e-8, abs=1e-8)
    counted = np.ones(len(X)) if w is None else w
    if k.all() and weights != "parts":  # of which a part is left out
        scale = np.sqrt(variances / model.beta_)
        density = norm.logpdf(Y, expected, scale).mean(axis=1) * (counted > 0)
        np.testing.assert_allclose(model.loo_log_density_, density, rtol=1e-6)
        some, variance = counted > 0, (variances - 1) / model.beta_
        np.testing.assert_allclose(
            model.loo_std_[some] ** 2, variance[some], rtol=1e-6, atol=1e-12
        )
        slopes = (Y - expected) / scale**2
        of_training = np.sum(slopes**2 * variance, axis=1) / Y.shape[1] ** 2
        check_error(model.loo_log_likelihood_std_error_, density, of_training, w, g)
        B = np.average((Y - np.average(Y, axis=0, weights=w)) ** 2, axis=0, weights=w)
        of_training = np.sum((2 * (Y - expected) / B) ** 2 * variance, axis=1) / 4
        parts = r2_parts(Y, expected, w)
        check_error(model.loo_r2_std_error_, parts, of_training, w, g)
    mean = counted @ model.loo_log_density_ / counted.sum()
    assert model.loo_log_likelihood_ == pytest.approx(mean, nan_ok=True)


@on_every
def test_classifier_equals_refits(
    shape, weights, groups, fit_intercept, global_random_seed
):
    rng = np.random.default_rng(global_random_seed)
    model = LogMEClassifier(
        fit_intercept=fit_intercept, leave_one_out=True, prior="shared"
    )
    X, y, w, g = fit_noisy(model, rng, shape, weights, groups)
    t = model.alpha_ / model.beta_
    np.testing.assert_allclose(t, t[0])
    expected, variances = refits(X, np.eye(3)[y], w, g, t, fit_intercept)
    np.testing.assert_allclose(model.loo_predictions_, expected, rtol=1e-8, atol=1e-8)
    first = expected >= expected.max(axis=1, keepdims=True) - 1e-9
    right = first[np.arange(len(y)), y] / first.sum(axis=1)  # ties count in part
    assert model.loo_accuracy_ == pytest.approx(np.average(right, weights=w))
    T = model.temperature_
    log_proba = log_softmax(expected / T, axis=1)
    own = np.arange(len(y)), y
    density = log_proba[own]
    np.testing.assert_allclose(model.loo_log_density_, density, rtol=1e-6, atol=1e-12)
    if weights != "parts":
        variance = (variances - 1) / model.beta_
        slopes = (np.eye(3)[y] - np.exp(log_proba)) / T
        # Predictions of three classes sum to one: each moves against the others.
        of_training = 3 / 2 * np.sum(slopes**2 * variance, axis=1)
        check_error(model.loo_log_likelihood_std_error_, density, of_training, w, g)
        others = np.where(np.eye(3)[y] == 1, -np.inf, expected)
        rival = np.arange(len(y)), others.argmax(axis=1)
        ahead = (expected[own] - expected[rival]) / np.sqrt(
            variance[own] + variance[rival]
        )
        counted = np.ones(len(y)) if w is None else w
        of_training = norm.cdf(ahead) * norm.sf(ahead) + 1 / counted.sum()
        check_error(model.loo_accuracy_std_error_, right, of_training, w, g)
    # The prior of the means that predict does not matter.
    other = LogMEClassifier(fit_intercept=fit_intercept, leave_one_out=True)
    other.fit(X, y, w, groups=g)
    np.testing.assert_array_equal(other.loo_predictions_, model.loo_predictions_)


@given(
    n=st.integers(4, 30),
    d=st.integers(1, 40),
    rank=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    weights=st.sampled_from(tuple(WEIGHTS)),
    groups=st.sampled_from(tuple(GROUPS)),
    fit_intercept=st.booleans(),
)
# Two samples of positive weight had a third direction, of rounding.
@example(9, 9, 9, 24653, "copies", "none", False)
@example(8, 8, 38, 225, "copies", "none", False)
def test_any_shape(n, d, rank, seed, weights, groups, fit_intercept):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    Y = X[:, :1] + 2 * rng.normal(size=(n, 2)) + 1
    w, g = WEIGHTS[weights](rng, n), GROUPS[groups](rng, n)
    model = LogME(fit_intercept=fit_intercept, leave_one_out=True)
    try:
        model.fit(X, Y, w, groups=g)
    except ValueError:  # too little weight, or one group
        assume(False)
    assert np.isfinite(model.loo_predictions_).all()
    assume(solvable(model).all())
    t = model.alpha_ / model.beta_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected, _ = refits(X, Y, w, g, t, fit_intercept)
    np.testing.assert_allclose(model.loo_predictions_, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", ["n < D", "n > D"])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_agrees_with_ridge(shape, fit_intercept, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    model = LogMEClassifier(
        fit_intercept=fit_intercept, leave_one_out=True, prior="shared"
    )
    X, y, _, _ = fit_noisy(model, rng, shape)
    ridge = RidgeCV(
        [min(float(model.alpha_[0] / model.beta_[0]), 1e12)],
        fit_intercept=fit_intercept,
        scoring=None,
        store_cv_results=True,
        alpha_per_target=True,
    ).fit(X, np.eye(3)[y])
    errors = (np.eye(3)[y] - model.loo_predictions_) ** 2
    np.testing.assert_allclose(ridge.cv_results_[:, :, 0], errors, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(model.coef_, ridge.coef_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cls", [LogME, LogMEClassifier])
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("shape", ["n < D", "n > D"])
def test_other_array_libraries(cls, groups, shape):
    rng = np.random.default_rng(0)
    X, y, w, g = make(cls, rng, shape, "copies", "few")
    g = g if groups else None
    ours = cls(leave_one_out=True, fit_intercept=True).fit(X, y, w, groups=g)
    for library in ("torch", "array_api_strict"):
        xp = pytest.importorskip(library)
        model = cls(leave_one_out=True, fit_intercept=True)
        model.fit(*(xp.asarray(part) for part in (X, y, w)), groups=g)
        for name in ("loo_predictions_", "loo_log_density_"):
            value = getattr(model, name)
            assert type(value) is type(xp.asarray(X))
            np.testing.assert_allclose(
                np.asarray(value), getattr(ours, name), rtol=1e-6, atol=1e-8
            )
        assert type(model.loo_log_likelihood_) is float


# Data at their limits.


@pytest.mark.parametrize("groups", [None, np.arange(10) // 2])
def test_duplicates_and_zero_weights(groups, global_random_seed):
    """A weight of two is a copy of the sample, one of zero is no sample."""
    rng = np.random.default_rng(global_random_seed)
    X, y = rng.normal(size=(40, 4)), np.arange(40) % 3
    groups = None if groups is None else np.arange(40) // 2
    counts = np.r_[np.full(10, 2.0), np.zeros(10), np.ones(20)]
    copies = np.repeat(np.arange(40), counts.astype(int))
    for cls, target in ((LogME, X[:, 0] + rng.normal(size=40)), (LogMEClassifier, y)):
        options = {"leave_one_out": True, "fit_intercept": True}
        weighted = cls(**options).fit(X, target, counts, groups=groups)
        kept = counts > 0
        reduced = cls(**options).fit(
            X[kept],
            target[kept],
            counts[kept],
            groups=None if groups is None else groups[kept],
        )
        np.testing.assert_allclose(
            weighted.loo_predictions_[kept], reduced.loo_predictions_, rtol=1e-8
        )
        if groups is None:
            # Nothing is left out for a sample of no weight.
            full = cls(prior="shared", **options) if cls is LogMEClassifier else cls()
            full.set_params(**options).fit(X[copies], target[copies])
            np.testing.assert_allclose(
                weighted.loo_predictions_[copies], full.loo_predictions_, rtol=1e-8
            )
            none = X[~kept] @ full.coef_.T + full.intercept_
            np.testing.assert_allclose(weighted.loo_predictions_[~kept], none)
        assert weighted.loo_log_likelihood_ == pytest.approx(
            reduced.loo_log_likelihood_
        )


@pytest.mark.parametrize("cls", [LogME, LogMEClassifier])
def test_constant_and_repeated_features(cls, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X, y, _, _ = make(cls, rng, "n > D", "none", "none")
    options = {"leave_one_out": True, "fit_intercept": True}
    model = cls(**options).fit(X, y)
    constant = cls(**options).fit(np.c_[X, np.full(len(X), 7.0)], y)
    twice = cls(**options).fit(np.c_[X, X] / np.sqrt(2), y)
    for other in (constant, twice):
        np.testing.assert_allclose(
            other.loo_predictions_, model.loo_predictions_, rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]])
def test_all_samples_equal(groups):
    """Each is predicted by the mean of the others, or not at all."""
    X, y = np.ones((10, 3)), np.array([0, 0, 0, 1, 1, 0, 1, 0, 0, 0])
    model = LogMEClassifier(fit_intercept=True, leave_one_out=True)
    model.fit(X, y, groups=groups)
    one_hot, g = np.eye(2)[y], np.arange(10) if groups is None else np.array(groups)
    others = [one_hot[g != group].mean(axis=0) for group in g]
    np.testing.assert_allclose(model.loo_predictions_, others)
    assert model.loo_accuracy_ == 0.7
    assert np.isfinite(model.loo_log_likelihood_)
    # Without an intercept, features of zero say nothing at all.
    model.set_params(fit_intercept=False).fit(0 * X, y, groups=groups)
    np.testing.assert_array_equal(model.loo_predictions_, 0)
    assert model.loo_accuracy_ == 0.5
    assert model.loo_log_likelihood_ == pytest.approx(-np.log(2))


def test_class_with_one_sample(global_random_seed):
    """It is predicted by a model that has never seen the class."""
    rng = np.random.default_rng(global_random_seed)
    X = np.vstack([rng.normal(size=(20, 3)) + 3 * np.eye(3)[i % 2] for i in range(2)])
    y = np.repeat(["a", "b"], 20).astype(object)
    y[7] = "rare"
    model = LogMEClassifier(fit_intercept=True, leave_one_out=True).fit(X, y)
    assert model.loo_predictions_[7, 2] == pytest.approx(0, abs=1e-9)
    assert model.classes_[model.loo_predictions_[7].argmax()] != "rare"
    assert model.loo_accuracy_ < 1


@pytest.mark.parametrize("cls", [LogME, LogMEClassifier])
def test_bad_groups(cls, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X, y, _, _ = make(cls, rng, "n > D", "none", "none")
    n = len(y)
    model = cls(leave_one_out=True)
    with pytest.raises(
        ValueError, match="at least 2 groups .* all of them are in .* p"
    ):
        model.fit(X, y, groups=["p"] * n)
    with pytest.raises(ValueError, match="all of them are in group False"):
        model.fit(X, y, np.arange(n) < n - 5, groups=np.arange(n) >= n - 5)
    with pytest.raises(ValueError, match=rf"shape \({n},\), .* got \({n - 1},\)"):
        model.fit(X, y, groups=np.arange(n - 1))
    # They matter to nothing else.
    alone = cls().fit(X, y, groups=["p"] * n)
    np.testing.assert_array_equal(alone.coef_, cls().fit(X, y).coef_)


def test_exact_fit(global_random_seed):
    """Without noise the others predict a sample exactly; its density is infinite."""
    X = np.random.default_rng(global_random_seed).normal(size=(30, 4))
    for groups in (None, np.arange(30) // 3):
        model = LogME(leave_one_out=True)
        with pytest.warns(UnboundedEvidenceWarning, match="evidence is infinite"):
            model.fit(X, X[:, 1], groups=groups)
        np.testing.assert_allclose(model.loo_predictions_, X[:, 1], atol=1e-9)
        assert model.loo_r2_ == pytest.approx(1)
        assert np.isnan(model.loo_log_likelihood_)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_one_class_fitted_exactly(fit_intercept, global_random_seed):
    """The sum of the evidences rises to t = 0: all classes have least squares."""
    rng = np.random.default_rng(global_random_seed)
    y = rng.integers(0, 3, size=100)
    X = np.c_[y == 0, rng.normal(size=(100, 4)) + y[:, None]]
    model = LogMEClassifier(
        fit_intercept=fit_intercept, prior="shared", leave_one_out=True
    )
    with pytest.warns(UnboundedEvidenceWarning, match="class 0 without any error"):
        model.fit(X, y)
    A = np.c_[X, np.ones(100)] if fit_intercept else X
    H = A @ np.linalg.pinv(A)
    errors = (np.eye(3)[y] - H @ np.eye(3)[y]) / (1 - np.diag(H))[:, None]
    np.testing.assert_allclose(model.loo_predictions_, np.eye(3)[y] - errors, atol=1e-8)
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("groups", [False, True])
def test_no_noise_is_the_limit(with_spectrum, groups, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    n = 20
    X = with_spectrum(rng, n, 45, np.exp(rng.uniform(-1.5, 0, size=n)))
    values, vectors = np.linalg.eigh(X @ X.T)
    y = vectors @ values**0.75
    g = np.arange(n) // 3 if groups else None
    model = LogME(leave_one_out=True).fit(X, y, groups=g)
    assert np.isposinf(model.beta_[0])
    expected, _ = refits(X, y[:, None], None, g, [1e-9], False)
    np.testing.assert_allclose(model.loo_predictions_, expected[:, 0], atol=1e-5)


@pytest.mark.parametrize("cls", [LogME, LogMEClassifier])
def test_only_on_request(cls, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X, y, _, _ = make(cls, rng, "n > D", "none", "none")
    own = "loo_r2_" if cls is LogME else "loo_accuracy_"
    kwargs = {} if cls is LogME else {"classes": [0, 1, 2]}
    for model in (
        cls(std_error=True).fit(X, y),
        cls(leave_one_out=True).partial_fit(X, y, **kwargs),
        cls(leave_one_out=True).fit(X, y).partial_fit(X, y),
    ):
        for name in (own, "loo_predictions_", "loo_log_likelihood_"):
            message = f"{name}.*call fit with leave_one_out=True"
            with pytest.raises(AttributeError, match=message):
                getattr(model, name)
    model = cls(leave_one_out=True).fit(X, y)
    score = getattr(model, own)
    model.compact()
    assert getattr(model, own) == score
    with pytest.raises(AttributeError, match="loo_predictions_"):
        model.loo_predictions_  # noqa: B018


@pytest.mark.parametrize(
    "groups, message",
    [
        ([None, *"aabbccddee", "f"], "groups must hold .* none missing"),
        ([np.nan, *range(11)], "groups contains NaN"),
    ],
)
def test_missing_groups(groups, message, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(12, 3))
    with pytest.raises(ValueError, match=message):
        LogME(leave_one_out=True).fit(X, X[:, 0] + rng.normal(size=12), groups=groups)


def test_not_fitted():
    names = ["loo_predictions_", "loo_log_likelihood_", "influence_", "std_error_"]
    for model, own in (
        (LogME(leave_one_out=True), ["loo_r2_"]),
        (LogMEClassifier(leave_one_out=True), ["loo_accuracy_", "temperature_"]),
    ):
        for name in names + own:
            with pytest.raises(NotFittedError):
                getattr(model, name)
