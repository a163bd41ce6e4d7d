"""The best model behind the selector's own methods, and the teachers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.decomposition import PCA
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, TargetEncoder
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import get_scorer, logme_score
from sktransfer.model_selection import ModelSelector

CANDIDATES = [("one", PCA(1)), ("five", PCA(5)), ("scaled", StandardScaler())]


@pytest.fixture
def selector(wine):
    return ModelSelector(CANDIDATES, scoring="logme").fit(*wine)


def test_methods_are_those_of_the_best(selector, wine):
    X, y = wine
    assert selector.ranking_ == ["five", "scaled", "one"]
    Z = PCA(5).fit_transform(X)
    model = LogMEClassifier(prior="shared", fit_intercept=True, leave_one_out=True)
    model.fit(Z, y)
    np.testing.assert_allclose(selector.transform(X), Z, atol=1e-10)
    np.testing.assert_array_equal(selector.predict(X), model.predict(Z))
    proba = selector.predict_proba(X)
    np.testing.assert_allclose(proba, model.predict_proba(Z), atol=1e-10)
    score = LogMEClassifier().fit(Z, y).logme_
    assert selector.score(X, y) == pytest.approx(score, abs=1e-12)
    assert selector.score(X, y) == pytest.approx(selector.best_score_, abs=1e-12)
    half = slice(None, None, 2)
    expected = LogMEClassifier().fit(Z[half], y[half]).logme_
    assert selector.score(X[half], y[half]) == pytest.approx(expected, abs=1e-12)
    assert selector.n_features_in_ == 13
    assert selector.get_feature_names_out().tolist() == [f"pca{i}" for i in range(5)]
    assert selector.best_estimator_[0] is selector.best_extractor_
    assert [name for name, _ in selector.best_estimator_.steps] == ["extract", "logme"]


@pytest.mark.parametrize("decides", ["h_score", "transrate", "leep", "logme"])
def test_score_is_that_of_the_metric_that_decides(decides, wine, logged_extractor):
    X, y = wine
    layers = ("power", "sign", "narrow")
    candidates = [("pca", PCA(1)), ("net", logged_extractor(layer=layers, head=True))]
    selector = ModelSelector(
        candidates, scoring=["logme", "h_score", "transrate", "leep"], refit=decides
    )
    if decides != "leep":
        selector.set_params(scoring=["logme", "h_score", "transrate"])
        selector.fit(X, y)
    else:
        with pytest.warns(CandidateFailedWarning, match="pca: leep"):
            selector.fit(X, y)
    assert selector.score(X, y) == pytest.approx(selector.best_score_, rel=1e-6)
    half = slice(None, None, 2)
    if decides != "transrate":
        Z = selector.best_extractor_ if decides != "leep" else candidates[1][1]
        expected = get_scorer(decides)(Z, X[half], y[half])
        assert selector.score(X[half], y[half]) == pytest.approx(expected, rel=1e-9)


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
            expected = LogME(fit_intercept=True).fit(Z, y).predict(Z)
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
        ((extractor, model),) = selector.teachers(1)
        assert extractor is selector.best_extractor_
        expected = LogMEClassifier().fit(extractor.transform(wine[0]), wine[1])
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-10)

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
            "fit_intercept",
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


@pytest.mark.parametrize(
    "method", ["transform", "fit_transform", "get_feature_names_out"]
)
def test_without_a_best_model_there_is_nothing_to_transform_with(method, wine):
    assert hasattr(ModelSelector(CANDIDATES), method)
    selector = ModelSelector(CANDIDATES, refit=False)
    assert not hasattr(selector, method)
    assert not hasattr(selector.fit(*wine), method)


def test_output_is_the_container_asked_for(wine):
    pandas = pytest.importorskip("pandas")
    X, y = wine
    selector = ModelSelector(CANDIDATES, scoring="logme").set_output(transform="pandas")
    for frame in (selector.fit_transform(X, y), selector.transform(X)):
        assert isinstance(frame, pandas.DataFrame)
        assert frame.columns.tolist() == [f"pca{i}" for i in range(5)]


@pytest.mark.parametrize("wrap", [clone, make_pipeline])
def test_fit_transform_gives_the_features_that_were_scored(wrap, global_random_seed):
    """TargetEncoder's `transform` would tell the training samples their labels."""
    rng = np.random.default_rng(global_random_seed)
    X = rng.integers(30, size=(120, 2)).astype(str)
    y = rng.integers(3, size=120)
    encoder = TargetEncoder(cv=KFold(3))
    selector = ModelSelector([("encoder", wrap(encoder))], scoring="logme")
    features = selector.fit_transform(X, y)
    np.testing.assert_array_equal(features, clone(encoder).fit_transform(X, y))
    assert selector.best_score_ == pytest.approx(logme_score(features, y), abs=1e-12)
    # What it predicts with is as it was.
    expected = clone(encoder).fit(X, y).transform(X)
    np.testing.assert_array_equal(selector.transform(X), expected)


def test_features_that_are_not_finite_are_refused_after_the_fit_as_in_it(wine):
    X, y = wine
    selector = ModelSelector([("scaled", StandardScaler())]).fit(X, y)
    damaged = X.copy()
    damaged[[3, 5], 2] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in 2 of 178 rows"):
        selector.transform(damaged)


