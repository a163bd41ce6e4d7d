"""Compare the accuracy that leave-one-out announces with the accuracy that is reached.

    python examples/real/expected_accuracy.py --data FOLDER --output FOLDER

Twenty networks with published weights, three layers of four of them, and the embedded
zoo give features of five image targets. A head on each is fitted to a random sample of
a target and announces its accuracy and log-likelihood, and how probable it is to be
better than each other head. All are then tested on the other images. The script prints
tables and saves a figure in ``--output``. It takes six minutes of processor time.
"""

from __future__ import annotations

import argparse
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from more_networks import BUILDERS, make_body_extractor
from networks import CHAINS, RESNETS, make_extractor
from rich.console import Console
from rich.table import Table

from sktransfer.datasets import load_zoo
from sktransfer.exceptions import RoundingWarning, UnboundedEvidenceWarning
from sktransfer.linear_model import LogMEClassifier
from sktransfer.metrics import Score, probability_better

TARGETS = (
    "caltech101_50",
    "clothing",
    "mnist",
    "noto_emoji_groups",
    "omniglot_alphabets",
)
SCORES = {"accuracy": "accuracy", "log_likelihood": "log-likelihood"}
BINS = np.r_[np.arange(0.5, 0.96, 0.05), 1.0]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data/real"),
        help="folder of images/ and weights/",
    )
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--images", type=int, default=2000, help="number per target")
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[500, 200], help="numbers to fit to"
    )
    parser.add_argument("--seeds", type=int, default=20, help="draws of the samples")
    parser.add_argument("--output", type=Path, help="folder for the figure")
    arguments = parser.parse_args()
    needed = [
        *(f"images/{target}.npz" for target in arguments.targets),
        *(f"weights/{name}[-.]*" for name in [*RESNETS, *CHAINS, *BUILDERS]),
    ]
    missing = [pattern for pattern in needed if not any(arguments.data.glob(pattern))]
    if missing:
        parser.error(
            f"{arguments.data} has no {', '.join(missing)}. Set --data to the folder "
            "of images/, with one .npz file per target (images uint8 (n, 32, 32, 3) "
            "and labels (n,)), and weights/, with the checkpoints."
        )
    return arguments


def make_extractors(weights: Path) -> list[tuple[str, Any]]:
    """Make the extractors of all networks."""
    stages = [f"layer{i}" for i in (1, 2, 3)]
    return [
        *((name, make_extractor(weights, name, layer=stages)) for name in RESNETS),
        *((name, make_extractor(weights, name)) for name in CHAINS),
        *((name, make_body_extractor(weights, name)) for name in BUILDERS),
        *load_zoo(),
    ]


