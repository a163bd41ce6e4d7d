"""PARC: rank correlation of dissimilarities of features and of targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr
from sklearn.preprocessing import StandardScaler
from sklearn.utils import resample

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS

# Values that differ by rounding errors only are ties.
_DECIMALS = 12


def parc_score(
    X: Any,
    y: Any,
    *,
    task: str = "auto",
    max_samples: int = 2000,
    random_state: Any = 0,
) -> float:
    r"""PARC: rank correlation of the dissimilarities of features and of targets.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features, at least two; those on a GPU are brought to the host.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    max_samples : int, default=2000
        Size of the stratified subsample that is drawn from more samples, because the
        dissimilarities of all pairs are held in memory.
    random_state : int or RandomState, default=0
        Controls the drawing of the subsample.

    Returns
    -------
    float
        Between -100 and 100.

    Raises
    ------
    ValueError
        If there are fewer than three samples or two features, or all pairs of samples
        are equally dissimilar.

    See Also
    --------
    lfc_score : Correlates the similarities themselves, without an n x n matrix.

    Notes
    -----
    100 times Spearman's correlation, over all pairs of samples, of 1 - Pearson's
    correlation of their standardised features and the dissimilarity of their targets.
    The dissimilarity of labels is the number of one-hot columns, or of indicators, that
    differ; for one-hot labels it orders pairs as 1 - Pearson's correlation does. The
    dissimilarity of numbers is their Euclidean distance after standardisation. A sample
    whose standardised features are all equal has dissimilarity 1 to all others.

    Dissimilarities are rounded to twelve decimals. In implementations that use
    ``np.corrcoef`` of the one-hot matrix, rounding errors break the ties between pairs
    within a class, which changes the score by several tenths.

    Equal labels are ties, so even perfect features score well below 100. Only compare
    scores of the same target.

    References
    ----------
    .. [1] D. Bolya, R. Mittapalli, J. Hoffman, "Scalable Diverse Model Selection for
       Accessible Transfer Learning", NeurIPS 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import parc_score
    >>> round(parc_score(*load_iris(return_X_y=True)), 2)
    58.68
    """
    options = {"max_samples": max_samples, "random_state": random_state}
    return PARC(X, y, task, **options)


def _compute(
    data: LabelledData, *, max_samples: int = 2000, random_state: Any = 0
) -> Score:
    X, task = data.host_features, data.task
    if max_samples < 3:
        raise ValueError(f"max_samples must be at least 3. Got {max_samples!r}.")
    if len(X) < 3 or X.shape[1] < 2:
        raise ValueError(
            "parc_score needs at least 3 samples and 2 features; got X of shape "
            f"{X.shape}."
        )
    numbers = task == "regression"
    if numbers:
        Y = data.host_target.reshape(len(X), -1)
    else:
        Y = np.stack(data.label_columns, axis=1)
    if len(Y) > max_samples:
        keep = resample(
            np.arange(len(Y)),
            replace=False,
            n_samples=max_samples,
            stratify=Y if task == "classification" else None,
            random_state=random_state,
        )
        X, Y = X[keep], Y[keep]
    features = _one_minus_correlation(X.astype(np.float64))
    if numbers:
        targets = np.round(pdist(StandardScaler().fit_transform(Y)), _DECIMALS)
    else:
        targets = pdist(Y, "hamming")
    for name, dissimilarity in (("features", features), ("targets", targets)):
        if np.ptp(dissimilarity) == 0:
            raise ValueError(
                f"All pairs of samples have equally dissimilar {name}: PARC is "
                "undefined."
            )
    return Score(100 * float(spearmanr(features, targets).statistic))


def _one_minus_correlation(X: np.ndarray) -> np.ndarray:
    """Condensed 1 - Pearson's correlation of the rows, features standardised."""
    Z = StandardScaler().fit_transform(X)
    size = np.linalg.norm(Z, axis=1, keepdims=True)
    Z -= Z.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(Z, axis=1, keepdims=True)
    constant = norms <= 1e-10 * size
    Z = np.where(constant, 0.0, Z / np.where(constant, 1.0, norms))
    return np.round(squareform(1 - Z @ Z.T, checks=False), _DECIMALS)


PARC = Metric(
    "parc",
    _compute,
    parc_score,
    tasks=TASKS,
    exact_under_duplication=True,
    reference="Bolya et al., NeurIPS 2021",
    cost="m² D + m² log m, m = min(n, 2000)",
    weakness="Stays well below 100 because labels are tied; uses a subsample.",
)
