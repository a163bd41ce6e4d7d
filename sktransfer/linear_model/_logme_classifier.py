"""LogME for class labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils.validation import check_is_fitted

from sktransfer.linear_model._base import BaseLogME
from sktransfer.linear_model._statistics import SufficientStatistics
from sktransfer.utils._array_api import beside, get_namespace, to_numpy
from sktransfer.utils._validation import (
    check_features,
    check_labels,
    check_weights,
    encode_labels,
)


class LogMEClassifier(BaseLogME, ClassifierMixin, BaseEstimator):
    r"""LogME for class labels, with one Gaussian model per one-hot column.

    Parameters
    ----------
    fit_intercept, solver, tol, max_iter, std_error
        See :class:`LogME`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels; the targets of the other attributes.
    logme_ : float
        Log maximum evidence per sample, mean over classes, in nats.
    log_evidence_, alpha_, beta_, effective_dof_ : array of shape (n_classes,)
        As in :class:`LogME`.
    coef_ : array of shape (n_classes, n_features)
        Posterior means, one row per class (also for two classes): virtual anchors of
        the classes in feature space.
    intercept_ : array of shape (n_classes,)
    singular_values_ : array of shape (rank,)
    n_iter_, converged_ : ndarray of shape (n_classes,)
    influence_ : array of shape (n_samples,)
        Only if ``std_error=True``, as `std_error_`.
    std_error_ : float
    statistics_ : SufficientStatistics
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)

    See Also
    --------
    LogME : LogME for numeric targets and indicators of several labels.
    sktransfer.model_selection.ModelSelector : Ranks extractors by LogME.

    Notes
    -----
    The predicted class has the largest log ratio of the predictive densities at y_k = 1
    and y_k = 0,
    :math:`\log N(1 | \mu_k, \sigma_k^2) - \log N(0 | \mu_k, \sigma_k^2)
    = (2 \mu_k - 1) / 2 \sigma_k^2`, and `predict_proba` is their soft-max.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.preprocessing import scale
    >>> from sktransfer.linear_model import LogMEClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> model = LogMEClassifier().fit(scale(X), y)
    >>> round(model.logme_, 4)
    -0.5377
    >>> print(f"{(model.predict(scale(X)) == y).mean():.2f}")
    1.00
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> LogMEClassifier:
        """Add samples; the result is that of `fit` on all of them at once.

        Only the statistics are kept. The evidence is maximised when a result is asked
        for; by then every class must have a sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        classes : array-like of shape (n_classes,), optional
            All labels of the stream; required at the first call.
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `classes` is missing at the first call, or `y` holds other labels.
        """
        self._check_stream()
        first = not self.__sklearn_is_fitted__()
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if first:
            self.classes_ = np.unique(to_numpy(classes))
        elif classes is not None and not np.array_equal(
            self.classes_, np.unique(to_numpy(classes))
        ):
            raise ValueError(
                f"classes={classes!r} is not the same as on the last call to "
                f"partial_fit, was: {self.classes_!r}."
            )
        X = check_features(X, estimator=self, reset=first)
        weights = check_weights(sample_weight, X, allow_all_zero=True)
        return self._add_samples(self._join(X, y, weights, restart=False))

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_statistics(
        self,
        statistics: SufficientStatistics,
        X: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        *,
        classes: Any = None,
    ) -> LogMEClassifier:
        """Fit to the statistics of samples.

        This turns merged or streamed statistics into an estimator. Without `X` and `y`
        the model is that of `partial_fit`, with them it is that of `fit`.

        Parameters
        ----------
        statistics : SufficientStatistics
            Statistics of class codes. They are not copied: a later `partial_fit` adds
            to them.
        X : array-like of shape (n_samples, n_features), optional
            All samples of the statistics; see :meth:`LogME.fit_statistics`.
        y : array-like of shape (n_samples,), optional
            Labels of `X`.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of `X`.
        classes : array-like of shape (n_classes,), optional
            Label of each class code, in increasing order. By default labels are the
            codes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the statistics are of numeric targets or of no samples, or if they do
            not match `X`, `y` and `classes`.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_wine
        >>> from sktransfer.linear_model import LogMEClassifier, SufficientStatistics
        >>> X, y = load_wine(return_X_y=True)
        >>> one, other = (
        ...     SufficientStatistics(13, n_classes=3).update(X[rows], y[rows])
        ...     for rows in (slice(None, 100), slice(100, None))
        ... )
        >>> merged = LogMEClassifier().fit_statistics(one + other)
        >>> bool(np.isclose(merged.logme_, LogMEClassifier().fit(X, y).logme_))
        True
        """
        if statistics.n_classes is None:
            raise ValueError(
                "LogMEClassifier needs statistics of class codes, such as "
                "SufficientStatistics(n_features, n_classes=...); got statistics of "
                "numeric targets. Use LogME."
            )
        codes = np.arange(statistics.n_classes)
        labels = codes if classes is None else to_numpy(classes)
        if labels.shape != codes.shape or not np.array_equal(labels, np.unique(labels)):
            raise ValueError(
                f"classes must hold {len(codes)} different labels in increasing order, "
                f"one for each class of the statistics; got {labels.tolist()}."
            )
        self.classes_ = labels
        samples = self._check_samples(statistics, X, y, sample_weight)
        return self._set_statistics(statistics, samples)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class with the largest log density ratio.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        scores = to_numpy(self._log_ratios(X))
        return self.classes_[np.argmax(scores, axis=1)]

    def decision_function(self, X: Any) -> Any:
        """Log density ratio of y_k = 1 against y_k = 0.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_classes) or (n_samples,)
            For two classes that of the second minus that of the first.
        """
        scores = self._log_ratios(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> Any:
        """Class probabilities, the soft-max of the log density ratios.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_classes)
        """
        return beside(softmax(to_numpy(self._log_ratios(X)), axis=1), X)

    def log_predictive_density(self, X: Any, y: Any) -> Any:
        """Log probability of held-out labels, log p(y | x, training data).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)

        Returns
        -------
        array of shape (n_samples,)
            In nats.
        """
        log_proba = log_softmax(to_numpy(self._log_ratios(X)), axis=1)
        codes = to_numpy(self._encode(check_features(X), y))
        return beside(log_proba[np.arange(len(codes)), codes], X)

    def _log_ratios(self, X: Any) -> Any:
        check_is_fitted(self)
        X = check_features(X, estimator=self, reset=False)
        xp, _ = get_namespace(X=X)
        variance = self._solve().variance(X)
        # One-hot targets have unit scale; this limits a model without noise.
        floor = xp.full_like(variance, 1e-12)
        variance = xp.where(variance > floor, variance, floor)
        return (self._solve().mean(X) - 0.5) / variance

    def _check_targets(self, X: Any, y: Any, *, restart: bool) -> Any:
        if not restart:
            return self._encode(X, y)
        self.classes_, codes = encode_labels(y, X)
        return codes

    def _encode(self, X: Any, y: Any) -> Any:
        labels = check_labels(y, X)
        unseen = np.setdiff1d(labels, self.classes_)
        if len(unseen):
            raise ValueError(
                f"y contains labels that are not among classes: {unseen.tolist()}; "
                f"expected some of {self.classes_.tolist()}."
            )
        return beside(np.searchsorted(self.classes_, labels), X)

    def _squeeze(self, values: Any) -> Any:
        return values
