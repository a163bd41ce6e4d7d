"""float32, large means, and features of very different scales cost no digits."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

from sktransfer.exceptions import RoundingWarning, UnboundedEvidenceWarning
from sktransfer.linear_model import LogME, LogMEClassifier, SufficientStatistics
from sktransfer.metrics import h_score

INTERCEPT = pytest.mark.parametrize("fit_intercept", [False, True])


@pytest.fixture(scope="module")
def digits():
    """ReLU features of digits, each of mean 0 and variance 1, and their labels."""
    pixels, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    features = np.maximum(pixels / 16 @ rng.normal(size=(64, 160)), 0)
    features = features[:, (features > 0).mean(axis=0) > 0.02][:, :128]
    return (features - features.mean(axis=0)) / features.std(axis=0), y


def logme(X, y, fit_intercept=False):
    return LogMEClassifier(fit_intercept=fit_intercept).fit(X, y).logme_


def reference(X, y, fit_intercept):
    """LogME from an SVD of the features in float64, by a search over log t."""
    X = np.asarray(X, dtype=np.float64)
    Y = (y[:, None] == np.unique(y)).astype(float)
    n = len(y)
    if fit_intercept:
        X, Y, n = X - X.mean(axis=0), Y - Y.mean(axis=0), n - 1
    U, singular, _ = np.linalg.svd(X, full_matrices=False)
    keep = singular > 1e-12 * singular[0]
    z2, s = (U[:, keep].T @ Y) ** 2, singular[keep] ** 2
    residual = (Y**2).sum(axis=0) - z2.sum(axis=0)
    q = 1 / (
        1 + s * np.exp(-np.arange(np.log(s[-1]) - 8, np.log(s[0]) + 8, 0.03))[:, None]
    )
    energy = q @ z2 + residual
    value = n * (np.log(n / (2 * np.pi * energy)) - 1) + np.log(q).sum(axis=1)[:, None]
    return value.max(axis=0).mean() / (2 * n)


@INTERCEPT
def test_float32_of_features_in_their_own_units(fit_intercept):
    """It kept 8 of 30 directions: -0.338 for -0.296 on the golden features."""
    X, y = load_breast_cancer(return_X_y=True)
    single = LogMEClassifier(fit_intercept=fit_intercept).fit(X.astype(np.float32), y)
    assert len(single.singular_values_) == 30
    assert single.logme_ == pytest.approx(reference(X, y, fit_intercept), abs=1e-4)
    assert h_score(X.astype(np.float32), y) == pytest.approx(h_score(X, y), abs=1e-4)


def test_float32_of_the_golden_features(shared):
    stored = np.load(shared / "golden" / "measures.npz")
    X = stored["breast_cancer_raw__features"].astype(np.float32)
    y = stored["breast_cancer_raw__target"]
    exact = json.loads((shared / "golden" / "measures.json").read_text())
    measures = exact["breast_cancer_raw"]
    assert logme(X, y) == pytest.approx(measures["logme"], abs=1e-4)
    assert h_score(X, y) == pytest.approx(measures["h_score"], abs=1e-4)


@INTERCEPT
@pytest.mark.parametrize("scale", [1.0, 1e3, 3e3, 1e5])
@pytest.mark.parametrize("offset", [0, 200, 500])
def test_float32_with_outlier_dimensions_and_offsets(
    digits, scale, offset, fit_intercept
):
    """Three features at 1,000 standard deviations gave -0.094 for -0.061, a mean of
    200 of them 0.63 for 0.52.
    """
    X, y = digits[0].copy(), digits[1]
    X[:, :3] *= scale
    single = (X + offset).astype(np.float32)
    double = single.astype(np.float64)
    found = logme(single, y, fit_intercept)
    assert found == pytest.approx(logme(double, y, fit_intercept), abs=1e-5)
    assert found == pytest.approx(reference(double, y, fit_intercept), abs=1e-4)


@pytest.mark.parametrize(
    ("dtype", "offset", "tolerance"),
    [
        (np.float32, 500, 1e-4),
        (np.float32, 5e3, 1e-3),  # what its own digits leave of the features
        (np.float64, 1e5, 1e-8),
        (np.float64, 1e7, 1e-6),
        (np.float64, 1e9, 1e-4),
    ],
)
@pytest.mark.parametrize("n", [100, 1797])
def test_intercept_is_free_of_shifts(digits, dtype, offset, tolerance, n):
    """A mean of 500 deviations gave infinity in float32, one of 1e7 in float64."""
    X, y = digits[0][:n], digits[1][:n]
    shifted = (X + offset).astype(dtype)
    expected = logme(X, y, fit_intercept=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnboundedEvidenceWarning)
        assert logme(shifted, y, True) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("n", [100, 1797])
@pytest.mark.parametrize("offset", [0, 1e3, 1e7])
def test_intercept_is_free_of_shifts_of_the_target(digits, n, offset):
    X = digits[0][:n].astype(np.float32)
    y = X[:, 0] + np.random.default_rng(0).normal(size=n)
    expected = LogME(fit_intercept=True).fit(X.astype(np.float64), y)
    model = LogME(fit_intercept=True).fit(X, y + offset)
    assert model.logme_ == pytest.approx(expected.logme_, abs=1e-5)
    np.testing.assert_allclose(
        model.predict(X) - offset, expected.predict(X), atol=1e-4
    )


@pytest.mark.parametrize("offset", [1e5, 1e7])
@pytest.mark.parametrize("n", [100, 1797])
def test_dominant_mean_without_intercept(digits, offset, n):
    """The mean is one more direction, and hides none of the others."""
    X, y = digits[0][:n] + offset, digits[1][:n]
    assert logme(X, y) == pytest.approx(reference(X, y, False), abs=2e-5)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_stream_whose_mean_moves(digits, fit_intercept):
    """Every chunk is summed about a mean of its own, and all about one."""
    X, y = digits[0].copy(), digits[1]
    X[600:] += 3e3
    whole = LogMEClassifier(fit_intercept=fit_intercept).fit(X, y)
    for sizes in ([1, 100, 700], [600], [50, 599, 601, 1200]):
        model = LogMEClassifier(fit_intercept=fit_intercept)
        for rows in np.split(np.arange(len(y)), sizes):
            model.partial_fit(X[rows], y[rows], classes=np.arange(10))
        assert model.logme_ == pytest.approx(whole.logme_, abs=1e-6)
    assert whole.logme_ == pytest.approx(reference(X, y, fit_intercept), abs=1e-4)


@INTERCEPT
@pytest.mark.parametrize("ratio", [1e4, 1e7, 1e10])
@pytest.mark.parametrize("n", [25, 300])
def test_small_features_beside_large_ones(ratio, n, fit_intercept, global_random_seed):
    """Only the small ones matter here, and their squares are below eps of the large."""
    rng = np.random.default_rng([global_random_seed, n])
    X = rng.normal(size=(n, 40))
    y = (X[:, 20:24].sum(axis=1) + rng.normal(size=n) / 2 > 0).astype(int)
    X[:, :20] *= ratio
    expected = reference(X, y, fit_intercept)
    if ratio < 1e10:
        assert logme(X, y, fit_intercept) == pytest.approx(expected, abs=1e-4)
    # The labels follow from small features: far more than nothing.
    small = logme(X[:, 20:], y, fit_intercept)
    lost = 40 * np.log(ratio) / n
    assert logme(X, y, fit_intercept) > small - lost


@INTERCEPT
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("size", [1e-13, 1e-16, 1e-25])
def test_features_that_are_almost_zero(
    digits, size, constant, dtype, fit_intercept, recwarn
):
    """The last layer of a language model has some of 1e-16: all became noise."""
    X, y = digits
    rng = np.random.default_rng(0)
    tiny = size * (constant + rng.normal(size=(len(X), 3)))
    expected = logme(X.astype(dtype), y, fit_intercept)
    found = logme(np.hstack([X, tiny]).astype(dtype), y, fit_intercept)
    assert found == pytest.approx(expected, abs=1e-5)
    assert len(recwarn) == 0


@pytest.mark.parametrize("scale", [1e19, 1e-25, 1e-40])
@INTERCEPT
@pytest.mark.parametrize("n", [100, 1797])
def test_float32_squares_out_of_range(digits, scale, fit_intercept, n):
    X, y = digits[0][:n].astype(np.float32), digits[1][:n]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        scaled = X * np.float32(scale)
        found = logme(scaled, y, fit_intercept)
    exact = logme(scaled.astype(np.float64) / scale, y, fit_intercept)
    assert found == pytest.approx(exact, abs=1e-5)


def test_squares_out_of_the_range_of_float64(digits):
    X, y = digits
    with pytest.raises(ValueError, match=r"squares of the features overflow float64"):
        logme(X * 1e200, y)
    for n in (100, len(y)):  # 1e-165 scored -0.87 for -0.16, 1e-155 infinity
        for scale in (1e-155, 1e-165, 1e-300):
            with pytest.raises(ValueError, match=r"features underflow float64"):
                logme(X[:n] * scale, y[:n])
    assert logme(X * 1e-130, y) == pytest.approx(logme(X, y))


@pytest.mark.parametrize("scale", [1e-35, 1e35])
def test_float32_features_and_targets_of_any_size(digits, scale):
    X = digits[0].astype(np.float32)
    y = X[:, 0] + np.random.default_rng(0).normal(size=len(X))
    expected = LogME().fit(X, y).logme_ - np.log(scale)
    assert LogME().fit(X, scale * y).logme_ == pytest.approx(expected, abs=1e-6)


@INTERCEPT
def test_noise_is_not_taken_for_an_exact_fit(fit_intercept):
    """Three quarters of such draws had infinite evidence."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n = 202 if fit_intercept else 201
        X = rng.normal(size=(n, 200)).astype(np.float32)
        y = rng.normal(size=n)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UnboundedEvidenceWarning)
            single = LogME(fit_intercept=fit_intercept).fit(X, y)
        double = LogME(fit_intercept=fit_intercept).fit(X.astype(np.float64), y)
        assert single.logme_ == pytest.approx(double.logme_, abs=1e-6)


