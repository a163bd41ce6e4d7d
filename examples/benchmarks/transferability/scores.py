"""Score every start on the training images of every target: the scores to compare.

    python examples/benchmarks/transferability/scores.py FOLDER --starts DIR --runs FILE

Scores read the training images of a seed and nothing else. Beside every metric of the
registry there are short fine-tunings: accuracy on a third of the training images after
a few epochs on the others. Every finished run is a line of FILE, so a stopped script
resumes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress, TimeElapsedColumn
from starts import accuracy, load_start
from targets import TARGETS, load_target, split
from truth import EPOCHS, N_SEEDS, fit_whole, starts_for

from sktransfer.feature_extraction import TorchFeatureExtractor
from sktransfer.feature_extraction._extract import layers_under
from sktransfer.metrics import LabelledData
from sktransfer.metrics._deep_data import DeepData
from sktransfer.metrics._evaluate import evaluate
from sktransfer.metrics._registry import METRICS

# Deep scores with a share of all layers that is not chosen.
MIXTURES = (0.3, 0.5, 0.7)
# Epochs of short fine-tuning, and its learning rate.
SHORT_EPOCHS = (1, 3, 10)
SHORT_RATE = 0.1


def short_fine_tuning(start: str, starts: Path, X, y, train, test, seed) -> dict:
    """Validation accuracy after a few epochs on the rest of the training images."""
    scores = {}
    for epochs in SHORT_EPOCHS:
        network = load_start(start, starts)
        fit_whole(
            network, X[train], y[train], rate=SHORT_RATE, epochs=epochs, seed=seed
        )
        scores[f"fine_tuning_{epochs}"] = accuracy(network, X[test], y[test])
    return scores


def score_one(run: tuple, folder: Path, starts: Path) -> dict:
    """All scores of one (start, target, n_train, seed), and the seconds they take."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start, target, n_train, seed = run
    X, y = load_target(target, folder)
    train, _ = split(target, folder, n_train, seed, "test")
    extractor = TorchFeatureExtractor(
        partial(load_start, start, starts), source_head="head", batch_size=300
    )
    images, labels = X[train].numpy(), y[train].numpy()
    begun = time.perf_counter()
    extraction = extractor.extract(images, source_proba=True, all_layers=True)
    seconds = {"extraction": time.perf_counter() - begun}
    data = LabelledData(
        extraction.joined,
        source_proba=extraction.source_proba,
        layers=layers_under(extraction),
        y=labels,
    )
    scores = {}
    for name, metric in METRICS.items():
        if "classification" not in metric.tasks:
            continue
        begun = time.perf_counter()
        got = evaluate({name: metric}, data, on_error=lambda *_: None)
        scores[name] = float(got[name].value) if name in got else np.nan
        seconds[name] = time.perf_counter() - begun
    deep = DeepData(data)
    for name in ("logme", "loo_accuracy", "loo_log_likelihood"):
        for mixture in MIXTURES:
            value = deep.score(METRICS[name], mixture).value
            scores[f"deep_{name}_{mixture}"] = float(value)
    fit, held_out = split(target, folder, n_train, seed, "validation")
    begun = time.perf_counter()
    scores |= short_fine_tuning(start, starts, X, y, fit, held_out, seed)
    seconds["fine_tuning"] = time.perf_counter() - begun
    return {"run": run, "scores": scores, "seconds": seconds}


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
    done = set()
    if args.runs.exists():
        lines = args.runs.read_text("utf-8").splitlines()
        done = {tuple(json.loads(line)["run"]) for line in lines}
    runs = [
        (start, target, n_train, seed)
        for target in args.targets
        for n_train in EPOCHS
        for seed in range(N_SEEDS)
        for start in starts_for(target, args.starts)
    ]
    missing = [run for run in runs if run not in done]
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress,
        ProcessPoolExecutor(args.jobs, mp_context=context) as pool,
        args.runs.open("a", encoding="utf-8") as file,
    ):
        bar = progress.add_task("scores", total=len(runs), completed=len(done))
        futures = [
            pool.submit(score_one, run, args.folder, args.starts) for run in missing
        ]
        try:
            for future in as_completed(futures):
                file.write(json.dumps(future.result()) + "\n")
                file.flush()
                progress.advance(bar)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    main()
