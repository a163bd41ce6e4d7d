"""Scores of predictions for samples that were held out, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sktransfer.utils._array_api import cached_rows

# Predictions of one-hot targets whose difference is rounding.
_TIE = 1e-9
_TOL = 1e-5
_MAX_ITER = 200
# Least 1 / temperature, relative to the spread of the predictions.
_LEAST = 1e-6


@dataclass
class HeldOutScores:
    """Predictions and scores of left-out samples; None where a score has no meaning."""

    predictions: Any  # (n_samples, n_targets)
    log_density: np.ndarray  # (n_samples,)
    log_likelihood: tuple[float, float]  # each with its standard error
    accuracy: tuple[float, float] | None = None
    r2: tuple[float, float] | None = None
    temperature: float | None = None


def standard_error(
    influence: np.ndarray,
    sample_weight: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> float | np.ndarray:
    """Jackknife standard error of a mean over samples, std(psi) / sqrt(n).

    Parameters
    ----------
    influence : ndarray of shape (n_samples,) or (n_scores, n_samples)
        psi, the contribution of each sample to a score, or to the difference of two
        scores of the same samples.
    sample_weight : ndarray of shape (n_samples,), optional
    groups : ndarray of shape (n_samples,), optional
        Samples of one group depend on each other: what is independent is the sum over
        a group.

    Returns
    -------
    float or ndarray of shape (n_scores,)
        In the unit of `influence`; NaN if any influence is.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.linear_model import standard_error
    >>> standard_error(np.array([1.0, -1.0, 1.0, -1.0]))
    0.5
    """
    n_samples = influence.shape[-1]
    weights = np.ones(n_samples) if sample_weight is None else sample_weight
    total = weights.sum()
    centred = influence - (influence @ weights / total)[..., None]
    if groups is None:
        squares = centred**2 @ weights
    else:
        names, codes = np.unique(groups, return_inverse=True)
        member = csr_array(
            (weights, codes, np.arange(n_samples + 1)), (n_samples, len(names))
        )
        squares = ((centred @ member) ** 2).sum(axis=-1)
    std_error = np.sqrt(squares) / total
    return float(std_error) if influence.ndim == 1 else std_error


def mean_and_error(
    parts: np.ndarray, weights: np.ndarray | None, groups: np.ndarray | None
) -> tuple[float, float]:
    """Weighted mean over samples, and its standard error."""
    mean = float(np.average(parts, weights=weights))
    return mean, standard_error(parts, weights, groups)


def r2_parts(
    y: np.ndarray, predictions: np.ndarray, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """Parts of R^2, mean over targets, whose (weighted) mean it is.

    R^2 = 1 - A / B is a ratio of two means, A of squared errors and B of squared
    deviations; to first order in both, sample i moves it by its part less the mean.

    Parameters
    ----------
    y, predictions : ndarray of shape (n_samples,) or (n_samples, n_targets)
    sample_weight : ndarray of shape (n_samples,), optional

    Returns
    -------
    ndarray of shape (n_samples,)

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.linear_model import r2_parts
    >>> parts = r2_parts(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 2.0]))
    >>> round(float(parts.mean()), 3)
    0.5
    """
    y, predictions = (a.reshape(len(a), -1) for a in (y, predictions))
    errors = (y - predictions) ** 2
    deviations = (y - np.average(y, axis=0, weights=sample_weight)) ** 2
    A, B = (
        np.average(part, axis=0, weights=sample_weight) for part in (errors, deviations)
    )
    return np.mean(1 - errors / B + A / B * (deviations / B - 1), axis=1)


def score_regression(
    y: np.ndarray,
    predictions: np.ndarray,
    log_density: np.ndarray,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
) -> HeldOutScores:
    """R^2 and mean log density."""
    return HeldOutScores(
        predictions=predictions,
        log_density=log_density,
        log_likelihood=mean_and_error(log_density, weights, groups),
        r2=mean_and_error(r2_parts(y, predictions, weights), weights, groups),
    )


def score_classes(
    codes: np.ndarray,
    predictions: np.ndarray,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
    start: float,
) -> HeldOutScores:
    """Accuracy and, at the temperature that fits best, mean log probability."""
    gaps = _gaps(predictions, codes)
    temperature = _fit_gaps(gaps, weights, start)
    log_density, right = np.empty((2, len(codes)))
    for rows in cached_rows(gaps):
        gap = gaps[rows]
        top = gap.max(axis=1)
        # One of several classes with the largest prediction is drawn at random.
        right[rows] = (top <= _TIE) / np.sum(gap >= top[:, None] - _TIE, axis=1)
        total = np.exp((gap - top[:, None]) / temperature).sum(axis=1)
        log_density[rows] = -top / temperature - np.log(total)
    return HeldOutScores(
        predictions=predictions,
        log_density=log_density,
        log_likelihood=mean_and_error(log_density, weights, groups),
        accuracy=mean_and_error(right, weights, groups),
        temperature=temperature,
    )


def _gaps(predictions: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Differences to the prediction of the true class, whose own is zero."""
    gaps = predictions - predictions[np.arange(len(codes)), codes][:, None]
    for rows in cached_rows(gaps):
        gap = gaps[rows]
        gap[np.abs(gap) <= _TIE] = 0.0
    return gaps