def fit_and_test(
    X: np.ndarray, codes: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[dict[str, Score], dict[str, np.ndarray]]:
    """Fit a head; return its leave-one-out scores, and the parts of those reached."""
    head = LogMEClassifier(prior="shared", fit_intercept=True, leave_one_out=True)
    head.fit(X[train], codes[train])
    proba, known = head.predict_proba(X[test]), np.isin(codes[test], head.classes_)
    log_proba = np.full(len(test), np.nan)
    log_proba[known] = head.log_predictive_density(X[test][known], codes[test][known])
    reached = {
        "accuracy": head.classes_[proba.argmax(axis=1)] == codes[test],
        "log_likelihood": log_proba,
        "confidence": proba.max(axis=1),
    }
    return head.loo_scores_, reached


class Trial:
    """All heads of one sample of one target."""

    def __init__(self, heads: list[tuple[dict, dict]]):
        scores, reached = zip(*heads, strict=True)
        self.scores = {key: [head[key] for head in scores] for key in SCORES}
        self.reached = {
            key: np.stack([head[key] for head in reached]) for key in reached[0]
        }

    def gaps(self, score: str) -> np.ndarray:
        """Announced less reached scores, and the variances that make them up.

        Rows are the gap and its variance by the samples alone, by samples and training
        set, and by the test images.
        """
        scores, reached = self.scores[score], self.reached[score]
        gap = [s.value for s in scores] - np.nanmean(reached, axis=1)
        sampling, own = (
            [s.std_error**2 for s in some]
            for some in (without_training(scores), scores)
        )
        test = np.nanvar(reached, axis=1) / np.sum(np.isfinite(reached), axis=1)
        return np.stack([gap, sampling, own, test])

    def pairs(self, score: str) -> tuple[np.ndarray, ...]:
        """Probability of the better head to be better, without and with the effect of
        the training set, and whether it is; for each pair of heads.
        """
        scores = self.scores[score]
        pairs = np.triu_indices(len(scores), 1)
        reached = np.nanmean(self.reached[score], axis=1)
        better = (1 + np.sign(np.subtract.outer(reached, reached))[pairs]) / 2
        plain, full = (
            probability_better(some)[pairs]
            for some in (without_training(scores), scores)
        )
        better = np.where(full < 0.5, 1 - better, better)
        return np.maximum(plain, 1 - plain), np.maximum(full, 1 - full), better


def without_training(scores: list[Score]) -> list[Score]:
    """The scores, with the variance of their parts alone."""
    return [score._replace(variances=None) for score in scores]


def reliability(
    probability: np.ndarray, better: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, frequency and number of pairs in each bin."""
    codes = np.clip(np.digitize(probability, BINS) - 1, 0, len(BINS) - 2)
    n = np.bincount(codes, minlength=len(BINS) - 1)
    with np.errstate(invalid="ignore"):
        said, true = (np.bincount(codes, w, len(n)) / n for w in (probability, better))
    return said, true, n


def calibration_error(trial: Trial) -> float:
    """Expected calibration error of the class probabilities, mean over heads."""
    errors = []
    for sure, right in zip(
        trial.reached["confidence"], trial.reached["accuracy"], strict=True
    ):
        codes = np.minimum((10 * sure).astype(int), 9)
        errors.append(np.abs(np.bincount(codes, right - sure)).sum() / len(sure))
    return float(np.mean(errors))


def root_mean_square(gap: np.ndarray, variance: np.ndarray) -> str:
    """Of gaps in units of their standard error."""
    some = gap != 0
    with np.errstate(divide="ignore"):
        return f"{np.sqrt(np.mean(gap[some] ** 2 / variance[some])):.2f}"


def honesty_table(n: int, trials: dict[str, list[Trial]]) -> Table:
    """Compare announced and reached scores, target by target."""
    table = Table(title=f"Heads fitted to {n} samples: announced minus reached score")
    table.add_column("target")
    table.add_column("score")
    for header in (
        "heads",
        "mean absolute",
        "bias",
        "z: samples, test",
        "z: samples, training",
        "z: all three",
        "calibration error",
    ):
        table.add_column(header, justify="right")
    everything = [trial for some in trials.values() for trial in some]
    for target, some in [*trials.items(), ("all", everything)]:
        for score, title in SCORES.items():
            unit = "points" if score == "accuracy" else "nats"
            digits, factor = (1, 100) if score == "accuracy" else (3, 1)
            gap, sampling, own, test = np.hstack([trial.gaps(score) for trial in some])
            variances = (sampling + test, own, own + test)
            error = np.mean([calibration_error(trial) for trial in some])
            table.add_row(
                target,
                f"{title} ({unit})",
                str(len(gap)),
                f"{factor * np.abs(gap).mean():.{digits}f}",
                f"{factor * gap.mean():+.{digits}f}",
                *(root_mean_square(gap, variance) for variance in variances),
                f"{100 * error:.1f}" if score == "accuracy" else "",
            )
    return table


def reliability_table(n: int, pairs: dict[str, tuple[np.ndarray, ...]]) -> Table:
    """Compare P(better) with how often the head is better."""
    table = Table(title=f"P(better) from {n} samples (%), and how often it came true")
    table.add_column("P")
    for title in SCORES.values():
        for header in ("pairs", "samples alone", "pairs", "with training"):
            table.add_column(f"{title}: {header}", justify="right")
    columns = []
    for plain, corrected, better in pairs.values():
        for probability in (plain, corrected):
            said, true, n_pairs = reliability(probability, better)
            columns.append([str(n) for n in n_pairs])
            gaps = zip(100 * true, 100 * (true - said), strict=True)
            columns.append([f"{rate:.1f} ({gap:+.1f})" for rate, gap in gaps])
    bins = [f"{100 * low:.0f}-{100 * high:.0f}" for low, high in pairwise(BINS)]
    for row in zip(bins, *columns, strict=True):
        table.add_row(*row)
    return table


def plot(trials: dict[str, list[Trial]], pairs: dict, n: int, file: Path) -> None:
    """Plot announced against reached accuracy, and the reliability of P(better)."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, 4.6), layout="constrained", width_ratios=(1.15, 1, 1)
    )
    for i, (target, (trial, *_)) in enumerate(trials.items()):
        scores = trial.scores["accuracy"]
        left.errorbar(
            [100 * score.value for score in scores],
            100 * trial.reached["accuracy"].mean(axis=1),
            xerr=[100 * score.std_error for score in scores],
            fmt="o",
            color=f"C{i}",
            markersize=4,
            linewidth=0.8,
            alpha=0.8,
            label=target,
        )
    left.plot([0, 100], [0, 100], color="0.4", linewidth=0.8, zorder=0)
    left.set(
        xlabel="announced: leave-one-out accuracy ± standard error (%)",
        ylabel="reached: accuracy on the other images (%)",
        title=f"{len(scores)} heads per target, {n} samples",
        xlim=(0, 103),
        ylim=(0, 103),
    )
    left.legend(frameon=False)
    for axis, (score, title) in zip((middle, right), SCORES.items(), strict=True):
        plain, corrected, better = pairs[score]
        axis.fill_between(
            [50, 100], [43, 93], [57, 107], color="0.92", label="within 7 points"
        )
        axis.plot([50, 100], [50, 100], color="0.4", linewidth=0.8)
        for values, marker, colour, label in (
            (plain, "s--", "C7", "sampling alone"),
            (corrected, "o-", "C0", "with the training set"),
        ):
            said, true, _ = reliability(values, better)
            axis.plot(
                100 * said, 100 * true, marker, color=colour, markersize=5, label=label
            )
        axis.set(
            xlabel="P(better) by leave-one-out (%)",
            ylabel="how often it was better (%)",
            title=f"P(better) by {title}",
            xlim=(50, 100.5),
            ylim=(45, 100.5),
        )
        axis.legend(frameon=False, loc="upper left")
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=160)


