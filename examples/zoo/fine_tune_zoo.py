"""Fine-tune every network of the zoo on digits: the ground truth for scores.

    python examples/zoo/fine_tune_zoo.py --output CSV

Each network gets a new head. All weights are trained on 100 (and again on 500) of the
1,797 images and tested on all others; the splits are the same for every network. The
learning rate and the weight decay are chosen by the accuracy on a validation part of
the training images, averaged over seeds. The reported accuracy comes from fits on all
training images. Finished runs are stored beside the CSV, so a stopped script resumes.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from sktransfer.datasets import load_dataset, load_zoo_cards, load_zoo_network

BATCH_SIZE = 25
LEARNING_RATES = (0.03, 0.1, 0.3)
WEIGHT_DECAYS = (5e-3, 5e-4)
PROBE_CS = np.logspace(-3, 2, 6)


@dataclass(frozen=True)
class Plan:
    """Settings of fine-tuning for one number of training images."""

    n_validation: int
    epochs: int
    n_selection_seeds: int
    n_seeds: int


PLANS = {
    100: Plan(n_validation=30, epochs=60, n_selection_seeds=4, n_seeds=8),
    500: Plan(n_validation=100, epochs=20, n_selection_seeds=2, n_seeds=5),
}


@cache
def target() -> tuple[torch.Tensor, torch.Tensor]:
    X, y = load_dataset("digits", return_X_y=True)
    return torch.from_numpy(X), torch.from_numpy(y)


def split(n_train: int, seed: int, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train and to test on; `part` is "validation" or "test"."""
    y = target()[1].numpy()
    train, test = train_test_split(
        np.arange(len(y)), train_size=n_train, stratify=y, random_state=seed
    )
    if part == "test":
        return train, test
    n_validation = PLANS[n_train].n_validation
    return tuple(
        train_test_split(
            train, test_size=n_validation, stratify=y[train], random_state=seed
        )
    )


def accuracy(network: nn.Module, X: torch.Tensor, y: torch.Tensor) -> float:
    network.eval()
    with torch.inference_mode():
        return (network(X).argmax(1) == y).double().mean().item()


def fine_tune(
    name: str, n_train: int, seed: int, part: str, rate: float, decay: float
) -> float:
    """Accuracy after fine-tuning all weights with one setting and one seed."""
    X, y = target()
    plan = PLANS[n_train]
    train, held_out = map(torch.from_numpy, split(n_train, seed, part))
    torch.manual_seed(seed)
    network = load_zoo_network(name)
    network.head = nn.Linear(network.head.in_features, int(y.max()) + 1)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=decay
    )
    n_steps = plan.epochs * math.ceil(len(train) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    network.train()
    for _ in range(plan.epochs):
        for chosen in train[torch.randperm(len(train))].split(BATCH_SIZE):
            loss = functional.cross_entropy(network(X[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return accuracy(network, X[held_out], y[held_out])


def linear_probe(name: str, n_train: int, seed: int) -> float:
    """Test accuracy of a logistic regression on the frozen features."""
    X, y = target()
    network = load_zoo_network(name)
    network.head = nn.Identity()
    with torch.inference_mode():
        features = network(X).numpy()
    train, test = split(n_train, seed, "test")
    probe = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": PROBE_CS},
        cv=5,
    )
    return probe.fit(features[train], y[train]).score(features[test], y[test])


def run_one(run: tuple) -> tuple[tuple, float]:
    """One unit of work: (name, n_train, seed, "probe") or (…, part, rate, decay)."""
    torch.set_num_threads(1)
    name, n_train, seed, kind, *setting = run
    if kind == "probe":
        return run, linear_probe(name, n_train, seed)
    return run, fine_tune(name, n_train, seed, kind, *setting)


class RunStore:
    """Finished runs, one JSON line per run, appended to a file."""

    def __init__(self, path: Path):
        self.path = path
        self.results: dict[tuple, float] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                record = json.loads(line)
                self.results[tuple(record["run"])] = record["accuracy"]

    def add(self, run: tuple, result: float) -> None:
        self.results[run] = result
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run, "accuracy": result}) + "\n")

    def complete(self, runs: list[tuple], n_jobs: int, label: str) -> None:
        """Run what is missing."""
        missing = [run for run in runs if run not in self.results]
        context = multiprocessing.get_context("spawn")
        with (
            Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress,
            ProcessPoolExecutor(n_jobs, mp_context=context) as pool,
        ):
            bar = progress.add_task(label, total=len(runs))
            progress.advance(bar, len(runs) - len(missing))
            futures = [pool.submit(run_one, run) for run in missing]
            try:
                for future in as_completed(futures):
                    self.add(*future.result())
                    progress.advance(bar)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def best_setting(
    store: RunStore, name: str, n_train: int, settings: list[tuple]
) -> tuple[tuple, float]:
    """The setting with the best mean validation accuracy; the first of tied ones."""
    seeds = range(PLANS[n_train].n_selection_seeds)
    means = [
        np.mean(
            [store.results[name, n_train, s, "validation", *setting] for s in seeds]
        )
        for setting in settings
    ]
    best = int(np.argmax(np.round(means, 9)))
    return settings[best], means[best]


