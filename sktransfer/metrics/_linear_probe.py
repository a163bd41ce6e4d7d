"""Linear probe: cross-validated accuracy, or R^2, of a linear head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from sktransfer.linear_model import r2_parts
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS

# Penalties of the ridge head on features of mean variance 1; each target picks its own.
_RIDGE_ALPHAS = np.logspace(-1, 6, 8)
# Features are only centred, or standardised as well.
_SCALERS = (StandardScaler(with_std=False), StandardScaler())


def linear_probe_score(
    X: Any,
    y: Any,
    *,
    task: str = "auto",
    cv: int = 5,
    Cs: Sequence[float] = (1.0, 10.0, 100.0, 1000.0),
    random_state: Any = 0,
) -> float:
    r"""Linear probe: cross-validated accuracy, or R^2 of numbers, of a linear head.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features; those on a GPU are brought to the host.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    cv : int, default=5
        Number of folds; at most the number of samples is used.
    Cs : sequence of float, default=(1.0, 10.0, 100.0, 1000.0)
        Candidate variances of a logit under the prior of the logistic head; see Notes.
    random_state : int or RandomState, default=0
        Controls the shuffling of the folds.

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
    laplace_evidence_score : Evaluates the same head without held-out samples.

    Notes
    -----
    Features are centred, and either scaled jointly to a mean variance of 1, which keeps
    weak features weak, or standardised one by one. Classification: logistic regression
    with ``C / n_features``, so that copies of features change nothing; C increases
    until accuracy falls by more than its standard error. Regression: ridge, with the
    penalty chosen by :class:`~sklearn.linear_model.RidgeCV`. Scaling and C of each fold
    are those with the best held-out predictions on the *other* folds, so that no fold
    chooses its own. Ties go to joint scaling and the strongest regularisation. All
    held-out predictions are scored together, so folds may be of any size.

    Folds depend on `random_state`, the order of the samples, and which of them share a
    label, but not on the features or the names of the labels: all models see the same
    folds. A class with one sample is never recognised. Accuracy moves in steps of 1 /
    n, and its standard error is about sqrt(accuracy (1 - accuracy) / n).

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
    options = {"cv": cv, "Cs": Cs, "random_state": random_state}
    return LINEAR_PROBE(X, y, task, **options)


def _compute(
    data: LabelledData,
    *,
    cv: int = 5,
    Cs: Sequence[float] = (1.0, 10.0, 100.0, 1000.0),
    random_state: Any = 0,
) -> Score:
    if cv < 2:
        raise ValueError(f"cv must be at least 2. Got {cv!r} instead.")
    if not len(Cs) or min(Cs) <= 0:
        raise ValueError(f"Cs must hold positive numbers. Got {Cs!r} instead.")
    data.refuse_constant_targets()
    X = data.host_features
    variance = np.mean(np.var(X, axis=0, dtype=np.float64))
    if variance > 0:
        X = X / X.dtype.type(np.sqrt(variance))
    if data.task == "regression":
        return _ridge(X, data.host_target, cv, random_state)
    hits = []
    for codes in data.label_columns:
        if np.sort(np.bincount(codes))[-2] < 2:
            raise ValueError(
                "linear_probe_score needs two classes with at least 2 samples each."
            )
        folds = _folds(codes, cv, random_state)
        heads = [
            hit
            for scaler in _SCALERS
            for hit in _logistic_path(scaler, sorted(Cs), X, codes, folds)
        ]
        hits.append(_chosen_elsewhere(np.stack(heads), heads, folds))
    return Score.of_parts(np.mean(hits, axis=0))


def _ridge(X: np.ndarray, Y: np.ndarray, cv: int, random_state: Any) -> Score:
    """R^2 of ridge heads."""
    ridge = RidgeCV(_RIDGE_ALPHAS, alpha_per_target=Y.ndim == 2)
    folds = _folds(np.zeros(len(X)), cv, random_state)
    held_out = [
        cross_val_predict(make_pipeline(scaler, ridge), X, Y, cv=folds)
        for scaler in _SCALERS
    ]
    gains = -((np.stack(held_out) - Y) ** 2)
    return Score.of_parts(r2_parts(Y, _chosen_elsewhere(gains, held_out, folds)))


def _logistic_path(
    scaler: StandardScaler,
    Cs: list[float],
    X: np.ndarray,
    codes: np.ndarray,
    folds: PredefinedSplit,
) -> Iterator[np.ndarray]:
    """Hits on held-out samples, with C increasing until accuracy clearly falls."""
    most = 0
    for C in Cs:
        logistic = LogisticRegression(C=C / X.shape[1], max_iter=1000)
        head = make_pipeline(scaler, logistic)
        hit = cross_val_predict(head, X, codes, cv=folds) == codes
        yield hit
        # Larger C are the slowest, and get worse once one overfits.
        if hit.sum() < most - np.sqrt(len(hit) * hit.mean() * (1 - hit.mean())):
            break
        most = max(most, hit.sum())


def _chosen_elsewhere(gains: Any, held_out: Any, folds: PredefinedSplit) -> np.ndarray:
    """Held-out predictions: for each fold those of the best head on the other folds.

    `gains` and `held_out` have shape (n_heads, n_samples) or (…, n_targets).
    """
    gains, held_out = np.asarray(gains, dtype=np.float64), np.stack(held_out)
    chosen = np.empty_like(held_out[0])
    for k in np.unique(folds.test_fold):
        test = folds.test_fold == k
        best = np.argmax(gains[:, ~test].sum(axis=1), axis=0)
        # One head for all targets of a fold, or one per target.
        chosen[test] = np.take_along_axis(
            held_out[:, test], np.asarray(best)[None, None], axis=0
        )[0]
    return chosen


def _folds(codes: np.ndarray, cv: int, random_state: Any) -> PredefinedSplit:
    """Deal the samples of each class to folds of equal size and composition."""
    order = check_random_state(random_state).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(len(codes), dtype=int)
    fold[order] = np.arange(len(codes)) % cv
    return PredefinedSplit(fold)


LINEAR_PROBE = Metric(
    "linear_probe",
    _compute,
    linear_probe_score,
    tasks=TASKS,
    reference="You et al., JMLR 2022",
    cost="8 · folds · softmax fits",
    weakness="Slow; changes in steps of 1 / n; folds depend on the sample order.",
)
