"""A score and how sure it is: its parts, standard error and P(better)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from sktransfer.linear_model import standard_error
from sktransfer.utils._array_api import to_numpy


class Score(NamedTuple):
    """The value of a metric and, where it is a mean over samples, its parts.

    Attributes
    ----------
    value : float
        Larger is better.
    parts : ndarray of shape (n_samples,) or None
        Contribution of each sample. The value is their mean, or varies with the
        samples as their mean does (LogME, R^2).
    resolution : float
        Differences between two values up to this size are rounding errors.
    weights : ndarray of shape (n_samples,) or None
        Weights of the samples, if they have any.
    groups : ndarray of shape (n_samples,) or None
        Samples of one group are not independent of each other.
    no_information : float
        The value for features that say nothing about the target; NaN if unknown.

    Examples
    --------
    >>> from sktransfer.metrics import Score
    >>> score = Score.of_parts([1.0, 0.0, 1.0, 0.0])
    >>> score.value, score.std_error
    (0.5, 0.25)
    """

    value: float
    parts: np.ndarray | None = None
    resolution: float = 0.0
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None
    no_information: float = np.nan

    @classmethod
    def of_parts(
        cls,
        parts: Sequence[float],
        weights: np.ndarray | None = None,
        *,
        no_information: float = np.nan,
    ) -> Score:
        """The (weighted) mean of the parts, as a score."""
        parts = to_numpy(parts).astype(np.float64)
        value = float(np.average(parts, weights=weights))
        return cls(value, parts, no_information=no_information)

    @property
    def std_error(self) -> float:
        """Standard error of the value, std(parts) / sqrt(n); NaN without parts."""
        if self.parts is None:
            return np.nan
        return standard_error(self.parts, self.weights, self.groups)

    @property
    def gain(self) -> float:
        """Difference to `no_information`."""
        return self.value - self.no_information

    def scaled(self, factor: float) -> Score:
        """The score in another unit."""
        return self._replace(
            value=factor * self.value,
            parts=None if self.parts is None else factor * self.parts,
            resolution=factor * self.resolution,
            no_information=factor * self.no_information,
        )


def probability_better(scores: Sequence[Score | None]) -> np.ndarray:
    """Probability that score i is larger than score j, on as many samples.

    Phi((value_i - value_j) / stderr), with the standard error of the difference from
    the paired parts: all scores are of the same samples. Differences within the
    rounding of the features, 1e-4 for float32 and 5e-9 for float64, are ties.

    Parameters
    ----------
    scores : sequence of Score or None

    Returns
    -------
    ndarray of shape (n_scores, n_scores)
        0.5 on the diagonal and for ties; NaN where a score is missing or has no parts.
    """
    probability = np.full((len(scores), len(scores)), np.nan)
    known = [i for i, s in enumerate(scores) if s is not None and s.parts is not None]
    if not known:
        return probability
    values = np.array([scores[i].value for i in known])
    parts = np.stack([scores[i].parts for i in known])
    resolution = np.array([scores[i].resolution for i in known])
    weights, groups = scores[known[0]].weights, scores[known[0]].groups
    for a, i in enumerate(known):
        std_error = standard_error(parts - parts[a], weights, groups)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = values[a] - values
            z = difference / std_error
        # Copies of one network differ by rounding, in values and parts alike.
        rounding = np.maximum(resolution, resolution[a])
        tied = (np.abs(difference) <= rounding) | (values == values[a])
        z = np.where(tied, 0.0, np.where(np.isinf(difference), difference, z))
        probability[i, known] = ndtr(z)
    return probability
