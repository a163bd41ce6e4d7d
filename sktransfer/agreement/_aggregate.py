"""One score from several metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.utils import check_array, check_consistent_length, column_or_1d


def rank_aggregate(scores: Any) -> np.ndarray:
    r"""Combine several metrics into one score: the mean rank over the metrics.

    Parameters
    ----------
    scores : mapping or array-like of shape (n_models, n_metrics)
        Scores of each metric, by name or as columns; larger is better, and units do
        not matter. A NaN (a model that the metric could not score) ranks last, after
        minus infinity; several NaN share the last ranks.

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
    Let :math:`r_{im}` be the rank of model i in metric m: 1 for the largest score, and
    the mean rank for ties. The score of model i is

    .. math:: \frac{1}{M} \sum_m \frac{n - r_{im}}{n - 1} ,

    the share of the other models that it beats, averaged over the metrics. All metrics
    have the same weight, even those that hardly separate the models. Leaving out a
    model can change the order of the others.

    Examples
    --------
    >>> from sktransfer.agreement import rank_aggregate
    >>> rank_aggregate({"logme": [0.9, 0.5, 0.7], "leep": [-0.2, -0.3, -0.1]})
    array([0.75, 0.  , 0.75])
    """
    scores = _as_columns(scores)
    n_models = len(scores)
    ranks = np.empty(scores.shape)
    for column, metric in zip(ranks.T, scores.T, strict=True):
        failed = np.isnan(metric)
        n_scored = n_models - failed.sum()
        column[~failed] = rankdata(-metric[~failed])
        column[failed] = (n_scored + 1 + n_models) / 2
    return ((n_models - ranks) / (n_models - 1)).mean(axis=1)


def min_max_aggregate(scores: Any, weights: Any = None) -> np.ndarray:
    r"""Combine several metrics into one score: the mean of scores scaled to [0, 1].

    Parameters
    ----------
    scores : mapping or array-like of shape (n_models, n_metrics)
        Scores of each metric, by name or as columns; larger is better. A NaN (a model
        that the metric could not score) counts as the lowest score.
    weights : array-like of shape (n_metrics,), optional
        Weight of each metric; equal by default.

    Returns
    -------
    ndarray of shape (n_models,)
        Between 0 (last in every metric) and 1 (first in every metric).

    Raises
    ------
    ValueError
        If there is no metric or there are fewer than two models, if metrics or weights
        differ in length, or a score is infinite.

    See Also
    --------
    rank_aggregate : Uses the ranks alone, so that outliers do not matter.

    Notes
    -----
    .. math:: \frac{1}{\sum_m w_m} \sum_m w_m
       \frac{s_{im} - \min_k s_{km}}{\max_k s_{km} - \min_k s_{km}} .

    A metric with equal scores for all models adds 0. NCTI is the sum of three scores
    that are scaled in this way: the order is the same. The value of a model depends on
    the other models: adding or removing one can change the order of the rest, and one
    outlier compresses all others.

    Examples
    --------
    >>> from sktransfer.agreement import min_max_aggregate
    >>> min_max_aggregate({"energy": [3.0, 7.0, 5.0], "lda": [0.9, 0.7, 0.8]})
    array([0.5, 0.5, 0.5])
    """
    scores = _as_columns(scores)
    if np.isinf(scores).any():
        raise ValueError("Scores must not be infinite: they cannot be scaled.")
    known = np.where(np.isnan(scores), np.inf, scores)
    lowest = known.min(axis=0)
    span = np.where(np.isnan(scores), -np.inf, scores).max(axis=0) - lowest
    span = np.where(span > 0, span, 1.0)
    scaled = np.where(np.isnan(scores), 0.0, (scores - lowest) / span)
    return np.average(scaled, axis=1, weights=weights)


def _as_columns(scores: Any) -> np.ndarray:
    """Scores as floats, of shape (n_models, n_metrics)."""
    if isinstance(scores, Mapping):
        if not scores:
            raise ValueError("Input scores must have at least one metric; it is empty.")
        scores = list(scores.values())
        check_consistent_length(*scores)
        scores = np.transpose([column_or_1d(s, dtype=np.float64) for s in scores])
    return check_array(
        scores, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2
    )
