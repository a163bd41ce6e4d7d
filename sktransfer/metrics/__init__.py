"""Transferability metrics, their scorers, and their agreement with the truth."""

from sktransfer.metrics._agreement import (
    kendall_tau,
    pearson,
    rank_aggregate,
    regret,
    spearman,
    top_k_hit,
    weighted_kendall_tau,
)
from sktransfer.metrics._agreement_report import AgreementReport, agreement_report
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
    metrics_table,
)
from sktransfer.metrics._scorer import (
    TransferabilityScorer,
    get_scorer,
    make_transferability_scorer,
)
from sktransfer.metrics._similarity import parc_score
from sktransfer.metrics._source import leep_score, nce_score

__all__ = [
    "AgreementReport",
    "Metric",
    "TransferabilityScorer",
    "agreement_report",
    "coding_rate",
    "gbc_score",
    "get_metric",
    "get_scorer",
    "get_scorer_names",
    "h_score",
    "kendall_tau",
    "knn_score",
    "laplace_evidence_score",
    "layer_factor",
    "lda_score",
    "leep_score",
    "lfc_score",
    "linear_probe_score",
    "logme_score",
    "make_transferability_scorer",
    "metrics_table",
    "nce_score",
    "nleep_score",
    "parc_score",
    "pearson",
    "rank_aggregate",
    "regret",
    "regularized_h_score",
    "spearman",
    "top_k_hit",
    "transrate_score",
    "weighted_kendall_tau",
]
