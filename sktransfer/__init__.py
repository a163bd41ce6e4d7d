"""Which pre-trained model will do best on your labelled data, before fine-tuning any?

See Also
--------
sktransfer.model_selection.ModelSelector : Ranks pre-trained models on your data.
sktransfer.linear_model.LogME : Evidence of a linear model on features.
sktransfer.metrics : Transferability metrics and their scorers.
"""

from sktransfer._version import __version__
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import get_scorer
from sktransfer.model_selection import ModelSelector, WholeDataset

__all__ = [
    "LogME",
    "LogMEClassifier",
    "ModelSelector",
    "WholeDataset",
    "__version__",
    "get_scorer",
]
