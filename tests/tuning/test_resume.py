"""Training that was interrupted goes on from its checkpoint, with nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
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
        extractor.module.append(nn.Dropout(0.2))
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


def test_every_training_has_a_file_of_its_own(make_extractor, data, tmp_path):
    X, y = data
    model = FineTuneClassifier(make_extractor(0), checkpoint_dir=tmp_path, **OPTIONS)
    n_files = []
    for params, samples, labels in [
        ({}, X, y),
        ({"device": "auto", "verbose": 0}, X, y),
        ({"lr": 0.02}, X, y),
        ({"module": make_extractor(1)}, X, y),
        ({"module": make_extractor(1).module}, X, y),
        ({"module": make_extractor(2).module}, X, y),
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

from sktransfer.datasets import load_target, load_zoo
from sktransfer.linear_model import LogMEClassifier
from sktransfer.tuning import BayesianTuning, FineTuneClassifier


def flip(batch):
    time.sleep(float(sys.argv[2]))
    with Path(sys.argv[1], "log.txt").open("a") as file:
        file.write("batch\\n")
    return batch[:, :, ::-1] if torch.rand(1) < 0.5 else batch


if __name__ == "__main__":
    X, y = load_target(return_X_y=True)
    X, y = X[:60], y[:60]
    (_, target), (_, teacher) = load_zoo(["plain-emoji", "residual-handwritten"])
    model = FineTuneClassifier(
        target,
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
