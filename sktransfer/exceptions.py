"""Warnings and errors that a user of sktransfer may want to catch."""

from __future__ import annotations

from sklearn.exceptions import ConvergenceWarning, FitFailedWarning, NotFittedError

__all__ = [
    "CandidateFailedWarning",
    "ConvergenceWarning",
    "FitFailedWarning",
    "NotFittedError",
    "UnboundedEvidenceWarning",
]


class CandidateFailedWarning(FitFailedWarning):
    """A candidate of a selection could not be extracted or scored."""


class UnboundedEvidenceWarning(UserWarning):
    """A target is an exact linear function of the features: its evidence is infinite.

    Usually the target has leaked into the features.
    """
