"""The whole paradigm in one call."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sktransfer.feature_extraction import TorchFeatureExtractor
from sktransfer.model_selection import BaseModelSelector, ModelSelector
from sktransfer.tuning import (
    BayesianTuning,
    FeatureDistillation,
    FineTuneClassifier,
    FineTuneRegressor,
    ZooTuning,
    rank_and_tune,
)

FAST = {"max_epochs": 2, "batch_size": 16, "random_state": 0, "device": "cpu"}


@pytest.fixture
def candidates(make_extractor):
    wide = {f"wide{seed}": make_extractor(seed, 7) for seed in range(4)}
    narrow = {f"narrow{seed}": make_extractor(seed, 4) for seed in range(2)}
    return [*wide.items(), *narrow.items(), ("scaled", StandardScaler())]


@pytest.mark.parametrize(
    ("method", "penalty"),
    [
        ("b-tuning", BayesianTuning),
        ("distillation", FeatureDistillation),
        ("plain", type(None)),
    ],
)
def test_equals_the_steps_one_by_one(candidates, data, method, penalty):
    X, y = data
    selector = ModelSelector(candidates)
    model, ranking = rank_and_tune(
        selector, "narrow0", X, y, k=2, method=method, **FAST
    )
    assert not hasattr(selector, "results_")
    selector.fit(X, y)
    assert ranking == selector.ranking_
    assert type(model.penalty) is penalty
    network = dict(candidates)["narrow0"]
    by_hand = FineTuneClassifier(
        network,
        penalty=None if method == "plain" else penalty(selector.teachers(2)),
        **FAST,
    ).fit(X, y)
    np.testing.assert_allclose(
        model.predict_proba(X), by_hand.predict_proba(X), atol=1e-6
    )


def test_fitted_selector_is_not_fitted_again(candidates, data):
    X, y = data
    selector = ModelSelector(candidates).fit(X, y)
    teachers = selector.teachers(3)
    model, _ = rank_and_tune(selector, "wide1", X, y, penalty__weight=0.5, **FAST)
    assert model.penalty.weight == 0.5
    for pair, expected in zip(model.penalty.teachers, teachers, strict=True):
        assert pair[0] is expected[0]
        assert pair[1] is expected[1]
    with pytest.raises(ValueError, match=r"teachers\[0\] was fitted on 60 samples"):
        rank_and_tune(selector, "wide1", X[:50], y[:50], **FAST)


def test_zoo_tuning_takes_the_best_of_the_networks_structure(candidates, data):
    X, y = data
    selector = ModelSelector(candidates).fit(X, y)
    model, ranking = rank_and_tune(
        selector,
        "wide1",
        X,
        y,
        k=2,
        method="zoo-tuning",
        network__initial_weight=0.7,
        **FAST,
    )
    assert isinstance(model.network, ZooTuning)
    assert model.network.initial_weight == 0.7
    named = dict(candidates)
    best = [name for name in ranking if name in ("wide0", "wide2", "wide3")][:2]
    prints = [extractor.fingerprint() for extractor, _ in model.network.teachers]
    assert prints == [named[name].fingerprint() for name in best]
    with pytest.raises(ValueError, match="no other candidate has it"):
        rank_and_tune(
            ModelSelector(candidates[-2:]), "narrow1", X, y, method="zoo-tuning"
        )


def test_regression_and_a_network_from_elsewhere(candidates, make_extractor, data):
    X, _ = data
    y = np.tanh(X[:, 0])
    network = TorchFeatureExtractor(make_extractor(9).network, device="cpu")
    model, ranking = rank_and_tune(ModelSelector(candidates), network, X, y, **FAST)
    assert isinstance(model, FineTuneRegressor)
    assert len(ranking) == len(candidates)


def test_with_another_policy(candidates, data):
    class Half(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(evaluate.names[:3], np.arange(evaluate.n_samples))

    X, y = data
    model, ranking = rank_and_tune(Half(candidates), "narrow0", X, y, k=2, **FAST)
    assert sorted(ranking) == ["wide0", "wide1", "wide2"]
    assert len(model.penalty.teachers) == 2


def test_errors(candidates, data):
    X, y = data
    selector = ModelSelector(candidates)
    with pytest.raises(ValueError, match="'network' parameter.*'narrow0'.*Got 'huge'"):
        rank_and_tune(selector, "huge", X, y)
    with pytest.raises(ValueError, match="'method' parameter of rank_and_tune"):
        rank_and_tune(selector, "wide0", X, y, method="magic")
    with pytest.raises(ValueError, match="'k' parameter of rank_and_tune"):
        rank_and_tune(selector, "wide0", X, y, k=0)
    with pytest.raises(ValueError, match="a y that holds several labels per sample"):
        rank_and_tune(selector, "wide0", X, np.eye(3, dtype=int)[y][:, :2])
