"""LogME and LogMEClassifier as scikit-learn estimators."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_diabetes, load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktransfer.linear_model import LogME, LogMEClassifier

ATTRIBUTES = [
    "log_evidence_",
    "alpha_",
    "beta_",
    "coef_",
    "intercept_",
    "effective_dof_",
    "singular_values_",
    "n_iter_",
    "converged_",
    "influence_",
]


@parametrize_with_checks([LogME(), LogMEClassifier(), LogME(fit_intercept=True)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(params=["regression", "classification"])
def fitted(request):
    """A fitted model with its data."""
    if request.param == "regression":
        X, y = load_diabetes(return_X_y=True)
        return LogME(std_error=True).fit(X, y), X, y
    X, y = load_wine(return_X_y=True)
    return LogMEClassifier(std_error=True).fit(scale(X), y), scale(X), y


def test_kind():
    assert is_regressor(LogME())
    assert is_classifier(LogMEClassifier())


def test_attributes(fitted):
    model, X, y = fitted
    K, d = (1, 10) if is_regressor(model) else (3, 13)
    assert isinstance(model.logme_, float)
    assert isinstance(model.std_error_, float)
    for name in [*ATTRIBUTES[:3], "effective_dof_", "n_iter_", "converged_"]:
        assert getattr(model, name).shape == (K,)
    assert model.coef_.shape == ((d,) if is_regressor(model) else (K, d))
    assert model.n_features_in_ == d
    np.testing.assert_allclose(
        model.singular_values_, np.linalg.svd(X, compute_uv=False)
    )
    assert model.logme_ == pytest.approx(model.log_evidence_.mean() / len(X))
    t = np.reshape(model.alpha_ / model.beta_, (K, 1, 1))
    targets = np.eye(3)[y] if is_classifier(model) else y[:, None]
    ridge = np.linalg.solve(X.T @ X + t * np.eye(d), (X.T @ targets).T[:, :, None])
    np.testing.assert_allclose(model.coef_, np.squeeze(ridge), rtol=1e-6, atol=1e-9)


def test_score_is_evidence_of_the_data_given(fitted):
    model, X, y = fitted
    assert model.score(X, y) == pytest.approx(model.logme_)
    before = model.logme_
    half = type(model)().fit(X[::2], y[::2])
    assert model.score(X[::2], y[::2]) == pytest.approx(half.logme_)
    weights = np.arange(len(y)) % 2 == 0
    assert model.score(X, y, weights) == pytest.approx(half.logme_)
    assert model.logme_ == before
    np.testing.assert_array_equal(model.predict(X), clone(model).fit(X, y).predict(X))


def test_score_keeps_parameters():
    X, y = load_diabetes(return_X_y=True)
    model = LogME(fit_intercept=True, solver="mackay", max_iter=5000).fit(X, y)
    assert model.score(X, y) == pytest.approx(model.logme_, abs=1e-9)
    assert model.score(X, y) != pytest.approx(LogME().fit(X, y).logme_, abs=1e-3)


def test_refit_forgets(fitted):
    model, X, y = fitted
    expected = clone(model).fit(X[::3, :4], y[::3])
    model.fit(X[::3, :4], y[::3])
    assert model.logme_ == expected.logme_
    assert model.n_features_in_ == 4
    np.testing.assert_array_equal(model.coef_, expected.coef_)


def test_partial_fit_goes_on_after_fit(fitted):
    model, X, y = fitted
    model.fit(X[::2], y[::2])
    model.logme_  # noqa: B018 - asked for, and outdated by what follows
    model.partial_fit(X[1::2], y[1::2])
    assert model.logme_ == pytest.approx(clone(model).fit(X, y).logme_)


def test_pickle(fitted):
    model, X, _ = fitted
    copy = pickle.loads(pickle.dumps(model))
    assert copy.logme_ == model.logme_
    assert copy.std_error_ == model.std_error_
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(copy, name), getattr(model, name))
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))


@pytest.mark.parametrize("n_seen", [6, 100])
def test_pickle_in_the_middle_of_a_stream(n_seen):
    X, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = scale(X)[order], y[order]
    model = LogMEClassifier().partial_fit(X[:n_seen], y[:n_seen], [0, 1, 2])
    model = pickle.loads(pickle.dumps(model)).partial_fit(X[n_seen:], y[n_seen:])
    assert model.logme_ == pytest.approx(LogMEClassifier().fit(X, y).logme_)


def test_clone(fitted):
    model, *_ = fitted
    model.set_params(fit_intercept=True, solver="fixed_point", tol=1e-4, max_iter=7)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "statistics_")


def test_feature_names(fitted):
    model, X, y = fitted
    frame = pd.DataFrame(X).rename(columns="f{}".format)
    model.fit(frame, y)
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    assert model.predict(frame).shape == y.shape
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[frame.columns[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


def test_lists(fitted):
    model, X, y = fitted
    expected = model.logme_
    assert model.fit(X.tolist(), y.tolist()).logme_ == pytest.approx(expected)


def test_string_labels():
    X, y = load_wine(return_X_y=True)
    names = np.array(["barbera", "barolo", "grignolino"])
    for labels in (names[y], names[y].astype(object), pd.Series(names[y])):
        model = LogMEClassifier().fit(scale(X), labels)
        assert model.classes_.tolist() == names.tolist()
        assert model.predict(scale(X)).tolist()[:2] == ["barbera", "barbera"]
        assert model.logme_ == pytest.approx(LogMEClassifier().fit(scale(X), y).logme_)


def test_labels_with_gaps():
    """Published code takes {0, 2, 4} for five classes."""
    X, y = load_wine(return_X_y=True)
    model = LogMEClassifier().fit(scale(X), 2 * y)
    assert model.log_evidence_.shape == (3,)
    assert model.logme_ == pytest.approx(LogMEClassifier().fit(scale(X), y).logme_)


def test_grid_search_maximises_logme():
    X, y = load_wine(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), PCA(), LogMEClassifier())
    whole = [(np.arange(len(y)), np.arange(len(y)))]
    search = GridSearchCV(pipeline, {"pca__n_components": [1, 2, 6]}, cv=whole)
    search.fit(X, y)
    expected = [
        LogMEClassifier().fit(PCA(k).fit_transform(scale(X)), y).logme_
        for k in (1, 2, 6)
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected)
    assert search.best_score_ == pytest.approx(max(expected))


def test_cross_val_score_measures_the_folds():
    X, y = load_diabetes(return_X_y=True)
    folds = [(np.arange(300), np.arange(300, 442)), (np.arange(300), np.arange(100))]
    scores = cross_val_score(LogME(), X, y, cv=folds)
    expected = [LogME().fit(X[test], y[test]).logme_ for _, test in folds]
    np.testing.assert_allclose(scores, expected)


def test_score_of_a_subclass_with_parameters_of_its_own():
    class Loose(LogME):
        def __init__(self, tol=1e-3):
            super().__init__(tol=tol)

    X = np.random.default_rng(0).normal(size=(30, 3))
    model = Loose().fit(X, X @ [1.0, 2.0, 3.0] + X[::-1, 0])
    y = X[::-1, 1] + X[:, 0]
    assert model.score(X, y) == pytest.approx(LogME().fit(X, y).logme_, abs=1e-6)
