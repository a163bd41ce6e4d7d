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
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._gbc import gbc_score
from sktransfer.metrics._h_score import h_score, regularized_h_score
from sktransfer.metrics._knn import knn_score
from sktransfer.metrics._laplace_evidence import laplace_evidence_score
from sktransfer.metrics._lda import lda_score
from sktransfer.metrics._leep import leep_score
from sktransfer.metrics._lfc import lfc_score
from sktransfer.metrics._linear_probe import linear_probe_score
from sktransfer.metrics._logme import logme_score
from sktransfer.metrics._metric import Metric
from sktransfer.metrics._nce import nce_score
from sktransfer.metrics._nleep import nleep_score
from sktransfer.metrics._parc import parc_score
from sktransfer.metrics._registry import get_metric, get_scorer_names, metrics_table
from sktransfer.metrics._score import Score
from sktransfer.metrics._scorer import (
    TransferabilityScorer,
    get_scorer,
    make_transferability_scorer,
)
from sktransfer.metrics._transrate import coding_rate, layer_factor, transrate_score

__all__ = [
    "AgreementReport",
    "LabelledData",
    "Metric",
    "Score",
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
