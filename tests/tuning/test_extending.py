"""A penalty added by the public contract alone: L2-SP."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import skorch
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sktransfer.feature_extraction import BaseNetworkExtractor
from sktransfer.tuning import BasePenalty, FineTuneClassifier

FAST = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}


class StartingPoint(BasePenalty):
    """L2-SP: half the squared distance of the parameters from their start."""

    def bind(self, context):
        def term(batch):
            named = context.module.named_parameters()
            return sum((w - context.start[n]).square().sum() for n, w in named) / 2

        return term


def test_a_huge_weight_keeps_the_start(make_extractor, data):
    options = {**FAST, "max_epochs": 30, "lr": 1e-4, "head_lr_factor": 1e3}

    def moves(weight):
        extractor = make_extractor(0)
        penalty = StartingPoint(weight=weight)
        model = FineTuneClassifier(extractor, penalty=penalty, **options)
        pairs = zip(
            extractor.network.parameters(),
            model.fit(*data).module_.parameters(),
            strict=True,
        )
        assert model.score(*data) > 0.8
        return [(after - before).abs().max().item() for before, after in pairs]

    assert max(moves(0)) > 5e-3
    assert max(moves(5e3)) < 5e-4


def test_weight_0_is_plain_fine_tuning_step_by_step(make_extractor, data, weights):
    fits = [
        FineTuneClassifier(make_extractor(0), penalty=penalty, **FAST).fit(*data)
        for penalty in (None, StartingPoint(weight=0), StartingPoint(weight=1))
    ]
    batches = [fit.history_[:, "batches", :, "train_loss"] for fit in fits]
    assert batches[0] == batches[1] != batches[2]
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))
    assert fits[1].history_[0, "train_penalty"] > 0


class PullThePlug(skorch.callbacks.Callback):
    """Fails once, in the third epoch."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3 and os.environ.pop("PULL_THE_PLUG", ""):
            raise RuntimeError("pulled the plug")


def test_it_resumes_towards_the_same_start(
    make_extractor, data, weights, tmp_path, monkeypatch
):
    model = FineTuneClassifier(
        make_extractor(0),
        penalty=StartingPoint(weight=0.1),
        callbacks=[PullThePlug()],
        **{**FAST, "max_epochs": 5},
    )
    expected = weights(model.fit(*data))
    model.set_params(checkpoint_dir=tmp_path)
    monkeypatch.setenv("PULL_THE_PLUG", "once")
    with pytest.raises(RuntimeError, match="pulled the plug"):
        model.fit(*data)
    np.testing.assert_array_equal(weights(model.fit(*data)), expected)


def test_it_is_pickled_cloned_and_searched(make_extractor, data, weights):
    X, y = data
    penalty = StartingPoint(weight=0.1)
    model = FineTuneClassifier(make_extractor(0), penalty=penalty, **FAST).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(weights(clone(model).fit(X, y)), weights(model))
    search = GridSearchCV(model, {"penalty__weight": [0.0, 1e-3]}, cv=2).fit(X, y)
    assert search.best_params_["penalty__weight"] in (0.0, 1e-3)
    model.set_params(penalty__weight=-1)
    with pytest.raises(ValueError, match="'weight' parameter of StartingPoint"):
        model.fit(X, y)


class Offset(torch.nn.Module):
    """The squared distance of the features from a point that is learnt."""

    def __init__(self, n_features):
        super().__init__()
        self.point = torch.nn.Parameter(torch.zeros(n_features))

    def forward(self, batch):
        assert len(batch.features) == len(batch.X) == len(batch.rows)
        return (batch.features.detach() - self.point).square().sum(dim=1).mean()


class Centre(BasePenalty):
    def bind(self, context):
        return Offset(context.features(context.X).shape[1])


def test_what_a_term_learns_is_kept_and_learns_like_the_head(make_extractor, data):
    options = {**FAST, "max_epochs": 20, "schedule": "constant", "weight_decay": 0}
    model = FineTuneClassifier(
        make_extractor(0), penalty=Centre(), lr=1e-3, head_lr_factor=10, **options
    ).fit(*data)
    _, new = model.net_.optimizer_.param_groups
    assert new["lr"] == pytest.approx(1e-2)
    assert {id(p) for p in new["params"]} == {
        id(p) for p in (*model.head_.parameters(), model.penalty_.point)
    }
    features = model.net_.module_.backbone.transform(data[0])
    np.testing.assert_allclose(
        model.penalty_.point.detach(), features.mean(axis=0), atol=0.2
    )


class Noisy(BasePenalty):
    """Draws random numbers for every batch."""

    def bind(self, context):
        return lambda batch: torch.nn.functional.dropout(batch.features).mean()


def test_weight_0_of_a_random_penalty_is_plain_fine_tuning(data, weights):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Dropout())
    fits = [
        FineTuneClassifier(module, penalty=penalty, **FAST).fit(*data)
        for penalty in (None, Noisy(weight=0), Noisy(weight=1e-9))
    ]
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))
    assert not np.allclose(weights(fits[0]), weights(fits[2]))


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (None, "Own.bind must return a callable term.*Got None"),
        (lambda batch: 0.5, "a tensor with one number.*Got 0.5"),
        (lambda batch: batch.features.sum(dim=1), r"one number.*Got tensor\("),
    ],
)
def test_what_is_no_term_is_refused(make_extractor, data, term, message):
    class Own(BasePenalty):
        def bind(self, context):
            return term

    with pytest.raises(TypeError, match=message):
        FineTuneClassifier(make_extractor(0), penalty=Own(), **FAST).fit(*data)


class Seeded(BaseNetworkExtractor):
    """A network by its seed, with no other parameter."""

    def __init__(self, network=0):
        self.network = network

    def make_module(self):
        with torch.random.fork_rng():
            torch.manual_seed(self.network)
            return torch.nn.Linear(6, 5)


def test_a_network_extractor_with_one_parameter_is_tuned(data):
    X, y = data
    model = FineTuneClassifier(Seeded(), **FAST).fit(X, y)
    module = Seeded().load_module()
    expected = FineTuneClassifier(module, **FAST).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), expected)
