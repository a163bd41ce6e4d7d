"""Predictions against the textbook's D x D posterior and n x n Gaussian process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import scale

from sktransfer.linear_model import LogME, LogMEClassifier

SHAPES = {"n < D": (20, 35), "n = D": (20, 20), "n > D": (60, 8)}


def regression_data(seed, shape):
    n, d = SHAPES[shape]
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) + 0.3
    y = X[:, :3] + (3 if n <= d else 0.5) * rng.normal(size=(n, 3)) + 1
    return X, y, rng.normal(size=(7, d))


def textbook(X, F, y, alpha, beta):
    """N(m^T f, 1 / beta + f^T A^-1 f), A = alpha I + beta X^T X."""
    A = alpha * np.eye(X.shape[1]) + beta * X.T @ X
    mean = F @ np.linalg.solve(A, beta * X.T @ y)
    variance = 1 / beta + np.sum(F * np.linalg.solve(A, F.T).T, axis=1)
    return mean, np.sqrt(variance)


def gaussian_process(X, F, y, alpha, beta):
    """The same in the space of samples, with kernel f^T g / alpha."""
    K = X @ X.T / alpha + np.eye(len(X)) / beta
    cross = F @ X.T / alpha
    mean = cross @ np.linalg.solve(K, y)
    explained = np.sum(cross * np.linalg.solve(K, cross.T).T, axis=1)
    return mean, np.sqrt(1 / beta + (F**2).sum(axis=1) / alpha - explained)


def flat_intercept(X, F, y, alpha, beta):
    """The textbook's posterior with one more feature, 1, whose prior is flat."""
    X, F = (np.column_stack([part, np.ones(len(part))]) for part in (X, F))
    A = beta * X.T @ X
    A[np.arange(len(A) - 1), np.arange(len(A) - 1)] += alpha
    mean = F @ np.linalg.solve(A, beta * X.T @ y)
    variance = 1 / beta + np.sum(F * np.linalg.solve(A, F.T).T, axis=1)
    return mean, np.sqrt(variance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("formula", "fit_intercept"),
    [(textbook, False), (gaussian_process, False), (flat_intercept, True)],
)
def test_predictive(shape, formula, fit_intercept, global_random_seed):
    X, y, F = regression_data(global_random_seed, shape)
    model = LogME(fit_intercept=fit_intercept).fit(X, y)
    mean, std = model.predict(F, return_std=True)
    assert mean.shape == std.shape == (7, 3)
    # The formulas know neither infinite precision: no noise is left out, no weights
    # are nearly none.
    noisy, alpha = np.isfinite(model.beta_), np.minimum(model.alpha_, 1e12)
    assert noisy.any()
    for k in np.flatnonzero(noisy):
        expected = formula(X, F, y[:, k], alpha[k], model.beta_[k])
        np.testing.assert_allclose(mean[:, k], expected[0], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(std[:, k], expected[1], rtol=1e-6)
    np.testing.assert_allclose(mean, model.predict(F))
    np.testing.assert_allclose(mean, F @ model.coef_.T + model.intercept_)


@pytest.mark.parametrize("shape", SHAPES)
def test_density(shape, global_random_seed):
    X, y, F = regression_data(global_random_seed, shape)
    targets = np.random.default_rng(global_random_seed).normal(size=(7, 3))
    model = LogME().fit(X, y)
    expected = norm.logpdf(targets, *model.predict(F, return_std=True)).mean(axis=1)
    np.testing.assert_allclose(model.log_predictive_density(F, targets), expected)


def test_shapes(global_random_seed):
    X, y, F = regression_data(global_random_seed, "n > D")
    one = LogME().fit(X, y[:, 0])
    assert one.coef_.shape == (8,)
    assert np.ndim(one.intercept_) == 0
    assert [part.shape for part in one.predict(F, return_std=True)] == [(7,), (7,)]
    assert one.log_predictive_density(F, np.zeros(7)).shape == (7,)
    for n_targets in (1, 3):
        several = LogME().fit(X, y[:, :n_targets])
        assert several.coef_.shape == (n_targets, 8)
        assert several.intercept_.shape == (n_targets,)
        mean, std = several.predict(F, return_std=True)
        assert mean.shape == std.shape == (7, n_targets)
        assert several.log_evidence_.shape == (n_targets,)
        np.testing.assert_allclose(mean[:, 0], one.predict(F))


def test_without_evidence(global_random_seed):
    """No weights: the prediction is zero, the noise all there is."""
    X, y, F = regression_data(global_random_seed, "n > D")
    y = y[:, 0] - X @ np.linalg.lstsq(X, y[:, 0])[0]
    model = LogME().fit(X, y)
    mean, std = model.predict(F, return_std=True)
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_allclose(std, np.sqrt(y @ y / len(y)))


def test_uncertainty_outside_the_span():
    """What no training sample has shown is as uncertain as the prior says."""
    rng = np.random.default_rng(0)
    X = np.hstack([rng.normal(size=(10, 4)), np.zeros((10, 20))])
    y = X[:, 0] + 0.1 * rng.normal(size=10)
    model = LogME().fit(X, y)
    F = np.zeros((1, 24))
    F[0, -1] = 3
    mean, std = model.predict(F, return_std=True)
    assert mean[0] == pytest.approx(0, abs=1e-12)
    assert std[0] ** 2 == pytest.approx(1 / model.beta_[0] + 9 / model.alpha_[0])


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_class_probabilities(fit_intercept):
    X, y = load_wine(return_X_y=True)
    X = scale(X)
    model = LogMEClassifier(fit_intercept=fit_intercept).fit(X[::2], y[::2])
    regressor = LogME(fit_intercept=fit_intercept)
    regressor.fit(X[::2], np.eye(3)[y[::2]])
    mean = regressor.predict(X[1::2])
    scaled = mean / model.temperature_
    proba = model.predict_proba(X[1::2])
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(model.decision_function(X[1::2]), scaled, rtol=1e-6)
    np.testing.assert_allclose(proba, softmax(scaled, axis=1), rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(model.predict(X[1::2]), mean.argmax(axis=1))
    np.testing.assert_allclose(
        model.log_predictive_density(X[1::2], y[1::2]),
        np.log(proba[np.arange(len(proba)), y[1::2]]),
    )
    assert (model.predict(X[1::2]) == y[1::2]).mean() > 0.9


def test_two_classes():
    X, y = load_breast_cancer(return_X_y=True)
    X, labels = scale(X), np.array(["malignant", "benign"])[y]
    model = LogMEClassifier().fit(X, labels)
    assert model.classes_.tolist() == ["benign", "malignant"]
    assert model.coef_.shape == (2, 30)
    decision, proba = model.decision_function(X), model.predict_proba(X)
    assert decision.shape == (569,)
    np.testing.assert_allclose(
        decision, np.log(proba[:, 1] / proba[:, 0]), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_array_equal(
        model.predict(X), model.classes_[(decision > 0).astype(int)]
    )


def test_multilabel(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(80, 6))
    Y = (X[:, :4] + rng.normal(size=(80, 4)) > 0.5).astype(int)
    model = LogME().fit(X, Y)
    assert model.predict(X).shape == (80, 4)
    alone = [LogME().fit(X, column).logme_ for column in Y.T]
    assert model.logme_ == pytest.approx(np.mean(alone))


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_means_only(fit_intercept, global_random_seed):
    """A model slimmed down to its means predicts as before, without deviations."""
    X, y, F = regression_data(global_random_seed, "n < D")
    model = LogME(fit_intercept=fit_intercept, std_error=True).fit(X, y)
    mean, score = model.predict(F), model.logme_
    model.compact()
    np.testing.assert_array_equal(model.predict(F), mean)
    assert model.logme_ == score
    assert model.coef_.shape == (3, 35)
    with pytest.raises(ValueError, match="keeps predictive means only"):
        model.predict(F, return_std=True)


@pytest.mark.parametrize("setting", ["n < D", "n > D"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_means_and_deviations_only(setting, dtype, global_random_seed):
    X, y, F = regression_data(global_random_seed, setting)
    X, F = X.astype(dtype), F.astype(dtype)
    model = LogME(std_error=True).fit(X, y)
    expected = model.predict(F, return_std=True)
    size = len(pickle.dumps(model))
    model.compact(keep_std=True)
    for found, wanted in zip(model.predict(F, return_std=True), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert model.influence_.shape == y.shape[:1]
    assert len(pickle.dumps(model)) < size


def test_compact_twice(global_random_seed):
    X, y, F = regression_data(global_random_seed, "n > D")
    model = LogME().fit(X, y)
    model.compact(keep_std=True)
    mean, std = model.predict(F, return_std=True)
    model.compact(keep_std=True)
    np.testing.assert_array_equal(model.predict(F, return_std=True), [mean, std])
    model.compact()
    np.testing.assert_array_equal(model.predict(F), mean)
    with pytest.raises(ValueError, match="keeps predictive means only"):
        model.compact(keep_std=True)
    with pytest.raises(NotFittedError):
        LogME().compact(keep_std=True)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="LogMEClassifier instance is not fitted"):
        getattr(LogMEClassifier(), method)(np.ones((2, 2)))
