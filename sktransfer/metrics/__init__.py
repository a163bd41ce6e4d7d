"""Transferability metrics and their scorers."""

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._deep_scores import (
    deep_logme_score,
    deep_loo_accuracy_score,
    deep_loo_log_likelihood_score,
)
from sktransfer.metrics._energy import energy_score
from sktransfer.metrics._gbc import gbc_score
from sktransfer.metrics._h_score import h_score, regularized_h_score
from sktransfer.metrics._kite import kite_score
from sktransfer.metrics._knn import knn_score
from sktransfer.metrics._laplace_evidence import laplace_evidence_score
from sktransfer.metrics._lda import lda_score
from sktransfer.metrics._leave_one_out import (
    loo_accuracy_score,
    loo_log_likelihood_score,
    loo_r2_score,
)
from sktransfer.metrics._leave_one_out_rare import (
    loo_balanced_accuracy_score,
    loo_f1_score,
)
from sktransfer.metrics._leep import leep_score
from sktransfer.metrics._lfc import lfc_score
from sktransfer.metrics._linear_probe import linear_probe_score
from sktransfer.metrics._logme import logme_score
from sktransfer.metrics._metric import Metric
from sktransfer.metrics._nce import nce_score
from sktransfer.metrics._ncti import (
    ncti_ncc_score,
    ncti_seli_score,
    ncti_vc_score,
)
from sktransfer.metrics._nleep import nleep_score
from sktransfer.metrics._parc import parc_score
from sktransfer.metrics._registry import get_metric, get_scorer_names
from sktransfer.metrics._scorer import (
    TransferabilityScorer,
    get_scorer,
    make_transferability_scorer,
)
from sktransfer.metrics._sfda import sfda_score
from sktransfer.metrics._transrate import coding_rate, layer_factor, transrate_score
from sktransfer.utils._score import Score, probability_better

__all__ = [
    "LabelledData",
    "Metric",
    "Score",
    "TransferabilityScorer",
    "coding_rate",
    "deep_logme_score",
    "deep_loo_accuracy_score",
    "deep_loo_log_likelihood_score",
    "energy_score",
    "gbc_score",
    "get_metric",
    "get_scorer",
    "get_scorer_names",
    "h_score",
    "kite_score",
    "knn_score",
    "laplace_evidence_score",
    "layer_factor",
    "lda_score",
    "leep_score",
    "lfc_score",
    "linear_probe_score",
    "logme_score",
    "loo_accuracy_score",
    "loo_balanced_accuracy_score",
    "loo_f1_score",
    "loo_log_likelihood_score",
    "loo_r2_score",
    "make_transferability_scorer",
    "nce_score",
    "ncti_ncc_score",
    "ncti_seli_score",
    "ncti_vc_score",
    "nleep_score",
    "parc_score",
    "probability_better",
    "regularized_h_score",
    "sfda_score",
    "transrate_score",
]
