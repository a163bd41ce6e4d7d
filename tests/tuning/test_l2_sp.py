"""L2-SP: its formula, what it leaves out, and where it leads."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import skorch
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sktransfer.feature_extraction import TorchFeatureExtractor
from sktransfer.linear_model import LogMEClassifier
from sktransfer.tuning import (
    L2SP,
    FineTuneClassifier,
    FineTuneRegressor,
    PenaltyBatch,
    PenaltyContext,
    ZooTuning,
)

FAST = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}
BATCH = PenaltyBatch(features=None, outputs=torch.zeros(2, 3), X=None, rows=None)


def bind(module, **params):
    named = module.named_parameters()
    context = PenaltyContext(
        module=module,
        start={name: value.detach().clone() for name, value in named},
        X=None,
        y=None,
        train=None,
        unlabelled=None,
        classes=None,
        scale=None,
        features=None,
        precompute=True,
    )
    return L2SP(**params).bind(context)


def make_module(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def test_formula(global_random_seed):
    module = make_module(global_random_seed)
    term = bind(module)
    assert term(BATCH) == 0
    before = [p.detach().numpy().copy() for p in module.parameters()]
    with torch.no_grad():
        for p in module.parameters():
            p += torch.randn(p.shape)
        module[1].running_mean += 5  # a buffer
    after = [p.detach().numpy() for p in module.parameters()]
    expected = sum(((a - b) ** 2).sum() for a, b in zip(after, before, strict=True)) / 2
    assert term(BATCH).item() == pytest.approx(expected, rel=1e-5)


def test_gradient(global_random_seed):
    module = make_module(global_random_seed).double()
    term = bind(module)
    with torch.no_grad():
        for p in module.parameters():
            p += torch.randn(p.shape)
    term(BATCH).backward()
    step = 1e-5
    for p in module.parameters():
        slopes = torch.zeros_like(p)
        for i in range(p.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    p.view(-1)[i] += sign * step
                    values.append(term(BATCH).item())
                    p.view(-1)[i] -= sign * step
            slopes.view(-1)[i] = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(p.grad, slopes, atol=1e-7, rtol=0)


def test_frozen_parameters_are_left_out_and_shared_ones_count_once():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    module[2].requires_grad_(False)
    term = bind(module)
    with torch.no_grad():
        for p in module.parameters():
            p += 2
    assert term(BATCH).item() == pytest.approx(4 * (9 + 3 + 3) / 2)
    assert bind(module.requires_grad_(False))(BATCH).item() == 0


def test_a_network_that_is_frozen_trains_its_head(make_extractor, data, weights):
    extractor = make_extractor(0)
    extractor.network.requires_grad_(False)
    fits = [
        FineTuneClassifier(extractor, penalty=p, **FAST).fit(*data)
        for p in (None, L2SP(weight=1))
    ]
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))
    assert fits[1].history_[-1, "train_penalty"] == 0


def test_first_steps_by_hand(make_extractor, data):
    X, y = data
    options = {**FAST, "max_epochs": 2, "batch_size": 60, "schedule": "constant"}
    sgd = {"optimizer": torch.optim.SGD, "weight_decay": 0, "lr": 0.1}

    def learnt(n_steps, **params):
        model = FineTuneClassifier(make_extractor(0), **{**options, **params}, **sgd)
        model.set_params(max_epochs=n_steps).fit(X, y)
        return [p.detach() for p in (*model.module_.parameters(),)], model

    start = [p.detach() for p in make_extractor(0).network.parameters()]
    # The first step is that of plain training: at the start the penalty is flat.
    plain, _ = learnt(1)
    first, _ = learnt(1, penalty=L2SP(weight=2))
    second, model = learnt(2, penalty=L2SP(weight=2))
    twice, _ = learnt(2)
    for w0, p, f, s, t in zip(start, plain, first, second, twice, strict=True):
        torch.testing.assert_close(f, p)
        torch.testing.assert_close(s, t - 0.1 * 2 * (p - w0), atol=1e-6, rtol=1e-4)
    half = sum((f - w0).square().sum() for f, w0 in zip(first, start, strict=True)) / 2
    assert model.history_[1, "train_penalty"] == pytest.approx(half.item(), rel=1e-4)


def test_weight_decay_shortens_the_weights_it_leads_to(make_extractor, data):
    alpha, beta = 30.0, 10.0
    model = FineTuneClassifier(
        make_extractor(0),
        penalty=L2SP(weight=alpha),
        weight_decay=beta,
        optimizer=torch.optim.SGD,
        schedule="constant",
        **{**FAST, "max_epochs": 100},
    ).fit(*data)
    start = [p.detach() for p in make_extractor(0).network.parameters()]
    for w0, w in zip(start, model.module_.parameters(), strict=True):
        assert (w - w0 * alpha / (alpha + beta)).abs().max() < 0.02


@pytest.mark.parametrize("regression", [False, True])
def test_weight_0_is_plain_fine_tuning_step_by_step(
    make_extractor, data, weights, regression
):
    X, y = data
    kind = FineTuneRegressor if regression else FineTuneClassifier
    y = X[:, :2] if regression else y
    fits = [
        kind(make_extractor(0), penalty=penalty, **FAST).fit(X, y)
        for penalty in (None, L2SP(weight=0), L2SP(weight=1))
    ]
    batches = [fit.history_[:, "batches", :, "train_loss"] for fit in fits]
    assert batches[0] == batches[1] != batches[2]
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))
    assert fits[1].history_[0, "train_penalty"] > 0


def test_weight_0_leaves_weights_alone_that_are_not_used(data, weights):
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    extractor = TorchFeatureExtractor(module, layer="1", device="cpu")
    options = {**FAST, "weight_decay": 0.1}
    fits = [
        FineTuneClassifier(extractor, penalty=penalty, **options).fit(*data)
        for penalty in (None, L2SP(weight=0))
    ]
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))


def test_a_huge_weight_keeps_the_start(make_extractor, data):
    extractor = make_extractor(0)
    model = FineTuneClassifier(
        extractor,
        penalty=L2SP(weight=5e3),
        lr=1e-4,
        head_lr_factor=1e3,
        weight_decay=0,
        **{**FAST, "max_epochs": 30},
    ).fit(*data)
    assert model.score(*data) > 0.8
    for before, after in zip(
        extractor.network.parameters(), model.module_.parameters(), strict=True
    ):
        assert (after - before).abs().max() < 5e-4


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
        penalty=L2SP(weight=0.1),
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
    model = FineTuneClassifier(make_extractor(0), penalty=L2SP(), **FAST).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(weights(clone(model).fit(X, y)), weights(model))
    assert model.penalty_ is None
    search = GridSearchCV(model, {"penalty__weight": [0.0, 0.1]}, cv=2).fit(X, y)
    assert search.best_params_["penalty__weight"] in (0.0, 0.1)
    with pytest.raises(ValueError, match="'weight' parameter of L2SP"):
        model.set_params(penalty__weight=-1).fit(X, y)


def test_unlabelled_samples_are_left_out(make_extractor, data, weights):
    X, y = data
    model = FineTuneClassifier(make_extractor(0), penalty=L2SP(), **FAST)
    expected = weights(model.fit(X, y))
    with pytest.warns(UserWarning, match="are left out, because no L2SP learns"):
        model.fit(X, y, unlabelled=X[:7] + 1)
    np.testing.assert_array_equal(weights(model), expected)


def test_all_sources_of_a_mixture_stay(make_extractor, data):
    extractors = [make_extractor(seed) for seed in (0, 1)]
    teachers = [(extractors[1], LogMEClassifier())]
    zoo = ZooTuning(extractors[0], teachers, lite=False)
    options = {**FAST, "lr": 1e-3, "head_lr_factor": 10}
    options |= {"weight_decay": 0, "max_epochs": 20}

    def moved(weight):
        model = FineTuneClassifier(zoo, penalty=L2SP(weight=weight), **options)
        module = model.fit(*data).module_
        sources = module[0].sources["weight"].detach()
        starts = torch.stack([e.network[0].weight.detach() for e in extractors])
        gate = module[0].gate.weight.abs().max().item()  # zero at the start
        return (sources - starts).abs().max().item(), gate

    for free, held in zip(moved(0), moved(500), strict=True):
        assert held < free / 5
