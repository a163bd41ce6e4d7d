"""Extractions that are kept on disk, and how they are found again."""

from __future__ import annotations

import io
import pickle
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _num_samples

try:
    from cloudpickle import CloudPickler
except ImportError:  # joblib brought its own before 1.6
    from joblib.externals.cloudpickle import CloudPickler

from sktransfer._version import __version__
from sktransfer.feature_extraction import BaseExtractor, Extraction, take_samples
from sktransfer.feature_extraction._extract import (
    extract,
    extractors_within,
    feature_steps,
    gives_tokens,
    is_stateless,
)
from sktransfer.feature_extraction._fingerprint import (
    UndigestibleError,
    digest,
    digest_each,
)


class Digests(NamedTuple):
    """What the extraction of some samples is found by.

    `first` is that of the first sample of all the data, whichever are to be extracted:
    the parts of one data set are kept together.
    """

    first: bytes
    samples: np.ndarray
    target: str


class SampleDigests:
    """Digests of samples, made when they are first read."""

    def __init__(self, X: Any, n_samples: int, memory: joblib.Memory):
        self._X = X
        self._known = np.full(n_samples, b"", dtype="S64")
        self._is_on = getattr(memory, "location", memory) is not None

    def of(self, samples: np.ndarray, y: Any) -> Digests | None:
        """Digests of some samples and their target, if extractions are to be kept."""
        if not self._is_on:
            return None
        try:
            wanted = np.union1d(samples, [0])
            unknown = wanted[self._known[wanted] == b""]
            if len(unknown):
                self._known[unknown] = digest_each(self._X, unknown)
            return Digests(self._known[0], self._known[samples], digest(y))
        except UndigestibleError as error:
            self._is_on = False
            warnings.warn(f"No features are kept in memory: {error}", stacklevel=2)
            return None


class _Entry(NamedTuple):
    """What is kept under one key: the features of samples, and the fitted steps.

    A sample has one row, or `n_rows` of them where rows are words. What has learnt from
    the samples has no `n_rows`: all of them are read, or none.
    """

    features: dict[str, Any]
    source_proba: Any
    seconds: float
    samples: np.ndarray
    n_rows: np.ndarray | None
    steps: bytes
    weights: list[str | None]

    def grow(self, other: _Entry) -> _Entry:
        """The samples of both."""

        def join(own: Any, more: Any) -> Any:
            return None if own is None else np.concatenate([own, more])

        return other._replace(
            features={k: join(own, other.features[k]) for k, own in self[0].items()},
            source_proba=join(self.source_proba, other.source_proba),
            seconds=self.seconds + other.seconds,
            samples=join(self.samples, other.samples),
            n_rows=join(self.n_rows, other.n_rows),
        )

    def find(self, samples: np.ndarray) -> np.ndarray:
        """Positions of the samples, -1 for those that are missing."""
        if np.array_equal(samples, self.samples):
            return np.arange(len(samples))
        position = {sample: i for i, sample in enumerate(self.samples)}
        return np.array([position.get(sample, -1) for sample in samples])

    def read(self, samples: np.ndarray) -> tuple[Extraction, float]:
        """The extraction of the samples, and the seconds that it took."""
        found = self.find(samples)
        if np.array_equal(found, np.arange(len(self.samples))):
            return Extraction(self.features, self.source_proba), self.seconds
        n_rows = self.n_rows[found]
        first = (np.cumsum(self.n_rows) - self.n_rows)[found]
        rows = np.repeat(first - np.cumsum(n_rows) + n_rows, n_rows)
        rows += np.arange(len(rows))
        features = {name: own[rows] for name, own in self.features.items()}
        proba = None if self.source_proba is None else self.source_proba[rows]
        seconds = self.seconds * len(found) / len(self.samples)
        return Extraction(features, proba), seconds


def fit_and_extract(
    name: str,
    extractor: BaseEstimator,
    X: Any,
    y: Any,
    source_proba: bool,
    memory: joblib.Memory,
    digests: Digests | None,
) -> tuple[Any, Extraction, float]:
    """Fit a clone and extract, or look up what was extracted before.

    Extractors treat each sample separately, so only samples that are not kept yet are
    extracted. Transformers that learn from the samples are looked up with all of them.

    Parameters
    ----------
    name : str
        Name of the candidate, for warnings.
    extractor : transformer or pipeline
    X, y : raw inputs and target
    source_proba : bool
        Whether to give source probabilities, too.
    memory : joblib.Memory
    digests : Digests or None
        Those of X and y; with None nothing is kept.

    Returns
    -------
    fitted : transformer or pipeline
        With the parameters of `extractor`, including those that only change the speed.
    extraction : Extraction
    seconds : float
        Duration of the extraction when it was made.
    """
    fitted = clone(extractor)
    stateless = is_stateless(fitted)
    if digests is None:
        return fitted, *_extract(fitted, X, y, source_proba)
    try:
        key = cache_key(fitted, digests, source_proba)
        store = memory.cache(_keep, ignore=["entry"])
        entry = _look_up(store, key, fitted)
    except Exception as error:
        _warn(name, error)
        return fitted, *_extract(fitted, X, y, source_proba)

    wanted, part = digests.samples, X
    missing = np.ones(len(wanted), dtype=bool)
    if entry is not None:
        missing = entry.find(wanted) < 0
        if not missing.any():
            return _as_kept(fitted, entry), *entry.read(wanted)
    if not missing.all():
        part = take_samples(X, np.flatnonzero(missing))
        extraction, seconds = _extract(fitted, part, None, source_proba)
        if _weights(fitted) != entry.weights:  # of a factory that draws them anew
            part, missing[:] = X, True
    if missing.all():
        extraction, seconds = _extract(fitted, X, y, source_proba)
    n_rows = _rows_of_samples(fitted, part, extraction) if stateless else None
    if stateless and n_rows is None:
        return fitted, extraction, seconds  # which is refused
    made = _Entry(*extraction, seconds, wanted[missing], n_rows, b"", _weights(fitted))
    if entry is not None and entry.weights == made.weights:
        made = entry.grow(made)
    try:
        kept = made._replace(steps=_pack(fitted))
        getattr(store, "call", store)(key, (*kept, digest(list(kept))))
    except Exception as error:
        _warn(name, error)
    return fitted, *made.read(wanted)


