"""LEEP: log expected empirical prediction."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import (
    cached_rows,
    class_sums,
    get_namespace,
    to_numpy,
)
from sktransfer.utils._score import Score


def leep_score(source_proba: Any, y: Any) -> float:
    r"""LEEP: log expected empirical prediction.

    Parameters
    ----------
    source_proba : array-like of shape (n_samples, n_source_classes)
        Probabilities of the source classes, from the pre-trained model; each row sums
        to one.
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    float
        At most 0, in nats.

    Raises
    ------
    ValueError
        If a row does not sum to one or has a negative entry.

    See Also
    --------
    nce_score : Uses the most probable source class only.

    Notes
    -----
    :math:`\frac1n \sum_i \log \sum_z \hat P(y_i | z) P_{iz}`, with
    :math:`\hat P(y | z)` the empirical conditional of label given source class.

    References
    ----------
    .. [1] C. Nguyen, T. Hassner, M. Seeger, C. Archambeau, "LEEP: A New Measure to
       Evaluate Transferability of Learned Representations", ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.metrics import leep_score
    >>> round(leep_score(np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]), [0, 0, 1]), 3)
    -0.245
    """
    return LEEP(source_proba, y)


def _compute(data: LabelledData) -> Score:
    P, codes, n_classes = data.unchecked_proba, data.codes, len(data.classes)
    xp, _ = get_namespace(P=P)
    joint = class_sums(P, codes, n_classes, xp, read=data.read_source_proba)
    marginal = xp.sum(joint, axis=1, keepdims=True)
    # A source class without any probability adds nothing to the sum below.
    marginal = xp.where(marginal > 0, marginal, xp.ones_like(marginal))
    conditional = xp.astype((joint / marginal).T, P.dtype)
    parts = []
    for rows in cached_rows(P):
        expected = xp.vecdot(P[rows, :], xp.take(conditional, codes[rows], axis=0))
        parts.append(to_numpy(xp.log(xp.astype(expected, xp.float64))))
    return Score.of_parts(np.concatenate(parts))


LEEP = Metric(
    "leep",
    _compute,
    leep_score,
    reads="source_proba",
    exact_under_duplication=True,
    reference="Nguyen et al., ICML 2020",
    cost="n S",
    weakness="Needs a source head, and evaluates that head rather than the features.",
)
