"""
=======================
LogME against its peers
=======================

This script times every implementation of LogME on one data set in one process.

    python bench_logme.py                       # n = 50,000, D = 2,048, K = 100
    python bench_logme.py --quick
    python bench_logme.py --repeats 3 --output logme.json

The peers are the algorithms of You et al. (JMLR 2022) as the paper states them, one
class at a time in float64; the LogME of `transformer-ranker`, if installed; and
scikit-learn's `BayesianRidge`, which takes one target at a time. The floor is the
minimum of any exact method: one product F^T F, and one symmetric eigendecomposition.

A peer that would take many minutes is timed on a few classes. Its work per class is
then extrapolated, and its other work is counted once. The table states the number of
timed classes and marks extrapolated seconds with a tilde. "The same, without the SVD"
is Algorithm 3 after an eigendecomposition of F^T F. No paper uses it, but a user might.
"""

from __future__ import annotations

import argparse
import csv
import gc
import importlib
import importlib.util
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import BayesianRidge
from threadpoolctl import threadpool_info

from sktransfer.linear_model import LogMEClassifier

# As in the published code, except for its limit of 11 iterations.
TOL, MAX_ITER = 1e-3, 100


@dataclass
class Row:
    """One line of the table."""

    method: str
    seconds: float
    classes_timed: int
    extrapolated: bool
    logme: float
    difference: float  # to ours, on the classes timed
    ratio_to_ours: float = math.nan
    ratio_to_floor: float = math.nan


@dataclass
class Result:
    """Outcome of one run of one method."""

    evidence: np.ndarray  # per sample, of the first classes
    once: float  # seconds that do not depend on the number of classes
    per_class: float


