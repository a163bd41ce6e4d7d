"""LDA: posterior of the true class under a discriminant analysis."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import solve
from scipy.special import softmax
from sklearn.covariance import ledoit_wolf
from sklearn.preprocessing import StandardScaler

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._score import Score


def lda_score(X: Any, y: Any) -> float:
    r"""LDA: mean posterior of the true class under linear discriminant analysis.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features; those on a GPU are brought to the host.
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    float
        A probability, between 0 and 1.

    Raises
    ------
    ValueError
        If `y` holds no class labels, or no class has any variance.

    See Also
    --------
    linear_probe_score : Evaluates a linear head on held-out samples.

    Notes
    -----
    :math:`\frac1n \sum_i p(y_i | x_i)`, where classes are Gaussians with frequencies
    :math:`n_c / n`, means :math:`\mu_c` and a shared covariance: that of the
    standardised features minus their class means, shrunk by the rule of Ledoit and
    Wolf. This is the common core of SFDA, NCTI and ETran. The head is evaluated on the
    samples that it was fitted to: with few samples per feature the score is near 1 for
    any features.

    References
    ----------
    .. [1] W. Shao et al., "Not All Models Are Equal: Predicting Model Transferability
       in a Self-challenging Fisher Space", ECCV 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import lda_score
    >>> round(lda_score(*load_iris(return_X_y=True)), 3)
    0.969
    """
    return LDA(X, y)


def _compute(data: LabelledData) -> Score:
    codes = data.host_target
    X = StandardScaler().fit_transform(data.host_features)
    means = class_means(X, codes)
    residuals = X - means[codes]
    if np.mean(residuals**2) <= 1e-10 * np.mean(X**2):
        raise ValueError(
            "lda_score needs classes with some variance: here all samples of every "
            "class have the same features."
        )
    covariance, _ = ledoit_wolf(residuals, assume_centered=True)
    # Without any shrinkage, duplicated features would make the covariance singular.
    covariance.flat[:: len(covariance) + 1] += 1e-6 * np.trace(covariance) / X.shape[1]
    weights = solve(covariance, means.T, assume_a="pos")
    posterior = class_posterior(X, means, weights, data.counts)
    return Score.of_parts(posterior[np.arange(len(X)), codes])


def class_means(X: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Mean of each class, (n_classes, n_features)."""
    return np.stack([X[codes == c].mean(axis=0) for c in range(codes.max() + 1)])


def class_posterior(
    X: np.ndarray, means: np.ndarray, weights: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Posterior of Gaussian classes; `weights` is covariance^-1 means^T."""
    offsets = np.log(counts / counts.sum()) - np.sum(means * weights.T, axis=1) / 2
    return softmax(X @ weights + offsets, axis=1)


LDA = Metric(
    "lda",
    _compute,
    lda_score,
    reference="Shao et al., ECCV 2022",
    cost="n D² + D³ + n D K",
    weakness="Evaluated on its own training samples: close to 1 when n is near D or "
    "below.",
)
