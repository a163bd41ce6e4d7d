"""Scores of all layers of a network at once."""

from __future__ import annotations

from functools import partial
from typing import Any

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._deep_data import MAX_SAMPLES, DeepData
from sktransfer.metrics._leave_one_out import LOO_ACCURACY, LOO_LOG_LIKELIHOOD
from sktransfer.metrics._logme import LOGME
from sktransfer.metrics._metric import Metric
from sktransfer.utils._score import Score


def deep_logme_score(
    layers: Any,
    y: Any,
    *,
    mixture: str | float = "evidence",
    task: str = "auto",
    groups: Any = None,
    sample_weight: Any = None,
    max_samples: int = MAX_SAMPLES,
    random_state: Any = 0,
) -> float:
    r"""LogME of all layers of a network at once.

    Parameters
    ----------
    layers : dict of str to array-like of shape (n_samples, n_features)
        Features of every layer, in the order of depth. The last are those of the
        network itself. Layers may differ in width.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    mixture : {"evidence", "likelihood"} or float in [0, 1], default="evidence"
        The share :math:`\rho` of all layers beside the last: the one of 0, 0.1, 0.3,
        0.5, 0.7, 0.9 and 1 with the largest evidence or leave-one-out log-likelihood
        (the smallest if several have), or a number.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    groups : array-like of shape (n_samples,), optional
        Samples of one group are left out together. LogME depends on them only through
        ``mixture="likelihood"``.
    sample_weight : array-like of shape (n_samples,), optional
        An integer weight counts as that many copies of the sample.
    max_samples : int, default=2000
        Of more samples, about as many are drawn without replacement, the same share of
        each class (rounded up).
    random_state : int, RandomState instance or None, default=0
        Controls which samples are drawn. Compare networks on the same samples.

    Returns
    -------
    float
        Per sample, mean over targets (one-hot columns for labels), in nats.

    Raises
    ------
    ValueError
        If a layer is not a finite array of two axes, layers have different numbers of
        samples, a target is constant, or the arrays do not fit together.

    See Also
    --------
    logme_score : LogME of one layer.
    deep_loo_log_likelihood_score : The likelihood of left-out samples.

    Notes
    -----
    Let :math:`F_l` be the features of layer l about their mean. The scores are those of
    a linear model whose kernel is

    .. math:: K(\rho) = (1 - \rho) K_L + \frac{\rho}{L} \sum_{l=1}^{L} K_l, \qquad
              K_l = \frac{F_l F_l^T}{\mathrm{tr}\, F_l F_l^T},

    with L the last layer. This is the kernel of all layers joined, each scaled, so
    LogME is that of a factor F of the kernel, :math:`F F^T = K(\rho)`, and exact.

    The model has an intercept: features about their mean explain nothing of the mean of
    a target, which would count as noise. With one layer the score is
    ``logme_score(X, y, fit_intercept=True)``.

    The score depends neither on the unit of a layer nor on the order of its channels.
    Layers with the same kernel, such as the output of a dropout in evaluation mode,
    count once. A layer that is constant up to rounding does not count. If all layers
    are constant, the score is that of features that say nothing.

    The cost is one product per layer, and per :math:`\rho` one eigendecomposition of
    the n x n kernel (or of the products of features, if there are fewer features than
    samples in all layers together). A score of a subsample is a score of fewer samples:
    LogME grows with n. Its standard error is that of the samples drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import deep_logme_score
    >>> X, y = load_iris(return_X_y=True)
    >>> layers = {"petals": X[:, 2:], "sepals": X[:, :2]}
    >>> round(deep_logme_score(layers, y, mixture=0.0), 3)  # the last layer alone
    -0.317
    >>> round(deep_logme_score(layers, y), 3)
    -0.125
    """
    return DEEP_LOGME(
        layers,
        y,
        task,
        mixture=mixture,
        groups=groups,
        sample_weight=sample_weight,
        max_samples=max_samples,
        random_state=random_state,
    )


def deep_loo_accuracy_score(
    layers: Any,
    y: Any,
    *,
    mixture: str | float = "likelihood",
    task: str = "auto",
    groups: Any = None,
    sample_weight: Any = None,
    max_samples: int = MAX_SAMPLES,
    random_state: Any = 0,
) -> float:
    r"""Accuracy to expect of a linear head on all layers at once, by leave-one-out.

    Parameters
    ----------
    layers : dict of str to array-like of shape (n_samples, n_features)
        Features of every layer, in the order of depth; see :func:`deep_logme_score`.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Labels, or 0/1 indicators of several labels.
    mixture : {"likelihood", "evidence"} or float in [0, 1], default="likelihood"
        How much all layers count beside the last; see :func:`deep_logme_score`.
    task : {"auto", "classification", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    groups : array-like of shape (n_samples,), optional
        Samples of one group, such as the words of a sentence, are left out together.
    sample_weight, max_samples, random_state
        As in :func:`deep_logme_score`.

    Returns
    -------
    float
        Fraction of samples that the head fitted to all others predicts right. Of
        several labels, the mean over labels.

    Raises
    ------
    ValueError
        As in :func:`deep_logme_score`, and if there is only one group.

    See Also
    --------
    loo_accuracy_score : The same for one layer, with the formula.
    deep_loo_log_likelihood_score : Orders models better.

    Notes
    -----
    Leave-one-out is exact for a given mixture. The mixture is chosen by all samples,
    those that are left out among them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import deep_loo_accuracy_score
    >>> X, y = load_iris(return_X_y=True)
    >>> layers = {"petals": X[:, 2:], "sepals": X[:, :2]}
    >>> round(deep_loo_accuracy_score(layers, y), 3)
    0.833
    """
    return DEEP_LOO_ACCURACY(
        layers,
        y,
        task,
        mixture=mixture,
        groups=groups,
        sample_weight=sample_weight,
        max_samples=max_samples,
        random_state=random_state,
    )


