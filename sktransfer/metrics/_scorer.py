"""Metrics as scikit-learn scorers: scorer(estimator, X, y)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sklearn.base import is_classifier, is_regressor

from sktransfer.feature_extraction import Extraction
from sktransfer.feature_extraction._extract import (
    extract,
    gives_tokens,
    without_predictor,
)
from sktransfer.feature_extraction._tokens import flatten_labels
from sktransfer.linear_model import SufficientStatistics
from sktransfer.metrics._registry import METRICS, Metric, get_metric
from sktransfer.metrics._shared import LabelledFeatures
from sktransfer.utils._array_api import beside
from sktransfer.utils._validation import TASKS, check_task_name, infer_task


class TransferabilityScorer:
    """Measure what an estimator extracts; made by :func:`make_transferability_scorer`.

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
            A final predictor is left out; a predictor alone is measured on `X` itself.
        X : raw input of the estimator
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            A sequence of labels for each sentence, where the estimator gives features
            of its words.

        Returns
        -------
        float or dict of str to float
        """
        extractor = without_predictor(estimator)
        if gives_tokens(extractor):
            y = flatten_labels(X, y)
        task = self.check_task(y, estimator=estimator)
        extraction = extract(extractor, X, source_proba=self.reads("source_proba"))
        data = share(self.metrics.values(), extraction.joined, y, task)
        scores = {
            name: measure(metric, extraction, y, task, data)
            for name, metric in self.metrics.items()
        }
        return next(iter(scores.values())) if self.single else scores

    def check_task(self, y: Any, task: str = "auto", estimator: Any = None) -> str:
        """Name the task that `y` poses, if all metrics take it.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        task : {"auto", "classification", "regression", "multilabel"}, default="auto"
            By default what the metrics were told, or what `y` looks like.
        estimator : estimator, optional
            Whose final predictor, if any, tells what whole numbers in `y` are.

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
        for metric in self.metrics.values():
            metric.check_task(task)
        return task

    def reads(self, what: str) -> bool:
        """Whether some metric reads "features" or "source_proba"."""
        return any(metric.reads == what for metric in self.metrics.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.metrics)})"


def share(
    metrics: Iterable[Metric],
    features: Any,
    y: Any,
    task: str,
    statistics: SufficientStatistics | None = None,
) -> LabelledFeatures | None:
    """What metrics of the same features and labels compute once, if they can.

    Parameters
    ----------
    metrics : iterable of Metric
    features : array of shape (n_samples, n_features)
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
    task : {"classification", "regression", "multilabel"}
    statistics : SufficientStatistics, optional
        Of features and labels, where somebody has them already.

    Returns
    -------
    LabelledFeatures or None
        None where no metric shares, or the target is not one of class labels.
    """
    if task != "classification" or not any(metric.shared for metric in metrics):
        return None
    return LabelledFeatures(features, beside(y, features), statistics)


def measure(
    metric: Metric,
    extraction: Extraction,
    y: Any,
    task: str,
    data: LabelledFeatures | None = None,
) -> float:
    """Score an extraction whose layers, if several, count as one feature matrix.

    Parameters
    ----------
    metric : Metric
    extraction : Extraction
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Of any array library: it is brought to where the extraction lives.
    task : {"classification", "regression", "multilabel"}
    data : LabelledFeatures, optional
        Of the same features and labels, for the metrics that share.

    Returns
    -------
    float
    """
    if data is not None and metric.shared is not None:
        return float(metric.shared(data))
    source = metric.reads == "source_proba"
    given = extraction.source_proba if source else extraction.joined
    return metric.compute(given, beside(y, given), task)


def make_transferability_scorer(
    score_func: Callable | str | Iterable[str] | Mapping[str, Callable | str],
    *,
    reads: str = "features",
    **kwargs: Any,
) -> TransferabilityScorer:
    """Make a scikit-learn scorer out of one or several score functions.

    Parameters
    ----------
    score_func : callable, str, list of str, or dict of str to callable or str
        ``function(X, y) -> float``, larger is better, or the name of a metric. Several
        make one scorer that extracts once and returns a dict of scores, which
        `cross_validate` and `GridSearchCV` take as ``scoring``.
    reads : {"features", "source_proba"}, default="features"
        What functions that are not in the registry read.
    **kwargs : dict
        Passed on to the score function (one only). ``task=`` says how any metric is to
        read the target.

    Returns
    -------
    TransferabilityScorer
        ``scorer(estimator, X, y)``: sends `X` through all steps of a pipeline but a
        final predictor, or through a transformer, and measures what comes out. A final
        regressor or classifier tells whether whole numbers in `y` are numbers or
        labels; otherwise floats are numbers and integers are labels.

    Raises
    ------
    ValueError
        If a name is no metric, or `kwargs` are given for several functions; when the
        scorer is called, if a metric does not take the target.

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
    if reads not in ("features", "source_proba"):
        raise ValueError(
            "The 'reads' parameter must be one of ['features', 'source_proba']. "
            f"Got {reads!r} instead."
        )
    if isinstance(score_func, str) or callable(score_func):
        metric = _as_metric(score_func, reads, kwargs)
        return TransferabilityScorer({metric.name: metric}, single=True)
    if kwargs:
        raise ValueError(
            f"Keyword arguments {sorted(kwargs)} go with one score function only; use "
            "functools.partial for several."
        )
    if not isinstance(score_func, Mapping):
        names = list(score_func)
        for name in names:
            if not isinstance(name, str):
                raise ValueError(
                    f"A list of metrics in '{parameter}' takes their names only, but "
                    f"has {name!r}. To score with functions, give a dict of names to "
                    "functions or names of metrics."
                )
        score_func = dict(zip(names, names, strict=True))
    metrics = {k: _as_metric(v, reads, {}) for k, v in score_func.items()}
    if not metrics:
        raise ValueError(f"'{parameter}' must name at least one metric; it is empty.")
    return TransferabilityScorer(metrics, single=False)


def _as_metric(function: Any, reads: str, kwargs: dict) -> Metric:
    if isinstance(function, str):
        known = get_metric(function)
    elif isinstance(function, TransferabilityScorer) and function.single:
        (known,) = function.metrics.values()
    elif callable(function):
        # A function of the registry keeps what is known about it.
        known = next((m for m in METRICS.values() if m.function is function), None)
    else:
        raise ValueError(
            f"A score function must be callable or a metric's name. Got {function!r}."
        )
    if known is None:
        name = getattr(function, "__name__", type(function).__name__)
        # What it can take, a function of the user's own has to know itself.
        known = Metric(name, function, reads, TASKS)
        if isinstance(function, partial) and "task" in function.keywords:
            known = replace(known, task=check_task_name(function.keywords["task"]))
    if not kwargs:
        return known
    task = check_task_name(kwargs.get("task", known.task))
    options = {key: value for key, value in kwargs.items() if key != "task"}
    function = partial(known.function, **options) if options else known.function
    # Other parameters, other statistics: nothing to share.
    return replace(known, function=function, task=task, shared=None)


def get_scorer(
    scoring: str | Iterable[str] | TransferabilityScorer,
) -> TransferabilityScorer:
    """Return the scorer of a metric, or one scorer of several metrics.

    Parameters
    ----------
    scoring : str, list of str or scorer
        Names out of :func:`get_scorer_names`.

    Returns
    -------
    TransferabilityScorer
        ``scorer(estimator, X, y)``. It measures the data handed to it: in
        `cross_val_score` that is each test fold.

    Raises
    ------
    ValueError
        If a name is no metric.

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
