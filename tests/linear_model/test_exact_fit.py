"""When the features fit a target exactly: what is infinite, and what is not."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from sktransfer.exceptions import UnboundedEvidenceWarning
from sktransfer.linear_model import LogME, LogMEClassifier, SufficientStatistics
from sktransfer.linear_model._rounding import measure_residual
from sktransfer.linear_model._samples import Samples
from sktransfer.linear_model._spectrum import count_distinct

INTERCEPT = pytest.mark.parametrize("fit_intercept", [False, True])


def fit(X, y, weights=None, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnboundedEvidenceWarning)
        return LogMEClassifier(**kwargs).fit(X, y, weights)


@pytest.fixture
def wide(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    return rng.normal(size=(100, 300)), rng.integers(5, size=100)


@INTERCEPT
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_duplicated_sample(wide, fit_intercept, dtype):
    """It made the whole LogME infinite; now it hardly moves it."""
    X, y = wide
    without = fit(X.astype(dtype)[1:], y[1:], fit_intercept=fit_intercept)
    X[1], y[1] = X[0], y[0]
    model = fit(X.astype(dtype), y, fit_intercept=fit_intercept, std_error=True)
    assert np.isfinite(model.log_evidence_).all()
    assert model.logme_ == pytest.approx(without.logme_, abs=0.05)
    assert np.isfinite(model.std_error_)


@INTERCEPT
def test_duplicated_sample_with_other_label(wide, fit_intercept):
    X, y = wide
    X[1], y[0], y[1] = X[0], 0, 1
    assert np.isfinite(fit(X, y, fit_intercept=fit_intercept).log_evidence_).all()


def test_warnings_point_at_the_caller(wide):
    X, y = wide
    X, y = X[np.arange(100) % 20], y[np.arange(100) % 20]
    with pytest.warns(UnboundedEvidenceWarning) as seen:
        LogMEClassifier().fit(X, y)
    assert [w.filename for w in seen] == [__file__]
    model = LogMEClassifier().partial_fit(X, y, classes=np.unique(y))
    with pytest.warns(UnboundedEvidenceWarning) as seen:
        model.logme_  # noqa: B018
    assert [w.filename for w in seen] == [__file__]


def test_sample_of_zeros(wide):
    X, y = wide
    X[5] = 0
    assert np.isfinite(fit(X, y).log_evidence_).all()


@INTERCEPT
def test_weights_slightly_above_the_number_of_samples(wide, fit_intercept):
    X, y = wide
    weights = np.ones(100)
    expected = fit(X, y, weights, fit_intercept=fit_intercept).logme_
    weights[3] += 0.01
    model = fit(X, y, weights, fit_intercept=fit_intercept)
    assert np.isfinite(model.log_evidence_).all()
    assert model.logme_ == pytest.approx(expected, abs=0.02)


def test_resampled_samples(wide):
    """A bootstrap of fewer samples than features: 1.6 samples for each that differs."""
    X, y = wide
    rows = np.random.default_rng(0).integers(100, size=100)
    assert np.isfinite(fit(X[rows], y[rows]).log_evidence_).all()


@pytest.mark.parametrize("n", [100, 400])
def test_many_repeated_samples_are_named(wide, n):
    """Many copies of few samples are believed; the warning says what they are."""
    X, y = wide
    rows = np.arange(n) % 40
    with pytest.warns(UnboundedEvidenceWarning, match=f" {n - 40} samples repeat othe"):
        model = LogMEClassifier().fit(X[rows], y[rows])
    assert np.isposinf(model.logme_)


def test_features_that_are_the_classes():
    """Few different samples, of which there are many: a leak, not an accident."""
    y = np.arange(60) % 3
    with pytest.warns(UnboundedEvidenceWarning, match="Has the target leaked"):
        assert np.isposinf(LogMEClassifier().fit(np.eye(3)[y], y).logme_)


def test_evidence_of_a_spurious_fit_is_reproducible(global_random_seed):
    """It is taken at a share of the smallest eigenvalue, which scales and rotations
    of the features do not change.
    """
    rng = np.random.default_rng(global_random_seed)
    n = 40
    left = np.linalg.qr(rng.normal(size=(n, n)))[0]
    s = np.geomspace(1, 1e-2, n)
    X = np.hstack([left * s, np.zeros((n, 30))])
    X = np.vstack([X, X[:1]])
    y = X[:, :n] @ (s * rng.choice([-1, 1], size=n))
    with pytest.warns(UnboundedEvidenceWarning, match=r"no maximum.* 1 samples repeat"):
        model = LogME().fit(X, y)
    smallest = model.singular_values_[-1] ** 2
    assert model.alpha_[0] / model.beta_[0] == pytest.approx(1e-8 * smallest)
    rotation = np.linalg.qr(rng.normal(size=(n + 30, n + 30)))[0]
    order = rng.permutation(len(y))
    for other, target in ((37 * X, y), (X @ rotation, y), (X[order], y[order])):
        with pytest.warns(UnboundedEvidenceWarning, match="no maximum"):
            again = LogME().fit(other, target)
        assert again.logme_ == pytest.approx(model.logme_, abs=1e-6)


@INTERCEPT
@pytest.mark.parametrize(
    ("n", "d", "rank", "dtype"),
    [
        (300, 20, 20, np.float32),
        (300, 20, 20, np.float64),
        # In float32 rounding gives such features as many directions as samples.
        (200, 400, 15, np.float64),
    ],
)
def test_leak_is_infinite(n, d, rank, dtype, fit_intercept, global_random_seed):
    """An exact linear function of far fewer directions than samples, for any D."""
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(n, rank))
    if rank < d:
        X = X @ rng.normal(size=(rank, d))
    X = X.astype(dtype)
    y = X.astype(float) @ rng.normal(size=d)
    with pytest.warns(UnboundedEvidenceWarning, match="the evidence is infinite"):
        model = LogME(fit_intercept=fit_intercept).fit(X, y)
    assert np.isposinf(model.logme_)


def test_measured_residual(global_random_seed):
    """Where rounding hides it the samples tell: zero, or as small as it is."""
    rng = np.random.default_rng(global_random_seed)
    mixing = np.linalg.qr(rng.normal(size=(30, 30)))[0] * np.geomspace(1, 1e-4, 30)
    X = rng.normal(size=(500, 30)) @ mixing
    w = rng.normal(size=30) / np.geomspace(1, 1e-4, 30)
    noise = rng.normal(size=500)
    noise -= X @ np.linalg.lstsq(X, noise)[0]
    exact = X @ w
    Y = np.column_stack([exact, exact + 1e-6 * noise, noise])
    spectrum = SufficientStatistics(30).update(X, Y).spectrum
    forced = type(spectrum)(
        **{**vars(spectrum), "uncertain": np.array([True, True, False])}
    )
    measured = measure_residual(forced, Samples(X, Y))
    assert measured.residual[0] == 0
    assert measured.residual[1] == pytest.approx(1e-12 * (noise @ noise), rel=1e-3)
    assert measured.residual[2] == spectrum.residual[2]
    assert not measured.uncertain.any()


def test_count_distinct():
    X = np.array([[1.0, 2], [0, 0], [1, 2], [-0.0, 0], [3, 4], [5, 6]])
    samples = Samples(X, np.zeros((len(X), 1)))
    assert count_distinct(samples) == 4
    assert count_distinct(samples, zero=False) == 3
    weighted = replace(samples, weights=np.array([1.0, 1, 1, 1, 1, 0]))
    assert count_distinct(weighted) == 3
