"""Fine-tuning with the knowledge of the best-ranked pre-trained models.

Everything here needs torch and skorch, which are imported when a name is first used.
"""

from __future__ import annotations

from sktransfer.utils._optional import lazy_exports

# public name -> the private module that has it, and imports its optional packages
_LAZY = {
    "BasePenalty": "penalties._base",
    "BayesianTuning": "penalties._bayesian_tuning",
    "FeatureDistillation": "penalties._feature_distillation",
    "FeatureMapDistance": "penalties._feature_maps",
    "FineTuneClassifier": "_fine_tune",
    "FineTuneRegressor": "_fine_tune",
    "L2SP": "penalties._l2_sp",
    "PenaltyBatch": "penalties._base",
    "PenaltyContext": "penalties._base",
    "PredictiveDistillation": "penalties._predictive_distillation",
    "TuningReport": "_tuning_report",
    "ZooTuning": "_zoo_tuning",
    "rank_and_tune": "_rank_and_tune",
}

__all__ = [
    "BasePenalty",
    "BayesianTuning",
    "FeatureDistillation",
    "FeatureMapDistance",
    "FineTuneClassifier",
    "FineTuneRegressor",
    "L2SP",
    "PenaltyBatch",
    "PenaltyContext",
    "PredictiveDistillation",
    "TuningReport",
    "ZooTuning",
    "rank_and_tune",
]

__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
