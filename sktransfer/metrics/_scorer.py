"""Metrics as scikit-learn scorers: scorer(estimator, X, y)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sklearn.base import is_classifier, is_regressor

from sktransfer.feature_extraction._extract import (
    all_layers_problem,
    extract,
    gives_tokens,
    layers_under,
    warn_of_one_layer,
    without_predictor,
)
from sktransfer.feature_extraction._tokens import flatten_labels, group_words
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._evaluate import check_task, evaluate
from sktransfer.metrics._metric import READS, Metric
from sktransfer.metrics._registry import METRICS, get_metric
from sktransfer.utils._score import Score
from sktransfer.utils._validation import (
    TASKS,
    check_option,
    check_task_name,
    infer_task,
)


class TransferabilityScorer:
    """Scorer of extracted features; made by :func:`make_transferability_scorer`.

    Parameters
    ----------
    metrics : dict of str to Metric
    single : bool
        Whether a call returns the one score rather than a dict of scores.

    Examples
    --------
    >>> from sktransfer.metrics import get_scorer
    >>> get_scorer(["logme", "h_score"])
    TransferabilityScorer(logme, h_score)
    """

    def __init__(self, metrics: Mapping[str, Metric], *, single: bool):
        self.metrics = dict(metrics)
        self.single = single

    def __call__(self, estimator: Any, X: Any, y: Any) -> float | dict[str, float]:
        """Extract once from `X` and score against `y`.

        Parameters
        ----------
        estimator : transformer, pipeline or predictor
            A final predictor is left out. For a predictor alone, `X` is the features.
        X : raw input of the estimator
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            A sequence of labels for each sentence if the estimator extracts features of
            words.

        Returns
        -------
        float or dict of str to float
        """
        extractor = without_predictor(estimator)
        groups = None
        if gives_tokens(extractor):
            y, groups = flatten_labels(X, y), group_words(X)
        task = self.check_task(y, estimator=estimator)
        reads_layers = self.reads("layers")
        problem = all_layers_problem(extractor)
        extraction = extract(
            extractor,
            X,
            source_proba=self.reads("source_proba"),
            all_layers=reads_layers and problem is None,
        )
        layers = layers_under(extraction) if reads_layers else None
        warn_of_one_layer(layers, problem)
        data = LabelledData(
            extraction.joined,
            y,
            source_proba=extraction.source_proba,
            layers=layers,
            task=task,
            groups=groups,
        )
        scores = evaluate(self.metrics, data)
        values = {name: float(score.value) for name, score in scores.items()}
        return next(iter(values.values())) if self.single else values

    def check_task(self, y: Any, task: str = "auto", estimator: Any = None) -> str:
        """Infer the task from `y`, and check that all metrics take it.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        task : {"auto", "classification", "regression", "multilabel"}, default="auto"
            By default the task set for the metrics, or inferred from `y`.
        estimator : estimator, optional
            If its final step is a regressor or classifier, that decides how to read
            whole numbers in `y`.

        Returns
        -------
        {"classification", "regression", "multilabel"}

        Raises
        ------
        ValueError
            If a metric does not take the task.
        """
        told = [metric.task for metric in self.metrics.values()]
        if task == "auto" and "auto" not in told:
            task = told[0]
        expected = None
        if hasattr(estimator, "predict"):
            if is_regressor(estimator):
                expected = "regression"
            elif is_classifier(estimator):
                expected = "classification"
        task = infer_task(y, task, expected=expected)
        check_task(self.metrics, task)
        return task

    def reads(self, what: str) -> bool:
        """Whether some metric reads "features", "source_proba" or "layers"."""
        return any(metric.reads == what for metric in self.metrics.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.metrics)})"


def make_transferability_scorer(
    score_func: Callable | str | Iterable[str] | Mapping[str, Callable | str],
    *,
    reads: str = "features",
    **kwargs: Any,
) -> TransferabilityScorer:
    """Make a scikit-learn scorer from one or several score functions.

    Parameters
    ----------
    score_func : callable, str, list of str, or dict of str to callable or str
        ``function(X, y) -> float``, larger is better, a :class:`Metric`, or the name of
        one. Several make one scorer that extracts once and returns a dict of scores, as
        `cross_validate` and `GridSearchCV` accept for ``scoring``.
    reads : {"features", "source_proba", "layers"}, default="features"
        What functions that are not registered metrics read; see :class:`Metric`.
    **kwargs : dict
        Passed to the score function, if there is only one. ``task`` sets how the metric
        reads the target.

    Returns
    -------
    TransferabilityScorer
        ``scorer(estimator, X, y)`` passes `X` through a transformer, or through all
        steps of a pipeline except a final predictor, and scores the result. A final
        regressor or classifier decides whether whole numbers in `y` are numbers or
        labels; otherwise floats are numbers and integers are labels.

    Raises
    ------
    ValueError
        If a name is not a metric, or `kwargs` are given for several functions. When the
        scorer is called: if a metric does not take the target.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sktransfer.metrics import make_transferability_scorer, transrate_score
    >>> X, y = load_iris(return_X_y=True)
    >>> scorer = make_transferability_scorer(transrate_score, variant="icml")
    >>> round(scorer(PCA(2).fit(X), X, y), 2)
    0.25
    """
    return _make_scorer(score_func, reads, kwargs, "score_func")


def _make_scorer(
    score_func: Any, reads: str, kwargs: dict, parameter: str
) -> TransferabilityScorer:
    """Make a scorer; `parameter` is what the caller calls the functions."""
    check_option("reads", reads, READS)
    if isinstance(score_func, str) or callable(score_func):
        metric = _as_metric(score_func, reads, kwargs)
        return TransferabilityScorer({metric.name: metric}, single=True)
    if kwargs:
        raise ValueError(
            f"Keyword arguments {sorted(kwargs)} need a single score function; for "
            "several, use functools.partial."
        )
    if isinstance(score_func, Mapping):
        given = list(score_func.items())
    else:
        given = [(m.name if isinstance(m, Metric) else m, m) for m in score_func]
        for name, _ in given:
            if not isinstance(name, str):
                raise ValueError(
                    f"A list in '{parameter}' takes metrics and their names only, but "
                    f"contains {name!r}. To score with functions, pass a dict of names "
                    "to functions."
                )
    metrics: dict[str, Metric] = {}
    for name, function in given:
        metric = _as_metric(function, reads, {})
        if metrics.setdefault(name, metric) != metric:
            raise ValueError(
                f"'{parameter}' contains two different metrics called {name!r}: pass a "
                "dict of names to metrics."
            )
    if not metrics:
        raise ValueError(f"'{parameter}' must name at least one metric; it is empty.")
    return TransferabilityScorer(metrics, single=False)


def _as_metric(function: Any, reads: str, kwargs: dict) -> Metric:
    if isinstance(function, Metric):
        known = function
    elif isinstance(function, str):
        known = get_metric(function)
    elif isinstance(function, TransferabilityScorer) and function.single:
        (known,) = function.metrics.values()
    elif callable(function):
        # A function of the registry keeps what is known about it.
        known = next((m for m in METRICS.values() if m.score_func is function), None)
    else:
        raise ValueError(
            f"A score function must be callable or a metric's name. Got {function!r}."
        )
    if known is None:
        name = getattr(function, "__name__", type(function).__name__)
        # A user's own function checks its targets itself.
        known = Metric(name, partial(_call, function, reads), function, reads, TASKS)
        if isinstance(function, partial) and "task" in function.keywords:
            known = replace(known, task=check_task_name(function.keywords["task"]))
    if not kwargs:
        return known
    task = check_task_name(kwargs.get("task", known.task))
    options = {key: value for key, value in kwargs.items() if key != "task"}
    try:
        inspect.signature(known.function).bind(None, **options)
    except TypeError as error:
        raise TypeError(f"{known.name}: {error}.") from None
    function = partial(known.function, **options) if options else known.function
    return replace(known, function=function, score_func=None, task=task)


def _call(
    function: Callable[..., float], reads: str, data: LabelledData, **options: Any
) -> Score:
    """Score by a function of arrays, which gets the task if it has a parameter."""
    try:
        if "task" in inspect.signature(function).parameters:
            options["task"] = data.task
    except ValueError:  # of some functions written in C
        pass
    return Score(float(function(getattr(data, reads), data.y, **options)))


def get_scorer(
    scoring: str | Iterable[str] | TransferabilityScorer,
) -> TransferabilityScorer:
    """Return the scorer of a metric, or one scorer of several metrics.

    Parameters
    ----------
    scoring : str, list of str or scorer
        Names from :func:`get_scorer_names`.

    Returns
    -------
    TransferabilityScorer
        ``scorer(estimator, X, y)``. It scores the data passed to it: in
        `cross_val_score` those are the test folds.

    Raises
    ------
    ValueError
        If a name is not a metric.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktransfer.linear_model import LogMEClassifier
    >>> from sktransfer.metrics import get_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> pipeline = make_pipeline(StandardScaler(), LogMEClassifier())
    >>> cross_val_score(pipeline, X, y, scoring=get_scorer("h_score"), cv=3).shape
    (3,)
    """
    if isinstance(scoring, TransferabilityScorer):
        return scoring
    return _make_scorer(scoring, "features", {}, "scoring")
