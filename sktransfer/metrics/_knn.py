"""KNN: accuracy, or R^2, of the nearest neighbours of every sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from sktransfer.linear_model import r2_parts
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import unit_rows
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS, check_option


def knn_score(
    X: Any,
    y: Any,
    *,
    task: str = "auto",
    n_neighbors: int = 5,
    metric: str = "cosine",
) -> float:
    r"""K nearest neighbours, leave-one-out: accuracy, or R^2 of numbers.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features; those on a GPU are brought to the host.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    n_neighbors : int, default=5
        Number of neighbours that vote, or whose targets are averaged.
    metric : {"cosine", "euclidean"}, default="cosine"
        Distance between samples. Samples whose features are all zero have no direction:
        their cosine distance is 1 to all other samples and 0 to each other.

    Returns
    -------
    float
        Accuracy (mean over labels if there are several), or R^2 (mean over targets).

    Raises
    ------
    ValueError
        If there are no more samples than neighbours, a numeric target is constant, or
        all samples coincide.

    Notes
    -----
    A sample is not its own neighbour, but its duplicates are. Votes have equal weight.
    Ties between classes go to the class of the nearest voter, and ties in distance to
    the earlier samples. Time grows with the square of the number of samples, and each
    feature is weighted by its variance.

    References
    ----------
    .. [1] T. Cover, P. Hart, "Nearest Neighbor Pattern Classification", IEEE
       Transactions on Information Theory, 1967.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import knn_score
    >>> round(knn_score(*load_iris(return_X_y=True)), 3)
    0.967
    """
    options = {"n_neighbors": n_neighbors, "metric": metric}
    return KNN(X, y, task, **options)


def _compute(
    data: LabelledData, *, n_neighbors: int = 5, metric: str = "cosine"
) -> Score:
    X = data.host_features
    check_option("metric", metric, ("cosine", "euclidean"))
    if not 1 <= n_neighbors < len(X):
        raise ValueError(
            "n_neighbors must be at least 1 and less than the number of samples, "
            f"{len(X)}. Got {n_neighbors!r} instead."
        )
    if metric == "cosine":
        # On the unit sphere Euclidean distance and angle give the same order. Zeros
        # get an axis of their own, at right angles to all directions.
        rows = unit_rows(X)
        X = np.column_stack([rows, ~rows.any(axis=1)])
    if np.max(np.ptp(X, axis=0)) <= 10 * np.finfo(X.dtype).eps * np.max(np.abs(X)):
        raise ValueError("All samples coincide, so neighbours are undefined.")
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(X)
    # Without an argument scikit-learn leaves out each sample itself, by its index.
    neighbors = search.kneighbors(return_distance=False)
    if data.task == "regression":
        data.refuse_constant_targets()
        Y = data.host_target
        return Score.of_parts(r2_parts(Y, Y[neighbors].mean(axis=1)))
    hits = [_vote(codes[neighbors]) == codes for codes in data.label_columns]
    return Score.of_parts(np.mean(hits, axis=0))


def _vote(labels: np.ndarray) -> np.ndarray:
    """Most frequent label of each row; ties go to the label that comes first."""
    same = labels[:, :, None] == labels[:, None, :]
    # Argmax takes the first, which is the nearest of the tied classes.
    winner = np.argmax(same.sum(axis=2), axis=1)
    return labels[np.arange(len(labels)), winner]


KNN = Metric(
    "knn",
    _compute,
    knn_score,
    tasks=TASKS,
    exact_under_duplication=True,
    reference="Cover and Hart, 1967",
    cost="n² D",
    weakness="Quadratic in n; weights each feature by its variance.",
)
