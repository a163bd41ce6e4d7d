"""A metric added by the public contract alone."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples, silhouette_score
from sklearn.preprocessing import StandardScaler

from sktransfer.metrics import Metric, Score, make_transferability_scorer
from sktransfer.model_selection import ModelSelector


def silhouette(data):
    """Mean silhouette of the classes."""
    return Score.of_parts(silhouette_samples(data.host_features, data.host_target))


SILHOUETTE = Metric("silhouette", silhouette)


def test_it_takes_less_than_30_lines_and_no_private_name():
    source = inspect.getsource(silhouette)
    assert len(source.splitlines()) < 30
    assert not re.findall(r"\b_[a-z]\w*", source)


def test_it_scores_arrays_and_estimators():
    X, y = load_wine(return_X_y=True)
    expected = silhouette_score(X, y)
    assert SILHOUETTE(X, y) == pytest.approx(expected)
    scorer = make_transferability_scorer(SILHOUETTE)
    assert scorer(PCA().fit(X), X, y) == pytest.approx(expected)


def test_it_ranks_with_standard_errors():
    X, y = load_wine(return_X_y=True)
    candidates = [("raw", PCA()), ("scaled", StandardScaler())]
    scoring = ["logme", SILHOUETTE]
    selector = ModelSelector(candidates, scoring=scoring, refit="silhouette").fit(X, y)
    results = selector.results_
    assert selector.best_name_ == "scaled"
    Z = StandardScaler().fit_transform(X)
    parts = silhouette_samples(Z, y)
    assert selector.score(X, y) == pytest.approx(parts.mean())
    std_error = np.std(parts) / np.sqrt(len(y))
    assert results["silhouette_std_error"][1] == pytest.approx(std_error)
    assert selector.probability_better_[1, 0] > 0.5


def test_other_targets_are_refused():
    X, y = load_wine(return_X_y=True)
    with pytest.raises(ValueError, match="silhouette takes classification targets"):
        SILHOUETTE(X, y + 0.5)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda data: 0.5, TypeError, "must return a Score.*got float"),
        (lambda data: Score.of_parts([0, 1]), ValueError, r"shape \(2,\).*178 samples"),
    ],
)
def test_other_results_are_refused(function, error, message):
    with pytest.raises(error, match=message):
        Metric("silhouette", function)(*load_wine(return_X_y=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [("tasks", "regression"), ("tasks", ("labels",)), ("reads", "proba")],
)
def test_misspelt_fields_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must.*{value[0]}"):
        Metric("silhouette", silhouette, **{field: value})


def test_a_list_keeps_every_metric():
    other = Metric("silhouette", silhouette, tasks=("regression",))
    with pytest.raises(ValueError, match="two different metrics called 'silhouette'"):
        make_transferability_scorer([SILHOUETTE, other])
    scorer = make_transferability_scorer(m for m in ("logme", SILHOUETTE))
    assert list(scorer.metrics) == ["logme", "silhouette"]


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="transrate: .* unexpected keyword.*'colour'"):
        make_transferability_scorer("transrate", colour=1)
