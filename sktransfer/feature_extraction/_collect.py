"""Collecting a stream of extractions into arrays on the host."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import _num_samples

from sktransfer.feature_extraction._samples import check_samples, read_samples
from sktransfer.utils._array_api import to_numpy

_ATTRIBUTES = "features", "source_proba", "layers"  # of an Extraction


def collect(
    stream: Iterable[tuple[Any, Any]], X: Any, extractor: Any
) -> tuple[dict[str, np.ndarray], np.ndarray | None, dict[str, np.ndarray] | None]:
    """Features, source probabilities and layers, float32, in the order of X."""
    outputs: dict[tuple, np.ndarray] = {}
    is_missing = None
    n_given = 0
    waiting: deque = deque()
    try:
        for rows, batch in stream:
            check_extraction(batch, extractor, "iter_extract must yield rows and")
            if is_missing is None:
                is_missing = np.ones(_count_rows(X, extractor), dtype=bool)
            n_given += len(is_missing[rows])
            is_missing[rows] = False
            waiting.append((rows, *_start_copy(parts_of_extraction(batch))))
            del batch  # before there is another one
            # CUDA computes this batch while the previous one is written.
            while waiting and (waiting[0][2] is None or len(waiting) > 1):
                _write(outputs, is_missing, *waiting.popleft())
        for last in waiting:
            _write(outputs, is_missing, *last)
    finally:
        if hasattr(stream, "close"):  # with an error, before its traceback is gone
            stream.close()
    problem = None
    if is_missing is None:
        problem = "no batch"
    elif is_missing.any():
        problem = f"no row {is_missing.argmax()}"
    elif n_given > len(is_missing):
        problem = f"{n_given} rows for {len(is_missing)}"
    if problem is not None:
        raise ValueError(
            f"{type(extractor).__name__}.iter_extract must yield every row of X once. "
            f"It has yielded {problem}."
        )
    found: dict[str, dict] = {attribute: {} for attribute in _ATTRIBUTES}
    for (attribute, name), array in outputs.items():
        found[attribute][name] = array
    features, proba, layers = found.values()
    return features, proba.get(""), layers or None


def parts_of_extraction(extraction: Any) -> dict[tuple[str, str], Any]:
    """The arrays of an extraction, by attribute and name."""
    parts = {}
    for attribute in _ATTRIBUTES:
        own = getattr(extraction, attribute, None)
        if attribute == "source_proba":
            own = None if own is None else {"": own}
        parts |= {(attribute, name): array for name, array in (own or {}).items()}
    return parts


def _describe(part: tuple[str, str]) -> str:
    attribute, name = part
    is_proba = attribute == "source_proba"
    return "source probabilities" if is_proba else f"layer {name!r}"


def _count_rows(X: Any, extractor: Any) -> int:
    if not extractor.gives_tokens:
        return _num_samples(X)
    X, n_samples = check_samples(X, extractor)
    return sum(map(len, read_samples(X, 0, n_samples)))


def _start_copy(parts: dict[Any, Any]) -> tuple[dict[Any, np.ndarray], Any]:
    """Arrays on the host, and the event that tells when CUDA has filled them."""
    on_cuda = [array for array in parts.values() if getattr(array, "is_cuda", False)]
    if not on_cuda:
        return {name: to_numpy(array) for name, array in parts.items()}, None
    torch = sys.modules["torch"]
    host = {}
    for name, tensor in parts.items():
        copied = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=True)
        copied.copy_(tensor.detach(), non_blocking=True)
        host[name] = copied.numpy()
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(on_cuda[0].device))
    return host, event


def _write(
    outputs: dict[Any, np.ndarray],
    is_missing: np.ndarray,
    rows: Any,
    parts: dict[Any, np.ndarray],
    event: Any,
) -> None:
    """Write a batch to the output arrays, made at the first batch."""
    if event is not None:
        event.synchronize()
    if not outputs:
        for name, array in parts.items():
            shape = len(is_missing), array.shape[1]
            outputs[name] = np.empty(shape, dtype=np.float32)
    if parts.keys() != outputs.keys():
        before, now = (", ".join(map(_describe, own)) for own in (outputs, parts))
        raise ValueError(
            "All batches must have the same layers and source probabilities. Got "
            f"{before} at first, then {now}."
        )
    n_rows = len(is_missing[rows])
    for name, array in parts.items():
        own = outputs[name]
        if array.shape[1] != own.shape[1]:
            raise ValueError(
                "All samples must have the same number of features. The "
                f"{_describe(name)} gave {own.shape[1]} at first, then "
                f"{array.shape[1]}."
            )
        if len(array) != n_rows:
            raise ValueError(
                f"The {_describe(name)} gave {len(array)} rows for {n_rows} samples."
            )
        own[rows] = array


def check_extraction(result: Any, extractor: Any, method: str) -> Any:
    """Check that an extraction holds arrays with two axes by layer, and return it."""
    features = getattr(result, "features", None)
    what = f"{type(extractor).__name__}.{method} an Extraction"
    if not (isinstance(features, Mapping) and features):
        given = f"a {type(result).__name__}"
        if hasattr(result, "features"):
            given = f"an Extraction whose features are {features!r:.80}"
        raise TypeError(
            f"{what} whose features are a dict of arrays by layer. Got {given} "
            "instead: return Extraction({'name of the layer': features})."
        )
    layers = getattr(result, "layers", None)
    if not isinstance(layers, Mapping | None):
        raise TypeError(
            f"{what} whose layers are a dict of arrays by name. Got the layers "
            f"{layers!r:.80} instead."
        )
    for part, array in parts_of_extraction(result).items():
        if len(np.shape(array)) != 2:
            raise ValueError(
                f"{what} of arrays with two axes, samples and features. Got shape "
                f"{tuple(np.shape(array))} for the {_describe(part)}."
            )
    return result
