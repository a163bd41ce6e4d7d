"""Scores of leave-one-out predictions: what to expect of unseen samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import entr, log_softmax

from sktransfer.linear_model import arg_max_shares, fit_temperature, r2_parts
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS


def loo_accuracy_score(
    X: Any,
    y: Any,
    *,
    task: str = "auto",
    groups: Any = None,
    sample_weight: Any = None,
    fit_intercept: bool = True,
) -> float:
    r"""Accuracy to expect of a linear head on unseen samples, by leave-one-out.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Labels, or 0/1 indicators of several labels.
    task : {"auto", "classification", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    groups : array-like of shape (n_samples,), optional
        Samples of one group, such as the words of a sentence, are left out together.
    sample_weight : array-like of shape (n_samples,), optional
        An integer weight counts as that many copies of the sample, of which one is left
        out.
    fit_intercept : bool, default=True
        Whether the head has an intercept.

    Returns
    -------
    float
        Fraction of samples that the head fitted to all others predicts right. Of
        several labels, the mean over labels.

    Raises
    ------
    ValueError
        If there is only one class or group, a label is constant, or the arrays do not
        fit together.

    See Also
    --------
    loo_log_likelihood_score : Orders models better, as it sees how sure the head is.
    loo_balanced_accuracy_score, loo_f1_score : For rare classes.
    linear_probe_score : The same question, answered by cross-validation.
    sktransfer.linear_model.LogMEClassifier : The head, with a standard error.

    Notes
    -----
    The head is a :class:`~sktransfer.linear_model.LogMEClassifier` with
    ``prior="shared"``: a ridge regression of one-hot columns whose penalty
    :math:`\lambda` maximises the evidence, with an intercept. With its fitted values
    :math:`\hat y` and leverages h, the head fitted to all samples but i predicts

    .. math:: \hat y_{-i} = y_i - \frac{y_i - \hat y_i}{1 - h_i}

    for sample i, exactly, with the same penalty. The class with the largest value is
    predicted; ties count in part. With groups, 1 - h is a matrix.

    The number is about this head. A tuned logistic head, or a fine-tuned network, is
    usually better.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import loo_accuracy_score
    >>> round(loo_accuracy_score(*load_iris(return_X_y=True)), 3)
    0.827
    """
    return LOO_ACCURACY(
        X,
        y,
        task,
        groups=groups,
        sample_weight=sample_weight,
        fit_intercept=fit_intercept,
    )


def loo_log_likelihood_score(
    X: Any,
    y: Any,
    *,
    task: str = "auto",
    groups: Any = None,
    sample_weight: Any = None,
    fit_intercept: bool = True,
) -> float:
    r"""Log-likelihood to expect of a linear head on unseen samples, by leave-one-out.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    groups, sample_weight, fit_intercept
        As in :func:`loo_accuracy_score`.

    Returns
    -------
    float
        Mean over samples, and over several targets or labels, in nats. For numbers it
        is a density, which depends on their unit.

    Raises
    ------
    ValueError
        If there is only one class or group, a target is constant, or the arrays do not
        fit together.

    See Also
    --------
    loo_accuracy_score : In the unit that people ask for.
    logme_score : How probable the samples are together, with the papers' priors.

    Notes
    -----
    With the leave-one-out predictions of :func:`loo_accuracy_score`, class k of sample
    i has the probability :math:`\mathrm{softmax}_k(\hat y_{-i} / T)`. T is the one
    temperature at which the labels are likeliest, so the probabilities are calibrated.
    For several labels the classes of each are its presence and absence, and all share
    one T. Numbers have the Gaussian predictive density of LogME.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import loo_log_likelihood_score
    >>> round(loo_log_likelihood_score(*load_iris(return_X_y=True)), 3)
    -0.387
    """
    return LOO_LOG_LIKELIHOOD(
        X,
        y,
        task,
        groups=groups,
        sample_weight=sample_weight,
        fit_intercept=fit_intercept,
    )


def loo_r2_score(
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    sample_weight: Any = None,
    fit_intercept: bool = True,
) -> float:
    r"""R^2 to expect of a linear head on unseen samples, by leave-one-out.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Numbers.
    groups, sample_weight, fit_intercept
        As in :func:`loo_accuracy_score`.

    Returns
    -------
    float
        R^2 of the leave-one-out predictions of
        :class:`~sktransfer.linear_model.LogME`, mean over targets.

    Raises
    ------
    ValueError
        If there is only one group, a target is constant, or the arrays do not fit
        together.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sktransfer.metrics import loo_r2_score
    >>> round(loo_r2_score(*load_diabetes(return_X_y=True)), 3)
    0.494
    """
    return LOO_R2(
        X,
        y,
        groups=groups,
        sample_weight=sample_weight,
        fit_intercept=fit_intercept,
    )


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


def _head(data: LabelledData, fit_intercept: bool | None) -> Any:
    if fit_intercept in (None, data.head_has_intercept):
        return data.head
    return data.fit_head(fit_intercept)


def _predictions(data: LabelledData, fit_intercept: bool | None) -> np.ndarray:
    """Leave-one-out predictions, (n_samples, n_targets)."""
    predictions = to_numpy(_head(data, fit_intercept).loo_predictions_)
    return predictions.reshape(data.n_samples, -1)


def _labels_and_shares(
    data: LabelledData, fit_intercept: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels as columns of 0 and 1, and what is predicted of each; ties in part."""
    predictions = _predictions(data, fit_intercept)
    if data.task == "multilabel":
        return data.host_target, arg_max_shares(_presence(predictions))[..., 1]
    one_hot = np.eye(len(data.classes))[data.host_target]
    return one_hot, arg_max_shares(predictions)


def _presence(predictions: np.ndarray) -> np.ndarray:
    """Predictions of absence and presence, along a last axis."""
    return np.stack([1 - predictions, predictions], axis=-1)


def _shares(data: LabelledData) -> np.ndarray:
    """Weighted share of the samples that has each class, or each label."""
    columns = data.host_target
    if data.task == "classification":
        counts = np.bincount(columns, data.host_weights)
        return counts / counts.sum()
    return np.average(columns, axis=0, weights=data.host_weights)


def _accuracy(data: LabelledData, *, fit_intercept: bool | None = None) -> Score:
    labels, predicted = _labels_and_shares(data, fit_intercept)
    frequent = _shares(data)
    if data.task == "multilabel":
        right = np.mean(1 - np.abs(labels - predicted), axis=1)
        none = np.mean(np.maximum(frequent, 1 - frequent))
    else:
        right, none = np.sum(labels * predicted, axis=1), frequent.max()
    return Score.of_parts(right, data.host_weights, no_information=none)


def _log_likelihood(data: LabelledData, *, fit_intercept: bool | None = None) -> Score:
    weights = data.host_weights
    if data.task == "multilabel":
        pairs = _presence(_predictions(data, fit_intercept))
        codes = data.host_target.astype(int)
        temperature = fit_temperature(
            pairs.reshape(-1, 2),
            codes.ravel(),
            None if weights is None else np.repeat(weights, codes.shape[1]),
        )
        log_proba = log_softmax(pairs / temperature, axis=-1)
        own = np.take_along_axis(log_proba, codes[..., None], axis=-1)[..., 0]
        p = _shares(data)
        none = -np.mean(entr(p) + entr(1 - p))
        return Score.of_parts(own.mean(axis=1), weights, no_information=none)
    model = _head(data, fit_intercept)
    parts = to_numpy(model.loo_log_density_)
    if data.task == "classification":
        none = -entr(_shares(data)).sum()
        return Score.of_parts(parts, weights, no_information=none)
    y = data.host_target.reshape(data.n_samples, -1)
    centred = y - np.average(y, axis=0, weights=weights)
    variance = np.average(centred**2, axis=0, weights=weights)
    none = -0.5 * np.mean(1 + np.log(2 * np.pi * variance))
    if np.isposinf(model.logme_):  # a target that is explained without error
        return Score(np.inf, no_information=none)
    return Score.of_parts(parts, weights, no_information=none)


def _r2(data: LabelledData, *, fit_intercept: bool | None = None) -> Score:
    weights = data.host_weights
    predictions = _predictions(data, fit_intercept)
    parts = r2_parts(data.host_target, predictions, weights)
    return Score.of_parts(parts, weights, no_information=0.0)


def _balanced_accuracy(
    data: LabelledData, *, fit_intercept: bool | None = None
) -> Score:
    labels, predicted = _labels_and_shares(data, fit_intercept)
    share, hits = _shares(data), labels * predicted
    recall = np.average(hits, axis=0, weights=data.host_weights) / share
    # A sample moves the recall of its class by its distance from it.
    parts = recall.mean() + np.mean((hits - labels * recall) / share, axis=1)
    none = 1 / len(share)
    return Score.of_parts(parts, data.host_weights, no_information=none)


def _f1(data: LabelledData, *, fit_intercept: bool | None = None) -> Score:
    labels, predicted = _labels_and_shares(data, fit_intercept)
    weights, share = data.host_weights, _shares(data)
    hits, sizes = labels * predicted, labels + predicted
    size = np.average(sizes, axis=0, weights=weights)
    f1 = 2 * np.average(hits, axis=0, weights=weights) / size
    # To first order in both means.
    parts = f1.mean() + np.mean((2 * hits - f1 * sizes) / size, axis=1)
    # Predicting what is most frequent.
    of_label = data.task == "multilabel"
    most = share > 0.5 if of_label else np.arange(len(share)) == share.argmax()
    none = np.mean(np.where(most, 2 * share / (1 + share), 0.0))
    return Score.of_parts(parts, weights, no_information=none)


_REFERENCE = "Allen, 1974 (PRESS)"
_COST = "2 n D² + D³"
_OF_CLASSES = ("classification", "multilabel")

LOO_LOG_LIKELIHOOD = Metric(
    "loo_log_likelihood",
    _log_likelihood,
    loo_log_likelihood_score,
    tasks=TASKS,
    takes_weights=True,
    exact_under_duplication=True,
    reference=_REFERENCE,
    cost=_COST,
    weakness="Of a least-squares head; in nats, so read the accuracy beside it.",
)

LOO_ACCURACY = Metric(
    "loo_accuracy",
    _accuracy,
    loo_accuracy_score,
    tasks=_OF_CLASSES,
    takes_weights=True,
    exact_under_duplication=True,
    reference=_REFERENCE,
    cost=_COST,
    weakness="Changes in steps of 1 / n; of a least-squares head, which a tuned "
    "logistic head beats with many classes.",
)

LOO_BALANCED_ACCURACY = Metric(
    "loo_balanced_accuracy",
    _balanced_accuracy,
    loo_balanced_accuracy_score,
    takes_weights=True,
    exact_under_duplication=True,
    reference=_REFERENCE,
    cost=_COST,
    weakness="A rare class counts as much as a frequent one, with a large error.",
)

LOO_F1 = Metric(
    "loo_f1",
    _f1,
    loo_f1_score,
    tasks=_OF_CLASSES,
    takes_weights=True,
    exact_under_duplication=True,
    reference=_REFERENCE,
    cost=_COST,
    weakness="A least-squares head rarely predicts rare classes.",
)

LOO_R2 = Metric(
    "loo_r2",
    _r2,
    loo_r2_score,
    tasks=("regression",),
    takes_weights=True,
    exact_under_duplication=True,
    reference=_REFERENCE,
    cost=_COST,
    weakness="Of a linear head; targets of small variance count as much as others.",
)