def main() -> None:
    arguments = parse_arguments()
    # With more features than samples a single image of a class is explained exactly.
    # That concerns the evidence of the class alone, not the head.
    warnings.simplefilter("ignore", UnboundedEvidenceWarning)
    # Most features of one network hardly vary.
    warnings.simplefilter("ignore", RoundingWarning)
    console = Console(width=170)
    extractors = make_extractors(arguments.data / "weights")
    trials = {n: {} for n in arguments.samples}
    for target in arguments.targets:
        start = time.perf_counter()
        with np.load(arguments.data / "images" / f"{target}.npz") as file:
            images, labels = file["images"], file["labels"]
        images, labels = images[: arguments.images], labels[: arguments.images]
        codes = np.unique(labels, return_inverse=True)[1]
        features = [
            F
            for _, extractor in extractors
            for F in extractor.extract(images).features.values()
        ]
        middle = time.perf_counter()
        for n in arguments.samples:
            trials[n][target] = []
            for seed in range(arguments.seeds):
                rows = np.random.default_rng([seed, n]).permutation(len(codes))
                heads = [fit_and_test(F, codes, rows[:n], rows[n:]) for F in features]
                trials[n][target].append(Trial(heads))
        end = time.perf_counter()
        console.print(
            f"{target}: {len(images)} images, {len(features)} candidates; features "
            f"{middle - start:.0f} s, heads {end - middle:.0f} s"
        )
    for n, by_target in trials.items():
        pairs = {
            score: tuple(
                map(
                    np.concatenate,
                    zip(
                        *(t.pairs(score) for some in by_target.values() for t in some),
                        strict=True,
                    ),
                )
            )
            for score in SCORES
        }
        console.print(honesty_table(n, by_target))
        console.print(reliability_table(n, pairs))
        if arguments.output and n == arguments.samples[0]:
            file = arguments.output / "expected_accuracy.png"
            plot(by_target, pairs, n, file)
            console.print(f"Figure: {file}")


if __name__ == "__main__":
    main()
