"""
===============================================
Methods to fine-tune one network on few samples
===============================================

A network of the zoo that is not ranked first must be deployed. This script fine-tunes
it on 100 digits and on 200 photos of clothes: without teachers, by feature
distillation, by Zoo-tuning and by B-Tuning, with all teachers and with the three that
LogME ranks highest.

    python bench_tuning.py --images clothing.npz --runs runs.jsonl --output FOLDER

``clothing.npz`` holds ``images`` (n, 32, 32, 3) and ``labels`` (n,). Networks that were
pre-trained on clothes are excluded for that target. For every method, one of three
learning rates and then one of three values of its setting are chosen on validation
images. Plain fine-tuning has no setting, and the weight decay is the same for all. The
script reports test accuracy after training on all training images, over ten seeds, on
the same splits for every method. Finished runs are stored in ``runs.jsonl``; a stopped
benchmark resumes from there.
"""

from __future__ import annotations

import argparse
import csv
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.model_selection import train_test_split

from sktransfer.datasets import load_dataset, load_zoo
from sktransfer.model_selection import ModelSelector
from sktransfer.tuning import rank_and_tune

NETWORK = "plain-emoji"
N_TRAIN = {"digits": 100, "clothing": 200}
N_TEST = 1500
SEEDS = range(10)
LEARNING_RATES = (0.1, 0.03, 0.3)
FIXED = {"max_epochs": 40, "batch_size": 25, "weight_decay": 5e-3, "device": "cpu"}
ALL = 14

# Label: method, number of teachers, setting and its values, the default first.
METHODS = {
    "plain": ("plain", 1, "weight_decay", (5e-3,)),
    "distillation, top 3": ("distillation", 3, "penalty__weight", (0.01, 1e-3, 0.1)),
    "zoo-tuning, top 3 alike": (
        "zoo-tuning",
        3,
        "network__initial_weight",
        (0.9, 0.7, 0.99),
    ),
    "b-tuning, all": ("b-tuning", ALL, "penalty__weight", (1.0, 0.1, 10.0)),
    "b-tuning, top 3": ("b-tuning", 3, "penalty__weight", (1.0, 0.1, 10.0)),
}
SWEEP_KS = (1, 3, 5, ALL)
SWEEP_WEIGHTS = (0.0, 0.1, 1.0, 10.0)


@cache
def load(target: str, images: str) -> tuple[np.ndarray, np.ndarray]:
    if target == "digits":
        return load_dataset("digits", return_X_y=True)
    with np.load(images) as file:
        return file["images"], file["labels"]


@cache
def split(target: str, images: str, seed: int, part: str) -> tuple[np.ndarray, ...]:
    """Images and labels to train and to test on."""
    X, y = load(target, images)
    train, rest = train_test_split(
        np.arange(len(y)), train_size=N_TRAIN[target], stratify=y, random_state=seed
    )
    held_out = rest[:N_TEST]
    if part == "validation":
        train, held_out = train_test_split(
            train, test_size=0.3, stratify=y[train], random_state=seed
        )
    return X[train], y[train], X[held_out], y[held_out]


@cache
def selector(target: str, images: str, seed: int, part: str) -> ModelSelector:
    """The ranking on the training images of one split."""
    X, y, _, _ = split(target, images, seed, part)
    zoo = load_zoo(device="cpu")
    if target == "clothing":
        zoo = [(name, network) for name, network in zoo if "clothes" not in name]
    return ModelSelector(zoo).fit(X, y)


def accuracy(run: tuple, images: str) -> float:
    """Accuracy on the held-out images of one run."""
    target, seed, part, method, k, lr, name, value = run
    X, y, X_held_out, y_held_out = split(target, images, seed, part)
    params = {**FIXED, "lr": lr, "random_state": seed, name: value}
    ranking = selector(target, images, seed, part)
    try:
        model, _ = rank_and_tune(ranking, NETWORK, X, y, k=k, method=method, **params)
    except ValueError as error:  # the learning rate was too large
        print(f"{run}: {error}")
        return 0.0
    return model.score(X_held_out, y_held_out)


