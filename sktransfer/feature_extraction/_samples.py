"""Reading samples: counting them, one by one, and some of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples


def is_array(X: Any) -> bool:
    """Whether X is an array or tensor, which can be cut along its first axis."""
    return hasattr(X, "shape") and hasattr(X, "dtype")


def check_samples(X: Any, estimator: object) -> tuple[Any, int]:
    """Check that X is a collection of samples, and count them.

    Parameters
    ----------
    X : array, tensor, sequence, data frame or map-style dataset
        One item, or one row, per sample.
    estimator : object
        Named in the errors.

    Returns
    -------
    X : array, tensor, list or dataset
        Data frames become arrays; arrays of objects or text become lists.
    n_samples : int
        At least 1.

    Raises
    ------
    TypeError
        If X is a single sample, has no length or is sparse.
    ValueError
        If X is empty.

    Examples
    --------
    >>> from sktransfer.feature_extraction import check_samples
    >>> check_samples(("a.png", "b.png"), None)
    (('a.png', 'b.png'), 2)
    """
    name = type(estimator).__name__
    if issparse(X):
        raise TypeError(
            f"Sparse data was passed for X, but {name} needs dense data. Use "
            "'.toarray()' to convert it to a dense array."
        )
    if isinstance(X, (str, bytes, os.PathLike, Mapping)):
        raise TypeError(
            f"{name} expects a collection of samples: an array, a tensor, a list or a "
            f"Dataset with a length. Got one {type(X).__name__} instead."
        )
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    n_samples = _num_samples(X)
    if n_samples < 1:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={tuple(getattr(X, 'shape', (0,)))}) "
            f"while a minimum of 1 is required by {name}."
        )
    if isinstance(X, np.ndarray) and X.dtype.kind in "OUST":
        X = list(X)  # file paths, images: nothing to compute with as it stands
    return X, n_samples


def read_samples(
    X: Any, start: int, stop: int, preprocess: Callable | None = None
) -> list:
    """Read samples ``start`` to ``stop - 1`` one by one, preprocessed.

    X is as :func:`check_samples` returns it. Where a dataset gives tuples such as
    (x, y), x is the sample. A ValueError names a sample that cannot be read or
    preprocessed, by path if it is one.
    """
    is_dataset = not is_array(X) and not isinstance(X, (list, tuple))
    samples = []
    for i in range(start, stop):
        what = f"Sample {i} could not be read from X"
        try:
            sample = X[i]
            if is_dataset and isinstance(sample, tuple):
                sample = sample[0]
            if preprocess is not None:
                path = isinstance(sample, (str, os.PathLike))
                what = "`preprocess` failed on sample " + (
                    f"{i} ({os.fspath(sample)!r})" if path else str(i)
                )
                sample = preprocess(sample)
        except Exception as error:
            raise ValueError(f"{what}: {type(error).__name__}: {error}") from error
        samples.append(sample)
    return samples


def take_samples(X: Any, rows: Iterable[int]) -> Any:
    """Some of the samples of X.

    Parameters
    ----------
    X : array, tensor, data frame, sequence or map-style dataset
    rows : array-like of int
        The samples to take, in this order.

    Returns
    -------
    samples : array, tensor, data frame or list
        An array of an array, a data frame of a data frame, a list of anything else.

    Examples
    --------
    >>> from sktransfer.feature_extraction import take_samples
    >>> take_samples(["a.png", "b.png", "c.png"], [2, 0])
    ['c.png', 'a.png']
    """
    if issparse(X):
        X = X.tocsr()  # other formats have no rows to take
    if hasattr(X, "to_numpy"):
        return _safe_indexing(X, rows)
    if is_array(X):
        return X[rows]
    return [sample for i in rows for sample in read_samples(X, i, i + 1)]
