"""Validation of user input, for every array namespace."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_n_features,
    _check_sample_weight,
    validate_data,
)

from sktransfer.utils._array_api import (
    from_numpy,
    get_namespace,
    is_numpy_namespace,
    real_floating,
    to_numpy,
)

TASKS = ("classification", "regression", "multilabel")

# Integers with more values than this, and fewer samples per value, may be numbers.
_MANY_VALUES, _SAMPLES_PER_CLASS = 30, 10

_TARGETS = (
    "y must hold class labels or numbers of shape (n_samples,), or numbers or 0/1 "
    "indicators of shape (n_samples, n_targets)."
)

FLOAT_DTYPES = [np.float64, np.float32]


def check_features(
    X: Any,
    *,
    estimator: BaseEstimator | None = None,
    reset: bool = True,
    min_samples: int = 1,
    name: str = "X",
    finite: bool = True,
) -> Any:
    """Validate features (n_samples, n_features): real, `finite`, float32 or float64.

    `n_features_in_` of an `estimator` is set (`reset`) or compared. Messages call the
    parameter `name`.
    """
    xp, _ = get_namespace(**{name: X})
    if is_numpy_namespace(xp):
        options = {
            "dtype": FLOAT_DTYPES,
            "ensure_min_samples": min_samples,
            "ensure_all_finite": finite,
        }
        if estimator is None:
            return check_array(X, input_name=name, **options)
        return validate_data(estimator, X, reset=reset, **options)

    X = real_floating(X.detach() if hasattr(X, "detach") else X, xp)
    if X.ndim != 2:
        raise ValueError(f"Expected 2D array, got {X.ndim}D array instead ({name}).")
    if X.shape[0] < min_samples or X.shape[1] < 1:
        raise ValueError(
            f"Found array with {X.shape[0]} sample(s) and {X.shape[1]} feature(s) "
            f"while a minimum of {min_samples} sample(s) and 1 feature is required."
        )
    if finite and not bool(xp.all(xp.isfinite(X))):
        raise ValueError(f"Input {name} contains NaN or infinity.")
    if estimator is not None:
        _check_n_features(estimator, X, reset=reset)
    return X


def check_numeric_target(y: Any, X: Any) -> Any:
    """Validate numbers (n_samples,) or (n_samples, n_targets) as float64 beside `X`."""
    xp, device = get_namespace(X=X, y=y)
    if is_numpy_namespace(xp) or not is_array_api_obj(y):
        y = check_array(
            y,
            dtype=np.float64,
            ensure_2d=False,
            allow_nd=False,
            input_name="y",
        )
        y = from_numpy(y, xp, device)
    else:
        y = xp.astype(y.detach() if hasattr(y, "detach") else y, xp.float64)
        if not bool(xp.all(xp.isfinite(y))):
            raise ValueError("Input y contains NaN or infinity.")
    if y.ndim > 2:
        raise ValueError(f"y must have one or two dimensions; got {y.ndim}.")
    check_consistent_length(X, y)
    return y


def check_labels(y: Any, X: Any) -> np.ndarray:
    """Validate class labels (n_samples,) and bring them to the host."""
    get_namespace(X=X, y=y)
    y = to_numpy(y)
    _refuse_missing(y)
    y = column_or_1d(y, warn=True)
    if y.dtype.kind not in "biu":  # integers are labels, whatever they are
        check_classification_targets(y)
    check_consistent_length(X, y)
    return y


def encode_labels(y: Any, X: Any) -> tuple[np.ndarray, Any]:
    """Return the sorted classes of `y`, and their codes beside the features."""
    xp, device = get_namespace(X=X)
    classes, codes = np.unique(check_labels(y, X), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y must have at least 2 classes; got 1 class: {classes.tolist()[0]!r}."
        )
    return classes, from_numpy(codes, xp, device)


def check_group_names(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted names of groups, and the number of that of each sample."""
    if groups.dtype.kind in "fc" and np.isnan(groups).any():
        raise ValueError("groups contains NaN: give every sample a group.")
    try:
        return np.unique(groups, return_inverse=True)
    except TypeError as error:
        raise ValueError(
            "groups must hold names or numbers, of one kind and none missing; they "
            f"cannot be sorted: {error}."
        ) from error


def check_source_proba(source_proba: Any) -> tuple[Any, Callable[[slice], Any]]:
    """Validate source probabilities (n_samples, n_source_classes).

    Return them with a function that reads a slice of their rows and checks that these
    sum to one: reading and checking then share one pass over the memory.
    """
    P = check_features(source_proba, name="source_proba", finite=False)
    xp, device = get_namespace(P=P)
    # The tolerance is that of the dtype given: half precision has become float32, and
    # bfloat16, of eight bits, reaches NumPy as float32 only.
    exact = str(getattr(source_proba, "dtype", P.dtype)).endswith("float64")
    tolerance = 1e-6 if exact else 2**-7
    ones = xp.ones((1, P.shape[1]), dtype=P.dtype, device=device)

    def read(rows: slice) -> Any:
        part = P[rows, :]
        with np.errstate(invalid="ignore"):  # inf - inf; refused below
            off = float(xp.max(xp.abs(xp.vecdot(part, ones) - 1)))
        if not math.isfinite(off):
            raise ValueError("Input source_proba contains NaN or infinity.")
        if float(xp.min(part)) < 0:
            raise ValueError("source_proba must not have negative entries.")
        if off > tolerance:
            raise ValueError(
                "Every row of source_proba must sum to one (a soft-max over the source "
                f"classes); rows {rows.start} to {rows.stop - 1} deviate by up to "
                f"{off:.3g}."
            )
        return part

    return P, read


