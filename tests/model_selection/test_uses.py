"""What the features are for: the metrics that scoring="frozen" and others stand for."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA

from sktransfer.linear_model import LogMEClassifier
from sktransfer.metrics import (
    deep_logme_score,
    get_scorer,
    loo_log_likelihood_score,
)
from sktransfer.model_selection import ModelSelector

CANDIDATES = [("two", PCA(2)), ("five", PCA(5)), ("all", PCA())]


def targets(X, y):
    return {
        "classification": y,
        "words": np.array(["red", "white", "pink"])[y],
        "regression": X[:, 0] + X[:, 5] ** 2,
        "two numbers": X[:, :2] + X[:, 5:7] ** 2,
        "multilabel": np.c_[y == 0, y == 1].astype(int),
    }


@pytest.mark.parametrize(
    ("kind", "second"),
    [
        ("classification", "loo_accuracy"),
        ("words", "loo_accuracy"),
        ("regression", "loo_r2"),
        ("two numbers", "loo_r2"),
        ("multilabel", "loo_accuracy"),
    ],
)
def test_frozen_is_the_default(kind, second, wine):
    X, y = wine
    target = targets(X, y)[kind]
    names = ["loo_log_likelihood", second, "logme"]
    selector = ModelSelector(CANDIDATES).fit(X, target)
    assert selector.scoring == "frozen"
    assert list(selector.scorer_.metrics) == names
    results = selector.results_
    np.testing.assert_array_equal(results["rank"], results["rank_loo_log_likelihood"])
    for value, (_, extractor) in zip(
        results["loo_log_likelihood"], CANDIDATES, strict=True
    ):
        expected = loo_log_likelihood_score(extractor.fit_transform(X), target)
        assert value == pytest.approx(expected, abs=1e-9)
    assert selector.best_score_ == results["loo_log_likelihood"].max()
    assert selector.score(X, target) == pytest.approx(selector.best_score_, abs=1e-9)
    assert len(selector.teachers()) == 3
    for scoring in ("frozen", names):
        other = ModelSelector(CANDIDATES, scoring=scoring).fit(X, target)
        assert list(other.results_) == list(results)
        for name in set(results) - {"extract_time", "score_time"}:
            np.testing.assert_array_equal(other.results_[name], results[name])
        np.testing.assert_array_equal(
            other.probability_better_, selector.probability_better_
        )


def test_the_task_that_is_told_counts(wine):
    X, y = wine
    selector = ModelSelector(CANDIDATES, task="regression").fit(X, y)
    names = ["loo_log_likelihood", "loo_r2", "logme"]
    assert list(selector.scorer_.metrics) == names


def test_fitted_again_on_another_target(wine):
    X, y = wine
    selector = ModelSelector(CANDIDATES).fit(X, y)
    assert "loo_accuracy" in selector.results_
    selector.fit(X, targets(X, y)["regression"])
    assert "loo_accuracy" not in selector.results_
    assert "loo_r2" in selector.results_
    assert clone(selector).scoring == "frozen"


@pytest.mark.parametrize("decides", ["loo_log_likelihood", "loo_accuracy", "logme"])
def test_refit_by_one_of_them(decides, wine):
    selector = ModelSelector(CANDIDATES, refit=decides).fit(*wine)
    results = selector.results_
    np.testing.assert_array_equal(results["rank"], results[f"rank_{decides}"])
    assert selector.best_score_ == results[decides].max()
    P = selector.probability_better_by_metric_[decides]
    np.testing.assert_array_equal(selector.probability_better_, P)
    assert selector.predict(wine[0]).shape == (178,)


def test_refit_by_a_metric_of_another_task(wine):
    names = r"\['loo_log_likelihood', 'loo_accuracy', 'logme'\]"
    with pytest.raises(ValueError, match=rf"'refit'.*{names}.*'loo_r2'"):
        ModelSelector(CANDIDATES, refit="loo_r2").fit(*wine)


@pytest.mark.parametrize("scoring", ["finetuning", "fine-tuning", "Fine_tuning"])
def test_misspelt_use(scoring, wine):
    with pytest.raises(ValueError, match="Did you mean 'fine_tuning'"):
        ModelSelector(CANDIDATES, scoring=scoring).fit(*wine)


@pytest.mark.parametrize("scoring", ["thawed", ["frozen"], ["logme", "fine_tuning"]])
def test_other_words_are_names_of_metrics(scoring, wine):
    with pytest.raises(ValueError, match="is not a metric") as expected:
        get_scorer(scoring)
    with pytest.raises(ValueError, match=re.escape(str(expected.value))):
        ModelSelector(CANDIDATES, scoring=scoring).fit(*wine)


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_one_group_cannot_be_left_out(kind, wine):
    X, y = wine
    target, groups = targets(X, y)[kind], np.zeros(178)
    with pytest.raises(ValueError, match="groups must hold at least 2 groups"):
        ModelSelector(CANDIDATES).fit(X, target, groups=groups)
    selector = ModelSelector(CANDIDATES, scoring="logme")
    with pytest.warns(UserWarning, match="probability_better_ is unknown"):
        selector.fit(X, target, groups=groups)
    assert np.isfinite(selector.results_["logme"]).all()


def test_one_message_for_a_doubtful_target(wine):
    X, _ = wine
    with pytest.warns(UserWarning, match="89 different whole numbers") as seen:
        ModelSelector(CANDIDATES[:1]).fit(X, np.arange(178) // 2)
    assert len([w for w in seen if "whole numbers" in str(w.message)]) == 1


class TestFineTuning:
    @pytest.fixture
    def candidates(self):
        nn = pytest.importorskip("torch").nn
        from torch.random import fork_rng, manual_seed

        from sktransfer.feature_extraction import TorchFeatureExtractor

        def network(seed):
            with fork_rng():
                manual_seed(seed)
                layers = nn.Linear(13, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh()
                return nn.Sequential(*layers)

        return [
            (f"net{seed}", TorchFeatureExtractor(network(seed), device="cpu"))
            for seed in range(3)
        ]

    @pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
    def test_all_layers_decide(self, kind, wine, candidates):
        X, y = wine
        X, target = X.astype(np.float32), targets(X, y)[kind]
        selector = ModelSelector(candidates, scoring="fine_tuning").fit(X, target)
        second = "loo_r2" if kind == "regression" else "loo_accuracy"
        names = ["deep_logme", second, "logme"]
        assert list(selector.scorer_.metrics) == names
        results = selector.results_
        np.testing.assert_array_equal(results["rank"], results[f"rank_{names[0]}"])
        for value, (_, extractor) in zip(results[names[0]], candidates, strict=True):
            layers = extractor.extract(X, all_layers=True).layers
            assert len(layers) > 1
            expected = deep_logme_score(layers, target)
            assert value == pytest.approx(expected, abs=1e-9)
        assert selector.best_score_ == results[names[0]].max()
        assert selector.score(X, target) == pytest.approx(selector.best_score_)
        assert len(selector.teachers()) == 3
        # What is said of the features alone is the same for both uses.
        frozen = ModelSelector(candidates).fit(X, target)
        for name in names[1:]:
            np.testing.assert_array_equal(results[name], frozen.results_[name])

    def test_refit_by_another_of_them(self, wine, candidates):
        X, y = wine[0].astype(np.float32), wine[1]
        selector = ModelSelector(
            candidates, scoring="fine_tuning", refit="loo_accuracy"
        ).fit(X, y)
        assert selector.best_score_ == selector.results_["loo_accuracy"].max()

    def test_what_is_no_network_has_one_layer(self, wine):
        X, y = wine
        selector = ModelSelector(CANDIDATES[1:2], scoring="fine_tuning")
        with pytest.warns(UserWarning, match="five: scores of all layers see the"):
            selector.fit(X, y)
        head = LogMEClassifier(fit_intercept=True).fit(PCA(5).fit_transform(X), y)
        assert selector.best_score_ == pytest.approx(head.logme_, abs=1e-8)
