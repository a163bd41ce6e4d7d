"""Make the tables and the figure of the benchmark from finished runs.

    python examples/benchmarks/tuning/tables.py --runs FILE --output docs

Conditions whose runs are not finished are left out. Intervals are t intervals of the
mean gain over ten splits of the data, which plain fine-tuning shares with every method.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from run import STUDENTS, Benchmark, Condition, RunStore, plan
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


def outcomes(benchmark: Benchmark) -> list[Outcome]:
    """All that is finished, in the order of the plan."""
    found = []
    for condition, methods in plan():
        for method in methods:
            try:
                value = benchmark.choose(condition, method)
                accuracies = 100 * benchmark.test(condition, method, value)
                plain = 100 * benchmark.test(condition, "plain", None)
            except KeyError:
                continue
            found.append(Outcome(condition, method, value, accuracies, plain))
    return found


def row_of(outcome: Outcome) -> dict[str, str]:
    condition, (low, high) = outcome.condition, outcome.interval
    return {
        "teachers": condition.teachers,
        "unlabelled": str(condition.n_unlabelled),
        "target, labels": f"{condition.target}, {condition.n_labels}",
        "network": condition.student,
        "plain": f"{outcome.plain.mean():.1f} ± {outcome.plain.std(ddof=1):.1f}",
        "method": outcome.method,
        "weight": "0" if outcome.value is None else f"{outcome.value:g}",
        "accuracy": (
            f"{outcome.accuracies.mean():.1f} ± {outcome.accuracies.std(ddof=1):.1f}"
        ),
        "gain": f"{outcome.gains.mean():+.1f} ({low:+.1f} to {high:+.1f})",
        "splits won": f"{(outcome.gains > 0).sum()} of {len(outcome.gains)}",
    }


def plot(found: list[Outcome], path: Path) -> None:
    """Gain over plain fine-tuning by the number of unlabelled images."""
    import matplotlib.pyplot as plt

    main = [o for o in found if o.condition in {c for c, _ in plan()}]
    targets = list(dict.fromkeys(o.condition.target for o in main))
    figure, grid = plt.subplots(
        len(STUDENTS),
        len(targets),
        figsize=(2.7 * len(targets), 2.4 * len(STUDENTS)),
        sharex=True,
        sharey="col",
        squeeze=False,
        layout="constrained",
    )
    colours = {"b-tuning": "C0", "predictive distillation": "C1"}
    styles = {"strong": ("-", "o"), "weak": (":", "s")}
    for axes_of_student, student in zip(grid, STUDENTS, strict=True):
        for axes, target in zip(axes_of_student, targets, strict=True):
            axes.axhline(0, color="0.8", lw=1, zorder=0)
            for method, colour in colours.items():
                for teachers, (line, marker) in styles.items():
                    mine = sorted(
                        (
                            o
                            for o in found
                            if o.method == method
                            and o.condition.student == student
                            and o.condition.target == target
                            and o.condition.teachers == teachers
                            and o.condition.n_labels == _usual_labels(target)
                        ),
                        key=lambda o: o.condition.n_unlabelled,
                    )
                    if not mine:
                        continue
                    x = [o.condition.n_unlabelled for o in mine]
                    gain = np.array([o.gains.mean() for o in mine])
                    reach = np.array([o.interval[1] for o in mine]) - gain
                    axes.errorbar(
                        x,
                        gain,
                        reach,
                        color=colour,
                        ls=line,
                        marker=marker,
                        ms=4,
                        label=f"{method}, {teachers} teachers",
                    )
            axes.set_title(f"{target}, {student}", fontsize=9)
    figure.supxlabel("unlabelled images", fontsize=9)
    figure.supylabel("gain over plain fine-tuning in points", fontsize=9)
    handles = {}
    for axes in grid.flat:
        pairs = zip(*axes.get_legend_handles_labels(), strict=True)
        handles |= {label: handle for handle, label in pairs}
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=2, fontsize=8
    )
    figure.savefig(path, dpi=110)


def _usual_labels(target: str) -> int:
    return next(c.n_labels for c, _ in plan() if c.target == target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="finished runs")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    (args.output / "figures").mkdir(parents=True, exist_ok=True)
    found = outcomes(Benchmark(RunStore(args.runs)))
    rows = [row_of(outcome) for outcome in found]
    path = args.output / "tuning_methods.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    Console(width=180).print(table)
    plot(found, args.output / "figures" / "tuning_gains.png")


if __name__ == "__main__":
    main()
