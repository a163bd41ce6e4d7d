"""Statistics become an estimator: as `partial_fit` does it, or `fit` with samples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale

from sktransfer.linear_model import LogME, LogMEClassifier, SufficientStatistics

MODELS = pytest.mark.parametrize("cls", [LogME, LogMEClassifier])
ATTRIBUTES = ("logme_", "alpha_", "beta_", "coef_", "intercept_", "singular_values_")


def wine(cls):
    X, y = load_wine(return_X_y=True)
    return scale(X), y if cls is LogMEClassifier else np.eye(3)[y][:, :2] - 0.2


def statistics_of(X, y, weights=None):
    n_classes = 3 if y.ndim == 1 else None
    return SufficientStatistics(X.shape[1], n_classes=n_classes).update(X, y, weights)


def assert_equal(one, other, rtol=1e-9):
    for name in ATTRIBUTES:
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), rtol=rtol, atol=1e-9
        )


@MODELS
@pytest.mark.parametrize("n", [9, 178])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.UnboundedEvidenceWarning")
def test_merged_halves(cls, n, weighted):
    X, y = wine(cls)
    rows = np.linspace(0, 177, n).astype(int)
    X, y = X[rows], y[rows]
    weights = np.linspace(1, 2, n) if weighted else None
    cut = slice(None, n // 3), slice(n // 3, None)
    parts = [
        statistics_of(X[i], y[i], None if weights is None else weights[i]) for i in cut
    ]
    merged = parts[0] + parts[1]
    whole = cls(fit_intercept=True, std_error=True).fit(X, y, weights)
    model = cls(fit_intercept=True).fit_statistics(merged)
    assert_equal(model, whole)
    assert model.statistics_ is merged
    with pytest.raises(AttributeError, match="fit_statistics with the samples"):
        model.std_error_  # noqa: B018
    model.set_params(std_error=True).fit_statistics(merged, X, y, weights)
    assert_equal(model, whole)
    np.testing.assert_allclose(model.influence_, whole.influence_, rtol=1e-6)
    np.testing.assert_allclose(model.predict(X), whole.predict(X))


@MODELS
def test_goes_on_with_partial_fit(cls):
    X, y = wine(cls)
    model = cls().fit_statistics(statistics_of(X[::2], y[::2]))
    assert_equal(model.partial_fit(X[1::2], y[1::2]), cls().fit(X, y))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_shape_of_one_target(shape):
    X, y = wine(LogME)
    y = y[:, 0].reshape(len(y), *shape)
    statistics = SufficientStatistics(13).update(X, y)
    assert LogME().fit_statistics(statistics).coef_.shape == (13,)
    model = LogME().fit_statistics(statistics, X, y)
    assert model.coef_.shape == (*shape, 13)
    assert model.predict(X).shape == y.shape


def test_labels_of_the_codes():
    X, y = wine(LogMEClassifier)
    labels = np.array(["red", "rose", "white"])
    whole = LogMEClassifier(std_error=True).fit(X, labels[y])
    model = LogMEClassifier().fit_statistics(statistics_of(X, y))
    np.testing.assert_array_equal(model.classes_, range(3))
    model = LogMEClassifier(std_error=True)
    model.fit_statistics(statistics_of(X, y), X, labels[y], classes=labels)
    assert_equal(model, whole)
    assert model.std_error_ == pytest.approx(whole.std_error_)
    np.testing.assert_array_equal(model.predict(X), whole.predict(X))


def test_float32_is_repeated_in_float64():
    X, y = wine(LogMEClassifier)
    X = np.tile(X, (3, 1)).astype(np.float32)
    X = np.c_[X, X[:, :1] + np.float32(1e-4) * X[:, 1:2]]
    y = np.tile(y, 3)
    statistics = statistics_of(X, y)
    model = LogMEClassifier().fit_statistics(statistics, X, y)
    assert model.statistics_ is not statistics
    assert not model.statistics_.is_single
    assert_equal(model, LogMEClassifier().fit(X, y))


@MODELS
def test_names_of_the_features(cls):
    pd = pytest.importorskip("pandas")
    X, y = wine(cls)
    model = cls().fit_statistics(
        statistics_of(X, y), pd.DataFrame(X).add_prefix("f"), y
    )
    assert model.feature_names_in_[1] == "f1"
    assert not hasattr(model.fit_statistics(statistics_of(X, y)), "feature_names_in_")
    assert model.n_features_in_ == 13


@MODELS
def test_refuses_other_samples(cls):
    X, y = wine(cls)
    statistics = statistics_of(X, y)
    with pytest.raises(ValueError, match=r"of shape \(178, 13\); got \(178, 12\)"):
        cls().fit_statistics(statistics, X[:, 1:], y)
    with pytest.raises(ValueError, match=r"of shape \(178, 13\); got \(100, 13\)"):
        cls().fit_statistics(statistics, X[:100], y[:100])
    with pytest.raises(ValueError, match="X and y must be passed together"):
        cls().fit_statistics(statistics, X)
    with pytest.raises(ValueError, match="these statistics have seen none"):
        n_classes = 3 if cls is LogMEClassifier else None
        cls().fit_statistics(SufficientStatistics(13, n_classes=n_classes))


def test_refuses_other_targets():
    X, y = wine(LogMEClassifier)
    _, Y = wine(LogME)
    classes, numbers = statistics_of(X, y), statistics_of(X, Y)
    with pytest.raises(ValueError, match="statistics of 3 classes. Use LogMEClass"):
        LogME().fit_statistics(classes)
    with pytest.raises(ValueError, match="got statistics of numeric targets"):
        LogMEClassifier().fit_statistics(numbers)
    with pytest.raises(ValueError, match=r"\(n_samples, \*\(2,\)\)"):
        LogME().fit_statistics(numbers, X, np.c_[Y, Y])
    with pytest.raises(ValueError, match=r"\(n_samples, \*\(2,\)\)"):
        LogME().fit_statistics(numbers, X, Y[:, 0])
    with pytest.raises(ValueError, match=r"not among classes: \[3\]"):
        LogMEClassifier().fit_statistics(classes, X, y + 1)
    for bad in (["a", "b"], ["b", "a", "c"], ["a", "a", "b"]):
        with pytest.raises(ValueError, match="3 different labels in increasing order"):
            LogMEClassifier().fit_statistics(classes, classes=bad)


@pytest.mark.parametrize("cls", [LogME, LogMEClassifier])
@pytest.mark.parametrize("n", [9, 178])
def test_statistics_with_samples(cls, n):
    X, y = load_wine(return_X_y=True)
    rows = np.linspace(0, 177, n).astype(int)
    X, y, w, g = scale(X)[rows], y[rows], np.linspace(0.5, 2, n), np.arange(n) // 3
    if cls is LogME:
        y = np.eye(3)[y] + 0.1 * np.sin(np.arange(3 * n)).reshape(n, 3)
    n_classes = None if cls is LogME else 3
    statistics = SufficientStatistics(13, n_classes=n_classes).update(X, y, w)
    for groups in (None, g):
        whole = cls(leave_one_out=True).fit(X, y, w, groups=groups)
        model = cls(leave_one_out=True)
        model.fit_statistics(statistics, X, y, w, groups=groups)
        np.testing.assert_allclose(model.loo_predictions_, whole.loo_predictions_)
        assert model.loo_log_likelihood_ == pytest.approx(whole.loo_log_likelihood_)


@pytest.mark.parametrize("groups", [None, np.arange(60) // 3, np.arange(60) % 2])
@pytest.mark.parametrize("prior", ["shared", "per_target"])
def test_statistics_of_other_samples(groups, prior, global_random_seed):
    """NaN reached the eigensolver, which said that it did not converge."""
    rng = np.random.default_rng(global_random_seed)
    X, y = rng.normal(size=(60, 5)), np.arange(60) % 3
    statistics = SufficientStatistics(5, n_classes=3).update(X, y)
    X[7, 2] = np.nan
    model = LogMEClassifier(leave_one_out=True, fit_intercept=True, prior=prior)
    with pytest.raises(ValueError, match="X must hold the samples of the statistics"):
        model.fit_statistics(statistics, X, y, groups=groups)
