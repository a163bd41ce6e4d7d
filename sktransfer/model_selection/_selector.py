"""The meta-estimator that ranks pre-trained models on labelled data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

import joblib
import numpy as np
from sklearn.base import MetaEstimatorMixin, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import ClassifierTags, get_tags
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import (
    _num_samples,
    check_consistent_length,
    check_is_fitted,
    check_memory,
)

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.feature_extraction._extract import gives_tokens
from sktransfer.feature_extraction._fingerprint import digest, digest_samples
from sktransfer.feature_extraction._tokens import (
    flatten_labels,
    flatten_tokens,
)
from sktransfer.metrics import get_scorer
from sktransfer.model_selection._best_model import BestModelMixin
from sktransfer.model_selection._candidate import (
    Measurement,
    Row,
    evaluate_candidate,
    is_logme,
)
from sktransfer.model_selection._results import (
    check_columns,
    failure_summary,
    probability_better,
    results_table,
)
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
        for more samples the order may change. With LogME among the metrics only.
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
            If a metric does not take such a target, names are not unique, or every
            candidate fails; the error then lists the reasons.
        """
        if y is None:
            raise ValueError(
                "ModelSelector requires y to be passed, but the target y is None."
            )
        check_consistent_length(X, y)
        self._check_extractors()
        self._of_tokens = any(gives_tokens(e) for _, e in self.extractors)
        if self._of_tokens:
            y = flatten_labels(X, y)
        self.scorer_ = get_scorer(self.scoring)
        self.task_ = self.scorer_.check_task(y, self.task)
        refit_metric = self._check_metrics()
        measurement = Measurement(
            metrics=self.scorer_.metrics,
            task=self.task_,
            n_samples=_num_samples(y),
            fit_logme=bool(self.refit) or self._ranks_by_logme(),
            error_score=self.error_score,
        )

        if self.verbose:
            print(describe_task(y, self.task_))
        root = self._init_callback_context(
            max_subtasks=len(self.extractors)
        ).call_on_fit_task_begin(estimator=self, X=X, y=y)
        rows: list[Row] = []
        best = None
        for batch in self._evaluate(X, y, measurement, root):
            for row in batch:
                rows.append(row)
                # Only the best keeps what predictive variances need: it is as large
                # as a Gram matrix.
                best, dethroned = _better(best, row, refit_metric)
                if dethroned is not None and dethroned.logme is not None:
                    dethroned.logme._keep_means_only()
            if self.verbose:
                self._report(batch)

        self._warn_of_failures(rows, best)
        self._keep(rows, best, refit_metric)
        if self.task_ == "classification":
            self.classes_ = np.unique(to_numpy(y))
        root.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _check_extractors(self) -> None:
        if not self.extractors:
            raise ValueError("extractors must hold at least one (name, transformer).")
        names, _ = zip(*self.extractors, strict=True)
        self._validate_names(names)

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
        digests = () if memory.location is None else (digest_samples(X), digest(y))
        contexts = [root.subcontext(task_name=name) for name, _ in self.extractors]

        def tasks():
            for (name, extractor), context in zip(
                self.extractors, contexts, strict=True
            ):
                context.call_on_fit_task_begin(estimator=self, X=X, y=y)
                yield delayed(evaluate_candidate)(
                    name, extractor, X, y, measurement, memory, digests
                )

        parallel = Parallel(n_jobs=self.n_jobs, return_as="generator")
        for rows, context in zip(parallel(tasks()), contexts, strict=True):
            context.call_on_fit_task_end(estimator=self, X=X, y=y)
            yield rows

    def _report(self, rows: list[Row]) -> None:
        for row in rows:
            scores = ", ".join(f"{k} {v:.4g}" for k, v in row.scores.items())
            scores = scores or "failed"
            seconds = np.nansum([row.extract_time, row.score_time])
            failed = f" [{'; '.join(row.errors)}]" if row.errors else ""
            print(f"{row.label}: {scores} ({seconds:.1f} s){failed}")

    def _warn_of_failures(self, rows: list[Row], best: Row | None) -> None:
        failed = [row for row in rows if row.errors]
        if best is None:
            reasons = [reason for row in failed for reason in row.errors]
            unreadable = all(reason.startswith("TypeError") for reason in reasons)
            raise (TypeError if unreadable else ValueError)(
                f"All {len(self.extractors)} candidates failed:\n"
                f"{failure_summary(failed)}"
            )
        if failed:
            warnings.warn(
                f"{len(failed)} of {len(rows)} candidates failed, at least in part; "
                f"see results_['error']:\n{failure_summary(failed)}",
                CandidateFailedWarning,
                stacklevel=4,  # whoever called fit, which is decorated
            )

    def _keep(self, rows: list[Row], best: Row, refit_metric: str) -> None:
        # What an earlier fit may have left and this one need not have.
        for name in (
            "best_extractor_",
            "best_estimator_",
            "probability_better_",
            "classes_",
        ):
            vars(self).pop(name, None)
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
            standard deviations.

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
        # Candidates that cannot read sparse data fail one by one.
        tags.input_tags.sparse = any(
            get_tags(extractor).input_tags.sparse for _, extractor in self.extractors
        )
        return tags

    def _sk_visual_block_(self):
        names, extractors = zip(*self.extractors, strict=True)
        return _VisualBlock("parallel", extractors, names=names)


def _better(best: Row | None, row: Row, metric: str) -> tuple[Row | None, Row | None]:
    """The better of two rows, and the other; a failed row is never the best."""
    if metric not in row.scores:
        return best, row
    if best is None or row.scores[metric] > best.scores[metric]:
        return row, best
    return best, row
