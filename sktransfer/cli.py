"""The command line: rank the embedded zoo, or the features in the user's files."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from sklearn.preprocessing import FunctionTransformer

from sktransfer._version import __version__
from sktransfer.agreement import regret, weighted_kendall_tau
from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.metrics import get_scorer_names
from sktransfer.metrics._registry import METRICS
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._files import (
    StoredArray,
    check_output,
    open_features,
    read_labels,
    replacing,
)
from sktransfer.utils._terminal import (
    StreamError,
    encodable,
    is_terminal,
    printable,
    say,
    write,
)
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

exit codes: 0; 1 if results could not be written; 2 for bad input; 130 after Ctrl-C
"""

_FOOTNOTE = """\
LogME: nats a sample, with its standard error. P(> next): probability that the
model's LogME is larger than the next one's, on this many samples. tau_w: weighted
Kendall correlation with the accuracy. regret: points of accuracy that fine-tuning
the top pick loses. Source accuracy and parameters are static: they do not look at
the data."""


class UsageError(Exception):
    """What the user can mend; becomes one sentence and exit code 2."""

    code = 2


class OutputError(UsageError):
    """Results that could not be kept; becomes one sentence and exit code 1."""

    code = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code: 0; 2 for bad input; 1 if the results could not be written; 130 after
        Ctrl-C; 141 if nobody reads the output to its end.
    """
    command = ""
    try:
        arguments = _parser().parse_args(argv)
        command = f" {arguments.command}"
        arguments.run(arguments)
    except UsageError as error:
        say(f"sktransfer{command}: error: {' '.join(str(error).split())}")
        return error.code
    except StreamError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return 141  # as the shell has it: 128 and the signal SIGPIPE
        say(f"sktransfer{command}: error: cannot print: {error.__cause__}")
        return 1
    except KeyboardInterrupt:
        say(f"sktransfer{command}: interrupted")
        return 130  # 128 and the signal SIGINT
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that prints arguments as what they are, and notices where it cannot."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))

    def _print_message(self, message: str, file: TextIO | None = None) -> None:
        if file is sys.stdout:
            write(message)
        else:
            super()._print_message(message, file)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
        "n_features); a .csv may have a header, and its index column is left out",
    )
    rank.add_argument(
        "--labels",
        required=True,
        type=Path,
        metavar="FILE",
        help=".npy, .npz or .csv of labels or numbers, one row a sample",
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
        "numbers with a decimal point are numbers)",
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


def _run_demo(arguments: argparse.Namespace) -> None:
    from sktransfer.datasets import load_target, load_zoo, load_zoo_cards

    try:
        zoo = load_zoo()
    except ImportError as error:
        raise UsageError(str(error)) from error
    target = load_target("digits")
    selector = ModelSelector(zoo)
    _fit_with_progress(selector, target.data, target.target)
    n = len(target.target)
    title = f"{len(zoo)} networks on {n} digits"
    title += f": {describe_task(target.target, selector.task_)}"
    _show(_table(selector, title, model="network"))
    _show(_agreement_table(selector, load_zoo_cards()))
    write(f"{_FOOTNOTE}\n")


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
    table.add_column("order by", no_wrap=True)
    table.add_column("top pick", no_wrap=True)
    accuracies = {}
    for n_train in (100, 500):
        truth = load_zoo_ground_truth(n_train)
        by_name = dict(zip(truth["network"], truth["accuracy_mean"], strict=True))
        accuracies[n_train] = np.array([100 * by_name[name] for name in names])
        table.add_column(f"tau_w, n={n_train}", justify="right")
        table.add_column("regret", justify="right", no_wrap=True)
    for ranker, scores in rankers.items():
        cells = [ranker, names[int(np.argmax(scores))]]
        for accuracy in accuracies.values():
            cells.append(f"{weighted_kendall_tau(accuracy, scores):.2f}")
            cells.append(f"{regret(accuracy, scores):.2f}")
        table.add_row(*cells)
    return table


def _run_rank(arguments: argparse.Namespace) -> None:
    wrong = [m for m in arguments.metric if m not in _feature_metrics()]
    if wrong:
        raise UsageError(
            f"{wrong[0]!r} is not a metric that reads features; choose among "
            f"{', '.join(_feature_metrics())}."
        )
    if arguments.jobs == 0:
        raise UsageError("--jobs must be 1 or more, or -1 for all cores; got 0.")
    try:
        if arguments.output is not None:
            check_output(arguments.output, [*arguments.features, arguments.labels])
        features = open_features(arguments.features, _note)
        counts = Counter(array.shape[0] for array in features.values())
        ((n_samples, _),) = counts.most_common(1)
        y = read_labels(arguments.labels, n_samples, _note)
    except ValueError as error:
        raise UsageError(str(error)) from error
    others = [array for array in features.values() if array.shape[0] != len(y)]
    if others:
        rows = ", ".join(f"{array} has {array.shape[0]}" for array in others)
        raise UsageError(
            f"{arguments.labels} has {len(y)} rows, but {rows}: all files must have "
            "one row per sample, in the same order."
        )
    if arguments.task == "multilabel" and not (
        y.ndim == 2 and np.isin(y, (0, 1)).all()
    ):
        raise UsageError(
            f"--task multilabel: {arguments.labels} must hold a column of 0 and 1 for "
            "each label. A single column of classes is --task classification."
        )

    selector = _FileSelector(
        # Every candidate sees the same rows: row numbers go in, its features come out.
        [
            (name, FunctionTransformer(_Rows(array), check_inverse=False))
            for name, array in features.items()
        ],
        scoring=arguments.metric,
        refit=False,
        task=arguments.task,
        n_jobs=arguments.jobs,
    )
    try:
        _fit_with_progress(selector, np.arange(len(y))[:, None], y)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    title = f"{len(features)} model{'s' * (len(features) > 1)} on {len(y)} samples"
    title += f": {describe_task(y, selector.task_)}"
    # What is kept comes first: a full disk or a closed pipe may end the rest.
    problem = None
    if arguments.output is not None:
        try:
            _write_csv(selector, arguments.output)
        except OSError as error:
            problem = error
    _show(_table(selector, title, widths=True))
    if problem is not None:
        raise OutputError(f"--output: {problem}") from problem
    if arguments.output is not None:
        say(f"written: {arguments.output}")


def _note(message: str) -> None:
    say(f"note: {message}")


class _FileSelector(ModelSelector):
    """A selector whose candidates have the names of files, such as ``a__b``."""

    def _validate_names(self, names: Sequence[str]) -> None:
        # Names are unique, and no parameter of a candidate is set by its name here.
        pass


class _Rows:
    """Features by row number, read when they are asked for."""

    def __init__(self, array: StoredArray):
        self.array = array

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        # All rows, in order: a slice is no copy.
        return self.array.read()[rows[0, 0] : rows[-1, 0] + 1]

    def __sklearn_clone__(self) -> _Rows:
        return self  # it is never changed, and may be large


def _fit_with_progress(selector: ModelSelector, X: Any, y: Any) -> None:
    """Fit with a progress bar on standard error, and failures after the table."""
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not is_terminal(sys.stderr),
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
            description = printable(context.task_name)
            self.progress.update(self.task, description=description)

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
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


def _show(table: Table) -> None:
    """Print a table, cutting nothing where the terminal is too narrow."""
    on_terminal = is_terminal(sys.stdout)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    page = io.TextIOWrapper(io.BytesIO(), encoding, "backslashreplace", newline="")
    # Brackets in names and messages are what they are, not rich's markup.
    console = Console(
        file=page, force_terminal=on_terminal, markup=False, highlight=False
    )
    # Eighty columns, rich's width of a pipe, are too few for three metrics.
    width = console.width if on_terminal else 120
    # Both, for a dumb terminal counts as eighty columns otherwise.
    console.size = max(width, _least_width(table)), console.height
    console.print(table)
    page.flush()
    write(page.buffer.getvalue().decode(encoding))


def _least_width(table: Table) -> int:
    """Columns that may not wrap, and a dozen characters for each that may."""
    return sum(
        1
        + max(12 if not c.no_wrap else len(str(cell)) for cell in (c.header, *c.cells))
        for c in table.columns
    )


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
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column(model, overflow="fold")
    for metric in metrics:
        header = f"LogME {_plus_minus()} std. error" if metric == "logme" else metric
        table.add_column(header, justify="right", no_wrap=True)
    if metrics[0] == "logme":
        table.add_column("P(> next)", justify="right", no_wrap=True)
    if widths:
        table.add_column("features", justify="right", no_wrap=True)
    table.add_column("extract s", justify="right", no_wrap=True)
    table.add_column("score s", justify="right", no_wrap=True)
    for place, row in enumerate(order):
        failed = bool(results["error"][row])
        name = printable(results["name"][row]).replace("\n", "\\n")  # one line a row
        cells = [str(results["rank"][row]), name]
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
        table.caption = printable("failed: " + "; ".join(errors))
    return table


def _score_cell(results: dict, metric: str, row: int) -> str:
    score = results[metric][row]
    if np.isnan(score):
        return "failed"
    if metric == "logme":
        return f"{score:.4f} {_plus_minus()} {results['logme_std_error'][row]:.4f}"
    return f"{score:.4f}"


def _plus_minus() -> str:
    return "±" if encodable("±", sys.stdout) else "+/-"


def _better_cell(selector: ModelSelector, order: np.ndarray, place: int) -> str:
    if place + 1 == len(order):
        return ""
    p = selector.probability_better_[order[place], order[place + 1]]
    return "" if np.isnan(p) else f"{p:.3f}"


def _write_csv(selector: ModelSelector, path: Path) -> None:
    results = selector.results_
    columns = [name for name in results if name != "layer"]
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in np.argsort(results["rank"], kind="stable"):
            writer.writerow([results[name][row] for name in columns])
