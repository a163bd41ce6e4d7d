"""Scores of leave-one-out predictions in which rare classes count as the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktransfer.linear_model import arg_max_shares
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._leave_one_out import (
    COST,
    OF_CLASSES,
    REFERENCE,
    as_columns,
    class_shares,
    head_of,
    score_accuracy,
    score_labels,
)
from sktransfer.metrics._metric import Metric
from sktransfer.utils._score import Score


def loo_balanced_accuracy_score(
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    sample_weight: Any = None,
    fit_intercept: bool = True,
) -> float:
    """Balanced accuracy to expect of a linear head on unseen samples.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,)
        Labels.
    groups, sample_weight, fit_intercept
        As in :func:`loo_accuracy_score`.

    Returns
    -------
    float
        Mean over classes of the fraction of their samples that is predicted right.

    Raises
    ------
    ValueError
        If there is only one class or group, or the arrays do not fit together.

    See Also
    --------
    sklearn.metrics.balanced_accuracy_score : The same of any predictions.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sktransfer.metrics import loo_balanced_accuracy_score
    >>> round(loo_balanced_accuracy_score(*load_wine(return_X_y=True)), 3)
    0.984
    """
    return LOO_BALANCED_ACCURACY(
        X,
        y,
        groups=groups,
        sample_weight=sample_weight,
        fit_intercept=fit_intercept,
    )


def loo_f1_score(
    X: Any,
    y: Any,
    *,
    task: str = "auto",
    groups: Any = None,
    sample_weight: Any = None,
    fit_intercept: bool = True,
) -> float:
    """Macro F1 to expect of a linear head on unseen samples, by leave-one-out.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Labels, or 0/1 indicators of several labels.
    task : {"auto", "classification", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    groups, sample_weight, fit_intercept
        As in :func:`loo_accuracy_score`.

    Returns
    -------
    float
        Mean over classes (or labels) of F1, the harmonic mean of precision and recall.

    Raises
    ------
    ValueError
        If there is only one class or group, a label is constant, or the arrays do not
        fit together.

    See Also
    --------
    sklearn.metrics.f1_score : The same of any predictions, with ``average="macro"``.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sktransfer.metrics import loo_f1_score
    >>> round(loo_f1_score(*load_wine(return_X_y=True)), 3)
    0.983
    """
    return LOO_F1(
        X,
        y,
        task,
        groups=groups,
        sample_weight=sample_weight,
        fit_intercept=fit_intercept,
    )


def _balanced_accuracy(
    data: LabelledData, *, fit_intercept: bool | None = None
) -> Score:
    accuracy, y = score_accuracy(data, fit_intercept=fit_intercept), data.host_target
    share, w = class_shares(data), data.host_weights
    hits = np.bincount(y, accuracy.parts if w is None else w * accuracy.parts)
    recall = hits / (share * (len(y) if w is None else w.sum()))
    # A sample moves the recall of its class by its distance from it.
    slopes = 1 / (len(share) * share[y])
    return Score.of_parts(
        recall.mean() + slopes * (accuracy.parts - recall[y]),
        w,
        variances=slopes**2 * accuracy.variances,
        no_information=1 / len(share),
    )


def _f1(data: LabelledData, *, fit_intercept: bool | None = None) -> Score:
    model, w, share = (
        head_of(data, fit_intercept),
        data.host_weights,
        class_shares(data),
    )
    if data.task == "multilabel":
        labels = data.host_target
        predicted, _, variances = score_labels(data, model)
        most = share > 0.5
    else:
        codes = data.host_target
        predictions = as_columns(data, model.loo_predictions_)
        labels, predicted = np.eye(len(share))[codes], arg_max_shares(predictions)
        most = np.arange(len(share)) == share.argmax()
    hits, sizes = labels * predicted, labels + predicted
    size = np.average(sizes, axis=0, weights=w)
    f1 = 2 * np.average(hits, axis=0, weights=w) / size
    # To first order in both means.
    parts = f1.mean() + np.mean((2 * hits - f1 * sizes) / size, axis=1)
    # What a label changes if it is predicted, in units of 1 / n.
    slopes = (2 * labels - f1) / size / len(share)
    if data.task == "multilabel":
        of_training = np.sum(slopes**2 * variances, axis=1)
    else:
        rival = np.argmax(np.where(labels == 1, -np.inf, predictions), axis=1)
        rows = np.arange(len(codes))
        change = slopes[rows, codes] - slopes[rows, rival]
        of_training = change**2 * model.loo_scores_["accuracy"].variances
    # Predicting what is most frequent.
    none = np.mean(np.where(most, 2 * share / (1 + share), 0.0))
    return Score.of_parts(parts, w, variances=of_training, no_information=none)


LOO_BALANCED_ACCURACY = Metric(
    "loo_balanced_accuracy",
    _balanced_accuracy,
    loo_balanced_accuracy_score,
    takes_weights=True,
    exact_under_duplication=True,
    reference=REFERENCE,
    cost=COST,
    weakness="A rare class counts as much as a frequent one, with a large error.",
)

LOO_F1 = Metric(
    "loo_f1",
    _f1,
    loo_f1_score,
    tasks=OF_CLASSES,
    takes_weights=True,
    exact_under_duplication=True,
    reference=REFERENCE,
    cost=COST,
    weakness="A least-squares head rarely predicts rare classes.",
)
