"""Make the tables and the picture of the benchmark from what the package carries.

    python examples/benchmarks/transferability/tables.py --output docs

For every score: its weighted tau with the accuracies after fine-tuning, and with those
of a linear probe on the frozen features, the difference to LogME, the regret in points
and the cost in forward passes. The intervals come from a bootstrap that draws targets,
starts and seeds with replacement; all scores share its draws.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sktransfer.agreement import rank_aggregate
from sktransfer.agreement._coefficients import weighted_taus
from sktransfer.agreement._regret import regrets
from sktransfer.datasets import load_benchmark

TRUTHS = ("fine_tuned", "linear_probe")
# Static lists: the same order for every target, or one learnt elsewhere.
STATIC = ("source_accuracy", "epochs", "other_targets")
# Scores combined by their mean rank.
RANK_AVERAGES = {
    "rank: logme, h_score": ("logme", "h_score"),
    "rank: logme, deep_logme": ("logme", "deep_logme"),
    "rank: deep_logme, deep_loo_log_likelihood": (
        "deep_logme",
        "deep_loo_log_likelihood",
    ),
}
N_RESAMPLES = 1000
SEED = 0


@dataclass
class Cell:
    """A target with a number of training images."""

    target: str
    n_train: int
    starts: np.ndarray
    truth: dict[str, np.ndarray]  # (n_seeds, n_starts)
    scores: np.ndarray  # (n_scores, n_seeds, n_starts)


def score_names(benchmark) -> list[str]:
    keys = ("start", "target", "n_train", "seed")
    own = [name for name in benchmark.scores if name not in keys]
    return [*own, *RANK_AVERAGES, *STATIC]


def read_cells(benchmark) -> list[Cell]:
    """The cells that count, with all scores; a score that failed is minus infinity."""
    truth, scores, about = benchmark.truth, benchmark.scores, benchmark.starts
    cells = []
    for target, n_train, chosen in zip(
        benchmark.targets["target"],
        benchmark.targets["n_train"],
        benchmark.targets["chosen"],
        strict=True,
    ):
        if not chosen:
            continue
        rows = (truth["target"] == target) & (truth["n_train"] == n_train)
        seeds = truth["seed"][rows]
        n_seeds = len(np.unique(seeds))
        starts = truth["start"][rows][seeds == seeds[0]]
        of = {
            name: np.nan_to_num(values[rows].reshape(n_seeds, -1), nan=-np.inf)
            for name, values in scores.items()
            if values.dtype.kind == "f"
        }
        for name, parts in RANK_AVERAGES.items():
            of[name] = np.array(
                [
                    rank_aggregate({part: of[part][seed] for part in parts})
                    for seed in range(n_seeds)
                ]
            )
        place = {start: i for i, start in enumerate(about["start"])}
        for name in ("source_accuracy", "epochs"):
            listed = np.nan_to_num(about[name][[place[start] for start in starts]])
            of[name] = np.tile(listed, (n_seeds, 1))
        of["other_targets"] = np.tile(
            _elsewhere(truth, target, n_train, starts), (n_seeds, 1)
        )
        cells.append(
            Cell(
                str(target),
                int(n_train),
                starts,
                {kind: truth[kind][rows].reshape(n_seeds, -1) for kind in TRUTHS},
                np.stack([of[name] for name in score_names(benchmark)]),
            )
        )
    return cells


def _elsewhere(truth, target, n_train, starts) -> np.ndarray:
    """Mean accuracy of the starts on the other targets, each centred and scaled."""
    total, count = np.zeros(len(starts)), np.zeros(len(starts))
    for other in np.unique(truth["target"]):
        if other == target:
            continue
        rows = (truth["target"] == other) & (truth["n_train"] == n_train)
        names = truth["start"][rows]
        means = {
            name: truth["fine_tuned"][rows][names == name].mean()
            for name in np.unique(names)
        }
        values = np.array(list(means.values()))
        for i, start in enumerate(starts):
            if start in means:
                total[i] += (means[start] - values.mean()) / values.std()
                count[i] += 1
    return total / np.maximum(count, 1)


def agreements(cell: Cell, kind: str, rows=None, seeds=None) -> np.ndarray:
    """(weighted tau, regret) of every score, means over seeds: (2, n_scores)."""
    rows = np.arange(len(cell.starts)) if rows is None else rows
    seeds = np.arange(cell.scores.shape[1]) if seeds is None else seeds
    performance = cell.truth[kind][seeds].mean(axis=0)[rows]
    scores = cell.scores[:, seeds][..., rows]
    performance = np.broadcast_to(performance, scores.shape)
    return np.stack(
        [
            np.nanmean(weighted_taus(performance, scores), axis=1),
            100 * regrets(performance, scores).mean(axis=1),
        ]
    )


def bootstrap(cells: list[Cell], kind: str) -> np.ndarray:
    """Resampled means over the cells: (n_resamples, 2, n_scores)."""
    rng = np.random.default_rng(SEED)
    targets = sorted({cell.target for cell in cells})
    starts = sorted({start for cell in cells for start in cell.starts})
    n_seeds = cells[0].scores.shape[1]
    means = []
    for _ in track(range(N_RESAMPLES), f"bootstrap, {kind}"):
        drawn = rng.multinomial(len(targets), np.full(len(targets), 1 / len(targets)))
        copies = dict(
            zip(
                starts,
                rng.multinomial(len(starts), np.full(len(starts), 1 / len(starts))),
                strict=True,
            )
        )
        seeds = rng.integers(0, n_seeds, n_seeds)
        of_cells, weights = [], []
        for cell in cells:
            if weight := drawn[targets.index(cell.target)]:
                rows = np.repeat(
                    np.arange(len(cell.starts)), [copies[s] for s in cell.starts]
                )
                of_cells.append(agreements(cell, kind, rows, seeds))
                weights.append(weight)
        means.append(np.average(of_cells, axis=0, weights=weights))
    return np.array(means)


def n_passes(name: str) -> str:
    """Cost of a score in forward passes over the training images."""
    if name in STATIC:
        return "0"
    if name.startswith("fine_tuning_"):
        # A backward pass costs two forward passes; 70 % of the images train.
        return f"{3 * 0.7 * int(name.rsplit('_', 1)[1]) + 0.3:.1f}"
    return "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    benchmark = load_benchmark()
    cells, names = read_cells(benchmark), score_names(benchmark)
    logme = names.index("logme")
    columns: dict[str, np.ndarray] = {}
    for kind in TRUTHS:
        value = np.mean([agreements(cell, kind) for cell in cells], axis=0)
        drawn = bootstrap(cells, kind)
        columns[f"{kind} tau"], columns[f"{kind} regret"] = value
        columns[f"{kind} low"], columns[f"{kind} high"] = np.quantile(
            drawn[:, 0], [0.025, 0.975], axis=0
        )
        gain = drawn[:, 0] - drawn[:, 0, [logme]]
        columns[f"{kind} gain"] = value[0] - value[0, logme]
        columns[f"{kind} gain low"], columns[f"{kind} gain high"] = np.quantile(
            gain, [0.025, 0.975], axis=0
        )
        columns[f"{kind} regret high"] = np.quantile(drawn[:, 1], 0.975, axis=0)
    order = np.argsort(-columns["fine_tuned tau"])
    with (args.output / "which_score.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["score", *columns, "passes"])
        for i in order:
            cells_of = [f"{values[i]:.2f}" for values in columns.values()]
            writer.writerow([names[i], *cells_of, n_passes(names[i])])
    by_cell = Table("score", *(f"{cell.target} {cell.n_train}" for cell in cells))
    per_cell = [agreements(cell, "fine_tuned")[0] for cell in cells]
    with (args.output / "which_score_by_target.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["score", *(f"{c.target}, {c.n_train}" for c in cells)])
        for i in order:
            row = [names[i], *(f"{values[i]:.2f}" for values in per_cell)]
            writer.writerow(row)
            by_cell.add_row(*row)
    table = Table("score", "fine-tuned", "less LogME", "regret", "probe", "regret")
    for i in order:
        table.add_row(
            names[i],
            "{:.2f} ({:.2f}..{:.2f})".format(
                *(columns[f"fine_tuned {part}"][i] for part in ("tau", "low", "high"))
            ),
            "{:+.2f} ({:+.2f}..{:+.2f})".format(
                *(
                    columns[f"fine_tuned gain{part}"][i]
                    for part in ("", " low", " high")
                )
            ),
            f"{columns['fine_tuned regret'][i]:.1f}",
            "{:.2f} ({:.2f}..{:.2f})".format(
                *(columns[f"linear_probe {part}"][i] for part in ("tau", "low", "high"))
            ),
            f"{columns['linear_probe regret'][i]:.1f}",
        )
    console = Console(width=160)
    console.print(table)
    console.print(by_cell)


if __name__ == "__main__":
    main()
