"""LogME: log maximum evidence of a Gaussian linear model."""

from __future__ import annotations

from typing import Any

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS


def logme_score(
    X: Any, y: Any, *, task: str = "auto", fit_intercept: bool = False
) -> float:
    r"""Log maximum evidence of a Gaussian linear model from features to target.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    fit_intercept : bool, default=False
        Whether the model has an intercept. That of the papers has none.

    Returns
    -------
    float
        Per sample, mean over targets (one-hot columns for labels), in nats.

    Raises
    ------
    ValueError
        If a target is constant or the arrays do not fit together.

    See Also
    --------
    sktransfer.linear_model.LogME : The estimator, with a standard error.

    Notes
    -----
    ``max over alpha, beta of log p(y | X, alpha, beta) / n``, with p(y | X) = N(0,
    I / beta + X X^T / alpha). Unlike published implementations, it is exact for fewer
    samples than features as well.

    References
    ----------
    .. [1] K. You, Y. Liu, J. Wang, M. Long, "LogME: Practical Assessment of Pre-trained
       Models for Transfer Learning", ICML 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import logme_score
    >>> round(logme_score(*load_iris(return_X_y=True)), 3)
    -0.16
    """
    return LOGME(X, y, task, fit_intercept=fit_intercept)


def _compute(data: LabelledData, *, fit_intercept: bool | None = None) -> Score:
    model = data.logme
    if fit_intercept not in (None, model.fit_intercept):
        model = data.fit_logme(fit_intercept=fit_intercept)
    parts = to_numpy(model.influence_) if data.with_parts else None
    return Score(model.logme_, parts, no_information=model.no_information_)


LOGME = Metric(
    "logme",
    _compute,
    logme_score,
    tasks=TASKS,
    takes_weights=True,
    exact_under_duplication=True,
    reference="You et al., ICML 2021",
    cost="n D² + D³",
    weakness="Measures linear separability; grows with n at a model-specific rate, "
    "so compare at equal n.",
)
