"""The command line: rank the embedded zoo, or the features in the user's files."""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from sklearn.preprocessing import FunctionTransformer

from sktransfer._version import __version__
from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.metrics import get_scorer_names, regret, weighted_kendall_tau
from sktransfer.metrics._registry import METRICS
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._files import read_feature_files, read_labels
from sktransfer.utils._validation import describe_task

_EPILOG = """\
examples:
  sktransfer demo
      rank fourteen small pre-trained networks on scikit-learn's digits
  sktransfer rank --features resnet.npy vit.npy --labels y.npy
      rank models by the features they gave, one file a model
  sktransfer rank --features *.npy --labels y.csv --metric logme h_score \\
      --output ranking.csv
      the same by two metrics, the table also written to a file
"""


_FOOTNOTE = """\
LogME: nats a sample, with its standard error. P(> next): probability that the
model's LogME is larger than the next one's, on this many samples. tau_w: weighted
Kendall correlation with the accuracy. regret: points of accuracy that fine-tuning
the top pick loses. Source accuracy and parameters are static: they do not look at
the data."""


class UsageError(Exception):
    """What the user can mend; becomes one sentence and exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code: 0, or 2 for bad input.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except UsageError as error:
        message = " ".join(str(error).split())
        print(f"sktransfer {arguments.command}: error: {message}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sktransfer",
        description="Which pre-trained model will do best on your labelled data, "
        "before you fine-tune any of them?",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser(
        "demo",
        help="rank the embedded zoo of pre-trained networks on digits",
        description="Rank the embedded zoo of small pre-trained networks on "
        "scikit-learn's digits by LogME, and compare the order with the accuracies "
        "recorded after fine-tuning them.",
        epilog="example:\n  sktransfer demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.set_defaults(run=_run_demo)

    rank = commands.add_parser(
        "rank",
        help="rank models by files of the features they gave",
        description="Rank pre-trained models on your labelled data by the features "
        "that each gave for it: one file a model, one row a sample.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rank.add_argument(
        "--features",
        nargs="+",
        required=True,
        type=Path,
        metavar="FILE",
        help=".npy, .npz (each array is a model) or .csv of shape (n_samples, "
        "n_features)",
    )
    rank.add_argument(
        "--labels",
        required=True,
        type=Path,
        metavar="FILE",
        help=".npy, .npz or .csv: labels or numbers, one row a sample",
    )
    rank.add_argument(
        "--metric",
        nargs="+",
        default=["logme"],
        metavar="NAME",
        help="metrics that read features, the first of which decides (default: logme): "
        f"{', '.join(_feature_metrics())}",
    )
    rank.add_argument(
        "--task",
        default="auto",
        choices=["auto", "classification", "regression", "multilabel"],
        help="how to read the labels (default: auto: integers and text are classes, "
        "numbers with a fraction are numbers)",
    )
    rank.add_argument(
        "--output", type=Path, metavar="FILE", help="write the table to a .csv file"
    )
    rank.add_argument(
        "--jobs", type=int, default=None, metavar="N", help="models at the same time"
    )
    rank.set_defaults(run=_run_rank)
    return parser


def _feature_metrics() -> list[str]:
    names = get_scorer_names()
    return [name for name in names if METRICS[name].reads == "features"]


def _run_demo(arguments: argparse.Namespace) -> int:
    from sktransfer.datasets import load_target, load_zoo, load_zoo_cards

    try:
        zoo = load_zoo()
    except ImportError as error:
        raise UsageError(str(error)) from error
    target = load_target("digits")
    selector = ModelSelector(zoo)
    _fit_with_progress(selector, target.data, target.target)
    n = len(target.target)
    console = _console()
    task = describe_task(target.target, selector.task_)
    title = f"{len(zoo)} networks on {n} digits: {task}"
    console.print(_table(selector, title, model="network"))
    cards = load_zoo_cards()
    console.print(_agreement_table(selector, cards))
    console.print(_FOOTNOTE, soft_wrap=True)
    return 0


def _agreement_table(selector: ModelSelector, cards: dict[str, dict]) -> Table:
    """How well LogME and static baselines order the recorded accuracies."""
    from sktransfer.datasets import load_zoo_ground_truth

    names = [str(name) for name in selector.results_["name"]]
    source = [cards[name]["validation_accuracy"] for name in names]
    rankers = {
        "LogME": selector.results_["logme"],
        # An untrained network has none: a static ranker puts it last.
        "source accuracy": np.array([value or 0.0 for value in source]),
        "parameters": np.array([cards[name]["n_parameters"] for name in names]),
    }
    table = _new_table("Agreement with the accuracy after fine-tuning on n digits")
    table.add_column("order by")
    table.add_column("top pick", no_wrap=True)
    accuracies = {}
    for n_train in (100, 500):
        truth = load_zoo_ground_truth(n_train)
        by_name = dict(zip(truth["network"], truth["accuracy_mean"], strict=True))
        accuracies[n_train] = np.array([100 * by_name[name] for name in names])
        table.add_column(f"tau_w, n={n_train}", justify="right")
        table.add_column("regret", justify="right")
    for ranker, scores in rankers.items():
        cells = [ranker, names[int(np.argmax(scores))]]
        for accuracy in accuracies.values():
            cells.append(f"{weighted_kendall_tau(accuracy, scores):.2f}")
            cells.append(f"{regret(accuracy, scores):.2f}")
        table.add_row(*cells)
    return table


def _run_rank(arguments: argparse.Namespace) -> int:
    try:
        features = read_feature_files(arguments.features)
        y = read_labels(arguments.labels, len(next(iter(features.values()))))
    except ValueError as error:
        raise UsageError(str(error)) from error
    wrong = [m for m in arguments.metric if m not in _feature_metrics()]
    if wrong:
        raise UsageError(
            f"{wrong[0]!r} is not a metric that reads features; choose among "
            f"{', '.join(_feature_metrics())}."
        )
    for name, array in features.items():
        if len(array) != len(y):
            raise UsageError(
                f"{name} has {len(array)} rows, but {arguments.labels} has {len(y)}: "
                "both must have one row a sample."
            )
    if arguments.output is not None:
        if arguments.output.suffix != ".csv":
            raise UsageError(f"--output must end in .csv; got {arguments.output}.")
        if not arguments.output.parent.is_dir():
            raise UsageError(f"--output: {arguments.output.parent} is not a folder.")

    # Every candidate sees the same rows: a row number goes in, its features come out.
    extractors = [
        (name, FunctionTransformer(_Rows(array), check_inverse=False))
        for name, array in features.items()
    ]
    selector = ModelSelector(
        extractors,
        scoring=arguments.metric,
        task=arguments.task,
        n_jobs=arguments.jobs,
    )
    try:
        _fit_with_progress(selector, np.arange(len(y))[:, None], y)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    title = f"{len(features)} model{'s' * (len(features) > 1)} on {len(y)} samples"
    title += f": {describe_task(y, selector.task_)}"
    _console().print(_table(selector, title, widths=True))
    if arguments.output is not None:
        try:
            _write_csv(selector, arguments.output)
        except OSError as error:
            raise UsageError(str(error)) from error
        print(f"written: {arguments.output}", file=sys.stderr)
    return 0


class _Rows:
    """Features by row number; a class, so that workers can unpickle it."""

    def __init__(self, features: np.ndarray):
        self.features = features

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self.features[rows[:, 0]]


def _fit_with_progress(selector: ModelSelector, X: Any, y: Any) -> None:
    """Fit with a progress bar on standard error, and failures after the table."""
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with progress, _plain_warnings():
        selector.set_callbacks(_RichProgress(progress)).fit(X, y)


class _RichProgress:
    """scikit-learn callback that advances one bar by a step a candidate."""

    def __init__(self, progress: Progress):
        self.progress = progress

    def setup(self, estimator: Any, context: Any) -> None:
        self.task = self.progress.add_task("Extracting", total=context.max_subtasks)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        if context.parent is not None:
            self.progress.update(self.task, description=context.task_name)

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        if context.parent is not None:
            self.progress.advance(self.task)

    def teardown(self, estimator: Any, context: Any) -> None:
        self.progress.remove_task(self.task)


@contextmanager
def _plain_warnings():
    """Print warnings as sentences, without the place in the code."""

    def show(message, category, *_, **__):
        # Failures are in the table, with their reasons.
        if not issubclass(category, CandidateFailedWarning):
            print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


def _console() -> Console:
    # Brackets in names and messages are what they are, not rich's markup.
    # Eighty columns, rich's width of a pipe, are too few for three metrics.
    width = None if sys.stdout.isatty() else 120
    return Console(markup=False, width=width)


def _new_table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def _table(
    selector: ModelSelector, title: str, *, model: str = "model", widths: bool = False
) -> Table:
    """Ranking as a table, best first; with the number of features if `widths`."""
    results = selector.results_
    metrics = list(selector.scorer_.metrics)
    order = np.argsort(results["rank"], kind="stable")
    table = _new_table(title)
    table.add_column("rank", justify="right")
    table.add_column(model, overflow="fold")
    for metric in metrics:
        header = "LogME ± std. error" if metric == "logme" else metric
        table.add_column(header, justify="right", no_wrap=True)
    if metrics[0] == "logme":
        table.add_column("P(> next)", justify="right")
    if widths:
        table.add_column("features", justify="right")
    table.add_column("extract s", justify="right")
    table.add_column("score s", justify="right")
    for place, row in enumerate(order):
        failed = bool(results["error"][row])
        cells = [str(results["rank"][row]), str(results["name"][row])]
        cells += [_score_cell(results, metric, row) for metric in metrics]
        if metrics[0] == "logme":
            cells.append(_better_cell(selector, order, place))
        if widths:
            cells.append(str(results["n_features"][row]))
        cells += [
            f"{results[f'{what}_time'][row]:.2f}" for what in ("extract", "score")
        ]
        table.add_row(*cells, style="dim" if failed else None)
    errors = [
        f"{results['name'][row]}: {results['error'][row]}"
        for row in order
        if results["error"][row]
    ]
    if errors:
        table.caption = "failed: " + "; ".join(errors)
    return table


def _score_cell(results: dict, metric: str, row: int) -> str:
    score = results[metric][row]
    if np.isnan(score):
        return "failed"
    if metric == "logme":
        return f"{score:.4f} ± {results['logme_std_error'][row]:.4f}"
    return f"{score:.4f}"


def _better_cell(selector: ModelSelector, order: np.ndarray, place: int) -> str:
    if place + 1 == len(order):
        return ""
    p = selector.probability_better_[order[place], order[place + 1]]
    return "" if np.isnan(p) else f"{p:.3f}"


def _write_csv(selector: ModelSelector, path: Path) -> None:
    results = selector.results_
    columns = [name for name in results if name != "layer"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in np.argsort(results["rank"], kind="stable"):
            writer.writerow([results[name][row] for name in columns])
