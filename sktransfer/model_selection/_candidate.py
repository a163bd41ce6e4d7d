"""Extract and score one candidate; whatever goes wrong becomes part of the result."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sktransfer._version import __version__
from sktransfer.feature_extraction import BaseExtractor, Extraction
from sktransfer.feature_extraction._extract import (
    extract,
    feature_steps,
    source_proba_problem,
)
from sktransfer.feature_extraction._fingerprint import digest
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import Metric
from sktransfer.metrics._registry import METRICS
from sktransfer.metrics._scorer import measure, share
from sktransfer.metrics._shared import LabelledFeatures
from sktransfer.utils._array_api import beside, get_namespace, to_numpy


@dataclass
class Row:
    """What is known of one candidate (one layer of one extractor) after scoring.

    Attributes
    ----------
    name, layer : str
        `layer` is empty where the extractor does not name its layers.
    scores : dict of str to float
        By metric; one that failed is missing.
    errors : list of str
        Reasons of the failures, empty if there were none.
    extractor : fitted transformer or None
        That gives this row's features alone.
    logme : fitted LogME or LogMEClassifier, or None
    std_error : float
        Of LogME.
    influence : ndarray of shape (n_samples,) or None
        psi, of which `std_error` is made.
    n_features : int
        0 if the extraction failed.
    extract_time, score_time : float
        Seconds; the extraction's is that of all layers of the extractor together.
    """

    name: str
    layer: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    extractor: Any = None
    logme: Any = None
    std_error: float = np.nan
    influence: np.ndarray | None = None
    n_features: int = 0
    extract_time: float = np.nan
    score_time: float = np.nan

    @property
    def label(self) -> str:
        """Name and layer in one word."""
        return f"{self.name}/{self.layer}" if self.layer else self.name


@dataclass(frozen=True)
class Measurement:
    """What to measure on every candidate."""

    metrics: Mapping[str, Metric]
    task: str
    n_samples: int
    fit_logme: bool
    error_score: Any

    @property
    def wants_source_proba(self) -> bool:
        return any(metric.reads == "source_proba" for metric in self.metrics.values())


def is_logme(metric: Metric) -> bool:
    """Whether a metric is LogME as registered, which the fitted model has at hand."""
    # Equal, not identical: workers and clones have copies of the registry's entries.
    return metric == METRICS["logme"]


def evaluate_candidate(
    name: str,
    extractor: BaseEstimator,
    X: Any,
    y: Any,
    measurement: Measurement,
    memory: joblib.Memory,
    digests: tuple[str, ...],
) -> list[Row]:
    """Extract features with one candidate and score each of its layers.

    Parameters
    ----------
    name : str
    extractor : transformer or pipeline
        Cloned before it is fitted.
    X, y : raw inputs and target
    measurement : Measurement
    memory : joblib.Memory
        Where extractions are kept; one with ``location=None`` keeps none.
    digests : tuple of str
        Those of X and y, where extractions are kept.

    Returns
    -------
    list of Row
        One a layer; one that says why if the extraction failed.
    """
    start = time.perf_counter()
    run, key = _fit_and_extract, None
    wanted = measurement.wants_source_proba
    try:
        if digests:
            run = memory.cache(run, ignore=["extractor", "X", "y"])
            key = cache_key(extractor, *digests)
        wanted = wanted and source_proba_problem(extractor) is None
        fitted, extraction, seconds = run(extractor, X, y, wanted, key)
        _check_extraction(extraction, measurement.n_samples)
    except Exception as error:
        if measurement.error_score == "raise":
            raise
        return [
            Row(
                name,
                errors=[_reason(error)],
                extract_time=time.perf_counter() - start,
            )
        ]
    several = len(extraction.features) > 1
    rows = []
    for layer, features in extraction.features.items():
        row = Row(
            name,
            layer if several else "",
            extractor=_restrict(fitted, layer) if several else fitted,
            n_features=int(features.shape[1]),
            extract_time=seconds,
        )
        _score(
            row, Extraction({layer: features}, extraction.source_proba), y, measurement
        )
        rows.append(row)
    for row in rows:
        for name in row.scores:
            if factor := measurement.metrics[name].layer_factor:
                row.scores[name] *= factor(row.n_features, rows[-1].n_features)
    return rows


def cache_key(extractor: BaseEstimator, X_digest: str, y_digest: str) -> str:
    """Name what an extractor gives for the data, the same in every process.

    The target counts only where it is read: an extractor learns nothing from it.
    """
    steps = feature_steps(extractor)
    stateless = all(isinstance(step, BaseExtractor) for step in steps)
    parts = [
        step.fingerprint() if isinstance(step, BaseExtractor) else digest(clone(step))
        for step in steps
    ]
    return digest([__version__, parts, X_digest, "" if stateless else y_digest])


def _fit_and_extract(
    extractor: Any, X: Any, y: Any, source_proba: bool, key: str | None
) -> tuple[Any, Extraction, float]:
    """Fit a clone and extract; `key` is what the result is kept under."""
    start = time.perf_counter()
    fitted = clone(extractor)
    extraction = extract(fitted, X, y, source_proba=source_proba, fit=True)
    return fitted, extraction, time.perf_counter() - start


def _check_extraction(extraction: Extraction, n_samples: int) -> None:
    for layer, features in extraction.features.items():
        what = f"layer {layer!r}" if layer else "the extractor"
        if issparse(features):
            raise TypeError(
                f"{what} gave sparse features, but metrics need dense ones."
            )
        shape = tuple(getattr(features, "shape", ()))
        if len(shape) != 2 or shape[0] != n_samples:
            raise ValueError(
                f"{what} gave features of shape {shape}; expected ({n_samples}, "
                "n_features), one row a sample."
            )
        xp, _ = get_namespace(features=features)
        bad = int(xp.sum(xp.any(~xp.isfinite(features), axis=1)))
        if bad:
            raise ValueError(
                f"{what} gave NaN or infinity in {bad} of {n_samples} rows."
            )


def _score(row: Row, extraction: Extraction, y: Any, measurement: Measurement) -> None:
    """Fill in the scores, LogME and its standard error, and what failed."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if measurement.fit_logme:
            with _failures_into(row, "logme", measurement):
                _fit_logme(row, extraction.joined, y, measurement.task)
        data = _shared(row, extraction, y, measurement)
        for name, metric in measurement.metrics.items():
            if is_logme(metric):
                if row.logme is not None:
                    row.scores[name] = row.logme.logme_
                continue
            with _failures_into(row, name, measurement):
                if metric.reads == "source_proba" and extraction.source_proba is None:
                    problem = source_proba_problem(row.extractor)
                    raise ValueError(f"no source probabilities: {problem}")
                score = measure(metric, extraction, y, measurement.task, data)
                if np.isnan(score):
                    raise ValueError("the score is NaN.")
                row.scores[name] = score
    for warning in caught:
        warnings.warn(f"{row.label}: {warning.message}", warning.category, stacklevel=2)
    row.score_time = time.perf_counter() - start


