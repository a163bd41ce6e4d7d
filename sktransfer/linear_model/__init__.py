"""Evidence of Gaussian linear models on features: LogME."""

from sktransfer.linear_model._held_out import (
    arg_max_shares,
    fit_temperature,
    r2_parts,
)
from sktransfer.linear_model._logme import LogME
from sktransfer.linear_model._logme_classifier import LogMEClassifier
from sktransfer.linear_model._statistics import SufficientStatistics
from sktransfer.utils._score import standard_error

__all__ = [
    "LogME",
    "LogMEClassifier",
    "SufficientStatistics",
    "arg_max_shares",
    "fit_temperature",
    "r2_parts",
    "standard_error",
]
