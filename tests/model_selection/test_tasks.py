"""Targets: which task they pose, and which metrics take them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import (
    get_metric,
    get_scorer,
    logme_score,
    make_transferability_scorer,
)
from sktransfer.model_selection import ModelSelector

CANDIDATES = [("two", PCA(2)), ("five", PCA(5))]


def targets(X, y):
    return {
        "classification": np.array(["red", "white", "none"])[y],
        "regression": X[:, 0] + 0.5,
        "multilabel": np.c_[y == 0, y == 1, y > 0].astype(int),
    }


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
def test_inferred(wine, task):
    X, y = wine
    target = targets(X, y)[task]
    selector = ModelSelector(CANDIDATES).fit(X, target)
    assert selector.task_ == task
    for i, (_, extractor) in enumerate(CANDIDATES):
        F, numbers = extractor.fit_transform(X), task == "regression"
        expected = logme_score(F, target, fit_intercept=numbers)
        assert selector.results_["logme"][i] == pytest.approx(expected, abs=1e-12)
    head = LogMEClassifier if task == "classification" else LogME
    assert isinstance(selector.best_estimator_[-1], head)
    assert hasattr(selector, "classes_") == (task == "classification")
    assert hasattr(selector, "predict_proba") == (task == "classification")
    assert selector.predict(X).shape == target.shape


def test_several_numeric_targets(wine):
    X, _ = wine
    selector = ModelSelector(CANDIDATES).fit(X, X[:, :3] + 0.1)
    assert selector.task_ == "regression"
    assert selector.predict(X).shape == (len(X), 3)


def test_told(wine):
    X, y = wine
    selector = ModelSelector(CANDIDATES, task="regression").fit(X, y)
    assert selector.task_ == "regression"
    expected = logme_score(
        PCA(2).fit_transform(X), y, task="regression", fit_intercept=True
    )
    assert selector.results_["logme"][0] == pytest.approx(expected, abs=1e-12)
    assert not hasattr(ModelSelector(CANDIDATES, task="regression"), "predict_proba")


@pytest.mark.parametrize("task", ["regression", "multilabel"])
@pytest.mark.parametrize("scoring", ["h_score", ["logme", "h_score"]])
def test_metric_that_does_not_take_it_is_refused_before_any_extraction(
    wine, task, scoring, logged_extractor, log
):
    X, y = wine
    selector = ModelSelector([("a", logged_extractor())], scoring=scoring)
    with pytest.raises(ValueError, match=f"h_score.*this is a {task} target"):
        selector.fit(X, targets(X, y)[task])
    assert not log.read()


def test_no_target(wine):
    with pytest.raises(ValueError, match="requires y to be passed"):
        ModelSelector(CANDIDATES).fit(wine[0], None)


def test_target_of_another_length(wine, logged_extractor, log):
    X, y = wine
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ModelSelector([("a", logged_extractor())]).fit(X, y[:-1])
    assert not log.read()


def test_target_of_no_known_kind(wine):
    X, y = wine
    with pytest.raises(ValueError, match=r"2 columns.*ids, pass the column of labels"):
        ModelSelector(CANDIDATES).fit(X, np.array([["a", "b"]] * len(y)))


@pytest.mark.parametrize("metric", ["linear_probe", "transrate", "knn", "lfc", "parc"])
def test_task_reaches_every_metric(metric):
    """Diabetes: no linear probe of 0.011, for 214 classes."""
    X, y = load_diabetes(return_X_y=True)
    function = get_metric(metric).score_func
    expected = function(X, y + 0.25)
    candidates = [("as it is", FunctionTransformer())]
    for target, task in ((y, "auto"), (y, "regression"), (y.astype(int), "regression")):
        scoring = {"a": metric, "b": partial(function), "c": function}
        selector = ModelSelector(candidates, scoring=scoring, task=task).fit(X, target)
        assert selector.task_ == "regression"
        for name in scoring:
            assert selector.results_[name][0] == pytest.approx(expected)


def test_task_reaches_a_partial_of_logme():
    X, y = load_diabetes(return_X_y=True)
    scoring = {"flat": partial(logme_score, fit_intercept=True)}
    candidates = [("as it is", FunctionTransformer())]
    selector = ModelSelector(candidates, scoring=scoring, task="regression")
    expected = LogME(fit_intercept=True).fit(X, y).logme_
    assert selector.fit(X, y.astype(int)).best_score_ == pytest.approx(expected)


def test_auto_warns_where_it_may_be_wrong(wine):
    X, y = wine
    with pytest.warns(UserWarning, match="pass task='classification'"):
        assert ModelSelector(CANDIDATES).fit(X, y.astype(float)).task_ == "regression"
    rare = np.arange(len(y)) // 2
    with pytest.warns(UserWarning, match="pass task='regression'"):
        assert ModelSelector(CANDIDATES).fit(X, rare).task_ == "classification"


def test_floats_can_be_labels(wine):
    X, y = wine
    selector = ModelSelector(CANDIDATES, task="classification").fit(X, y.astype(float))
    expected = ModelSelector(CANDIDATES).fit(X, y)
    np.testing.assert_array_equal(
        selector.results_["logme"], expected.results_["logme"]
    )
    assert selector.predict(X).dtype == float


def test_what_a_metric_was_told_is_the_task(wine):
    X, y = wine
    scoring = make_transferability_scorer("linear_probe", task="regression")
    selector = ModelSelector(CANDIDATES, scoring=scoring).fit(X, y)
    assert selector.task_ == "regression"
    assert isinstance(selector.best_estimator_[-1], LogME)


def test_several_labels_must_be_indicators(wine, logged_extractor, log):
    X, y = wine
    selector = ModelSelector([("a", logged_extractor())], task="multilabel")
    with pytest.raises(ValueError, match="must hold 0/1 indicators"):
        selector.fit(X, y)
    assert not log.read()


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
def test_target_in_torch_beside_features_in_numpy(wine, task):
    """And the other way round: extractors choose the library, not the labels."""
    torch = pytest.importorskip("torch")
    X, y = wine
    target = y if task == "classification" else targets(X, y)[task]
    given = torch.tensor(target)
    scoring = ["logme", "linear_probe", "lfc"]
    expected = ModelSelector(CANDIDATES, scoring=scoring).fit(X, target)
    selector = ModelSelector(CANDIDATES, scoring=scoring).fit(X, given)
    to_torch = make_pipeline(PCA(2), FunctionTransformer(torch.tensor))
    back = ModelSelector([("two", to_torch)], scoring=scoring).fit(X, target)
    for name in scoring:
        np.testing.assert_allclose(selector.results_[name], expected.results_[name])
        assert back.results_[name][0] == pytest.approx(expected.results_[name][0])
    pca = PCA(5).fit(X)
    for name in scoring:
        score = get_scorer(name)(pca, X, given)
        assert score == pytest.approx(
            get_metric(name).score_func(pca.transform(X), target)
        )


@pytest.mark.parametrize(
    "name",
    ["name", "layer", "rank", "n_features", "score_time", "extract_time", "error"],
)
def test_metric_named_like_another_column_is_refused(wine, name, logged_extractor, log):
    selector = ModelSelector([("a", logged_extractor())], scoring={name: "h_score"})
    with pytest.raises(ValueError, match=f"'scoring' cannot be called '{name}'"):
        selector.fit(*wine)
    assert not log.read()


def test_metrics_named_like_columns_of_each_other_are_refused(wine):
    for name in ("logme_std_error", "rank_logme"):
        selector = ModelSelector(CANDIDATES, scoring={"logme": "logme", name: "lfc"})
        with pytest.raises(ValueError, match=f"'scoring' cannot be called '{name}'"):
            selector.fit(*wine)


def test_functions_in_a_list_are_refused_by_the_name_of_the_parameter(wine):
    selector = ModelSelector(CANDIDATES, scoring=["logme", logme_score])
    with pytest.raises(
        ValueError, match="'scoring' takes metrics and their names only.*a dict"
    ):
        selector.fit(*wine)
    with pytest.raises(ValueError, match="'scoring' must name at least one metric"):
        ModelSelector(CANDIDATES, scoring=[]).fit(*wine)
