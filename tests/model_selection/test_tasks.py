"""Targets: which task they pose, and which metrics take them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import logme_score
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
        expected = logme_score(extractor.fit_transform(X), target)
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
    expected = logme_score(PCA(2).fit_transform(X), y, task="regression")
    assert selector.results_["logme"][0] == pytest.approx(expected, abs=1e-12)
    assert not hasattr(ModelSelector(CANDIDATES, task="regression"), "predict_proba")


@pytest.mark.parametrize("task", ["regression", "multilabel"])
@pytest.mark.parametrize("scoring", ["h_score", ["logme", "h_score"]])
def test_metric_that_does_not_take_it_is_refused_before_any_extraction(
    wine, task, scoring, logged_extractor, log
):
    X, y = wine
    selector = ModelSelector([("a", logged_extractor())], scoring=scoring)
    with pytest.raises(ValueError, match=f"'h_score'.*this is a {task} target"):
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
    with pytest.raises(ValueError, match="Unknown label type"):
        ModelSelector(CANDIDATES).fit(X, np.array([["a", "b"]] * len(y)))
