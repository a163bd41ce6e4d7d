"""A score and how sure it is: its parts, standard error and P(better)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr


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

    @classmethod
    def of_parts(cls, parts: Sequence[float]) -> Score:
        """The mean of the parts, as a score."""
        parts = np.asarray(parts, dtype=np.float64)
        return cls(float(np.mean(parts)), parts)

    @property
    def std_error(self) -> float:
        """Standard error of the value, std(parts) / sqrt(n); NaN without parts."""
        if self.parts is None:
            return np.nan
        return float(np.std(self.parts) / np.sqrt(len(self.parts)))

    def scaled(self, factor: float) -> Score:
        """The score in another unit."""
        parts = None if self.parts is None else factor * self.parts
        return Score(factor * self.value, parts, factor * self.resolution)


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
    for a, i in enumerate(known):
        std_error = np.std(parts - parts[a], axis=1) / np.sqrt(parts.shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = values[a] - values
            z = difference / std_error
        # Copies of one network differ by rounding, in values and parts alike.
        rounding = np.maximum(resolution, resolution[a])
        tied = (np.abs(difference) <= rounding) | (values == values[a])
        z = np.where(tied, 0.0, np.where(np.isinf(difference), difference, z))
        probability[i, known] = ndtr(z)
    return probability
