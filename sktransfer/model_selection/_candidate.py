"""Extract and score one candidate; whatever goes wrong becomes part of the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sktransfer.feature_extraction import Extraction
from sktransfer.feature_extraction._extract import (
    extractors_within,
    feature_steps,
    source_proba_problem,
)
from sktransfer.metrics import LabelledData, Metric
from sktransfer.metrics._evaluate import evaluate
from sktransfer.metrics._registry import METRICS
from sktransfer.model_selection._cache import fit_and_extract
from sktransfer.model_selection._warnings import collect_warnings
from sktransfer.utils._array_api import get_namespace, to_numpy


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
    resolution : float
        Differences of LogME up to this are rounding of the features: sqrt(eps) / 3.
    n_features : int
        0 if the extraction failed.
    extract_time, score_time : float
        Seconds; the extraction's is that of all layers of the extractor together.
    warnings : list of (str, type) tuples
        Text and category of those given on the way.
    """

    name: str
    layer: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    extractor: Any = None
    logme: Any = None
    std_error: float = np.nan
    influence: np.ndarray | None = None
    resolution: float = 0.0
    n_features: int = 0
    extract_time: float = np.nan
    score_time: float = np.nan
    warnings: list[tuple[str, type[Warning]]] = field(default_factory=list)

    def lighten(self) -> None:
        """Keep only what can be had again in no other way.

        A network can be loaded again, and predictive means are enough of a LogME that
        is not the best: the rest of it is as large as a Gram matrix.
        """
        for extractor in extractors_within(self.extractor):
            extractor.release()
        if self.logme is not None:
            self.logme._keep_means_only()

    @property
    def label(self) -> str:
        """Name and layer in one word."""
        return f"{self.name}/{self.layer}" if self.layer else self.name


@dataclass(frozen=True)
class Measurement:
    """What to measure on every candidate; `decides` names the metric that ranks."""

    metrics: Mapping[str, Metric]
    task: str
    n_samples: int
    fit_logme: bool
    error_score: Any
    decides: str

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
    best_score: float | None = None,
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
    best_score : float or None
        The best so far, if there is one; rows that are no better come back light.

    Returns
    -------
    list of Row
        One a layer; one that says why if the extraction failed.
    """
    with collect_warnings() as caught:
        rows = _extract_and_score(name, extractor, X, y, measurement, memory, digests)
    rows[0].warnings[:0] = [(f"{name}: {text}", kind) for text, kind in caught]
    leader = better(rows, measurement.decides, best_score)
    for row in rows:
        if row is not leader:
            row.lighten()
    return rows


def _extract_and_score(
    name: str,
    extractor: BaseEstimator,
    X: Any,
    y: Any,
    measurement: Measurement,
    memory: joblib.Memory,
    digests: tuple[str, ...],
) -> list[Row]:
    start = time.perf_counter()
    wanted = measurement.wants_source_proba
    try:
        wanted = wanted and source_proba_problem(extractor) is None
        fitted, extraction, seconds = fit_and_extract(
            name, extractor, X, y, wanted, memory, digests
        )
        _check_extraction(extraction, measurement.n_samples)
        layers = list(extraction.features)
        several = len(layers) > 1
        extractors = [
            _restrict(fitted, layer) if several else fitted for layer in layers
        ]
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
    rows = []
    for layer, restricted in zip(layers, extractors, strict=True):
        features = extraction.features[layer]
        row = Row(
            name,
            layer if several else "",
            extractor=restricted,
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


def better(rows: list[Row], metric: str, best_score: float | None) -> Row | None:
    """The best row by a metric, if better than the score; failed ones never are."""
    leader = None
    for row in rows:
        score = row.scores.get(metric)
        if score is not None and (best_score is None or score > best_score):
            leader, best_score = row, score
    return leader


def _check_extraction(extraction: Extraction, n_samples: int) -> None:
    for layer, features in extraction.features.items():
        what = f"layer {layer!r}" if layer else "the extractor"
        if issparse(features):
            raise TypeError(
                f"{what} gave sparse features, but metrics need dense ones: add a step "
                "that makes them dense, such as TruncatedSVD(100), in a pipeline."
            )
        shape = tuple(getattr(features, "shape", ()))
        if len(shape) != 2 or shape[0] != n_samples:
            raise ValueError(
                f"{what} gave features of shape {shape}; expected ({n_samples}, "
                "n_features), one row a sample."
            )
        check_finite(features, what)


def check_finite(features: Any, what: str) -> None:
    """Raise a ValueError if a row of the features has NaN or infinity."""
    xp, _ = get_namespace(features=features)
    bad = int(xp.sum(xp.any(~xp.isfinite(features), axis=1)))
    if bad:
        raise ValueError(
            f"{what} gave NaN or infinity in {bad} of {features.shape[0]} rows."
        )


def _score(row: Row, extraction: Extraction, y: Any, measurement: Measurement) -> None:
    """Fill in the scores, LogME and its standard error, and what failed."""
    start = time.perf_counter()

    def failed(name: str, error: Exception) -> None:
        if measurement.error_score == "raise":
            raise error
        row.errors.append(f"{name}: {_reason(error)}")

    with collect_warnings() as caught:
        metrics = dict(measurement.metrics)
        if extraction.source_proba is None:
            problem = source_proba_problem(row.extractor)
            for name, metric in measurement.metrics.items():
                if metric.reads == "source_proba":
                    failed(name, ValueError(f"no source probabilities: {problem}"))
                    del metrics[name]
        try:
            data = LabelledData(
                extraction.joined,
                y,
                source_proba=extraction.source_proba,
                task=measurement.task,
                with_parts=True,
            )
            scores = evaluate(metrics, data, on_error=failed)
            row.scores = {name: score.value for name, score in scores.items()}
            if measurement.fit_logme:
                row.logme = data.logme
                row.std_error = row.logme.std_error_
                row.influence = to_numpy(row.logme.influence_)
                row.resolution = data.resolution
        except Exception as error:
            failed("logme", error)
    row.warnings = [(f"{row.label}: {text}", kind) for text, kind in caught]
    row.score_time = time.perf_counter() - start


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


def not_run(name: str, error: Exception) -> Row:
    """The row of a candidate that a worker could not take, or not give back."""
    reason = " ".join(_reason(error).split())
    # The traceback in the worker, as text.
    *_, last = str(error.__cause__ or "").strip(' "\n').splitlines() or [""]
    if last and last not in reason:
        reason += f" ({last})."
    return Row(
        name,
        errors=[
            f"could not be run in a worker: {reason} With n_jobs=1 there are no "
            "workers; joblib's backend 'threading' has some that need no pickling."
        ],
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
