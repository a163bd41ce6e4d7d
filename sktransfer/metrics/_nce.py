"""NCE: negative conditional entropy of the labels given the source labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import cached_rows, get_namespace, to_numpy
from sktransfer.utils._score import Score
from sktransfer.utils._validation import check_labels, encode_labels


def nce_score(source: Any, y: Any) -> float:
    r"""NCE: negative conditional entropy of the labels given the source labels.

    Parameters
    ----------
    source : array-like of shape (n_samples, n_source_classes) or (n_samples,)
        Source probabilities, whose arg max is used, or source labels.
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    float
        At most 0, in nats.

    Raises
    ------
    ValueError
        If source probabilities do not sum to one.

    Notes
    -----
    :math:`-H(Y | Z) = \sum_{zy} \hat P(z, y) \log \hat P(y | z)`.

    References
    ----------
    .. [1] A. Tran, C. Nguyen, T. Hassner, "Transferability and Hardness of Supervised
       Classification Tasks", ICCV 2019.

    Examples
    --------
    >>> from sktransfer.metrics import nce_score
    >>> round(nce_score(["cat", "cat", "dog", "dog"], [0, 0, 0, 1]), 3)
    -0.347
    """
    if np.ndim(source) == 2 or getattr(source, "ndim", 1) == 2:
        return NCE(source, y)
    labels = check_labels(source, y)
    return _of_source_labels(labels, to_numpy(encode_labels(y, y)[1])).value


def _compute(data: LabelledData) -> Score:
    P = data.unchecked_proba
    xp, _ = get_namespace(P=P)
    rows = cached_rows(P)
    first = [xp.argmax(data.read_source_proba(part), axis=1) for part in rows]
    return _of_source_labels(to_numpy(xp.concat(first)), to_numpy(data.codes))


def _of_source_labels(labels: np.ndarray, codes: np.ndarray) -> Score:
    """Mean log frequency of each sample's class among those of its source label."""
    _, source = np.unique(labels, return_inverse=True)
    pairs = source * (codes.max() + 1) + codes
    return Score.of_parts(
        np.log(np.bincount(pairs)[pairs] / np.bincount(source)[source])
    )


NCE = Metric(
    "nce",
    _compute,
    nce_score,
    reads="source_proba",
    exact_under_duplication=True,
    reference="Tran et al., ICCV 2019",
    cost="n S",
    weakness="Needs a source head, and uses only its most probable class.",
)
