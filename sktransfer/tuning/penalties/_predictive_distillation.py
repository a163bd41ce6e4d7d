"""Predictive distillation: follow the soft labels of the teachers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import joblib
import numpy as np
from scipy.special import softmax
from sklearn.utils._param_validation import Interval, StrOptions

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
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class PredictiveDistillation(TeacherPenalty):
    r"""Keep the predictions of the network close to those of the teachers.

    Parameters
    ----------
    teachers : list of (extractor, LogME) tuples
        As returned by ``ModelSelector.teachers(k)``, of any widths. Their LogME is not
        used: what they predict comes from calibrated heads, fitted in closed form.
    mixture : {"loo_log_likelihood", "logme"}, default="loo_log_likelihood"
        Score of the heads, in nats per sample, that decides the teachers' weights.
    temperature : float, default=0.1
        Temperature, in nats, of the softmax that turns scores into weights.
    memory : str or joblib.Memory, default=None
        Where to keep the teachers' features; see :class:`BayesianTuning`.
    weight : float, default=3.0
        Factor of the penalty.

    See Also
    --------
    BayesianTuning : Keep to the teachers' predictive means instead.
    FeatureDistillation : Keep to the teachers' features instead.

    Notes
    -----
    With q_i the class probabilities of the mixed teachers for sample i, and p_i those
    of the tuned network, the penalty is

    .. math:: \frac1n \sum_{i=1}^n \mathrm{KL}(q_i \,\|\, p_i), \qquad
              q_i = \sum_k \pi_k \mathrm{softmax}(\mu_{ki} / T_k), \qquad
              \pi = \mathrm{softmax}(\mathrm{score} / \mathrm{temperature})

    where teacher k has a :class:`~sktransfer.linear_model.LogMEClassifier` with
    intercept and one prior for all classes, :math:`\mu_{ki}` are its predictive means
    and T_k is its leave-one-out temperature, at which its probabilities are calibrated.
    The q of labelled samples come from leave-one-out predictions, since a teacher has
    seen the labels. Batches that are augmented are taught as new samples.

    For numbers q_i and p_i are predictions, and the penalty is the mean squared
    difference in units of the targets' variances.

    The penalty needs no labels. Its main use are unlabelled samples, on which the
    network learns from the teachers what it cannot learn from few labels.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural
       Network", NIPS Deep Learning Workshop, 2014.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.linear_model import LogMEClassifier
    >>> from sktransfer.tuning import FineTuneClassifier, PredictiveDistillation
    >>> X, y = load_dataset(return_X_y=True)
    >>> (_, network), (_, teacher) = load_zoo(["plain-emoji", "residual-handwritten"])
    >>> penalty = PredictiveDistillation([(teacher, LogMEClassifier())])
    >>> model = FineTuneClassifier(network, penalty=penalty, max_epochs=1)
    >>> model = model.fit(X[:100], y[:100], unlabelled=X[100:300])
    >>> expected = model.penalty_.expectations
    >>> expected.mixture > expected.network
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **TeacherPenalty._parameter_constraints,
        "mixture": [StrOptions({"loo_log_likelihood", "logme"})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        teachers: Sequence[tuple[Any, Any]],
        *,
        mixture: str = "loo_log_likelihood",
        temperature: float = 0.1,
        memory: str | joblib.Memory | None = None,
        weight: float = 3.0,
    ):
        self.teachers = teachers
        self.mixture = mixture
        self.temperature = temperature
        self.memory = memory
        self.weight = weight

    def bind(self, context: PenaltyContext) -> torch.nn.Module:
        """Fit the heads of the teachers, and mix what they predict.

        Parameters
        ----------
        context : PenaltyContext
            The network, its start and the data.

        Returns
        -------
        torch.nn.Module
            Has the attributes `mixture_weights` and `expectations`.
        """
        extractors = [extractor for extractor, _ in check_teachers(self.teachers)]
        heads, predictions, left_out = [], [], []
        for extractor in extractors:
            F = self._features(extractor, context.X)
            head = leave_one_out_head(F, context)
            own = _predict(head, F, context)
            # Not what it has seen the labels of.
            own[context.train] = _as_targets(head, head.loo_predictions_, context)
            heads.append(head)
            predictions.append(own)
            is_regression = context.classes is None
            left_out.append(
                head.loo_predictions_ if is_regression else own[context.train]
            )
        pi = mix_weights(
            [getattr(head, f"{self.mixture}_") for head in heads], self.temperature
        )

        def mix(predictions: Sequence[np.ndarray]) -> np.ndarray:
            return np.tensordot(pi, predictions, axes=1).astype(np.float32)

        keep = context.precompute  # augmented samples never come again

        def teach(X: Any) -> np.ndarray:
            pairs = zip(heads, extractors, strict=True)
            return mix(
                [
                    _predict(h, self._features(e, X, keep=keep), context)
                    for h, e in pairs
                ]
            )

        kind = _SquaredDistance if context.classes is None else _Divergence
        term = kind(teach, compute_targets(teach, mix(predictions), context))
        term.register_buffer("mixture_weights", torch.tensor(pi, dtype=torch.float32))
        own_features = context.features(context.X)
        term.expectations = expect(left_out, pi, own_features, self, context)
        return term


def _predict(head: Any, features: Any, context: PenaltyContext) -> np.ndarray:
    """What a head gives the network to follow, (n_samples, n_outputs)."""
    if context.classes is not None:
        return head.predict_proba(features)
    return _as_targets(head, head.predict(features), context)


def _as_targets(
    head: Any, predictions: np.ndarray, context: PenaltyContext
) -> np.ndarray:
    """Predictive means as probabilities, or as standardised numbers."""
    if context.classes is not None:
        return softmax(predictions / head.temperature_, axis=1)
    return (predictions.reshape(len(predictions), -1) - context.center) / context.scale


class _Divergence(TeacherTerm):
    """Mean Kullback-Leibler divergence of the network's from the teachers' labels."""

    def distance(
        self, batch: PenaltyBatch, teacher_targets: torch.Tensor
    ) -> torch.Tensor:
        own = torch.nn.functional.log_softmax(batch.outputs, dim=1)
        return torch.nn.functional.kl_div(own, teacher_targets, reduction="batchmean")


class _SquaredDistance(TeacherTerm):
    """Mean squared difference of the network's and the teachers' predictions."""

    def distance(
        self, batch: PenaltyBatch, teacher_targets: torch.Tensor
    ) -> torch.Tensor:
        return torch.nn.functional.mse_loss(batch.outputs, teacher_targets)
