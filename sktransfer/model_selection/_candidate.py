"""One candidate: its extraction, its scores, and whatever goes wrong with them."""

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
from sklearn.utils.validation import _num_samples

from sktransfer.exceptions import EqualClassesWarning
from sktransfer.feature_extraction import Extraction
from sktransfer.feature_extraction._extract import (
    all_layers_problem,
    extractors_within,
    feature_steps,
    layers_under,
    source_proba_problem,
    warn_of_one_layer,
)
from sktransfer.metrics import LabelledData, Metric, Score
from sktransfer.metrics._evaluate import evaluate
from sktransfer.model_selection._cache import Digests, fit_and_extract
from sktransfer.utils._array_api import get_namespace
from sktransfer.utils._warnings import collect_warnings


@dataclass
class CandidateResult:
    """What one evaluation tells of a candidate, or of one layer of an extractor.

    Attributes
    ----------
    name, layer : str
        `layer` is empty where the extractor does not name several layers.
    n_samples : int
        Number of samples that the candidate was evaluated on.
    scores : dict of str to Score
        Scores by metric. A metric that failed is missing.
    errors : list of str
        Reasons of the failures, empty if there were none.
    extractor : fitted transformer or None
        Gives the features of this layer alone.
    logme : fitted LogME or LogMEClassifier, or None
        The teacher.
    head : fitted LogME or LogMEClassifier, or None
        What predicts, of the best result only.
    n_features : int
        0 if the extraction failed.
    extract_time, score_time : float
        Seconds. The extraction time is that of all layers of the extractor together.
    warnings : list of (str, type) tuples
        Text and category of the warnings given on the way.
    """

    name: str
    layer: str = ""
    n_samples: int = 0
    scores: dict[str, Score] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    extractor: Any = None
    logme: Any = None
    head: Any = None
    n_features: int = 0
    extract_time: float = np.nan
    score_time: float = np.nan
    warnings: list[tuple[str, type[Warning]]] = field(default_factory=list)
    is_light: bool = False

    @property
    def label(self) -> str:
        """Name and layer in one word."""
        return f"{self.name}/{self.layer}" if self.layer else self.name

    def value(self, metric: str) -> float:
        """Value of a score, NaN if the metric failed."""
        return self.scores[metric].value if metric in self.scores else np.nan

    def lighten(self) -> None:
        """Release networks, which can be loaded again, and all but means of LogME."""
        for extractor in extractors_within(self.extractor):
            extractor.release()
        if self.logme is not None:
            self.logme.compact()
        self.head, self.is_light = None, True


@dataclass(frozen=True)
class EvaluationSpec:
    """What to measure on every candidate; `decides` names the metric that ranks."""

    metrics: Mapping[str, Metric]
    task: str
    fit_logme: bool
    fit_head: bool
    fit_intercept: bool | None
    error_score: Any
    decides: str
    memory: joblib.Memory


def best_result(results: list[CandidateResult], metric: str) -> CandidateResult | None:
    """The result with the highest score among those of most samples.

    Scores on different numbers of samples are not comparable. Failed ones have no say.
    """
    scored = [result for result in results if metric in result.scores]
    return max(scored, key=lambda r: (r.n_samples, r.value(metric)), default=None)


def evaluate_candidate(
    name: str,
    extractor: BaseEstimator,
    X: Any,
    y: Any,
    groups: np.ndarray | None,
    spec: EvaluationSpec,
    digests: Digests | None = None,
    to_beat: float | None = None,
) -> list[CandidateResult]:
    """Extract features with a clone of one candidate and score each of its layers.

    Results no better than `to_beat`, the best score so far, come back light.
    """
    with collect_warnings() as caught:
        results = _extract_and_score(
            name, extractor, X, y, groups, spec, digests, to_beat
        )
    results[0].warnings[:0] = [(f"{name}: {text}", kind) for text, kind in caught]
    best = best_result(results, spec.decides)
    for result in results:
        if result is not best or not _beats(result.value(spec.decides), to_beat):
            result.lighten()
    return results


def _beats(value: float, to_beat: float | None) -> bool:
    return not np.isnan(value) if to_beat is None else value > to_beat


