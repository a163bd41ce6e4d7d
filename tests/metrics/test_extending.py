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
    scoring = {"logme": "logme", "silhouette": SILHOUETTE}
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
