"""Knowledge distillation: stay close to the teachers' features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import joblib
import numpy as np

from sktransfer.feature_extraction import take_samples
from sktransfer.tuning.penalties._base import PenaltyBatch, PenaltyContext
from sktransfer.tuning.penalties._teachers import (
    TeacherPenalty,
    TeacherTerm,
    check_teachers,
    compute_targets,
)
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class FeatureDistillation(TeacherPenalty):
    r"""Knowledge distillation: keep the teachers' features linear in the network's own.

    Parameters
    ----------
    teachers : list of (extractor, LogME) tuples
        As returned by ``ModelSelector.teachers(k)``, of any widths. Their LogME is not
        used.
    memory : str or joblib.Memory, default=None
        Where to keep the teachers' features; see :class:`BayesianTuning`.
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
    wider the teachers and the larger their features, the smaller `weight` must be.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.linear_model import LogMEClassifier
    >>> from sktransfer.tuning import FeatureDistillation, FineTuneClassifier
    >>> X, y = load_dataset(return_X_y=True)
    >>> (_, network), (_, teacher) = load_zoo(["plain-emoji", "plain-handwritten"])
    >>> penalty = FeatureDistillation([(teacher, LogMEClassifier())])
    >>> model = FineTuneClassifier(network, penalty=penalty, max_epochs=1)
    >>> model.fit(X[:100], y[:100]).penalty_.project.weight.shape
    torch.Size([64, 64])
    """

    def __init__(
        self,
        teachers: Sequence[tuple[Any, Any]],
        *,
        memory: str | joblib.Memory | None = None,
        weight: float = 0.01,
    ):
        self.teachers = teachers
        self.memory = memory
        self.weight = weight

    def bind(self, context: PenaltyContext) -> torch.nn.Module:
        """Make the matrices that will be learnt.

        Parameters
        ----------
        context : PenaltyContext
            The network, its start and the data.

        Returns
        -------
        torch.nn.Module
            Has the attribute `project`, the matrices one below the other.
        """
        extractors = [extractor for extractor, _ in check_teachers(self.teachers)]

        keep = context.precompute  # augmented samples never come again

        def teach(X: Any) -> np.ndarray:
            parts = [
                np.asarray(self._features(e, X, keep=keep), np.float32)
                for e in extractors
            ]
            return np.concatenate(parts, axis=1)

        # The width alone is needed where batches will be augmented.
        one = take_samples(context.X, np.arange(1))
        labelled = teach(context.X if context.precompute else one)
        return _DistillationTerm(
            teach,
            compute_targets(teach, labelled, context),
            context.features(one).shape[1],
            labelled.shape[1],
            len(extractors),
        )


class _DistillationTerm(TeacherTerm):
    """Squared distance of the teachers' features, one below the other, from W phi_t."""

    def __init__(
        self,
        teach: Callable[[Any], np.ndarray],
        teacher_targets: np.ndarray | None,
        n_features: int,
        width: int,
        n_teachers: int,
    ):
        super().__init__(teach, teacher_targets)
        self.n_teachers = n_teachers
        self.project = torch.nn.Linear(
            n_features, width, bias=False, dtype=torch.float32
        )

    def distance(
        self, batch: PenaltyBatch, teacher_targets: torch.Tensor
    ) -> torch.Tensor:
        misfit = (teacher_targets - self.project(batch.features)).square().sum(dim=1)
        return misfit.mean() / self.n_teachers
