"""
=====================================
Metrics against one Gram product each
=====================================

This script times every fast metric on one data set in one run, and reports the ratio to
the float32 product F^T F. It also times all metrics that share work together. It
compares each metric with the operations of published code: a pseudo-inverse by SVD and
a matrix of class means for every sample (H-scores), one d x d determinant per class
(TransRate), and an SVD of the features (principal components of GBC). The n x n kernels
of LFC do not fit into memory at full size, so they are compared at n = 8,000. LEEP and
NCE are compared with one pass over the source probabilities.

    python bench_metrics.py            # n = 50,000, D = 2,048, K = 100; ten minutes
    python bench_metrics.py --quick
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.linalg import pinv
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from sktransfer.metrics import get_metric, get_scorer

FAST = ["logme", "h_score", "regularized_h_score", "lfc", "gbc", "transrate"]


class Identity:
    """Returns its input as features."""

    def transform(self, X):
        return X


def best_of(repeats: int, run: Callable[[], object]) -> float:
    """Minimum seconds of several runs."""
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


def class_means(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Class mean of every sample, of the shape of X."""
    means = np.zeros_like(X)
    for c in np.unique(y):
        means[y == c] = X[y == c].mean(axis=0)
    return means


def published_h_score(X: np.ndarray, y: np.ndarray) -> float:
    """Covariances of two n x d matrices, and an SVD of the first."""
    return np.trace(pinv(np.cov(X.T)) @ np.cov(class_means(X, y).T))


def published_regularized_h_score(X: np.ndarray, y: np.ndarray) -> float:
    """The same with a shrunk covariance."""
    X = X - X.mean(axis=0)
    model = LedoitWolf(assume_centered=True).fit(X)
    between = (1 - model.shrinkage_) * np.cov(class_means(X, y).T)
    return np.trace(pinv(model.covariance_) @ between)


def published_transrate(X: np.ndarray, y: np.ndarray) -> float:
    """One d x d determinant for all samples and one for each class."""
    X = X / np.linalg.norm(X, axis=1, keepdims=True)

    def rate(Z):
        n, d = Z.shape
        return np.linalg.slogdet(np.eye(d) + d / (n * 0.1) * Z.T @ Z)[1] / 2

    classes, counts = np.unique(y, return_counts=True)
    within = [rate(X[y == c]) for c in classes]
    return rate(X) - counts / len(X) @ within


def published_gbc(X: np.ndarray, y: np.ndarray) -> float:
    """Principal components by an SVD of the features, and a loop over class pairs."""
    Z = PCA(64, svd_solver="full").fit_transform(X)
    moments = [(Z[y == c].mean(axis=0), Z[y == c].var(axis=0)) for c in np.unique(y)]
    overlap = 0.0
    for i, (mean, variance) in enumerate(moments):
        for other_mean, other_variance in moments[i + 1 :]:
            pooled = (variance + other_variance) / 2
            distance = np.sum((mean - other_mean) ** 2 / pooled) / 8
            distance += np.sum(np.log(pooled / np.sqrt(variance * other_variance))) / 2
            overlap += np.exp(-distance)
    return -overlap


def published_lfc(X: np.ndarray, y: np.ndarray) -> float:
    """Two n x n kernels."""
    features = X @ X.T
    labels = np.where(y[:, None] == y, 1.0, -1.0)
    features = features - features.mean()
    labels -= labels.mean()
    norms = np.linalg.norm(features) * np.linalg.norm(labels)
    return np.sum(features * labels) / norms


PUBLISHED = {
    "h_score": published_h_score,
    "regularized_h_score": published_regularized_h_score,
    "transrate": published_transrate,
    "gbc": published_gbc,
    "lfc": published_lfc,
}


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


def compare(title: str, X: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Print the times of sktransfer and of published operations; scores must agree."""
    table = Table(title=title)
    for column in ("what", "ours, s", "published operations, s", "times faster"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name in names:
        score, published = get_metric(name).function, PUBLISHED[name]
        start = time.perf_counter()
        expected = published(X, y)
        theirs = time.perf_counter() - start
        ours = best_of(2, lambda score=score: score(X, y))
        np.testing.assert_allclose(score(X, y), expected, rtol=0.02)
        table.add_row(name, f"{ours:.3g}", f"{theirs:.3g}", f"{theirs / ours:.1f}")
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

    P, labels = make_proba(20_000, 1_000, args.k)
    rows = {"P.sum()": best_of(9, P.sum)}
    for name in ("leep", "nce"):
        score = get_metric(name).function
        rows[name] = best_of(9, lambda score=score: score(P, labels))
    show("20,000 x 1,000 float32 source probabilities", "P.sum()", rows)

    names = [name for name in FAST if name in PUBLISHED and name != "lfc"]
    compare(title, X, y, names)
    n = min(args.n, 8_000)
    compare(f"the first {n:,} samples", X[:n], y[:n], ["lfc"])


if __name__ == "__main__":
    main()
