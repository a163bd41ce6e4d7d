"""Worker processes that read batches while the network trains."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from sktransfer.feature_extraction import BaseExtractor
from sktransfer.feature_extraction._in_use import tensors_of
from sktransfer.tuning._batches import Batch, Samples
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")

# Warnings of workers that were shown: every worker would show them in every epoch.
_shown: dict = {}


def without_weights(module: torch.nn.Module) -> torch.nn.Module:
    """A copy whose tensors hold no values: structure and configuration, no memory."""
    empty: dict[int, Any] = {}
    for tensor in tensors_of(list(module.modules())):
        values = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, torch.nn.Parameter):
            values = torch.nn.Parameter(values, requires_grad=tensor.requires_grad)
        empty[id(tensor)] = values
    copied = copy.deepcopy(module, empty)
    for part in copied.modules():
        part._forward_hooks.clear()  # it never runs, and some cannot be pickled
    return copied


class Reader:
    """Makes inputs of raw samples as an extractor does, on the CPU."""

    def __init__(self, extractor: BaseExtractor, module: torch.nn.Module):
        self.module = without_weights(module)
        self.extractor = extractor.with_module(self.module, device="cpu")

    def __call__(self, X: Any) -> list[tuple[slice | np.ndarray, Any]]:
        """Rows and inputs, as the extractor batches them."""
        batches = self.extractor.iter_batches(X, self.module, torch.device("cpu"))
        return list(batches)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # Pickled extractors load their module anew.
        self.extractor = self.extractor.with_module(self.module)


class _PackedBatches(torch.utils.data.Dataset):
    """Pickled batches with inputs, or the error instead, and the warnings.

    Pickled here, because the queue of a worker drops what cannot be pickled, and the
    training would wait for it for ever.
    """

    def __init__(self, samples: Samples, reader: Reader, keep_samples: bool):
        self.samples = samples
        self.reader = reader
        self.keep_samples = keep_samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, rows: np.ndarray) -> bytes:
        with warnings.catch_warnings(record=True) as caught:
            try:
                batch, target = self.samples.__getitems__(rows)
                inputs = self.reader(batch.X)
                X = batch.X if self.keep_samples else None
                return _pack((replace(batch, X=X, inputs=inputs), target), caught)
            except Exception as error:
                error.add_note("Raised in a worker; num_workers=0 shows where.")
                try:
                    pickle.loads(pickle.dumps(error))
                except Exception:  # some need arguments of their own
                    message = f"{type(error).__name__}: {error}"
                    error = RuntimeError(message)
                return _pack(error, caught)


def _pack(result: Any, caught: list[warnings.WarningMessage]) -> bytes:
    texts = [(str(w.message), w.category, w.filename, w.lineno) for w in caught]
    return bytes(ForkingPickler.dumps((result, texts)))


@contextmanager
def batches_of(loader: torch.utils.data.DataLoader) -> Iterator[Iterator]:
    """The batches of a loader, whose workers have ended afterwards."""
    batches = iter(loader)
    try:
        yield batches
    finally:
        if isinstance(loader, WorkerLoader):
            batches.close()


class WorkerLoader(torch.utils.data.DataLoader):
    """Batches as those of another loader of :class:`Samples`, but read in workers.

    The workers start with every iterator and end when it is closed. They have no
    weights. Raw samples are sent along only with `keep_samples`. Errors in a worker are
    raised here.
    """

    def __init__(
        self,
        loader: torch.utils.data.DataLoader,
        num_workers: int,
        reader: Reader,
        *,
        keep_samples: bool,
    ):
        # joblib's own way to start processes, in the processes that it has started,
        # cannot start those of torch.
        methods = multiprocessing.get_all_start_methods()
        is_known = multiprocessing.get_start_method() in methods
        super().__init__(
            _PackedBatches(loader.dataset, reader, keep_samples),
            batch_sampler=loader.batch_sampler,
            collate_fn=loader.collate_fn,
            generator=loader.generator,
            num_workers=num_workers,
            multiprocessing_context=None if is_known else methods[0],
        )

    def __iter__(self) -> Iterator[tuple[Batch, torch.Tensor]]:
        batches = self._start()
        try:
            for packed in batches:
                result, texts = pickle.loads(packed)
                for text in texts:
                    warnings.warn_explicit(*text, registry=_shown)
                if isinstance(result, Exception):
                    raise result
                yield result
        finally:
            # Not left to the garbage collector: tracebacks keep iterators alive.
            batches._shutdown_workers()

    def _start(self) -> Any:
        try:
            return super().__iter__()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if "pickle" not in str(error):
                raise
            raise TypeError(
                "Worker processes are started by pickling what they need on this "
                f"system, but something cannot be pickled ({error}). Use functions and "
                "classes of a module, not lambdas or local ones, or num_workers=0."
            ) from error
