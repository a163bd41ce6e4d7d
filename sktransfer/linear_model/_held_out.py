"""Scores of predictions for samples that were held out, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax

from sktransfer.utils._array_api import cached_rows
from sktransfer.utils._score import standard_error

# Predictions of one-hot targets whose difference is rounding.
_TIE = 1e-9
_TOL = 1e-10
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
    temperature = fit_temperature(predictions, codes, weights, start)
    log_proba = log_softmax(predictions / temperature, axis=1)
    own = np.arange(len(codes)), codes
    log_density = log_proba[own]
    right = arg_max_shares(predictions)[own]
    return HeldOutScores(
        predictions=predictions,
        log_density=log_density,
        log_likelihood=mean_and_error(log_density, weights, groups),
        accuracy=mean_and_error(right, weights, groups),
        temperature=temperature,
    )


def arg_max_shares(predictions: np.ndarray) -> np.ndarray:
    """Share of each class in the arg max: one, or parts of it for a tie.

    Parameters
    ----------
    predictions : ndarray of shape (..., n_classes)
        Predictions of one-hot targets.

    Returns
    -------
    ndarray of shape (..., n_classes)
        Each row sums to one.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.linear_model import arg_max_shares
    >>> arg_max_shares(np.array([[0.2, 0.8, 0.0], [0.5, 0.0, 0.5]]))
    array([[0. , 1. , 0. ],
           [0.5, 0. , 0.5]])
    """
    first = predictions >= predictions.max(axis=-1, keepdims=True) - _TIE
    return first / first.sum(axis=-1, keepdims=True)


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

    Parameters
    ----------
    predictions : ndarray of shape (n_samples, n_classes)
    codes : ndarray of shape (n_samples,)
        Classes, in ``range(n_classes)``.
    weights : ndarray of shape (n_samples,), optional
    start : float, default=1.0
        Where the search starts.

    Returns
    -------
    float
        In the unit of the predictions.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.linear_model import fit_temperature
    >>> predictions = np.array([[1.0, 0.0]] * 4)
    >>> codes = np.array([0, 0, 0, 1])  # right three times of four
    >>> T = fit_temperature(predictions, codes)
    >>> round(float(np.exp(1 / T)), 6)  # odds
    3.0
    """
    w = np.ones(len(codes)) if weights is None else weights
    chosen = np.flatnonzero(w)
    own = predictions[chosen, codes[chosen]]
    # Differences to the true class, whose own is zero.
    gaps, w = predictions[chosen] - own[:, None], w[chosen]
    gaps[np.abs(gaps) <= _TIE] = 0.0
    n = w.sum()
    spread = float(np.max(np.abs(gaps)))
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

    if gaps.max() <= 0:
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
        if abs(step - x) <= _TOL * x:
            break
        x = float(step)
    return x
