"""Which pre-trained model will do best on your labelled data, before fine-tuning any?"""

from sktransfer._version import __version__
from sktransfer.linear_model import LogME, LogMEClassifier

__all__ = ["LogME", "LogMEClassifier", "__version__"]
