"""Transferability metrics and their scorers."""

from sktransfer.metrics._coding_rate import coding_rate, layer_factor, transrate_score
from sktransfer.metrics._gaussian import gbc_score
from sktransfer.metrics._heads import knn_score, lda_score, linear_probe_score
from sktransfer.metrics._laplace import laplace_evidence_score
from sktransfer.metrics._mixture import nleep_score
from sktransfer.metrics._moments import (
    h_score,
    lfc_score,
    logme_score,
    regularized_h_score,
)
from sktransfer.metrics._registry import (
    Metric,
    get_metric,
    get_scorer_names,
)
from sktransfer.metrics._scorer import (
    TransferabilityScorer,
    get_scorer,
    make_transferability_scorer,
)
from sktransfer.metrics._similarity import parc_score
from sktransfer.metrics._source import leep_score, nce_score

__all__ = [
    "Metric",
    "TransferabilityScorer",
    "coding_rate",
    "gbc_score",
    "get_metric",
    "get_scorer",
    "get_scorer_names",
    "h_score",
    "knn_score",
    "laplace_evidence_score",
    "layer_factor",
    "lda_score",
    "leep_score",
    "lfc_score",
    "linear_probe_score",
    "logme_score",
    "make_transferability_scorer",
    "nce_score",
    "nleep_score",
    "parc_score",
    "regularized_h_score",
    "transrate_score",
]
