"""Limits of the evidence that the user of a LogME estimator is told about."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sktransfer.exceptions import RoundingWarning, UnboundedEvidenceWarning
from sktransfer.linear_model._posterior import Posterior
from sktransfer.linear_model._statistics import SufficientStatistics

# An error of LogME, in nats, that is worth a warning.
_NOTABLE = 1e-3


def check_solvable(statistics: SufficientStatistics, model: Any) -> None:
    """Refuse statistics whose evidence is undefined or unbounded."""
    name = type(model).__name__
    if statistics.n_rows < 2:
        raise ValueError(
            f"{name} needs at least 2 samples; got n_samples = {statistics.n_rows}."
        )
    if statistics.n_samples == 0:
        raise ValueError(
            f"{name} needs samples of positive weight; all {statistics.n_rows} so "
            "far have a sample_weight of zero."
        )
    if model.fit_intercept and statistics.n_samples <= 1:
        raise ValueError(
            f"{name} with an intercept needs sample weights that sum to more than "
            f"1; got a sum of {statistics.n_samples:.6g}."
        )
    no_norm = "no sample has it" if hasattr(model, "classes_") else "all zero"
    reasons = {
        "so small that the squares underflow float64. Divide the targets by their "
        "largest absolute value first": statistics.underflowing_targets,
        f"{no_norm}, so that the evidence is unbounded": statistics.target_norms == 0,
        "constant over all samples, so that there is nothing to explain": (
            statistics.constant_targets
        ),
    }
    for reason, mask in reasons.items():
        if mask.any():
            targets = _name_targets(mask, model)
            raise ValueError(f"{name} cannot score {targets}: {reason}.")


def warn_of_limits(posterior: Posterior, model: Any, stacklevel: int) -> None:
    """Warn of an evidence without a maximum, or of one that was not found exactly."""
    spectrum, maximum = posterior.spectrum, posterior.maximum

    def warn(text: str, category: type[Warning]) -> None:
        warnings.warn(text, category, stacklevel=stacklevel + 1)

    if (stuck := ~maximum.converged).any():
        warn(
            f"solver={model.solver!r} did not converge in max_iter={model.max_iter} "
            f"iterations for {_name_targets(stuck, model)}; raise max_iter or use "
            "solver='newton'.",
            ConvergenceWarning,
        )
    copies = spectrum.n_rows - spectrum.n_distinct
    repeated = f" {copies} samples repeat others." if copies else ""
    if (unbounded := np.isposinf(maximum.log_evidence)).any():
        warn(
            f"The features explain {_name_targets(unbounded, model)} without any "
            "error: the evidence is infinite. Has the target leaked into them?"
            f"{repeated}",
            UnboundedEvidenceWarning,
        )
    if (bounded := maximum.at_lower_bound).any():
        warn(
            f"The features fit {_name_targets(bounded, model)} exactly, but they have "
            "hardly fewer directions than there are samples, and the evidence has no "
            "maximum: it is evaluated at alpha / beta = 1e-8 times the smallest "
            f"eigenvalue.{repeated} Remove repeated samples, or use more.",
            UnboundedEvidenceWarning,
        )
    if (error := posterior.rounding_error()) > _NOTABLE:
        name = "float32" if model.statistics_.is_single else "float64"
        warn(
            "Some features are almost linear combinations of others: rounding in "
            f"{name} makes LogME uncertain by about {error:.2g} nats. Remove redundant "
            "features, or reduce them by PCA, first"
            + ("; or pass float64 features." if name == "float32" else "."),
            RoundingWarning,
        )


def warn_of_lost_directions(stacklevel: int) -> None:
    """Warn of a part of the features that LogME cannot see."""
    warnings.warn(
        "Some features are almost linear combinations of others. LogME ignores their "
        "differences, which rounding in float64 hides. Remove what these features "
        "share (such as an offset of some samples), or reduce them by PCA, first.",
        RoundingWarning,
        stacklevel=stacklevel,
    )


def _name_targets(mask: np.ndarray, model: Any) -> str:
    classes = getattr(model, "classes_", None)
    found = np.flatnonzero(mask)
    names = (found if classes is None else classes[found]).tolist()
    kind = "target" if classes is None else "class"
    shown = ", ".join(repr(name) for name in names[:5])
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{kind} {shown}{rest}"
