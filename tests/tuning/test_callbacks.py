"""Callbacks of skorch in a training, also in one that is interrupted and resumed."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest
import skorch
import torch
from skorch.callbacks import (
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
)

from sktransfer.tuning import FineTuneClassifier

quiet = {"sink": skorch.utils.noop}
OPTIONS = {
    "max_epochs": 9,
    "batch_size": 7,
    "lr": 0.3,
    "validation_fraction": 0.3,
    "schedule": "constant",
    "random_state": 0,
    "device": "cpu",
}


class Overflow(skorch.callbacks.Callback):
    """Makes the scale of a float16 training far too large once."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 1 and net.scaler.is_enabled():
            net.scaler.load_state_dict({**net.scaler.state_dict(), "scale": 2.0**127})


class Break(skorch.callbacks.Callback):
    """Ends the training with an error, if asked to."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 4 and os.environ.get("BREAK"):
            raise RuntimeError("a break")


ONE_CYCLE = partial(LRScheduler, torch.optim.lr_scheduler.OneCycleLR)
CALLBACKS = {
    "stop": lambda _: EarlyStopping(patience=3, load_best=True, **quiet),
    "step": lambda _: LRScheduler("StepLR", step_size=2, gamma=0.5),
    "milestones": lambda _: LRScheduler("MultiStepLR", milestones=[2, 6], gamma=0.5),
    "cosine": lambda _: LRScheduler("CosineAnnealingLR", T_max=9),
    "plateau": lambda _: LRScheduler("ReduceLROnPlateau", "valid_loss", patience=0),
    "batches": lambda _: LRScheduler("ExponentialLR", step_every="batch", gamma=0.9),
    "cycle": lambda _: ONE_CYCLE(step_every="batch", max_lr=0.3, total_steps=54),
    "clipping": lambda _: GradientNormClipping(0.1),
    "files": lambda folder: Checkpoint(dirname=folder, load_best=True, **quiet),
    "score": lambda _: EpochScoring(accuracy, name="own", lower_is_better=False),
    "overflow": lambda _: Overflow(),
}


def accuracy(net, X, y):
    outputs = net.forward(X)[0]
    return (outputs.argmax(1) == X.target[X.rows]).double().mean().item()


@pytest.fixture
def shuffled(data, global_random_seed):
    X, y = data
    return X, np.random.default_rng(global_random_seed).permutation(y)


def without_times(history):
    return [{k: v for k, v in row.items() if k != "dur"} for row in history]


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("precision", [False, "float16"])
def test_resumed_training_goes_on_as_if_there_was_no_break(
    make_extractor, shuffled, weights, tmp_path, monkeypatch, name, precision
):
    def fit(folder, **params):
        return FineTuneClassifier(
            make_extractor(0),
            callbacks=[CALLBACKS[name](tmp_path / folder), Break()],
            mixed_precision=precision,
            **OPTIONS,
            **params,
        ).fit(*shuffled)

    whole = fit("whole")
    kept = {"checkpoint_dir": tmp_path / "checkpoints"}
    monkeypatch.setenv("BREAK", "yes")
    if len(whole.history_) > 4:
        with pytest.raises(RuntimeError, match="a break"):
            fit("broken", **kept)
    monkeypatch.delenv("BREAK")
    for model in (fit("broken", **kept), fit("broken", **kept)):
        np.testing.assert_array_equal(weights(model), weights(whole))
        assert without_times(model.history_) == without_times(whole.history_)
        for group, expected in zip(
            model.net_.optimizer_.param_groups,
            whole.net_.optimizer_.param_groups,
            strict=True,
        ):
            assert group["lr"] == expected["lr"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_early_stopping_restores_the_best_weights(make_extractor, shuffled, weights):
    options = {**OPTIONS, "max_epochs": 40}
    fits = [
        FineTuneClassifier(make_extractor(0), **options, **params).fit(*shuffled)
        for params in (
            {"n_iter_no_change": 4},
            {"callbacks": [EarlyStopping(patience=4, load_best=True, threshold=0)]},
        )
    ]
    losses = fits[0].history_[:, "valid_loss"]
    assert len(losses) == np.argmin(losses) + 5 < 40
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))
    shorter = {**options, "max_epochs": int(np.argmin(losses)) + 1}
    best = FineTuneClassifier(make_extractor(0), **shorter).fit(*shuffled)
    np.testing.assert_array_equal(weights(fits[0]), weights(best))


def test_the_log_shows_the_epoch_that_stops(make_extractor, shuffled, capsys):
    model = FineTuneClassifier(
        make_extractor(0), **{**OPTIONS, "max_epochs": 40}, n_iter_no_change=2
    ).set_params(verbose=1)
    model.fit(*shuffled)
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last.split()[0] == str(len(model.history_))


def test_rates_of_skorch_are_those_of_torch(make_extractor, shuffled):
    schedule = LRScheduler("StepLR", step_size=2, gamma=0.5)
    model = FineTuneClassifier(make_extractor(0), callbacks=[schedule], **OPTIONS)
    rates = model.fit(*shuffled).history_[:, "event_lr"]
    np.testing.assert_allclose(rates, 0.3 * 0.5 ** (np.arange(9) // 2))


def test_gradients_are_clipped_before_the_step(make_extractor, data):
    norms = []

    class Note(skorch.callbacks.Callback):
        def on_grad_computed(self, net, **kwargs):
            grads = [p.grad.norm() for p in net.module_.parameters()]
            norms.append(torch.stack(grads).norm().item())

    for precision in (False, "float16"):
        FineTuneClassifier(
            make_extractor(0),
            callbacks=[GradientNormClipping(0.05), Note()],
            mixed_precision=precision,
            accumulate_grad_batches=3,
            **OPTIONS,
        ).fit(*data)
    assert max(norms) == pytest.approx(0.05, rel=1e-3)


def test_progress_bar(make_extractor, data, capfd):
    pytest.importorskip("tqdm")
    bar = skorch.callbacks.ProgressBar(detect_notebook=False)
    FineTuneClassifier(make_extractor(0), callbacks=[bar], **OPTIONS).fit(*data)
    assert "/9" in capfd.readouterr().err  # six batches of training, three others
