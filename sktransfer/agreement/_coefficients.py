"""Rank correlations of scores with the true performance."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.utils import check_consistent_length, column_or_1d


def weighted_kendall_tau(performance: Any, scores: Any) -> float:
    """Weighted Kendall rank correlation: mistakes at the top cost more.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        True performance and transferability scores, larger is better; negate errors.

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
    Equal to `scipy.stats.weightedtau` with its defaults and performance first: weights
    are hyperbolic, and the rankings by either argument are averaged. This reproduces
    the published values.

    Examples
    --------
    >>> from sktransfer.agreement import weighted_kendall_tau
    >>> round(weighted_kendall_tau([95.0, 93.0, 90.0], [0.3, 0.4, 0.1]), 3)
    0.182
    """
    return float(weighted_taus(*check_models(performance, scores)))


def kendall_tau(performance: Any, scores: Any) -> float:
    r"""Kendall rank correlation: concordant pairs minus discordant pairs.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        True performance and transferability scores, larger is better; negate errors.

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
    This is tau-b, as in `scipy.stats.kendalltau`: tied pairs are left out of the
    numerator and, separately for each argument, out of the denominator:

    .. math::
        \tau = \frac{\sum_{i<j} \mathrm{sign}(p_i - p_j)\,\mathrm{sign}(s_i - s_j)}
               {\sqrt{\#\{i<j: p_i \ne p_j\}\,\#\{i<j: s_i \ne s_j\}}}

    Examples
    --------
    >>> from sktransfer.agreement import kendall_tau
    >>> round(kendall_tau([95.0, 93.0, 90.0], [0.3, 0.4, 0.1]), 3)
    0.333
    """
    return float(taus(*check_models(performance, scores)))


def spearman(performance: Any, scores: Any) -> float:
    r"""Spearman rank correlation: the Pearson correlation of the ranks.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        True performance and transferability scores, larger is better; negate errors.

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
    >>> from sktransfer.agreement import spearman
    >>> round(spearman([95.0, 93.0, 90.0], [0.3, 0.4, 0.1]), 3)
    0.5
    """
    return float(spearmans(*check_models(performance, scores)))


def pearson(performance: Any, scores: Any) -> float:
    r"""Pearson correlation: how close to linear the relation is.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        True performance and transferability scores, larger is better; negate errors.

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

    Unlike rank correlations, it changes under monotonic transformations of the scores,
    and a single outlying model can make it large.

    Examples
    --------
    >>> from sktransfer.agreement import pearson
    >>> round(pearson([95.0, 93.0, 90.0], [0.3, 0.4, 0.1]), 3)
    0.737
    """
    return float(pearsons(*check_models(performance, scores)))


def check_models(
    performance: Any, scores: Any, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray]:
    """Performance and scores as float64, without NaN; `name` is that of the scores."""
    performance = column_or_1d(performance, dtype=np.float64)
    scores = column_or_1d(scores, dtype=np.float64)
    check_consistent_length(performance, scores)
    if len(scores) < 2:
        raise ValueError(f"Ranking requires at least two models; got {len(scores)}.")
    for label, values in (("performance", performance), (name, scores)):
        if np.isnan(values).any():
            raise ValueError(f"Input {label} contains NaN: leave failed models out.")
    return performance, scores


# The functions below take checked arrays of shape (..., n_models), so that the report
# computes all resamples at once. They return NaN where an argument is constant.


def weighted_taus(performance: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Weighted Kendall correlation along the last axis."""
    rankings = (performance, scores), (scores, performance)
    weights = [
        1 / (1 + np.argsort(np.lexsort((-ties, -key)))) for key, ties in rankings
    ]
    return taus(performance, scores, np.stack(weights)).mean(axis=0)


def taus(
    performance: np.ndarray, scores: np.ndarray, weights: float | np.ndarray = 1.0
) -> np.ndarray:
    """Kendall correlation along the last axis; a pair has the sum of two weights."""
    signs_p, signs_s = _pair_signs(performance), _pair_signs(scores)
    concordance, untied_p, untied_s = (
        np.sum(weights * np.sum(pairs, axis=-1), axis=-1)
        for pairs in (signs_p * signs_s, np.abs(signs_p), np.abs(signs_s))
    )
    with np.errstate(invalid="ignore"):
        return concordance / np.sqrt(untied_p * untied_s)


def spearmans(performance: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Spearman correlation along the last axis."""
    return pearsons(rankdata(performance, axis=-1), rankdata(scores, axis=-1))


def pearsons(performance: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis; NaN with infinite values."""
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (_standardized(values) for values in (performance, scores))
    return np.clip(np.sum(x * y, axis=-1), -1, 1)


def _standardized(values: np.ndarray) -> np.ndarray:
    """Values of mean 0 and norm 1; NaN if they are constant."""
    centred = values - values.mean(axis=-1, keepdims=True)
    norm = np.linalg.norm(centred, axis=-1, keepdims=True)
    # Rounding in the mean can make a constant seem to vary.
    norm[np.ptp(values, axis=-1, keepdims=True) == 0] = np.nan
    return centred / norm


def _pair_signs(values: np.ndarray) -> np.ndarray:
    """Sign of the difference of each pair, in int8; infinite values may be equal."""
    larger = values[..., :, np.newaxis] > values[..., np.newaxis, :]
    return larger.astype(np.int8) - larger.swapaxes(-1, -2)
