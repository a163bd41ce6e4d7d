"""Checked samples: features, targets and weights that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sktransfer.utils._array_api import (
    chunks,
    device,
    from_numpy,
    get_namespace,
    to_numpy,
)


def take_rows(A: Any, rows: slice | np.ndarray) -> Any:
    """Rows of an array of any namespace, by slice or by their places."""
    if isinstance(rows, slice):
        return A[rows, ...]
    xp, _ = get_namespace(A=A)
    return xp.take(A, from_numpy(rows, xp, device(A)), axis=0)


@dataclass(frozen=True)
class Samples:
    """Samples that have been validated; nothing below checks them again."""

    X: Any  # finite, float32 or float64, (n, n_features)
    targets: Any  # class codes (n,), or numbers (n, n_targets) in float64
    n_classes: int | None = None  # of the codes
    weights: Any = None  # float64, (n,)

    @cached_property
    def _home(self) -> tuple[Any, Any]:
        return get_namespace(X=self.X)

    @property
    def xp(self) -> Any:
        """Namespace of all arrays."""
        return self._home[0]

    @property
    def device(self) -> Any:
        """Device of all arrays."""
        return self._home[1]

    def __getstate__(self) -> dict[str, Any]:
        # Namespaces are modules, which cannot be pickled.
        return {k: v for k, v in vars(self).items() if k != "_home"}

    def __len__(self) -> int:
        return self.X.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> Samples:
        return replace(
            self,
            X=take_rows(self.X, rows),
            targets=take_rows(self.targets, rows),
            weights=None if self.weights is None else take_rows(self.weights, rows),
        )

    def blocks(self, size: int) -> Iterator[Samples]:
        """Consecutive samples, `size` at a time."""
        return (self[rows] for rows in chunks(len(self), size))

    @property
    def columns(self) -> Any:
        """Targets as columns of numbers, one-hot for classes, in float64."""
        if self.n_classes is None:
            return self.targets
        classes = self.xp.arange(self.n_classes, device=self.device)
        one_hot = self.targets[:, None] == classes[None, :]
        return self.xp.astype(one_hot, self.xp.float64)

    @property
    def positive(self) -> np.ndarray:
        """Places of the samples of positive weight."""
        if self.weights is None:
            return np.arange(len(self))
        return np.flatnonzero(to_numpy(self.weights) > 0)

    def copy(self) -> Samples:
        """The same samples in memory of their own."""
        arrays = {"X": self.X, "targets": self.targets, "weights": self.weights}
        own = {
            name: self.xp.asarray(array, copy=True)
            for name, array in arrays.items()
            if array is not None
        }
        return replace(self, **own)

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """All samples of several parts."""
        first = parts[0]
        if len(parts) == 1:
            return first
        xp, weights = first.xp, None
        if any(part.weights is not None for part in parts):
            weights = xp.concat(
                [
                    xp.ones(len(part), dtype=xp.float64, device=first.device)
                    if part.weights is None
                    else part.weights
                    for part in parts
                ]
            )
        return replace(
            first,
            X=xp.concat([part.X for part in parts]),
            targets=xp.concat([part.targets for part in parts]),
            weights=weights,
        )
