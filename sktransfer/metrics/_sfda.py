"""SFDA: Fisher discriminant analysis of samples pushed towards other classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.special import log_softmax

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._lda import class_means
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import in_range, to_numpy
from sktransfer.utils._score import Score


def sfda_score(X: Any, y: Any, *, strength: float = 1.0) -> float:
    r"""SFDA: self-challenging Fisher discriminant analysis.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features; those on a GPU are brought to the host. Their unit matters.
    y : array-like of shape (n_samples,)
        Class labels.
    strength : float, default=1.0
        How fast the shrinkage falls with the variance within classes: :math:`a` in the
        formula below, in the inverse of the squared unit of the features.

    Returns
    -------
    float
        Mean log-likelihood of the true class: nats per sample, at most 0.

    Raises
    ------
    ValueError
        If `y` holds no class labels, or `strength` is not positive and finite.

    See Also
    --------
    lda_score : Discriminant analysis alone, with a shrinkage that ignores the unit.

    Notes
    -----
    Class c has :math:`n_c` samples with mean :math:`\mu_c`; all n samples have the mean
    :math:`\mu`. The covariances between and within classes are

    .. math:: S_B = \sum_c \frac{n_c}{n} (\mu_c - \mu) (\mu_c - \mu)^\top , \quad
       S_W = \frac1n \sum_i (x_i - \mu_{y_i}) (x_i - \mu_{y_i})^\top .

    Regularized discriminant analysis projects the features onto the directions

    .. math:: U = \arg\max_U \frac{|U^\top S_B U|}{|U^\top \tilde S_W U|} , \quad
       \tilde S_W = (1 - \lambda) S_W + \lambda I , \quad
       \lambda = \exp(-a \sigma(S_W)) ,

    where :math:`\sigma` is the largest eigenvalue and :math:`U^\top \tilde S_W U = I`.
    There, classes are Gaussians of unit covariance, and Bayes' theorem gives

    .. math:: \delta_c(x) = x^\top U U^\top \mu_c - \tfrac12 \mu_c^\top U U^\top \mu_c
       + \log \frac{n_c}{n} , \quad
       p(c \mid x) = \frac{\exp \delta_c(x)}{\sum_k \exp \delta_k(x)} .

    Each sample is then mixed with the mean of the samples of all other classes, the
    more the less certain its class is ("confidential mixing"),

    .. math:: \tilde x_i = p_i x_i + (1 - p_i) \frac{1}{n - n_{y_i}}
       \sum_{k : y_k \ne y_i} x_k , \quad p_i = p(y_i \mid x_i) .

    The same analysis, :math:`\lambda` included, is repeated on the mixed samples. With
    its posterior :math:`\tilde p`, the score is :math:`\frac1n \sum_i \log \tilde
    p(y_i \mid \tilde x_i)`.

    The paper asks for a positive constant :math:`a` and leaves it open; 1 is a choice
    of this library. So is the division of the scatter matrices by n, without which
    :math:`\lambda` would fall with the number of samples. Variances below the machine
    precision of the largest one are raised to it: :math:`\lambda = 0` stands for its
    limit.

    The unit of the features determines :math:`\lambda`. In a small unit it is near 1,
    and the score approaches that of guessing by class frequencies, as do constant
    features. In a large unit there is no shrinkage: with fewer samples than features
    the score is then 0, its largest value, for any features and any labels. An offset
    does not matter. The analysis is evaluated on the samples that it was fitted to.

    References
    ----------
    .. [1] W. Shao et al., "Not All Models Are Equal: Predicting Model Transferability
       in a Self-challenging Fisher Space", ECCV 2022, arXiv:2207.03036.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import sfda_score
    >>> X, y = load_iris(return_X_y=True)
    >>> round(sfda_score(X, y), 3)
    -0.312
    >>> round(sfda_score(X / 1000, y), 3)  # log(1/3)
    -1.099
    """
    return SFDA(X, y, strength=strength)


def _compute(data: LabelledData, *, strength: float = 1.0) -> Score:
    if not 0 < strength < math.inf:
        raise ValueError(f"strength must be positive and finite. Got {strength!r}.")
    codes, counts = data.host_target, data.counts
    X, exponent = in_range(to_numpy(data.features).astype(np.float64))
    X = X[:, np.ptp(X, axis=0) > 0]  # constants would leave rounding errors only
    own = np.arange(len(X)), codes
    X = X - X.mean(axis=0)
    confidence = np.exp(_log_posterior(X, codes, counts, strength, exponent)[own])
    sums = class_means(X, codes) * counts[:, None]
    others = (X.sum(axis=0) - sums) / (len(X) - counts)[:, None]
    mixed = others[codes] + confidence[:, None] * (X - others[codes])
    return Score.of_parts(_log_posterior(mixed, codes, counts, strength, exponent)[own])


def _log_posterior(
    X: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
    strength: float,
    exponent: int,
) -> np.ndarray:
    """Log posterior of the classes of X * 2 ** exponent, (n_samples, n_classes)."""
    prior = np.log(counts / len(X))
    if X.shape[1] == 0:
        return np.tile(prior, (len(X), 1))
    X = X - X.mean(axis=0)
    rotated, means, variances, axes = _axes_within(X, codes)
    with np.errstate(over="ignore", under="ignore"):
        shrinkage = np.exp(-strength * np.ldexp(variances[-1], 2 * exponent))
        ridge = np.ldexp(shrinkage, -2 * exponent)
    if shrinkage == 0:
        # Units then cancel: let no large one hide the others.
        spread = X.std(axis=0)
        X /= np.where(spread > 0, spread, 1)
        rotated, means, variances, axes = _axes_within(X, codes)
    variances = (1 - shrinkage) * variances + ridge
    precision = np.finfo(np.float64)
    lowest = max(len(variances) * precision.eps * variances[-1], precision.tiny)
    whitening = axes / np.sqrt(np.maximum(variances, lowest))
    means = means @ whitening
    offsets = prior - np.sum(means**2, axis=1) / 2
    return log_softmax(rotated @ (whitening @ means.T) + offsets, axis=1)


def _axes_within(
    X: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Samples and class means, and the variances and axes of S_W.

    With more features than samples all are rotated to the span of the samples.
    """
    if X.shape[1] > len(X):
        X = np.linalg.qr(X.T, mode="r").T
    means = class_means(X, codes)
    residuals = X - means[codes]
    variances, axes = eigh(residuals.T @ residuals / len(X))
    return X, means, np.maximum(variances, 0), axes


SFDA = Metric(
    "sfda",
    _compute,
    sfda_score,
    reference="Shao et al., ECCV 2022",
    cost="n D² + D³ + n D K",
    weakness="Depends on the unit of the features; evaluated on its own training "
    "samples, and in a large unit exactly 0, the best value, with fewer samples than "
    "features.",
)