def check_weights(sample_weight: Any, X: Any, *, allow_all_zero: bool = False) -> Any:
    """Validate sample weights (n_samples,) as float64 beside `X`; None stays None."""
    if sample_weight is None:
        return None
    xp, device = get_namespace(X=X, sample_weight=sample_weight)
    weights = to_numpy(sample_weight)
    weights = _check_sample_weight(
        weights,
        np.empty((X.shape[0], 1)),
        dtype=np.float64,
        ensure_non_negative=True,
        allow_all_zero_weights=allow_all_zero,
    )
    return from_numpy(weights, xp, device)


def infer_task(y: Any, task: str = "auto", *, expected: str | None = None) -> str:
    """Infer the task from a target; all rooms ask here.

    ``"auto"`` reads columns of 0 and 1 as several labels; text, booleans and integers
    as classes; floats, even whole ones, as numbers. Where a classifier or a metric of
    classes is involved, whole numbers of any dtype are what it has `expected`. A
    warning says when the guess may be wrong: integers of more than 30 values with fewer
    than 10 samples each on average, and whole floats of fewer values.
    """
    check_task_name(task)
    given, y = y, to_numpy(y)
    _refuse_missing(y)
    if task == "multilabel":
        _check_indicators(y)
    elif task == "classification" and y.ndim == 2 and y.shape[1] > 1:
        raise ValueError(
            "A classification target must hold one label per sample; got an array of "
            f"shape {y.shape}. For several 0/1 labels the task is multilabel."
        )
    if task != "auto":
        return task
    if y.ndim == 2 and y.shape[1] > 1:
        return _task_of_columns(y)
    if expected and y.ndim == 1 and y.dtype.kind in "biu" and len(y):
        return expected
    # Data frames go as they are: scikit-learn knows what their missing values are.
    kind = type_of_target(y if is_array_api_obj(given) else given, input_name="y")
    if kind.startswith("continuous"):
        return "regression"
    if kind not in ("binary", "multiclass"):
        raise ValueError(f"Unknown label type: {kind}. {_TARGETS}")
    if y.dtype.kind not in "iuf":  # text and booleans are never numbers
        return "classification"
    return expected or _task_of_whole_numbers(y)


def check_option(name: str, value: Any, options: Iterable[str]) -> None:
    """Raise a ValueError unless the parameter has one of the values."""
    if value not in (known := list(options)):
        raise ValueError(
            f"The '{name}' parameter must be one of {known}. Got {value!r} instead."
        )


def check_task_name(task: Any) -> str:
    """Return `task`, if it is one."""
    if task not in ("auto", *TASKS):
        raise ValueError(
            "The 'task' parameter must be a str among "
            f"{{{', '.join(map(repr, ('auto', *TASKS)))}}}. Got {task!r} instead."
        )
    return task


def _task_of_whole_numbers(y: np.ndarray) -> str:
    n_samples, n_values = y.size, len(np.unique(y))
    many = n_values > _MANY_VALUES and n_samples < _SAMPLES_PER_CLASS * n_values
    floats = y.dtype.kind == "f"
    if n_samples and floats != many:
        read, other = (
            ("numbers because they are floats", "they are class labels")
            if floats
            else (f"{n_values} classes", "they are numbers to predict")
        )
        tasks = ("regression", "classification")
        this, that = tasks if floats else tasks[::-1]
        warnings.warn(
            f"y holds {n_values} different whole numbers in {n_samples} samples. They "
            f"are read as {read}. If {other}, pass task={that!r}; task={this!r} "
            "silences this warning.",
            UserWarning,
            stacklevel=3,
        )
    return "regression" if floats else "classification"


def _task_of_columns(y: np.ndarray) -> str:
    if y.dtype.kind not in "biuf":
        raise ValueError(
            f"y has {y.shape[1]} columns (shape {y.shape}) and dtype {y.dtype}, but "
            "several targets must be numbers or 0/1 indicators. If one column holds "
            "ids, pass the column of labels alone, such as y[:, 1]."
        )
    if not np.isfinite(y).all():
        raise ValueError("Input y contains NaN or infinity.")
    if np.isin(y, (0, 1)).all():
        return "multilabel"
    for column in range(y.shape[1]):
        values = np.sort(y[:, column])
        if len(y) > 2 and np.all(np.diff(values) == 1):
            raise ValueError(
                f"Column {column} of y counts the samples: it looks like an id or a "
                "row number rather than a target. Pass the other columns alone, or "
                "task='regression' if it is a target."
            )
    return "regression"


def _refuse_missing(y: np.ndarray) -> None:
    """Refuse None and NaN among labels that are Python objects."""
    if y.dtype.kind != "O":
        return
    missing = [v is None or is_scalar_nan(v) or is_pandas_na(v) for v in y.flat]
    if any(missing):
        row = missing.index(True) // max(1, math.prod(y.shape[1:]))
        raise ValueError(
            f"y contains None or NaN in {sum(missing)} place(s), the first in row "
            f"{row}. Leave these samples out."
        )


def _check_indicators(y: np.ndarray) -> None:
    if y.ndim != 2 or y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
        raise ValueError(
            "A multilabel target must hold 0/1 indicators of shape (n_samples, "
            f"n_labels); got an array of shape {y.shape} and dtype {y.dtype}."
        )


def describe_task(y: Any, task: str) -> str:
    """Describe a target in a few words, for tables."""
    y = to_numpy(y)
    if task == "classification":
        return f"{task}, {len(np.unique(y))} classes"
    n_targets = 1 if y.ndim == 1 else y.shape[1]
    what = "label" if task == "multilabel" else "target"
    return f"{task}, {n_targets} {what}{'s' * (n_targets > 1)}"
