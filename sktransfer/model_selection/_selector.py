"""The meta-estimator that ranks pre-trained models on labelled data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
from sklearn.utils.parallel import delayed
from sklearn.utils.validation import (
    _num_samples,
    check_is_fitted,
    check_memory,
)

from sktransfer.feature_extraction._extract import gives_tokens
from sktransfer.feature_extraction._tokens import (
    flatten_labels,
    flatten_tokens,
)
from sktransfer.metrics import get_scorer
from sktransfer.model_selection._best_model import BestModelMixin
from sktransfer.model_selection._cache import digest_data
from sktransfer.model_selection._candidate import (
    Measurement,
    Row,
    better,
    evaluate_candidate,
    is_logme,
    not_run,
)
from sktransfer.model_selection._checks import (
    check_candidates,
    check_one_label_each,
    check_samples_and_target,
    is_named,
)
from sktransfer.model_selection._jobs import run_jobs
from sktransfer.model_selection._report import (
    give_warnings,
    print_rows,
    warn_of_failures,
    warn_of_unknown_order,
)
from sktransfer.model_selection._results import (
    check_columns,
    probability_better,
    results_table,
)
from sktransfer.model_selection._warnings import warnings_by_thread
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._optional import import_optional
from sktransfer.utils._validation import describe_task


class ModelSelector(
    CallbackSupportMixin, BestModelMixin, MetaEstimatorMixin, _BaseComposition
):
    r"""Rank pre-trained models by how well they will transfer to labelled data.

    Every extractor turns the data into features once; metrics score the features
    against the target; the best, with a LogME head, is ready to predict.

    Parameters
    ----------
    extractors : list of (str, transformer) tuples
        Candidates by name: extractors, any scikit-learn transformers, or pipelines of
        them. An extractor with several layers is run once and gives a row for each.
    scoring : str, list of str, scorer or dict, default="logme"
        Metrics, by name (see :func:`~sktransfer.metrics.get_scorer_names`) or as
        :func:`~sktransfer.metrics.make_transferability_scorer` takes them.
    refit : bool or str, default=True
        Whether to keep the best model; with several metrics the name of the one that
        decides, True being the first.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read the target, for every metric; ``"auto"`` takes columns of 0 and 1
        for several labels, integers and text for classes, and floats, even whole ones,
        for numbers.
    n_jobs : int, default=None
        Candidates at work at the same time; see joblib's `parallel_config` for
        backends, other machines among them.
    memory : str or joblib.Memory, default=None
        Where to keep extracted features: a later run, or the same run after it was
        killed, extracts only what is missing.
    error_score : "raise" or number, default=np.nan
        The score of a candidate that fails, whose row tells the reason; ``"raise"``
        stops at the first failure.
    verbose : int, default=0
        Above 0, the task and a line for each candidate are printed. For a progress bar
        use ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    results_ : dict of str to ndarray
        One entry a row (candidate, or layer of one): ``name``, ``layer``, a column for
        each metric, ``logme_std_error`` (nats), ``rank`` (from 1, by the metric that
        decides), ``rank_<metric>`` if there are several, ``n_features``,
        ``extract_time`` and ``score_time`` (seconds), ``error`` (empty if there was
        none).
    ranking_ : list of str
        Labels of the rows (``name`` or ``name/layer``) from best to worst; failed ones
        last.
    best_index_ : int
        Row of the best.
    best_name_ : str
    best_score_ : float
    best_extractor_ : transformer
        Fitted. With `refit` only, like `best_estimator_`.
    best_estimator_ : Pipeline
        ``Pipeline([("extract", best_extractor_), ("logme", LogME…)])``, fitted. Between
        the two, for features of words, a step that puts all words below each other.
    probability_better_ : ndarray of shape (n_rows, n_rows)
        Probability that row i has the larger LogME than row j on this many samples;
        for more samples the order may change. With LogME among the metrics only. NaN
        where it is unknown: of rows that failed or have no standard error.
    task_ : str
    scorer_ : TransferabilityScorer
    classes_ : ndarray of shape (n_classes,)
        For classification.
    n_features_in_ : int
        If the best extractor has it.

    See Also
    --------
    WholeDataset : For the same ranking by `GridSearchCV`.
    sktransfer.datasets.load_zoo : Small pre-trained networks to try it with.

    Notes
    -----
    `score` is the LogME of the best model's features on other data.

    Where an extractor gives several layers, the TransRate of each is multiplied by
    :func:`~sktransfer.metrics.layer_factor` (against the last of them), so that a layer
    does not win by its width.

    Only the best network so far stays in memory, on the device where it ran. Others are
    loaded again when one of the :meth:`teachers` is used, and so is the best after a
    run in worker processes, from `memory` or from a pickle. What is loaded must be what
    was scored: a factory that gives other weights at every call is refused then.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktransfer.model_selection import ModelSelector
    >>> X, y = load_wine(return_X_y=True)
    >>> selector = ModelSelector([("pca", PCA(2)), ("scaled", StandardScaler())])
    >>> selector.fit(X, y).ranking_
    ['scaled', 'pca']
    >>> print(f"{selector.best_score_:.3f}")
    -0.538
    >>> print(f"{selector.probability_better_[1, 0]:.3f}")
    1.000
    """

    _required_parameters: ClassVar[list[str]] = ["extractors"]

    _parameter_constraints: ClassVar[dict] = {
        "extractors": [list, tuple],
        "scoring": [str, list, tuple, dict, callable],
        "refit": ["boolean", str],
        "task": [StrOptions({"auto", "classification", "regression", "multilabel"})],
        "n_jobs": [None, Integral],
        "memory": [None, str, HasMethods(["cache"])],
        "error_score": [StrOptions({"raise"}), Real],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        extractors: list[tuple[str, Any]],
        *,
        scoring: Any = "logme",
        refit: bool | str = True,
        task: str = "auto",
        n_jobs: int | None = None,
        memory: str | joblib.Memory | None = None,
        error_score: str | float = np.nan,
        verbose: int = 0,
    ):
        self.extractors = extractors
        self.scoring = scoring
        self.refit = refit
        self.task = task
        self.n_jobs = n_jobs
        self.memory = memory
        self.error_score = error_score
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of the selector and, if `deep`, of the extractors by their names.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict
        """
        return self._get_params("extractors", deep=deep)

    def set_params(self, **params: Any) -> ModelSelector:
        """Set parameters, those of an extractor as ``<name>__<parameter>``.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self
        """
        return self._set_params("extractors", **params)

    # The extractors are cloned and checked candidate by candidate.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any) -> ModelSelector:
        """Extract features with every candidate and rank them.

        Parameters
        ----------
        X : raw input of the extractors, of n_samples samples
            Arrays, lists of images, texts or file paths, data sets.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels, numbers, or 0/1 indicators of several labels. For extractors that
            give features of words, a sequence of labels for each sentence.

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
        with self._all_or_nothing():
            self._fit(X, y)
        return self

    def _fit(self, X: Any, y: Any) -> None:
        check_candidates(self.extractors)
        self._validate_names([name for name, _ in self.extractors])
        check_samples_and_target(X, y)
        self._of_tokens = any(gives_tokens(e) for _, e in self.extractors)
        if self._of_tokens:
            y = flatten_labels(X, y)
        else:
            check_one_label_each(y)
        self.scorer_ = get_scorer(self.scoring)
        self.task_ = self.scorer_.check_task(y, self.task)
        if self.task_ == "classification" and getattr(y, "ndim", 1) == 2:
            y = column_or_1d(to_numpy(y), warn=True)
        refit_metric = self._check_metrics()
        measurement = Measurement(
            metrics=self.scorer_.metrics,
            task=self.task_,
            n_samples=_num_samples(y),
            fit_logme=bool(self.refit) or self._ranks_by_logme(),
            error_score=self.error_score,
            decides=refit_metric,
        )

        if self.verbose:
            print(describe_task(y, self.task_))
        root = self._init_callback_context(
            max_subtasks=len(self.extractors)
        ).call_on_fit_task_begin(estimator=self, X=X, y=y)
        rows: list[Row] = []
        with warnings_by_thread():
            for batch in self._evaluate(X, y, measurement, root):
                rows += batch
                if self.verbose:
                    print_rows(batch)

        best = better(rows, refit_metric, None)
        # To whoever called fit, which is decorated.
        give_warnings(rows, stacklevel=4)
        warn_of_failures(rows, best, stacklevel=4)
        self._store_results(rows, best, refit_metric)
        if self.task_ == "classification":
            self.classes_ = np.unique(to_numpy(y))
        root.call_on_fit_task_end(estimator=self, X=X, y=y)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Forget any earlier fit, and this one as well if it fails."""
        self._forget()
        try:
            yield
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        for name in list(vars(self)):
            fitted = name.endswith("_") and not name.startswith("_")
            if fitted or name in ("_rows", "_order", "_of_tokens"):
                delattr(self, name)

    def _check_metrics(self) -> str:
        metrics = self.scorer_.metrics
        check_columns(metrics)
        if isinstance(self.refit, str) and self.refit not in metrics:
            raise ValueError(
                f"The 'refit' parameter must be a bool or one of {list(metrics)}, the "
                f"metrics of scoring. Got {self.refit!r} instead."
            )
        return self.refit if isinstance(self.refit, str) else next(iter(metrics))

    def _ranks_by_logme(self) -> bool:
        return any(map(is_logme, self.scorer_.metrics.values()))

    def _evaluate(
        self, X: Any, y: Any, measurement: Measurement, root: Any
    ) -> Iterator[list[Row]]:
        """Rows of each extractor, in order, as they become ready."""
        memory = check_memory(self.memory)
        digests = digest_data(X, y, memory)
        contexts = [root.subcontext(task_name=name) for name, _ in self.extractors]
        begun: set[str] = set()
        best: Row | None = None

        def best_score() -> float | None:
            return None if best is None else best.scores[measurement.decides]

        def job(name: str, extractor: Any, context: Any) -> tuple:
            if name not in begun:
                begun.add(name)
                context.call_on_fit_task_begin(estimator=self, X=X, y=y)
            return delayed(evaluate_candidate)(
                name, extractor, X, y, measurement, memory, digests, best_score()
            )

        def substitute(i: int, error: Exception) -> list[Row]:
            return [not_run(self.extractors[i][0], error)]

        jobs = [
            partial(job, name, extractor, context)
            for (name, extractor), context in zip(
                self.extractors, contexts, strict=True
            )
        ]
        raises = measurement.error_score == "raise"
        batches = run_jobs(jobs, self.n_jobs, None if raises else substitute)
        for rows, context in zip(batches, contexts, strict=True):
            context.call_on_fit_task_end(estimator=self, X=X, y=y)
            leader = better(rows, measurement.decides, best_score())
            for row in rows if leader is None else [*rows, best]:
                if row is not leader and row is not None:
                    row.lighten()
            best = leader or best
            yield rows

    def _store_results(self, rows: list[Row], best: Row, refit_metric: str) -> None:
        self._rows = rows
        self.results_ = results_table(
            rows, self.scorer_.metrics, refit_metric, self.error_score
        )
        self._order = np.argsort(self.results_["rank"], kind="stable")
        self.ranking_ = [rows[i].label for i in self._order]
        self.best_index_ = rows.index(best)
        self.best_name_ = best.label
        self.best_score_ = best.scores[refit_metric]
        if self._ranks_by_logme():
            self.probability_better_ = probability_better(rows)
            warn_of_unknown_order(rows, self.probability_better_, stacklevel=5)
        if self.refit:
            self.best_extractor_ = best.extractor
            steps = [("extract", best.extractor), ("logme", best.logme)]
            if gives_tokens(best.extractor):
                steps.insert(1, ("flatten", FunctionTransformer(flatten_tokens)))
            self.best_estimator_ = Pipeline(steps)
        for row in rows:
            row.influence = None

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
            Best first. Their LogME gives predictive means, that of the best also
            standard deviations. Networks but the best are loaded again at first use.

        Raises
        ------
        ValueError
            If `k` is not positive, or no LogME was fitted (refit=False, other metrics).
        """
        check_is_fitted(self)
        if not isinstance(k, Integral) or k < 1:
            raise ValueError(f"k must be a positive integer. Got {k!r} instead.")
        ranked = [self._rows[i] for i in self._order]
        pairs = [(row.extractor, row.logme) for row in ranked if row.logme is not None]
        if not pairs:
            raise ValueError(
                "No candidate has a fitted LogME: use refit=True, or have 'logme' "
                "among the metrics of scoring."
            )
        return pairs[:k]

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
