"""LogME for class labels."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from sktransfer.linear_model._base import BaseLogME
from sktransfer.linear_model._held_out import score_classes
from sktransfer.linear_model._posterior import Posterior
from sktransfer.linear_model._shared_evidence import maximise_shared_evidence
from sktransfer.linear_model._statistics import SufficientStatistics
from sktransfer.utils._array_api import beside, to_numpy
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
    fit_intercept, solver, tol, max_iter, std_error, leave_one_out
        See :class:`LogME`.
    prior : {"per_target", "shared"}, default="per_target"
        Whether each class has its own ratio alpha / beta in the posterior means, as in
        the papers, or all have the one that maximises the sum of their evidences. One
        prior each starves classes of few samples, so prefer ``"shared"`` for a model
        that is to predict. `logme_`, `log_evidence_` and `std_error_` are the papers'
        in both cases.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels; the targets of the other attributes.
    logme_ : float
        Log maximum evidence per sample, mean over classes, in nats.
    log_evidence_ : array of shape (n_classes,)
        As in :class:`LogME`.
    alpha_, beta_, effective_dof_ : array of shape (n_classes,)
        As in :class:`LogME`, of the `prior` of the posterior means.
    coef_ : array of shape (n_classes, n_features)
        Posterior means, one row per class (also for two classes): virtual anchors of
        the classes in feature space.
    intercept_ : array of shape (n_classes,)
    singular_values_ : array of shape (rank,)
    n_iter_, converged_ : ndarray of shape (n_classes,)
    influence_ : array of shape (n_samples,)
        Only if ``std_error=True``, as `std_error_`.
    std_error_ : float
    temperature_ : float
        What predictive means are divided by before the soft-max, in their unit. With
        ``leave_one_out=True`` it maximises `loo_log_likelihood_`, so that probabilities
        are calibrated. Otherwise a rule of thumb stands in for it, which costs nothing
        and does not see the samples; see the notes.
    loo_predictions_ : array of shape (n_samples, n_classes)
        Predictive means of each sample by the model fitted to all others (with
        `groups`, to all other groups), under the shared prior whatever `prior` is.
        Only if ``leave_one_out=True``, as all that follow.
    loo_std_ : array of shape (n_samples, n_classes)
        Standard deviation of `loo_predictions_` over training sets.
    loo_scores_ : dict of str to Score
        "accuracy" and "log_likelihood" as :class:`~sktransfer.metrics.Score`, with
        parts.
    loo_accuracy_, loo_accuracy_std_error_ : float
        Accuracy of the arg max of `loo_predictions_`, the fraction to expect of unseen
        samples, and its standard error; see the notes of :class:`LogME`. Ties count in
        part. The only sample of a class is predicted by a model that does not know the
        class.
    loo_log_density_ : array of shape (n_samples,)
        Log probability of the label of each sample given the others, in nats.
    loo_log_likelihood_, loo_log_likelihood_std_error_ : float
        Its mean over samples, and the standard error of that, in nats.
    statistics_ : SufficientStatistics
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)

    See Also
    --------
    LogME : LogME for numeric targets and indicators of several labels.
    sktransfer.model_selection.ModelSelector : Ranks extractors by LogME.

    Notes
    -----
    The predicted class has the largest posterior predictive mean :math:`\mu_k`, and
    `predict_proba` is the soft-max of :math:`\mu_k / T`, with T = `temperature_`. The
    leave-one-out temperature is the one T > 0 at which the labels are likeliest. If all
    samples are predicted right, that would be zero; then T is where the mean
    log-likelihood is 1 / (n + 1) below its limit, as by the rule of succession.

    Without leave-one-out predictions T is the mean squared error to expect of one-hot
    targets (by generalised cross-validation), as if errors were Gaussian, but at least
    1 / log((K - 1)(n + 1)) for K classes: then a prediction of exactly one claims an
    error once in n + 2 samples, not less.

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
    0.98
    >>> model = LogMEClassifier(prior="shared", fit_intercept=True, leave_one_out=True)
    >>> model = model.fit(scale(X), y)
    >>> print(f"{model.loo_accuracy_:.3f} +- {model.loo_accuracy_std_error_:.3f}")
    0.989 +- 0.012
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseLogME._parameter_constraints,
        "prior": [StrOptions({"per_target", "shared"})],
    }

    def __init__(
        self,
        *,
        fit_intercept: bool = False,
        solver: str = "newton",
        tol: float = 1e-6,
        max_iter: int = 100,
        std_error: bool = False,
        leave_one_out: bool = False,
        prior: str = "per_target",
    ):
        super().__init__(
            fit_intercept=fit_intercept,
            solver=solver,
            tol=tol,
            max_iter=max_iter,
            std_error=std_error,
            leave_one_out=leave_one_out,
        )
        self.prior = prior

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
        groups: Any = None,
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
        groups : array-like of shape (n_samples,), optional
            Samples that are left out together; see `fit`.

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
        return self._set_statistics(statistics, samples, groups)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class with the largest posterior predictive mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        means = to_numpy(self._means(X))
        return self.classes_[np.argmax(means, axis=1)]

    def decision_function(self, X: Any) -> Any:
        """Predictive means divided by `temperature_`: log probabilities to a constant.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_classes) or (n_samples,)
            For two classes that of the second minus that of the first, the log odds.
        """
        scores = self._means(X) / self.temperature_
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> Any:
        """Class probabilities, the soft-max of predictive means / `temperature_`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_classes)
        """
        means = to_numpy(self._means(X))
        return beside(softmax(means / self.temperature_, axis=1), X)

    def log_predictive_density(self, X: Any, y: Any) -> Any:
        """Log probability of held-out labels, as in `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)

        Returns
        -------
        array of shape (n_samples,)
            In nats.
        """
        log_proba = log_softmax(to_numpy(self._means(X)) / self.temperature_, axis=1)
        codes = to_numpy(self._encode(check_features(X), y))
        return beside(log_proba[np.arange(len(codes)), codes], X)

    def _means(self, X: Any) -> Any:
        check_is_fitted(self)
        X = check_features(X, estimator=self, reset=False)
        return self._head(self._solve()).mean(X)

    def _head(self, posterior: Posterior) -> Posterior:
        if self.prior == "per_target":
            return posterior
        if self._shared is None:
            maximum = maximise_shared_evidence(posterior.spectrum, tol=self.tol)
            self._shared = Posterior(posterior.spectrum, maximum)
        return self._shared

    def _left_out_posterior(self) -> Posterior:
        if self.prior == "shared":
            return self._head(self._posterior)
        spectrum = self._posterior.spectrum
        return Posterior(spectrum, maximise_shared_evidence(spectrum, tol=self.tol))

    def _score_left_out(self, head, codes, left_out, density, *weights_and_groups):
        start = _temperature_to_expect(head)
        return score_classes(codes, left_out, *weights_and_groups, start)

    def compact(self, *, keep_std: bool = False) -> None:
        """Drop the statistics, and all else that predictions do not need.

        Parameters
        ----------
        keep_std : bool, default=False
            Whether to keep `influence_`, `loo_predictions_` and `loo_log_density_`.
            Predictions of classes need no eigenvectors.
        """
        head, kept = self._head(self._solve()), (self._influence, self._left_out)
        own = head is not self._posterior
        self._shared = head.compact(keep_std=False) if own else None
        super().compact()
        if keep_std:
            self._influence, self._left_out = kept

    @property
    def temperature_(self) -> float:
        """What predictive means are divided by before the soft-max."""
        check_is_fitted(self)
        if self._left_out is not None:
            return self._left_out.temperature
        return _temperature_to_expect(self._head(self._solve()))

    @property
    def loo_accuracy_(self) -> float:
        """Accuracy of `loo_predictions_`, a fraction."""
        return self._loo_value("accuracy")[0]

    @property
    def loo_accuracy_std_error_(self) -> float:
        """Standard error of `loo_accuracy_`."""
        return self._loo_value("accuracy")[1]

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


def _temperature_to_expect(posterior: Posterior) -> float:
    """Temperature without leave-one-out predictions; see `temperature_`."""
    spectrum = posterior.spectrum
    n = spectrum.n_samples + (spectrum.feature_mean is not None)
    n_classes = len(spectrum.target_norms)
    rarest = 1 / math.log(max(n_classes - 1, 1) * (n + 1))
    return max(float(np.mean(posterior.expected_error())), rarest)
