"""What a metric is: a function of labelled data, and what is known about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sktransfer.metrics._data import LabelledData
from sktransfer.utils._array_api import get_namespace
from sktransfer.utils._score import Score
from sktransfer.utils._validation import TASKS, check_task_name, infer_task

READS = ("features", "source_proba", "layers")


@dataclass(frozen=True)
class Metric:
    """A function of :class:`LabelledData` that gives a :class:`Score`.

    A new metric needs a name and a function; `scoring` of a
    :class:`~sktransfer.model_selection.ModelSelector` and
    :func:`make_transferability_scorer` take it as it is.

    Attributes
    ----------
    name : str
    function : callable
        ``function(data) -> Score``, larger is better. Further arguments are options.
    score_func : callable, optional
        The public score function, ``score_func(X, y) -> float``.
    reads : {"features", "source_proba", "layers"}
        What the pre-trained model has to provide. Layers are a dict of the features of
        every layer, by name, in the order of depth, the last of them those that are
        scored; of a model that shows one layer only, that one.
    tasks : tuple of str
        Some of "classification", "regression" and "multilabel".
    takes_weights : bool
        Whether the metric uses sample weights.
    exact_under_duplication : bool
        Whether the score stays the same when features are duplicated.
    reference : str
    cost : str
        Leading terms for n samples, D features, K classes and S source classes.
    weakness : str
        What to know before relying on it.
    layer_factor : callable, optional
        ``layer_factor(n_features, n_features_last) -> float`` makes the scores of the
        layers of one network comparable if their width alone changes them.
    task : {"auto", "classification", "regression", "multilabel"}
        How this metric reads the target; "auto" leaves that to the caller.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import Metric, Score
    >>> def nearest_mean(data):
    ...     means = data.statistics.cross.T / data.counts[:, None]
    ...     distances = ((data.features[:, None] - means) ** 2).sum(axis=2)
    ...     return Score.of_parts(distances.argmin(axis=1) == data.codes)
    >>> metric = Metric("nearest_mean", nearest_mean)
    >>> round(metric(*load_iris(return_X_y=True)), 2)
    0.93
    """

    name: str
    function: Callable[..., Score]
    score_func: Callable[..., float] | None = None
    reads: str = "features"
    tasks: tuple[str, ...] = ("classification",)
    takes_weights: bool = False
    exact_under_duplication: bool = False
    reference: str = ""
    cost: str = ""
    weakness: str = ""
    layer_factor: Callable[[int, int], float] | None = None
    task: str = "auto"

    def __post_init__(self):
        tasks = self.tasks
        if isinstance(tasks, str) or not tasks or not set(tasks) <= set(TASKS):
            raise ValueError(f"tasks must hold some of {TASKS}; got {tasks!r}.")
        if self.reads not in READS:
            raise ValueError(f"reads must be one of {READS}; got {self.reads!r}.")
        check_task_name(self.task)

    def check_task(self, task: str) -> str:
        """Return the task that the metric measures where others are asked for `task`.

        Raises
        ------
        ValueError
            If the metric does not take such targets.
        """
        task = task if self.task == "auto" else self.task
        if task not in self.tasks:
            raise ValueError(
                f"{self.name} takes {' and '.join(self.tasks)} targets, but this is a "
                f"{task} target. If y is read wrongly, say how to read it by task=."
            )
        return task

    def score(self, data: LabelledData, **options: Any) -> Score:
        """Score labelled data.

        Parameters
        ----------
        data : LabelledData
        **options : dict
            Those of `function`.

        Returns
        -------
        Score

        Raises
        ------
        ValueError
            If the metric does not take such a target, or the data do not have what it
            reads, or the score is NaN or has not one part per sample.
        """
        data = data.read_as(self.check_task(data.task))
        if not getattr(data, f"has_{self.reads}"):
            what = self.reads.replace("_proba", " probabilities")
            raise ValueError(f"{self.name} reads {what}; there are none.")
        if data.sample_weight is not None and not self.takes_weights:
            raise ValueError(f"{self.name} takes no sample weights.")
        score = self.function(data, **options)
        if not isinstance(score, Score):
            raise TypeError(
                f"The function of {self.name} must return a Score, such as "
                f"Score(value); got {type(score).__name__}."
            )
        if np.isnan(score.value):
            raise ValueError(
                "the score is NaN. If the features are of extreme size, divide them by "
                "their largest absolute value."
            )
        if score.parts is not None and np.shape(score.parts) != (data.n_samples,):
            raise ValueError(
                f"{self.name} gave parts of shape {np.shape(score.parts)}; there must "
                f"be one for each of {data.n_samples} samples."
            )
        return score._replace(
            resolution=max(score.resolution, data.resolution),
            # Those of a metric that draws samples are 0 for the others.
            weights=data.host_weights if score.weights is None else score.weights,
            groups=data.groups,
        )

    def __call__(
        self,
        X: Any,
        y: Any,
        task: str = "auto",
        *,
        groups: Any = None,
        sample_weight: Any = None,
        **options: Any,
    ) -> float:
        """Score arrays of one library: the body of every public score function.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, \
n_source_classes), or dict of str to array-like of shape (n_samples, n_features)
            What the metric reads.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        groups, sample_weight : array-like of shape (n_samples,), optional
        **options : dict
            Those of `function`.

        Returns
        -------
        float
        """
        arrays = {"X": X}
        if isinstance(X, Mapping):
            arrays = {f"layers[{name!r}]": array for name, array in X.items()}
        get_namespace(**arrays, y=y)
        # A metric of classes alone, or of numbers alone, says what whole numbers are.
        kinds = {"classification", "regression"}.intersection(self.tasks)
        expected = kinds.pop() if len(kinds) == 1 else None
        task = self.check_task(infer_task(y, task, expected=expected))
        given = {"task": task, "groups": groups, "sample_weight": sample_weight}
        data = LabelledData(**{"features": None, self.reads: X}, y=y, **given)
        return float(self.score(data, **options).value)
