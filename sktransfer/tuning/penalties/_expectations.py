"""What to expect of teachers, by predictions for samples that were left out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.metrics import accuracy_score, r2_score

from sktransfer.exceptions import WeakTeachersWarning
from sktransfer.tuning._linear_probe import fit_linear_probe
from sktransfer.tuning.penalties._base import BasePenalty, PenaltyContext


def leave_one_out_head(features: Any, context: PenaltyContext) -> Any:
    """The head to expect most of, fitted to the training part of labelled samples."""
    rows, regression = context.train, context.classes is None
    return fit_linear_probe(features[rows], context.y[rows], regression=regression)


def expected_score(predictions: np.ndarray, context: PenaltyContext) -> float:
    """Accuracy, or R^2 for numbers, of predictions for the training part."""
    y = context.y[context.train]
    if context.classes is None:
        return r2_score(y, predictions)
    return accuracy_score(y, context.classes[predictions.argmax(axis=1)])


@dataclass(frozen=True)
class Expectations:
    """What leave-one-out predictions say of teachers and network, before tuning.

    Accuracies, or R^2 for numbers, of linear heads on their features.
    """

    teachers: list[float]
    mixture: float
    network: float


def expect(
    predictions: Sequence[np.ndarray],
    mixture_weights: np.ndarray,
    own_features: np.ndarray,
    penalty: BasePenalty,
    context: PenaltyContext,
) -> Expectations:
    """Compare teachers with the network, by predictions of left-out samples.

    Warns if the mixed teachers are worse.
    """
    own = leave_one_out_head(own_features, context).loo_predictions_
    found = Expectations(
        teachers=[expected_score(p, context) for p in predictions],
        mixture=expected_score(np.tensordot(mixture_weights, predictions, 1), context),
        network=expected_score(own, context),
    )
    if found.mixture < found.network:
        score, unit, factor = "accuracy", " %", 100
        if context.classes is None:
            score, unit, factor = "R^2", "", 1
        warnings.warn(
            f"The teachers of {type(penalty).__name__} are not expected to help. The "
            f"leave-one-out {score} of linear heads on {len(context.train)} samples is "
            f"{factor * found.mixture:.3g}{unit} for the teachers together, and "
            f"{factor * found.network:.3g}{unit} for the network before tuning.",
            WeakTeachersWarning,
            stacklevel=6,
        )
    return found


def mix_weights(scores: Sequence[float], temperature: float) -> np.ndarray:
    """Soft-max of scores, in nats per sample, divided by the temperature."""
    scores = np.array(scores) / temperature
    if (perfect := np.isposinf(scores)).any():
        # A target that is explained without error: finite scores do not count then.
        scores = np.where(perfect, 0, -np.inf)
    return softmax(scores)
