"""Ranking of pre-trained models on labelled data."""

from sktransfer.model_selection._base import BaseModelSelector
from sktransfer.model_selection._selector import ModelSelector
from sktransfer.model_selection._split import WholeDataset

__all__ = ["BaseModelSelector", "ModelSelector", "WholeDataset"]