def fit_temperature(
    predictions: np.ndarray,
    codes: np.ndarray,
    weights: np.ndarray | None = None,
    start: float = 1.0,
) -> float:
    """The temperature at which a soft-max of predictions is likeliest.

    The mean log-likelihood is concave in tau = 1 / temperature. If all samples are
    right it rises with tau for ever; then tau is where it is 1 / (n + 1) below its
    limit, as by the rule of succession. If the predictions are worse than none, tau is
    just above zero.
    """
    return _fit_gaps(_gaps(predictions, codes), weights, start)


def _fit_gaps(gaps: np.ndarray, weights: np.ndarray | None, start: float) -> float:
    w = np.ones(len(gaps)) if weights is None else weights
    if not w.all():
        gaps, w = gaps[w > 0], w[w > 0]
    n = w.sum()
    largest = float(gaps.max())
    spread = max(largest, -float(gaps.min()))
    if spread == 0:
        return 1.0
    least = _LEAST / spread

    def moments(tau: float) -> tuple[float, float, float]:
        """Mean log-likelihood and its first two derivatives."""
        sums = np.zeros(3)
        for rows in cached_rows(gaps):
            gap = gaps[rows]
            E = tau * gap
            top = E.max(axis=1)
            np.exp(np.subtract(E, top[:, None], out=E), out=E)
            total = E.sum(axis=1)
            mean = np.einsum("ij,ij->i", E, gap) / total
            square = np.einsum("ij,ij,ij->i", E, gap, gap) / total
            likelihood = -(top + np.log(total))
            sums += [w[rows] @ part for part in (likelihood, -mean, mean**2 - square)]
        return tuple(sums / n)

    if largest <= 0:
        ties = np.sum(gaps == 0, axis=1)
        goal = -(w @ np.log(ties)) / n - 1 / (n + 1)

        def descent(tau: float) -> tuple[float, float]:
            value, slope, _ = moments(tau)
            return goal - value, -slope
    else:

        def descent(tau: float) -> tuple[float, float]:
            return moments(tau)[1:]

    return 1 / _root(descent, 1 / start, least)


def _root(descent: Any, x: float, least: float) -> float:
    """The zero of a falling function above `least`, or `least` if there is none.

    `descent` gives the function and its derivative; Newton's steps are safeguarded.
    """
    low, high = least, np.inf
    x = min(max(x, least), 1e12 * least)
    for _ in range(_MAX_ITER):
        value, slope = descent(x)
        if value > 0:
            low = x
        else:
            high = x
        step = x - value / slope if slope < 0 else np.inf
        if not low < step < min(high, 8 * x):
            step = 4 * x if np.isinf(high) else np.sqrt(low * high)
        change, x = abs(step - x), float(step)
        # Newton's steps are quadratic: the error is far below the last of them.
        if change <= _TOL * x:
            break
    return x
