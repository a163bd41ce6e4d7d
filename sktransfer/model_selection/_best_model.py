"""The methods of a fitted selector that its best model provides."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _num_samples, check_is_fitted

from sktransfer.feature_extraction._extract import (
    all_layers_problem,
    extract,
    is_stateless,
    layers_under,
)
from sktransfer.feature_extraction._tokens import (
    flatten_labels,
    group_words,
    split_tokens,
)
from sktransfer.metrics import LabelledData
from sktransfer.model_selection._candidate import check_finite
from sktransfer.model_selection._checks import check_groups


def _best_has(method: str) -> Callable[[Any], bool]:
    """Whether the best estimator has a method, for `available_if`."""

    def check(self) -> bool:
        if not self.refit:
            raise AttributeError(
                f"{method} needs the best model, which refit=False does not keep."
            )
        if method == "score":
            return True  # by the metric that decides, which needs no head
        if hasattr(self, "best_estimator_"):
            transforms = method in ("transform", "get_feature_names_out")
            getattr(
                self.best_extractor_ if transforms else self.best_estimator_, method
            )
        elif method == "predict_proba" and self.task in ("regression", "multilabel"):
            raise AttributeError(f"A {self.task} task has no class probabilities.")
        return True

    return check


class BestModelMixin(TransformerMixin):
    """Transform, predict and score with the best extractor and its LogME head."""

    def fit_transform(self, X: Any, y: Any, *, groups: Any = None) -> Any:
        """Fit, and return the features of the training samples as they were scored.

        They differ from those of :meth:`transform` if a step of the best extractor
        learns from the target without a sample's own label, as scikit-learn's
        ``TargetEncoder.fit_transform`` does, and the policy has used all samples.

        Parameters
        ----------
        X : raw input of the extractors, of n_samples samples
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        groups : array-like of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        array of shape (n_samples, n_features)
        """
        self.fit(X, y, groups=groups)
        partial = self._results[self.best_index_].n_samples < _num_samples(X)
        if partial or is_stateless(self.best_extractor_):
            return self.transform(X)
        if self._of_tokens:
            y = flatten_labels(X, y)
        # A copy, for the head belongs to the extractor as it was fitted.
        return extract(copy.deepcopy(self.best_extractor_), X, y, fit=True).joined

    def transform(self, X: Any) -> Any:
        """Features of the best extractor.

        Parameters
        ----------
        X : raw input of the extractors, of n_samples samples

        Returns
        -------
        array of shape (n_samples, n_features)

        Raises
        ------
        ValueError
            If features are NaN or infinite.
        """
        check_is_fitted(self)
        features = self.best_extractor_.transform(X)
        if getattr(features, "ndim", 0) == 2:  # words of sentences are an array each
            check_finite(features, "the best extractor")
        return features

    @available_if(_best_has("predict"))
    def predict(self, X: Any) -> Any:
        """Prediction of the best extractor and its LogME head.

        Parameters
        ----------
        X : raw input of the extractors, of n_samples samples

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_targets)
            For sentences, one array per sentence with the labels of its words.
        """
        check_is_fitted(self)
        return self._by_sentence(self.best_estimator_.predict(X), X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X: Any) -> Any:
        """Class probabilities of the best extractor and its LogME head.

        Parameters
        ----------
        X : raw input of the extractors, of n_samples samples

        Returns
        -------
        array of shape (n_samples, n_classes)
        """
        check_is_fitted(self)
        return self._by_sentence(self.best_estimator_.predict_proba(X), X)

    @available_if(_best_has("score"))
    def score(self, X: Any, y: Any, *, groups: Any = None) -> float:
        """Score of the best extractor's features of the data given.

        The score is that of the metric that decides, such as a log-likelihood; it is no
        accuracy.

        Parameters
        ----------
        X : raw input of the extractors, of n_samples samples
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        groups : array-like of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        groups = check_groups(groups, X)
        if self._of_tokens:
            y, groups = flatten_labels(X, y), group_words(X, groups)
        metric = self.scorer_.metrics[self._decides]
        reads_layers = metric.reads == "layers"
        reads_layers = reads_layers and all_layers_problem(self.best_extractor_) is None
        extraction = extract(
            self.best_extractor_,
            X,
            source_proba=metric.reads == "source_proba",
            all_layers=reads_layers,
        )
        data = LabelledData(
            extraction.joined,
            y,
            source_proba=extraction.source_proba,
            layers=layers_under(extraction),
            task=self.task_,
            groups=groups,
            fit_intercept=self._has_intercept(),
        )
        score = metric.score(data)
        best = self._results[self.best_index_]
        if metric.layer_factor and best.layer:
            layers = [r.n_features for r in self._results if r.name == best.name]
            score = score.scaled(metric.layer_factor(best.n_features, layers[-1]))
        return float(score.value)

    def _by_sentence(self, rows: Any, X: Any) -> Any:
        return split_tokens(rows, X) if self._of_tokens else rows

    @available_if(_best_has("get_feature_names_out"))
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features of the best extractor.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input features, if the extractor uses them.

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self)
        return self.best_extractor_.get_feature_names_out(input_features)

    @property
    def n_features_in_(self) -> int:
        """Number of features of the input, where the best extractor knows it."""
        return self._ask_best("n_features_in_")

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the features of the input, where the best extractor knows them."""
        return self._ask_best("feature_names_in_")

    def _ask_best(self, name: str) -> Any:
        if "results_" not in vars(self):
            raise AttributeError(f"ModelSelector has no attribute {name!r} before fit.")
        return getattr(self._results[self.best_index_].extractor, name)


# `TransformerMixin` has wrapped them for `set_output`; whether they are available has
# to be asked outside that wrap.
for _method in ("transform", "fit_transform"):
    setattr(
        BestModelMixin,
        _method,
        available_if(_best_has("transform"))(getattr(BestModelMixin, _method)),
    )
