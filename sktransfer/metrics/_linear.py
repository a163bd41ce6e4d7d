"""Metrics of what a linear model on the features can explain: LogME and H-score."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktransfer.linear_model import LogME, LogMEClassifier, SufficientStatistics
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._validation import check_features, encode_labels, infer_task


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
        How to read `y`; ``"auto"`` takes integers and text for labels.
    fit_intercept : bool, default=False
        Whether the model has an intercept. The papers' has none.

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
    sktransfer.linear_model.LogME : The model, with its standard error.

    Notes
    -----
    ``max over alpha, beta of log p(y | X, alpha, beta) / n``, with p(y | X) = N(0,
    I / beta + X X^T / alpha). Unlike the codes in circulation it is exact for fewer
    samples than features, too.

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
    classification = infer_task(y, task) == "classification"
    model = LogMEClassifier if classification else LogME
    return model(fit_intercept=fit_intercept).fit(X, y).logme_


def h_score(X: Any, y: Any) -> float:
    r"""H-score: the share of the features' variance that lies between classes.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    float
        Between 0 and min(n_classes - 1, rank of the features); no unit.

    See Also
    --------
    logme_score : Does not saturate for fewer samples than features.

    Notes
    -----
    :math:`\mathrm{tr}(\mathrm{cov}(F)^+ \mathrm{cov}(E[F | y]))`, here the sum over
    classes of the squared projections of the centred one-hot columns on the left
    singular vectors of the centred features, each over its class size. It reaches
    n_classes - 1 for any features at all once they are more than the samples.

    References
    ----------
    .. [1] Y. Bao et al., "An Information-Theoretic Approach to Transferability in Task
       Transfer Learning", ICIP 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import h_score
    >>> round(h_score(*load_iris(return_X_y=True)), 3)
    1.192
    """
    X = check_features(X, min_samples=2)
    classes, codes = encode_labels(y, X)
    statistics = SufficientStatistics(X.shape[1], n_classes=len(classes))
    return h_score_from_statistics(statistics.update(X, codes))


def h_score_from_statistics(statistics: SufficientStatistics) -> float:
    """H-score of the features and class codes that `statistics` have seen."""
    explained = np.sum(statistics.centred_spectrum.projections**2, axis=0)
    return float(np.sum(explained / to_numpy(statistics.target_sums)))
