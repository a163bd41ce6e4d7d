"""KITE: alignment with the target against alignment with random features."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import in_range, to_numpy
from sktransfer.utils._score import Score
from sktransfer.utils._validation import check_features


def kite_score(X: Any, y: Any, *, random_features: Any = None) -> float:
    r"""KITE: alignment with the target over alignment with random features.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,)
        Class labels.
    random_features : array-like of shape (n_samples, n_random_features), optional
        Features of the same samples by a network with random weights. If None, the
        score is the alignment with the target alone.

    Returns
    -------
    float
        At least 0; at most 1 without `random_features`.

    Raises
    ------
    ValueError
        If all samples have the same features, or `random_features` have another number
        of samples.

    See Also
    --------
    lfc_score : Another correlation of similarities, without centring of the features.

    Notes
    -----
    :math:`\mathrm{CKA}(X X^\top, Y Y^\top) / \mathrm{CKA}(X X^\top, R R^\top)` with
    one-hot labels :math:`Y`, random features :math:`R` and the centred kernel alignment

    .. math:: \mathrm{CKA}(K, L) = \frac{\langle H K H, H L H \rangle}
       {\|H K H\|_F \, \|H L H\|_F} , \quad H = I - \frac1n 1 1^\top .

    Kernels are linear, so no n x n matrix is needed. :math:`\|H K H\|_F` cancels in the
    ratio. The random network of the paper has the architecture of the candidate; a
    metric does not see the network, so its features must be given.

    Directions count by their squared variance. A few strong directions that say nothing
    of the target therefore hide weak but informative ones, and rescaling one feature
    changes the score.

    References
    ----------
    .. [1] Y. Guo, "KITE: A Kernel-based Improved Transferability Estimation Method",
       arXiv:2405.01603, 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import kite_score
    >>> X, y = load_iris(return_X_y=True)
    >>> round(kite_score(X, y), 3)
    0.663
    >>> round(kite_score(X, y, random_features=X[:, :2]), 3)
    0.795
    """
    return KITE(X, y, random_features=random_features)


def _compute(data: LabelledData, *, random_features: Any = None) -> Score:
    norm, product = _norm_and_product(data.about_mean)
    counts, n = data.counts, data.n_samples
    labels = np.linalg.norm(np.diag(counts) - np.outer(counts, counts) / n)
    alignment = product / (norm * labels)
    if random_features is None:
        return Score(float(alignment))
    R = check_features(random_features, name="random_features")
    check_consistent_length(data.features, R)
    X, R = _centred(data.features), _centred(R)
    random = np.sum((X.T @ R) ** 2)
    norms = _gram_norm(X) * _gram_norm(R)
    if not random > 1e-12 * norms:
        raise ValueError("The features and random_features are not aligned at all.")
    return Score(float(alignment / (random / norms)))


def _norm_and_product(data: LabelledData) -> tuple[float, float]:
    """||H K H||_F and <H K H, Y Y^T>, from the spectrum of features not centred.

    In a unit in which the largest eigenvalue is 1, as its square may leave the range.
    """
    s, z = data.spectrum.eigenvalues, data.spectrum.projections
    s = s / np.max(s, initial=np.finfo(np.float64).tiny)
    ones = np.sum(z, axis=1)
    share = ones**2 / data.n_samples
    square = np.sum(s**2) - 2 * np.sum(s**2 * share) + np.sum(s * share) ** 2
    if not square > 1e-12 * np.sum(s**2):
        raise ValueError("All samples have the same features: KITE is undefined.")
    b = z - ones[:, None] * (data.counts / data.n_samples)
    return np.sqrt(square), np.sum(s[:, None] * b**2)


def _centred(X: Any) -> np.ndarray:
    X, _ = in_range(to_numpy(X).astype(np.float64))
    return X - X.mean(axis=0)


def _gram_norm(X: np.ndarray) -> float:
    """||X^T X||_F from the smaller of the two Gram matrices."""
    return np.linalg.norm(X.T @ X if X.shape[1] <= len(X) else X @ X.T)


KITE = Metric(
    "kite",
    _compute,
    kite_score,
    exact_under_duplication=True,
    reference="Guo, 2024",
    cost="n D² + D³",
    weakness="Incomplete without the features of a random network of the same "
    "architecture; dominated by the few strongest directions of the features.",
)
