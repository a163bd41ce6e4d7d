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
from sktransfer.cli._notes import doubt, legend, paragraph
from sktransfer.cli._progress import fit_with_progress
from sktransfer.cli._tables import ranking_table, show, write_csv
from sktransfer.feature_extraction import BaseExtractor, Extraction
from sktransfer.metrics import get_metric, get_scorer_names
from sktransfer.metrics._uses import metrics_for
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._files import (
    StoredArray,
    check_output,
    open_features,
    open_layers,
    read_labels,
)
from sktransfer.utils._terminal import say, write
from sktransfer.utils._validation import describe_task

EXAMPLES = """\
  sktransfer rank --features resnet.npy vit.npy --labels y.npy
      rank models by their features, one file per model
  sktransfer rank --features *.npy --labels y.csv --metric logme h_score \\
      --output ranking.csv
      rank by two metrics, and write the table to a file
  sktransfer rank --features *.npy --labels y.npy --groups patients.csv
      leave out all samples of a patient together, and count them as one
  sktransfer rank --layers --features *.npz --labels y.npy
      rank networks for fine-tuning, by all layers of each, the arrays of its file
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
        "--layers",
        action="store_true",
        help="each .npz is one model, its arrays the outputs of its layers in the "
        "order of depth, the last of them its features: for metrics that read layers",
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
        metavar="NAME",
        help="metrics that read features; the first determines the ranking (default: "
        "loo_log_likelihood, with --layers deep_logme, and loo_accuracy "
        "or, for numbers, loo_r2): "
        f"{', '.join(_metrics('features'))}. With --layers also "
        f"{', '.join(_metrics('layers'))}",
    )
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help=".npy, .npz or .csv of one number or word per sample; samples of one "
        "group, such as the photos of one patient, are left out together",
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


def _metrics(reads: str) -> list[str]:
    return [m for m in get_scorer_names() if get_metric(m).reads == reads]


def _run(arguments: argparse.Namespace) -> None:
    known = _metrics("features") + _metrics("layers") * arguments.layers
    wrong = [m for m in arguments.metric or () if m not in known]
    if wrong and wrong[0] in _metrics("layers"):
        raise UsageError(
            f"--metric: {wrong[0]!r} reads all layers of a model: add --layers, and "
            "give each model as one .npz file of its layers in the order of depth."
        )
    if wrong:
        raise UsageError(
            f"--metric: {wrong[0]!r} is not a metric that reads features; choose among "
            f"{', '.join(known)}."
        )
    if arguments.jobs == 0:
        raise UsageError("--jobs must be 1 or more, or -1 for all cores; got 0.")
    try:
        if arguments.output is not None:
            inputs = [*arguments.features, arguments.labels, arguments.groups]
            check_output(arguments.output, [path for path in inputs if path])
        features, y, groups = _read(arguments)
        use = "fine_tuning" if arguments.layers else "frozen"
        metrics = arguments.metric or metrics_for(use, y, arguments.task)[:2]
        selector = _FileSelector(
            # All candidates get the same row numbers, and return their features.
            [(name, _candidate(found)) for name, found in features.items()],
            scoring=metrics,
            refit=False,
            task=arguments.task,
            n_jobs=arguments.jobs,
        )
        fit_with_progress(selector, np.arange(len(y))[:, None], y, groups=groups)
    except (ValueError, TypeError) as error:
        raise UsageError(as_typed(error)) from error
    title = f"{len(features)} model{'s' * (len(features) > 1)} on {len(y)} samples"
    if groups is not None:
        title += f" in {len(np.unique(groups))} groups"
    title += f": {describe_task(y, selector.task_)}"
    table = ranking_table(selector, title, metrics=metrics, widths=True)
    expected = "loo_r2" if selector.task_ == "regression" else "loo_accuracy"
    advice = f"To rank by leave-one-out, use --metric loo_log_likelihood {expected}."
    # The file comes first, because a closed pipe may end the rest.
    try:
        if arguments.output is not None:
            write_csv(selector, arguments.output)
    except OSError as error:
        show(table)
        raise OutputError(f"--output: {error}") from error
    show(table)
    write("\n" + paragraph(legend(table)))
    if note := doubt(selector):
        write("\n" + paragraph(f"Note: {note} {advice}"))
    if arguments.output is not None:
        say(f"written: {arguments.output}")


def _read(
    arguments: argparse.Namespace,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray | None]:
    """Features or layers by the name of their model, and labels and groups."""
    labels = arguments.labels

    def note(message):
        say(f"note: {message}")

    if arguments.layers:
        features = open_layers(arguments.features, note)
        arrays = [array for layers in features.values() for array in layers.values()]
    else:
        features = open_features(arguments.features, note)
        arrays = list(features.values())
    counts = Counter(array.shape[0] for array in arrays)
    ((n_samples, _),) = counts.most_common(1)
    y = read_labels(labels, n_samples, note)
    others = [array for array in arrays if array.shape[0] != len(y)]
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
    if arguments.groups is None:
        return features, y, None
    groups = read_labels(arguments.groups, n_samples, note)
    if groups.shape != (len(y),):
        raise ValueError(
            f"{arguments.groups} must hold one group for each of the {len(y)} samples; "
            f"it has shape {groups.shape}."
        )
    if (groups == groups[0]).all():
        raise ValueError(f"{arguments.groups} must hold at least 2 groups; it has one.")
    return features, y, groups


class _FileSelector(ModelSelector):
    """A selector whose candidates have the names of files, such as ``a__b``."""

    def _validate_names(self, names: Sequence[str]) -> None:
        # Names are unique, and no parameter of a candidate is set by its name here.
        pass


def _candidate(found: StoredArray | dict[str, StoredArray]) -> Any:
    """What gives the features, or the layers, of a model by row number."""
    if isinstance(found, dict):
        return _StoredLayers({name: _Rows(array) for name, array in found.items()})
    return FunctionTransformer(_Rows(found), check_inverse=False)


class _StoredLayers(BaseExtractor):
    """The layers of a model, of which the last gives the features."""

    def __init__(self, layers: dict[str, _Rows]):
        self.layers = layers

    def extract(
        self, X: np.ndarray, *, source_proba: bool = False, all_layers: bool = False
    ) -> Extraction:
        *_, last = self.layers
        names = self.layers if all_layers else [last]
        layers = {name: self.layers[name](X) for name in names}
        return Extraction({last: layers[last]}, layers=layers if all_layers else None)

    def check_all_layers(self) -> None:
        return


class _Rows:
    """Features by row number, read when they are asked for."""

    def __init__(self, array: StoredArray):
        self.array = array

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        # All rows, in order: a slice is no copy.
        return self.array.read()[rows[0, 0] : rows[-1, 0] + 1]

    def __sklearn_clone__(self) -> _Rows:
        return self  # it is never changed, and may be large
