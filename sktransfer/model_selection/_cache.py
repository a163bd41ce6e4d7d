"""Extractions that are kept on disk, and how they are found again."""

from __future__ import annotations

import io
import pickle
import time
import warnings
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import _num_samples

try:
    from cloudpickle import CloudPickler
except ImportError:  # joblib brought its own before 1.6
    from joblib.externals.cloudpickle import CloudPickler

from sktransfer._version import __version__
from sktransfer.feature_extraction import BaseExtractor, Extraction, take_samples
from sktransfer.feature_extraction._collect import parts_of_extraction
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
    """What is kept under one key: the features of samples, and what was fitted.

    A sample has one row, or `n_rows` of them where rows are words. What has learnt from
    the samples has no `n_rows`: all of them are read, or none.
    """

    features: dict[str, Any]
    source_proba: Any
    layers: dict[str, Any] | None
    seconds: float
    samples: np.ndarray
    n_rows: np.ndarray | None
    fitted: bytes
    weights: list[str | None]

    def goes_with(self, other: Any, weights: list[str | None]) -> bool:
        """Whether an extraction can join: no weights drawn anew, and layers as wide."""
        mine, others = (
            {
                part: np.shape(array)[1:]
                for part, array in parts_of_extraction(e).items()
            }
            for e in (self, other)
        )
        return weights == self.weights and mine == others

    def grow(self, other: _Entry) -> _Entry:
        """The samples of both."""

        def join(own: Any, more: Any) -> Any:
            return None if own is None else np.concatenate([own, more])

        def join_each(own: dict | None, more: dict | None) -> dict | None:
            return None if own is None else {k: join(own[k], more[k]) for k in own}

        return other._replace(
            features=join_each(self.features, other.features),
            source_proba=join(self.source_proba, other.source_proba),
            layers=join_each(self.layers, other.layers),
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
            return Extraction(*self[:3]), self.seconds
        n_rows = self.n_rows[found]
        first = (np.cumsum(self.n_rows) - self.n_rows)[found]
        rows = np.repeat(first - np.cumsum(n_rows) + n_rows, n_rows)
        rows += np.arange(len(rows))

        def take(arrays: dict[str, Any]) -> dict[str, Any]:
            return {name: own[rows] for name, own in arrays.items()}

        proba = None if self.source_proba is None else self.source_proba[rows]
        layers = None if self.layers is None else take(self.layers)
        seconds = self.seconds * len(found) / len(self.samples)
        return Extraction(take(self.features), proba, layers), seconds


def fit_and_extract(
    name: str,
    extractor: BaseEstimator,
    X: Any,
    y: Any,
    wanted: dict[str, bool],
    memory: joblib.Memory,
    digests: Digests | None,
) -> tuple[Any, Extraction, float]:
    """Fit a clone and extract, or look up what was extracted before.

    `wanted` says whether source probabilities and all layers are to be extracted too.
    Extractors treat each sample separately, so only samples that are not kept yet are
    extracted. Transformers that learn from the samples are looked up with all of them.
    The seconds are those that the extraction took when it was made.
    """
    fitted = clone(extractor)
    stateless = is_stateless(fitted)
    if digests is None:
        return fitted, *_extract(fitted, X, y, wanted)
    try:
        # All that an extractor gives for parts of the same data is one entry.
        data = [digests.first] if stateless else [digests.samples, digests.target]
        also = sorted(name for name, is_wanted in wanted.items() if is_wanted)
        key = digest([__version__, feature_steps(fitted), data, also])
        store = memory.cache(_keep, ignore=["entry"])
        entry = _look_up(store, key, fitted)
    except Exception as error:
        _warn(name, error)
        return fitted, *_extract(fitted, X, y, wanted)

    samples, part = digests.samples, X
    missing = np.ones(len(samples), dtype=bool)
    if entry is not None:
        missing = entry.find(samples) < 0
        if not missing.any():
            return _as_kept(fitted, entry), *entry.read(samples)
    if not missing.all():
        part = take_samples(X, np.flatnonzero(missing))
        extraction, seconds = _extract(fitted, part, None, wanted)
        if not entry.goes_with(extraction, _weights(fitted)):
            part, missing[:], entry = X, True, None
    if missing.all():
        extraction, seconds = _extract(fitted, X, y, wanted)
    n_rows = _rows_of_samples(fitted, part, extraction) if stateless else None
    if stateless and n_rows is None:
        return fitted, extraction, seconds  # which is refused
    own = *extraction, extraction.layers
    made = _Entry(*own, seconds, samples[missing], n_rows, b"", _weights(fitted))
    if entry is not None and entry.goes_with(made, made.weights):
        made = entry.grow(made)
    try:
        kept = made._replace(fitted=_pack(fitted))
        getattr(store, "call", store)(key, (*kept, digest([key, *kept])))
    except Exception as error:
        _warn(name, error)
    return fitted, *made.read(samples)


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
        _unpack(entry.fitted, fitted)
        # A disk may give back zeros where power was lost, and nobody would notice.
        if digest([key, *parts]) == checksum:
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


def _extract(fitted: Any, X: Any, y: Any, wanted: dict) -> tuple[Extraction, float]:
    start = time.perf_counter()
    extraction = extract(fitted, X, y, **wanted, fit=True)
    return extraction, time.perf_counter() - start


def _rows_of_samples(fitted: Any, X: Any, extraction: Extraction) -> np.ndarray | None:
    """How many rows of features each sample has; None if it cannot be told."""
    one_each = np.ones(_num_samples(X), dtype=int)
    n_rows = np.array(list(map(len, X))) if gives_tokens(fitted) else one_each
    arrays = parts_of_extraction(extraction).values()
    shapes = {np.shape(array)[:1] for array in arrays}
    return n_rows if shapes == {(n_rows.sum(),)} else None


def _weights(fitted: Any) -> list[str | None]:
    return [part.pinned_weights for part in extractors_within(fitted, frozen=True)]


def _as_kept(fresh: Any, entry: _Entry) -> Any:
    """What was fitted, which has to load the networks that were scored."""
    fitted = _unpack(entry.fitted, fresh)
    inside = extractors_within(fitted, frozen=True)
    for extractor, weights in zip(inside, entry.weights, strict=True):
        extractor.pin_weights(weights)
    return fitted


class _Pickler(CloudPickler):
    """Leaves out the parts that are at hand where it is read."""

    def __init__(self, file: Any, given: dict[str, Any]):
        super().__init__(file)
        self._given = given

    def persistent_id(self, obj: Any) -> str | None:
        if isinstance(obj, BaseExtractor):  # in unions they are clones
            own = obj.fingerprint()
            return own if own in self._given else None
        return next((key for key, part in self._given.items() if part is obj), None)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, given: dict[str, Any]):
        super().__init__(file)
        self._given = given

    def persistent_load(self, pid: str) -> Any:
        return self._given[pid]


def _given(estimator: Any) -> dict[str, Any]:
    """Extractors, by fingerprint, and frozen parts, which every clone has."""
    params = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    parts = [estimator, *params.values()]
    frozen = [part for part in parts if isinstance(part, FrozenEstimator)]
    own = [part for part in parts if isinstance(part, BaseExtractor)]
    given = {f"frozen {i}": part for i, part in enumerate(frozen)}
    return given | {part.fingerprint(): part for part in own}


def _pack(fitted: Any) -> bytes:
    """What was fitted; of extractors, which have nothing to fit, nothing."""
    file = io.BytesIO()
    if not is_stateless(fitted):
        _Pickler(file, _given(fitted)).dump(fitted)
    return file.getvalue()


def _unpack(kept: bytes, fresh: Any) -> Any:
    """What was fitted, with the extractors of a fresh clone."""
    return _Unpickler(io.BytesIO(kept), _given(fresh)).load() if kept else fresh
