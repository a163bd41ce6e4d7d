"""The metrics by name."""

from __future__ import annotations

from difflib import get_close_matches

from sktransfer.metrics._deep_scores import (
    DEEP_LOGME,
    DEEP_LOO_ACCURACY,
    DEEP_LOO_LOG_LIKELIHOOD,
)
from sktransfer.metrics._energy import ENERGY
from sktransfer.metrics._gbc import GBC
from sktransfer.metrics._h_score import H_SCORE, REGULARIZED_H_SCORE
from sktransfer.metrics._kite import KITE
from sktransfer.metrics._knn import KNN
from sktransfer.metrics._laplace_evidence import LAPLACE_EVIDENCE
from sktransfer.metrics._lda import LDA
from sktransfer.metrics._leave_one_out import (
    LOO_ACCURACY,
    LOO_LOG_LIKELIHOOD,
    LOO_R2,
)
from sktransfer.metrics._leave_one_out_rare import LOO_BALANCED_ACCURACY, LOO_F1
from sktransfer.metrics._leep import LEEP
from sktransfer.metrics._lfc import LFC
from sktransfer.metrics._linear_probe import LINEAR_PROBE
from sktransfer.metrics._logme import LOGME
from sktransfer.metrics._metric import Metric
from sktransfer.metrics._nce import NCE
from sktransfer.metrics._ncti import NCTI_NCC, NCTI_SELI, NCTI_VC
from sktransfer.metrics._nleep import NLEEP
from sktransfer.metrics._parc import PARC
from sktransfer.metrics._sfda import SFDA
from sktransfer.metrics._transrate import TRANSRATE

# In the order of the tables in the documentation.
METRICS = {
    metric.name: metric
    for metric in (
        LOGME,
        LOO_LOG_LIKELIHOOD,
        LOO_ACCURACY,
        LOO_BALANCED_ACCURACY,
        LOO_F1,
        LOO_R2,
        DEEP_LOGME,
        DEEP_LOO_LOG_LIKELIHOOD,
        DEEP_LOO_ACCURACY,
        H_SCORE,
        REGULARIZED_H_SCORE,
        TRANSRATE,
        LFC,
        GBC,
        PARC,
        NLEEP,
        LDA,
        SFDA,
        NCTI_NCC,
        NCTI_SELI,
        NCTI_VC,
        ENERGY,
        KITE,
        LAPLACE_EVIDENCE,
        LINEAR_PROBE,
        KNN,
        LEEP,
        NCE,
    )
}


def get_metric(name: str) -> Metric:
    """Return the metric of that name.

    Parameters
    ----------
    name : str
        One of :func:`get_scorer_names`.

    Returns
    -------
    Metric

    Raises
    ------
    ValueError
        If there is no such metric; the message lists the names.

    Examples
    --------
    >>> from sktransfer.metrics import get_metric
    >>> get_metric("leep").reads
    'source_proba'
    """
    try:
        return METRICS[name]
    except (KeyError, TypeError):
        close = get_close_matches(str(name), METRICS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"{name!r} is not a metric.{hint} Metrics: {sorted(METRICS)}."
        ) from None


def get_scorer_names() -> list[str]:
    """Names of all metrics, sorted.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from sktransfer.metrics import get_scorer_names
    >>> "logme" in get_scorer_names()
    True
    """
    return sorted(METRICS)
