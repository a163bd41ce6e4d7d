"""What penalties with teachers share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.tuning.penalties._base import BasePenalty
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class TeacherPenalty(BasePenalty):
    """Base class of penalties with `teachers`, which are frozen and left unchanged."""

    _parameter_constraints: ClassVar[dict] = {
        **BasePenalty._parameter_constraints,
        "teachers": [list, tuple],
    }

    def check(self, y: np.ndarray, classes: np.ndarray | None) -> None:
        """Raise an error if parameters or teachers are not valid."""
        super().check(y, classes)
        check_teachers(self.teachers)


class TeacherTerm(torch.nn.Module):
    """Base class of terms that compare a batch with its teachers' targets.

    `teach` maps raw samples to float32 targets (n_samples, width). `teacher_targets`
    are those of all samples if they were precomputed, else None. The data and the
    teachers stay out of pickles and copies.
    """

    def __init__(
        self, teach: Callable[[Any], np.ndarray], teacher_targets: np.ndarray | None
    ):
        super().__init__()
        self.teach = teach
        self.teacher_targets = teacher_targets

    def forward(self, features: torch.Tensor, X: Any, rows: np.ndarray) -> torch.Tensor:
        """The distance of a batch from its teachers' targets."""
        known = self.teacher_targets
        targets = self.teach(X) if known is None else known[rows]
        return self.distance(features, torch.from_numpy(targets).to(features))

    @abstractmethod
    def distance(
        self, features: torch.Tensor, teacher_targets: torch.Tensor
    ) -> torch.Tensor:
        """The mean distance, one number."""

    def __getstate__(self) -> dict[str, Any]:
        held = {"teach", "teacher_targets"}
        return {k: v for k, v in vars(self).items() if k not in held}


def check_teachers(teachers: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The teachers, checked for being (extractor, LogME) tuples."""
    if len(teachers) == 0:
        raise ValueError(
            "The 'teachers' parameter must hold at least one (extractor, LogME) tuple, "
            "as returned by ModelSelector.teachers. Got none."
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
                f"returned by ModelSelector.teachers. Got {pair!r} as teachers[{i}]."
            )
    return [tuple(pair) for pair in teachers]
