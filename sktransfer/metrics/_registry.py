"""The metrics by name: what each reads, takes and costs, and where it is from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sktransfer.metrics._coding_rate import layer_factor, transrate_of, transrate_score
from sktransfer.metrics._gaussian import gbc_of, gbc_score
from sktransfer.metrics._heads import knn_score, lda_score, linear_probe_score
from sktransfer.metrics._laplace import laplace_evidence_score
from sktransfer.metrics._mixture import nleep_score
from sktransfer.metrics._moments import (
    h_score,
    h_score_of,
    lfc_of,
    lfc_score,
    logme_of,
    logme_score,
    regularized_h_score,
    regularized_h_score_of,
)
from sktransfer.metrics._shared import LabelledFeatures
from sktransfer.metrics._similarity import parc_score
from sktransfer.metrics._source import leep_score, nce_score
from sktransfer.utils._validation import TASKS, task_refusal


@dataclass(frozen=True)
class Metric:
    """A score function and what is known about it.

    Attributes
    ----------
    name : str
    function : callable
        ``function(features or source_proba, y) -> float``, larger is better. If it has
        a parameter ``task``, that is passed on.
    reads : {"features", "source_proba"}
        What the pre-trained model has to give.
    tasks : tuple of str
        Some of "classification", "regression" and "multilabel".
    exact_under_duplication : bool
        Whether duplicating features leaves the score as it is.
    reference : str
    cost : str
        Leading terms for n samples, D features, K classes and S source classes.
    weakness : str
        What to know before trusting it.
    shared : callable, optional
        ``shared(LabelledFeatures) -> float``: the same score of features and labels
        whose statistics other metrics use, too.
    layer_factor : callable, optional
        ``layer_factor(n_features, n_features_last) -> float``: what makes the scores of
        layers of one network comparable, where their width alone moves them.
    task : {"auto", "classification", "regression", "multilabel"}
        How this metric reads the target; "auto" leaves it to whoever asks.

    Examples
    --------
    >>> from sktransfer.metrics import get_metric
    >>> get_metric("transrate").tasks
    ('classification', 'regression')
    """

    name: str
    function: Callable[..., float]
    reads: str = "features"
    tasks: tuple[str, ...] = ("classification",)
    exact_under_duplication: bool = False
    reference: str = ""
    cost: str = ""
    weakness: str = ""
    shared: Callable[[LabelledFeatures], float] | None = None
    layer_factor: Callable[[int, int], float] | None = None
    task: str = "auto"

    @property
    def takes_task(self) -> bool:
        """Whether the function has a parameter ``task``."""
        try:
            return "task" in inspect.signature(self.function).parameters
        except ValueError:  # of some functions written in C
            return False

    def check_task(self, task: str) -> str:
        """Return the task that the metric measures where others are asked for `task`.

        Raises
        ------
        ValueError
            If the metric does not take such targets.
        """
        task = task if self.task == "auto" else self.task
        if task not in self.tasks:
            able = [name for name, other in METRICS.items() if task in other.tasks]
            refusal = task_refusal(f"The metric {self.name!r}", self.tasks, task)
            raise ValueError(f"{refusal} Metrics that take it: {able}.")
        return task

    def compute(self, given: Any, y: Any, task: str) -> float:
        """Score features or source probabilities against a target of this task."""
        task = self.check_task(task)
        options = {"task": task} if self.takes_task else {}
        return float(self.function(given, y, **options))


_ALL = (
    Metric(
        "logme",
        logme_score,
        tasks=TASKS,
        exact_under_duplication=True,
        reference="You et al., ICML 2021",
        cost="n D² + D³",
        weakness="Sees what a linear head can do, and grows with n at a rate of each "
        "network's own: compare at equal n.",
        shared=logme_of,
    ),
    Metric(
        "h_score",
        h_score,
        exact_under_duplication=True,
        reference="Bao et al., ICIP 2019",
        cost="n D² + D³",
        weakness="Saturates at K - 1 when n < D, whatever the features.",
        shared=h_score_of,
    ),
    Metric(
        "regularized_h_score",
        regularized_h_score,
        reference="Ibrahim et al., ECML PKDD 2022",
        cost="n D² + D³",
        weakness="One shrinkage for all directions: a few strong ones hide weak but "
        "telling ones.",
        shared=regularized_h_score_of,
    ),
    Metric(
        "transrate",
        transrate_score,
        tasks=("classification", "regression"),
        reference="Huang et al., ICML 2022",
        cost="n D² + D³ + n D n/K",
        weakness="Grows with the width of the network, on noise, too.",
        shared=transrate_of,
        layer_factor=layer_factor,
    ),
    Metric(
        "lfc",
        lfc_score,
        tasks=TASKS,
        exact_under_duplication=True,
        reference="Deshpande et al., 2021",
        cost="n D² + D³",
        weakness="Dominated by the mean and the few strongest directions of the "
        "features.",
        shared=lfc_of,
    ),
    Metric(
        "gbc",
        gbc_score,
        exact_under_duplication=True,
        reference="Pándy et al., CVPR 2022",
        cost="n D² + D³ + 64 n D + 64 K²",
        weakness="Looks at 64 principal components only, and at classes as Gaussians; "
        "saturates at 0.",
        shared=gbc_of,
    ),
    Metric(
        "parc",
        parc_score,
        tasks=TASKS,
        exact_under_duplication=True,
        reference="Bolya et al., NeurIPS 2021",
        cost="m² D + m² log m, m = min(n, 2000)",
        weakness="Ties of the labels keep it well below 100, and it subsamples.",
    ),
    Metric(
        "nleep",
        nleep_score,
        exact_under_duplication=True,
        reference="Li et al., CVPR 2021",
        cost="n D² + D³ + iterations · 5 n K D'²",
        weakness="A local optimum of a mixture; near 0 with few samples a component.",
    ),
    Metric(
        "lda",
        lda_score,
        reference="Shao et al., ECCV 2022",
        cost="n D² + D³ + n D K",
        weakness="Judged on its own training samples: near 1 for n near D or below.",
    ),
    Metric(
        "laplace_evidence",
        laplace_evidence_score,
        tasks=TASKS,
        exact_under_duplication=True,
        reference="Immer et al., ICML 2021",
        cost="n D² + D³ + some 15 soft-max fits + (K D)³ or K³",
        weakness="Slow, and a poor approximation once classes separate.",
    ),
    Metric(
        "linear_probe",
        linear_probe_score,
        tasks=TASKS,
        reference="You et al., JMLR 2022",
        cost="8 · folds · soft-max fits",
        weakness="Slow, coarse (steps of 1 / n), and its folds depend on the order.",
    ),
    Metric(
        "knn",
        knn_score,
        tasks=TASKS,
        exact_under_duplication=True,
        reference="Cover and Hart, 1967",
        cost="n² D",
        weakness="Quadratic in n; a feature counts as much as its variance.",
    ),
    Metric(
        "leep",
        leep_score,
        reads="source_proba",
        exact_under_duplication=True,
        reference="Nguyen et al., ICML 2020",
        cost="n S",
        weakness="Needs a source head, and judges it, not the features.",
    ),
    Metric(
        "nce",
        nce_score,
        reads="source_proba",
        exact_under_duplication=True,
        reference="Tran et al., ICCV 2019",
        cost="n S",
        weakness="Needs a source head; throws away all but its first choice.",
    ),
)
METRICS = {metric.name: metric for metric in _ALL}


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
