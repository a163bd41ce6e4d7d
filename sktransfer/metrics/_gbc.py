"""GBC: separability of the classes, modelled as Gaussians."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import (
    chunks,
    class_sums,
    from_numpy,
    to_numpy,
)
from sktransfer.utils._score import Score
from sktransfer.utils._validation import check_option

_N_COMPONENTS = 64
# Smallest variance, as a share of the mean variance: a class with one sample, or with a
# constant feature, has a positive width all the same.
_FLOOR = 1e-3


def gbc_score(
    X: Any, y: Any, *, covariance: str = "diagonal", n_components: int = _N_COMPONENTS
) -> float:
    r"""GBC: negative sum of the Bhattacharyya overlaps of all pairs of classes.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,)
        Class labels.
    covariance : {"diagonal", "spherical"}, default="diagonal"
        Covariance of each class in the space of the principal components.
    n_components : int, default=64
        Maximum number of principal components.

    Returns
    -------
    float
        Between -n_classes (n_classes - 1) / 2 and 0; no unit.

    Raises
    ------
    ValueError
        If all samples have the same features, or a parameter is not valid.

    Notes
    -----
    :math:`-\sum_{c < c'} \exp(-D_B(c, c'))` with the Bhattacharyya distance of two
    Gaussians, :math:`D_B = \frac18 \sum_j \frac{(\mu_j - \mu'_j)^2}{\bar\sigma_j^2} +
    \frac12 \sum_j \log \frac{\bar\sigma_j^2}{\sigma_j \sigma'_j}`,
    :math:`\bar\sigma^2 = (\sigma^2 + \sigma'^2) / 2`. Each pair of classes is counted
    once. Variances are at least 0.1 % of their mean.

    References
    ----------
    .. [1] M. Pandy, A. Agostinelli, J. Uijlings, V. Ferrari, T. Mensink,
       "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import gbc_score
    >>> round(gbc_score(*load_iris(return_X_y=True)), 3)
    -0.386
    """
    return GBC(X, y, covariance=covariance, n_components=n_components)


def _compute(
    data: LabelledData,
    *,
    covariance: str = "diagonal",
    n_components: int = _N_COMPONENTS,
) -> Score:
    check_option("covariance", covariance, ("diagonal", "spherical"))
    if n_components < 1:
        raise ValueError(f"n_components must be at least 1. Got {n_components!r}.")
    data = data.about_mean
    means, variances = _class_moments(data, principal_directions(data, n_components))
    if covariance == "spherical":
        variances = np.broadcast_to(
            variances.mean(axis=1, keepdims=True), variances.shape
        )
    overall = means - np.average(means, axis=0, weights=data.counts)
    scale = np.mean(variances) + np.mean(overall**2)
    variances = np.maximum(variances, _FLOOR * scale)

    overlap = 0.0
    for c in range(len(means) - 1):
        pooled = (variances[c] + variances[c + 1 :]) / 2
        distance = np.sum((means[c] - means[c + 1 :]) ** 2 / pooled, axis=1) / 8
        logs = np.log(pooled) - (np.log(variances[c]) + np.log(variances[c + 1 :])) / 2
        overlap += np.sum(np.exp(-distance - np.sum(logs, axis=1) / 2))
    return Score(-float(overlap))


def principal_directions(data: LabelledData, n_components: int) -> Any:
    """Leading principal directions, of shape (n_features, <= n_components)."""
    # In the basis of the uncentred spectrum the covariance is diag(s) less one rank.
    s = data.spectrum.eigenvalues
    same = "All samples have the same features: classes cannot be separated."
    if not len(s):
        raise ValueError(same)
    ones = np.sum(data.spectrum.projections, axis=1)
    mean = np.sqrt(s) * ones / data.n_samples
    values, vectors = _leading(s, np.sqrt(data.n_samples) * mean, n_components)
    if values[-1] <= 1e-12 * s[0]:
        raise ValueError(same)
    vectors = vectors[:, values > 1e-12 * s[0]]
    vectors = from_numpy(vectors, data.xp, data.device)
    return data.spectrum.eigenbasis.combine(vectors)


def _leading(s: np.ndarray, u: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues, rising, of diag(s) - u u^T, and their vectors."""
    size = len(s)
    if size > 4 * k:
        # Products with this matrix are cheap, so Lanczos is fast, unless many
        # eigenvalues lie close together.
        scatter = LinearOperator(
            (size, size), lambda v: s * v.ravel() - u * (u @ v), dtype=s.dtype
        )
        options = {"which": "LA", "ncv": 4 * k, "maxiter": 8, "v0": np.sqrt(s)}
        with suppress(ArpackNoConvergence):
            values, vectors = eigsh(scatter, k, **options)
            # Eigenvalues interlace with s; one that was passed over would break that.
            if len(values) == k and np.all(values[::-1] >= (1 - 1e-9) * s[1 : k + 1]):
                return values, vectors
    return eigh(
        np.diag(s) - np.outer(u, u),
        subset_by_index=(max(size - k, 0), size - 1),
    )


def _class_moments(
    data: LabelledData, directions: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every class along the directions, (n_classes, r) each."""
    xp, K = data.xp, len(data.classes)
    directions = xp.astype(directions, data.features.dtype)
    mean = xp.astype(data.mean, data.features.dtype) @ directions
    total = 0.0
    for rows in chunks(data.n_samples):
        Z = xp.astype(data.features[rows, :] @ directions - mean, xp.float64)
        moments = xp.concat([Z, Z**2], axis=1)
        total = total + to_numpy(class_sums(moments, data.codes[rows], K, xp))
    first, second = np.split(total.T / data.counts[:, None], 2, axis=1)
    return first, np.maximum(second - first**2, 0.0)


GBC = Metric(
    "gbc",
    _compute,
    gbc_score,
    exact_under_duplication=True,
    reference="Pándy et al., CVPR 2022",
    cost="n D² + D³ + 64 n D + 64 K²",
    weakness="Uses 64 principal components only and models classes as Gaussians; "
    "saturates at 0.",
)
