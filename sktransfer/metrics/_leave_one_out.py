"""Scores of leave-one-out predictions: what to expect of unseen samples."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.special import entr, log_softmax, ndtr

from sktransfer.exceptions import EqualClassesWarning
from sktransfer.linear_model import arg_max_shares, fit_temperature
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS

# Samples of each class from which their equal number makes little difference.
_ENOUGH = 20


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

    Leaving one out is unbiased for samples that were drawn at random. If the same few
    samples were drawn of each class, the class of the one that is left out is always
    the smallest, and the score is too low: on digits, by 14 points with 3 samples of
    each class, by 2 with 10. An :class:`~sktransfer.exceptions.EqualClassesWarning`
    says so; pass groups that hold one sample of each class.

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


def head_of(data: LabelledData, fit_intercept: bool | None) -> Any:
    """The head whose leave-one-out predictions are scored."""
    alone = data.groups is None or len(np.unique(data.groups)) == data.n_samples
    if data.task == "classification" and alone:
        _warn_of_equal_classes(data)
    if fit_intercept is None:
        fit_intercept = data.head_has_intercept
    if fit_intercept == data.head_has_intercept and not data.has_one_group:
        return data.head
    return data.fit_head(fit_intercept)  # which refuses one group


def _warn_of_equal_classes(data: LabelledData) -> None:
    codes, weights, shares = data.host_target, data.host_weights, class_shares(data)
    counts = np.bincount(codes if weights is None else codes[weights > 0])
    n = int(counts.max())
    if counts.min() < n or n >= _ENOUGH or not np.allclose(shares, shares[0]):
        return
    warnings.warn(
        f"All {len(counts)} classes have {n} sample{'s' * (n > 1)}. If as many were "
        "drawn of each class on purpose, leave-one-out scores are too low, as the "
        "class of the sample that is left out is always the smallest. "
        + (
            "Then leave out one sample of each class together, by groups: the folds of "
            f"StratifiedKFold(n_splits={n})."
            if n > 1
            else "With a second sample of each class, groups would mend that."
        ),
        EqualClassesWarning,
        stacklevel=2,
    )


def as_columns(data: LabelledData, values: Any) -> np.ndarray:
    """On the host, with an axis of targets."""
    return to_numpy(values).reshape(data.n_samples, -1)


def class_shares(data: LabelledData) -> np.ndarray:
    """Weighted share of the samples that has each class, or each label."""
    columns = data.host_target
    if data.task == "classification":
        counts = np.bincount(columns, data.host_weights)
        return counts / counts.sum()
    return np.average(columns, axis=0, weights=data.host_weights)


def _presence(predictions: np.ndarray) -> np.ndarray:
    """Predictions of absence and presence, along a last axis."""
    return np.stack([1 - predictions, predictions], axis=-1)


def score_labels(
    data: LabelledData, model: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Presence that is predicted of each label, what is right, and its variance."""
    predictions = as_columns(data, model.loo_predictions_)
    predicted = arg_max_shares(_presence(predictions))[..., 1]
    right = 1 - np.abs(data.host_target - predicted)
    deviation = as_columns(data, model.loo_std_)
    with np.errstate(divide="ignore", invalid="ignore"):
        present = ndtr((predictions - 0.5) / deviation)
    variances = np.where(deviation > 0, present * (1 - present), 0.0)
    w = data.host_weights
    return predicted, right, variances + 1 / (len(right) if w is None else w.sum())


def score_accuracy(data: LabelledData, *, fit_intercept: bool | None = None) -> Score:
    model, frequent = head_of(data, fit_intercept), class_shares(data)
    if data.task == "classification":
        score = model.loo_scores_["accuracy"]
        return score._replace(no_information=frequent.max())
    _, right, variances = score_labels(data, model)
    return Score.of_parts(
        right.mean(axis=1),
        data.host_weights,
        variances=variances.mean(axis=1) / right.shape[1],
        no_information=np.mean(np.maximum(frequent, 1 - frequent)),
    )


def _log_likelihood(data: LabelledData, *, fit_intercept: bool | None = None) -> Score:
    weights, model = data.host_weights, head_of(data, fit_intercept)
    if data.task == "multilabel":
        return _log_likelihood_of_labels(data, model)
    score = model.loo_scores_["log_likelihood"]
    if data.task == "classification":
        return score._replace(no_information=-entr(class_shares(data)).sum())
    y = data.host_target.reshape(data.n_samples, -1)
    centred = y - np.average(y, axis=0, weights=weights)
    variance = np.average(centred**2, axis=0, weights=weights)
    none = -0.5 * np.mean(1 + np.log(2 * np.pi * variance))
    if np.isposinf(model.logme_):  # a target that is explained without error
        return Score(np.inf, np.full(data.n_samples, np.nan), no_information=none)
    return score._replace(no_information=none)


def _log_likelihood_of_labels(data: LabelledData, model: Any) -> Score:
    weights, y = data.host_weights, data.host_target.astype(int)
    pairs = _presence(as_columns(data, model.loo_predictions_))
    copies = None if weights is None else np.repeat(weights, y.shape[1])
    T = fit_temperature(pairs.reshape(-1, 2), y.ravel(), copies)
    log_proba = log_softmax(pairs / T, axis=-1)
    own = np.take_along_axis(log_proba, y[..., None], axis=-1)[..., 0]
    # By the delta method, as presence moves against absence.
    slopes = 2 * (y - np.exp(log_proba[..., 1])) / T
    variances = slopes**2 * as_columns(data, model.loo_std_) ** 2
    p = class_shares(data)
    return Score.of_parts(
        own.mean(axis=1),
        weights,
        variances=variances.mean(axis=1) / y.shape[1],
        no_information=-np.mean(entr(p) + entr(1 - p)),
    )


def _r2(data: LabelledData, *, fit_intercept: bool | None = None) -> Score:
    score = head_of(data, fit_intercept).loo_scores_["r2"]
    return score._replace(no_information=0.0)


REFERENCE = "Allen, 1974 (PRESS)"
COST = "2 n D² + D³"
OF_CLASSES = ("classification", "multilabel")

LOO_LOG_LIKELIHOOD = Metric(
    "loo_log_likelihood",
    _log_likelihood,
    loo_log_likelihood_score,
    tasks=TASKS,
    takes_weights=True,
    exact_under_duplication=True,
    reference=REFERENCE,
    cost=COST,
    weakness="Of a least-squares head; in nats, so read the accuracy beside it.",
)

LOO_ACCURACY = Metric(
    "loo_accuracy",
    score_accuracy,
    loo_accuracy_score,
    tasks=OF_CLASSES,
    takes_weights=True,
    exact_under_duplication=True,
    reference=REFERENCE,
    cost=COST,
    weakness="Changes in steps of 1 / n; of a least-squares head, which a tuned "
    "logistic head beats with many classes.",
)

LOO_R2 = Metric(
    "loo_r2",
    _r2,
    loo_r2_score,
    tasks=("regression",),
    takes_weights=True,
    exact_under_duplication=True,
    reference=REFERENCE,
    cost=COST,
    weakness="Of a linear head; targets of small variance count as much as others.",
)
