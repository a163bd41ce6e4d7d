"""LFC: correlation of the similarities of features and of targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS


def lfc_score(X: Any, y: Any, *, task: str = "auto") -> float:
    r"""LFC: correlation of the similarities of features and of targets.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.

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
    and Lambda_ij = 1 for the same class, -1 otherwise, each minus its mean. For numbers
    and several labels Lambda = Y Y^T with standardised columns. All sums follow from
    F^T F and F^T Y (class sums); no n x n matrix is formed.

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
    return LFC(X, y, task)


def _compute(data: LabelledData) -> Score:
    return _of_classes(data) if data.task == "classification" else _of_numbers(data)


def _of_classes(data: LabelledData) -> Score:
    """LFC from the Gram matrix and the class sums."""
    n = data.n_samples
    sums = to_numpy(data.statistics.cross)
    total = np.sum(np.sum(sums, axis=1) ** 2)  # sum of Theta
    within = np.sum(sums**2)
    same = np.sum(data.counts**2)
    label_mean = (2 * same - n**2) / n**2
    features = data.statistics.squared_gram_norm - total**2 / n**2
    labels = n**2 * (1 - label_mean**2)
    product = 2 * within - total - total * label_mean
    return _correlation(product, features, labels, total**2 / n**2)


def _of_numbers(data: LabelledData) -> Score:
    """LFC of numbers, or indicators of several labels, from the spectrum."""
    statistics = data.statistics
    if statistics.constant_targets.any():
        raise ValueError("lfc_score is undefined for a constant target.")
    n, spectrum = statistics.n_samples, statistics.spectrum
    # F^T Y = V sqrt(s) z, and V cancels in every norm.
    root = np.sqrt(spectrum.eigenvalues)[:, None]
    feature_sums = to_numpy(spectrum.basis.T @ (data.mean * n))[:, None]
    mean = statistics.target_sums / n
    scale = np.sqrt(statistics.target_norms - n * mean**2)
    product = np.sum(((root * spectrum.projections - feature_sums * mean) / scale) ** 2)
    Y = (data.host_target.reshape(data.n_samples, -1) - mean) / scale
    labels = np.sum((Y.T @ Y) ** 2)
    total = np.sum(feature_sums**2)
    features = np.sum(spectrum.eigenvalues**2) - total**2 / n**2
    return _correlation(product, features, labels, total**2 / n**2)


def _correlation(product: float, features: float, labels: float, mean: float) -> Score:
    if features <= 1e-12 * mean or labels <= 0:
        raise ValueError("All pairs of samples are equally similar: LFC is undefined.")
    return Score(float(product / np.sqrt(features * labels)))


LFC = Metric(
    "lfc",
    _compute,
    lfc_score,
    tasks=TASKS,
    exact_under_duplication=True,
    reference="Deshpande et al., 2021",
    cost="n D² + D³",
    weakness="Dominated by the mean and the few strongest directions of the features.",
)
