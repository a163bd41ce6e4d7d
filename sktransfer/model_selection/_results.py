"""Tables and probabilities from the results of candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from sktransfer.metrics import Metric
from sktransfer.model_selection._candidate import CandidateResult
from sktransfer.utils._score import probability_better

_MEASURED = ("n_samples", "n_features", "extract_time", "score_time")


def results_table(
    results: list[CandidateResult],
    metrics: Iterable[str],
    decides: str,
    error_score: Any,
) -> dict[str, np.ndarray]:
    """Columns of `results_`; `error_score` stands for scores that failed."""
    table: dict[str, Any] = {
        "name": np.array([r.name for r in results], dtype=object),
        "layer": np.array([r.layer for r in results], dtype=object),
    }
    n_samples = np.array([r.n_samples for r in results])
    metrics = list(metrics)
    for name in metrics:
        values = [
            r.scores[name].value if name in r.scores else error_score for r in results
        ]
        table[name] = np.array(values, dtype=np.float64)
        std_error, gain, rank_by = _columns_beside(name)
        scores = [r.scores.get(name) for r in results]
        if has_parts(results, name):
            table[std_error] = np.array([s.std_error if s else np.nan for s in scores])
        gains = np.array([s.gain if s else np.nan for s in scores])
        if not np.isnan(gains).all():
            table[gain] = gains
        if len(metrics) > 1:
            table[rank_by] = ranks(
                np.array([r.value(name) for r in results]), n_samples
            )
    table["rank"] = ranks(np.array([r.value(decides) for r in results]), n_samples)
    for column in _MEASURED:
        table[column] = np.array([getattr(r, column) for r in results])
    table["error"] = np.array(["; ".join(r.errors) for r in results], dtype=object)
    return table


def check_columns(metrics: Mapping[str, Metric]) -> None:
    """Refuse names of metrics that would overwrite other columns of the table."""
    taken = {column for name in metrics for column in _columns_beside(name)}
    taken |= {"name", "layer", "rank", "error", *_MEASURED}
    clash = sorted(taken.intersection(metrics))
    if clash:
        raise ValueError(
            f"A metric in 'scoring' cannot be called {clash[0]!r}: that is a column of "
            "results_ already. Give it another name."
        )


def _columns_beside(name: str) -> tuple[str, str, str]:
    """Columns that come with the scores of a metric: its error, gain and ranks."""
    return f"{name}_std_error", f"{name}_gain", f"rank_{name}"


def ranks(scores: np.ndarray, n_samples: Any = 0) -> np.ndarray:
    """Ranks from 1 for the largest score among those of most samples.

    Equal scores share a rank, NaN comes last.
    """
    failed = np.isnan(scores)
    n_samples = np.broadcast_to(n_samples, scores.shape)
    columns = [failed, np.where(failed, 0, -n_samples), np.where(failed, 0, -scores)]
    _, inverse = np.unique(np.rec.fromarrays(columns), return_inverse=True)
    return rankdata(inverse, method="min").astype(np.int32)


def has_parts(results: list[CandidateResult], metric: str) -> bool:
    """Whether the metric has given parts, and with them standard errors."""
    scores = (result.scores.get(metric) for result in results)
    return any(score is not None and score.parts is not None for score in scores)


def no_information(results: list[CandidateResult], n_samples: int) -> dict[str, float]:
    """Scores of features that say nothing, from results on this many samples."""
    known = {}
    for result in results:
        for metric, score in result.scores.items():
            if result.n_samples == n_samples and not np.isnan(score.no_information):
                known.setdefault(metric, float(score.no_information))
    return known


def probabilities(results: list[CandidateResult], metric: str) -> np.ndarray:
    """Probability that result i has the larger score than result j.

    NaN where one of them has no parts, or they are of different numbers of samples.
    """
    n_samples = np.array([result.n_samples for result in results])
    table = np.full((len(results), len(results)), np.nan)
    for n in np.unique(n_samples):
        alike = np.flatnonzero(n_samples == n)
        scores = [results[i].scores.get(metric) for i in alike]
        table[np.ix_(alike, alike)] = probability_better(scores)
    return table