@INTERCEPT
def test_small_residual_of_a_large_target(fit_intercept):
    """1000 +- 1.1 is not explained by ReLU features, however close 1000 is."""
    pixels, _ = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    X = np.maximum(pixels / 16 @ rng.normal(size=(64, 256)), 0).astype(np.float32)
    y = 1000 + 1.1 * rng.normal(size=len(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnboundedEvidenceWarning)
        single = LogME(fit_intercept=fit_intercept).fit(X, y)
    double = LogME(fit_intercept=fit_intercept).fit(X.astype(np.float64), y)
    assert single.logme_ == pytest.approx(double.logme_, abs=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@INTERCEPT
def test_rank_is_that_of_scaled_features(dtype, fit_intercept, global_random_seed):
    """Copies, sums, constants and zeros add no direction, whatever their scale."""
    rng = np.random.default_rng(global_random_seed)
    base = rng.normal(size=(600, 20)).astype(dtype) + dtype(1)
    probability = np.abs(base) / np.abs(base).sum(axis=1, keepdims=True)
    X = np.hstack([base, 1000 * base[:, :5], np.zeros((600, 3)), 7 * np.ones((600, 2))])
    y = np.arange(600) % 3
    model = LogMEClassifier(fit_intercept=fit_intercept).fit(X.astype(dtype), y)
    assert len(model.singular_values_) == 20 + (not fit_intercept)
    # Of probabilities the last follows from the others, up to rounding.
    found = model.fit(probability.astype(dtype), y).logme_
    exact = reference(probability.astype(dtype), y, fit_intercept)
    assert found == pytest.approx(exact, abs=1e-5)


@INTERCEPT
@pytest.mark.parametrize("decay", [2, 4, 5])
def test_float32_features_that_are_nearly_collinear(decay, fit_intercept):
    """Weak directions that matter: float32 alone was off by up to 3.5 nats."""
    rng = np.random.default_rng(0)
    n, d = 1000, 100
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    scales = 10 ** (-decay * np.arange(d) / d)
    X = ((rng.normal(size=(n, d)) * scales) @ rotation.T).astype(np.float32)
    exact = X.astype(np.float64)
    y = exact @ (rotation @ (rng.normal(size=d) / scales))
    y = y / y.std() + rng.normal(size=(2, n)) * [[0.01], [1]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        single = LogME(fit_intercept=fit_intercept, std_error=True).fit(X, y.T)
        double = LogME(fit_intercept=fit_intercept, std_error=True).fit(exact, y.T)
    np.testing.assert_allclose(
        single.log_evidence_ / n, double.log_evidence_ / n, rtol=0, atol=1e-5
    )
    assert single.std_error_ == pytest.approx(double.std_error_, rel=1e-4)


def test_rounding_that_cannot_be_helped_is_said():
    """A stream of float32 cannot be summed again, nor float64 in higher precision."""
    rng = np.random.default_rng(0)
    n, d = 1000, 100
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    scales = 10 ** (-3 * np.arange(d) / d)
    X = ((rng.normal(size=(n, d)) * scales) @ rotation.T).astype(np.float32)
    y = X.astype(np.float64) @ (rotation @ (rng.normal(size=d) / scales))
    y = y / y.std() + 0.01 * rng.normal(size=n)
    expected = LogME().fit(X, y).logme_
    model = LogME()
    for rows in np.split(np.arange(n), 4):
        model.partial_fit(X[rows], y[rows])
    with pytest.warns(RoundingWarning, match=r"float32 makes LogME uncertain by about"):
        found = model.logme_
    assert abs(found - expected) > 1e-3

    X = X.astype(np.float64)
    for shift, message in ((1e4, "rounding in float64"), (1e6, "LogME ignores their")):
        moved = X + shift * (np.arange(n) > 600)[:, None]
        with pytest.warns(RoundingWarning, match=message):
            LogME(fit_intercept=True).fit(moved, y)


@INTERCEPT
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_and_constraints_lose_nothing(dtype, fit_intercept, recwarn):
    """What repeats others up to rounding is no direction that is lost."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 40)).astype(dtype)
    normed = (X - X.mean(axis=1, keepdims=True)) / X.std(axis=1, keepdims=True)
    y = np.arange(900) % 3
    for features in (
        np.hstack([X, 1000 * X[:, :9]]),
        np.hstack([X, X @ rng.normal(size=(40, 20)).astype(dtype)]),
        normed * dtype(3) + dtype(100),
        # Of rank 6 but for the few samples where a feature is cut off.
        np.maximum(np.abs(X[:, :6]) @ (rng.normal(size=(6, 60)) + 3), 0),
        np.exp(X) / np.exp(X).sum(axis=1, keepdims=True),
    ):
        LogMEClassifier(fit_intercept=fit_intercept).fit(features.astype(dtype), y)
    assert [str(w.message) for w in recwarn] == []


@INTERCEPT
@pytest.mark.parametrize(("dtype", "offset"), [(np.float32, 1e4), (np.float64, 1e8)])
def test_offset_of_some_of_few_samples(digits, dtype, offset, fit_intercept):
    """Products of samples lost all but the offset, without a word.

    The intercept does not take it away, and every sample and feature is as large.
    """
    X, y = digits[0][:100].astype(np.float64), digits[1][:100]
    X[:50] += offset
    X = X.astype(dtype)
    expected = reference(X, y, fit_intercept)
    assert logme(X, y, fit_intercept) == pytest.approx(expected, abs=1e-4)


def test_features_of_any_scale_fit_nothing_by_themselves(global_random_seed):
    """Fewer samples than features, and copies: the residual counted as rounding."""
    rng = np.random.default_rng(global_random_seed)
    X, y = rng.normal(size=(100, 40)), rng.normal(size=100)
    X = np.tile(X * np.r_[np.full(20, 1e7), np.ones(20)], 3)
    expected = LogME().fit(X[:, :40] * np.sqrt(3), y).logme_
    assert LogME().fit(X, y).logme_ == pytest.approx(expected, abs=1e-6)


@INTERCEPT
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stream_of_features_in_their_own_units(
    dtype, fit_intercept, global_random_seed, recwarn
):
    """Ten decades: the residual was given as more than the target, without a word.

    And `fit`, which was right, said that it was uncertain, by up to 1e7 nats.
    """
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(600, 30))
    y = X @ rng.normal(size=30) + 3 * rng.normal(size=600)
    X = (X * 10.0 ** np.linspace(-5, 5, 30)).astype(dtype)
    whole = LogME(fit_intercept=fit_intercept).fit(X, y)
    stream = LogME(fit_intercept=fit_intercept)
    for rows in np.split(np.arange(600), 6):
        stream.partial_fit(X[rows], y[rows])
    assert stream.logme_ == pytest.approx(whole.logme_, abs=1e-5)
    assert not [w for w in recwarn if w.category is RoundingWarning]


@INTERCEPT
def test_samples_without_weight_hide_no_directions(fit_intercept, recwarn):
    """Rows outside the span of those that count were taken for lost directions."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 50)), rng.normal(size=60)
    weights = np.r_[np.zeros(20), np.ones(40)]
    LogME(fit_intercept=fit_intercept).fit(X, y, weights)
    assert not [w for w in recwarn if w.category is RoundingWarning]


def test_few_samples_are_multiplied_in_float64():
    X = np.random.default_rng(0).normal(size=(40, 10)).astype(np.float32) + 1
    statistics = SufficientStatistics(10).update(X, X[:, 0])
    exact = X.astype(np.float64)
    np.testing.assert_allclose(statistics.gram, exact.T @ exact, rtol=1e-14)
