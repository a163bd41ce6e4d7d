"""Scores of all layers of a network at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property, partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import check_random_state, check_scalar

from sktransfer.exceptions import RoundingWarning
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._deep import LayerMixture, check_layers
from sktransfer.metrics._leave_one_out import LOO_ACCURACY, LOO_LOG_LIKELIHOOD
from sktransfer.metrics._logme import LOGME
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._score import Score
from sktransfer.utils._validation import infer_task

# The mixtures among which rho is chosen.
RHOS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
# The metric that chooses it.
_CRITERIA = {"evidence": LOGME, "likelihood": LOO_LOG_LIKELIHOOD}


def deep_logme_score(
    layers: Any,
    y: Any,
    *,
    mixture: str | float = "evidence",
    task: str = "auto",
    groups: Any = None,
    sample_weight: Any = None,
    max_samples: int = 4000,
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
    max_samples : int, default=4000
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
    count once. A constant layer does not count. If all layers are constant, the score
    is that of features that say nothing.

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
    return _score(
        LOGME,
        layers,
        y,
        mixture,
        task,
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
    max_samples: int = 4000,
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
    return _score(
        LOO_ACCURACY,
        layers,
        y,
        mixture,
        task,
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
    max_samples: int = 4000,
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
    return _score(
        LOO_LOG_LIKELIHOOD,
        layers,
        y,
        mixture,
        task,
        groups=groups,
        sample_weight=sample_weight,
        max_samples=max_samples,
        random_state=random_state,
    )


class DeepData:
    """The data that deep scores read: layers and a target, validated once.

    Deep scores share the kernels of the layers, and the head of every mixture. Of a
    mixture only its scores are kept.
    """

    def __init__(
        self,
        layers: Any,
        y: Any,
        *,
        task: str = "auto",
        groups: Any = None,
        sample_weight: Any = None,
        with_parts: bool = False,
        max_samples: int = 4000,
        random_state: Any = 0,
    ):
        check_scalar(max_samples, "max_samples", Integral, min_val=2)
        layers = check_layers(layers)
        *_, last = layers.values()
        given = LabelledData(
            last, y, task=task, groups=groups, sample_weight=sample_weight
        )
        self.task, self.with_parts = given.task, with_parts
        y, labels = given.host_target, None
        if self.task == "classification":
            labels = y = given.classes[y]
        rows = slice(None)
        if given.n_samples > max_samples:
            rows = _draw_rows(len(y), max_samples, labels, random_state)
        self.y = y[rows]
        self.n_samples = len(self.y)
        self.groups = None if groups is None else given.groups[rows]
        w = given.host_weights
        self.host_weights = None if w is None else w[rows]
        self._layers = {name: to_numpy(X[rows]) for name, X in layers.items()}
        # Differences of scores up to this are rounding of the least precise layer.
        eps = max(np.finfo(X.dtype).eps for X in self._layers.values())
        self.resolution = float(eps) ** 0.5 / 3
        self._scores: dict[float, dict[str, tuple[Score, list]]] = {}

    @cached_property
    def mixture(self) -> LayerMixture:
        """The kernels of the layers."""
        return LayerMixture(self._layers, self.host_weights)

    def score(self, metric: Metric, mixture: str | float) -> Score:
        """Score the mixture given, or the one that the evidence or likelihood chooses.

        `metric` is that of one layer.
        """
        metric.check_task(self.task)
        if isinstance(mixture, str):
            if mixture not in _CRITERIA:
                raise ValueError(_describe_mixture(mixture))
            criterion = _CRITERIA[mixture]
            rhos = RHOS[:1] if self.mixture.is_pure else RHOS
            mixture = max(rhos, key=lambda rho: self._at(rho, criterion)[0].value)
        elif isinstance(mixture, bool) or not (
            isinstance(mixture, Real) and 0 <= mixture <= 1
        ):
            raise ValueError(_describe_mixture(mixture))
        score, messages = self._at(float(mixture), metric)
        for message in messages:
            warnings.warn(message, stacklevel=4)
        return score._replace(resolution=self.resolution)

    def _at(self, rho: float, metric: Metric) -> tuple[Score, list[Warning]]:
        """A score of one mixture, with the warnings of its computation."""
        known = self._scores.setdefault(rho, {})
        if metric.name not in known:
            data = LabelledData(
                self.mixture.features(rho),
                self.y,
                task=self.task,
                groups=self.groups,
                sample_weight=self.host_weights,
                fit_intercept=True,
                with_parts=self.with_parts,
            )
            # All metrics that read the head are computed while it is there.
            metrics = [metric, LOGME]
            if not data.has_one_group:
                metrics += [LOO_LOG_LIKELIHOOD, LOO_ACCURACY]
            _, of_fit = _record(lambda: data.head)
            for one in metrics:
                if self.task in one.tasks and one.name not in known:
                    score, own = _record(partial(one.score, data))
                    known[one.name] = score, of_fit + own
        return known[metric.name]


def _record(function: Callable[[], Any]) -> tuple[Any, list[Warning]]:
    """A result with its warnings, which count only if the mixture is chosen."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Layers are functions of each other, linear ones among them.
        warnings.filterwarnings("ignore", ".* LogME ignores", RoundingWarning)
        result = function()
    return result, [warning.message for warning in caught]


def _draw_rows(
    n_samples: int, size: int, labels: np.ndarray | None, random_state: Any
) -> np.ndarray:
    """About `size` samples, in their order, the same share of each class."""
    rng = check_random_state(random_state)
    codes = np.zeros(n_samples) if labels is None else labels
    drawn = []
    for label in np.unique(codes):
        members = np.flatnonzero(codes == label)
        share = -(-len(members) * size // n_samples)  # rounded up
        drawn.append(rng.permutation(members)[:share])
    return np.sort(np.concatenate(drawn))


def _describe_mixture(given: Any) -> str:
    return (
        f"The 'mixture' parameter must be one of {list(_CRITERIA)} or a number in "
        f"[0, 1]. Got {given!r} instead."
    )


def _score(
    metric: Metric, layers: Any, y: Any, mixture: Any, task: str, **given: Any
) -> float:
    """The body of the score functions."""
    numbers = "regression" in metric.tasks
    task = infer_task(y, task, expected=None if numbers else "classification")
    data = DeepData(layers, y, task=metric.check_task(task), **given)
    return float(data.score(metric, mixture).value)
