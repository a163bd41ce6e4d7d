"""LogME for numeric targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import (
    BaseEstimator,
    MultiOutputMixin,
    RegressorMixin,
    _fit_context,
)
from sklearn.utils.validation import check_is_fitted

from sktransfer.linear_model._base import BaseLogME
from sktransfer.linear_model._held_out import HeldOutScores, score_regression
from sktransfer.linear_model._posterior import Posterior
from sktransfer.linear_model._statistics import SufficientStatistics
from sktransfer.utils._array_api import get_namespace, to_numpy
from sktransfer.utils._validation import check_features, check_numeric_target


class LogME(BaseLogME, MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Bayesian linear regression whose score is its maximum evidence.

    Each target is modelled as y_k = F w_k + noise, with w_k ~ N(0, I / alpha_k) and
    noise ~ N(0, 1 / beta_k). The evidence p(y_k | F, alpha_k, beta_k) is maximised over
    alpha_k and beta_k. LogME is the log of the maximum, per sample and averaged over
    targets.

    Parameters
    ----------
    fit_intercept : bool, default=False
        Whether to add an intercept with a flat prior. The evidence is then that of the
        n - 1 contrasts of each target. The papers' model has no intercept.
    solver : {"newton", "fixed_point", "mackay"}, default="newton"
        ``"newton"`` finds the global maximum; ``"fixed_point"`` and ``"mackay"`` are
        Algorithms 3 and 2 of [2]_, for study. At convergence they agree with it where
        the evidence has one maximum.
    tol : float, default=1e-6
        Relative change of t = alpha / beta (of alpha and beta for ``"mackay"``) at
        which the solver stops.
    max_iter : int, default=100
        Maximum number of iterations.
    std_error : bool, default=False
        Whether `fit` also computes `influence_` and `std_error_`, at about twice the
        cost of the rest.
    leave_one_out : bool, default=False
        Whether `fit` also computes the attributes that begin with ``loo_``. They cost
        about as much as `std_error_`, and little beside it.

    Attributes
    ----------
    logme_ : float
        ``mean(log_evidence_) / n_samples``, in nats (with an intercept: per contrast).
        Infinite, with a warning, if a target is an exact linear function of features of
        rank r, with at least 2 r samples or 1.25 r different samples.
    log_evidence_ : array of shape (n_targets,)
        Log evidence of each target, summed over samples, in nats.
    alpha_, beta_ : array of shape (n_targets,)
        Precision of the weights and of the noise; `BayesianRidge` swaps the letters.
        ``alpha_`` is infinite where the features are not informative.
    coef_ : array of shape (n_features,) or (n_targets, n_features)
        Posterior mean of the weights, float64.
    intercept_ : float or array of shape (n_targets,)
    effective_dof_ : array of shape (n_targets,)
        gamma = sum s / (s + t), the number of weights that the data determine.
    singular_values_ : array of shape (rank,)
        Non-zero singular values of the features, decreasing.
    n_iter_, converged_ : ndarray of shape (n_targets,)
    influence_ : array of shape (n_samples,)
        Contribution of each sample to the log evidence: the log density of its targets
        given all other samples, averaged over targets, in nats. It is zero for a sample
        of weight zero, and NaN if the evidence is infinite. Only if ``std_error=True``.
    std_error_ : float
        Standard error of `logme_` for this number of samples, in nats. Only if
        ``std_error=True``.
    loo_predictions_ : array of shape (n_samples,) or (n_samples, n_targets)
        Prediction of each sample by the model fitted to all others (with `groups`, to
        all other groups), in the unit of `y`. alpha / beta is kept. Only if
        ``leave_one_out=True``, as all that follow.
    loo_std_ : array of shape (n_samples,) or (n_samples, n_targets)
        Standard deviation of `loo_predictions_` over training sets: that of the
        posterior mean, without noise.
    loo_r2_, loo_r2_std_error_ : float
        R^2 of `loo_predictions_`, mean over targets, and its standard error.
    loo_scores_ : dict of str to Score
        "r2" and "log_likelihood" as :class:`~sktransfer.metrics.Score`, with parts.
    loo_log_density_ : array of shape (n_samples,)
        Log density of each sample given the others, mean over targets, in nats: without
        groups it is `influence_`.
    loo_log_likelihood_, loo_log_likelihood_std_error_ : float
        Its mean over samples, and the standard error of that, in nats.
    statistics_ : SufficientStatistics
        Statistics of all samples seen.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)

    See Also
    --------
    LogMEClassifier : LogME for class labels.
    sktransfer.metrics.logme_score : LogME as a score function.
    sklearn.linear_model.BayesianRidge : The model for one target, with hyper-priors.

    Notes
    -----
    Let s be the eigenvalues of F^T F, z the projections of y on the left singular
    vectors of F, t = alpha / beta, q = t / (t + s), and E = sum z^2 q + residual. With
    the optimal beta = n / E the log evidence

    .. math:: \frac{L}{n} = \frac12 \Big[\log\frac{n}{E} - 1 - \log 2\pi
              + \frac1n \sum_i \log q_i\Big]

    is a function of t alone. It may have several local maxima; the solver finds the
    largest. Where Theorem 2 of [2]_ does not hold it rises up to alpha = infinity, and
    its limit is taken. Duplicated and zero features do not change it (Corollaries 3 and
    4).

    The reference implementation omits (D - n) log alpha for n < D, so that its score
    grows with the width of the network, even for pure noise. It also depends on the
    scale of the features, by 1e-5 in denominators, and stops after 11 iterations.

    If features fit few samples exactly (for n < D with repeated samples, for example),
    the evidence may rise without limit as the noise vanishes. Then its local maximum is
    taken. If there is none, the evidence is evaluated at t = 1e-8 times the smallest
    eigenvalue, with a warning.

    The standard error is that of the jackknife, std(psi) / sqrt(n), with

    .. math:: \psi_{ik} = \frac12 \Big[\log\frac{\beta_k (1 - h_{ik})}{2\pi}
              - \frac{\beta_k e_{ik}^2}{1 - h_{ik}}\Big]

    averaged over targets k, where e is the error and h the leverage of sample i. psi is
    log p(y_i | the other samples). The standard error holds for this number of samples:
    LogME per sample grows with n at a model-specific rate.

    Leave-one-out predictions are exact, as from one fit per sample with the same
    alpha / beta. With h the leverages of the fit and y-hat its predictions,

    .. math:: \hat y_{-i} = y_i - \frac{y_i - \hat y_i}{1 - h_i}.

    Of a sample of weight w the weight min(w, 1) is left out, one copy at most. The
    standard errors of these scores treat groups, if given, as what is independent. They
    are about what the model reaches on other samples, so they count that all parts of a
    score vary with the one training set: to the squared error of the mean of the parts
    adds the mean of their variances over training sets (from `loo_std_`) / n. Without
    it a score of few samples would be too sure.

    The cost is one product F^T F (or F F^T for n < D) and one symmetric
    eigendecomposition, regardless of the number of targets.

    References
    ----------
    .. [1] K. You, Y. Liu, J. Wang, M. Long, "LogME: Practical Assessment of Pre-trained
       Models for Transfer Learning", ICML 2021.
    .. [2] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sktransfer.linear_model import LogME
    >>> X, y = load_diabetes(return_X_y=True)
    >>> y = (y - y.mean()) / y.std()
    >>> model = LogME(std_error=True).fit(X, y)
    >>> print(f"{model.logme_:.4f} +- {model.std_error_:.4f}")
    -1.0990 +- 0.0308
    >>> mean, std = model.predict(X[:3], return_std=True)

    The R^2 to expect of unseen samples, from one fit:

    >>> model = LogME(fit_intercept=True, leave_one_out=True).fit(X, y)
    >>> print(f"{model.loo_r2_:.3f} +- {model.loo_r2_std_error_:.3f}")
    0.494 +- 0.033
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> LogME:
        """Add samples; the result is that of `fit` on all of them at once.

        Only the statistics are kept. The evidence is maximised when a result is asked
        for.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        self
        """
        self._check_stream()
        first = not self.__sklearn_is_fitted__()
        samples = self._check(X, y, sample_weight, restart=first, stream=True)
        return self._add_samples(samples)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_statistics(
        self,
        statistics: SufficientStatistics,
        X: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        *,
        groups: Any = None,
    ) -> LogME:
        """Fit to the statistics of samples.

        This turns merged or streamed statistics into an estimator. Without `X` and `y`
        the model is that of `partial_fit`, with them it is that of `fit`.

        Parameters
        ----------
        statistics : SufficientStatistics
            Statistics of numeric targets. They are not copied: a later `partial_fit`
            adds to them.
        X : array-like of shape (n_samples, n_features), optional
            All samples of the statistics. They serve to recognise targets that the
            features fit exactly, to repeat products in float64 where float32 loses
            digits (`statistics_` is then a new object), and to compute `std_error_`
            and leave-one-out scores.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Targets of `X`. Without them a single target counts as one-dimensional.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of `X`.
        groups : array-like of shape (n_samples,), optional
            Samples that are left out together; see `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the statistics are of class labels or of no samples, or if their shapes
            differ from those of `X` and `y`.
        """
        if statistics.n_classes is not None:
            raise ValueError(
                "LogME needs statistics of numeric targets; got statistics of "
                f"{statistics.n_classes} classes. Use LogMEClassifier."
            )
        n_targets = len(statistics.target_norms) if statistics.n_rows else 1
        flat = n_targets == 1 and (y is None or np.ndim(to_numpy(y)) == 1)
        self._target_shape = () if flat else (n_targets,)
        samples = self._check_samples(statistics, X, y, sample_weight)
        return self._set_statistics(statistics, samples, groups)

    def _check_targets(self, X: Any, y: Any, *, restart: bool) -> Any:
        y = check_numeric_target(y, X)
        if restart:
            self._target_shape = y.shape[1:]
        elif y.shape[1:] != self._target_shape:
            raise ValueError(
                f"y must have the shape (n_samples, *{self._target_shape}) of the "
                f"targets seen so far; got {tuple(y.shape)}."
            )
        return y

    def _squeeze(self, values: Any) -> Any:
        """Drop the axis of targets if y had none."""
        if self._target_shape:
            return values
        return values[0] if values.ndim == 1 else values[0, :]

    def _squeeze_columns(self, values: Any) -> Any:
        return values if self._target_shape else values[:, 0]

    def _score_left_out(self, head: Posterior, *arrays: Any) -> HeldOutScores:
        return score_regression(*arrays)

    @property
    def loo_r2_(self) -> float:
        """R^2 of `loo_predictions_`, mean over targets."""
        return self._loo_value("r2")[0]

    @property
    def loo_r2_std_error_(self) -> float:
        """Standard error of `loo_r2_`."""
        return self._loo_value("r2")[1]

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict with the posterior mean of the weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        return_std : bool, default=False
            Whether to also return the standard deviation of the predictive
            distribution, sqrt(1 / beta + f^T A^-1 f).

        Returns
        -------
        mean : array of shape (n_samples,) or (n_samples, n_targets)
        std : array of the same shape
            Only if `return_std`.
        """
        check_is_fitted(self)
        X = check_features(X, estimator=self, reset=False)
        xp, _ = get_namespace(X=X)
        mean = self._squeeze_columns(self._solve().mean(X))
        if not return_std:
            return mean
        return mean, self._squeeze_columns(xp.sqrt(self._solve().variance(X)))

    def log_predictive_density(self, X: Any, y: Any) -> Any:
        """Log density of held-out targets, log p(y | x, training data).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)

        Returns
        -------
        array of shape (n_samples,)
            In nats; the mean over targets, as in `logme_`.
        """
        check_is_fitted(self)
        X = check_features(X, estimator=self, reset=False)
        y = self._check_targets(X, y, restart=False)
        y = y[:, None] if y.ndim == 1 else y
        xp, _ = get_namespace(X=X)
        posterior = self._solve()
        variance = posterior.variance(X)
        misfit = (y - posterior.mean(X)) ** 2 / variance
        return -0.5 * xp.mean(misfit + xp.log(2 * np.pi * variance), axis=1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Its score is the evidence rather than R^2.
        tags.regressor_tags.poor_score = True
        return tags
