"""NCTI: three measures of how near the features are to neural collapse."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._gbc import principal_directions
from sktransfer.metrics._lda import class_means, class_posterior
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._score import Score

_N_COMPONENTS = 64
# Variances of this many components set the shrinkage; below the floor there is none.
_N_IN_SHRINKAGE = 32
_FLOOR = 1e-10
# Without shrinkage, directions of a smaller relative deviation are left out.
_RANK_TOLERANCE = 1e-4


def ncti_ncc_score(X: Any, y: Any) -> float:
    r"""NCTI, nearest centre: mean posterior of the true class.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features. Their unit matters.
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
    ncti_seli_score : Spread of the class means.
    ncti_vc_score : Variability within classes.
    sktransfer.agreement.min_max_aggregate : Combines the three.

    Notes
    -----
    :math:`\frac1n \sum_i p(y_i | h_i)` in a discriminant analysis of the first 64
    principal components. The covariance within classes is :math:`(1 - \lambda) S_W +
    \lambda \frac{\mathrm{tr} S_W}{d} I` with :math:`\lambda = \exp(-\sum_{j \le 32}
    s_j)`, where :math:`s_j` are the variances of the components. From
    :math:`\lambda \le 10^{-10}` on there is no shrinkage, and directions in which no
    class varies are left out. The components and the shrinkage are those of the
    published implementation.

    NCTI is the sum of the nearest-centre, SELI and variability scores, each first
    scaled to between 0 and 1 over the candidates;
    :func:`~sktransfer.agreement.min_max_aggregate` of the three has the same order.
    NCTI therefore has no value for one candidate, and adding or removing a candidate
    can change the order of the others.

    The analysis is evaluated on the samples that it was fitted to: with few samples per
    component the score is near 1 for any labels. With fewer samples than components
    this holds for a small unit only: in a large one, what is left out is what separates
    the classes, and the score can be that of a guess. Likewise, a feature that is
    constant within each class raises the score less in a large unit than in a small
    one.

    References
    ----------
    .. [1] Z. Wang, Y. Luo, L. Zheng, Z. Huang, M. Baktashmotlagh, "How Far Pre-trained
       Models Are from Neural Collapse on the Target Dataset Informs their
       Transferability", ICCV 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import ncti_ncc_score
    >>> round(ncti_ncc_score(*load_iris(return_X_y=True)), 3)
    0.973
    """
    return NCTI_NCC(X, y)


def ncti_seli_score(X: Any, y: Any) -> float:
    r"""NCTI, SELI geometry: nuclear norm of the discriminant features.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features. Their unit matters.
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    float
        At least 0; no unit. It grows with the square root of the number of samples.

    Raises
    ------
    ValueError
        If `y` holds no class labels, or no class has any variance.

    See Also
    --------
    ncti_ncc_score : Another part of NCTI; says how the parts are combined.

    Notes
    -----
    :math:`\|H\|_*`, the sum of the singular values of the centred features in the
    n_classes - 1 discriminant directions, scaled to unit variance within classes; the
    discriminant analysis is that of :func:`ncti_ncc_score`. A larger value stands for a
    higher rank, and so for features nearer to the simplex-encoded-label interpolation
    (SELI) of the classes. The paper writes the norm of the features themselves; the
    published implementation has that of the discriminant features.

    Overfitting raises the score: with few samples, features that say nothing can score
    higher than perfect ones with many samples.

    References
    ----------
    .. [1] Z. Wang, Y. Luo, L. Zheng, Z. Huang, M. Baktashmotlagh, "How Far Pre-trained
       Models Are from Neural Collapse on the Target Dataset Informs their
       Transferability", ICCV 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import ncti_seli_score
    >>> round(ncti_seli_score(*load_iris(return_X_y=True)), 1)
    83.9
    """
    return NCTI_SELI(X, y)


def ncti_vc_score(X: Any, y: Any) -> float:
    r"""NCTI, variability collapse: negative log nuclear norm of the posteriors.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features. Their unit matters.
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    float
        In nats.

    Raises
    ------
    ValueError
        If `y` holds no class labels, or no class has any variance.

    See Also
    --------
    ncti_ncc_score : Another part of NCTI; says how the parts are combined.

    Notes
    -----
    :math:`-\log \sum_c \|P_c\|_*`, where the rows of :math:`P_c` are the posteriors of
    the samples of class c over all classes, by the discriminant analysis of
    :func:`ncti_ncc_score`. The logarithm is that of the published implementation; the
    paper has none, which matters only when the scores of candidates are combined.

    The norm is small where all samples of a class have the same posterior. This holds
    for features that separate the classes, and even more for features that say nothing:
    uniform posteriors over K classes have a norm :math:`\sqrt K` times smaller than
    perfect ones. With many samples per feature, useless features therefore score
    highest; with few, their posteriors are overfitted, and they score low.

    References
    ----------
    .. [1] Z. Wang, Y. Luo, L. Zheng, Z. Huang, M. Baktashmotlagh, "How Far Pre-trained
       Models Are from Neural Collapse on the Target Dataset Informs their
       Transferability", ICCV 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import ncti_vc_score
    >>> round(ncti_vc_score(*load_iris(return_X_y=True)), 3)
    -3.126
    """
    return NCTI_VC(X, y)


def _ncc(data: LabelledData) -> Score:
    posterior = _posterior(*_whitened(data), data)
    return Score.of_parts(posterior[np.arange(data.n_samples), data.host_target])


def _seli(data: LabelledData) -> Score:
    Z, means = _whitened(data)
    weighted = np.sqrt(data.counts)[:, None] * means
    _, norms, directions = np.linalg.svd(weighted, full_matrices=False)
    kept = directions[norms > _RANK_TOLERANCE * norms[0]]
    return Score(float(np.linalg.norm(Z @ kept[: len(means) - 1].T, "nuc")))


def _vc(data: LabelledData) -> Score:
    posterior, codes = _posterior(*_whitened(data), data), data.host_target
    norms = [np.linalg.norm(posterior[codes == c], "nuc") for c in set(codes)]
    return Score(-float(np.log(np.sum(norms))))


def _posterior(Z: np.ndarray, means: np.ndarray, data: LabelledData) -> np.ndarray:
    return class_posterior(Z, means, means.T, data.counts)


def _whitened(data: LabelledData) -> tuple[np.ndarray, np.ndarray]:
    """Components of unit covariance within classes, and the means of the classes.

    Both are about the mean of all samples, (n_samples, r) and (n_classes, r).
    """
    data = data.about_mean
    xp, codes = data.xp, data.host_target
    directions = principal_directions(data, _N_COMPONENTS)
    Z = to_numpy(xp.astype(data.features, xp.float64) @ directions)
    Z = Z - Z.mean(axis=0)
    n, size = Z.shape
    means = class_means(Z, codes)
    # Not from the covariance, whose rounding would hide what little shrinkage adds.
    residuals = np.linalg.qr(Z - means[codes], mode="r") / np.sqrt(n)
    variance = np.sum(residuals**2)
    if variance <= 1e-10 * np.sum(Z**2) / n:
        raise ValueError(
            "NCTI needs classes with some variance: here all samples of every class "
            "have the same features."
        )
    variances = np.sort(np.sum(Z**2, axis=0))[::-1] / (n - 1)
    shrinkage = np.exp(-np.sum(variances[:_N_IN_SHRINKAGE]))
    if shrinkage > _FLOOR:
        deviations, axes = _principal_axes(residuals)
        shrunk = (1 - shrinkage) * deviations**2 + shrinkage * variance / size
        whitening = axes / np.sqrt(shrunk)
    else:
        scale = np.sqrt(np.sum(residuals**2, axis=0))
        scale[scale == 0] = 1
        deviations, axes = _principal_axes(residuals / scale)
        kept = deviations > _RANK_TOLERANCE
        whitening = axes[:, kept] / deviations[kept] / scale[:, None]
    return Z @ whitening, means @ whitening


def _principal_axes(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All right singular vectors, as columns, and their singular values or 0."""
    _, s, axes = np.linalg.svd(A)
    return np.r_[s, np.zeros(A.shape[1] - len(s))], axes.T


_COMMON = {
    "reference": "Wang et al., ICCV 2023",
    "cost": "n D² + D³ + 64 n D",
}

NCTI_NCC = Metric(
    "ncti_ncc",
    _ncc,
    ncti_ncc_score,
    weakness="One of three parts of NCTI, which exists for a set of candidates only. "
    "Evaluated on its own training samples; depends on the unit of the features; uses "
    "64 principal components only.",
    **_COMMON,
)
NCTI_SELI = Metric(
    "ncti_seli",
    _seli,
    ncti_seli_score,
    weakness="One of three parts of NCTI. Grows with the number of samples and with "
    "overfitting; depends on the unit of the features.",
    **_COMMON,
)
NCTI_VC = Metric(
    "ncti_vc",
    _vc,
    ncti_vc_score,
    weakness="One of three parts of NCTI. Uniform posteriors score higher than perfect "
    "ones: with many samples, features that say nothing score highest.",
    **_COMMON,
)
