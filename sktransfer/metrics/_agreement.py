"""How well scores order the true performance of fine-tuned models."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from scipy.stats import kendalltau, rankdata, weightedtau
from sklearn.utils import (
    check_array,
    check_consistent_length,
    check_scalar,
    column_or_1d,
)


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
    performance, scores = check_models(performance, scores)
    return float(weightedtau(performance, scores).statistic)


def kendall_tau(performance: Any, scores: Any) -> float:
    r"""Kendall rank correlation: the pairs in the right order less those in the wrong.

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
    The tau-b of `scipy.stats.kendalltau`, which leaves ties out of the numerator and,
    argument by argument, out of the denominator:

    .. math::
        \tau = \frac{\sum_{i<j} \mathrm{sign}(p_i - p_j)\,\mathrm{sign}(s_i - s_j)}
               {\sqrt{\#\{i<j: p_i \ne p_j\}\,\#\{i<j: s_i \ne s_j\}}}

    Examples
    --------
    >>> from sktransfer.metrics import kendall_tau
    >>> round(kendall_tau([95.0, 93.0, 90.0], [0.3, 0.4, 0.1]), 3)
    0.333
    """
    performance, scores = check_models(performance, scores)
    return float(kendalltau(performance, scores).statistic)


def spearman(performance: Any, scores: Any) -> float:
    r"""Spearman rank correlation: the Pearson correlation of the ranks.

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
    Tied models share the mean of their ranks. Without ties, with d the differences of
    the ranks, :math:`\rho = 1 - 6 \sum_i d_i^2 / (n (n^2 - 1))`.

    Examples
    --------
    >>> from sktransfer.metrics import spearman
    >>> round(spearman([95.0, 93.0, 90.0], [0.3, 0.4, 0.1]), 3)
    0.5
    """
    performance, scores = check_models(performance, scores)
    return _correlation(rankdata(performance), rankdata(scores))


def pearson(performance: Any, scores: Any) -> float:
    r"""Pearson correlation: how close the relation is to a straight line.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        True performance after fine-tuning, larger is better; negate errors.
    scores : array-like of shape (n_models,)
        Transferability scores, larger is better.

    Returns
    -------
    float
        Between -1 and 1; NaN if either argument is constant or has an infinite value.

    Raises
    ------
    ValueError
        If there are fewer than two models, or a NaN.

    Notes
    -----
    With bars for means over the models,

    .. math:: r = \frac{\sum_i (p_i - \bar p)(s_i - \bar s)}
              {\sqrt{\sum_i (p_i - \bar p)^2 \sum_i (s_i - \bar s)^2}}

    Unlike the rank correlations it changes when scores are transformed monotonically,
    and one bad model far from the others can make it large.

    Examples
    --------
    >>> from sktransfer.metrics import pearson
    >>> round(pearson([95.0, 93.0, 90.0], [0.3, 0.4, 0.1]), 3)
    0.737
    """
    performance, scores = check_models(performance, scores)
    return _correlation(performance, scores)


def top_k_hit(performance: Any, scores: Any, k: int = 1) -> bool:
    """Whether the truly best model is among the k with the highest scores.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        True performance after fine-tuning, larger is better; negate errors. Where
        several models are the best, any of them will do.
    scores : array-like of shape (n_models,)
        Transferability scores, larger is better; of equal scores the first are picked.
    k : int, default=1
        How many models are picked. With `k >= n_models` it is always a hit.

    Returns
    -------
    bool
        With `k=1`, whether the :func:`regret` is zero.

    Raises
    ------
    TypeError
        If `k` is not an int.
    ValueError
        If there are fewer than two models, or a NaN, or if `k` is less than 1.

    Examples
    --------
    >>> from sktransfer.metrics import top_k_hit
    >>> performance, scores = [95.0, 93.0, 90.0], [0.3, 0.4, 0.1]
    >>> top_k_hit(performance, scores), top_k_hit(performance, scores, k=2)
    (False, True)
    """
    check_scalar(k, "k", Integral, min_val=1)
    performance, scores = check_models(performance, scores)
    picked = np.argsort(-scores, kind="stable")[:k]
    return bool(performance[picked].max() == performance.max())


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
    performance, scores = check_models(performance, scores)
    return float(np.max(performance) - performance[np.argmax(scores)])


def rank_aggregate(scores: Any) -> np.ndarray:
    r"""Combine several metrics into one score: the mean rank over the metrics.

    Parameters
    ----------
    scores : mapping or array-like of shape (n_models, n_metrics)
        Scores of each metric, by name or as columns; larger is better, and units do
        not matter. A NaN (a model that a metric could not score) comes last in its
        metric, behind minus infinity; several share the last ranks.

    Returns
    -------
    ndarray of shape (n_models,)
        Between 0 (last in every metric) and 1 (first in every metric).

    Raises
    ------
    ValueError
        If there is no metric or there are fewer than two models, or if metrics differ
        in length.

    Notes
    -----
    With :math:`r_{im}` the rank of model i in metric m, 1 for the largest score and
    ties sharing the mean of their ranks, the score of model i is

    .. math:: \frac{1}{M} \sum_m \frac{n - r_{im}}{n - 1} ,

    the share of the other models that it beats, averaged over the metrics. Every metric
    has the same say, however little it tells the models apart. Leaving a model out
    can change the order of the others.

    Examples
    --------
    >>> from sktransfer.metrics import rank_aggregate
    >>> rank_aggregate({"logme": [0.9, 0.5, 0.7], "leep": [-0.2, -0.3, -0.1]})
    array([0.75, 0.  , 0.75])
    """
    if isinstance(scores, Mapping):
        if not scores:
            raise ValueError("Input scores must have at least one metric; it is empty.")
        scores = list(scores.values())
        check_consistent_length(*scores)
        scores = np.transpose([column_or_1d(s, dtype=np.float64) for s in scores])
    scores = check_array(
        scores, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2
    )
    n_models = len(scores)
    ranks = np.empty(scores.shape)
    for column, metric in zip(ranks.T, scores.T, strict=True):
        failed = np.isnan(metric)
        n_scored = n_models - failed.sum()
        column[~failed] = rankdata(-metric[~failed])
        column[failed] = (n_scored + 1 + n_models) / 2
    return ((n_models - ranks) / (n_models - 1)).mean(axis=1)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.nan
    # Rounding in the mean can make a constant seem to vary.
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    x, y = x - x.mean(), y - y.mean()
    r = (x / np.linalg.norm(x)) @ (y / np.linalg.norm(y))
    return float(np.clip(r, -1, 1))


def check_models(
    performance: Any, scores: Any, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray]:
    """Performance and scores as float64, without NaN; `name` is that of the scores."""
    performance = column_or_1d(performance, dtype=np.float64)
    scores = column_or_1d(scores, dtype=np.float64)
    check_consistent_length(performance, scores)
    if len(scores) < 2:
        raise ValueError(f"An order needs at least 2 models; got {len(scores)}.")
    for label, values in (("performance", performance), (name, scores)):
        if np.isnan(values).any():
            raise ValueError(f"Input {label} contains NaN: leave failed models out.")
    return performance, scores
