"""Metrics that fit a simple head on the features: discriminant, probe, neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.linalg import solve
from scipy.special import log_softmax
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from sktransfer.utils._array_api import unit_rows
from sktransfer.utils._validation import (
    check_numeric_target,
    check_task,
    encode_labels,
    label_columns,
    to_host,
)

# Penalties of the ridge head on features of mean variance 1; each target picks its own.
_RIDGE_ALPHAS = np.logspace(-1, 6, 8)
# A probe sees features in one unit for all, or each in its own.
_SCALERS = (StandardScaler(with_std=False), StandardScaler())


def lda_score(X: Any, y: Any) -> float:
    r"""LDA: mean posterior probability of the true class in a discriminant analysis.

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
    linear_probe_score : Measures a linear head on samples that it has not seen.

    Notes
    -----
    :math:`\frac1n \sum_i p(y_i | x_i)`, classes being Gaussians with frequencies
    :math:`n_c / n`, means :math:`\mu_c` and one covariance: that of the standardised
    features less their class means, shrunk by Ledoit's and Wolf's rule. This is what
    SFDA, NCTI and ETran have in common. Samples are judged by a head that was fitted on
    them: with few samples a feature the score is near 1 whatever the features.

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
    X, y = to_host(X, y)
    check_task("lda_score", y, "auto", ("classification",))
    _, codes = encode_labels(y, X)
    counts = np.bincount(codes)
    X = StandardScaler().fit_transform(X)
    means = np.stack([X[codes == c].mean(axis=0) for c in range(len(counts))])
    residuals = X - means[codes]
    if np.mean(residuals**2) <= 1e-10 * np.mean(X**2):
        raise ValueError(
            "lda_score needs classes with some variance: here all samples of every "
            "class have the same features."
        )
    covariance, _ = ledoit_wolf(residuals, assume_centered=True)
    # Where the rule shrinks by nothing, features that are copies must not break it.
    covariance.flat[:: len(covariance) + 1] += 1e-6 * np.trace(covariance) / X.shape[1]
    weights = solve(covariance, means.T, assume_a="pos")
    offsets = np.log(counts / len(X)) - np.sum(means * weights.T, axis=1) / 2
    posterior = log_softmax(X @ weights + offsets, axis=1)
    return float(np.mean(np.exp(posterior[np.arange(len(X)), codes])))


def linear_probe_score(
    X: Any,
    y: Any,
    *,
    task: str = "auto",
    cv: int = 5,
    Cs: Sequence[float] = (1.0, 10.0, 100.0, 1000.0),
    random_state: Any = 0,
) -> float:
    r"""Cross-validated performance of a linear head: accuracy, or R^2 of numbers.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features; those on a GPU are brought to the host.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; ``"auto"`` takes integers and text for labels, floats for
        numbers.
    cv : int, default=5
        Number of folds; as many as samples at most.
    Cs : sequence of float, default=(1.0, 10.0, 100.0, 1000.0)
        Variances that the logistic head's prior may give a logit; see Notes.
    random_state : int or RandomState, default=0
        Draws the folds.

    Returns
    -------
    float
        Accuracy (mean over labels if there are several), or R^2 (mean over targets).

    Raises
    ------
    ValueError
        If there are not two classes with two samples each, a target is constant, or a
        parameter is not valid.

    See Also
    --------
    laplace_evidence_score : Judges the same head without held-out samples.

    Notes
    -----
    Heads see the features centred, either in one unit for all (mean variance 1, which
    leaves weak features weak) or each standardised. Classification: logistic regression
    with ``C / n_features``, so that copies of features change nothing; C rises until
    accuracy falls by more than its standard error. Regression: ridge, its penalty found
    by :class:`~sklearn.linear_model.RidgeCV`. The unit and C of each fold are those
    with the best held-out predictions on the *other* folds, so that no fold chooses its
    own; of equally good ones the most regularised in one unit is taken. All held-out
    predictions are scored together, which lets folds be of any size.

    Folds hang on `random_state`, on the order of the samples and on which of them share
    a label, neither on the features nor on the labels' names: all models see the same.
    A class of one sample is never recognised. Accuracy moves in steps of 1 / n, and its
    standard error is about sqrt(accuracy (1 - accuracy) / n).

    References
    ----------
    .. [1] K. You et al., "Ranking and Tuning Pre-trained Models: A New Paradigm for
       Exploiting Model Hubs", JMLR 2022 (the re-trained head).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import linear_probe_score
    >>> round(linear_probe_score(*load_iris(return_X_y=True)), 3)
    0.967
    """
    X, y = to_host(X, y)
    task = check_task("linear_probe_score", y, task)
    if cv < 2:
        raise ValueError(f"cv must be at least 2. Got {cv!r} instead.")
    if not len(Cs) or min(Cs) <= 0:
        raise ValueError(f"Cs must hold positive numbers. Got {Cs!r} instead.")
    variance = np.mean(np.var(X, axis=0, dtype=np.float64))
    if variance > 0:
        X = X / X.dtype.type(np.sqrt(variance))
    if task == "regression":
        Y = _varying_numbers(y, X)
        ridge = RidgeCV(_RIDGE_ALPHAS, alpha_per_target=Y.ndim == 2)
        folds = _folds(np.zeros(len(X)), cv, random_state)
        held_out = [
            cross_val_predict(make_pipeline(scaler, ridge), X, Y, cv=folds)
            for scaler in _SCALERS
        ]
        gains = -((np.stack(held_out) - Y) ** 2)
        return float(r2_score(Y, _chosen_elsewhere(gains, held_out, folds)))
    scores = []
    for codes in label_columns(y, X, task):
        if np.sort(np.bincount(codes))[-2] < 2:
            raise ValueError(
                "linear_probe_score needs two classes with at least 2 samples each."
            )
        folds = _folds(codes, cv, random_state)
        hits = [
            hit
            for scaler in _SCALERS
            for hit in _logistic_path(scaler, sorted(Cs), X, codes, folds)
        ]
        scores.append(np.mean(_chosen_elsewhere(np.stack(hits), hits, folds)))
    return float(np.mean(scores))


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
        How to read `y`; ``"auto"`` takes integers and text for labels, floats for
        numbers.
    n_neighbors : int, default=5
        Neighbours that vote, or whose targets are averaged.
    metric : {"cosine", "euclidean"}, default="cosine"
        What is near. Samples of zeros have no direction: by cosine they are at distance
        1 from all that have one, and duplicates of each other.

    Returns
    -------
    float
        Accuracy (mean over labels if there are several), or R^2 (mean over targets).

    Raises
    ------
    ValueError
        If there are not more samples than neighbours, a numeric target is constant, or
        all samples are equally near.

    Notes
    -----
    A sample is no neighbour of its own, its duplicates are. Votes have equal weight;
    of classes with equally many the one wins whose voter is nearest; of
    equally near samples the earlier ones vote. Time grows with the square of the
    samples, and a feature counts as much as its variance.

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
    X, y = to_host(X, y)
    task = check_task("knn_score", y, task)
    if metric not in ("cosine", "euclidean"):
        raise ValueError(
            "The 'metric' parameter must be one of ['cosine', 'euclidean']. "
            f"Got {metric!r} instead."
        )
    if not 1 <= n_neighbors < len(X):
        raise ValueError(
            "n_neighbors must be at least 1 and less than the number of samples, "
            f"{len(X)}. Got {n_neighbors!r} instead."
        )
    if metric == "cosine":
        # On the sphere Euclidean distance orders as the angle does. Zeros go where all
        # directions are at right angles.
        rows = unit_rows(X)
        X = np.column_stack([rows, ~rows.any(axis=1)])
    if np.max(np.ptp(X, axis=0)) <= 10 * np.finfo(X.dtype).eps * np.max(np.abs(X)):
        raise ValueError("All samples are equally near: knn_score has no neighbours.")
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(X)
    # Without an argument scikit-learn leaves out each sample itself, by its index.
    neighbors = search.kneighbors(return_distance=False)
    if task == "regression":
        Y = _varying_numbers(y, X)
        return float(r2_score(Y, Y[neighbors].mean(axis=1)))
    scores = [
        np.mean(_vote(codes[neighbors]) == codes)
        for codes in label_columns(y, X, task, allow_constant=True)
    ]
    return float(np.mean(scores))


