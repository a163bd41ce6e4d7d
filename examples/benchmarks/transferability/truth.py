"""Fine-tune every start whole on every target: the truth of the benchmark.

    python examples/benchmarks/transferability/truth.py FOLDER --starts DIR --runs FILE

Each start gets a new head. All weights are trained on 100 (and again on 300) images and
tested on others; the splits of a seed are the same for every start. The learning rate
is the one with the best accuracy on validation images, averaged over seeds; the
reported fits use all training images. Every finished run is a line of FILE, so a
stopped script resumes.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from starts import RECIPES, accuracy, load_start, start_cards
from targets import TARGETS, images_of, load_target, split
from torch import nn
from torch.nn import functional

sys.path.append(str(Path(__file__).resolve().parents[1]))
from run_store import RunStore, complete

BATCH_SIZE = 25
WEIGHT_DECAY = 5e-3
LEARNING_RATES = (0.03, 0.1, 0.3)
EPOCHS = {100: 60, 300: 25}
N_SELECTION_SEEDS = 2
N_SEEDS = 3
PROBE_CS = np.logspace(-3, 1, 5)


def fit_whole(network, X, y, *, rate: float, epochs: int, seed: int) -> None:
    """Give the network a new head and train all its weights."""
    torch.manual_seed(seed)
    network.head = nn.Linear(network.head.in_features, int(y.max()) + 1)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=WEIGHT_DECAY,
    )
    n_steps = epochs * math.ceil(len(X) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(X)).split(BATCH_SIZE):
            loss = functional.cross_entropy(network(X[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def linear_probe(network: nn.Module, X, y, train, test) -> float:
    """Test accuracy of a logistic regression on the frozen features."""
    network.head = nn.Identity()
    with torch.inference_mode():
        features, held_out = network(X[train]).numpy(), network(X[test]).numpy()
    labels = y.numpy()
    probe = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": PROBE_CS},
        cv=min(3, np.bincount(labels[train]).min()),
    )
    return probe.fit(features, labels[train]).score(held_out, labels[test])


def run_one(run: tuple, folder: Path, starts: Path) -> tuple[tuple, float, float]:
    """One unit of work: (start, target, n_train, seed, part, rate)."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    start, target, n_train, seed, part, rate = run
    X, y = load_target(target, folder)
    train, test = split(target, folder, n_train, seed, part)
    network = load_start(start, starts)
    if part == "probe":
        result = linear_probe(network, X, y, train, test)
    else:
        epochs = EPOCHS[n_train]
        fit_whole(network, X[train], y[train], rate=rate, epochs=epochs, seed=seed)
        result = accuracy(network, X[test], y[test])
    return run, result, time.perf_counter() - begun


def best_rate(store: RunStore, start: str, target: str, n_train: int) -> float:
    """The learning rate with the best mean validation accuracy."""
    means = [
        np.mean(
            [
                store.results[start, target, n_train, seed, "validation", rate]
                for seed in range(N_SELECTION_SEEDS)
            ]
        )
        for rate in LEARNING_RATES
    ]
    return LEARNING_RATES[int(np.argmax(np.round(means, 9)))]


def starts_for(target: str, starts: Path) -> list[str]:
    """All starts but those that were trained on the target's own images."""
    return [
        name
        for name, card in start_cards(starts).items()
        if card["images"] != images_of(target)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the .npz files")
    parser.add_argument(
        "--starts", type=Path, required=True, help="output of starts.py"
    )
    parser.add_argument(
        "--runs", type=Path, required=True, help="file of finished runs"
    )
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    missing = [n for n in RECIPES if not (args.starts / f"{n}.json").exists()]
    if missing:
        parser.error(f"starts.py has not finished: {missing} are missing in --starts")
    store = RunStore(args.runs)
    settings = args.folder, args.starts
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        for target in args.targets:
            for n_train in EPOCHS:
                names = starts_for(target, args.starts)
                complete(
                    store,
                    [
                        (name, target, n_train, seed, "validation", rate)
                        for name in names
                        for rate in LEARNING_RATES
                        for seed in range(N_SELECTION_SEEDS)
                    ],
                    pool,
                    run_one,
                    settings,
                    f"{target}, {n_train} images: learning rates",
                )
                complete(
                    store,
                    [
                        (name, target, n_train, seed, part, rate)
                        for name in names
                        for seed in range(N_SEEDS)
                        for part, rate in (
                            ("test", best_rate(store, name, target, n_train)),
                            ("probe", None),
                        )
                    ],
                    pool,
                    run_one,
                    settings,
                    f"{target}, {n_train} images: test",
                )


if __name__ == "__main__":
    main()
