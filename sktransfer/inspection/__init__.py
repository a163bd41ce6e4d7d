"""Displays of results: data first, figures second."""

from sktransfer.inspection._base import BaseDisplay
from sktransfer.inspection._ranking import RankingDisplay

__all__ = ["BaseDisplay", "RankingDisplay"]
