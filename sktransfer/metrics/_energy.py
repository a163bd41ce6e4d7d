"""Energy score of ETran: how strongly the features respond to the target data."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import chunks, to_numpy
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS


def energy_score(X: Any, y: Any, *, task: str = "auto") -> float:
    r"""Energy score of ETran: mean log-sum-exp of the features.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features; those on a GPU are brought to the host. Their unit and offset matter.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels. They are validated, but do
        not change the score.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; see :class:`LabelledData`.

    Returns
    -------
    float
        In the unit of the features.

    See Also
    --------
    lda_score : A discriminant analysis, as is the classification score of ETran.
    sktransfer.agreement.min_max_aggregate : Combines scores of several metrics.

    Notes
    -----
    The free energy of a sample with features :math:`x_1, \dots, x_D` and the score are

    .. math:: E(x) = -\log \sum_{j=1}^{D} \exp(x_j) , \qquad
       S = -\frac1n \sum_{i=1}^{n} E(x_i) .

    Low energy stands for samples like those that the network was trained on. The
    temperature of the energy is 1.

    The score ignores the target: it is the same for true and for shuffled labels. It
    follows the largest features, grows with their unit and their number (by log 2 when
    all are duplicated), and an offset is added to it. Networks of different
    architecture are therefore hard to compare by it.

    ETran is the sum of this score and of one of the target, which for classes comes
    from a discriminant analysis. Their units differ, so that a sum needs a common
    scale: see :func:`~sktransfer.agreement.min_max_aggregate`.

    References
    ----------
    .. [1] M. Gholami, M. Akbari, X. Wang, B. Kamranian, Y. Zhang, "ETran: Energy-Based
       Transferability Estimation", ICCV 2023, arXiv:2308.02027.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import energy_score
    >>> X, y = load_iris(return_X_y=True)
    >>> round(energy_score(X, y), 3)
    6.108
    >>> round(energy_score(X, y[::-1]), 3)  # other labels
    6.108
    """
    return ENERGY(X, y, task)


def _compute(data: LabelledData) -> Score:
    _ = data.target  # validates it, although the score does not use it
    X = to_numpy(data.features)
    values = np.empty(len(X))
    for rows in chunks(len(X), 1024):
        values[rows] = logsumexp(X[rows].astype(np.float64), axis=1)
    return Score.of_parts(values)


ENERGY = Metric(
    "energy",
    _compute,
    energy_score,
    tasks=TASKS,
    reference="Gholami et al., ICCV 2023",
    cost="n D",
    weakness="Ignores the target; grows with the unit, the offset and the number of "
    "the features.",
)
