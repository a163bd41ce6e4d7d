"""What penalties with teachers share: the teachers' targets, computed once."""

from __future__ import annotations

import math
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import check_memory

from sktransfer.feature_extraction import take_samples
from sktransfer.feature_extraction._extract import is_stateless
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.model_selection._cache import SampleDigests, fit_and_extract
from sktransfer.tuning._batches import Batch
from sktransfer.tuning.penalties._base import (
    BasePenalty,
    PenaltyBatch,
    PenaltyContext,
)
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")

# Targets of all samples stay in memory up to this size, larger ones on disk.
_MAX_BYTES = 2**30
# Samples that teachers see at a time.
_BLOCK = 1024


class TeacherPenalty(BasePenalty):
    """Base class of penalties with `teachers`, which are frozen and left unchanged.

    They have the parameters `teachers`, `memory` and `weight`.
    """

    uses_unlabelled = True

    _parameter_constraints: ClassVar[dict] = {
        **BasePenalty._parameter_constraints,
        "teachers": [list, tuple],
        "memory": [None, str, HasMethods(["cache"])],
    }

    def check(self, y: np.ndarray, classes: np.ndarray | None) -> None:
        """Raise an error if parameters or teachers are not valid."""
        super().check(y, classes)
        check_teachers(self.teachers)

    def _features(self, extractor: Any, X: Any, *, keep: bool = True) -> np.ndarray:
        """Features of samples, from `memory` if they are to be kept there."""
        memory = check_memory(self.memory)
        digests = None
        if keep and is_stateless(extractor):  # a lookup would fit others anew
            digests = SampleDigests(X, len(X), memory).of(np.arange(len(X)), None)
        if digests is None:
            features = _transform(extractor, X)
        else:
            # As the selector looks them up, so that it finds them, too.
            wanted = {"source_proba": False, "all_layers": False}
            name = type(extractor).__name__
            found = fit_and_extract(name, extractor, X, None, wanted, memory, digests)
            features = np.asarray(found[1].joined)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise _NotFiniteError(bad, len(X))
        return features


def _transform(extractor: Any, X: Any) -> np.ndarray:
    """Features of a teacher, (n_samples, n_features)."""
    try:
        features = extractor.transform(X)
    except NotFittedError as error:
        error.add_note(
            "Teachers are not fitted in training, and clones, as in a grid search, "
            "forget what they have learnt: pass FrozenEstimator(teacher), of "
            "sklearn.frozen."
        )
        raise
    if not issparse(features):  # which check_array explains
        features = to_numpy(features)
    features = check_array(
        features, ensure_all_finite=False, input_name="the features of a teacher"
    )
    if len(features) != len(X):
        raise ValueError(
            f"A teacher gives {len(features)} rows of features for {len(X)} samples: "
            f"{extractor!r}."
        )
    return features


class _NotFiniteError(ValueError):
    """Features of a teacher are NaN or infinite for some rows of n samples."""

    def __init__(self, rows: np.ndarray, n_samples: int):
        which = Batch(None, rows[:10], n_samples).describe(np.arange(len(rows[:10])))
        super().__init__(
            "The features of a teacher are NaN or infinite for "
            f"{which}{' and others' if len(rows) > 10 else ''}. Look for NaN in these."
        )
        self.rows = rows


class TeacherTerm(torch.nn.Module):
    """Base class of terms that compare a batch with its teachers' targets.

    `teach` maps raw samples to float32 targets (n_samples, width). `teacher_targets`
    are those of all samples, or None if batches are augmented. The data and the
    teachers stay out of pickles and copies.
    """

    def __init__(
        self, teach: Callable[[Any], np.ndarray], teacher_targets: np.ndarray | None
    ):
        super().__init__()
        self.teach = teach
        self.teacher_targets = teacher_targets

    def forward(self, batch: PenaltyBatch) -> torch.Tensor:
        """The distance of a batch from its teachers' targets."""
        known = self.teacher_targets
        targets = self.teach(batch.X) if known is None else known[batch.rows]
        return self.distance(batch, torch.from_numpy(targets).to(batch.features))

    @abstractmethod
    def distance(
        self, batch: PenaltyBatch, teacher_targets: torch.Tensor
    ) -> torch.Tensor:
        """The mean distance, one number."""

    def __getstate__(self) -> dict[str, Any]:
        held = {"teach", "teacher_targets"}
        return {k: v for k, v in vars(self).items() if k not in held}


def compute_targets(
    teach: Callable[[Any], np.ndarray], labelled: np.ndarray, context: PenaltyContext
) -> np.ndarray | None:
    """Targets of all samples, or None if the samples of batches will be augmented.

    Those of the labelled samples are given. The unlabelled samples are taught block by
    block, and what does not fit into memory is kept in a temporary file.
    """
    if not context.precompute:
        return None
    n_labelled, width = labelled.shape
    n_unlabelled = 0 if context.unlabelled is None else len(context.unlabelled)
    shape = n_labelled + n_unlabelled, width
    if math.prod(shape) * 4 > _MAX_BYTES:
        file = tempfile.TemporaryFile()  # deleted with the array
        targets = np.memmap(file, np.float32, "w+", shape=shape)
    else:
        targets = np.empty(shape, np.float32)
    targets[:n_labelled] = labelled
    for start in context.track(range(0, n_unlabelled, _BLOCK), "teachers"):
        rows = np.arange(start, min(start + _BLOCK, n_unlabelled))
        try:
            block = teach(take_samples(context.unlabelled, rows))
        except _NotFiniteError as error:
            rows = n_labelled + start + error.rows
            raise _NotFiniteError(rows, n_labelled) from error
        except Exception as error:
            error.add_note(f"X starts here at the unlabelled sample {start}.")
            raise
        targets[n_labelled + rows] = block
    return targets


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