def select(
    names: list[str], n_train: int, store: RunStore, n_jobs: int
) -> dict[str, tuple[tuple, float]]:
    """Choose the setting of each network: the rate first, then the decay.

    Choosing one after the other takes four settings instead of six; the decay matters
    little.
    """
    usual, *others = WEIGHT_DECAYS
    settings = {name: [(rate, usual) for rate in LEARNING_RATES] for name in names}
    for what in ("learning rate", "weight decay"):
        store.complete(
            [
                (name, n_train, seed, "validation", *setting)
                for name in names
                for setting in settings[name]
                for seed in range(PLANS[n_train].n_selection_seeds)
            ],
            n_jobs,
            f"{n_train} images: {what}",
        )
        chosen = {
            name: best_setting(store, name, n_train, settings[name]) for name in names
        }
        for name, ((rate, _), _) in chosen.items():
            settings[name] = [*settings[name], *((rate, decay) for decay in others)]
    return chosen


def truth_for(
    names: list[str], n_train: int, store: RunStore, n_jobs: int
) -> list[dict]:
    """The rows of the table for one number of training images."""
    cards, plan = load_zoo_cards(), PLANS[n_train]
    chosen = select(names, n_train, store, n_jobs)
    seeds = range(plan.n_seeds)
    tuned = {
        name: [(name, n_train, seed, "test", *chosen[name][0]) for seed in seeds]
        for name in names
    }
    probed = {
        name: [(name, n_train, seed, "probe") for seed in seeds] for name in names
    }
    runs = [run for part in (tuned, probed) for runs in part.values() for run in runs]
    store.complete(runs, n_jobs, f"{n_train} images: test")
    rows = []
    for name in names:
        (rate, decay), validation = chosen[name]
        accuracies, probe_accuracies = (
            [store.results[run] for run in part[name]] for part in (tuned, probed)
        )
        rows.append(
            {
                "network": name,
                "architecture": cards[name]["architecture"],
                "source": cards[name]["source"],
                "accuracy_mean": f"{np.mean(accuracies):.5f}",
                "accuracy_std": f"{np.std(accuracies, ddof=1):.5f}",
                "n_seeds": plan.n_seeds,
                "learning_rate": rate,
                "weight_decay": decay,
                "validation_accuracy": f"{validation:.5f}",
                "linear_probe_accuracy_mean": f"{np.mean(probe_accuracies):.5f}",
                "linear_probe_accuracy_std": f"{np.std(probe_accuracies, ddof=1):.5f}",
                "n_train": n_train,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="CSV to write")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--jobs", type=int, default=2, help="number of parallel runs")
    args = parser.parse_args()
    names = args.only or list(load_zoo_cards())
    store = RunStore(args.output.with_suffix(".runs.jsonl"))
    rows = []
    for n_train in PLANS:
        rows += truth_for(names, n_train, store, args.jobs)
        with args.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    table = Table("network", "images", "fine-tuned", "linear probe")
    for row in sorted(rows, key=lambda row: (row["n_train"], row["accuracy_mean"])):
        shown = "network", "n_train", "accuracy_mean", "linear_probe_accuracy_mean"
        table.add_row(*(str(row[column]) for column in shown))
    Console().print(table)


if __name__ == "__main__":
    main()
