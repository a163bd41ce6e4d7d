"""The metrics by name: what each reads, which tasks it takes, and where it is from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from sktransfer.metrics._coding_rate import transrate_score
from sktransfer.metrics._linear import h_score, logme_score
from sktransfer.metrics._source import leep_score, nce_score

TASKS = ("classification", "regression", "multilabel")


@dataclass(frozen=True)
class Metric:
    """A score function and what is known about it.

    Attributes
    ----------
    name : str
    function : callable
        ``function(features or source_proba, y) -> float``, larger is better.
    reads : {"features", "source_proba"}
        What the pre-trained model has to give.
    tasks : tuple of str
        Some of "classification", "regression" and "multilabel".
    exact_under_duplication : bool
        Whether duplicating features leaves the score as it is.
    reference : str

    Examples
    --------
    >>> from sktransfer.metrics import get_metric
    >>> get_metric("transrate").tasks
    ('classification',)
    """

    name: str
    function: Callable[..., float]
    reads: str
    tasks: tuple[str, ...]
    exact_under_duplication: bool
    reference: str

    def check_task(self, task: str) -> None:
        """Raise a ValueError if the metric does not take such targets."""
        if task not in self.tasks:
            able = [name for name, other in METRICS.items() if task in other.tasks]
            raise ValueError(
                f"The metric {self.name!r} takes {' and '.join(self.tasks)} targets, "
                f"but this is a {task} target. Metrics that take it: {able}."
            )


METRICS = {
    metric.name: metric
    for metric in (
        Metric("logme", logme_score, "features", TASKS, True, "You et al., ICML 2021"),
        Metric(
            "h_score",
            h_score,
            "features",
            ("classification",),
            True,
            "Bao et al., ICIP 2019",
        ),
        Metric(
            "transrate",
            transrate_score,
            "features",
            ("classification",),
            False,
            "Huang et al., ICML 2022",
        ),
        Metric(
            "leep",
            leep_score,
            "source_proba",
            ("classification",),
            True,
            "Nguyen et al., ICML 2020",
        ),
        Metric(
            "nce",
            nce_score,
            "source_proba",
            ("classification",),
            True,
            "Tran et al., ICCV 2019",
        ),
    )
}


def get_metric(name: str) -> Metric:
    """Return the metric of that name.

    Parameters
    ----------
    name : str
        One of :func:`get_scorer_names`.

    Returns
    -------
    Metric

    Raises
    ------
    ValueError
        If there is none, naming those there are.

    Examples
    --------
    >>> from sktransfer.metrics import get_metric
    >>> get_metric("leep").reads
    'source_proba'
    """
    try:
        return METRICS[name]
    except (KeyError, TypeError):
        close = get_close_matches(str(name), METRICS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"{name!r} is not a metric.{hint} Metrics: {sorted(METRICS)}."
        ) from None


def get_scorer_names() -> list[str]:
    """Names of all metrics, sorted.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from sktransfer.metrics import get_scorer_names
    >>> "logme" in get_scorer_names()
    True
    """
    return sorted(METRICS)
