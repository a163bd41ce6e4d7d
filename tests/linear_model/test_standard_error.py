"""Influence and standard error against differences and against the bootstrap."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import RBFSampler
from sklearn.preprocessing import PolynomialFeatures

from sktransfer.exceptions import UnboundedEvidenceWarning
from sktransfer.linear_model import LogME, LogMEClassifier, standard_error


def relu_features(pixels, rng):
    return np.maximum(pixels @ rng.normal(size=(64, 50)) / 8, 0)


def downsampled(pixels, rng):
    return pixels.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)


def quadratic(pixels, rng):
    return PolynomialFeatures(2).fit_transform(
        PCA(8, random_state=0).fit_transform(pixels)
    )


def fourier(pixels, rng):
    return RBFSampler(gamma=0.1, n_components=50, random_state=0).fit_transform(pixels)


FEATURE_MAPS = {
    "pixels": lambda pixels, rng: pixels,
    "pca": lambda pixels, rng: PCA(20, random_state=0).fit_transform(pixels),
    "relu": relu_features,
    "fourier": fourier,
    "quadratic": quadratic,
    "downsampled": downsampled,
}


def test_bootstrap():
    """On 500 digits, 200 resamples, the ratio of standard error to bootstrap is
    0.89 0.90 0.90 0.88 0.90 0.95 for the scores of the feature maps, and
    0.89 0.89 0.91 0.94 0.95 0.92 for their differences to the map before.
    """
    rng = np.random.default_rng(0)
    pixels, y = load_digits(return_X_y=True)
    rows = rng.permutation(len(y))[:500]
    pixels, y = pixels[rows] / 16, y[rows]
    features = [build(pixels, rng) for build in FEATURE_MAPS.values()]
    models = [LogMEClassifier(std_error=True).fit(X, y) for X in features]

    n, n_resamples = len(y), 200
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
    resampled = np.array(
        [[LogMEClassifier().fit(X, y, w).logme_ for X in features] for w in counts]
    )
    single = [model.std_error_ for model in models]
    ratios = single / resampled.std(axis=0)
    np.testing.assert_allclose(ratios, 1, atol=0.2)

    psi = np.column_stack([model.influence_ for model in models])
    paired = [standard_error(column) for column in (psi - np.roll(psi, 1, axis=1)).T]
    differences = resampled - np.roll(resampled, 1, axis=1)
    paired_ratios = paired / differences.std(axis=0)
    np.testing.assert_allclose(paired_ratios, 1, atol=0.2)


def test_weights_resample(global_random_seed):
    """What makes the bootstrap above a bootstrap: weights count copies of rows."""
    rng = np.random.default_rng(global_random_seed)
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300]
    counts = rng.multinomial(300, np.full(300, 1 / 300))
    rows = np.repeat(np.arange(300), counts)
    weighted = LogMEClassifier(std_error=True).fit(X, y, counts)
    copied = LogMEClassifier(std_error=True).fit(X[rows], y[rows])
    assert weighted.logme_ == pytest.approx(copied.logme_, abs=1e-9)
    assert weighted.std_error_ == pytest.approx(copied.std_error_, rel=1e-6)
    np.testing.assert_allclose(weighted.influence_[rows], copied.influence_, rtol=1e-5)


def log_density_given_others(X, y, alpha, beta, i, fit_intercept):
    """Log p(y_i | the other targets), from the joint Gaussian of all of them."""
    n = len(y)
    K = np.eye(n) / beta + X @ X.T / alpha
    if fit_intercept:  # a flat prior, but for what float64 can hold
        K += 1e7 * (1 / beta + np.diagonal(K).max())
    others = np.arange(n) != i
    weights = np.linalg.solve(K[np.ix_(others, others)], K[others, i])
    mean, variance = weights @ y[others], K[i, i] - weights @ K[others, i]
    return -0.5 * (np.log(2 * np.pi * variance) + (y[i] - mean) ** 2 / variance)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(("n", "d"), [(25, 60), (30, 30), (31, 30), (60, 10)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_influence_is_density_given_the_others(
    fit_intercept, n, d, dtype, global_random_seed
):
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(n, d)).astype(dtype)
    y = X[:, :2].astype(float) + 2 * rng.normal(size=(n, 2))
    model = LogME(fit_intercept=fit_intercept, std_error=True).fit(X, y)
    finite = np.isfinite(model.alpha_) & np.isfinite(model.beta_)
    if not finite.all():
        y = y[:, finite] if finite.any() else X[:, :1] + 0.5 * rng.normal(size=(n, 1))
        model.fit(X, y)
    expected = [
        np.mean(
            [
                log_density_given_others(
                    X.astype(float), y[:, k], alpha, beta, i, fit_intercept
                )
                for k, (alpha, beta) in enumerate(
                    zip(model.alpha_, model.beta_, strict=True)
                )
            ]
        )
        for i in range(n)
    ]
    np.testing.assert_allclose(model.influence_, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(25, 60), (30, 30), (60, 10)])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_influence_of_weighted_samples(n, d, fit_intercept, global_random_seed):
    """A weight is a number of copies, of which one at most is left out.

    The density of what has weight w is that of w times a part of it, each to first
    order: the sum over w of parts of a sample tends to that of the whole.
    """
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(n, d))
    y = X[:, 0] + 2 * rng.normal(size=n)
    whole = LogME(fit_intercept=fit_intercept, std_error=True).fit(X, y)
    ones = LogME(fit_intercept=fit_intercept, std_error=True)
    ones.fit(X, y, np.ones(n))
    np.testing.assert_allclose(ones.influence_, whole.influence_, rtol=1e-8)
    # Without weight a sample adds nothing, and changes nothing.
    more = np.vstack([X, 5 * np.ones((2, d))]), np.r_[y, 7.0, -9.0]
    padded = LogME(fit_intercept=fit_intercept, std_error=True)
    padded.fit(*more, np.r_[np.ones(n), 0.0, 0.0])
    np.testing.assert_allclose(padded.influence_[:n], whole.influence_, rtol=1e-6)
    np.testing.assert_array_equal(padded.influence_[n:], 0)
    assert padded.std_error_ == pytest.approx(whole.std_error_, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(12, 60), (12, 12), (13, 12), (40, 10)])
def test_influence_is_what_the_weight_adds_to_the_evidence(n, d, global_random_seed):
    """Also where features reach all of a sample, or its parts weigh less than one.

    Of several copies one is left out: the others still reach it.
    """
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(n, d))
    y = X[:, 0] + 2 * rng.normal(size=n)
    weights = rng.choice([0.25, 0.5, 1.0, 2.0, 3.5], size=n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnboundedEvidenceWarning)
        model = LogME(std_error=True).fit(X, y, weights)
    alpha, beta = model.alpha_[0], model.beta_[0]

    def log_evidence(w):
        A = alpha * np.eye(n) + beta * np.sqrt(w)[:, None] * (X @ X.T) * np.sqrt(w)
        root = np.sqrt(w) * y
        misfit = alpha * beta * root @ np.linalg.solve(A, root)
        log_det = np.linalg.slogdet(A / alpha)[1]
        return 0.5 * (w.sum() * np.log(beta / (2 * np.pi)) - log_det - misfit)

    for i in range(n):
        left_out = min(weights[i], 1.0)
        rest = weights.copy()
        rest[i] -= left_out
        added = (log_evidence(weights) - log_evidence(rest)) / left_out
        assert model.influence_[i] == pytest.approx(added, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("n", [100, 200])
def test_standard_error_with_fewer_samples_than_features(n):
    """ReLU features of digits, 1,024 of them: it was up to 18 times too small, or NaN.

    Against the deviation of LogME over disjoint draws of n digits.
    """
    rng = np.random.default_rng(0)
    pixels, y = load_digits(return_X_y=True)
    features = np.maximum(pixels / 16 @ rng.normal(size=(64, 1024)) / 8, 0)
    scores, errors = [], []
    for rows in np.split(rng.permutation(len(y))[: n * (1700 // n)], 1700 // n):
        model = LogMEClassifier(std_error=True).fit(features[rows], y[rows])
        scores.append(model.logme_)
        errors.append(model.std_error_)
    assert np.isfinite(errors).all()
    assert 0.6 < np.mean(errors) / np.std(scores, ddof=1) < 1.7


def test_standard_error_without_noise(with_spectrum, global_random_seed):
    """Where the best fit has no noise, both parts of the density have a limit."""
    rng = np.random.default_rng(global_random_seed)
    n = 20
    X = with_spectrum(rng, n, 45, np.exp(rng.uniform(-1.5, 0, size=n)))
    values, vectors = np.linalg.eigh(X @ X.T)
    y = vectors @ values**0.75
    model = LogME(std_error=True).fit(X, y)
    assert np.isposinf(model.beta_[0])
    expected = [
        log_density_given_others(X, y, model.alpha_[0], 1e11, i, False)
        for i in range(n)
    ]
    np.testing.assert_allclose(model.influence_, expected, rtol=1e-4, atol=1e-4)


def test_standard_error_is_deviation_over_root_n(global_random_seed):
    psi = np.random.default_rng(global_random_seed).normal(size=50)
    assert standard_error(psi) == pytest.approx(psi.std() / np.sqrt(50))
    counts = np.arange(50) % 3
    assert standard_error(psi, counts) == pytest.approx(
        standard_error(np.repeat(psi, counts))
    )
    assert np.isnan(standard_error(np.array([1.0, np.nan])))


def test_standard_error_of_estimator(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(100, 5))
    y = X[:, 0] + rng.normal(size=100)
    model = LogME(std_error=True).fit(X, y)
    assert isinstance(model.std_error_, float)
    assert model.std_error_ == standard_error(model.influence_)
    # A common factor of all weights changes n, not the mean over samples.
    doubled = LogME(std_error=True).fit(np.tile(X, (2, 1)), np.tile(y, 2))
    weighted = LogME(std_error=True).fit(X, y, np.full(100, 2.0))
    assert weighted.std_error_ == pytest.approx(doubled.std_error_)


def test_exact_fit_has_no_standard_error(global_random_seed):
    X = np.random.default_rng(global_random_seed).normal(size=(30, 4))
    model = LogME(std_error=True)
    with (
        pytest.warns(UnboundedEvidenceWarning, match="evidence is infinite"),
        np.errstate(all="raise"),
    ):
        model.fit(X, X[:, 1])
    assert np.isnan(model.std_error_)
    assert np.isnan(model.influence_).all()


@pytest.mark.parametrize("name", ["std_error_", "influence_"])
def test_only_on_request(name):
    X, y = np.eye(4), np.arange(4.0)
    for model in (
        LogME().fit(X, y),
        LogME(std_error=True).partial_fit(X, y),
        LogME(std_error=True).fit(X, y).partial_fit(X, y + 1),
    ):
        with pytest.raises(AttributeError, match=f"{name}.*call fit with std_error=Tr"):
            getattr(model, name)
        assert not hasattr(model, name)