def _extract_and_score(
    name: str,
    extractor: BaseEstimator,
    X: Any,
    y: Any,
    groups: np.ndarray | None,
    spec: EvaluationSpec,
    digests: Digests | None,
    to_beat: float | None,
) -> list[CandidateResult]:
    start = time.perf_counter()
    try:
        read = {metric.reads for metric in spec.metrics.values()}
        no_layers = all_layers_problem(extractor) if "layers" in read else None
        wanted = {
            "source_proba": "source_proba" in read
            and source_proba_problem(extractor) is None,
            "all_layers": "layers" in read and no_layers is None,
        }
        fitted, extraction, seconds = fit_and_extract(
            name, extractor, X, y, wanted, spec.memory, digests
        )
        _check_extraction(extraction, _num_samples(y))
        layers = list(extraction.features)
        several = len(layers) > 1
        extractors = [
            _restrict(fitted, layer) if several else fitted for layer in layers
        ]
        if "layers" in read:
            warn_of_one_layer(layers_under(extraction, layers[-1]), no_layers)
    except Exception as error:
        if spec.error_score == "raise":
            raise
        seconds = time.perf_counter() - start
        return [CandidateResult(name, errors=[_reason(error)], extract_time=seconds)]
    results = []
    last_width = extraction.features[layers[-1]].shape[1]
    for layer, restricted in zip(layers, extractors, strict=True):
        features = extraction.features[layer]
        result = CandidateResult(
            name,
            layer if several else "",
            extractor=restricted,
            n_features=int(features.shape[1]),
            extract_time=seconds,
        )
        _score(
            result,
            {
                "features": features,
                "source_proba": extraction.source_proba,
                "layers": layers_under(extraction, layer),
            },
            y,
            groups,
            spec,
            last_width,
            to_beat,
        )
        results.append(result)
        if _beats(result.value(spec.decides), to_beat):
            to_beat = result.value(spec.decides)
    return results


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


def _score(
    result: CandidateResult,
    extracted: dict[str, Any],
    y: Any,
    groups: np.ndarray | None,
    spec: EvaluationSpec,
    last_width: int,
    to_beat: float | None,
) -> None:
    """Fill in the scores, the models, and what failed."""
    start = time.perf_counter()

    def failed(name: str, error: Exception) -> None:
        if spec.error_score == "raise":
            raise error
        result.errors.append(f"{name}: {_reason(error)}")

    metrics = dict(spec.metrics)
    with collect_warnings() as caught:
        for name, metric in spec.metrics.items():
            if metric.reads == "source_proba" and extracted[metric.reads] is None:
                problem = source_proba_problem(result.extractor)
                failed(name, ValueError(f"no source probabilities: {problem}"))
                del metrics[name]
        try:
            data = LabelledData(
                **extracted,
                y=y,
                task=spec.task,
                groups=groups,
                fit_intercept=spec.fit_intercept,
                with_parts=True,
            )
            for metric, score in evaluate(metrics, data, on_error=failed).items():
                if factor := metrics[metric].layer_factor:
                    score = score.scaled(factor(result.n_features, last_width))
                result.scores[metric] = score
            if spec.fit_logme:
                result.logme = data.logme
            if spec.fit_head and _beats(result.value(spec.decides), to_beat):
                result.head = data.head
        except Exception as error:
            if not any(_reason(error) in known for known in result.errors):
                failed("logme", error)
    result.warnings = [
        # That one is about the target, which all candidates have.
        (text if kind is EqualClassesWarning else f"{result.label}: {text}", kind)
        for text, kind in caught
    ]
    result.score_time = time.perf_counter() - start


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


def not_run(name: str, error: Exception) -> CandidateResult:
    """The result of a candidate that a worker could not take, or not give back."""
    reason = " ".join(_reason(error).split())
    # The traceback in the worker, as text.
    *_, last = str(error.__cause__ or "").strip(' "\n').splitlines() or [""]
    if last and last not in reason:
        reason += f" ({last})."
    return CandidateResult(
        name,
        errors=[
            f"could not be run in a worker: {reason} With n_jobs=1 there are no "
            "workers; joblib's backend 'threading' has some that need no pickling."
        ],
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
