"""Make the tables and the figure of the benchmark from finished runs.

    python tables.py FOLDER --runs FILE --cache DIR --output docs

FOLDER and DIR are those of run.py. Conditions whose runs are not finished are left out.
Intervals are t intervals of the mean gain over splits of the data, which plain
fine-tuning shares with every method: ten splits, or five where no more are finished.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from data import expected_accuracy, split
from rich.console import Console
from rich.table import Table
from run import (
    FEW_SPLITS,
    N_LABELS,
    N_SPLITS,
    STUDENTS,
    TEACHING,
    Benchmark,
    Condition,
    RunStore,
    main_conditions,
    plan,
    sweep,
)
from scipy import stats


@dataclass
class Outcome:
    """Test accuracies of a method and of plain fine-tuning, in per cent, by split."""

    condition: Condition
    method: str
    value: float | None
    accuracies: np.ndarray
    plain: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        return self.accuracies - self.plain

    @property
    def interval(self) -> np.ndarray:
        """The 95 % interval of the mean gain; it is 0 where plain was chosen."""
        gains = self.gains
        reach = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
        return gains.mean() + reach * np.array([-1, 1])


@cache
def teachers_accuracy(condition: Condition, *places) -> str:
    """What to expect of the mixed teachers by themselves, in per cent."""
    numbers = condition.n_labels, condition.n_unlabelled
    parts = (
        split(condition.target, places[0], *numbers, seed, "test")[0]
        for seed in range(N_SPLITS)
    )
    who = condition.teachers, condition.student, condition.target
    found = [expected_accuracy(*who, labelled, *places) for labelled in parts]
    return f"{100 * np.mean(found):.1f}"


def outcomes(benchmark: Benchmark) -> list[Outcome]:
    """All that is finished, in the order of the plan."""
    found = []
    for condition, methods in plan():
        for method in methods:
            for n_splits in (N_SPLITS, FEW_SPLITS):
                try:
                    value = benchmark.choose(condition, method)
                    accuracies = benchmark.test(condition, method, value, n_splits)
                    plain = benchmark.test(condition, "plain", None, n_splits)
                except KeyError:
                    continue
                parts = 100 * accuracies, 100 * plain
                found.append(Outcome(condition, method, value, *parts))
                break
    return found


def spread(accuracies: np.ndarray) -> str:
    return f"{accuracies.mean():.1f} ± {accuracies.std(ddof=1):.1f}"


def gain(outcome: Outcome) -> str:
    low, high = outcome.interval
    return f"{outcome.gains.mean():+.1f} ({low:+.1f} to {high:+.1f})"


def row_of(outcome: Outcome, *places) -> dict[str, str]:
    """Everything about one method under one condition."""
    condition = outcome.condition
    return {
        "target": condition.target,
        "network": condition.student,
        "labels": str(condition.n_labels),
        "unlabelled": str(condition.n_unlabelled),
        "teachers": condition.teachers or "none",
        "expected of teachers": (
            teachers_accuracy(condition, *places) if condition.teachers else ""
        ),
        "method": outcome.method,
        "setting": "plain" if outcome.value is None else f"{outcome.value:g}",
        "plain": spread(outcome.plain),
        "accuracy": spread(outcome.accuracies),
        "gain": gain(outcome),
        "splits": str(len(outcome.gains)),
        "splits won": str((outcome.gains > 0).sum()),
    }


def compare(found: list[Outcome], *places) -> list[dict[str, str]]:
    """Both ways to teach beside plain: strong teachers, most unlabelled images."""
    rows = {}
    for outcome in found:
        condition = outcome.condition
        if condition not in main_conditions(2000, "strong"):
            continue
        if outcome.method not in TEACHING:
            continue
        row = rows.setdefault(
            condition,
            {
                "target": condition.target,
                "network": condition.student,
                "expected of teachers": teachers_accuracy(condition, *places),
                "plain": spread(outcome.plain),
            },
        )
        row[outcome.method] = spread(outcome.accuracies)
        row[f"gain of {outcome.method}"] = gain(outcome)
    return list(rows.values())


def summarize(found: list[Outcome]) -> list[dict[str, str]]:
    """One row per method, teachers and number of unlabelled images."""
    groups = {}
    for outcome in found:
        condition = outcome.condition
        usual = condition.n_labels == N_LABELS[condition.target]
        labels = "200 or 500" if usual else "others"
        key = condition.teachers, condition.n_unlabelled, labels, outcome.method
        groups.setdefault(key, []).append(outcome)
    rows = []
    for (teachers, n_unlabelled, labels, method), group in groups.items():
        gains = np.array([outcome.gains.mean() for outcome in group])
        errors = np.array([stats.sem(outcome.gains) for outcome in group])
        rows.append(
            {
                "method": method,
                "teachers": teachers or "none",
                "unlabelled": str(n_unlabelled),
                "labels": labels,
                "conditions": str(len(group)),
                "mean gain": f"{gains.mean():+.1f}",
                "smallest": f"{gains.min():+.1f}",
                "largest": f"{gains.max():+.1f}",
                "better": str(sum(outcome.interval[0] > 0 for outcome in group)),
                "worse": str((gains < -errors).sum()),
            }
        )
    return rows


def sweep_rows(benchmark: Benchmark) -> list[dict[str, str]]:
    """Gain of B-Tuning by K and lambda: a row per target and unlabelled images."""
    rows = {}
    for condition, weight in sweep(N_LABELS):
        try:
            runs = condition, "b-tuning", weight, FEW_SPLITS
            accuracies = 100 * benchmark.test(*runs)
            plain = 100 * benchmark.test(condition, "plain", None, FEW_SPLITS)
        except KeyError:
            continue
        k = condition.teachers.removeprefix("best ")
        key = condition.target, condition.n_unlabelled
        row = rows.setdefault(
            key,
            {
                "target": condition.target,
                "unlabelled": str(condition.n_unlabelled),
                "plain": f"{plain.mean():.1f}",
            },
        )
        row[f"K = {k}, weight {weight:g}"] = f"{accuracies.mean():.1f}"
    return list(rows.values())


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """A table as a file and on the screen."""
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    table = Table(*names, title=path.name)
    for row in rows:
        table.add_row(*(row.get(name, "") for name in names))
    Console(width=200).print(table)


def plot(found: list[Outcome], path: Path) -> None:
    """Gain over plain fine-tuning by the number of unlabelled images."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(
        len(STUDENTS),
        len(N_LABELS),
        figsize=(8, 5.5),
        sharex=True,
        sharey="col",
        layout="constrained",
    )
    places = {
        (student, target): axes
        for axes_of_student, student in zip(grid, STUDENTS, strict=True)
        for axes, target in zip(axes_of_student, N_LABELS, strict=True)
    }
    for (student, target), axes in places.items():
        axes.axhline(0, color="0.8", lw=1, zorder=0)
        axes.set_title(f"{target}, {student}", fontsize=9)
        for teachers, style in {"strong": "o-", "weak": "s:"}.items():
            for method, colour in zip(TEACHING, ("C0", "C1"), strict=True):
                line = [
                    (o.condition.n_unlabelled, o.gains.mean(), np.ptp(o.interval) / 2)
                    for o in found
                    if o.method == method
                    and o.condition
                    in main_conditions(o.condition.n_unlabelled, teachers)
                    and (o.condition.student, o.condition.target) == (student, target)
                ]
                if line:
                    label = f"{method}, {teachers} teachers"
                    points = np.array(sorted(line)).T
                    points[0] += 40 * len(axes.containers)  # side by side
                    axes.errorbar(*points, fmt=style, color=colour, ms=4, label=label)
    figure.supxlabel("unlabelled images", fontsize=9)
    figure.supylabel("gain over plain fine-tuning in points", fontsize=9)
    handles, labels = max(
        (axes.get_legend_handles_labels() for axes in grid.flat),
        key=lambda pair: len(pair[1]),
    )
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images and weights")
    parser.add_argument("--cache", type=Path, required=True, help="folder of features")
    parser.add_argument("--runs", type=Path, required=True, help="finished runs")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    (args.output / "figures").mkdir(parents=True, exist_ok=True)
    places = args.folder, args.cache
    benchmark = Benchmark(RunStore(args.runs), (args.folder, args.cache))
    found = outcomes(benchmark)
    write(
        args.output / "tuning_methods.csv",
        [row_of(outcome, *places) for outcome in found],
    )
    write(args.output / "tuning_unlabelled.csv", compare(found, *places))
    write(args.output / "tuning_summary.csv", summarize(found))
    write(args.output / "tuning_sweep.csv", sweep_rows(benchmark))
    plot(found, args.output / "figures" / "tuning_gains.png")


if __name__ == "__main__":
    main()
