"""The loop over candidates: evaluation on samples, results, refit."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import replace
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, ClassVar

import joblib
import numpy as np
from sklearn.base import MetaEstimatorMixin, OneToOneFeatureMixin, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import ClassifierTags, RegressorTags, column_or_1d, get_tags
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted, check_memory

from sktransfer.feature_extraction import flatten_tokens
from sktransfer.feature_extraction._extract import gives_tokens
from sktransfer.feature_extraction._tokens import flatten_labels
from sktransfer.metrics import Metric, get_scorer
from sktransfer.metrics._uses import USES, metrics_for
from sktransfer.model_selection._best_model import BestModelMixin
from sktransfer.model_selection._candidate import (
    CandidateResult,
    EvaluationSpec,
    best_result,
)
from sktransfer.model_selection._checks import (
    check_candidates,
    check_groups,
    check_one_label_each,
    check_samples_and_target,
    is_named,
)
from sktransfer.model_selection._evaluate import Evaluate
from sktransfer.model_selection._report import warn_of_failures, warn_of_unknown_order
from sktransfer.model_selection._results import (
    check_columns,
    has_parts,
    no_information,
    probabilities,
    results_table,
)
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._optional import import_optional
from sktransfer.utils._validation import describe_task
from sktransfer.utils._warnings import as_warning, warnings_by_thread


class BaseModelSelector(
    CallbackSupportMixin, BestModelMixin, MetaEstimatorMixin, _BaseComposition
):
    """Base class of selectors: the loop over candidates, without the policy.

    A policy is a subclass that defines ``_run_selection(evaluate)``: it decides which
    candidates are evaluated on which samples. The base class validates, extracts and
    scores in workers, collects failures and warnings, calls callbacks, makes the table
    of results and keeps the best model.

    The contract of a policy:

    1. ``evaluate(names=None, samples=None)`` evaluates candidates by name on samples by
       index, by default all on all. It returns a list of results, one per candidate and
       layer, with ``name``, ``layer``, ``n_samples``, ``errors``, ``value(metric)``
       (NaN if the metric failed) and ``scores``, a dict of
       :class:`~sktransfer.metrics.Score` by metric. ``evaluate.names`` has the
       candidates, ``evaluate.n_samples`` the number of samples, ``evaluate.y`` the
       target and ``evaluate.decides`` the metric that ranks.
    2. It may be called several times, with samples that are nested: those of a smaller
       evaluation are among those of a larger one. Their order does not matter. With
       `memory`, only new samples are extracted.
    3. ``results_`` has one row per candidate and layer: that of the largest evaluation
       that the candidate took part in. Scores on different numbers of samples are not
       comparable, so rows of fewer samples rank below rows of more.
    4. The best model is that of the largest evaluation.

    Parameters
    ----------
    extractors, scoring, refit, task, fit_intercept, n_jobs, memory, error_score, \
