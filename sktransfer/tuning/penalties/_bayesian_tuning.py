"""B-Tuning: stay close to what the teachers predict."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, StrOptions

from sktransfer.exceptions import WeakTeachersWarning
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.tuning.penalties._base import PenaltyBatch, PenaltyContext
from sktransfer.tuning.penalties._expectations import (
    expect,
    leave_one_out_head,
    mix_weights,
)
from sktransfer.tuning.penalties._teachers import (
    TeacherPenalty,
    TeacherTerm,
    check_teachers,
    compute_targets,
)
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class BayesianTuning(TeacherPenalty):
    r"""B-Tuning: keep to what the teachers together predict for every sample.

    Parameters
    ----------
    teachers : list of (extractor, LogME) tuples
        As returned by ``ModelSelector.teachers(k)``, of any widths. An unfitted LogME
        (as in every clone, and so in a grid search) is fitted to the training data.
    prior : {"shared", "per_target"}, default="shared"
        Heads whose predictive means are followed: those with an intercept and, for
        labels, one prior for all classes; or the given LogME, as in the paper. With few
        samples of a class its own prior makes its means almost 0, so that the teachers
        ignore it, and without an intercept numbers must have mean 0.
    mixture : {"logme", "loo_log_likelihood"}, default="logme"
        What decides the teachers' weights: their LogME, as in the paper, or the
        leave-one-out log-likelihood of calibrated heads. Where weak teachers are among
        strong ones, the latter gives them less weight.
    temperature : float, default=0.1
        Temperature, in nats, of the softmax that turns these scores into weights.
    normalize : bool, default=True
        Whether to divide the penalty of labels by the mean variance of their one-hot
        columns, so that a good `weight` does not depend on the number of classes. False
        is the paper's penalty. The penalty of numbers has the unit of their loss.
    memory : str or joblib.Memory, default=None
        Where to keep the teachers' features, as in
        :class:`~sktransfer.model_selection.ModelSelector`. They are then computed once
        for all fits, such as those of a grid search. Extractors alone are kept.
    weight : float, default=30.0
        Factor of the penalty, lambda. The penalty is a mean of small squares.

    See Also
    --------
    FeatureDistillation : Keep to the teachers' features instead.
    sktransfer.model_selection.ModelSelector.teachers : Gives the teachers.
    sktransfer.tuning.FineTuneClassifier : Takes this as its `penalty`.

    Notes
    -----
    With features f, posterior means m of LogME for target (or class) c, K teachers k
    and the tuned network t, the loss of n samples and C targets gains

    .. math:: \frac{\lambda}{n C} \sum_{i=1}^n \sum_{c=1}^C \Big( \sum_{k=1}^K \pi_k
              f_{ki}^\top m_{kc} - f_{ti}^\top m_{tc} \Big)^2, \qquad
              \pi = \mathrm{softmax}(\mathrm{LogME} / T)

    which is equation 5 of [1]_, divided by v if `normalize`: with p_c the frequency of
    class c, v is the mean of p_c (1 - p_c). It needs no labels, so the n samples of a
    batch are labelled and unlabelled ones. With few labels it is there that teachers
    help: on the labelled samples alone the network learns the labels by itself.

    All m are those of the networks at the start, so the teachers' targets of a sample
    are a vector of length C, whatever their number and widths. Where samples are set
    apart for validation, the teachers' LogME is fitted again without them. The means of
    the tuned network are those of a head of the same kind.

    A network can be its own teacher: the penalty is then 0 at the start (in evaluation
    mode) and keeps the network close to it.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.model_selection import ModelSelector
    >>> from sktransfer.tuning import BayesianTuning, FineTuneClassifier
    >>> X, y = load_dataset(return_X_y=True)
    >>> X, y = X[:100], y[:100]
    >>> zoo = load_zoo(["plain-emoji", "plain-handwritten", "residual-handwritten"])
    >>> selector = ModelSelector(zoo).fit(X, y)
    >>> network = dict(zoo)["plain-emoji"]
    >>> penalty = BayesianTuning(selector.teachers(2))
    >>> model = FineTuneClassifier(network, penalty=penalty, max_epochs=1).fit(X, y)
    >>> print(model.penalty_.mixture_weights.round(decimals=2))
    tensor([0.8200, 0.1800])
    """

    _parameter_constraints: ClassVar[dict] = {
        **TeacherPenalty._parameter_constraints,
        "prior": [StrOptions({"shared", "per_target"})],
        "mixture": [StrOptions({"loo_log_likelihood", "logme"})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "normalize": ["boolean"],
    }

    def __init__(
        self,
        teachers: Sequence[tuple[Any, Any]],
        *,
        prior: str = "shared",
        mixture: str = "logme",
        temperature: float = 0.1,
        normalize: bool = True,
        memory: str | joblib.Memory | None = None,
        weight: float = 30.0,
    ):
        self.teachers = teachers
        self.prior = prior
        self.mixture = mixture
        self.temperature = temperature
        self.normalize = normalize
        self.memory = memory
        self.weight = weight

    def check(self, y: np.ndarray, classes: np.ndarray | None) -> None:
        """Raise an error if parameters or teachers do not suit the task.

        Parameters
        ----------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Labels or numbers.
        classes : ndarray of shape (n_classes,) or None
            The sorted labels; None for regression.

        Raises
        ------
        ValueError
            If there is no teacher, or the LogME of a teacher was fitted on other
            classes, other targets or another number of samples.
        TypeError
            If a teacher is not an (extractor, LogME) tuple, or its LogME is for
            another task.
        """
        super().check(y, classes)
        wanted = LogME if classes is None else LogMEClassifier
        for i, (_, logme) in enumerate(self.teachers):
            if not isinstance(logme, wanted):
                task = "regression" if classes is None else "classification"
                raise TypeError(
                    f"The teachers of {type(self).__name__} must have a "
                    f"{wanted.__name__} for {task}. Got {logme!r} in teachers[{i}]."
                )
            if logme.__sklearn_is_fitted__():
                _check_fitted(logme, y, classes, f"teachers[{i}]")

    def bind(self, context: PenaltyContext) -> torch.nn.Module:
        """Fit the LogME of the network to be tuned, and mix the teachers.

        Parameters
        ----------
        context : PenaltyContext
            The network, its start and the data.

        Returns
        -------
        torch.nn.Module
            Has the attributes `mixture_weights`, `coef` and `intercept`, the latter for
            centred numbers.
        """
        y, train = context.y, context.train
        is_shared = self.prior == "shared"
        # Taken off in float64: float32 has no digits left beside a large mean.
        center = 0.0 if context.center is None else context.center
        extractors, heads, means, left_out, scores = [], [], [], [], []
        for extractor, logme in check_teachers(self.teachers):
            F = self._features(extractor, context.X)
            if len(train) < len(y) or not logme.__sklearn_is_fitted__():
                logme = clone(logme).fit(F[train], y[train])
            probe = leave_one_out_head(F, context)
            head = probe if is_shared else logme
            extractors.append(extractor)
            heads.append(head)
            means.append(_predictive_mean(head, F) - center)
            left_out.append(probe.loo_predictions_)
            by_logme = self.mixture == "logme"
            scores.append(logme.logme_ if by_logme else probe.loo_log_likelihood_)
        pi = mix_weights(scores, self.temperature)

        def mix(means: Sequence[np.ndarray]) -> np.ndarray:
            return np.tensordot(pi, means, axes=1).astype(np.float32)

        keep = context.precompute  # augmented samples never come again

        def teach(X: Any) -> np.ndarray:
            pairs = zip(extractors, heads, strict=True)
            return mix(
                [
                    _predictive_mean(m, self._features(e, X, keep=keep)) - center
                    for e, m in pairs
                ]
            )

        own_features = context.features(context.X)
        if is_shared:
            own = leave_one_out_head(own_features, context)
        else:
            own = clone(heads[0]).fit(own_features[train], y[train])
        coef, intercept = _coefficients(own)
        _warn_of_lost_lessons(coef, context)
        term = _PredictiveMeanTerm(teach, compute_targets(teach, mix(means), context))
        term.expectations = expect(left_out, pi, own_features, self, context)
        buffers = {
            "coef": coef,
            "intercept": intercept - center,
            "mixture_weights": pi,
            "unit": self._find_unit(context),
        }
        for name, values in buffers.items():
            term.register_buffer(name, torch.tensor(values, dtype=torch.float32))
        return term

    def _find_unit(self, context: PenaltyContext) -> np.ndarray:
        """What differences of predictive means are divided by."""
        if context.scale is not None:
            return context.scale
        if not self.normalize:
            return np.ones(1)
        shares = [np.mean(context.y == label) for label in context.classes]
        return np.sqrt(np.mean([[p * (1 - p)] for p in shares], axis=0))


class _PredictiveMeanTerm(TeacherTerm):
    """Mean squared difference between the teachers' and the own predictive mean."""

    def distance(
        self, batch: PenaltyBatch, teacher_targets: torch.Tensor
    ) -> torch.Tensor:
        own = torch.nn.functional.linear(batch.features, self.coef, self.intercept)
        return ((own - teacher_targets) / self.unit).square().mean()


def _warn_of_lost_lessons(coef: np.ndarray, context: PenaltyContext) -> None:
    """Warn of classes or targets of which the network would learn nothing."""
    lost = np.flatnonzero(~coef.any(axis=1))
    if len(lost):
        what = f"{len(lost)} of the {len(coef)} targets"
        if context.classes is not None:
            what = f"the classes {context.classes[lost].tolist()}"
        warnings.warn(
            "The network's features before tuning explain nothing of "
            f"{what}: the posterior means of its LogME are 0, and BayesianTuning "
            "teaches nothing of these. PredictiveDistillation does.",
            WeakTeachersWarning,
            stacklevel=6,
        )


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
