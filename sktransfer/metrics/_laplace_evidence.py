"""The evidence of a soft-max head, by Laplace's approximation."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from sktransfer.linear_model import SufficientStatistics
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._logme import LOGME
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import chunks
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS, check_option

# The Hessian is formed in full up to this number of weights.
_EXACT_SIZE = 1500


def laplace_evidence_score(
    X: Any, y: Any, *, task: str = "auto", curvature: str = "auto"
) -> float:
    r"""Log evidence of a linear soft-max head, by Laplace's approximation.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features; those on a GPU are brought to the host.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    curvature : {"auto", "exact", "kronecker"}, default="auto"
        Hessian of the likelihood: exact, or a Kronecker product. ``"auto"`` is exact up
        to 1500 weights (classes times rank of the features).

    Returns
    -------
    float
        Per sample, mean over labels (targets) if there are several, in nats; at least
        -log n_classes for labels.

    Raises
    ------
    ValueError
        If all features are 0, a label or target is constant, or a parameter is not
        valid.

    See Also
    --------
    logme_score : Evidence of a Gaussian model, exact and much faster.

    Notes
    -----
    With weights W of prior precision :math:`\delta`, no intercept, and the posterior
    mode :math:`W_*`,

    .. math:: \log p(y | X, \delta) \approx \log p(y | X, W_*) - \frac\delta2 \|W_*\|^2
        - \frac12 \log\det(I + H / \delta),

    where H is the Hessian of -log p(y | X, W), which for this model is also the
    Gauss-Newton (Fisher) matrix :math:`\sum_i (\mathrm{diag}\,p_i - p_i p_i^T) \otimes
    x_i x_i^T`, or its Kronecker factors, the mean of the first term and the sum of the
    second. The evidence is maximised over the precision, starting from large values,
    where it tends to -log n_classes. Two classes share one column of weights. For
    numbers the likelihood is Gaussian and the score is :func:`logme_score`.

    Kronecker factors give lower values (by 0.1 on digits), so scores of the two kinds
    cannot be compared: choose one kind to rank models of different widths. Once the
    classes separate, the posterior is far from Gaussian.

    References
    ----------
    .. [1] A. Immer, M. Bauer, V. Fortuin, G. Rätsch, M. E. Khan, "Scalable Marginal
       Likelihood Estimation for Model Selection in Deep Learning", ICML 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import laplace_evidence_score
    >>> round(laplace_evidence_score(*load_iris(return_X_y=True)), 2)
    -0.18
    """
    return LAPLACE_EVIDENCE(X, y, task, curvature=curvature)


def _compute(data: LabelledData, *, curvature: str = "auto") -> Score:
    check_option("curvature", curvature, ("auto", "exact", "kronecker"))
    if data.task == "regression":
        return LOGME.score(data)
    data.refuse_constant_targets()
    Z = _principal_coordinates(data.host_features)
    scores = [_maximum(Z, codes, curvature) for codes in data.label_columns]
    return Score(float(np.mean(scores)))


def log_evidence(
    Z: np.ndarray, codes: np.ndarray, W: np.ndarray, precision: float, curvature: str
) -> tuple[float, float]:
    """Laplace's log evidence at the most probable weights, and its Occam term.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_features)
    codes : ndarray of shape (n_samples,)
    W : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
    precision : float
    curvature : {"auto", "exact", "kronecker"}

    Returns
    -------
    tuple of float
        In nats, summed over samples; the latter is -1/2 log det(I + H / precision).
    """
    logits = Z @ W.T
    if len(W) == 1:
        logits = np.column_stack([np.zeros(len(Z)), logits])
    log_proba = log_softmax(logits, axis=1)
    P = np.exp(log_proba[:, -len(W) :])
    if curvature == "exact" or (curvature == "auto" and W.size <= _EXACT_SIZE):
        log_det = np.linalg.slogdet(np.eye(W.size) + _hessian(Z, P) / precision)[1]
    else:
        mean = np.diag(P.mean(axis=0)) - P.T @ P / len(P)
        # The coordinates are uncorrelated: Z^T Z is diagonal.
        scales = np.outer(np.linalg.eigvalsh(mean).clip(0), np.sum(Z**2, axis=0))
        log_det = np.sum(np.log1p(scales / precision))
    likelihood = np.sum(log_proba[np.arange(len(Z)), codes])
    occam = -log_det / 2
    return likelihood - precision / 2 * np.sum(W**2) + occam, occam


def _hessian(Z: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Sum over samples of (diag(p) - p p^T) (x) z z^T."""
    n, r = Z.shape
    k = P.shape[1]
    H = np.zeros((k * r, k * r))
    for c in range(k):
        H[c * r : (c + 1) * r, c * r : (c + 1) * r] = Z.T @ (P[:, c, None] * Z)
    for rows in chunks(n, 4096):
        M = (P[rows, :, None] * Z[rows, None, :]).reshape(-1, k * r)
        H -= M.T @ M
    return H


def _principal_coordinates(X: np.ndarray) -> np.ndarray:
    """The features in the basis of their (uncentred) spectrum, mean square norm 1.

    The evidence is the same in any basis, and directions without features add nothing.
    """
    X = X.astype(np.float64, copy=False)
    basis = SufficientStatistics(X.shape[1]).update(X, X[:, 0]).spectrum.basis
    if not basis.shape[1]:
        raise ValueError(
            "All features are 0: laplace_evidence_score has nothing to fit."
        )
    Z = X @ basis
    return Z * np.sqrt(len(Z) / np.sum(Z**2))


def _maximum(Z: np.ndarray, codes: np.ndarray, curvature: str) -> float:
    """Log evidence per sample, maximal in the prior precision."""
    n = len(Z)
    head = LogisticRegression(
        fit_intercept=False, warm_start=True, solver="newton-cg", max_iter=1000
    )

    def evidence(log_precision: float) -> tuple[float, float]:
        precision = np.exp(log_precision)
        # Far below the contribution of the prior to the mean gradient. Otherwise a warm
        # start would stop early, and the score would depend on where it came from.
        tol = np.clip(1e-6 * precision / n, 1e-10, 1e-5)
        head.set_params(C=1 / precision, tol=tol).fit(Z, codes)
        return log_evidence(Z, codes, head.coef_, precision, curvature)

    # Search downwards in decades from where the prior dominates, until past the
    # maximum: once classes separate, the approximation rises again although the
    # evidence does not.
    limit = best = -n * np.log(codes.max() + 1)
    peak, decade = None, np.log(10)
    for u in np.log(n) - decade * np.arange(20):
        value, occam = evidence(u)
        if value > best:
            best, peak = value, u
        elif best > limit or occam < limit:
            break
    if peak is None:
        return limit / n
    found = minimize_scalar(
        lambda u: -evidence(u)[0],
        bounds=(peak - decade, peak + decade),
        method="bounded",
        options={"xatol": 2e-3},
    )
    return max(best, -found.fun) / n


LAPLACE_EVIDENCE = Metric(
    "laplace_evidence",
    _compute,
    laplace_evidence_score,
    tasks=TASKS,
    exact_under_duplication=True,
    reference="Immer et al., ICML 2021",
    cost="n D² + D³ + about 15 softmax fits + (K D)³ or K³",
    weakness="Slow; a poor approximation when classes are separable.",
)
