"""Fine-tune with every method under every condition, most important first.

    python examples/benchmarks/tuning/run.py FOLDER --runs FILE --cache DIR

FOLDER holds ``images`` and ``weights``. Features of the teachers are kept in DIR. Every
finished run is a line of FILE, so a stopped script resumes.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from data import expected_accuracy, split
from methods import VALUES, Run, run_one

sys.path.append(str(Path(__file__).resolve().parents[1]))
from run_store import RunStore, complete

STUDENTS = ("plain-emoji", "residual-handwritten")
# Labels of the main conditions, and the others.
N_LABELS = {"clothes": 200, "objects": 500, "alphabets": 200}
MORE_LABELS = {"clothes": (100, 500), "objects": (250,), "alphabets": (100, 500)}
N_SPLITS = 10
# Splits on which the setting of a method is chosen.
N_CHOICE_SPLITS = 3
TEACHING = ("b-tuning", "predictive distillation")
# The number of teachers varies at one weight of B-Tuning, and the weight for three.
SWEEP_KS = (1, 3, 5, 12)
SWEEP_WEIGHTS = (1.0, 10.0, 30.0, 100.0)
SWEEP_K, SWEEP_WEIGHT = 3, 30.0
FEW_SPLITS = 5


@dataclass(frozen=True)
class Condition:
    """What methods are compared under."""

    target: str
    student: str
    n_labels: int
    n_unlabelled: int = 0
    teachers: str | None = None

    def run(self, method: str, value, seed: int, part: str) -> tuple:
        """One run; plain fine-tuning does not see teachers or unlabelled images."""
        if method == "plain":
            plain = replace(self, n_unlabelled=0, teachers=None)
            return tuple(Run(*vars(plain).values(), method, None, seed, part))
        return tuple(Run(*vars(self).values(), method, value, seed, part))


def main_conditions(n_unlabelled: int, teachers: str | None) -> list[Condition]:
    return [
        Condition(target, student, N_LABELS[target], n_unlabelled, teachers)
        for student, target in product(STUDENTS, N_LABELS)
    ]


def more_labels() -> list[Condition]:
    return [
        Condition(target, student, n_labels, 2000, "strong")
        for target, numbers in MORE_LABELS.items()
        for n_labels, student in product(numbers, STUDENTS)
    ]


def plan() -> Iterable[tuple[Condition, tuple[str, ...]]]:
    """Conditions and methods, most important first."""
    main = main_conditions
    stages = [
        (main(2000, "strong"), TEACHING),
        (main(0, "strong"), TEACHING),
        (main(2000, "weak"), TEACHING),
        (main(500, "strong"), TEACHING),
        (main(0, None), ("l2-sp", "head first")),
        (main(2000, "strong"), ("b-tuning, prior per class",)),
        (main(0, "strong"), ("feature distillation",)),
        (main(0, "alike"), ("zoo-tuning",)),
        (more_labels(), TEACHING),
        (main(2000, "strong"), ("feature distillation",)),
        (main(0, "weak"), TEACHING),
    ]
    for conditions, methods in stages:
        for condition in conditions:
            yield condition, methods


def sweep(targets: Iterable[str]) -> Iterable[tuple[Condition, float]]:
    """B-Tuning with K teachers and weight lambda, as in Fig. 11 of the paper."""
    settings = [(k, SWEEP_WEIGHT) for k in SWEEP_KS]
    settings += [(SWEEP_K, weight) for weight in SWEEP_WEIGHTS]
    for n_unlabelled, target, (k, weight) in product((0, 2000), targets, settings):
        teachers = f"best {k}"
        yield (
            Condition(target, STUDENTS[0], N_LABELS[target], n_unlabelled, teachers),
            weight,
        )


class Benchmark:
    """Finished runs, and choices by validation that are made from them."""

    def __init__(
        self,
        store: RunStore,
        places: tuple[Path, Path],
        n_splits: int = N_SPLITS,
        complete: Callable | None = None,
    ):
        self.store = store
        self.places = places
        self.n_splits = n_splits
        self.complete = complete

    def accuracies(self, runs: list[tuple]) -> np.ndarray:
        """Accuracies of the runs; missing runs are executed or raise a KeyError."""
        if self.complete is not None:
            self.complete(runs)
        return np.array([self.store.results[run] for run in runs])

    def _validation(self, condition: Condition, method: str) -> np.ndarray:
        """Validation accuracies, (n_values, n_splits)."""
        values = VALUES[method]
        runs = [
            condition.run(method, value, seed, "validation")
            for value, seed in product(values, range(N_CHOICE_SPLITS))
        ]
        return self.accuracies(runs).reshape(len(values), -1)

    def choose(self, condition: Condition, method: str) -> float | None:
        """The value of the setting with the best validation accuracy; None is plain.

        Plain fine-tuning stays where the gain is not above its standard error, and
        where the teachers are not expected to be as good.
        """
        if method in TEACHING and not self._can_help(condition):
            return None
        found = self._validation(condition, method)
        best = int(np.argmax(found.mean(axis=1).round(9)))
        gains = found[best] - self._validation(condition, "plain")[0]
        error = gains.std(ddof=1) / math.sqrt(len(gains))
        return VALUES[method][best] if gains.mean() > error else None

    def _can_help(self, condition: Condition) -> bool:
        """Whether teachers are expected to reach plain fine-tuning on validation."""
        numbers = condition.n_labels, condition.n_unlabelled
        expected = [
            expected_accuracy(
                condition.teachers,
                condition.student,
                condition.target,
                split(condition.target, self.places[0], *numbers, seed, "validation")[
                    0
                ],
                *self.places,
            )
            for seed in range(N_CHOICE_SPLITS)
        ]
        return np.mean(expected) >= self._validation(condition, "plain").mean()

    def test(self, condition: Condition, method: str, value, n_splits=None):
        """Test accuracies of a method at a value, one per split."""
        method = "plain" if value is None else method
        return self.accuracies(
            [
                condition.run(method, value, seed, "test")
                for seed in range(n_splits or self.n_splits)
            ]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images and weights")
    parser.add_argument("--runs", type=Path, required=True, help="finished runs")
    parser.add_argument("--cache", type=Path, required=True, help="folder of features")
    parser.add_argument("--targets", nargs="+", choices=N_LABELS, default=[*N_LABELS])
    parser.add_argument("--sweep", action="store_true", help="K and lambda alone")
    parser.add_argument("--splits", type=int, default=N_SPLITS, help="of the test")
    parser.add_argument("--first", type=int, help="conditions of the plan to run")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    store = RunStore(args.runs)
    context = multiprocessing.get_context("spawn")
    settings = args.folder, args.cache
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:

        def run_missing(runs: list[tuple]) -> None:
            if not all(run in store.results for run in runs):
                complete(
                    store, runs, pool, run_one, settings, " ".join(map(str, runs[0]))
                )

        benchmark = Benchmark(store, settings, args.splits, run_missing)
        for condition, weight in sweep(args.targets) if args.sweep else ():
            benchmark.test(condition, "b-tuning", weight, FEW_SPLITS)
        if args.sweep:
            return
        mine = [step for step in plan() if step[0].target in args.targets]
        for condition, methods in mine[: args.first]:
            benchmark.test(condition, "plain", None)
            for method in methods:
                chosen = benchmark.choose(condition, method)
                benchmark.test(condition, method, chosen)


if __name__ == "__main__":
    main()
