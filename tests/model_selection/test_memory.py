"""The cache of extractions: what is kept, and what makes it void."""

from __future__ import annotations

import numpy as np
import pytest
from joblib import Memory
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection import ModelSelector


@pytest.fixture
def fit(tmp_path, wine):
    """Fit a selector with the test's cache, on the wines unless told."""

    def run(candidates, X=wine[0], y=wine[1], **params):
        memory = params.pop("memory", str(tmp_path / "cache"))
        return ModelSelector(candidates, memory=memory, **params).fit(X, y)

    return run


def test_second_fit_extracts_nothing(fit, logged_extractor, logged_transformer, log):
    candidates = [
        ("net", logged_extractor(layer=("power", "sign"))),
        ("learns", logged_transformer()),
    ]
    first = fit(candidates)
    assert log.read() == ["1", "fit 1.0"]
    second = fit(candidates)
    assert len(log.read()) == 2
    for name, column in first.results_.items():
        if name != "score_time":  # extract_time is that of the extraction
            np.testing.assert_array_equal(second.results_[name], column)
    X = np.ones((3, 13))
    np.testing.assert_array_equal(second.transform(X), first.transform(X))


def test_results_are_those_without_a_cache(fit, logged_extractor):
    candidates = [("net", logged_extractor()), ("pca", PCA(2))]
    without = fit(candidates, memory=None)
    for _ in range(2):
        np.testing.assert_array_equal(
            fit(candidates).results_["logme"], without.results_["logme"]
        )


def test_other_samples(fit, wine, logged_extractor, log):
    candidates = [("net", logged_extractor())]
    fit(candidates)
    changed = wine[0].copy()
    changed[5, 5] += 1e-9
    fit(candidates, X=changed)
    assert len(log.read()) == 2
    fit(candidates, X=wine[0].copy())
    assert len(log.read()) == 2


def test_other_target_counts_where_it_is_read(
    fit, wine, logged_extractor, logged_transformer, log
):
    candidates = [("net", logged_extractor()), ("learns", logged_transformer())]
    first = fit(candidates)
    second = fit(candidates, y=2 - wine[1])
    assert log.read() == ["1", "fit 1.0", "fit 1.0"]
    # The score is that of the new target, all the same.
    third = fit(candidates, y=wine[1] // 2)
    assert third.results_["logme"][0] != first.results_["logme"][0]
    assert second.results_["logme"][0] == pytest.approx(first.results_["logme"][0])


def test_other_parameters_extract_what_has_changed(
    fit, logged_extractor, logged_transformer, log
):
    fit([("a", logged_extractor()), ("b", logged_transformer())])
    fit([("a", logged_extractor(power=2)), ("b", logged_transformer())])
    assert log.read() == ["1", "fit 1.0", "2"]
    fit([("a", logged_extractor(power=2)), ("b", logged_transformer(factor=3.0))])
    assert log.read() == ["1", "fit 1.0", "2", "fit 3.0"]


def test_other_metrics_extract_nothing(fit, logged_extractor, log):
    candidates = [("net", logged_extractor())]
    fit(candidates)
    fit(candidates, scoring=["h_score", "transrate"], error_score="raise")
    assert len(log.read()) == 1


def test_source_probabilities_are_fetched_where_they_are_missing(
    fit, logged_extractor, log
):
    candidates = [("net", logged_extractor(head=True))]
    fit(candidates)
    fit(candidates, scoring=["logme", "leep"])
    assert len(log.read()) == 2
    fit(candidates, scoring="nce")
    assert len(log.read()) == 2


def test_name_does_not_count(fit, logged_extractor, log):
    fit([("net", logged_extractor())])
    fit([("other", logged_extractor()), ("same", logged_extractor())])
    assert len(log.read()) == 1


def test_memory_object(fit, tmp_path, logged_extractor, log):
    memory = Memory(str(tmp_path / "elsewhere"), verbose=0)
    fit([("net", logged_extractor())], memory=memory)
    fit([("net", logged_extractor())], memory=str(tmp_path / "elsewhere"))
    assert len(log.read()) == 1
    memory.clear(warn=False)
    fit([("net", logged_extractor())], memory=memory)
    assert len(log.read()) == 2


def test_failures_are_tried_again(fit, broken, monkeypatch):
    with pytest.warns(CandidateFailedWarning, match="1 of 2 candidates failed"):
        fit([("a", broken("raises")), ("scaled", StandardScaler())])
    monkeypatch.setattr(broken, "transform", lambda self, X: 2 * X)
    selector = fit([("a", broken("raises")), ("scaled", StandardScaler())])
    assert selector.results_["error"].tolist() == ["", ""]


def test_workers_share_it(fit, logged_extractor, tmp_path):
    candidates = [("one", PCA(1)), ("two", PCA(2))]
    first = fit(candidates, n_jobs=2)
    second = fit(candidates)
    for column in ("logme", "extract_time"):  # the times tell that nothing was done
        np.testing.assert_array_equal(second.results_[column], first.results_[column])