def deep_loo_log_likelihood_score(
    layers: Any,
    y: Any,
    *,
    mixture: str | float = "likelihood",
    task: str = "auto",
    groups: Any = None,
    sample_weight: Any = None,
    max_samples: int = MAX_SAMPLES,
    random_state: Any = 0,
) -> float:
    r"""Log-likelihood to expect of a linear head on all layers, by leave-one-out.

    Parameters
    ----------
    layers : dict of str to array-like of shape (n_samples, n_features)
        Features of every layer, in the order of depth; see :func:`deep_logme_score`.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    mixture : {"likelihood", "evidence"} or float in [0, 1], default="likelihood"
        How much all layers count beside the last; see :func:`deep_logme_score`.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    groups : array-like of shape (n_samples,), optional
        Samples of one group, such as the words of a sentence, are left out together.
    sample_weight, max_samples, random_state
        As in :func:`deep_logme_score`.

    Returns
    -------
    float
        Mean over samples, and over several targets or labels, in nats.

    Raises
    ------
    ValueError
        As in :func:`deep_logme_score`, and if there is only one group.

    See Also
    --------
    loo_log_likelihood_score : The same for one layer.
    deep_loo_accuracy_score : In the unit that people ask for.

    Notes
    -----
    It is :func:`loo_log_likelihood_score` on features with the kernel of
    :func:`deep_logme_score`. Leave-one-out is exact for a given mixture. The mixture is
    chosen by all samples, those that are left out among them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import deep_loo_log_likelihood_score
    >>> X, y = load_iris(return_X_y=True)
    >>> layers = {"petals": X[:, 2:], "sepals": X[:, :2]}
    >>> round(deep_loo_log_likelihood_score(layers, y), 3)
    -0.387
    """
    return DEEP_LOO_LOG_LIKELIHOOD(
        layers,
        y,
        task,
        mixture=mixture,
        groups=groups,
        sample_weight=sample_weight,
        max_samples=max_samples,
        random_state=random_state,
    )


def _score(
    data: LabelledData,
    metric: Metric,
    mixture: str | float,
    max_samples: int,
    random_state: Any,
) -> Score:
    drawn = {"max_samples": max_samples, "random_state": random_state}
    key = DeepData, max_samples, random_state
    return data.share(key, partial(DeepData, **drawn)).score(metric, mixture)


def _logme(
    data: LabelledData,
    *,
    mixture: str | float = "evidence",
    max_samples: int = MAX_SAMPLES,
    random_state: Any = 0,
) -> Score:
    return _score(data, LOGME, mixture, max_samples, random_state)


def _loo_accuracy(
    data: LabelledData,
    *,
    mixture: str | float = "likelihood",
    max_samples: int = MAX_SAMPLES,
    random_state: Any = 0,
) -> Score:
    return _score(data, LOO_ACCURACY, mixture, max_samples, random_state)


def _loo_log_likelihood(
    data: LabelledData,
    *,
    mixture: str | float = "likelihood",
    max_samples: int = MAX_SAMPLES,
    random_state: Any = 0,
) -> Score:
    return _score(data, LOO_LOG_LIKELIHOOD, mixture, max_samples, random_state)


_ABOUT = {
    "reads": "layers",
    "takes_weights": True,
    "exact_under_duplication": True,
    "cost": "n² D + 63 n³, D of all layers",
}

DEEP_LOGME = Metric(
    "deep_logme",
    _logme,
    deep_logme_score,
    tasks=LOGME.tasks,
    reference=LOGME.reference,
    weakness="Needs the outputs of all layers; of at most 2,000 samples.",
    **_ABOUT,
)

DEEP_LOO_LOG_LIKELIHOOD = Metric(
    "deep_loo_log_likelihood",
    _loo_log_likelihood,
    deep_loo_log_likelihood_score,
    tasks=LOO_LOG_LIKELIHOOD.tasks,
    reference=LOO_LOG_LIKELIHOOD.reference,
    weakness="As deep_logme; in nats, so read the accuracy beside it.",
    **_ABOUT,
)

DEEP_LOO_ACCURACY = Metric(
    "deep_loo_accuracy",
    _loo_accuracy,
    deep_loo_accuracy_score,
    tasks=LOO_ACCURACY.tasks,
    reference=LOO_ACCURACY.reference,
    weakness="As deep_logme; changes in steps of 1 / n.",
    **_ABOUT,
)
