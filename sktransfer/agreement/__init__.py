"""Agreement: how well scores order the true performance of fine-tuned models."""

from sktransfer.agreement._aggregate import min_max_aggregate, rank_aggregate
from sktransfer.agreement._coefficients import (
    kendall_tau,
    pearson,
    spearman,
    weighted_kendall_tau,
)
from sktransfer.agreement._regret import regret, top_k_hit
from sktransfer.agreement._report import AgreementReport, agreement_report

__all__ = [
    "AgreementReport",
    "agreement_report",
    "kendall_tau",
    "min_max_aggregate",
    "pearson",
    "rank_aggregate",
    "regret",
    "spearman",
    "top_k_hit",
    "weighted_kendall_tau",
]
