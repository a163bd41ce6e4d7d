"""
========================
What leave-one-out costs
========================

This script times leave-one-out scores beside LogME, and what a user might do instead.

    python bench_leave_one_out.py               # n = 50,000, D = 2,048, K = 100
    python bench_leave_one_out.py --quick

All methods run in turn in one process, and the table shows the medians of all rounds.
The floor is the least work of an exact method: one product F^T F, one symmetric
eigendecomposition, and one product of all samples with a D x D matrix.
`RidgeClassifierCV` is scikit-learn's leave-one-out for one penalty. A
`LogisticRegression` is fitted once, on four fifths of the samples, with ten iterations:
cross-validation takes five fits to convergence for each penalty.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median

import numpy as np
from bench_logme import make_data
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV

from sktransfer.linear_model import LogMEClassifier
from sktransfer.metrics import LabelledData, get_metric


def estimator(**params: bool | str) -> Callable:
    return lambda X, y: LogMEClassifier(**params).fit(X, y)


def metrics(*names: str) -> Callable:
    """Score as a selector does, sharing what the metrics have in common."""

    def run(X: np.ndarray, y: np.ndarray) -> None:
        data = LabelledData(X, y, with_parts=True)
        for name in names:
            get_metric(name).score(data)

    return run


def floor(X: np.ndarray, y: np.ndarray) -> None:
    _, V = np.linalg.eigh((X.T @ X).astype(np.float64))
    V = V.astype(X.dtype)
    for start in range(0, len(X), 4096):
        np.sum((X[start : start + 4096] @ V) ** 2, axis=1)


def ridge(X: np.ndarray, y: np.ndarray) -> None:
    RidgeClassifierCV(alphas=[1.0]).fit(X, y)


def logistic(X: np.ndarray, y: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LogisticRegression(max_iter=10).fit(X[: 4 * len(X) // 5], y[: 4 * len(y) // 5])


INTERCEPT = {"fit_intercept": True, "std_error": True}
METHODS = {
    "floor": floor,
    "LogME": estimator(),
    "LogME, intercept, std. error": estimator(**INTERCEPT),
    "the same with leave-one-out": estimator(**INTERCEPT, leave_one_out=True),
    "as in the papers, std. error": metrics("logme"),
    "the same and a head, leave-one-out": metrics("logme", "loo_accuracy"),
    "RidgeClassifierCV, one penalty": ridge,
    "LogisticRegression, a fifth of 5 folds": logistic,
}


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each method in each round."""
    X, y = make_data(args.n, args.d, args.k)
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for run in METHODS.values():
        run(X[:2000, :64], y[:2000])  # start threads, load libraries
    for i in range(args.repeats):
        for name, run in METHODS.items():
            start = time.perf_counter()
            run(X, y)
            seconds[name].append(time.perf_counter() - start)
            print(f"  {i + 1}/{args.repeats} {name}", file=sys.stderr)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--n", type=int, default=50_000, help="samples")
    parser.add_argument("--d", type=int, default=2_048, help="features")
    parser.add_argument("--k", type=int, default=100, help="classes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small problem")
    args = parser.parse_args()
    if args.quick:
        args.n, args.d, args.k, args.repeats = 4_000, 256, 10, 3
    seconds = measure(args)
    table = Table(title=f"{args.n:,} x {args.d:,} float32, {args.k} classes")
    for heading in ("method", "seconds", "x floor", "x the line above"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    above = None
    for name, times in seconds.items():
        ratios = ["", ""]
        for i, base in enumerate((seconds["floor"], above)):
            if base is not None:  # paired, round by round
                pairs = zip(times, base, strict=True)
                ratios[i] = f"{median(a / b for a, b in pairs):.2f}"
        table.add_row(name, f"{median(times):.3g}", *ratios)
        above = times
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
