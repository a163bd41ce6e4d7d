"""
===================================================
Time that a penalty adds to an epoch of fine-tuning
===================================================

This script times an epoch of B-Tuning and of feature distillation, with cached
teachers, and of penalties without teachers, relative to an epoch of plain fine-tuning.
Fits take turns, and the median of all epochs is reported. It also times B-Tuning with
augmentation, where the teachers run in every epoch, and Zoo-tuning. With unlabelled
images, a step is compared with a plain step on as many images. Times are of the
processor, so that other work on the machine counts little.

    python bench_tuning_speed.py
"""

from __future__ import annotations

import time

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.base import clone
from skorch.callbacks import Callback

from sktransfer.datasets import load_dataset, load_zoo
from sktransfer.linear_model import LogMEClassifier
from sktransfer.model_selection import ModelSelector
from sktransfer.tuning import (
    L2SP,
    BayesianTuning,
    FeatureDistillation,
    FeatureMapDistance,
    FineTuneClassifier,
    PredictiveDistillation,
    ZooTuning,
)

TURNS = 6


def unchanged(batch: np.ndarray) -> np.ndarray:
    """An augmentation that takes no time."""
    return batch


def main() -> None:
    torch.set_num_threads(1)
    X, y = (part[:640] for part in load_dataset("digits", return_X_y=True))
    zoo = load_zoo(device="cpu")
    network = dict(zoo)["plain-emoji"]
    selector = ModelSelector(zoo).fit(X, y)
    teachers = selector.teachers(3)
    names = ("plain-handwritten", "plain-objects", "plain-clothes")
    alike = [(dict(zoo)[name], LogMEClassifier()) for name in names]
    models = {
        "plain": {},
        "predictive distillation, 3 teachers": {
            "penalty": PredictiveDistillation(teachers)
        },
        "B-Tuning, 3 teachers": {"penalty": BayesianTuning(teachers)},
        "B-Tuning, 14 teachers": {"penalty": BayesianTuning(selector.teachers(14))},
        "distillation, 3 teachers": {"penalty": FeatureDistillation(teachers)},
        "L2-SP": {"penalty": L2SP()},
        "feature maps": {"penalty": FeatureMapDistance()},
        "B-Tuning, 3 teachers, augmented": {
            "penalty": BayesianTuning(teachers),
            "augment": unchanged,
        },
        "Zoo-tuning, lite, 3 teachers": {"network": ZooTuning(network, alike)},
        "Zoo-tuning, full, 3 teachers": {
            "network": ZooTuning(network, alike, lite=False)
        },
    }
    few = {"batch_size": 25}  # of 75 images with two unlabelled ones for each
    unlabelled = {
        "plain, 75 images a step": {"batch_size": 75},
        "predictive distillation, 25 + 50 images": {
            **models["predictive distillation, 3 teachers"],
            **few,
        },
        "B-Tuning, 25 + 50 images": {**models["B-Tuning, 3 teachers"], **few},
    }
    show(network, models, X, y, None)
    show(network, unlabelled, X[:200], y[:200], X[200:])


class Clock(Callback):
    """Processor time of an image in every epoch."""

    def on_epoch_begin(self, net, **kwargs):
        self.begun = time.process_time()

    def on_epoch_end(self, net, dataset_train, **kwargs):
        sizes = net.history[-1, "batches", :, "n_images"]
        net.history.record("per_image", (time.process_time() - self.begun) / sum(sizes))

    def on_batch_end(self, net, batch, training, **kwargs):
        net.history.record_batch("n_images", len(batch[0]))


def show(network, models, X, y, unlabelled) -> None:
    """Fit in turns, and print the median time of an image beside the first method's."""
    seconds = {label: [] for label in models}
    for _ in track(range(TURNS), "turns"):
        for label, params in models.items():
            model = FineTuneClassifier(
                network, max_epochs=3, lr=0.03, batch_size=64, device="cpu"
            ).set_params(callbacks=[Clock()], **params)
            taught = unlabelled if params.get("penalty") else None
            # A clone fits the teachers' LogME to these images.
            model = clone(model).fit(X, y, unlabelled=taught)
            seconds[label] += model.history_[1:, "per_image"]  # the first warms up
    table = Table("method", "ms per image", "ratio to the first")
    first = np.median(next(iter(seconds.values())))
    for label, values in seconds.items():
        median = np.median(values)
        table.add_row(label, f"{1e3 * median:.3f}", f"{median / first:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
