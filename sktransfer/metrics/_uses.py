"""What the features are for, and the metrics that tell which do best at that."""

from __future__ import annotations

import warnings
from typing import Any

from sktransfer.utils._validation import infer_task

# By the benchmark of docs/which_score.rst. The first metric of each decides.
USES = {"frozen": "loo_log_likelihood", "fine_tuning": "deep_logme"}


def metrics_for(use: str, y: Any, task: str = "auto") -> list[str]:
    """Names of the metrics for one of `USES`.

    The metric that decides, the accuracy (or R^2) to expect of a linear head, and
    LogME.
    """
    with warnings.catch_warnings():  # who reads the target next repeats them
        warnings.simplefilter("ignore")
        of_numbers = infer_task(y, task) == "regression"
    return [USES[use], "loo_r2" if of_numbers else "loo_accuracy", "logme"]