def make_data(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 features like those of a ReLU network, and k classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(k, size=n)
    hidden = rng.normal(size=(k, 64)).astype(np.float32)[y] * 0.5
    hidden += rng.normal(size=(n, 64)).astype(np.float32)
    X = hidden @ rng.normal(size=(64, d)).astype(np.float32) / 8
    X += 0.5 * rng.standard_normal(size=(n, d), dtype=np.float32)
    return np.maximum(X, 0, out=X), y


def ours(X: np.ndarray, y: np.ndarray, classes: range) -> Result:
    """`LogMEClassifier`: float32 products, all classes at once."""
    start = time.perf_counter()
    model = LogMEClassifier().fit(X, y)
    evidence = model.log_evidence_ / len(y)
    return Result(evidence, time.perf_counter() - start, 0.0)


def floor(X: np.ndarray, y: np.ndarray, classes: range) -> Result:
    """F^T F in float32, its eigendecomposition in float64."""
    start = time.perf_counter()
    np.linalg.eigh((X.T @ X).astype(np.float64))
    return Result(np.array([]), time.perf_counter() - start, 0.0)


def class_by_class(prepare: Callable, solve: Callable) -> Callable:
    """A method that prepares once and then solves for every class."""

    def run(X: np.ndarray, y: np.ndarray, classes: range) -> Result:
        start = time.perf_counter()
        state = prepare(X.astype(np.float64))
        once = time.perf_counter() - start
        start = time.perf_counter()
        evidence = [solve(*state, (y == k).astype(np.float64)) for k in classes]
        per_class = (time.perf_counter() - start) / len(classes)
        return Result(np.array(evidence), once, per_class)

    return run


def log_evidence(alpha, beta, log_det, m2, error, n, d):
    """Log evidence per sample from the five terms of the textbook."""
    return (
        d * math.log(alpha)
        + n * math.log(beta)
        - log_det
        - beta * error
        - alpha * m2
        - n * math.log(2 * math.pi)
    ) / (2 * n)


def settled(alpha, beta, t):
    return abs(alpha / beta - t) <= TOL * t


def naive_prepare(F):
    return F, F.T @ F


def naive(F, G, y):
    """Evidence maximisation that inverts alpha I + beta F^T F in every iteration."""
    n, d = F.shape
    Fy, identity = F.T @ y, np.eye(d)
    alpha = beta = 1.0
    for _ in range(MAX_ITER):
        t = alpha / beta
        inverse = np.linalg.inv(alpha * identity + beta * G)
        m = beta * (inverse @ Fy)
        gamma = d - alpha * np.trace(inverse)
        m2, error = m @ m, np.sum((F @ m - y) ** 2)
        alpha, beta = gamma / m2, (n - gamma) / error
        if settled(alpha, beta, t):
            break
    log_det = np.linalg.slogdet(alpha * identity + beta * G)[1]
    return log_evidence(alpha, beta, log_det, m2, error, n, d)


def optimised_prepare(F):
    return F, *np.linalg.eigh(F.T @ F)


def optimised(F, s, V, y):
    """Algorithm 2: F^T F = V diag(s) V^T once, products with V in every iteration."""
    n, d = F.shape
    s, Fy = np.maximum(s, 0), F.T @ y
    alpha = beta = 1.0
    for _ in range(MAX_ITER):
        t = alpha / beta
        gamma = np.sum(beta * s / (alpha + beta * s))
        m = beta * (V @ ((V.T @ Fy) / (alpha + beta * s)))
        m2, error = m @ m, np.sum((F @ m - y) ** 2)
        alpha, beta = gamma / m2, (n - gamma) / error
        if settled(alpha, beta, t):
            break
    log_det = np.sum(np.log(alpha + beta * s))
    return log_evidence(alpha, beta, log_det, m2, error, n, d)


def fixed_point_prepare(F):
    U, singular, _ = np.linalg.svd(F, full_matrices=False)
    keep = singular > 1e-8 * singular[0]
    return U[:, keep], singular[keep] ** 2, F.shape[1]


def fixed_point_prepare_from_gram(F):
    s, V = np.linalg.eigh(F.T @ F)
    keep = s > 1e-12 * s[-1]
    s, V = s[keep], V[:, keep]
    return F @ V / np.sqrt(s), s, F.shape[1]


def fixed_point(U, s, d, y):
    """Algorithm 3: an iteration over t = alpha / beta only, on z = U^T y."""
    n = len(U)
    z2 = (U.T @ y) ** 2
    residual = y @ y - z2.sum()
    alpha = beta = 1.0
    for _ in range(MAX_ITER):
        t = alpha / beta
        gamma = np.sum(s / (t + s))
        m2 = np.sum(s * z2 / (t + s) ** 2)
        error = residual + np.sum(z2 / (1 + s / t) ** 2)
        alpha, beta = gamma / m2, (n - gamma) / error
        if settled(alpha, beta, t):
            break
    # Directions without features have the precision of the prior.
    log_det = np.sum(np.log(alpha + beta * s)) + (d - len(s)) * math.log(alpha)
    return log_evidence(alpha, beta, log_det, m2, error, n, d)


def bayesian_ridge(X: np.ndarray, y: np.ndarray, classes: range) -> Result:
    """BayesianRidge with defaults, except for the intercept and `compute_score`."""
    start = time.perf_counter()
    evidence = []
    for k in classes:
        model = BayesianRidge(fit_intercept=False, compute_score=True)
        evidence.append(model.fit(X, (y == k).astype(X.dtype)).scores_[-1] / len(y))
    seconds = time.perf_counter() - start
    return Result(np.array(evidence), 0.0, seconds / len(classes))


def load_transformer_ranker() -> Callable | None:
    """Load its LogME without the language models that the package imports."""
    package = importlib.util.find_spec("transformer_ranker")
    if package is None or importlib.util.find_spec("torch") is None:
        return None
    import torch

    parent = ModuleType("transformer_ranker_estimators")
    parent.__path__ = [str(Path(package.origin).parent / "estimators")]
    sys.modules[parent.__name__] = parent
    module = importlib.import_module(f"{parent.__name__}.logme")

    def run(X: np.ndarray, y: np.ndarray, classes: range) -> Result:
        start = time.perf_counter()
        score = module.LogME().fit(
            embeddings=torch.from_numpy(X), labels=torch.from_numpy(y)
        )
        # It returns only the mean over classes.
        return Result(np.array([score]), time.perf_counter() - start, 0.0)

    return run


def measure(args: argparse.Namespace) -> list[Row]:
    """Run all methods in turn, `repeats` times, and keep the best time of each."""
    X, y = make_data(args.n, args.d, args.k)
    everything, few = range(args.k), range(min(args.k, args.slow_classes))
    methods = {
        "sktransfer LogMEClassifier": (ours, everything),
        "floor: Gram and eigh": (floor, range(0)),
        "Algorithm 3, fixed point": (
            class_by_class(fixed_point_prepare, fixed_point),
            everything,
        ),
        "the same, without the SVD": (
            class_by_class(fixed_point_prepare_from_gram, fixed_point),
            everything,
        ),
        "Algorithm 2, optimised": (
            class_by_class(optimised_prepare, optimised),
            everything,
        ),
        "Algorithm 2, naive inverse": (class_by_class(naive_prepare, naive), few),
        "BayesianRidge, one target": (bayesian_ridge, range(1)),
    }
    if (ranker := load_transformer_ranker()) is None:
        print("transformer-ranker is skipped: pip install --no-deps transformer-ranker")
    else:
        methods["transformer-ranker"] = (ranker, everything)

    # Load libraries and start threads before timing.
    small = X[: max(4 * args.k, 200), :32].copy()
    ours(small, y[: len(small)], everything)

    best: dict[str, Result] = {}
    for repeat in range(args.repeats):
        for name, (run, classes) in methods.items():
            gc.collect()
            result = run(X, y, classes)
            print(f"  {repeat + 1}/{args.repeats} {name}", file=sys.stderr)
            have = best.get(name)
            if have is None or cost(result, len(classes)) < cost(have, len(classes)):
                best[name] = result

    reference = best["sktransfer LogMEClassifier"].evidence
    rows = []
    for name, (run, classes) in methods.items():
        result = best[name]
        # BayesianRidge is reported for one target, not extrapolated.
        extrapolated = 0 < len(classes) < args.k and run is not bayesian_ridge
        n_classes = args.k if extrapolated else len(classes)
        logme = result.evidence.mean() if len(result.evidence) else math.nan
        expected = reference[: len(classes)].mean() if len(classes) else math.nan
        rows.append(
            Row(
                method=name,
                seconds=cost(result, n_classes),
                classes_timed=len(classes),
                extrapolated=extrapolated,
                logme=float(logme),
                difference=float(logme - expected),
            )
        )
    for row in rows:
        row.ratio_to_ours = row.seconds / rows[0].seconds
        row.ratio_to_floor = row.seconds / rows[1].seconds
    return rows


def cost(result: Result, n_classes: int) -> float:
    return result.once + n_classes * result.per_class


def environment() -> dict[str, object]:
    """Hardware and software of the benchmark."""
    packages = ["numpy", "scipy", "scikit-learn", "torch", "transformer-ranker"]
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": cores,
        "blas": sorted(
            {
                f"{pool['internal_api']} {pool['version']} x{pool['num_threads']}"
                for pool in threadpool_info()
                if pool["user_api"] == "blas"
            }
        ),
        "python": platform.python_version(),
        "versions": versions,
    }