def _shared(
    row: Row, extraction: Extraction, y: Any, measurement: Measurement
) -> LabelledFeatures | None:
    """What the metrics besides LogME share, built on what LogME has computed."""
    others = [m for m in measurement.metrics.values() if not is_logme(m)]
    statistics = None if row.logme is None else row.logme.statistics_
    try:
        return share(others, extraction.joined, y, measurement.task, statistics)
    except ValueError:
        return None  # each metric will say for itself what is wrong


@contextmanager
def _failures_into(row: Row, metric: str, measurement: Measurement) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if measurement.error_score == "raise":
            raise
        row.errors.append(f"{metric}: {_reason(error)}")


def _fit_logme(row: Row, features: Any, y: Any, task: str) -> None:
    model = LogMEClassifier if task == "classification" else LogME
    row.logme = model(std_error=True).fit(features, beside(y, features))
    row.std_error = row.logme.std_error_
    row.influence = to_numpy(row.logme.influence_)


def _restrict(fitted: Any, layer: str) -> Any:
    """The fitted extractor, or pipeline that ends in one, for one of its layers."""
    if isinstance(fitted, FrozenEstimator):
        return FrozenEstimator(_restrict(fitted.estimator, layer))
    if not isinstance(fitted, Pipeline):
        return fitted.select_layer(layer)
    *others, (name, last) = fitted.steps
    if not feature_steps(last):
        return _restrict(Pipeline(others), layer)
    return Pipeline([*others, (name, _restrict(last, layer))])


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
