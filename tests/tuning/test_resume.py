"""Training that was interrupted goes on from its checkpoint, with nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skorch
import torch
from sklearn.base import clone
from torch import nn

import sktransfer
from sktransfer.tuning import BayesianTuning, FeatureDistillation, FineTuneClassifier

OPTIONS = {
    "max_epochs": 6,
    "batch_size": 16,
    "random_state": 0,
    "device": "cpu",
    "validation_fraction": 0.2,
    "n_iter_no_change": 5,
}


class Stop:
    """Augmentation that draws random numbers, and fails after some batches."""

    def __init__(self, after):
        self.after = after

    def __call__(self, batch):
        self.after -= 1
        if self.after < 0:
            raise RuntimeError("pulled the plug")
        return batch + 0.1 * torch.randn(batch.shape).numpy()

    def __getstate__(self):  # how long it lasts does not tell trainings apart
        return {"after": 0}


def without_times(history):
    return [{k: v for k, v in row.items() if k != "dur"} for row in history]


@pytest.mark.parametrize("penalty", [None, BayesianTuning, FeatureDistillation])
def test_equals_training_without_a_break(
    make_extractor, data, fitted_teachers, weights, tmp_path, penalty
):
    X, y = data
    teachers = fitted_teachers(X, y)

    def model(after):
        extractor = make_extractor(0)
        extractor.network.append(nn.Dropout(0.2))
        return FineTuneClassifier(
            extractor,
            penalty=penalty and penalty(teachers),
            augment=Stop(after),
            checkpoint_dir=tmp_path,
            **OPTIONS,
        )

    whole = model(99).set_params(checkpoint_dir=None).fit(X, y)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        model(7).fit(X, y)  # in the third epoch of three batches
    (file,) = tmp_path.iterdir()
    assert len(torch.load(file, weights_only=True)["history"]) > 0
    resumed = model(4 * 3).fit(X, y)
    np.testing.assert_array_equal(weights(resumed), weights(whole))
    assert without_times(resumed.history_) == without_times(whole.history_)
    finished = model(0).fit(X, y)
    np.testing.assert_array_equal(weights(finished), weights(whole))
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture
def interrupts():
    """Ctrl-C as in a terminal, whatever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Press(skorch.callbacks.Callback):
    """Presses Ctrl-C at one event; skorch's own callbacks stop by the same error."""

    def __init__(self, event, epoch):
        self.event = event
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        self.press("on_epoch_begin", net)

    def on_batch_end(self, net, **kwargs):
        self.press("on_batch_end", net)

    def on_epoch_end(self, net, **kwargs):
        self.press("on_epoch_end", net)

    def on_train_end(self, net, **kwargs):
        self.press("on_train_end", net)

    def press(self, event, net):
        # In the environment, for a class that changes makes another training.
        if (
            event == self.event
            and len(net.history) >= self.epoch
            and os.environ.pop("PRESS_CTRL_C", "")
        ):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "event", ["on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end"]
)
def test_ctrl_c_in_a_callback_is_passed_on_and_training_resumes(
    make_extractor, data, weights, tmp_path, monkeypatch, interrupts, event
):
    X, y = data
    model = FineTuneClassifier(
        make_extractor(0),
        callbacks=[Press(event, 3)],
        checkpoint_dir=tmp_path,
        **OPTIONS,
    )
    whole = model.set_params(checkpoint_dir=None).fit(X, y)
    expected = weights(whole)
    model.set_params(checkpoint_dir=tmp_path)
    monkeypatch.setenv("PRESS_CTRL_C", "once")
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    (file,) = tmp_path.iterdir()
    state = torch.load(file, weights_only=True)
    assert not state["stopped"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = model.fit(X, y)
    np.testing.assert_array_equal(weights(resumed), expected)
    assert list(tmp_path.iterdir()) == [file]


class Counter(skorch.callbacks.Callback):
    """Remembers things in attributes of any name."""

    def __init__(self, step=1):
        self.step = step
        self.seen = []

    def on_epoch_end(self, net, **kwargs):
        self.seen.append(self.step)


def test_what_callbacks_remember_is_no_other_training(make_extractor, data, tmp_path):
    stop = skorch.callbacks.EarlyStopping(patience=2)
    schedule = skorch.callbacks.LRScheduler("StepLR", step_size=2)
    model = FineTuneClassifier(make_extractor(0), checkpoint_dir=tmp_path, **OPTIONS)
    n_files = []
    for callbacks in [
        [Counter(), ("stop", stop), schedule],
        [Counter(), ("stop", stop), schedule],
        [Counter(2), ("stop", stop), schedule],
        [Counter(2), ("stop", stop.__class__(patience=3)), schedule],
        [Counter, skorch.callbacks.LRScheduler("StepLR", step_size=2)],
        [Counter, skorch.callbacks.LRScheduler("StepLR", step_size=3)],
    ]:
        model.set_params(callbacks=callbacks)
        for _ in range(2):
            model.fit(*data)
        n_files.append(len(list(tmp_path.iterdir())))
    assert n_files == [1, 1, 2, 3, 4, 5]


class Recorder(skorch.callbacks.Callback):
    """Records more than numbers."""

    def on_epoch_end(self, net, **kwargs):
        for name, value in RECORDED.items():
            net.history.record(name, value)


RECORDED = {
    "array": np.array([1, 2]),
    "tensor": torch.ones(2),
    "count": np.int64(3),
    "flag": np.bool_(True),
    "path": Path("a"),
}


def test_whatever_callbacks_record_is_kept(make_extractor, data, tmp_path):
    model = FineTuneClassifier(
        make_extractor(0), callbacks=[Recorder()], checkpoint_dir=tmp_path, **OPTIONS
    )
    model.fit(*data)
    record = model.fit(*data).history_[-1]
    assert {name: record[name] for name in RECORDED} == {
        "array": [1, 2],
        "tensor": [1.0, 1.0],
        "count": 3,
        "flag": True,
        "path": "a",
    }
    assert record["flag"] is True
    assert isinstance(record["count"], int)


def test_same_training_in_several_threads(make_extractor, data, tmp_path, weights):
    model = FineTuneClassifier(make_extractor(0), checkpoint_dir=tmp_path, **OPTIONS)
    with ThreadPoolExecutor(4) as pool:
        fits = [pool.submit(clone(model).fit, *data) for _ in range(4)]
        results = [weights(fit.result()) for fit in fits]
    assert all(np.isfinite(result).all() for result in results)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "damage", ["empty", "short", "text", "other", "weights", "random"]
)
def test_damaged_checkpoint_says_which_file_to_delete(
    make_extractor, data, tmp_path, damage
):
    model = FineTuneClassifier(make_extractor(0), checkpoint_dir=tmp_path, **OPTIONS)
    model.fit(*data)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    if damage == "other":
        torch.save({"weights": torch.zeros(3)}, file)
    elif damage in ("weights", "random"):
        state = torch.load(file, weights_only=True)
        if damage == "weights":
            state["module"].popitem()
        else:
            state["random"] = torch.zeros(3)
        torch.save(state, file)
    else:
        part = {"empty": b"", "short": content[: len(content) // 2], "text": b"abc"}
        file.write_bytes(part[damage])
    with pytest.raises(ValueError, match=r"checkpoint .*\.pt .*Delete the file") as e:
        model.fit(*data)
    assert str(file) in str(e.value)
    file.unlink()
    model.fit(*data)


def test_files_that_changed_are_other_data(make_extractor, data, tmp_path):
    X, y = data
    paths = []
    for i, row in enumerate(X):
        paths.append(str(tmp_path / f"{i}.npy"))
        np.save(paths[-1], row)
    folder = tmp_path / "checkpoints"
    extractor = make_extractor(0).set_params(preprocess=read)
    model = FineTuneClassifier(extractor, checkpoint_dir=folder, **OPTIONS)
    first = model.fit(paths, y).history_[:, "train_loss"]
    assert model.fit(paths, y).history_[:, "train_loss"] == first
    for path, row in zip(paths, X, strict=True):
        np.save(path, 2 * row)
        os.utime(path, ns=(1, 1))
    assert model.fit(paths, y).history_[:, "train_loss"] != first
    assert len(list(folder.iterdir())) == 2


def read(path):
    return torch.from_numpy(np.load(path))


def test_every_training_has_a_file_of_its_own(make_extractor, data, tmp_path):
    X, y = data
    model = FineTuneClassifier(make_extractor(0), checkpoint_dir=tmp_path, **OPTIONS)
    n_files = []
    for params, samples, labels in [
        ({}, X, y),
        ({"device": "auto", "verbose": 0}, X, y),
        ({"lr": 0.02}, X, y),
        ({"network": make_extractor(1)}, X, y),
        ({"network": make_extractor(1).network}, X, y),
        ({"network": make_extractor(2).network}, X, y),
        ({}, X[:-1], y[:-1]),
        ({}, X, (y + 1) % 3),
    ]:
        model.set_params(**params).fit(samples, labels)
        n_files.append(len(list(tmp_path.iterdir())))
    assert n_files == [1, 1, 2, 3, 4, 5, 6, 7]


def load(path):
    return np.load(path)


class Files:
    """A data set that reads a file a sample, with or without noise on it."""

    def __init__(self, folder, n, noise=0.0):
        self.folder, self.n, self.noise = folder, n, noise

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        x = np.load(Path(self.folder) / f"{i}.npy")
        return x + self.noise * np.random.default_rng().normal(size=x.shape)


@pytest.mark.parametrize("kind", ["paths", "data set"])
def test_files_that_change_are_another_training(make_extractor, data, tmp_path, kind):
    X, y = data
    paths = [tmp_path / f"{i}.npy" for i in range(len(X))]
    for path, x in zip(paths, X, strict=True):
        np.save(path, x)
    extractor = make_extractor(0)
    samples = Files(str(tmp_path), len(X))
    if kind == "paths":
        samples = [str(path) for path in paths]
        extractor.set_params(preprocess=load)
    folder = tmp_path / "checkpoints"
    model = FineTuneClassifier(extractor, checkpoint_dir=folder, **OPTIONS)
    model.fit(samples, y)
    model.fit(samples, y)
    assert len(list(folder.iterdir())) == 1
    for path in paths[:40]:
        np.save(path, np.zeros(6, dtype=np.float32))
        os.utime(path, ns=(1, 1))
    model.fit(samples, y)
    assert len(list(folder.iterdir())) == 2


def test_data_set_that_augments_at_random_goes_on(make_extractor, data, tmp_path):
    X, y = data
    for i, x in enumerate(X):
        np.save(tmp_path / f"{i}.npy", x)
    samples = Files(str(tmp_path), len(X), noise=0.1)
    folder = tmp_path / "checkpoints"
    for _ in range(2):
        FineTuneClassifier(make_extractor(0), checkpoint_dir=folder, **OPTIONS).fit(
            samples, y
        )
    assert len(list(folder.iterdir())) == 1


def test_what_cannot_be_told_by_content_is_said_before_training(
    make_extractor, data, tmp_path
):
    noise = (i for i in range(100))
    model = FineTuneClassifier(
        make_extractor(0),
        augment=lambda batch: batch + next(noise),
        checkpoint_dir=tmp_path,
        **OPTIONS,
    )
    with pytest.raises(TypeError, match="'checkpoint_dir' parameter needs a training"):
        model.fit(*data)
    assert next(noise) == 0


def test_drawn_seeds_are_kept(make_extractor, data, tmp_path, weights):
    options = {**OPTIONS, "random_state": None}
    model = FineTuneClassifier(make_extractor(0), checkpoint_dir=tmp_path, **options)
    first = weights(model.fit(*data))
    np.testing.assert_array_equal(weights(model.fit(*data)), first)


SCRIPT = """
import sys
import time
from pathlib import Path

import numpy as np
import torch

from sktransfer.datasets import load_dataset, load_zoo
from sktransfer.linear_model import LogMEClassifier
from sktransfer.tuning import BayesianTuning, FineTuneClassifier


def flip(batch):
    time.sleep(float(sys.argv[2]))
    with Path(sys.argv[1], "log.txt").open("a") as file:
        file.write("batch\\n")
    return batch[:, :, ::-1] if torch.rand(1) < 0.5 else batch


if __name__ == "__main__":
    X, y = load_dataset(return_X_y=True)
    X, y = X[:60], y[:60]
    (_, network), (_, teacher) = load_zoo(["plain-emoji", "residual-handwritten"])
    model = FineTuneClassifier(
        network,
        penalty=BayesianTuning([(teacher, LogMEClassifier())]),
        max_epochs=5,
        batch_size=20,
        augment=flip,
        random_state=0,
        device="cpu",
        checkpoint_dir=Path(sys.argv[1], "checkpoints"),
    ).fit(X, y)
    loss = model.history_[:, "train_loss"]
    np.savez(Path(sys.argv[1], "result.npz"), loss=loss, proba=model.predict_proba(X))
"""


def start(folder, seconds):
    folder.mkdir(exist_ok=True)
    script = folder / "train.py"
    script.write_text(SCRIPT)
    path = [str(Path(sktransfer.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path).rstrip(os.pathsep)},
    )


def n_batches(folder):
    log = folder / "log.txt"
    return len(log.read_text().split()) if log.exists() else 0


def test_goes_on_after_a_kill(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    other = start(whole, 0)
    training = start(killed, 0.3)
    try:
        deadline = time.monotonic() + 120
        while n_batches(killed) < 2 * 3 + 1:  # two epochs of three, and some
            assert training.poll() is None, "training ended too early"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(training.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    finally:
        training.kill()
        training.wait()
    assert not (killed / "result.npz").exists()
    n_done = n_batches(killed)
    assert start(killed, 0).wait(timeout=120) == 0
    assert n_batches(killed) - n_done == 3 * 3
    assert other.wait(timeout=120) == 0
    expected, result = (np.load(f / "result.npz") for f in (whole, killed))
    np.testing.assert_array_equal(result["loss"], expected["loss"])
    np.testing.assert_array_equal(result["proba"], expected["proba"])


def test_an_import_name_stands_for_its_code(data, tmp_path, monkeypatch):
    code = """
import torch
def make():
    torch.manual_seed(0)
    return torch.nn.Linear(6, {width})
"""
    monkeypatch.syspath_prepend(tmp_path)
    for n_files, width in enumerate([4, 5, 5], start=1):
        monkeypatch.delitem(sys.modules, "own_network", raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        (tmp_path / "own_network.py").write_text(code.format(width=width))
        folder = tmp_path / "checkpoints"
        FineTuneClassifier(
            "own_network:make", checkpoint_dir=folder, **{**OPTIONS, "max_epochs": 1}
        ).fit(*data)
        assert len(list(folder.iterdir())) == min(n_files, 2)
