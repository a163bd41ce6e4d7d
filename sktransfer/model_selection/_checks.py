"""Checks of what a selector is given, before any candidate is evaluated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_consistent_length

from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._validation import check_group_names


def is_named(pair: Any) -> bool:
    """Whether a candidate has the form (name, transformer)."""
    return (
        isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)
    )


def check_candidates(extractors: Any) -> None:
    """Raise a ValueError unless candidates are (name, transformer) tuples."""
    if not extractors:
        raise ValueError("extractors must hold at least one (name, transformer).")
    for i, pair in enumerate(extractors):
        if not is_named(pair):
            raise ValueError(
                "extractors must be a list of (name, transformer) tuples, such as "
                f"[('pca', PCA(2))]. Got {pair!r:.200} at position {i}."
            )


def check_samples_and_target(X: Any, y: Any) -> None:
    """Raise an error unless X and y are collections of equal length."""
    if y is None:
        raise ValueError(
            "ModelSelector requires y to be passed, but the target y is None."
        )
    if isinstance(X, (str, bytes, os.PathLike, Mapping)) and not issparse(X):
        advice = ""
        if isinstance(X, (str, os.PathLike)) and os.path.isdir(X):
            advice = (
                " For the files of a folder, pass their paths: "
                f"X = sorted({Path(X)!r}.glob('*.png')), for example."
            ).replace(type(Path(X)).__name__, "pathlib.Path")
        raise TypeError(
            "ModelSelector expects a collection of samples for X: an array, a tensor, "
            "a list of texts, images or file paths, or a Dataset with a length. Got "
            f"one {type(X).__name__} instead.{advice}"
        )
    check_consistent_length(X, y)


def check_groups(groups: Any, X: Any) -> np.ndarray | None:
    """The groups on the host, one for each sample of X."""
    if groups is None:
        return None
    groups = column_or_1d(to_numpy(groups), input_name="groups")
    check_consistent_length(X, groups)
    check_group_names(groups)
    return groups


def check_one_label_each(y: Any) -> None:
    """Raise a ValueError if y has a sequence of labels for every word of a sample."""
    kind = getattr(getattr(y, "dtype", None), "kind", None)
    if not isinstance(y, (list, tuple)) and kind != "O":
        return
    own = [part for part in y if isinstance(part, (list, tuple, np.ndarray))]
    texts = any(isinstance(label, str) for part in own for label in part)
    if texts or len({len(part) for part in own}) > 1:
        raise ValueError(
            "y has a sequence of labels for each sample, as for the words of "
            "sentences, but no candidate gives features of words. Set "
            "pooling='tokens' on the extractors, or pass one label for each sample."
        )
