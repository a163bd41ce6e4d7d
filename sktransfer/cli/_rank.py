"""``sktransfer rank``: rank models by files of their features."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import FunctionTransformer

from sktransfer.cli._errors import OutputError, UsageError, as_typed
from sktransfer.cli._progress import fit_with_progress
from sktransfer.cli._tables import ranking_table, show, write_csv
from sktransfer.metrics import get_metric, get_scorer_names
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._files import (
    StoredArray,
    check_output,
    open_features,
    read_labels,
)
from sktransfer.utils._terminal import say
from sktransfer.utils._validation import describe_task

EXAMPLES = """\
  sktransfer rank --features resnet.npy vit.npy --labels y.npy
      rank models by their features, one file per model
  sktransfer rank --features *.npy --labels y.csv --metric logme h_score \\
      --output ranking.csv
      rank by two metrics, and write the table to a file
"""


def add_parser(commands: Any) -> None:
    """Add the parser of the command."""
    parser = commands.add_parser(
        "rank",
        help="rank models by files of their features",
        description="Rank pre-trained models on your labelled data by the features "
        "that each extracts from it: one file per model, one row per sample.",
        epilog=f"examples:\n{EXAMPLES}",
    )
    parser.add_argument(
        "--features",
        nargs="+",
        required=True,
        type=Path,
        metavar="FILE",
        help=".npy, .npz (each array is a model) or .csv of shape (n_samples, "
        "n_features); a .csv may have a header, and its index column is left out",
    )
    parser.add_argument(
        "--labels",
        required=True,
        type=Path,
        metavar="FILE",
        help=".npy, .npz or .csv of labels or numbers, one row per sample",
    )
    parser.add_argument(
        "--metric",
        nargs="+",
        default=["logme"],
        metavar="NAME",
        help="metrics that read features; the first determines the ranking "
        f"(default: logme): {', '.join(_feature_metrics())}",
    )
    parser.add_argument(
        "--task",
        default="auto",
        choices=["auto", "classification", "regression", "multilabel"],
        help="how to read the labels (default: auto: integers and text are classes, "
        "numbers with a decimal point are numbers)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the table to a .csv file"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="number of parallel jobs (default: 1; -1 for all cores)",
    )
    parser.set_defaults(run=_run)


def _feature_metrics() -> list[str]:
    return [m for m in get_scorer_names() if get_metric(m).reads == "features"]


def _run(arguments: argparse.Namespace) -> None:
    wrong = [m for m in arguments.metric if m not in _feature_metrics()]
    if wrong:
        raise UsageError(
            f"--metric: {wrong[0]!r} is not a metric that reads features; choose among "
            f"{', '.join(_feature_metrics())}."
        )
    if arguments.jobs == 0:
        raise UsageError("--jobs must be 1 or more, or -1 for all cores; got 0.")
    try:
        if arguments.output is not None:
            check_output(arguments.output, [*arguments.features, arguments.labels])
        features, y = _read(arguments)
        selector = _FileSelector(
            # All candidates get the same row numbers, and return their features.
            [
                (name, FunctionTransformer(_Rows(array), check_inverse=False))
                for name, array in features.items()
            ],
            scoring=arguments.metric,
            refit=False,
            task=arguments.task,
            n_jobs=arguments.jobs,
        )
        fit_with_progress(selector, np.arange(len(y))[:, None], y)
    except (ValueError, TypeError) as error:
        raise UsageError(as_typed(error)) from error
    title = f"{len(features)} model{'s' * (len(features) > 1)} on {len(y)} samples"
    title += f": {describe_task(y, selector.task_)}"
    table = ranking_table(selector, title, widths=True)
    # The file comes first, because a closed pipe may end the rest.
    try:
        if arguments.output is not None:
            write_csv(selector, arguments.output)
    except OSError as error:
        show(table)
        raise OutputError(f"--output: {error}") from error
    show(table)
    if arguments.output is not None:
        say(f"written: {arguments.output}")


def _read(arguments: argparse.Namespace) -> tuple[dict[str, StoredArray], np.ndarray]:
    """Features by the name of their model, and the labels of the same samples."""
    labels = arguments.labels

    def note(message):
        say(f"note: {message}")

    features = open_features(arguments.features, note)
    counts = Counter(array.shape[0] for array in features.values())
    ((n_samples, _),) = counts.most_common(1)
    y = read_labels(labels, n_samples, note)
    others = [array for array in features.values() if array.shape[0] != len(y)]
    if others:
        rows = ", ".join(f"{array} has {array.shape[0]}" for array in others)
        raise ValueError(
            f"{labels} has {len(y)} rows, but {rows}: all files must have one row per "
            "sample, in the same order."
        )
    if arguments.task == "multilabel" and not (
        y.ndim == 2 and np.isin(y, (0, 1)).all()
    ):
        raise ValueError(
            f"--task multilabel: {labels} must hold a column of 0 and 1 for each "
            "label. For a single column of classes, use --task classification."
        )
    return features, y


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
