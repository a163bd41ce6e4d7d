"""Base class of the LogME estimators, from statistics to the posterior."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, _fit_context, clone
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sktransfer.linear_model._diagnostics import (
    check_solvable,
    warn_of_limits,
    warn_of_lost_directions,
)
from sktransfer.linear_model._evidence import maximise_evidence
from sktransfer.linear_model._held_out import HeldOutScores, LeftOut
from sktransfer.linear_model._leave_group_out import encode_groups, leave_group_out
from sktransfer.linear_model._leave_one_out import finite_beta, leave_one_out
from sktransfer.linear_model._posterior import NEGLIGIBLE, Posterior
from sktransfer.linear_model._rounding import loses_directions, measure_residual
from sktransfer.linear_model._samples import Samples
from sktransfer.linear_model._spectrum import Spectrum
from sktransfer.linear_model._statistics import SufficientStatistics
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._score import Score, standard_error
from sktransfer.utils._validation import check_features, check_weights


class BaseLogME(BaseEstimator, metaclass=ABCMeta):
    """Base class of the LogME estimators; see :class:`LogME`.

    It precedes scikit-learn's mixins among the bases of a subclass, as their `score` is
    accuracy or R^2.
    """

    _parameter_constraints: ClassVar[dict] = {
        "fit_intercept": ["boolean"],
        "solver": [StrOptions({"newton", "fixed_point", "mackay"})],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "std_error": ["boolean"],
        "leave_one_out": ["boolean"],
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
    ):
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.std_error = std_error
        self.leave_one_out = leave_one_out

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None
    ) -> BaseLogME:
        """Maximise the evidence of the data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features; NumPy, PyTorch or CuPy.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,), optional
            An integer weight counts as that many copies of the sample.
        groups : array-like of shape (n_samples,), optional
            Samples of one group, such as the words of a sentence, are left out
            together if ``leave_one_out=True``. They need not be neighbours. Nothing
            else depends on groups.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a target is constant, a class has no sample, there are fewer than two
            samples, one group holds all samples, or the arrays do not fit together.
        """
        samples = self._check(X, y, sample_weight, restart=True)
        statistics = self._empty_statistics().add(samples)
        return self._set_statistics(statistics, samples, groups)

    def _set_statistics(
        self,
        statistics: SufficientStatistics,
        samples: Samples | None = None,
        groups: Any = None,
    ) -> BaseLogME:
        """Fit to statistics: at once if their samples are given, else on demand."""
        self.statistics_ = statistics
        self._posterior = self._shared = None
        self._influence = self._std_error = self._left_out = None
        if samples is None:
            return self
        codes = None
        if groups is not None and self.leave_one_out:
            codes = encode_groups(groups, samples)
        posterior = self._maximise(measure_residual(self._spectrum(), samples))
        if statistics.is_single and (
            posterior.spectrum.truncated or posterior.rounding_error() > NEGLIGIBLE
        ):
            # Features too nearly collinear for float32.
            self.statistics_ = statistics.in_double().add(samples)
            posterior = self._maximise(measure_residual(self._spectrum(), samples))
        self._posterior = posterior
        # The caller of a public method, which is decorated.
        warn_of_limits(posterior, self, stacklevel=5)
        if loses_directions(posterior.spectrum, samples):
            warn_of_lost_directions(stacklevel=5)
        if self.std_error or self.leave_one_out:
            self._leave_out(samples, codes)
        return self

    def _leave_out(self, samples: Samples, codes: np.ndarray | None) -> None:
        """Compute what needs the left singular vectors, in one pass without groups."""
        weights = None if samples.weights is None else to_numpy(samples.weights)
        posterior = self._posterior
        head = self._left_out_posterior() if self.leave_one_out else None
        alone = head if codes is None else None
        scored = posterior if self.std_error or alone is posterior else None
        gram = None
        if scored is None and alone is not None:
            gram = self.statistics_.gram_of(posterior.spectrum)
        density, predictions, slack = leave_one_out(samples, scored, alone, gram)
        if self.std_error:
            self._influence = density
            self._std_error = standard_error(to_numpy(density), weights)
        if head is None:
            return
        if codes is not None:
            density, predictions, slack = leave_group_out(samples, head, codes)
        n_t = slack.shape[1]  # one, or one per target
        left_out = LeftOut(
            to_numpy(predictions),
            to_numpy(slack),
            noise=1 / finite_beta(head),
            noiseless=np.isinf(head.maximum.beta[:n_t]),
        )
        self._left_out = self._score_left_out(
            head,
            to_numpy(samples.targets),
            left_out,
            None if density is None else to_numpy(density),
            weights,
            codes,
        )

    def _left_out_posterior(self) -> Posterior:
        """The posterior whose leave-one-out predictions are wanted."""
        return self._posterior

    def _head(self, posterior: Posterior) -> Posterior:
        """The posterior that predicts, given the one at the papers' maximum."""
        return posterior

    @abstractmethod
    def _score_left_out(self, head: Posterior, *arrays: Any) -> HeldOutScores:
        """Score predictions of a posterior.

        `arrays` are targets, what was left out, its density, weights and groups.
        """

    def _add_samples(self, samples: Samples) -> BaseLogME:
        """Add checked samples to what has been seen."""
        first = not self.__sklearn_is_fitted__()
        statistics = self._empty_statistics() if first else self.statistics_
        return self._set_statistics(statistics.add(samples))

    def _check_samples(
        self, statistics: SufficientStatistics, X: Any, y: Any, sample_weight: Any
    ) -> Samples | None:
        """Validate the samples of statistics, if they are given."""
        name = type(self).__name__
        if statistics.n_rows == 0:
            raise ValueError(f"{name} needs samples; these statistics have seen none.")
        if X is None and y is None:
            vars(self).pop("feature_names_in_", None)
            self.n_features_in_ = statistics.n_features
            return None
        if X is None or y is None:
            raise ValueError("X and y must be passed together, or neither of them.")
        # Samples of finite statistics are finite.
        X = check_features(X, estimator=self, finite=False)
        expected = (statistics.n_rows, statistics.n_features)
        if tuple(X.shape) != expected:
            raise ValueError(
                f"X must hold the samples of the statistics, of shape {expected}; got "
                f"{tuple(X.shape)}."
            )
        return self._join(X, y, check_weights(sample_weight, X), restart=False)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """LogME of the given data, with the evidence maximised anew.

        This is the papers' measure rather than R^2 or accuracy, so that a grid search
        over extractors maximises LogME. It does not depend on what `fit` has learnt.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        float
            Log maximum evidence per sample, mean over targets, in nats.
        """
        check_is_fitted(self)
        X = check_features(X, estimator=self, reset=False)
        fresh = clone(self)
        fresh.std_error = fresh.leave_one_out = False
        return fresh.fit(X, y, sample_weight).logme_

    def _check_stream(self) -> None:
        """Refuse invalid parameters, and a model that has no statistics."""
        self._validate_params()
        if getattr(self, "statistics_", self) is None:
            raise ValueError(
                f"This {type(self).__name__} is compact: it has no statistics that "
                "partial_fit could add to. Use fit, with all samples."
            )

    def _check(
        self, X: Any, y: Any, sample_weight: Any, *, restart: bool, stream: bool = False
    ) -> Samples:
        """Validate samples; in a `stream` all weights may be zero."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        X = check_features(X, estimator=self, reset=restart)
        weights = check_weights(sample_weight, X, allow_all_zero=stream)
        return self._join(X, y, weights, restart=restart)

    def _join(self, X: Any, y: Any, weights: Any, *, restart: bool) -> Samples:
        targets = self._check_targets(X, y, restart=restart)
        n_classes = len(self.classes_) if hasattr(self, "classes_") else None
        if n_classes is None and targets.ndim == 1:
            targets = targets[:, None]
        return Samples(X, targets, n_classes, weights)

    def _empty_statistics(self) -> SufficientStatistics:
        n_classes = len(self.classes_) if hasattr(self, "classes_") else None
        return SufficientStatistics(self.n_features_in_, n_classes=n_classes)

    def _solve(self) -> Posterior:
        """The posterior given all samples seen, computed once."""
        check_is_fitted(self)
        if self._posterior is None:
            self._posterior = self._maximise(self._spectrum())
            warn_of_limits(self._posterior, self, stacklevel=4)
        return self._posterior

    def _spectrum(self) -> Spectrum:
        statistics = self.statistics_
        check_solvable(statistics, self)
        if self.fit_intercept:
            return statistics.centred_spectrum
        return statistics.spectrum

    def _maximise(self, spectrum: Spectrum) -> Posterior:
        """The posterior at the maximum of the evidence."""
        maximum = maximise_evidence(
            spectrum, solver=self.solver, tol=self.tol, max_iter=self.max_iter
        )
        return Posterior(spectrum, maximum)

    def compact(self, *, keep_std: bool = False) -> None:
        """Drop the statistics, and all else that predictions do not need.

        Parameters
        ----------
        keep_std : bool, default=False
            Whether to keep `influence_`, `loo_predictions_` and `loo_log_density_`, and
            the eigenvectors that standard deviations of predictions need. For n < D
            they are as large as the features.
        """
        self._posterior = self._solve().compact(keep_std=keep_std)
        self.statistics_ = None
        if not keep_std:
            self._influence = None
            if self._left_out is not None:
                self._left_out = self._left_out.compact()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "statistics_")

    def _like_features(self, values: np.ndarray) -> Any:
        """Bring small host results to the namespace and device of the features."""
        return self._solve().like_features(values)

    @property
    def logme_(self) -> float:
        """Log maximum evidence per sample, mean over targets, in nats."""
        posterior = self._solve()
        per_sample = posterior.maximum.log_evidence / posterior.spectrum.n_samples
        return float(np.mean(per_sample))

    @property
    def no_information_(self) -> float:
        """LogME of features that say nothing about the targets, in nats.

        It is the limit for alpha = infinity, where all weights are zero.
        """
        spectrum = self._solve().spectrum
        variance = spectrum.target_norms / spectrum.n_samples
        return float(-0.5 * np.mean(1.0 + np.log(2 * np.pi * variance)))

    @property
    def log_evidence_(self) -> Any:
        """Log evidence of each target, summed over samples, in nats."""
        return self._like_features(self._solve().maximum.log_evidence)

    @property
    def alpha_(self) -> Any:
        """Precision of the weights' prior, one per target."""
        return self._like_features(self._head(self._solve()).maximum.alpha)

    @property
    def beta_(self) -> Any:
        """Precision of the noise, one per target."""
        return self._like_features(self._head(self._solve()).maximum.beta)

    @property
    def effective_dof_(self) -> Any:
        """Number of weights that the data determine, gamma, one per target."""
        return self._like_features(self._head(self._solve()).maximum.effective_dof)

    @property
    def singular_values_(self) -> Any:
        """Non-zero singular values of the features, decreasing."""
        return self._like_features(np.sqrt(self._solve().spectrum.eigenvalues))

    @property
    def n_iter_(self) -> np.ndarray:
        """Iterations of the solver, one per target."""
        return self._solve().maximum.n_iter

    @property
    def converged_(self) -> np.ndarray:
        """Whether the solver converged, one per target."""
        return self._solve().maximum.converged

    @property
    def coef_(self) -> Any:
        """Posterior mean of the weights."""
        return self._squeeze(self._head(self._solve()).coef)

    @property
    def intercept_(self) -> Any:
        """Intercept of the predictive mean."""
        return self._squeeze(self._head(self._solve()).intercept)

    @property
    def influence_(self) -> Any:
        """Log density of each sample given the others, in nats."""
        return self._on_request("influence_", getattr(self, "_influence", None))

    @property
    def std_error_(self) -> float:
        """Standard error of `logme_`, in nats."""
        return self._on_request("std_error_", getattr(self, "_std_error", None))

    @property
    def loo_predictions_(self) -> Any:
        """Prediction of each sample by the model fitted to the others."""
        left_out = self._of_left_out("loo_predictions_").left_out
        return self._squeeze_columns(self._like_features(left_out.predictions))

    @property
    def loo_std_(self) -> Any:
        """Standard deviation of `loo_predictions_` over training sets."""
        left_out = self._of_left_out("loo_std_").left_out
        variance = left_out.spread * left_out.noise
        return self._squeeze_columns(self._like_features(np.sqrt(variance)))

    @property
    def loo_scores_(self) -> dict[str, Score]:
        """Scores of `loo_predictions_` with their parts, one for each sample."""
        return self._of_left_out("loo_scores_").scores

    @property
    def loo_log_density_(self) -> Any:
        """Log density or probability of each sample given the others, in nats."""
        scores = self._of_left_out("loo_log_density_").scores
        return self._like_features(scores["log_likelihood"].parts)

    @property
    def loo_log_likelihood_(self) -> float:
        """Mean of `loo_log_density_`, in nats."""
        return self._loo_value("log_likelihood")[0]

    @property
    def loo_log_likelihood_std_error_(self) -> float:
        """Standard error of `loo_log_likelihood_`, in nats."""
        return self._loo_value("log_likelihood")[1]

    def _loo_value(self, score: str) -> tuple[float, float]:
        """A score, and its standard error."""
        return self._on_request(
            f"loo_{score}_", getattr(self, "_left_out", None), "leave_one_out"
        ).values[score]

    def _of_left_out(self, name: str) -> HeldOutScores:
        """What there is only until a model is compact."""
        held_out = getattr(self, "_left_out", None)
        if held_out is not None and held_out.scores is None:
            held_out = None
        return self._on_request(name, held_out, "leave_one_out")

    def _on_request(self, name: str, value: Any, parameter: str = "std_error") -> Any:
        check_is_fitted(self)
        if value is None:
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}: it needs all "
                f"samples, so call fit with {parameter}=True (or fit_statistics with "
                "the samples)."
            )
        return value

    @abstractmethod
    def predict(self, X: Any) -> Any:
        """Predict targets."""

    @abstractmethod
    def _check_targets(self, X: Any, y: Any, *, restart: bool) -> Any:
        """Validate targets as numbers or class codes; learn their kind if `restart`."""

    @abstractmethod
    def _squeeze(self, values: Any) -> Any:
        """Drop the axis of targets where `y` has none."""

    def _squeeze_columns(self, values: Any) -> Any:
        """Drop the last axis, of targets, where `y` has none."""
        return values
