"""Extractions that are kept on disk: what of them, under which key, and when not."""

from __future__ import annotations

import io
import pickle
import time
import warnings
from collections.abc import Iterator
from typing import Any

import joblib
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

try:
    from cloudpickle import CloudPickler
except ImportError:  # joblib brought its own before 1.6
    from joblib.externals.cloudpickle import CloudPickler

from sktransfer._version import __version__
from sktransfer.feature_extraction import BaseExtractor, Extraction
from sktransfer.feature_extraction._extract import (
    extract,
    extractors_within,
    feature_steps,
)
from sktransfer.feature_extraction._fingerprint import (
    UndigestibleError,
    digest,
    digest_samples,
)


def digest_data(X: Any, y: Any, memory: joblib.Memory) -> tuple[str, ...]:
    """Digests of raw inputs and target, where extractions are to be kept.

    Parameters
    ----------
    X, y : raw inputs and target
    memory : joblib.Memory
        With ``location=None`` it keeps nothing.

    Returns
    -------
    digests : tuple of str
        Empty where nothing is kept. If the reason is X, a warning says so.
    """
    if getattr(memory, "location", memory) is None:
        return ()
    try:
        return digest_samples(X), digest(y)
    except UndigestibleError as error:
        warnings.warn(f"No features are kept in memory: {error}", stacklevel=2)
        return ()


def fit_and_extract(
    name: str,
    extractor: BaseEstimator,
    X: Any,
    y: Any,
    source_proba: bool,
    memory: joblib.Memory,
    digests: tuple[str, ...],
) -> tuple[Any, Extraction, float]:
    """Fit a clone and extract, or look up what an earlier run has extracted.

    Parameters
    ----------
    name : str
        The candidate, for warnings.
    extractor : transformer or pipeline
    X, y : raw inputs and target
    source_proba : bool
        Whether to give source probabilities, too.
    memory : joblib.Memory
    digests : tuple of str
        What :func:`digest_data` gives.

    Returns
    -------
    fitted : transformer or pipeline
        With the parameters of `extractor`, those that only change the speed, too.
    extraction : Extraction
    seconds : float
        That the extraction took when it was made.
    """
    fitted = clone(extractor)
    key = None
    if digests:
        try:
            key = cache_key(fitted, *digests)
        except UndigestibleError as error:
            _warn(name, error)
    if key is None:
        features, proba, seconds = _extract(fitted, X, y, source_proba)
        return fitted, Extraction(features, proba), seconds

    made: list[tuple] = []
    args = (fitted, X, y, source_proba, key, made)
    try:
        run = memory.cache(_extract_and_pack, ignore=["fitted", "X", "y", "made"])
        kept = run(*args)
        if not made:
            if (found := _open(kept, fitted)) is not None:
                return found
            warnings.warn(
                "the features in memory are damaged, or what was fitted cannot be "
                "read back; they are extracted again.",
                stacklevel=2,
            )
            run.call_and_shelve(*args).clear()
            run(*args)
    except Exception as error:
        if made and not made[0]:
            raise  # by the extraction
        _warn(name, error)
    features, proba, seconds = made[0] if made else _extract(*args[:4])
    return fitted, Extraction(features, proba), seconds


def _open(kept: Any, fitted: Any) -> tuple[Any, Extraction, float] | None:
    """What :func:`fit_and_extract` returns, out of what was kept; None if it cannot."""
    try:
        features, proba, seconds, (steps, weights), checksum = kept
        if _checksum(kept[:-1]) != checksum:
            return None
        fitted = _put_back(fitted, iter(_unpack(steps, fitted)))
        # They have to load the networks that gave the features.
        inside = extractors_within(fitted, frozen=True)
        for extractor, pinned in zip(inside, weights, strict=True):
            extractor.pin_weights(pinned)
    except Exception:  # the file holds something else, or a class has changed
        return None
    return fitted, Extraction(features, proba), seconds


def cache_key(extractor: BaseEstimator, X_digest: str, y_digest: str) -> str:
    """Name what an extractor gives for the data, the same in every process.

    The target counts only where it is read: an extractor learns nothing from it.
    """
    steps = feature_steps(extractor)
    stateless = all(isinstance(step, BaseExtractor) for step in steps)
    return digest([__version__, steps, X_digest, "" if stateless else y_digest])


def _warn(name: str, reason: Exception) -> None:
    warnings.warn(f"features are not kept in memory. {reason}", stacklevel=3)


def _extract(fitted: Any, X: Any, y: Any, source_proba: bool) -> tuple:
    start = time.perf_counter()
    features, proba = extract(fitted, X, y, source_proba=source_proba, fit=True)
    return features, proba, time.perf_counter() - start


def _extract_and_pack(
    fitted: Any, X: Any, y: Any, source_proba: bool, key: str, made: list[tuple]
) -> tuple:
    """What is kept under the key: features, but no network.

    What was extracted goes to `made`, too: it is there even if it cannot be kept.
    """
    made[:] = [()]
    made[:] = [_extract(fitted, X, y, source_proba)]
    inside = extractors_within(fitted, frozen=True)
    weights = [extractor.pinned_weights for extractor in inside]
    kept = (*made[0], (_pack(fitted), weights))
    return (*kept, _checksum(kept))


def _checksum(kept: tuple) -> str:
    """A disk may give back zeros where power was lost, and nobody would notice."""
    return digest(kept)


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
