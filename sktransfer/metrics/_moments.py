"""Metrics of class sums and the Gram matrix: LogME, the H-scores, and LFC."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktransfer.linear_model import LogME, LogMEClassifier, SufficientStatistics
from sktransfer.metrics._shared import LabelledFeatures
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._validation import (
    check_features,
    check_numeric_target,
    check_task,
)


def logme_score(
    X: Any, y: Any, *, task: str = "auto", fit_intercept: bool = False
) -> float:
    r"""Log maximum evidence of a Gaussian linear model from features to target.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; ``"auto"`` takes integers and text for labels, floats for
        numbers.
    fit_intercept : bool, default=False
        Whether the model has an intercept. The papers' has none.

    Returns
    -------
    float
        Per sample, mean over targets (one-hot columns for labels), in nats.

    Raises
    ------
    ValueError
        If a target is constant or the arrays do not fit together.

    See Also
    --------
    sktransfer.linear_model.LogME : The model, with its standard error.

    Notes
    -----
    ``max over alpha, beta of log p(y | X, alpha, beta) / n``, with p(y | X) = N(0,
    I / beta + X X^T / alpha). Unlike the codes in circulation it is exact for fewer
    samples than features, too.

    References
    ----------
    .. [1] K. You, Y. Liu, J. Wang, M. Long, "LogME: Practical Assessment of Pre-trained
       Models for Transfer Learning", ICML 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import logme_score
    >>> round(logme_score(*load_iris(return_X_y=True)), 3)
    -0.16
    """
    task = check_task("logme_score", y, task)
    model = LogMEClassifier if task == "classification" else LogME
    return model(fit_intercept=fit_intercept).fit(X, y).logme_


def h_score(X: Any, y: Any) -> float:
    r"""H-score: the share of the features' variance that lies between classes.

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
    :math:`\mathrm{tr}(\mathrm{cov}(F)^+ \mathrm{cov}(E[F | y]))`, here the sum over
    classes of the squared projections of the centred one-hot columns on the left
    singular vectors of the centred features, each over its class size. It reaches
    n_classes - 1 for any features at all once they are more than the samples.

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
    return h_score_of(LabelledFeatures(X, y))


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
    shrinkage :math:`\delta` of Ledoit and Wolf. Nothing is inverted: the spectrum of
    F^T F, changed by one rank for the mean, is enough.

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
    return regularized_h_score_of(LabelledFeatures(X, y))


def lfc_score(X: Any, y: Any, *, task: str = "auto") -> float:
    r"""LFC: correlation of the similarities of features and of targets.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; ``"auto"`` takes integers and text for labels, floats for
        numbers.

    Returns
    -------
    float
        Between -1 and 1.

    Raises
    ------
    ValueError
        If all pairs of samples are equally similar, or a target is constant.

    Notes
    -----
    :math:`\langle \Theta, \Lambda \rangle / (\|\Theta\| \|\Lambda\|)` of Theta = F F^T
    and Lambda_ij = 1 for the same class, -1 otherwise, each less its mean. For numbers
    and several labels Lambda = Y Y^T with standardised columns. All sums follow from
    F^T F and F^T Y (class sums); no n x n matrix is made.

    References
    ----------
    .. [1] A. Deshpande et al., "A Linearized Framework and a New Benchmark for Model
       Selection for Fine-Tuning", arXiv:2102.00084, 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import lfc_score
    >>> round(lfc_score(*load_iris(return_X_y=True)), 3)
    0.165
    """
    if check_task("lfc_score", y, task) == "classification":
        return lfc_of(LabelledFeatures(X, y))
    X = check_features(X, min_samples=2)
    y = check_numeric_target(y, X)
    statistics = SufficientStatistics(X.shape[1]).update(X, y)
    if statistics.constant_targets.any():
        raise ValueError("lfc_score cannot use a target that is constant.")
    n, spectrum = statistics.n_samples, statistics.spectrum
    # F^T Y = V sqrt(s) z, and V drops out of every norm.
    root = np.sqrt(spectrum.eigenvalues)[:, None]
    feature_sums = root * _constant_projection(statistics)[:, None]
    mean = statistics.target_sums / n
    scale = np.sqrt(statistics.target_norms - n * mean**2)
    product = np.sum(((root * spectrum.projections - feature_sums * mean) / scale) ** 2)
    Y = (to_numpy(y).reshape(len(y), -1) - mean) / scale
    labels = np.sum((Y.T @ Y) ** 2)
    total = np.sum(feature_sums**2)
    features = np.sum(spectrum.eigenvalues**2) - total**2 / n**2
    return _correlation(product, features, labels, total**2 / n**2)


