"""Warnings and errors that a user of sktransfer may want to catch."""

from __future__ import annotations

from sklearn.exceptions import ConvergenceWarning, FitFailedWarning, NotFittedError

__all__ = [
    "CandidateFailedWarning",
    "ConvergenceWarning",
    "EqualClassesWarning",
    "FitFailedWarning",
    "NotFittedError",
    "RoundingWarning",
    "TransductiveScoreWarning",
    "UnboundedEvidenceWarning",
    "WeakTeachersWarning",
]


class CandidateFailedWarning(FitFailedWarning):
    """A candidate of a selection could not be extracted or scored."""


class UnboundedEvidenceWarning(UserWarning):
    """A target is fitted exactly, so that its evidence has no maximum.

    It is infinite with many more samples than directions of the features: usually the
    target has leaked into them. With hardly more, repeated samples are the usual
    reason, and the evidence is taken at a stated bound.
    """


class EqualClassesWarning(UserWarning):
    """All classes have the same few samples, so leaving one out says too little.

    The class of the sample that is left out is then always the smallest. Samples that
    were drawn at random have no such bias.
    """


class RoundingWarning(UserWarning):
    """Features are so nearly collinear that rounding makes a score uncertain."""


class TransductiveScoreWarning(UserWarning):
    """Samples that are scored were among the unlabelled samples of training.

    The score says how well these samples are labelled; new samples may do worse.
    """


class WeakTeachersWarning(UserWarning):
    """Teachers are expected to predict worse than the network that they teach."""