class TestTags:
    @pytest.mark.parametrize(
        ("task", "target", "kind"),
        [
            ("classification", lambda y: y, "classifier"),
            ("regression", lambda y: y + 0.5, "regressor"),
            ("multilabel", lambda y: np.c_[y == 0, y == 1].astype(int), None),
        ],
    )
    def test_kind_of_estimator_is_that_of_the_task(self, task, target, kind, wine):
        X, y = wine
        told = ModelSelector(CANDIDATES, task=task)
        found = ModelSelector(CANDIDATES).fit(X, target(y))
        assert get_tags(ModelSelector(CANDIDATES)).estimator_type is None
        for selector in (told, found):
            assert is_classifier(selector) == (kind == "classifier")
            assert is_regressor(selector) == (kind == "regressor")

    def test_folds_of_a_classifier_are_stratified(self, wine):
        X, y = wine  # in the order of the classes: KFold(3) would leave one out
        selector = ModelSelector(CANDIDATES, task="classification")
        scores = cross_val_score(selector, X, y, cv=3, scoring="accuracy")
        assert (scores > 0.7).all()

    def test_a_scorer_still_measures_what_the_best_extracts(self, wine):
        X, y = wine
        expected = ModelSelector(CANDIDATES, scoring="logme", task="classification")
        expected.fit(X, y)
        for wrap in (lambda s: s, make_pipeline, FrozenEstimator):
            score = get_scorer("logme")(wrap(expected), X, y)
            assert score == pytest.approx(expected.best_score_, abs=1e-9)

    def test_missing_values_are_up_to_the_candidates(self, wine):
        X, y = wine
        X = np.where(np.arange(X.size).reshape(X.shape) % 7 == 0, np.nan, X)
        imputed = ModelSelector([("pca", PCA(1)), ("impute", SimpleImputer())])
        assert get_tags(imputed).input_tags.allow_nan
        with pytest.warns(CandidateFailedWarning, match="1 of 2"):
            assert imputed.fit(X, y).best_name_ == "impute"
        scaled = ModelSelector([("scale", StandardScaler()), ("pca", PCA(1))])
        assert not get_tags(scaled).input_tags.allow_nan
        with pytest.raises(ValueError, match="All 2 candidates failed"):
            scaled.fit(X, y)


def test_labels_in_a_column(wine):
    X, y = wine
    with pytest.warns(DataConversionWarning, match="column-vector") as seen:
        selector = ModelSelector(CANDIDATES).fit(X, y[:, None])
    assert len(seen) == 1  # not one for each candidate
    np.testing.assert_array_equal(
        selector.results_["logme"],
        ModelSelector(CANDIDATES).fit(X, y).results_["logme"],
    )


def fitted_names(selector):
    return {name for name in dir(selector) if name.endswith("_") and name[0] != "_"}


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_nothing_is_left_of_any_fit_when_one_fails(when, wine, broken, monkeypatch):
    X, y = wine
    names = fitted_names(ModelSelector(CANDIDATES))
    selector = ModelSelector(CANDIDATES).fit(X, y)
    assert fitted_names(selector) > names
    error = ValueError
    if when == "before":
        selector.set_params(scoring="no such metric")
    elif when == "during":
        selector.set_params(extractors=[("bad", broken())])
    else:
        error = KeyboardInterrupt
        monkeypatch.setattr(selector, "_store_results", raises(error))
    with pytest.raises(error):
        selector.fit(X, X[:, 0])
    assert fitted_names(selector) == names
    with pytest.raises(NotFittedError):
        selector.set_params(extractors=CANDIDATES).predict(X)


def raises(error):
    def function(*args):
        raise error

    return function


def test_fitting_again_forgets(wine):
    X, y = wine
    selector = ModelSelector(CANDIDATES).fit(X, y)
    selector.set_params(scoring="h_score", refit=False).fit(X, y)
    assert not hasattr(selector, "best_estimator_")
    assert not hasattr(selector, "probability_better_")
    selector.set_params(scoring="logme").fit(X, X[:, 0] + 0.1)
    assert not hasattr(selector, "classes_")


@pytest.mark.filterwarnings("error")
def test_candidates_whose_output_is_a_data_frame(wine):
    pytest.importorskip("pandas")
    X, y = wine
    plain = ModelSelector([("scaled", StandardScaler())]).fit(X, y)
    framed = StandardScaler().set_output(transform="pandas")
    selector = ModelSelector([("scaled", framed)]).fit(X, y)
    assert selector.best_score_ == plain.best_score_
    np.testing.assert_array_equal(selector.predict(X), plain.predict(X))


def test_score_needs_no_head(wine):
    X, y = wine[0], np.c_[wine[0][:, 0], np.zeros(178)]  # LogME refuses zeros
    scoring = {"spread": lambda X, y: np.std(X)}
    selector = ModelSelector([("one", PCA(1)), ("all", PCA())], scoring=scoring)
    with pytest.warns(CandidateFailedWarning, match="cannot score target 1"):
        selector.fit(X, y)
    assert selector.score(X, y) == pytest.approx(selector.best_score_)
    assert not hasattr(selector, "predict")
