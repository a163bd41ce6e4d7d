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
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sktransfer.agreement import min_max_aggregate, rank_aggregate
from sktransfer.agreement._coefficients import weighted_taus
from sktransfer.agreement._regret import regrets
from sktransfer.datasets import load_benchmark

TRUTHS = ("fine_tuned", "linear_probe")
# Static lists: the same order for every target, or one learnt elsewhere.
STATIC = ("source_accuracy", "epochs", "other_targets")
# Scores that exist for a set of candidates only.
COMBINED = {
    "ncti": (min_max_aggregate, ("ncti_ncc", "ncti_seli", "ncti_vc")),
    "etran": (min_max_aggregate, ("energy", "lda")),
    "rank of logme, h_score": (rank_aggregate, ("logme", "h_score")),
    "rank of h_score, deep_logme": (rank_aggregate, ("h_score", "deep_logme")),
    "rank of deep_logme, deep_loo": (
        rank_aggregate,
        ("deep_logme", "deep_loo_log_likelihood"),
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
    return [*own, *COMBINED, *STATIC]


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
        for name, (aggregate, parts) in COMBINED.items():
            of[name] = np.array(
                [
                    aggregate({part: of[part][seed] for part in parts})
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
    # Scores that are all the same order nothing.
    taus = np.nan_to_num(weighted_taus(performance, scores))
    return np.stack(
        [taus.mean(axis=1), 100 * regrets(performance, scores).mean(axis=1)]
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


def subsets(benchmark) -> dict[str, set[str]]:
    """Starts of one architecture, and those that were trained to the end."""
    names, architecture = benchmark.starts["start"], benchmark.starts["architecture"]
    changed = ("untrained", "shuffled", "stem", "tenth", "early", "robust")
    return {
        "all": set(names),
        "plain": set(names[architecture == "plain"]),
        "residual": set(names[architecture == "residual"]),
        "fully trained": {n for n in names if not n.endswith(changed)},
    }


def within(cells: list[Cell], chosen: set[str]) -> np.ndarray:
    """Mean weighted tau of every score over some of the starts."""
    taus = []
    for cell in cells:
        rows = np.flatnonzero([start in chosen for start in cell.starts])
        taus.append(agreements(cell, "fine_tuned", rows)[0])
    return np.mean(taus, axis=0)


def n_passes(name: str) -> str:
    """Cost of a score in forward passes over the training images."""
    if name in STATIC:
        return "0"
    if name.startswith("fine_tuning_"):
        # A backward pass costs two forward passes; 70 % of the images train.
        return f"{3 * 0.7 * int(name.rsplit('_', 1)[1]) + 0.3:.1f}"
    return "1"


@dataclass
class Summary:
    """Means over the cells with their intervals, for one truth: (n_scores,) each."""

    tau: np.ndarray
    tau_interval: np.ndarray
    gain: np.ndarray
    gain_interval: np.ndarray
    regret: np.ndarray
    regret_interval: np.ndarray


def summarize(cells: list[Cell], kind: str, reference: int) -> Summary:
    """Agreement of every score with one truth; `gain` is that over a reference."""
    tau, regret = np.mean([agreements(cell, kind) for cell in cells], axis=0)
    drawn = bootstrap(cells, kind)
    taus, regrets_ = drawn[:, 0], drawn[:, 1]
    ends = partial(np.quantile, q=[0.025, 0.975], axis=0)
    return Summary(
        tau,
        ends(taus),
        tau - tau[reference],
        ends(taus - taus[:, [reference]]),
        regret,
        ends(regrets_),
    )


def with_interval(form: str, value: float, interval: np.ndarray) -> str:
    low, high = (format(end, form) for end in interval)
    return f"{value:{form}} ({low} to {high})"


def write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def plot(summary: Summary, names: list[str], order: np.ndarray, path: Path) -> None:
    """Dots and intervals of the weighted tau, best first."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.24 * len(order) + 1), layout="tight")
    for place, i in enumerate(order):
        low, high = summary.tau_interval[:, i]
        colour = "C1" if "deep" in names[i] else "C7" if names[i] in STATIC else "C0"
        axes.plot([low, high], [place, place], color=colour, lw=1.5)
        axes.plot(summary.tau[i], place, "o", color=colour, ms=5)
    axes.axvline(0, color="0.8", lw=1, zorder=0)
    axes.set_yticks(range(len(order)), [names[i] for i in order], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("weighted Kendall tau with the accuracy after fine-tuning")
    axes.margins(y=0.01)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    (args.output / "figures").mkdir(parents=True, exist_ok=True)
    benchmark = load_benchmark()
    cells, names = read_cells(benchmark), score_names(benchmark)
    tuned, probe = (summarize(cells, kind, names.index("logme")) for kind in TRUTHS)
    order = np.argsort(-tuned.tau, kind="stable")
    rows = [
        [
            names[i],
            with_interval(".2f", tuned.tau[i], tuned.tau_interval[:, i]),
            with_interval("+.2f", tuned.gain[i], tuned.gain_interval[:, i]),
            with_interval(".1f", tuned.regret[i], tuned.regret_interval[:, i]),
            with_interval(".2f", probe.tau[i], probe.tau_interval[:, i]),
            with_interval(".1f", probe.regret[i], probe.regret_interval[:, i]),
            n_passes(names[i]),
        ]
        for i in order
    ]
    header = ["score", "tau, fine-tuned", "less LogME", "regret", "tau, probe"]
    write(args.output / "which_score.csv", [[*header, "regret", "passes"], *rows])
    table = Table(*header, "regret", "passes")
    for row in rows:
        table.add_row(*row)
    titles = [f"{cell.target}, {cell.n_train}" for cell in cells]
    chosen = benchmark.targets["chosen"]
    ceilings = [f"{value:.2f}" for value in benchmark.targets["ceiling"][chosen]]
    per_cell = np.array([agreements(cell, "fine_tuned")[0] for cell in cells])
    by_target = [["halves of the seeds", *ceilings]]
    by_target += [[names[i], *(f"{tau:.2f}" for tau in per_cell[:, i])] for i in order]
    write(args.output / "which_score_by_target.csv", [["score", *titles], *by_target])
    targets = Table("score", *titles)
    for row in by_target:
        targets.add_row(*row)
    parts = {name: within(cells, of) for name, of in subsets(benchmark).items()}
    by_subset = [
        [names[i], *(f"{taus[i]:.2f}" for taus in parts.values())] for i in order
    ]
    write(args.output / "which_score_by_start.csv", [["score", *parts], *by_subset])
    starts = Table("score", *parts)
    for row in by_subset:
        starts.add_row(*row)
    Console(width=180).print(table, targets, starts)
    plot(tuned, names, order, args.output / "figures" / "which_score.png")


if __name__ == "__main__":
    main()
