"""Scores of predictions for samples that were held out, and how sure they are."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtr

from sktransfer.utils._array_api import cached_rows
from sktransfer.utils._score import Score

# Predictions of one-hot targets whose difference is rounding.
_TIE = 1e-9
_TOL = 1e-5
_MAX_ITER = 200
# Least 1 / temperature, relative to the spread of the predictions.
_LEAST = 1e-6


@dataclass(frozen=True)
class LeftOut:
    """Predictions of left-out samples, and how they vary with the training samples.

    The variance of a prediction is that of the posterior mean, (1 / slack - 1) x noise,
    or without noise noise / slack, where slack and noise have a common factor.
    """

    predictions: np.ndarray  # (n_samples, n_targets)
    slack: np.ndarray  # 1 - leverage, (n_samples, n_targets) or (n_samples, 1)
    noise: np.ndarray  # (n_targets,)
    noiseless: np.ndarray  # (n_targets,) or (1,)

    @cached_property
    def spread(self) -> np.ndarray:
        """Variance in units of the noise, of the shape of `slack`."""
        return np.maximum(1 / self.slack - ~self.noiseless, 0.0)


@dataclass
class HeldOutScores:
    """Scores of left-out samples, by name, each with its standard error."""

    left_out: LeftOut | None
    scores: dict[str, Score] | None
    temperature: float | None = None
    values: dict[str, tuple[float, float]] = field(init=False)

    def __post_init__(self):
        self.values = {k: (v.value, v.std_error) for k, v in self.scores.items()}

    def compact(self) -> HeldOutScores:
        """The same values and standard errors, without samples."""
        small = copy(self)
        small.left_out = small.scores = None
        return small


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
    left_out: LeftOut,
    log_density: np.ndarray,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
) -> HeldOutScores:
    """R^2 and mean log density."""
    errors = y - left_out.predictions
    variance = left_out.spread * left_out.noise
    deviations = (y - np.average(y, axis=0, weights=weights)) ** 2
    B = np.average(deviations, axis=0, weights=weights)
    # By the delta method: squared slopes of the parts in the predictions.
    of_r2 = np.sum((2 * errors / B) ** 2 * variance, axis=1) / y.shape[1] ** 2
    slopes = errors * left_out.slack / left_out.noise
    of_density = np.sum(slopes**2 * variance, axis=1) / y.shape[1] ** 2
    parts = r2_parts(y, left_out.predictions, weights)
    scores = {
        "r2": Score.of_parts(parts, weights, groups=groups, variances=of_r2),
        "log_likelihood": Score.of_parts(
            log_density, weights, groups=groups, variances=of_density
        ),
    }
    return HeldOutScores(left_out, scores)


def score_classes(
    codes: np.ndarray,
    left_out: LeftOut,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
    start: float,
) -> HeldOutScores:
    """Accuracy and, at the temperature that fits best, mean log probability."""
    gaps, noise = _gaps(left_out.predictions, codes), left_out.noise
    # Predictions of all classes sum to one: if one moves, the others move against it.
    opposed = len(noise) / (len(noise) - 1)
    T = _fit_gaps(gaps, weights, start)
    log_density, right, of_density, of_right = np.empty((4, len(codes)))
    for rows in cached_rows(gaps):
        gap, y, spread = gaps[rows], codes[rows], left_out.spread[rows, 0]
        own = np.arange(len(y)), y
        top = gap.max(axis=1)
        # One of several classes with the largest prediction is drawn at random.
        right[rows] = (top <= _TIE) / np.sum(gap >= top[:, None] - _TIE, axis=1)
        P = np.exp((gap - top[:, None]) / T)
        total = P.sum(axis=1)
        log_density[rows] = -top / T - np.log(total)
        # By the delta method: the slopes in the predictions are (one-hot - P) / T.
        P /= total[:, None]
        slopes2 = P**2 @ noise + noise[y] * (1 - 2 * P[own])
        of_density[rows] = opposed * spread * slopes2 / T**2
        gap[own] = -np.inf
        rival = np.argmax(gap, axis=1)
        deviation = np.sqrt(spread * (noise[y] + noise[rival]))
        with np.errstate(divide="ignore", invalid="ignore"):
            wins = ndtr(-gap[np.arange(len(y)), rival] / deviation)
        of_right[rows] = np.where(deviation > 0, wins * (1 - wins), 0.0)
    # As for one error more, by the rule of succession: there may be none.
    of_right += 1 / (len(codes) if weights is None else weights.sum())
    scores = {
        "accuracy": Score.of_parts(right, weights, groups=groups, variances=of_right),
        "log_likelihood": Score.of_parts(
            log_density, weights, groups=groups, variances=of_density
        ),
    }
    return HeldOutScores(left_out, scores, T)


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
