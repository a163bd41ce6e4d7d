"""
=====================================
Metrics against one Gram product each
=====================================

Seconds of every fast metric on one data set, side by side in one run, as a ratio to the
float32 product F^T F; the metrics that share work also all together. Then LEEP and NCE
against one pass over the source probabilities.

    python bench_metrics.py            # n = 50,000, D = 2,048, K = 100
    python bench_metrics.py --quick
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from sktransfer.metrics import get_metric, get_scorer

FAST = ["logme", "h_score", "regularized_h_score", "lfc", "gbc", "transrate"]


class Identity:
    """Features are what comes in."""

    def transform(self, X):
        return X


def best_of(repeats: int, run: Callable[[], object]) -> float:
    """Least seconds of several runs."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def make_features(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 features like those of a ReLU network, and labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(k, size=n)
    hidden = rng.normal(size=(k, 64)).astype(np.float32)[y] * 0.5
    hidden += rng.normal(size=(n, 64)).astype(np.float32)
    X = hidden @ rng.normal(size=(64, d)).astype(np.float32) / 8
    X += 0.5 * rng.standard_normal(size=(n, d), dtype=np.float32)
    return np.maximum(X, 0, out=X), y


def make_proba(n: int, n_source: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 source probabilities, and labels."""
    rng = np.random.default_rng(0)
    P = rng.standard_exponential(size=(n, n_source), dtype=np.float32)
    return P / P.sum(axis=1, keepdims=True), rng.integers(k, size=n)


def show(title: str, unit: str, rows: dict[str, float]) -> None:
    """Print seconds and ratios to the first row."""
    table = Table(title=title)
    table.add_column("what")
    table.add_column("seconds", justify="right")
    table.add_column(f"x {unit}", justify="right")
    first = next(iter(rows.values()))
    for name, seconds in rows.items():
        table.add_row(name, f"{seconds:.3g}", f"{seconds / first:.2f}")
    Console(width=100).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--d", type=int, default=2_048)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small problem")
    args = parser.parse_args()
    if args.quick:
        args.n, args.d, args.k = 4_000, 256, 10

    X, y = make_features(args.n, args.d, args.k)
    rows = {"Gram product": best_of(args.repeats, lambda: X.T @ X)}
    for name in FAST:
        score = get_metric(name).function
        rows[name] = best_of(args.repeats, lambda score=score: score(X, y))
    for together in (FAST[:5], FAST[1:]):
        scorer = get_scorer(together)
        seconds = best_of(args.repeats, lambda s=scorer: s(Identity(), X, y))
        rows[" + ".join(together)] = seconds
    title = f"{args.n:,} x {args.d:,} float32 features, {args.k} classes"
    show(title, "Gram product", rows)

    P, y = make_proba(20_000, 1_000, args.k)
    rows = {"P.sum()": best_of(5, P.sum)}
    for name in ("leep", "nce"):
        score = get_metric(name).function
        rows[name] = best_of(3, lambda score=score: score(P, y))
    show("20,000 x 1,000 float32 source probabilities", "P.sum()", rows)


if __name__ == "__main__":
    main()
