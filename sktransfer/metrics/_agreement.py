"""How well scores order the true performance of fine-tuned models."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import weightedtau
from sklearn.utils import check_consistent_length, column_or_1d


def weighted_kendall_tau(performance: Any, scores: Any) -> float:
    """Weighted Kendall rank correlation: pairs of good models count more.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        True performance after fine-tuning, larger is better; negate errors.
    scores : array-like of shape (n_models,)
        Transferability scores, larger is better.

    Returns
    -------
    float
        Between -1 and 1; NaN if either argument is constant.

    Raises
    ------
    ValueError
        If there are fewer than two models, or a NaN.

    Notes
    -----
    `scipy.stats.weightedtau` with its defaults, performance first: hyperbolic weights,
    mean of the rankings by either argument. This reproduces the published values.

    Examples
    --------
    >>> from sktransfer.metrics import weighted_kendall_tau
    >>> round(weighted_kendall_tau([95.0, 93.0, 90.0], [0.3, 0.4, 0.1]), 3)
    0.182
    """
    performance, scores = _check_models(performance, scores)
    return float(weightedtau(performance, scores).statistic)


def regret(performance: Any, scores: Any) -> float:
    """Performance lost by fine-tuning the model with the highest score.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        True performance after fine-tuning, larger is better.
    scores : array-like of shape (n_models,)
        Transferability scores, larger is better; of equal scores the first is picked.

    Returns
    -------
    float
        Best performance less that of the pick, at least 0, in the unit of
        `performance`.

    Raises
    ------
    ValueError
        If there are fewer than two models, or a NaN.

    Examples
    --------
    >>> from sktransfer.metrics import regret
    >>> regret([95.0, 93.0, 90.0], [0.3, 0.4, 0.1])
    2.0
    """
    performance, scores = _check_models(performance, scores)
    return float(np.max(performance) - performance[np.argmax(scores)])


def _check_models(performance: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    performance = column_or_1d(performance, dtype=np.float64)
    scores = column_or_1d(scores, dtype=np.float64)
    check_consistent_length(performance, scores)
    if len(scores) < 2:
        raise ValueError(f"An order needs at least 2 models; got {len(scores)}.")
    for name, values in (("performance", performance), ("scores", scores)):
        if np.isnan(values).any():
            raise ValueError(f"Input {name} contains NaN: leave failed models out.")
    return performance, scores
