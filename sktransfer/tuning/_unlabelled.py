"""Checks of the samples without labels, before training and after it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.sparse import issparse

from sktransfer.exceptions import TransductiveScoreWarning
from sktransfer.feature_extraction import check_samples
from sktransfer.feature_extraction._fingerprint import UndigestibleError, digest_each
from sktransfer.feature_extraction._samples import is_array
from sktransfer.utils._array_api import to_numpy


def check_unlabelled(unlabelled: Any, X: Any, estimator: Any) -> Any:
    """The unlabelled samples, checked for being like the labelled ones."""
    advice = "Pass unlabelled=None to train without unlabelled samples."
    has_length = hasattr(unlabelled, "__len__") and not issparse(unlabelled)
    if has_length and len(unlabelled) == 0:
        raise ValueError(
            f"The 'unlabelled' samples given to {type(estimator).__name__} are empty. "
            + advice
        )
    same = unlabelled is X
    try:
        unlabelled, n_unlabelled = check_samples(unlabelled, estimator)
    except TypeError as error:
        raise TypeError(f"The 'unlabelled' samples: {error}") from error
    own, other = _describe(X), _describe(unlabelled)
    if own != other:
        raise ValueError(
            "The 'unlabelled' samples must be of the same kind as X. Got "
            f"{other} where X holds {own}."
        )
    if same:
        warnings.warn(
            "The 'unlabelled' samples are X itself. Penalties see the samples of X in "
            "any case. " + advice,
            UserWarning,
            stacklevel=4,
        )
    penalty = estimator.penalty
    if penalty is None or not penalty.uses_unlabelled:
        who = "no penalty" if penalty is None else f"no {type(penalty).__name__}"
        warnings.warn(
            f"The {n_unlabelled} unlabelled samples are left out, because {who} learns "
            "from them. Penalties with teachers do, such as BayesianTuning.",
            UserWarning,
            stacklevel=4,
        )
    if is_array(unlabelled):
        values = to_numpy(unlabelled)
        if values.dtype.kind == "f":
            axes = tuple(range(1, values.ndim))
            bad = np.flatnonzero(~np.isfinite(values).all(axis=axes))
            if len(bad):
                raise ValueError(
                    f"{len(bad)} of the {n_unlabelled} unlabelled samples hold NaN or "
                    f"infinity, the first of them sample {bad[0]}. Leave these out."
                )
    return unlabelled


def _describe(X: Any) -> str:
    """What kind of samples X holds, as far as it can be told from the first."""
    if is_array(X):
        kind = {"u": "whole numbers", "i": "whole numbers", "f": "floating-point"}
        values = to_numpy(X[:1])
        numbers = kind.get(values.dtype.kind, str(values.dtype))
        return f"arrays of shape {tuple(values.shape[1:])} ({numbers})"
    sample = X[0]
    if isinstance(sample, tuple) and not isinstance(X, (list, tuple)):
        sample = sample[0]  # (x, y) of a data set
    if is_array(sample):
        return f"arrays with {sample.ndim} axes"
    return f"{type(sample).__name__} objects"


def digest_samples_seen(unlabelled: Any) -> frozenset[bytes]:
    """Digests by which unlabelled samples are recognised; none of those read late."""
    if unlabelled is None or not (is_array(unlabelled) or isinstance(unlabelled, list)):
        return frozenset()
    values = to_numpy(unlabelled) if is_array(unlabelled) else unlabelled
    if is_array(values) and values.dtype.kind == "f":
        # Networks read samples of any floating-point type alike.
        values = values.astype(np.float32, copy=False)
    try:
        digests = digest_each(values, range(len(values)))
    except UndigestibleError:
        return frozenset()
    return frozenset(bytes.fromhex(d[:32]) for d in digests)


def warn_of_transduction(X: Any, estimator: Any) -> None:
    """Warn if samples to be scored were among the unlabelled ones of training."""
    seen = getattr(estimator, "_unlabelled_seen", frozenset())
    if not seen:
        return
    X, n_samples = check_samples(X, estimator)
    found = digest_samples_seen(X) & seen
    if found:
        warnings.warn(
            f"{len(found)} of the {n_samples} samples to score were among the "
            "unlabelled samples of fit. The score is how well these are labelled; "
            "for the accuracy on new samples leave them out of 'unlabelled'.",
            TransductiveScoreWarning,
            stacklevel=3,
        )
