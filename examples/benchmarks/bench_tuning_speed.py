"""
===================================================
Time that a penalty adds to an epoch of fine-tuning
===================================================

This script times an epoch of B-Tuning and of feature distillation, with cached
teachers, and of penalties without teachers, relative to an epoch of plain fine-tuning.
Fits take turns, and the median of all epochs is reported. It also times B-Tuning with
augmentation, where the teachers run in every epoch, and Zoo-tuning.

    python bench_tuning_speed.py
"""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sktransfer.datasets import load_dataset, load_zoo
from sktransfer.linear_model import LogMEClassifier
from sktransfer.model_selection import ModelSelector
from sktransfer.tuning import (
    L2SP,
    BayesianTuning,
    FeatureDistillation,
    FeatureMapDistance,
    FineTuneClassifier,
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
    seconds = {label: [] for label in models}
    for _ in track(range(TURNS), "turns"):
        for label, params in models.items():
            model = FineTuneClassifier(network, max_epochs=3, lr=0.03, device="cpu")
            model.set_params(**params).fit(X, y)
            seconds[label] += model.history_[:, "dur"]
    table = Table("method", "seconds an epoch", "ratio to plain")
    plain = np.median(seconds["plain"])
    for label, values in seconds.items():
        median = np.median(values)
        table.add_row(label, f"{median:.3f}", f"{median / plain:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