class Runs:
    """Accuracies by run, one JSON line per run, appended to a file."""

    def __init__(self, path: Path, images: str):
        self.path = path
        self.images = images
        self.results: dict[tuple, float] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                record = json.loads(line)
                self.results[tuple(record["run"])] = record["accuracy"]

    def complete(self, runs: list[tuple], label: str) -> np.ndarray:
        """Accuracies of the runs; missing runs are executed."""
        for run in track([r for r in runs if r not in self.results], label):
            self.results[run] = accuracy(run, self.images)
            with self.path.open("a", encoding="utf-8") as file:
                record = {"run": run, "accuracy": self.results[run]}
                file.write(json.dumps(record) + "\n")
        return np.array([self.results[run] for run in runs])


def choose(runs: Runs, target: str, label: str) -> tuple[float, float]:
    """Learning rate, then setting, with the best mean validation accuracy."""
    method, k, name, (usual, *others) = METHODS[label]

    def best(settings: list[tuple[float, float]]) -> tuple[float, float]:
        means = [
            runs.complete(
                [
                    (target, seed, "validation", method, k, lr, name, value)
                    for seed in SEEDS
                ],
                f"{target}: {label}, lr={lr}, {name}={value}",
            ).mean()
            for lr, value in settings
        ]
        return settings[int(np.argmax(np.round(means, 9)))]

    rate, _ = best([(lr, usual) for lr in LEARNING_RATES])
    return best([(rate, value) for value in (usual, *others)])


def compare(runs: Runs, target: str) -> list[dict]:
    """One row per method."""
    rows, plain = [], None
    for label, (method, k, name, _) in METHODS.items():
        lr, value = choose(runs, target, label)
        accuracies = 100 * runs.complete(
            [(target, seed, "test", method, k, lr, name, value) for seed in SEEDS],
            f"{target}: {label}, test",
        )
        plain = accuracies if plain is None else plain
        gain = accuracies - plain
        rows.append(
            {
                "target": target,
                "method": label,
                "accuracy": f"{accuracies.mean():.2f}",
                "standard deviation": f"{accuracies.std(ddof=1):.2f}",
                "gain over plain": f"{gain.mean():+.2f}",
                "standard deviation of gain": f"{gain.std(ddof=1):.2f}",
                "learning rate": lr,
                "setting": f"{name.rpartition('__')[2]}={value:g}",
            }
        )
    return rows


def sweep(runs: Runs, target: str) -> list[dict]:
    """B-Tuning with K teachers and weight lambda, at the rate chosen for the top 3."""
    lr, _ = choose(runs, target, "b-tuning, top 3")
    rows = []
    for k in SWEEP_KS:
        row = {"target": target, "K": "all" if k == ALL else k}
        for weight in SWEEP_WEIGHTS:
            n_teachers = k if weight else 1  # without weight, teachers have no effect
            setting = ("b-tuning", n_teachers, lr, "penalty__weight", weight)
            accuracies = 100 * runs.complete(
                [(target, seed, "test", *setting) for seed in SEEDS],
                f"{target}: K={k}, lambda={weight}",
            )
            mean, spread = accuracies.mean(), accuracies.std(ddof=1)
            row[f"lambda = {weight:g}"] = f"{mean:.2f} ± {spread:.2f}"
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("--images", required=True, help="photos of clothes, .npz")
    parser.add_argument("--runs", type=Path, required=True, help="finished runs")
    parser.add_argument("--output", type=Path, required=True, help="folder for tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(args.runs, args.images)
    for table, make in (("methods", compare), ("sweep", sweep)):
        rows = [row for target in N_TRAIN for row in make(runs, target)]
        path = args.output / f"tuning_{table}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        shown = Table(*rows[0])
        for row in rows:
            shown.add_row(*map(str, row.values()))
        Console().print(shown)
    for target in N_TRAIN:
        for seed in SEEDS:
            ranking = selector(target, args.images, seed, "test").ranking_
            place = ranking.index(NETWORK) + 1
            print(f"{target}, seed {seed}: {NETWORK} is number {place} of {ranking}")


if __name__ == "__main__":
    main()
