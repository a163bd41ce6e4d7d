"""Transferability metrics, their scorers, and their agreement with the truth."""

from sktransfer.metrics._agreement import regret, weighted_kendall_tau
from sktransfer.metrics._coding_rate import coding_rate, transrate_score
from sktransfer.metrics._linear import h_score, logme_score
from sktransfer.metrics._registry import Metric, get_metric, get_scorer_names
from sktransfer.metrics._scorer import (
    TransferabilityScorer,
    get_scorer,
    make_transferability_scorer,
)
from sktransfer.metrics._source import leep_score, nce_score

__all__ = [
    "Metric",
    "TransferabilityScorer",
    "coding_rate",
    "get_metric",
    "get_scorer",
    "get_scorer_names",
    "h_score",
    "leep_score",
    "logme_score",
    "make_transferability_scorer",
    "nce_score",
    "regret",
    "transrate_score",
    "weighted_kendall_tau",
]
