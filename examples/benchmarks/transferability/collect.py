"""Collect the finished runs into the tables that come with the package.

    python examples/benchmarks/transferability/collect.py --starts DIR --truth FILE \
        --scores FILE --output sktransfer/datasets/data/benchmark

It writes starts.csv, targets.csv, truth.csv and scores.csv. A target counts with a
number of training images where halves of the seeds agree on the order of the starts:
the mean weighted tau of all halves is at least 0.75. Scores play no part in this. The
other targets are listed in targets.csv only.
"""

from __future__ import annotations

import argparse
import csv
import json
from itertools import combinations
from pathlib import Path

import numpy as np
from starts import start_cards
from targets import TARGETS
from truth import EPOCHS, N_SEEDS, RunStore, best_rate, starts_for

from sktransfer.agreement import weighted_kendall_tau

LEAST_CEILING = 0.75


def ceiling(accuracies: np.ndarray) -> float:
    """Agreement of the mean over half the seeds with that over the other half.

    `accuracies` has the shape (n_seeds, n_starts).
    """
    seeds = range(len(accuracies))
    taus = []
    for half in combinations(seeds, len(accuracies) // 2):
        others = [seed for seed in seeds if seed not in half]
        one, two = (accuracies[list(part)].mean(axis=0) for part in (half, others))
        taus.append(weighted_kendall_tau(one, two))
    return float(np.mean(taus))


def truth_rows(store: RunStore, target: str, n_train: int, starts: Path) -> list[dict]:
    """One row for each seed and start."""
    rows = []
    for seed in range(N_SEEDS):
        for start in starts_for(target, starts):
            rate = best_rate(store, start, target, n_train)
            key = start, target, n_train, seed
            rows.append(
                {
                    "start": start,
                    "target": target,
                    "n_train": n_train,
                    "seed": seed,
                    "fine_tuned": f"{store.results[*key, 'test', rate]:.5f}",
                    "linear_probe": f"{store.results[*key, 'probe', None]:.5f}",
                    "learning_rate": rate,
                }
            )
    return rows


def write(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    store = RunStore(args.truth)
    targets, truth = [], []
    for target in TARGETS:
        for n_train in EPOCHS:
            rows = truth_rows(store, target, n_train, args.starts)
            values = {
                kind: np.array([float(row[kind]) for row in rows]).reshape(N_SEEDS, -1)
                for kind in ("fine_tuned", "linear_probe")
            }
            agreed = {kind: ceiling(of) for kind, of in values.items()}
            spread = values["fine_tuned"].mean(axis=0).std(ddof=1)
            noise = values["fine_tuned"].std(axis=0, ddof=1).mean()
            targets.append(
                {
                    "target": target,
                    "n_train": n_train,
                    "n_starts": values["fine_tuned"].shape[1],
                    "ceiling": f"{agreed['fine_tuned']:.3f}",
                    "linear_probe_ceiling": f"{agreed['linear_probe']:.3f}",
                    "std_over_starts": f"{spread:.4f}",
                    "std_over_seeds": f"{noise:.4f}",
                    "chosen": int(agreed["fine_tuned"] >= LEAST_CEILING),
                }
            )
            print(targets[-1])
            if targets[-1]["chosen"]:
                truth += rows
    write(args.output / "targets.csv", targets)
    write(args.output / "truth.csv", truth)
    cards = start_cards(args.starts)
    starts = [
        {
            "start": name,
            "architecture": card["architecture"],
            "source": card["source"],
            "images": card["images"] or "",
            "epochs": card["epochs"],
            "source_accuracy": card["validation_accuracy"],
        }
        for name, card in cards.items()
    ]
    write(args.output / "starts.csv", starts)
    lines = args.scores.read_text("utf-8").splitlines()
    found = {tuple(record["run"]): record for record in map(json.loads, lines)}
    keys = ("start", "target", "n_train", "seed")
    of_rows = [found[tuple(row[key] for key in keys)] for row in truth]
    rows = [
        {key: row[key] for key in keys}
        | {
            name: "" if np.isnan(value) else f"{value:.6g}"
            for name, value in record["scores"].items()
        }
        for row, record in zip(truth, of_rows, strict=True)
    ]
    write(args.output / "scores.csv", rows)


if __name__ == "__main__":
    main()
