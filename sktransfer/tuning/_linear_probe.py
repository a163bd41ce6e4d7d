"""The closed-form head on frozen features."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from sktransfer.exceptions import EqualClassesWarning
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


def fit_linear_probe(features: Any, y: Any, *, regression: bool) -> Any:
    """A LogME with intercept and leave-one-out predictions, fitted to features."""
    kind = LogME if regression else LogMEClassifier
    params = {} if regression else {"prior": "shared"}
    with warnings.catch_warnings():
        # The bias is the same for all networks that are compared.
        warnings.simplefilter("ignore", EqualClassesWarning)
        return kind(fit_intercept=True, leave_one_out=True, **params).fit(features, y)


def start_at_linear_probe(
    head: torch.nn.Linear, features: np.ndarray, target: torch.Tensor
) -> None:
    """Give a head the weights of the linear probe, whose soft-max is calibrated.

    `target` has codes of classes (n_samples,) or numbers (n_samples, n_targets).
    """
    regression = target.ndim == 2
    probe = fit_linear_probe(features, target.numpy(), regression=regression)
    temperature = 1.0 if regression else probe.temperature_
    with torch.no_grad():
        for parameter, values in (
            (head.weight, probe.coef_),
            (head.bias, probe.intercept_),
        ):
            values = torch.from_numpy(to_numpy(values) / temperature)
            parameter.copy_(values.reshape(parameter.shape))
