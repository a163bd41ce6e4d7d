"""H-score, plain and regularised: variance between classes over total variance."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._score import Score


def h_score(X: Any, y: Any) -> float:
    r"""H-score: share of the variance of the features that lies between classes.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    float
        Between 0 and min(n_classes - 1, rank of the features); no unit.

    See Also
    --------
    logme_score : Does not saturate for fewer samples than features.

    Notes
    -----
    :math:`\mathrm{tr}(\mathrm{cov}(F)^+ \mathrm{cov}(E[F | y]))`, computed as the sum
    over classes of the squared projections of the centred one-hot columns on the left
    singular vectors of the centred features, each divided by the class size. With more
    features than samples it is n_classes - 1 for any features.

    References
    ----------
    .. [1] Y. Bao et al., "An Information-Theoretic Approach to Transferability in Task
       Transfer Learning", ICIP 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import h_score
    >>> round(h_score(*load_iris(return_X_y=True)), 3)
    1.192
    """
    return H_SCORE(X, y)


def regularized_h_score(X: Any, y: Any) -> float:
    r"""H-score with a Ledoit-Wolf covariance of the features.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    float
        At least 0; no unit.

    Raises
    ------
    ValueError
        If all samples have the same features.

    See Also
    --------
    h_score : Without shrinkage; saturates for fewer samples than features.

    Notes
    -----
    :math:`\mathrm{tr}\big(\Sigma_\delta^{-1} (1 - \delta) \mathrm{cov}(E[F | y])\big)`,
    :math:`\Sigma_\delta = (1 - \delta) S + \delta \frac{\mathrm{tr} S}{D} I` with the
    shrinkage :math:`\delta` of Ledoit and Wolf. It is computed from the spectrum of
    F^T F with a rank-one correction for the mean, without any matrix inverse.

    References
    ----------
    .. [1] S. Ibrahim, N. Ponomareva, R. Mazumder, "Newer is not Always Better:
       Rethinking Transferability Metrics, their Peculiarities, Stability and
       Performance", ECML PKDD 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import regularized_h_score
    >>> round(regularized_h_score(*load_iris(return_X_y=True)), 3)
    1.178
    """
    return REGULARIZED_H_SCORE(X, y)


def _h_score(data: LabelledData) -> Score:
    """H-score from the spectrum of the features as they are, not centred.

    With U the left singular vectors and a = U^T 1 / sqrt(n), the centred features span
    U - 1 a^T / sqrt(n), whose Gram matrix is I - a a^T.
    """
    data = data.about_mean
    z, ones, a = _projections(data)
    n = data.n_samples
    b = z - ones[:, None] * (data.counts / n)
    explained = np.sum(b**2, axis=0)
    # Where the features span the constant, centring removes one direction.
    outside = 1 - a @ a
    if outside > 1e-9:
        explained += (a @ b) ** 2 / outside
    return Score(float(np.sum(explained / data.counts)))


def _regularized_h_score(data: LabelledData) -> Score:
    """Regularised H-score in the basis of the spectrum of the uncentred features."""
    data = data.about_mean
    n, d = data.features.shape
    s = data.spectrum.eigenvalues
    z, ones, _ = _projections(data)
    root = np.sqrt(s)
    mean = root * ones / n
    variance = max(s.sum() / n - mean @ mean, 0.0)
    if variance <= 1e-12 * s.sum() / n:
        raise ValueError(
            "All samples have the same features: classes cannot be separated."
        )
    shrinkage = _ledoit_wolf(data, s, mean, variance)
    means = root[:, None] * z / data.counts - mean[:, None]
    # Sigma = D - (1 - shrinkage) mean mean^T with D diagonal; Sherman and Morrison.
    diagonal = (1 - shrinkage) * s / n + shrinkage * variance / d
    scaled = means / diagonal[:, None]
    left = 1 - (1 - shrinkage) * np.sum(mean**2 / diagonal)
    quadratic = np.sum(means * scaled, axis=0)
    if left > 1e-9:
        quadratic += (1 - shrinkage) * (mean @ scaled) ** 2 / left
    return Score(float((1 - shrinkage) * (data.counts @ quadratic) / (n - 1)))


def _ledoit_wolf(
    data: LabelledData, s: np.ndarray, mean: np.ndarray, variance: float
) -> float:
    """Shrinkage intensity of Ledoit and Wolf, from traces and norms of samples."""
    n, d = data.features.shape
    # ||S||_F^2 of S = diag(s) / n - mean mean^T
    square = np.sum((s / n) ** 2) - 2 * np.sum(s / n * mean**2) + (mean @ mean) ** 2
    fourth = np.sum(data.centred_square_norms**2)
    beta = (fourth / n - square) / (n * d)
    delta = (square - variance**2 / d) / d
    return 1.0 if delta <= 0 else float(np.clip(beta / delta, 0.0, 1.0))


def _projections(data: LabelledData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U^T Y of the one-hot columns, U^T 1, and the latter over sqrt(n)."""
    z = data.spectrum.projections
    ones = np.sum(z, axis=1)
    return z, ones, ones / np.sqrt(data.n_samples)


H_SCORE = Metric(
    "h_score",
    _h_score,
    h_score,
    exact_under_duplication=True,
    reference="Bao et al., ICIP 2019",
    cost="n D² + D³",
    weakness="Saturates at K - 1 when n < D, whatever the features.",
)

REGULARIZED_H_SCORE = Metric(
    "regularized_h_score",
    _regularized_h_score,
    regularized_h_score,
    reference="Ibrahim et al., ECML PKDD 2022",
    cost="n D² + D³",
    weakness="Shrinks all directions alike; strong directions hide weak but "
    "informative ones.",
)
