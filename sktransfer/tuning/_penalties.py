"""What other models know, as a penalty on the loss of the one that is tuned."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import Interval

from sktransfer.feature_extraction import take_samples
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class BoundPenalty(NamedTuple):
    """A penalty that knows the data, the teachers and the network to be tuned.

    Attributes
    ----------
    term : torch.nn.Module
        ``term(features, part)`` is the penalty of a batch, one number, of the features
        that are tuned (n, n_features) and the teachers' part (n, width).
    teach : callable
        Raw samples -> what the teachers make of them, float32, (n_samples, width).
    part : ndarray of shape (n_samples, width) or None
        The teachers' part of the training samples, where it was asked for.
    """

    term: torch.nn.Module
    teach: Callable[[Any], np.ndarray]
    part: np.ndarray | None


class BasePenalty(BaseEstimator, metaclass=ABCMeta):
    """Base class of the penalties: ``weight * term(features, part)`` on every batch.

    The contract of a penalty:

    1. ``__init__`` only stores parameters, ``teachers`` and ``weight`` among them.
    2. ``teachers`` are (extractor, LogME) pairs, as ``ModelSelector.teachers`` gives.
    3. ``check(y, classes)`` raises, before any work, where they do not fit the task.
    4. ``bind(X, y, features, precompute)`` makes a :class:`BoundPenalty` of it.
    5. All that goes into it is fixed then, from the networks as they are at the start.
    6. Teachers are frozen, and no object handed in is changed.
    7. Their part is computed once for all samples, or per batch under augmentation.
    8. What the term has to learn are its parameters, at the head's learning rate.
    9. A penalty is a mean over samples, so that its weight does not depend on batches.
    10. With ``weight=0`` the network learns step by step as without a penalty.

    See Also
    --------
    BayesianTuning : Teachers' predictive means.
    FeatureDistillation : Teachers' features.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sktransfer.tuning import BasePenalty, BoundPenalty
    >>> class SmallFeatures(BasePenalty):
    ...     '''Half the mean squared norm of the features: needs no teacher.'''
    ...
    ...     class Term(torch.nn.Module):
    ...         def forward(self, features, part):
    ...             return features.square().sum(1).mean() / 2
    ...
    ...     def __init__(self, teachers=(), *, weight=1.0):
    ...         self.teachers = teachers
    ...         self.weight = weight
    ...
    ...     def check(self, y, classes):
    ...         self._validate_params()
    ...
    ...     def bind(self, X, y, features, *, precompute):
    ...         nothing = lambda X: np.zeros((len(X), 0), dtype=np.float32)
    ...         return BoundPenalty(self.Term(), nothing, nothing(X))
    >>> bound = SmallFeatures().bind(np.zeros(3), None, None, precompute=True)
    >>> bound.term(torch.ones(3, 4), bound.part)
    tensor(2.)
    """

    _parameter_constraints: ClassVar[dict] = {
        "teachers": [list, tuple],
        "weight": [Interval(Real, 0, None, closed="left")],
    }

    @abstractmethod
    def check(self, y: np.ndarray, classes: np.ndarray | None) -> None:
        """Raise an error if parameters or teachers do not fit the task.

        Parameters
        ----------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Labels or numbers.
        classes : ndarray of shape (n_classes,) or None
            The sorted labels; None for regression.
        """

    @abstractmethod
    def bind(
        self,
        X: Any,
        y: np.ndarray,
        features: Callable[[Any], np.ndarray],
        *,
        precompute: bool,
    ) -> BoundPenalty:
        """Fix all that is known before training.

        Parameters
        ----------
        X : raw samples
            Those given to ``fit``, any validation part included.
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        features : callable
            Raw samples -> what the network to be tuned makes of them as it is,
            (n_samples, n_features).
        precompute : bool
            Whether the teachers' part of X is wanted.

        Returns
        -------
        BoundPenalty
        """


class BayesianTuning(BasePenalty):
    r"""B-Tuning: keep to what the teachers together predict of every sample.

    Parameters
    ----------
    teachers : list of (extractor, LogME) tuples
        As ``ModelSelector.teachers(k)`` gives them, of any widths. An unfitted LogME
        (so it is in every clone, as in a grid search) is fitted to the training data.
    temperature : float, default=0.1
        Of the soft-max that makes the teachers' weights of their LogME, in nats.
    weight : float, default=1.0
        Factor of the penalty, lambda.

    See Also
    --------
    FeatureDistillation : Keep to the teachers' features instead.
    sktransfer.model_selection.ModelSelector.teachers : Gives the teachers.
    sktransfer.tuning.FineTuneClassifier : Takes this as its `penalty`.

    Notes
    -----
    With f the features, m the posterior means of LogME for target (or class) c, K
    teachers k and the tuned network t, the loss of n samples and C targets gains

    .. math:: \frac{\lambda}{n C} \sum_{i=1}^n \sum_{c=1}^C \Big( \sum_{k=1}^K \pi_k
              f_{ki}^\top m_{kc} - f_{ti}^\top m_{tc} \Big)^2, \qquad
              \pi = \mathrm{softmax}(\mathrm{LogME} / T)

    which is equation 5 of [1]_. All m come from the networks as they are at the start,
    so that the teachers' part of a sample is a vector of length C, whatever their
    number and widths. All samples given to `fit` count, also those set apart for early
    stopping. The tuned network's LogME has the parameters of the first teacher's.

    The teacher of a network can be the network itself: then the penalty is 0 at the
    start (in evaluation mode) and holds it back.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.

    Examples
    --------
    >>> from sktransfer.datasets import load_target, load_zoo
    >>> from sktransfer.model_selection import ModelSelector
    >>> from sktransfer.tuning import BayesianTuning, FineTuneClassifier
    >>> X, y = load_target(return_X_y=True)
    >>> X, y = X[:100], y[:100]
    >>> zoo = load_zoo(["plain-emoji", "plain-handwritten", "residual-handwritten"])
    >>> selector = ModelSelector(zoo).fit(X, y)
    >>> target = dict(zoo)["plain-emoji"]
    >>> penalty = BayesianTuning(selector.teachers(2))
    >>> model = FineTuneClassifier(target, penalty=penalty, max_epochs=1).fit(X, y)
    >>> print(model.penalty_.mixture_weights.round(decimals=2))
    tensor([0.8200, 0.1800])
    """

    _parameter_constraints: ClassVar[dict] = {
        **BasePenalty._parameter_constraints,
        "temperature": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        teachers: Sequence[tuple[Any, Any]],
        *,
        temperature: float = 0.1,
        weight: float = 1.0,
    ):
        self.teachers = teachers
        self.temperature = temperature
        self.weight = weight

    def check(self, y: np.ndarray, classes: np.ndarray | None) -> None:
        """Raise an error if parameters or teachers do not fit the task.

        Parameters
        ----------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Labels or numbers.
        classes : ndarray of shape (n_classes,) or None
            The sorted labels; None for regression.

        Raises
        ------
        ValueError
            If there is no teacher, or a teacher's LogME is for another task, was fitted
            on other classes, other targets or another number of samples.
        TypeError
            If a teacher is not an (extractor, LogME) tuple.
        """
        self._validate_params()
        wanted = LogME if classes is None else LogMEClassifier
        for i, (_, logme) in enumerate(check_pairs(self.teachers)):
            if not isinstance(logme, wanted):
                task = "regression" if classes is None else "classification"
                raise TypeError(
                    f"The teachers of {type(self).__name__} must have a "
                    f"{wanted.__name__} for {task}. Got {logme!r} in teachers[{i}]."
                )
            if logme.__sklearn_is_fitted__():
                _check_fitted(logme, y, classes, f"teachers[{i}]")

    def bind(
        self,
        X: Any,
        y: np.ndarray,
        features: Callable[[Any], np.ndarray],
        *,
        precompute: bool,
    ) -> BoundPenalty:
        """Fit the LogME of the network to be tuned, and mix the teachers.

        Parameters
        ----------
        X : raw samples
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        features : callable
            Raw samples -> features of the network to be tuned as it is.
        precompute : bool
            Whether the teachers' part of X is wanted.

        Returns
        -------
        BoundPenalty
            The width of the teachers' part is the number of targets. The term has the
            attributes `mixture_weights`, `coef` and `intercept`.
        """
        extractors, heads, means = [], [], []
        for extractor, logme in check_pairs(self.teachers):
            known = logme.__sklearn_is_fitted__()
            if precompute or not known:
                F = extractor.transform(X)
                logme = logme if known else clone(logme).fit(F, y)
                means.append(_predictive_mean(logme, F))
            extractors.append(extractor)
            heads.append(logme)
        pi = _mixture_weights([logme.logme_ for logme in heads], self.temperature)

        def mix(means: Sequence[np.ndarray]) -> np.ndarray:
            return np.tensordot(pi, means, axes=1).astype(np.float32)

        def teach(X: Any) -> np.ndarray:
            pairs = zip(extractors, heads, strict=True)
            return mix([_predictive_mean(m, e.transform(X)) for e, m in pairs])

        own = clone(heads[0]).fit(features(X), y)
        term = _PredictiveMeanTerm(*_coefficients(own), pi)
        return BoundPenalty(term, teach, mix(means) if precompute else None)


class FeatureDistillation(BasePenalty):
    r"""Knowledge distillation: let the teachers' features be linear in one's own.

    Parameters
    ----------
    teachers : list of (extractor, LogME) tuples
        As ``ModelSelector.teachers(k)`` gives them, of any widths. Their LogME plays no
        part.
    weight : float, default=0.01
        Factor of the penalty.

    See Also
    --------
    BayesianTuning : Keep to the teachers' predictions instead.
    sktransfer.tuning.FineTuneClassifier : Takes this as its `penalty`.

    Notes
    -----
    With teachers' features phi_k and those of the tuned network phi_t, the penalty is

    .. math:: \frac1n \sum_{i=1}^n \frac1K \sum_{k=1}^K
              \big\| \phi_k(x_i) - W_k \phi_t(x_i) \big\|^2

    where the matrices W_k are learnt with the head. It is a sum over features: the
    larger and the more features teachers have, the smaller `weight` has to be.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.

    Examples
    --------
    >>> from sktransfer.datasets import load_target, load_zoo
    >>> from sktransfer.linear_model import LogMEClassifier
    >>> from sktransfer.tuning import FeatureDistillation, FineTuneClassifier
    >>> X, y = load_target(return_X_y=True)
    >>> (_, target), (_, teacher) = load_zoo(["plain-emoji", "plain-handwritten"])
    >>> penalty = FeatureDistillation([(teacher, LogMEClassifier())])
    >>> model = FineTuneClassifier(target, penalty=penalty, max_epochs=1)
    >>> model.fit(X[:100], y[:100]).penalty_.project.weight.shape
    torch.Size([64, 64])
    """

    def __init__(self, teachers: Sequence[tuple[Any, Any]], *, weight: float = 0.01):
        self.teachers = teachers
        self.weight = weight

    def check(self, y: np.ndarray, classes: np.ndarray | None) -> None:
        """Raise an error if parameters or teachers are not valid; any task will do.

        Parameters
        ----------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        classes : ndarray of shape (n_classes,) or None

        Raises
        ------
        ValueError
            If there is no teacher.
        TypeError
            If a teacher is not an (extractor, LogME) tuple.
        """
        self._validate_params()
        check_pairs(self.teachers)

    def bind(
        self,
        X: Any,
        y: np.ndarray,
        features: Callable[[Any], np.ndarray],
        *,
        precompute: bool,
    ) -> BoundPenalty:
        """Make the matrices that will be learnt.

        Parameters
        ----------
        X : raw samples
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        features : callable
            Raw samples -> features of the network to be tuned as it is.
        precompute : bool
            Whether the teachers' part of X is wanted.

        Returns
        -------
        BoundPenalty
            The width of the teachers' part is the sum of their widths.
        """
        extractors = [extractor for extractor, _ in check_pairs(self.teachers)]

        def teach(X: Any) -> np.ndarray:
            parts = [np.asarray(e.transform(X), np.float32) for e in extractors]
            return np.concatenate(parts, axis=1)

        part = teach(X) if precompute else None
        one = take_samples(X, np.arange(1))
        n_taught = (teach(one) if part is None else part).shape[1]
        n_features = features(one).shape[1]
        term = _DistillationTerm(n_features, n_taught, n_teachers=len(extractors))
        return BoundPenalty(term, teach, part)


class _PredictiveMeanTerm(torch.nn.Module):
    """Mean squared difference between the teachers' and the own predictive mean."""

    def __init__(
        self, coef: np.ndarray, intercept: np.ndarray, mixture_weights: np.ndarray
    ):
        super().__init__()
        for name, values in (
            ("coef", coef),
            ("intercept", intercept),
            ("mixture_weights", mixture_weights),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def forward(self, features: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        own = torch.nn.functional.linear(features, self.coef, self.intercept)
        return torch.nn.functional.mse_loss(own, part)


class _DistillationTerm(torch.nn.Module):
    """Squared distance of the teachers' features, one below the other, from W phi_t."""

    def __init__(self, n_features: int, n_taught: int, *, n_teachers: int):
        super().__init__()
        self.n_teachers = n_teachers
        self.project = torch.nn.Linear(n_features, n_taught, bias=False)

    def forward(self, features: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        misfit = (part - self.project(features)).square().sum(dim=1)
        return misfit.mean() / self.n_teachers


def check_pairs(teachers: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The teachers, checked for being (extractor, LogME) tuples."""
    if len(teachers) == 0:
        raise ValueError(
            "The 'teachers' parameter must hold at least one (extractor, LogME) tuple, "
            "as ModelSelector.teachers gives. Got none."
        )
    for i, pair in enumerate(teachers):
        is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not (
            is_pair
            and hasattr(pair[0], "transform")
            and isinstance(pair[1], (LogME, LogMEClassifier))
        ):
            raise TypeError(
                "The 'teachers' parameter must hold (extractor, LogME) tuples, as "
                f"ModelSelector.teachers gives. Got {pair!r} as teachers[{i}]."
            )
    return [tuple(pair) for pair in teachers]


def _mixture_weights(logme: Sequence[float], temperature: float) -> np.ndarray:
    """Soft-max of LogME / temperature."""
    scores = np.array(logme) / temperature
    if (perfect := np.isposinf(scores)).any():
        # A target that is explained without error: finite scores do not count then.
        scores = np.where(perfect, 0, -np.inf)
    return softmax(scores)


def _check_fitted(
    logme: Any, y: np.ndarray, classes: np.ndarray | None, name: str
) -> None:
    """Refuse a LogME that cannot have been fitted to this target."""
    advice = "Fit it to the training data, or give it unfitted."
    # With an intercept only the contrasts are counted.
    n_seen = round(logme._solve().spectrum.n_samples + logme.fit_intercept)
    if n_seen != len(y):
        raise ValueError(
            f"{name} was fitted on {n_seen} samples, but the training data has "
            f"{len(y)}. {advice}"
        )
    if classes is None:
        n_targets, wanted = len(_coefficients(logme)[1]), y.reshape(len(y), -1).shape[1]
        if n_targets != wanted:
            raise ValueError(
                f"{name} was fitted on {n_targets} target(s), but y has {wanted}. "
                f"{advice}"
            )
        return
    unseen = np.setdiff1d(classes, logme.classes_).tolist()
    missing = np.setdiff1d(logme.classes_, classes).tolist()
    if unseen or missing:
        raise ValueError(
            f"{name} was fitted on other classes than those of y: it has not seen "
            f"{unseen}, and y does not have {missing}. {advice}"
        )


def _coefficients(logme: Any) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means (n_targets, n_features) and intercepts (n_targets,)."""
    coef, intercept = to_numpy(logme.coef_), to_numpy(logme.intercept_)
    return np.atleast_2d(coef), np.atleast_1d(intercept)


def _predictive_mean(logme: Any, features: Any) -> np.ndarray:
    """f^T m of every sample and target, (n_samples, n_targets)."""
    coef, intercept = _coefficients(logme)
    return to_numpy(features) @ coef.T + intercept
