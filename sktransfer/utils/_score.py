"""A score and how sure it is: its parts, standard error and P(better)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtr

from sktransfer.utils._array_api import to_numpy

# Relative size of what is left of values that cancel.
_ROUNDING = 1e-12


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
        In the unit of `influence`; NaN if any influence is, or there is one group.

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
        sums = _sums_of_groups(weights * centred, groups)
        squares = (sums**2).sum(axis=-1)
        # One group says nothing of others.
        squares = squares if sums.shape[-1] > 1 else np.full_like(squares, np.nan)
    std_error = np.sqrt(squares) / total
    return float(std_error) if influence.ndim == 1 else std_error


def _sums_of_groups(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums along the last axis, of shape (..., n_groups)."""
    names, codes = np.unique(groups, return_inverse=True)
    rows = np.arange(len(codes) + 1)
    member = csr_array((np.ones(len(codes)), codes, rows), (len(codes), len(names)))
    return values @ member


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
    variances : ndarray of shape (n_samples,) or None
        Variance of each part over training sets, if the parts are of samples that were
        left out of the training.

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
    variances: np.ndarray | None = None

    @classmethod
    def of_parts(
        cls,
        parts: Sequence[float],
        weights: np.ndarray | None = None,
        **fields: Any,
    ) -> Score:
        """The (weighted) mean of the parts, as a score with these other fields."""
        parts = to_numpy(parts).astype(np.float64)
        value = float(np.average(parts, weights=weights))
        return cls(value, parts, weights=weights, **fields)

    @property
    def std_error(self) -> float:
        """Standard error of the value; NaN without parts.

        It is that of the mean of the parts, std(parts) / sqrt(n), and in squares the
        training variance.
        """
        if self.parts is None:
            return np.nan
        of_parts = standard_error(self.parts, self.weights, self.groups)
        return float(np.sqrt(of_parts**2 + self.training_variance))

    @property
    def gain(self) -> float:
        """Difference to `no_information`."""
        return self.value - self.no_information

    @property
    def training_variance(self) -> float:
        """Part of the variance of the value that the parts alone do not show.

        A sample counts twice, as one to predict and as a training sample of all others.
        The second moves the parts of others, each by its variance over training sets,
        and that is in the parts once, but twice in the value: the effects of i on j and
        of j on i are alike. The effects of a group add up as its parts do.
        """
        if self.variances is None:
            return 0.0
        mean = np.average(self.variances, weights=self.weights)
        n = len(self.variances) if self.weights is None else self.weights.sum()
        # Once for samples of a group that teach alike, once for those predicted alike.
        return float(mean / n * self._group_effect**2)

    @property
    def _group_effect(self) -> float:
        """By what groups multiply the variance of the mean of the parts, at least 1.

        It is the size of groups of copies. Parts that are all equal do not tell, and
        count as those of copies.
        """
        if self.groups is None:
            return 1.0
        alone = standard_error(self.parts, self.weights)
        if alone > 0:
            ratio = standard_error(self.parts, self.weights, self.groups) / alone
            return max(ratio**2, 1.0)
        weights = np.ones(len(self.parts)) if self.weights is None else self.weights
        sizes = _sums_of_groups(weights, self.groups)
        return float(sizes @ sizes / weights.sum())

    def scaled(self, factor: float) -> Score:
        """The score in another unit."""
        return self._replace(
            value=factor * self.value,
            parts=None if self.parts is None else factor * self.parts,
            resolution=factor * self.resolution,
            no_information=factor * self.no_information,
            variances=None if self.variances is None else factor**2 * self.variances,
        )


def probability_better(scores: Sequence[Score | None]) -> np.ndarray:
    """Probability that score i is larger than score j, on as many samples.

    Phi((value_i - value_j) / stderr), with the standard error of the difference from
    the paired parts: all scores are of the same samples. To its square the training
    variances V of both add V_i + V_j - 2 r^2 sqrt(V_i V_j), with r the correlation of
    the parts, summed over groups if there are any: what is alike in two models cancels.
    Differences within the rounding of the features, 1e-4 for float32 and 5e-9 for
    float64, are ties.

    Parameters
    ----------
    scores : sequence of Score or None

    Returns
    -------
    ndarray of shape (n_scores, n_scores)
        0.5 on the diagonal and for ties; NaN where a score is missing or has no parts,
        or the weights are others, as those of other samples drawn.

    Examples
    --------
    >>> from sktransfer.metrics import Score, probability_better
    >>> one, other = Score.of_parts([1, 1, 0, 1, 1]), Score.of_parts([1, 0, 0, 0, 1])
    >>> probability_better([one, other]).round(2)
    array([[0.5 , 0.97],
           [0.03, 0.5 ]])
    """
    probability = np.full((len(scores), len(scores)), np.nan)
    known = [i for i, s in enumerate(scores) if s is not None and s.parts is not None]
    if not known:
        return probability
    values = np.array([scores[i].value for i in known])
    parts = np.stack([scores[i].parts for i in known])
    resolution = np.array([scores[i].resolution for i in known])
    weights, groups = scores[known[0]].weights, scores[known[0]].groups
    V = np.array([scores[i].training_variance for i in known])
    alike = np.zeros(V.shape * 2)
    if V.any():
        alike = _squared_correlation(parts, weights, groups)
    for a, i in enumerate(known):
        of_parts = standard_error(parts - parts[a], weights, groups)
        of_training = V + V[a] - 2 * alike[a] * np.sqrt(V * V[a])
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = values[a] - values
            z = difference / np.sqrt(of_parts**2 + of_training)
        # Copies of one network differ by rounding, in values and parts alike.
        rounding = np.maximum(resolution, resolution[a])
        tied = (np.abs(difference) <= rounding) | (values == values[a])
        z = np.where(tied, 0.0, np.where(np.isinf(difference), difference, z))
        alike_drawn = [_same(scores[i].weights, scores[j].weights) for j in known]
        probability[i, known] = np.where(alike_drawn, ndtr(z), np.nan)
    return probability


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether weights are the same, or there are none."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _squared_correlation(
    parts: np.ndarray, weights: np.ndarray | None, groups: np.ndarray | None
) -> np.ndarray:
    """Between rows; parts that are all equal correlate with nothing else."""
    w = np.ones(parts.shape[1]) if weights is None else weights
    scale = np.sqrt(w) if groups is None else w
    centred = scale * (parts - (parts @ w / w.sum())[:, None])
    if groups is not None:
        centred = _sums_of_groups(centred, groups)
    norms = np.linalg.norm(centred, axis=1)
    # What cancels leaves rounding errors.
    norms[norms <= _ROUNDING * np.linalg.norm(scale * parts, axis=1)] = np.inf
    centred /= norms[:, None]
    return np.minimum((centred @ centred.T) ** 2, 1.0)  # more is rounding