def show(rows: list[Row], args: argparse.Namespace, where: dict) -> None:
    table = Table(
        title=f"LogME of {args.n:,} x {args.d:,} float32 features, {args.k} classes; "
        f"best of {args.repeats}"
    )
    table.add_column("method")
    for heading in (
        "seconds",
        "classes timed",
        "x ours",
        "x floor",
        "LogME (classes timed)",
        "minus ours",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        known = not math.isnan(row.logme)
        table.add_row(
            row.method,
            f"{'~' if row.extrapolated else ''}{row.seconds:.3g}",
            str(row.classes_timed) if row.classes_timed else "",
            f"{row.ratio_to_ours:.2f}",
            f"{row.ratio_to_floor:.2f}",
            f"{row.logme:.6f}" if known else "",
            f"{row.difference:+.1e}" if known else "",
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(
        "~ extrapolated: the time of one class is multiplied by "
        f"{args.k}. BayesianRidge: max_iter=300 (its default), its own hyper-priors."
    )
    console.print(where)


def save(rows: list[Row], args: argparse.Namespace, where: dict) -> None:
    if args.output.suffix == ".csv":
        with args.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=asdict(rows[0]))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
        return
    settings = {name: getattr(args, name) for name in ("n", "d", "k", "repeats")}
    results = [
        {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(row).items()
        }
        for row in rows
    ]
    report = {"settings": settings, "environment": where, "results": results}
    args.output.write_text(json.dumps(report, indent=1) + "\n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--n", type=int, default=50_000, help="samples")
    parser.add_argument("--d", type=int, default=2_048, help="features")
    parser.add_argument("--k", type=int, default=100, help="classes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--slow-classes", type=int, default=3, help="classes timed for the slowest peer"
    )
    parser.add_argument("--quick", action="store_true", help="a small problem")
    parser.add_argument("--output", type=Path, help="a .json or .csv file")
    args = parser.parse_args()
    if args.quick:
        args.n, args.d, args.k, args.repeats = 4_000, 256, 10, 2
    if args.output is not None and args.output.suffix not in (".json", ".csv"):
        parser.error("--output must end in .json or .csv")
    return args


if __name__ == "__main__":
    arguments = parse_args()
    lines, surroundings = measure(arguments), environment()
    show(lines, arguments, surroundings)
    if arguments.output is not None:
        save(lines, arguments, surroundings)