def logme_of(data: LabelledFeatures) -> float:
    """LogME of features and labels whose statistics are shared."""
    return data.logme.logme_


def h_score_of(data: LabelledFeatures) -> float:
    """H-score from the spectrum of the features as they are, not centred.

    With U the left singular vectors and a = U^T 1 / sqrt(n), the centred features span
    U - 1 a^T / sqrt(n), whose Gram matrix is I - a a^T.
    """
    data = data.about_mean
    z, ones, a = _projections(data)
    n = data.X.shape[0]
    b = z - ones[:, None] * (data.counts / n)
    explained = np.sum(b**2, axis=0)
    # Where the features span the constant, centring takes one direction away.
    outside = 1 - a @ a
    if outside > 1e-9:
        explained += (a @ b) ** 2 / outside
    return float(np.sum(explained / data.counts))


def regularized_h_score_of(data: LabelledFeatures) -> float:
    """Regularised H-score in the basis of the spectrum of the uncentred features."""
    data = data.about_mean
    n, d = data.X.shape
    s = data.spectrum.eigenvalues
    z, ones, _ = _projections(data)
    root = np.sqrt(s)
    mean = root * ones / n
    variance = max(s.sum() / n - mean @ mean, 0.0)
    if variance <= 1e-12 * s.sum() / n:
        raise ValueError("All samples have the same features: nothing tells classes.")
    shrinkage = _ledoit_wolf(data, s, mean, variance)
    means = root[:, None] * z / data.counts - mean[:, None]
    # Sigma = D - (1 - shrinkage) mean mean^T with D diagonal; Sherman and Morrison.
    diagonal = (1 - shrinkage) * s / n + shrinkage * variance / d
    scaled = means / diagonal[:, None]
    left = 1 - (1 - shrinkage) * np.sum(mean**2 / diagonal)
    quadratic = np.sum(means * scaled, axis=0)
    if left > 1e-9:
        quadratic += (1 - shrinkage) * (mean @ scaled) ** 2 / left
    return float((1 - shrinkage) * (data.counts @ quadratic) / (n - 1))


def _ledoit_wolf(
    data: LabelledFeatures, s: np.ndarray, mean: np.ndarray, variance: float
) -> float:
    """Shrinkage intensity of Ledoit and Wolf, from traces and norms of samples."""
    n, d = data.X.shape
    # ||S||_F^2 of S = diag(s) / n - mean mean^T
    square = np.sum((s / n) ** 2) - 2 * np.sum(s / n * mean**2) + (mean @ mean) ** 2
    fourth = np.sum(data.centred_square_norms**2)
    beta = (fourth / n - square) / (n * d)
    delta = (square - variance**2 / d) / d
    return 1.0 if delta <= 0 else float(np.clip(beta / delta, 0.0, 1.0))


def lfc_of(data: LabelledFeatures) -> float:
    """LFC from the Gram matrix and the class sums."""
    n = data.X.shape[0]
    sums = to_numpy(data.statistics.cross)
    total = np.sum(np.sum(sums, axis=1) ** 2)  # sum of Theta
    within = np.sum(sums**2)
    same = np.sum(data.counts**2)
    label_mean = (2 * same - n**2) / n**2
    features = data.statistics.squared_gram_norm - total**2 / n**2
    labels = n**2 * (1 - label_mean**2)
    product = 2 * within - total - total * label_mean
    return _correlation(product, features, labels, total**2 / n**2)


def _correlation(product: float, features: float, labels: float, mean: float) -> float:
    if features <= 1e-12 * mean or labels <= 0:
        raise ValueError("All pairs of samples are equally similar: LFC is 0 / 0.")
    return float(product / np.sqrt(features * labels))


def _constant_projection(statistics: SufficientStatistics) -> np.ndarray:
    """U^T 1 = s^-1/2 V^T F^T 1."""
    spectrum = statistics.spectrum
    sums = spectrum.basis.T @ (statistics.feature_mean * statistics.n_samples)
    return to_numpy(sums) / np.sqrt(spectrum.eigenvalues)


def _projections(data: LabelledFeatures) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U^T Y of the one-hot columns, U^T 1, and the latter over sqrt(n)."""
    z = data.spectrum.projections
    ones = np.sum(z, axis=1)
    return z, ones, ones / np.sqrt(data.X.shape[0])