def cache_key(extractor: BaseEstimator, digests: Digests, source_proba: bool) -> str:
    """Name of an entry, the same in every process.

    Samples and target count where they are learnt from. Extractors learn nothing: all
    that one of them gives for the same data is one entry.
    """
    data = [digests.first]
    if not is_stateless(extractor):
        data = [digests.samples, digests.target]
    return digest([__version__, feature_steps(extractor), data, source_proba])


def _keep(key: str, entry: tuple | None = None) -> tuple:
    """What is kept under the key; the memory calls this where it keeps nothing."""
    if entry is None:
        raise LookupError(key)
    return entry


def _look_up(store: Any, key: str, fitted: Any) -> _Entry | None:
    """The entry under the key, if there is one that can be read."""
    try:
        kept = store(key)
    except LookupError:
        return None
    try:
        *parts, checksum = kept
        entry = _Entry(*parts)
        _unpack(entry.steps, fitted)
        # A disk may give back zeros where power was lost, and nobody would notice.
        if digest(parts) == checksum:
            return entry
    except Exception:  # the file holds something else, or a class has changed
        pass
    warnings.warn(
        "the features in memory are damaged, or what was fitted cannot be read back; "
        "they are extracted again.",
        stacklevel=2,
    )
    return None


def _warn(name: str, reason: Exception) -> None:
    warnings.warn(f"features are not kept in memory. {reason}", stacklevel=3)


def _extract(
    fitted: Any, X: Any, y: Any, source_proba: bool
) -> tuple[Extraction, float]:
    start = time.perf_counter()
    extraction = extract(fitted, X, y, source_proba=source_proba, fit=True)
    return extraction, time.perf_counter() - start


def _rows_of_samples(fitted: Any, X: Any, extraction: Extraction) -> np.ndarray | None:
    """How many rows of features each sample has; None if it cannot be told."""
    counts = [len(words) for words in X] if gives_tokens(fitted) else None
    n_rows = np.ones(_num_samples(X), dtype=int) if counts is None else np.array(counts)
    arrays = [*extraction.features.values(), extraction.source_proba]
    shapes = {np.shape(array)[:1] for array in arrays if array is not None}
    return n_rows if shapes == {(n_rows.sum(),)} else None


def _weights(fitted: Any) -> list[str | None]:
    return [part.pinned_weights for part in extractors_within(fitted, frozen=True)]


def _as_kept(fitted: Any, entry: _Entry) -> Any:
    """A clone with the steps of the entry, which has to load the same networks."""
    fitted = _put_back(fitted, iter(_unpack(entry.steps, fitted)))
    inside = extractors_within(fitted, frozen=True)
    for extractor, weights in zip(inside, entry.weights, strict=True):
        extractor.pin_weights(weights)
    return fitted


# Fitted transformers are small and are kept; extractors have nothing to fit.


def _is_kept(step: Any) -> bool:
    return not isinstance(step, (BaseExtractor, FrozenEstimator))


def _extractors_inside(fitted: Any) -> dict[str, BaseExtractor]:
    """By their fingerprints, also those in unions and the like."""
    params = fitted.get_params(deep=True) if hasattr(fitted, "get_params") else {}
    inside = [part for part in params.values() if isinstance(part, BaseExtractor)]
    return {part.fingerprint(): part for part in inside}


class _Pickler(CloudPickler):
    """Leaves out the extractors inside, which are at hand where it is read."""

    def __init__(self, file: Any, inside: dict[str, BaseExtractor]):
        super().__init__(file)
        self._inside = inside

    def persistent_id(self, obj: Any) -> str | None:
        if not isinstance(obj, BaseExtractor):
            return None
        own = obj.fingerprint()
        return own if own in self._inside else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, inside: dict[str, BaseExtractor]):
        super().__init__(file)
        self._inside = inside

    def persistent_load(self, pid: str) -> BaseExtractor:
        return self._inside[pid]


def _pack(fitted: Any) -> bytes:
    steps = [step for step in feature_steps(fitted) if _is_kept(step)]
    file = io.BytesIO()
    _Pickler(file, _extractors_inside(fitted) if steps else {}).dump(steps)
    return file.getvalue()


def _unpack(steps: bytes, fresh: Any) -> list[Any]:
    kept = any(_is_kept(step) for step in feature_steps(fresh))
    inside = _extractors_inside(fresh) if kept else {}
    return _Unpickler(io.BytesIO(steps), inside).load()


def _put_back(fresh: Any, steps: Iterator[Any]) -> Any:
    """A clone with the steps that were fitted in the place of its own."""
    if isinstance(fresh, Pipeline):
        fresh.steps = [(name, _put_back(step, steps)) for name, step in fresh.steps]
        return fresh
    return next(steps) if feature_steps(fresh) and _is_kept(fresh) else fresh
