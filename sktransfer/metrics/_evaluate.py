"""The one way from labelled data to scores, for scorers and the selector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.metrics._registry import METRICS
from sktransfer.utils._score import Score


def evaluate(
    metrics: Mapping[str, Metric],
    data: LabelledData,
    *,
    on_error: Callable[[str, Exception], None] | None = None,
) -> dict[str, Score]:
    """Score data by several metrics, which share what they compute.

    Parameters
    ----------
    metrics : dict of str to Metric
    data : LabelledData
    on_error : callable, optional
        ``on_error(name, error)`` is told of a metric that fails, which is then missing
        from the result. By default its error is raised.

    Returns
    -------
    dict of str to Score
    """
    scores = {}
    for name, metric in metrics.items():
        try:
            scores[name] = metric.score(data)
        except Exception as error:
            if on_error is None:
                raise
            on_error(name, error)
    return scores


def check_task(metrics: Mapping[str, Metric], task: str) -> None:
    """Raise a ValueError, naming alternatives, if a metric does not take the task."""
    for metric in metrics.values():
        try:
            metric.check_task(task)
        except ValueError as error:
            wanted = task if metric.task == "auto" else metric.task
            able = [name for name, m in METRICS.items() if wanted in m.tasks]
            raise ValueError(f"{error} Metrics that take it: {able}.") from None