def _varying_numbers(y: np.ndarray, X: np.ndarray) -> np.ndarray:
    Y = check_numeric_target(y, X)
    constant = np.flatnonzero(np.ptp(Y.reshape(len(Y), -1), axis=0) == 0)
    if len(constant):
        raise ValueError(f"Target {constant[0]} is constant: R^2 is 0 / 0.")
    return Y


def _logistic_path(
    scaler: StandardScaler,
    Cs: list[float],
    X: np.ndarray,
    codes: np.ndarray,
    folds: PredefinedSplit,
) -> Iterator[np.ndarray]:
    """Whether held-out samples are recognised, C by C until that clearly gets worse."""
    most = 0
    for C in Cs:
        logistic = LogisticRegression(C=C / X.shape[1], max_iter=1000)
        head = make_pipeline(scaler, logistic)
        hit = cross_val_predict(head, X, codes, cv=folds) == codes
        yield hit
        # Larger C cost the most; one that overfits is followed by worse ones.
        if hit.sum() < most - np.sqrt(len(hit) * hit.mean() * (1 - hit.mean())):
            break
        most = max(most, hit.sum())


def _chosen_elsewhere(gains: Any, held_out: Any, folds: PredefinedSplit) -> np.ndarray:
    """Held-out predictions, for each fold those of the head best on all other folds.

    `gains` and `held_out` have shape (n_heads, n_samples) or (…, n_targets).
    """
    gains, held_out = np.asarray(gains, dtype=np.float64), np.stack(held_out)
    chosen = np.empty_like(held_out[0])
    for k in np.unique(folds.test_fold):
        test = folds.test_fold == k
        best = np.argmax(gains[:, ~test].sum(axis=1), axis=0)
        # One head for all targets of a fold, or one for each of them.
        chosen[test] = np.take_along_axis(
            held_out[:, test], np.asarray(best)[None, None], axis=0
        )[0]
    return chosen


def _folds(codes: np.ndarray, cv: int, random_state: Any) -> PredefinedSplit:
    """Deal the samples out, class after class: folds of equal size and make-up."""
    order = check_random_state(random_state).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(len(codes), dtype=int)
    fold[order] = np.arange(len(codes)) % cv
    return PredefinedSplit(fold)


def _vote(labels: np.ndarray) -> np.ndarray:
    """Most frequent label of each row; among equals that of the first."""
    same = labels[:, :, None] == labels[:, None, :]
    # Argmax takes the first, and that is the nearest of the tied classes.
    winner = np.argmax(same.sum(axis=2), axis=1)
    return labels[np.arange(len(labels)), winner]
