"""Steps of the optimiser: gradients of several batches, numbers of half precision."""

from __future__ import annotations

import numpy as np
import pytest
import skorch
import torch
from sklearn.base import clone
from torch import nn

from sktransfer.tuning import FineTuneClassifier, FineTuneRegressor

FAST = {"max_epochs": 4, "lr": 0.1, "random_state": 0, "device": "cpu"}


@pytest.mark.parametrize(
    ("small", "n_batches", "large"),
    [
        (5, 4, 20),
        (20, 1, 20),
        (7, 20, 60),  # batches of 7 and 4, all together
        (8, 3, 24),  # a last group of 8 and 4
    ],
)
def test_accumulated_gradients_are_those_of_one_batch(
    make_extractor, data, weights, small, n_batches, large
):
    X, y = data
    fits = [
        FineTuneClassifier(make_extractor(0), **FAST, **options).fit(X, y)
        for options in (
            {"batch_size": large},
            {"batch_size": small, "accumulate_grad_batches": n_batches},
        )
    ]
    np.testing.assert_allclose(weights(fits[1]), weights(fits[0]), atol=1e-6)
    assert fits[1].history_[-1, "train_loss"] == pytest.approx(
        fits[0].history_[-1, "train_loss"], rel=1e-5
    )


def test_schedules_count_steps(make_extractor, data):
    rates, steps = [], []

    def schedule(optimizer, n_steps):
        steps.append(n_steps)
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)

    class Note(skorch.callbacks.Callback):
        def on_grad_computed(self, net, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    FineTuneClassifier(
        make_extractor(0),
        **FAST,
        batch_size=10,
        accumulate_grad_batches=4,
        schedule=schedule,
        callbacks=[Note()],
    ).fit(*data)
    assert steps == [4 * 2]  # six batches are two groups
    np.testing.assert_allclose(rates, 0.1 * (1 - np.arange(8) / 8))


def test_skorch_counts_steps_too(make_extractor, data):
    schedule = skorch.callbacks.LRScheduler(
        "ExponentialLR", gamma=0.5, step_every="batch"
    )
    model = FineTuneClassifier(
        make_extractor(0),
        **FAST,
        batch_size=10,
        accumulate_grad_batches=4,
        schedule="constant",
        callbacks=[schedule],
    ).fit(*data)
    rates = [group["lr"] for group in model.net_.optimizer_.param_groups]
    np.testing.assert_allclose(rates, [0.1 * 0.5**8, 0.5**8])


@pytest.mark.parametrize("precision", [True, "bfloat16", "float16"])
def test_half_precision_learns_the_same(make_extractor, data, precision):
    X, y = data
    options = {**FAST, "max_epochs": 10, "batch_size": 16, "lr": 0.05}
    plain = FineTuneClassifier(make_extractor(0), **options).fit(X, y)
    half = clone(plain).set_params(mixed_precision=precision).fit(X, y)
    assert {p.dtype for p in half.module_.parameters()} == {torch.float32}
    gap = np.abs(half.predict_proba(X) - plain.predict_proba(X)).max()
    assert 0 < gap < 0.1
    if precision is True:
        same = clone(plain).set_params(mixed_precision="bfloat16").fit(X, y)
        np.testing.assert_array_equal(same.predict_proba(X), half.predict_proba(X))


def test_small_gradients_survive_float16(data):
    """They are zero in float16 unless the loss is scaled."""
    X, y = data[0], data[0][:, 0].astype(float)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        for layer in start[1:]:
            layer.weight *= 1e-3
    options = {**FAST, "batch_size": 60, "max_epochs": 1, "lr": 1e5}
    moved = []
    for precision in (False, "float16"):
        model = FineTuneRegressor(
            start, **options, mixed_precision=precision, weight_decay=0.0
        ).fit(X, y)
        difference = model.module_[0].weight - start[0].weight
        moved.append(difference.detach().double().norm().item())
    assert moved[0] > 0
    assert moved[1] == pytest.approx(moved[0], rel=0.2)


class Overflow(skorch.callbacks.Callback):
    """Makes the gradients of one batch infinite."""

    def __init__(self, batch):
        self.batch = batch

    def on_grad_computed(self, net, **kwargs):
        self.rates_ = [*vars(self).get("rates_", ()), net.scheduler.last_epoch]

    def on_batch_begin(self, net, training, **kwargs):
        n_batches = sum(len(row["batches"]) for row in net.history)
        if training and n_batches == self.batch:
            net.scaler.load_state_dict({**net.scaler.state_dict(), "scale": 2.0**127})


def test_skipped_steps_do_not_advance_the_schedule(make_extractor, data, weights):
    note = Overflow(3)
    model = FineTuneClassifier(
        make_extractor(0),
        **FAST,
        batch_size=30,
        mixed_precision="float16",
        callbacks=[note],
    ).fit(*data)
    assert np.isfinite(weights(model)).all()
    assert note.rates_[:2] == [0, 1]
    assert note.rates_[2] == note.rates_[3] == 2  # the third was skipped
    assert model.net_.scaler.get_scale() < 2.0**127


def test_nan_in_float16(make_extractor, data, weights):
    X, y = data
    X = X.copy()
    X[7] = np.nan
    options = {**FAST, "mixed_precision": "float16"}
    model = FineTuneClassifier(make_extractor(0), **options, batch_size=10).fit(X, y)
    assert np.isfinite(weights(model)).all()
    with pytest.raises(ValueError, match=r"The loss was nan in epoch 1.*\[7\]"):
        FineTuneClassifier(make_extractor(0), **options, batch_size=60).fit(X, y)
