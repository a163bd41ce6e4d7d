"""The best model behind the selector's own methods, and the teachers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.model_selection import ModelSelector

CANDIDATES = [("one", PCA(1)), ("five", PCA(5)), ("scaled", StandardScaler())]


@pytest.fixture
def selector(wine):
    return ModelSelector(CANDIDATES).fit(*wine)


def test_methods_are_those_of_the_best(selector, wine):
    X, y = wine
    assert selector.ranking_ == ["five", "scaled", "one"]
    Z = PCA(5).fit_transform(X)
    model = LogMEClassifier().fit(Z, y)
    np.testing.assert_allclose(selector.transform(X), Z, atol=1e-10)
    np.testing.assert_array_equal(selector.predict(X), model.predict(Z))
    proba = selector.predict_proba(X)
    np.testing.assert_allclose(proba, model.predict_proba(Z), atol=1e-10)
    assert selector.score(X, y) == pytest.approx(model.score(Z, y), abs=1e-12)
    assert selector.score(X, y) == pytest.approx(selector.best_score_, abs=1e-12)
    half = slice(None, None, 2)
    expected = LogMEClassifier().fit(Z[half], y[half]).logme_
    assert selector.score(X[half], y[half]) == pytest.approx(expected, abs=1e-12)
    assert selector.n_features_in_ == 13
    assert selector.get_feature_names_out().tolist() == [f"pca{i}" for i in range(5)]
    assert selector.best_estimator_[0] is selector.best_extractor_
    assert [name for name, _ in selector.best_estimator_.steps] == ["extract", "logme"]


def test_standard_deviations_of_the_best(wine):
    X, _ = wine
    selector = ModelSelector(CANDIDATES).fit(X, X[:, 0] + X[:, 1] ** 2)
    mean, std = selector.best_estimator_.predict(X, return_std=True)
    np.testing.assert_array_equal(mean, selector.predict(X))
    assert (std > 0).all()


def test_before_and_without(wine):
    X, y = wine
    for method in ("transform", "predict", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(ModelSelector(CANDIDATES), method)(X)
        unready = ModelSelector(CANDIDATES, refit=False).fit(X, y)
        with pytest.raises(AttributeError) as error:
            getattr(unready, method)(X)
        assert "refit=False" in f"{error.value} {error.value.__cause__}"
    for method in ("to_frame", "teachers", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(ModelSelector(CANDIDATES), method)()
    assert not hasattr(ModelSelector(CANDIDATES), "n_features_in_")


def test_candidates_are_left_as_they_were(wine):
    candidates = [(name, clone(extractor)) for name, extractor in CANDIDATES]
    ModelSelector(candidates).fit(*wine)
    for _, extractor in candidates:
        with pytest.raises(NotFittedError):
            check_is_fitted(extractor)


class TestTeachers:
    def test_pairs_best_first(self, selector, wine):
        X, y = wine
        teachers = selector.teachers(2)
        assert [type(extractor) for extractor, _ in teachers] == [PCA, StandardScaler]
        for extractor, model in teachers:
            Z = extractor.transform(X)
            expected = LogMEClassifier().fit(Z, y)
            np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-10)
            assert model.logme_ == pytest.approx(expected.logme_, abs=1e-12)
        assert len(selector.teachers()) == len(selector.teachers(10)) == 3

    def test_means_of_all_but_deviations_of_the_best_only(self, wine):
        X, _ = wine
        y = X[:, 0] + X[:, 1] ** 2
        (best, first), *others = ModelSelector(CANDIDATES).fit(X, y).teachers()
        _, std = first.predict(best.transform(X), return_std=True)
        assert (std > 0).all()
        assert others
        for extractor, model in others:
            Z = extractor.transform(X)
            expected = LogME().fit(Z, y).predict(Z)
            np.testing.assert_allclose(model.predict(Z), expected, atol=1e-9)
            with pytest.raises(ValueError, match="predictive means only"):
                model.predict(Z, return_std=True)

    def test_failed_ones_are_left_out(self, wine, broken):
        candidates = [("bad", broken()), *CANDIDATES]
        with pytest.warns(CandidateFailedWarning, match="1 of 4 candidates failed"):
            selector = ModelSelector(candidates).fit(*wine)
        assert len(selector.teachers(4)) == 3

    def test_by_another_metric(self, wine):
        selector = ModelSelector(CANDIDATES, scoring="transrate").fit(*wine)
        assert selector.teachers(1) == [tuple(selector.best_estimator_[:])]

    @pytest.mark.parametrize("k", [0, -1, 1.5, None])
    def test_number(self, k, selector):
        with pytest.raises(ValueError, match="k must be a positive integer"):
            selector.teachers(k)

    def test_none_was_fitted(self, wine):
        selector = ModelSelector(CANDIDATES, scoring="h_score", refit=False).fit(*wine)
        with pytest.raises(ValueError, match="No candidate has a fitted LogME"):
            selector.teachers()


class TestParameters:
    def test_nested_names(self):
        selector = ModelSelector([("pca", PCA(2)), ("pipe", make_pipeline(PCA(3)))])
        params = selector.get_params()
        assert params["pca__n_components"] == 2
        assert params["pipe__pca__n_components"] == 3
        assert params["pca"] is selector.extractors[0][1]
        assert set(selector.get_params(deep=False)) == {
            "extractors",
            "scoring",
            "refit",
            "task",
            "n_jobs",
            "memory",
            "error_score",
            "verbose",
        }

    def test_set(self, wine):
        selector = ModelSelector([("pca", PCA(2)), ("other", PCA(1))])
        selector.set_params(pca__n_components=4, scoring="h_score")
        assert selector.fit(*wine).results_["n_features"].tolist() == [4, 1]
        selector.set_params(other=StandardScaler())
        assert selector.fit(*wine).results_["n_features"].tolist() == [4, 13]
        with pytest.raises(ValueError, match="Invalid parameter"):
            selector.set_params(third__n_components=4)

    def test_clone(self, selector, wine):
        copy = clone(selector)
        with pytest.raises(NotFittedError):
            check_is_fitted(copy)
        assert copy.fit(*wine).ranking_ == selector.ranking_

    def test_pickle(self, selector, wine):
        copy = pickle.loads(pickle.dumps(selector))
        assert copy.ranking_ == selector.ranking_
        np.testing.assert_array_equal(copy.predict(wine[0]), selector.predict(wine[0]))
        np.testing.assert_array_equal(
            copy.probability_better_, selector.probability_better_
        )

    def test_representations(self, selector):
        assert "ModelSelector" in repr(selector)
        html = selector._repr_html_()
        assert all(name in html for name, _ in CANDIDATES)


def test_fitting_again_forgets(wine):
    X, y = wine
    selector = ModelSelector(CANDIDATES).fit(X, y)
    selector.set_params(scoring="h_score", refit=False).fit(X, y)
    assert not hasattr(selector, "best_estimator_")
    assert not hasattr(selector, "probability_better_")
    selector.set_params(scoring="logme").fit(X, X[:, 0] + 0.1)
    assert not hasattr(selector, "classes_")
