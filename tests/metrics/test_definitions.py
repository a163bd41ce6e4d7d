"""Every metric against a slow implementation written from its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from sktransfer.metrics import (
    coding_rate,
    h_score,
    leep_score,
    logme_score,
    nce_score,
    transrate_score,
)

# Fewer samples than features, and more.
SHAPES = [(24, 40), (60, 7)]


def draw(seed, n, d, n_classes=3):
    """Features that tell the classes apart to some degree, and unbalanced labels."""
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)]
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)
    return X + rng.normal(size=(n_classes, d))[y], y


def draw_proba(seed, n=50, n_source=6, n_classes=3):
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)]
    # Source class c goes with target class c, more or less.
    draws = rng.gamma(1 + 3 * np.eye(n_source)[y])
    return draws / draws.sum(axis=1, keepdims=True), y


def maximum_log_evidence(X, y):
    """Direct search for the largest log N(y | 0, I / beta + X X^T / alpha) / n."""
    n = len(y)

    def negative(log_precisions):
        alpha, beta = np.exp(log_precisions)
        covariance = np.eye(n) / beta + X @ X.T / alpha
        misfit = y @ np.linalg.solve(covariance, y)
        return (np.linalg.slogdet(2 * np.pi * covariance)[1] + misfit) / (2 * n)

    starts = [(0.0, 0.0), (4.0, 1.0), (-3.0, 3.0)]
    options = {"xatol": 1e-7, "fatol": 1e-11, "maxiter": 2000}
    runs = [
        minimize(negative, start, method="Nelder-Mead", options=options)
        for start in starts
    ]
    return -min(run.fun for run in runs)


def coding_rate_of_all(Z, factor):
    """1/2 log det(I + factor Z^T Z), always d x d."""
    return 0.5 * np.linalg.slogdet(np.eye(Z.shape[1]) + factor * Z.T @ Z)[1]


def slow_coding_rates(X, y, variant, distortion):
    """The rate of all samples, and the mean rate within classes, one at a time."""
    n, d = X.shape
    if variant == "preprint":
        Z = np.array([x / np.linalg.norm(x) for x in X])
        factor = d / distortion
    else:
        Z = X - X.mean(axis=0)
        factor = 1 / distortion
    within = 0.0
    labels = np.unique(y)
    for label in labels:
        Z_c = Z[y == label]
        weight = len(Z_c) / n if variant == "preprint" else 1 / len(labels)
        within += weight * coding_rate_of_all(Z_c, factor / len(Z_c))
    return coding_rate_of_all(Z, factor / n), within


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_logme_of_labels_is_the_mean_over_one_hot_columns(n, d, global_random_seed):
    X, y = draw(global_random_seed, n, d)
    expected = np.mean([maximum_log_evidence(X, 1.0 * (y == c)) for c in range(3)])
    assert logme_score(X, y) == pytest.approx(expected, abs=1e-6)


def test_logme_of_numbers_and_of_several_labels(global_random_seed):
    X, y = draw(global_random_seed, 40, 5)
    numbers = X @ np.arange(5.0) + np.random.default_rng(1).normal(size=40)
    expected = maximum_log_evidence(X, numbers)
    assert logme_score(X, numbers) == pytest.approx(expected, abs=1e-6)

    indicators = np.c_[y == 0, y != 1].astype(int)
    expected = np.mean(
        [maximum_log_evidence(X, 1.0 * column) for column in indicators.T]
    )
    assert logme_score(X, indicators) == pytest.approx(expected, abs=1e-6)


def test_logme_reads_the_target_as_told(global_random_seed):
    X, y = draw(global_random_seed, 40, 5)
    as_numbers = logme_score(X, y, task="regression")
    assert as_numbers == pytest.approx(maximum_log_evidence(X, 1.0 * y), abs=1e-6)
    assert logme_score(X, y, task="classification") == logme_score(X, y) != as_numbers


def test_logme_with_intercept_ignores_where_the_features_are(global_random_seed):
    X, y = draw(global_random_seed, 40, 5)
    score = logme_score(X, y, fit_intercept=True)
    assert logme_score(X + 100, y, fit_intercept=True) == pytest.approx(score, abs=1e-6)
    assert logme_score(X, y) != pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_h_score(n, d, global_random_seed):
    X, y = draw(global_random_seed, n, d)
    class_means = np.array([X[y == label].mean(axis=0) for label in y])
    within_all = np.cov(X, rowvar=False, bias=True)
    between = np.cov(class_means, rowvar=False, bias=True)
    expected = np.trace(np.linalg.pinv(within_all, rcond=1e-10) @ between)
    assert h_score(X, y) == pytest.approx(expected, rel=1e-8)


def test_h_score_saturates_for_fewer_samples_than_features(global_random_seed):
    X = np.random.default_rng(global_random_seed).normal(size=(20, 50))
    assert h_score(X, np.arange(20) % 4) == pytest.approx(3)


def test_h_score_of_features_that_say_nothing():
    assert h_score(np.zeros((10, 3)), np.arange(10) % 2) == 0


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize(
    ("variant", "distortion"), [("preprint", 0.1), ("icml", 1e-4), ("preprint", 0.5)]
)
def test_transrate_and_its_coding_rates(n, d, variant, distortion, global_random_seed):
    X, y = draw(global_random_seed, n, d)
    whole, within = slow_coding_rates(X, y, variant, distortion)
    options = {"variant": variant, "distortion": distortion}
    assert coding_rate(X, **options) == pytest.approx(whole, rel=1e-9)
    assert coding_rate(X, y, **options) == pytest.approx(within, rel=1e-9)
    assert transrate_score(X, y, **options) == pytest.approx(whole - within, rel=1e-8)


@pytest.mark.parametrize("variant", ["preprint", "icml"])
def test_transrate_defaults(variant, global_random_seed):
    X, y = draw(global_random_seed, 60, 7)
    distortion = {"preprint": 0.1, "icml": 1e-4}[variant]
    whole, within = slow_coding_rates(X, y, variant, distortion)
    score = transrate_score(X, y, variant=variant)
    assert score == pytest.approx(whole - within, rel=1e-9)


def test_transrate_normalisation_is_the_variants_unless_told(global_random_seed):
    X, y = draw(global_random_seed, 60, 7)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert transrate_score(unit, y, normalize=False) == pytest.approx(
        transrate_score(X, y)
    )
    assert transrate_score(X, y, variant="icml", normalize=True) == pytest.approx(
        transrate_score(unit, y, variant="icml")
    )


def test_transrate_with_a_row_of_zeros_stays_finite(global_random_seed):
    X, y = draw(global_random_seed, 30, 4)
    X[0] = 0
    assert np.isfinite(transrate_score(X, y))


def slow_leep(P, y):
    n, n_source = P.shape
    total = 0.0
    for i in range(n):
        expected = 0.0
        for z in range(n_source):
            marginal = sum(P[j, z] for j in range(n))
            joint = sum(P[j, z] for j in range(n) if y[j] == y[i])
            if marginal > 0:
                expected += joint / marginal * P[i, z]
        total += np.log(expected)
    return total / n


def slow_nce(z, y):
    total = 0.0
    for i in range(len(y)):
        same_source = [j for j in range(len(y)) if z[j] == z[i]]
        same_both = [j for j in same_source if y[j] == y[i]]
        total += np.log(len(same_both) / len(same_source))
    return total / len(y)


def test_leep(global_random_seed):
    P, y = draw_proba(global_random_seed)
    assert leep_score(P, y) == pytest.approx(slow_leep(P, y), rel=1e-10)


def test_nce(global_random_seed):
    P, y = draw_proba(global_random_seed)
    expected = slow_nce(P.argmax(axis=1), y)
    assert nce_score(P, y) == pytest.approx(expected, rel=1e-10)


def test_nce_of_source_labels_is_that_of_their_probabilities(global_random_seed):
    P, y = draw_proba(global_random_seed)
    z = P.argmax(axis=1)
    names = np.array(["ant", "bee", "cat", "dog", "eel", "fox"])
    assert nce_score(z, y) == nce_score(P, y)
    assert nce_score(names[z], y) == nce_score(names[z].tolist(), y) == nce_score(P, y)


def test_source_classes_without_probability_are_exact(global_random_seed):
    P, y = draw_proba(global_random_seed)
    padded = np.zeros((len(y), 9))
    padded[:, [1, 2, 4, 5, 7, 8]] = P
    assert leep_score(padded, y) == pytest.approx(leep_score(P, y), rel=1e-13)
    assert nce_score(padded, y) == nce_score(P, y)


def test_certain_source_classes_are_exact():
    # One source class is one label, the other is both in equal parts.
    P = np.eye(3)[[0, 0, 1, 1]]
    y = ["a", "a", "a", "b"]
    assert leep_score(P, y) == pytest.approx(0.5 * np.log(0.5), rel=1e-15)
    assert nce_score(P, y) == pytest.approx(0.5 * np.log(0.5), rel=1e-15)
    assert leep_score(np.eye(2)[[0, 0, 1, 1]], [5, 5, 7, 7]) == 0
