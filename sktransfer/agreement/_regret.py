"""What choosing a model by its score costs."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_scalar

from sktransfer.agreement._coefficients import check_models


def top_k_hit(performance: Any, scores: Any, k: int = 1) -> bool:
    """Whether the truly best model is among the k with the highest scores.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        True performance after fine-tuning, larger is better; negate errors. If
        several models are best, any of them is a hit.
    scores : array-like of shape (n_models,)
        Transferability scores, larger is better; ties go to the first.
    k : int, default=1
        Number of models picked; `k >= n_models` is always a hit.

    Returns
    -------
    bool
        With `k=1`, True exactly if :func:`regret` is zero.

    Raises
    ------
    TypeError
        If `k` is not an int.
    ValueError
        If there are fewer than two models, or a NaN, or if `k` is less than 1.

    Examples
    --------
    >>> from sktransfer.agreement import top_k_hit
    >>> performance, scores = [95.0, 93.0, 90.0], [0.3, 0.4, 0.1]
    >>> top_k_hit(performance, scores), top_k_hit(performance, scores, k=2)
    (False, True)
    """
    check_scalar(k, "k", Integral, min_val=1)
    return bool(top_k_hits(*check_models(performance, scores), k))


def regret(performance: Any, scores: Any) -> float:
    """Performance lost by choosing the model with the highest score.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        True performance after fine-tuning, larger is better.
    scores : array-like of shape (n_models,)
        Transferability scores, larger is better; ties go to the first.

    Returns
    -------
    float
        Best performance minus that of the pick, at least 0, in the unit of
        `performance`.

    Raises
    ------
    ValueError
        If there are fewer than two models, or a NaN.

    Examples
    --------
    >>> from sktransfer.agreement import regret
    >>> regret([95.0, 93.0, 90.0], [0.3, 0.4, 0.1])
    2.0
    """
    return float(regrets(*check_models(performance, scores)))


# The functions below take checked arrays of shape (..., n_models).


def top_k_hits(performance: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """Whether the best is among the top k, along the last axis."""
    picked = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    best_picked = np.take_along_axis(performance, picked, axis=-1).max(axis=-1)
    return best_picked == performance.max(axis=-1)


def regrets(performance: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Best performance minus that of the pick, along the last axis."""
    picked = np.argmax(scores, axis=-1, keepdims=True)
    chosen = np.take_along_axis(performance, picked, axis=-1)[..., 0]
    return performance.max(axis=-1) - chosen
