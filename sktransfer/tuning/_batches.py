"""Batches of raw samples for training, labelled ones beside unlabelled ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from sktransfer.feature_extraction import take_samples
from sktransfer.feature_extraction._samples import is_array
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


@dataclass
class Batch:
    """Raw samples of a batch, the labelled ones first, and their rows.

    Rows are positions in the labelled data given to ``fit``, of `n_samples`; those of
    unlabelled samples go on from there. A worker has read the samples: `inputs` are
    then what the extractor makes of them, on the CPU, and X may be None.
    """

    X: Any
    rows: np.ndarray
    n_samples: int
    inputs: list | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def describe(self, positions: np.ndarray) -> str:
        """Name samples of the batch as the user counts them."""
        rows = np.sort(self.rows[positions])
        labelled, unlabelled = np.split(rows, [np.searchsorted(rows, self.n_samples)])
        named = []
        if len(labelled):
            named.append(f"the samples {labelled.tolist()}")
        if len(unlabelled):
            named.append(f"the unlabelled {(unlabelled - self.n_samples).tolist()}")
        return " and ".join(named)


@dataclass(eq=False)
class Samples(torch.utils.data.Dataset):
    """Some rows of raw samples X and of their target, augmented if wanted.

    Unlabelled samples join the batches of training if there are any.
    """

    X: Any
    target: torch.Tensor
    rows: np.ndarray
    unlabelled: Any = None
    augment: Callable[[Any], Any] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_unlabelled(self) -> int:
        return 0 if self.unlabelled is None else len(self.unlabelled)

    def __getitems__(self, rows: np.ndarray) -> tuple[Batch, torch.Tensor]:
        """The samples at these rows, and the targets of those that have one."""
        n_samples = len(self.target)
        labelled = rows[rows < n_samples]
        X = take_samples(self.X, labelled)
        if len(labelled) < len(rows):
            try:
                more = take_samples(self.unlabelled, rows[len(labelled) :] - n_samples)
            except ValueError as error:
                error.add_note("X is here that of the unlabelled samples.")
                raise
            X = join_samples(X, more)
        if self.augment is not None:
            X = self.augment(X)
            if len(X) != len(rows):
                raise ValueError(
                    "The 'augment' parameter must return as many samples as it gets. "
                    f"Got {len(X)} for {len(rows)}."
                )
        return Batch(X, rows, n_samples), self.target[torch.from_numpy(labelled)]


def join_samples(first: Any, second: Any) -> Any:
    """The samples of both: an array or tensor if the first is one, else a list."""
    if isinstance(first, np.ndarray) and is_array(second):
        return np.concatenate([first, to_numpy(second)])
    if isinstance(first, torch.Tensor) and is_array(second):
        return torch.cat([first, torch.as_tensor(second, device=first.device)])
    return [*first, *second]


class BatchRows(torch.utils.data.Sampler):
    """The rows of every batch of :class:`Samples`, shuffled by torch's random state.

    `unlabelled_ratio` unlabelled samples join each labelled one, drawn anew in every
    epoch.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        *,
        shuffle: bool,
        unlabelled_ratio: float = 0.0,
    ):
        self.samples = samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.ratio = unlabelled_ratio if samples.n_unlabelled else 0.0

    def __len__(self) -> int:
        return len(list(self._slices()))

    def _slices(self) -> Iterator[slice]:
        # A single sample left over has no variance for batch normalisation.
        at_least = 2 if self.shuffle and self.batch_size > 1 else 0
        n_samples = len(self.samples)
        return gen_batches(n_samples, self.batch_size, min_batch_size=at_least)

    def __iter__(self) -> Iterator[np.ndarray]:
        rows = self.samples.rows
        if self.shuffle:
            rows = rows[torch.randperm(len(rows)).numpy()]
        slices = list(self._slices())
        ends = [0, *(round(self.ratio * part.stop) for part in slices)]
        unlabelled = self._draw_unlabelled(ends[-1])
        for part, start, end in zip(slices, ends[:-1], ends[1:], strict=True):
            yield np.concatenate([rows[part], unlabelled[start:end]])

    def _draw_unlabelled(self, size: int) -> np.ndarray:
        """Rows of unlabelled samples, none more than once more often than another."""
        n_unlabelled = self.samples.n_unlabelled
        drawn = np.empty(0, dtype=np.intp)
        while len(drawn) < size:
            drawn = np.append(drawn, torch.randperm(n_unlabelled).numpy())
        return len(self.samples.target) + drawn[:size]


def load_batches(
    samples: Samples,
    batch_size: int,
    *,
    shuffle: bool = False,
    unlabelled_ratio: float = 0.0,
) -> torch.utils.data.DataLoader:
    """A loader of batches; it draws from torch's random state only if it shuffles."""
    return torch.utils.data.DataLoader(
        samples,
        batch_sampler=BatchRows(
            samples, batch_size, shuffle=shuffle, unlabelled_ratio=unlabelled_ratio
        ),
        collate_fn=_as_is,
        generator=None if shuffle else torch.Generator(),
    )


def _as_is(batch: tuple[Batch, torch.Tensor]) -> tuple[Batch, torch.Tensor]:
    """The data set has joined the samples."""
    return batch