verbose
        See :class:`ModelSelector`.

    Attributes
    ----------
    results_, ranking_, best_estimator_, probability_better_, ...
        See :class:`ModelSelector`.

    See Also
    --------
    ModelSelector : The policy that evaluates all candidates on all samples.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.decomposition import PCA
    >>> from sktransfer.model_selection import BaseModelSelector
    >>> class Halving(BaseModelSelector):
    ...     def _run_selection(self, evaluate):
    ...         results = evaluate(samples=range(0, evaluate.n_samples, 2))
    ...         results.sort(key=lambda r: r.value(evaluate.decides), reverse=True)
    ...         evaluate(names=[r.name for r in results[: len(results) // 2]])
    >>> X, y = load_wine(return_X_y=True)
    >>> selector = Halving([(f"pca{i}", PCA(i)) for i in (1, 2, 3, 5)]).fit(X, y)
    >>> selector.ranking_
    ['pca5', 'pca3', 'pca2', 'pca1']
    >>> selector.results_["n_samples"].tolist()
    [89, 89, 178, 178]
    """

    _required_parameters: ClassVar[list[str]] = ["extractors"]

    _parameter_constraints: ClassVar[dict] = {
        "extractors": [list, tuple],
        "scoring": [str, list, tuple, dict, callable, Metric],
        "refit": ["boolean", str],
        "task": [StrOptions({"auto", "classification", "regression", "multilabel"})],
        "fit_intercept": ["boolean", StrOptions({"auto"})],
        "n_jobs": [None, Integral],
        "memory": [None, str, HasMethods(["cache"])],
        "error_score": [StrOptions({"raise"}), Real],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        extractors: list[tuple[str, Any]],
        *,
        scoring: Any = "frozen",
        refit: bool | str = True,
        task: str = "auto",
        fit_intercept: bool | str = "auto",
        n_jobs: int | None = None,
        memory: str | joblib.Memory | None = None,
        error_score: str | float = np.nan,
        verbose: int = 0,
    ):
        self.extractors = extractors
        self.scoring = scoring
        self.refit = refit
        self.task = task
        self.fit_intercept = fit_intercept
        self.n_jobs = n_jobs
        self.memory = memory
        self.error_score = error_score
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of the selector and, if `deep`, of the extractors by name."""
        return self._get_params("extractors", deep=deep)

    def set_params(self, **params: Any) -> BaseModelSelector:
        """Set parameters, those of an extractor as ``<name>__<parameter>``."""
        return self._set_params("extractors", **params)

    @abstractmethod
    def _run_selection(self, evaluate: Evaluate) -> None:
        """Evaluate candidates on samples; this is the policy."""

    def _max_evaluations(self) -> int | None:
        """Total of candidates over all evaluations; None if it is unknown."""
        return None

    # The extractors are cloned and checked candidate by candidate.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, *, groups: Any = None) -> BaseModelSelector:
        """Extract features with the candidates and rank them.

        Parameters
        ----------
        X : raw input of the extractors, of n_samples samples
            Arrays, lists of images, texts or file paths, data sets.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels, numbers, or 0/1 indicators of several labels. For extractors that
            give features of words, a sequence of labels for each sentence.
        groups : array-like of shape (n_samples,), optional
            Samples of one group are not independent of each other, such as the photos
            of one patient. They are left out together, and standard errors count them
            as one. The words of a sentence are a group without being told.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a metric does not take such a target, names are missing or not unique, or
            every candidate fails; the error then lists the reasons. Nothing is left of
            an earlier fit.
        TypeError
            If X is one path or text rather than a collection of samples.
        """
        self._forget()
        try:
            self._fit(X, y, groups)
        except BaseException:
            self._forget()
            raise
        return self

    def _forget(self) -> None:
        """Delete everything that an earlier fit has set."""
        for name in list(vars(self)):
            fitted = name.endswith("_") and not name.startswith("_")
            if fitted or name in ("_results", "_order", "_of_tokens", "_decides"):
                delattr(self, name)

    def _fit(self, X: Any, y: Any, groups: Any) -> None:
        check_candidates(self.extractors)
        self._validate_names([name for name, _ in self.extractors])
        check_samples_and_target(X, y)
        groups = check_groups(groups, X)
        self._of_tokens = any(gives_tokens(e) for _, e in self.extractors)
        labels = y
        if self._of_tokens:
            y = flatten_labels(X, y)
        else:
            check_one_label_each(y)
        scoring = self.scoring
        if isinstance(scoring, str) and scoring in USES:
            scoring = metrics_for(scoring, y, self.task)
        elif isinstance(scoring, str) and (close := get_close_matches(scoring, USES)):
            raise ValueError(
                f"scoring={scoring!r} is neither a use nor a metric. Did you mean "
                f"{close[0]!r}?"
            )
        self.scorer_ = get_scorer(scoring)
        self.task_ = self.scorer_.check_task(y, self.task)
        if self.task_ == "classification" and getattr(y, "ndim", 1) == 2:
            labels = y = column_or_1d(to_numpy(y), warn=True)
        spec = self._check_metrics(self.scorer_.metrics)
        self._decides = spec.decides

        if self.verbose:
            print(describe_task(y, self.task_))
        root = self._init_callback_context(
            max_subtasks=self._max_evaluations()
        ).call_on_fit_task_begin(estimator=self, X=X, y=y)
        evaluate = Evaluate(self, X, labels, groups, spec, root)
        with warnings_by_thread():
            self._run_selection(evaluate)
            results = evaluate.results()
        best = best_result(results, spec.decides)
        # At the caller of fit, which is decorated.
        for text, category in evaluate.warnings:
            warnings.warn(as_warning(text, category), stacklevel=4)
        warn_of_failures(results, best, stacklevel=4)
        self._store_results(results, best)
        if self.task_ == "classification":
            # A policy may have left out the samples of a class.
            model = best.head or best.logme
            self.classes_ = model.classes_ if model else np.unique(to_numpy(y))
        root.call_on_fit_task_end(estimator=self, X=X, y=y)

    def _check_metrics(self, metrics: dict[str, Metric]) -> EvaluationSpec:
        check_columns(metrics)
        if isinstance(self.refit, str) and self.refit not in metrics:
            raise ValueError(
                f"The 'refit' parameter must be a bool or one of {list(metrics)}, the "
                f"metrics of scoring. Got {self.refit!r} instead."
            )
        return EvaluationSpec(
            metrics=metrics,
            task=self.task_,
            fit_logme=bool(self.refit) or "logme" in [m.name for m in metrics.values()],
            fit_head=bool(self.refit),
            fit_intercept=self._has_intercept(),
            error_score=self.error_score,
            decides=self.refit if isinstance(self.refit, str) else next(iter(metrics)),
            memory=check_memory(self.memory),
        )

    def _has_intercept(self) -> bool | None:
        """Whether LogME and the head have an intercept; None for the head alone."""
        if self.fit_intercept == "auto":
            return True if self.task_ == "regression" else None
        return bool(self.fit_intercept)

    def _store_results(
        self, results: list[CandidateResult], best: CandidateResult
    ) -> None:
        metrics = list(self.scorer_.metrics)
        # Copies, because the policy may have kept its own.
        self._results = [replace(r, scores={}, warnings=[]) for r in results]
        self.results_ = results_table(results, metrics, self._decides, self.error_score)
        self._order = np.argsort(self.results_["rank"], kind="stable")
        self.ranking_ = [results[i].label for i in self._order]
        self.best_index_ = results.index(best)
        self.best_name_ = best.label
        self.best_score_ = best.value(self._decides)
        self.no_information_ = no_information(results, best.n_samples)
        paired = [m for m in (self._decides, *metrics) if has_parts(results, m)]
        if paired:
            self.probability_better_by_metric_ = by_metric = {
                metric: probabilities(results, metric)
                for metric in dict.fromkeys(paired)
            }
            self.probability_better_ = P = by_metric[paired[0]]
            warn_of_unknown_order(results, paired[0], P, stacklevel=5)
        for model in (best.head, best.logme):
            if model is not None and model.statistics_ is not None:
                model.compact(keep_std=model is best.head)
        if self.refit:
            self.best_extractor_ = best.extractor
            steps = [("extract", best.extractor), ("logme", best.head)]
            if gives_tokens(best.extractor):
                steps.insert(1, ("flatten", FunctionTransformer(flatten_tokens)))
            self.best_estimator_ = Pipeline(steps)

    def to_frame(self) -> Any:
        """The results as a data frame, best first.

        Returns
        -------
        pandas.DataFrame
            Index: the labels of the rows.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        check_is_fitted(self)
        pandas = import_optional("pandas", extra="plot", needed_by="to_frame")
        frame = pandas.DataFrame(self.results_).iloc[self._order]
        return frame.set_axis(self.ranking_, axis="index")

    def teachers(self, k: int = 3) -> list[tuple[Any, Any]]:
        """The fitted (extractor, LogME) pairs of the `k` best rows.

        Parameters
        ----------
        k : int, default=3
            How many; fewer are returned if fewer have not failed.

        Returns
        -------
        list of (transformer, LogME or LogMEClassifier) tuples
            Best first. Their LogME is the one that was scored, and gives predictive
            means. Networks but the best are loaded again at first use.

        Raises
        ------
        ValueError
            If `k` is not positive, or no LogME was fitted (refit=False, other metrics).
        """
        check_is_fitted(self)
        if not isinstance(k, Integral) or k < 1:
            raise ValueError(f"k must be a positive integer. Got {k!r} instead.")
        return [(result.extractor, result.logme) for result in self._teachers[:k]]

    @property
    def _teachers(self) -> list[CandidateResult]:
        """The results that can teach, best first."""
        ranked = [self._results[i] for i in self._order]
        found = [result for result in ranked if result.logme is not None]
        if not found:
            raise ValueError(
                "No candidate has a fitted LogME: use refit=True, or have 'logme' "
                "among the metrics of scoring."
            )
        return found

    def __sklearn_is_fitted__(self) -> bool:
        return "results_" in vars(self)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        # It may classify, depending on the target, and then has class probabilities.
        tags.classifier_tags = ClassifierTags()
        task = getattr(self, "task_", None) if self.task == "auto" else self.task
        tags.estimator_type = {
            "classification": "classifier",
            "regression": "regressor",
        }.get(task)
        tags.target_tags.multi_output = task in ("regression", "multilabel")
        if task == "regression":
            tags.classifier_tags = None
            tags.regressor_tags = RegressorTags(poor_score=True)  # not R^2
        # Candidates that cannot read such data fail one by one.
        candidates = [pair[1] for pair in self.extractors if is_named(pair)]
        tags.input_tags.sparse = any(get_tags(c).input_tags.sparse for c in candidates)
        # Scalers and selectors hand missing values on, which metrics do not take.
        tags.input_tags.allow_nan = any(
            get_tags(c).input_tags.allow_nan
            for c in candidates
            if not isinstance(c, (OneToOneFeatureMixin, SelectorMixin))
        )
        return tags

    def _sk_visual_block_(self):
        pairs = [pair for pair in self.extractors if is_named(pair)]
        names, extractors = zip(*pairs, strict=True) if pairs else ((), ())
        return _VisualBlock("parallel", extractors, names=names)
