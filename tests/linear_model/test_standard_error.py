"""Influence and standard error against differences and against the bootstrap."""

from __future__ import annotations

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


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d"), [(25, 60), (30, 30), (60, 10)])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_influence_is_derivative(
    fit_intercept, weighted, n, d, task, global_random_seed
):
    rng = np.random.default_rng(global_random_seed)
    # A total weight above the rank of the features has no bound where n <= D.
    weights = rng.uniform(0.5, 0.9, size=n) if weighted else np.full(n, 0.9)
    model = LogMEClassifier() if task == "classification" else LogME()
    model.set_params(fit_intercept=fit_intercept, std_error=True, tol=1e-10)
    influence = np.array([np.nan])
    # Where n <= D some targets are best fitted without noise: there is no derivative.
    while np.isnan(influence).any():
        X = rng.normal(size=(n, d)) + 0.2
        if task == "classification":
            y = np.arange(n) % 3
            X[:, 0] += y
        else:
            y = X[:, :2] + 3 * rng.normal(size=(n, 2))
        influence = model.fit(X, y, weights).influence_
    assert influence.shape == (n,)
    step = 1e-3
    for i in rng.choice(n, size=4, replace=False):
        evidence = []
        for sign in (1, -1):
            shifted = weights.copy()
            shifted[i] += sign * step
            evidence.append(model.fit(X, y, shifted).log_evidence_.mean())
        slope = (evidence[0] - evidence[1]) / (2 * step)
        assert influence[i] == pytest.approx(slope, rel=1e-3, abs=1e-4)


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
