"""Every mistake has its own message."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from sktransfer.linear_model import LogME, LogMEClassifier

BOTH = pytest.mark.parametrize("cls", [LogME, LogMEClassifier])


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(12, 3))


@pytest.fixture
def y():
    return np.arange(12) % 3 + 1


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["fit", "predict", "score"])
def test_not_finite_features(cls, value, method, X, y):
    model = cls().fit(X, y)
    bad = X.copy()
    bad[3, 1] = value
    arguments = (bad,) if method == "predict" else (bad, y)
    found = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(ValueError, match=f"Input X contains {found}"):
        getattr(model, method)(*arguments)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "y contains NaN"), (np.inf, "y contains infinity")]
)
def test_not_finite_target(value, message, X, y):
    bad = y.astype(float)
    bad[0] = value
    with pytest.raises(ValueError, match=message):
        LogME().fit(X, bad)
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        LogMEClassifier().fit(X, bad)


@BOTH
def test_one_sample(cls, X):
    with pytest.raises(ValueError, match=r"(at least 2 samples|1 class)"):
        cls().fit(X[:1], [1])


@BOTH
def test_one_streamed_sample(cls, X):
    kwargs = {"classes": [0, 1]} if cls is LogMEClassifier else {}
    model = cls().partial_fit(X[:1], [1], **kwargs)
    message = rf"{cls.__name__} needs at least 2 samples; got n_samples = 1"
    with pytest.raises(ValueError, match=message):
        model.logme_  # noqa: B018
    model.partial_fit(X[1:3], [0, 1])
    assert isinstance(model.logme_, float)


def test_constant_target(X):
    with pytest.raises(ValueError, match="cannot score target 0: constant over all"):
        LogME().fit(X, np.full(12, 3.0))
    y = np.column_stack([np.arange(12), np.ones(12), np.full(12, -2)])
    with pytest.raises(ValueError, match="cannot score target 1, 2: constant over all"):
        LogME().fit(X, y)


def test_zero_target(X):
    y = np.column_stack([np.arange(12), np.zeros(12)])
    with pytest.raises(
        ValueError, match=r"cannot score target 1: all zero, .*unbounded"
    ):
        LogME().fit(X, y)


def test_many_bad_targets(X):
    with pytest.raises(ValueError, match="target 0, 1, 2, 3, 4 and 3 more"):
        LogME().fit(X, np.zeros((12, 8)))


def test_one_class(X):
    with pytest.raises(ValueError, match="at least 2 classes; got 1 class: 'cat'"):
        LogMEClassifier().fit(X, ["cat"] * 12)


def test_class_without_sample(X, y):
    """Streams may bring the missing class later: the error comes with the result."""
    model = LogMEClassifier().partial_fit(X, y, classes=[1, 2, 3, 7])
    with pytest.raises(ValueError, match="cannot score class 7: no sample has it"):
        model.predict(X)
    model.partial_fit(X[:2], [7, 7])
    assert model.predict(X).shape == (12,)


def test_class_without_weight(X, y):
    with pytest.raises(ValueError, match="class 2: no sample has it"):
        LogMEClassifier().fit(X, y, (y != 2).astype(float))


def test_unseen_label(X, y):
    model = LogMEClassifier().partial_fit(X, y, classes=[1, 2, 3])
    message = r"labels that are not among classes: \[4\]; expected some of \[1, 2, 3\]"
    with pytest.raises(ValueError, match=message):
        model.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match=r"not among classes: \[0\]"):
        model.log_predictive_density(X, y - 1)


def test_classes_missing(X, y):
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        LogMEClassifier().partial_fit(X, y)


def test_classes_changed(X, y):
    model = LogMEClassifier().partial_fit(X, y, classes=[1, 2, 3])
    with pytest.raises(ValueError, match="not the same as on the last call"):
        model.partial_fit(X, y, classes=[1, 2, 3, 4])
    model.partial_fit(X, y, classes=[3, 2, 1])


@BOTH
@pytest.mark.parametrize("method", ["partial_fit", "predict", "score"])
def test_wrong_number_of_features(cls, method, X, y):
    model = cls().fit(X, y)
    arguments = (X[:, :2],) if method == "predict" else (X[:, :2], y)
    message = f"X has 2 features, but {cls.__name__} is expecting 3 features"
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(*arguments)


@BOTH
def test_inconsistent_lengths(cls, X, y):
    with pytest.raises(
        ValueError, match=r"inconsistent numbers of samples: \[12, 11\]"
    ):
        cls().fit(X, y[:-1])
    with pytest.raises(ValueError, match=r"sample_weight.shape == \(3,\)"):
        cls().fit(X, y, np.ones(3))


@BOTH
def test_negative_weights(cls, X, y):
    weights = np.ones(12)
    weights[2] = -1
    with pytest.raises(ValueError, match="Negative values in data passed"):
        cls().fit(X, y, weights)


@BOTH
def test_no_weight(cls, X, y):
    with pytest.raises(ValueError, match="at least one non-zero"):
        cls().fit(X, y, np.zeros(12))


@BOTH
def test_target_missing(cls, X):
    with pytest.raises(
        ValueError, match="requires y to be passed, but the target y is"
    ):
        cls().fit(X, None)


def test_number_of_targets_changed(X, y):
    model = LogME().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y must have the shape .* got \(12, 2\)"):
        model.partial_fit(X, np.column_stack([y, y]))


def test_continuous_labels(X):
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        LogMEClassifier().fit(X, X[:, 0])


def test_indicator_for_classifier(X):
    with pytest.raises(ValueError, match="should be a 1d array"):
        LogMEClassifier().fit(X, np.eye(12, 4))


@BOTH
@pytest.mark.parametrize(
    ("parameter", "value", "accepted"),
    [
        ("fit_intercept", "yes", "an instance of 'bool'"),
        ("solver", "adam", "a str among {.*'newton'.*}"),
        ("tol", 0, r"a float in the range \(0.0, inf\)"),
        ("max_iter", 0, r"an int in the range \[1, inf\)"),
        ("max_iter", 1.5, r"an int in the range \[1, inf\)"),
        ("std_error", 2, "an instance of 'bool'"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_parameters(cls, parameter, value, accepted, method, X, y):
    model = cls(**{parameter: value})
    message = f"The '{parameter}' parameter of {cls.__name__} must be {accepted}.* Got"
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(X, y)


@BOTH
@pytest.mark.parametrize("name", ["logme_", "coef_", "alpha_", "converged_"])
def test_not_fitted_attribute(cls, name):
    with pytest.raises(NotFittedError, match=f"{cls.__name__} instance is not fitted"):
        getattr(cls(), name)


@BOTH
def test_not_fitted_method(cls, X, y):
    for call in (lambda m: m.predict(X), lambda m: m.score(X, y)):
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            call(cls())


@BOTH
@pytest.mark.parametrize("n", [12, 2])
def test_weights_that_leave_no_contrast(cls, n, X, y):
    """They gave NaN, or a negative precision, as a maximum that had been found."""
    weights = np.full(n, 0.9 / n)
    model = cls(fit_intercept=True)
    with pytest.raises(
        ValueError, match=r"weights that sum to more than 1; got .* 0.9"
    ):
        model.fit(X[:n], y[:n], weights)
    model = cls().fit(X[:n], y[:n], weights)
    assert np.isfinite(model.logme_)
    assert (np.asarray(model.beta_) > 0).all()


@BOTH
def test_parameters_of_a_fitted_stream(cls, X, y):
    model = cls().fit(X, y).set_params(solver="newtown")
    with pytest.raises(ValueError, match="'solver' parameter of .* must be a str"):
        model.partial_fit(X, y)


@BOTH
def test_compact_model_cannot_learn_more(cls, X, y):
    """It had no statistics: 'NoneType' object has no attribute 'update'."""
    model = cls().fit(X, y)
    model.compact()
    with pytest.raises(ValueError, match="no statistics that partial_fit could add"):
        model.partial_fit(X, y)
    assert model.fit(X, y).partial_fit(X, y).statistics_.n_rows == 24


@pytest.mark.parametrize("n_features", [5, 60])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("scale", "flow"), [(1e-200, "under"), (1e200, "over")])
def test_target_whose_squares_leave_float64(scale, flow, stream, n_features):
    """Huge ones gave NaN or minus infinity, tiny ones were called zero."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, n_features)), scale * rng.normal(size=40)
    with pytest.raises(ValueError, match=f"squares .*{flow}flow float64"):
        model = LogME()
        _ = (model.partial_fit if stream else model.fit)(X, y).logme_
