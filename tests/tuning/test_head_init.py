"""Heads that start at the closed-form head on the features before tuning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, train_test_split
from torch import nn

from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.tuning import (
    BayesianTuning,
    FineTuneClassifier,
    FineTuneRegressor,
    ZooTuning,
)

FAST = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}
PROBE = {"prior": "shared", "fit_intercept": True, "leave_one_out": True}


def stand_still(groups, lr, weight_decay):
    """An optimiser that leaves everything where it starts."""
    return torch.optim.SGD([{**group, "lr": 0.0} for group in groups])


def at_start(kind, network, X, y, **params):
    """A model as it is before the first step."""
    options = {**FAST, "max_epochs": 1, "optimizer": stand_still, **params}
    return kind(network, head_init="linear_probe", **options).fit(X, y)


def logits(model, X):
    return model._outputs(X)


def centred(values):
    return values - values.mean(axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.EqualClassesWarning")
@pytest.mark.parametrize("n_classes", [2, 3])
def test_outputs_before_the_first_step(make_extractor, data, n_classes):
    X, y = data
    y = np.array(["no", "yes", "perhaps"])[y % n_classes]
    own = make_extractor(0)
    features = own.transform(X)
    probe = LogMEClassifier(**PROBE).fit(features, y)
    model = at_start(FineTuneClassifier, own, X, y)
    decisions = probe.decision_function(features)
    if n_classes == 2:  # the difference of the two
        decisions = np.stack([-decisions / 2, decisions / 2], axis=1)
    np.testing.assert_allclose(centred(logits(model, X)), centred(decisions), atol=1e-5)
    np.testing.assert_allclose(
        model.predict_proba(X), probe.predict_proba(features), atol=1e-6
    )
    np.testing.assert_array_equal(model.predict(X), probe.predict(features))


@pytest.mark.parametrize("n_targets", [None, 1, 2])
def test_numbers_before_the_first_step(make_extractor, data, n_targets):
    X, _ = data
    y = 1e3 + 1e2 * np.tanh(X[:, 0] * X[:, 1])
    if n_targets is not None:
        y = np.stack([y, X[:, 2] ** 2], axis=1)[:, :n_targets]
    own = make_extractor(0)
    probe = LogME(fit_intercept=True).fit(own.transform(X), y)
    expected = probe.predict(own.transform(X))
    model = at_start(FineTuneRegressor, own, X, y)
    assert model.predict(X).shape == expected.shape
    assert np.abs((model.predict(X) - expected) / y.std(axis=0)).max() < 1e-5


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.EqualClassesWarning")
def test_validation_samples_are_not_seen(make_extractor, data):
    X, y = data
    X = X.copy()
    own = make_extractor(0)
    model = at_start(FineTuneClassifier, own, X, y, validation_fraction=0.3)
    seed = np.random.RandomState(0).randint(2**31 - 1, size=3)[0]
    train, valid = train_test_split(
        np.arange(60), test_size=0.3, stratify=y, random_state=seed
    )
    probe = LogMEClassifier(**PROBE).fit(own.transform(X[train]), y[train])
    expected = probe.predict_proba(own.transform(X))
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-5)
    log_loss = -np.log(expected[valid, y[valid]]).mean()
    assert model.history_[0, "valid_loss"] == pytest.approx(log_loss, abs=1e-5)


def test_features_are_those_of_evaluation_mode(data):
    X, y = data
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout()
        )
        nn.init.normal_(module[1].running_mean)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        features = module.eval()(torch.from_numpy(X)).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe = LogMEClassifier(**PROBE).fit(features, y)
    model = at_start(FineTuneClassifier, module, X, y)
    T = probe.temperature_
    np.testing.assert_allclose(model.head_.weight.detach(), probe.coef_ / T, rtol=1e-4)
    np.testing.assert_allclose(
        model.head_.bias.detach(), probe.intercept_ / T, rtol=1e-4, atol=1e-5
    )
    assert all(torch.equal(v, state[n]) for n, v in module.state_dict().items())


@pytest.mark.parametrize("width", [1, 300])
@pytest.mark.parametrize("regression", [False, True])
def test_one_feature_and_more_features_than_samples(
    make_extractor, data, width, regression
):
    X, y = data
    own = make_extractor(0, width)
    kind = FineTuneRegressor if regression else FineTuneClassifier
    y = X[:, 0] if regression else y
    model = at_start(kind, own, X, y)
    probe = LogME(fit_intercept=True) if regression else LogMEClassifier(**PROBE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe.fit(own.transform(X), y)
    expected = probe.predict(own.transform(X))
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-4)
    before = model.score(X, y)
    model.set_params(optimizer="sgd", lr=1e-4).fit(X, y)
    assert model.score(X, y) > before - 0.05


def test_a_class_with_one_sample(make_extractor, data):
    X, y = data
    y = np.where(np.arange(60) == 7, 3, y)
    model = at_start(FineTuneClassifier, make_extractor(0), X, y)
    assert np.isfinite(logits(model, X)).all()
    assert model.score(X, y) > 0.6


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.value.expand(len(x), 4)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_constant_features_give_the_frequencies(data):
    X, y = data
    y = np.minimum(y, 1)  # two thirds are 1
    model = at_start(FineTuneClassifier, Constant(), X, y)
    proba = model.predict_proba(X)
    assert np.ptp(proba, axis=0).max() == 0
    assert proba[0, 1] > 0.6
    numbers = at_start(FineTuneRegressor, Constant(), X, X[:, 0])
    np.testing.assert_allclose(numbers.predict(X), X[:, 0].mean(), rtol=1e-4)


def test_a_network_that_knows_the_answer(data):
    _, y = data
    X = np.eye(3, dtype=np.float32)[y]
    module = nn.Linear(3, 3, bias=False)
    nn.init.eye_(module.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = at_start(FineTuneClassifier, module, X, y)
        numbers = at_start(FineTuneRegressor, module, X, X)
    proba = model.predict_proba(X)[np.arange(60), y]
    assert 0.9 < proba.min() < 1 - 1e-4
    np.testing.assert_allclose(numbers.predict(X), X, atol=1e-4)


def test_training_starts_better(make_extractor, data):
    X, y = data
    losses = [
        FineTuneClassifier(make_extractor(0), head_init=start, lr=1e-3, **FAST)
        .fit(X, y)
        .history_[0, "train_loss"]
        for start in ("random", "linear_probe")
    ]
    assert losses[1] < losses[0] / 2


def test_order_of_samples_is_that_of_a_random_head(make_extractor, data):
    orders = []

    def note(batch):
        orders.append(batch)
        return batch

    for start in ("random", "linear_probe"):
        FineTuneClassifier(
            make_extractor(0), head_init=start, augment=note, **FAST
        ).fit(*data)
    half = len(orders) // 2
    for one, other in zip(orders[:half], orders[half:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_unlabelled_samples_change_nothing_at_the_start(make_extractor, data):
    X, y = data
    penalty = BayesianTuning([(make_extractor(1), LogMEClassifier())])
    model = at_start(FineTuneClassifier, make_extractor(0), X, y, penalty=penalty)
    expected = logits(model, X)
    model.fit(X, y, unlabelled=X[:20] + 1)
    np.testing.assert_array_equal(logits(model, X), expected)


@pytest.mark.parametrize("lite", [True, False])
def test_mixture_of_networks(make_extractor, data, lite):
    X, y = data
    teachers = [(make_extractor(1), LogMEClassifier())]
    zoo = ZooTuning(make_extractor(0), teachers, lite=lite)
    model = at_start(FineTuneClassifier, zoo, X, y)
    features = model.net_.module_.backbone.transform(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe = LogMEClassifier(**PROBE).fit(features, y)
    np.testing.assert_allclose(
        model.predict_proba(X), probe.predict_proba(features), atol=1e-4
    )


def test_checkpoints_and_searches_tell_starts_apart(make_extractor, data, tmp_path):
    X, y = data
    model = FineTuneClassifier(make_extractor(0), checkpoint_dir=tmp_path, **FAST)
    for n_files, start in enumerate(["random", "linear_probe"], start=1):
        expected = model.set_params(head_init=start).fit(X, y).predict_proba(X)
        np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), expected)
        assert len(list(tmp_path.iterdir())) == n_files
    grid = {"head_init": ["random", "linear_probe"]}
    model.set_params(checkpoint_dir=None)
    assert GridSearchCV(model, grid, cv=2).fit(X, y).best_params_["head_init"]
    with pytest.raises(ValueError, match="'head_init' parameter of FineTuneClassifier"):
        model.set_params(head_init="zero").fit(X, y)


def test_nan_in_a_sample_is_named(make_extractor, data):
    X, y = data
    X = X.copy()
    X[7, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        at_start(FineTuneClassifier, make_extractor(0), X, y)
