"""Turn scored candidates into tables and probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from sktransfer.metrics import Metric
from sktransfer.model_selection._candidate import Row, is_logme
from sktransfer.utils._terminal import printable

_MEASURED = ("n_features", "extract_time", "score_time")


def results_table(
    rows: list[Row],
    metrics: Mapping[str, Metric],
    refit_metric: str,
    error_score: Any,
) -> dict[str, np.ndarray]:
    """Columns of `results_`, in the order of the candidates.

    Parameters
    ----------
    rows : list of Row
    metrics : dict of str to Metric
    refit_metric : str
        The metric of the column ``"rank"``.
    error_score : number
        The score where a metric failed; it has no say in the ranks.

    Returns
    -------
    dict of str to ndarray of shape (n_rows,)
    """
    table: dict[str, Any] = {
        "name": np.array([row.name for row in rows], dtype=object),
        "layer": np.array([row.layer for row in rows], dtype=object),
    }
    for name, metric in metrics.items():
        measured = np.array([row.scores.get(name, np.nan) for row in rows])
        table[name] = np.array(
            [row.scores.get(name, error_score) for row in rows], dtype=np.float64
        )
        std_error, rank_by = _columns_beside(name)
        if is_logme(metric):
            table[std_error] = np.array([row.std_error for row in rows])
        if len(metrics) > 1:
            table[rank_by] = ranks(measured)
        if name == refit_metric:
            rank = ranks(measured)
    table["rank"] = rank
    for column in _MEASURED:
        table[column] = np.array([getattr(row, column) for row in rows])
    table["error"] = np.array(["; ".join(row.errors) for row in rows], dtype=object)
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


def _columns_beside(name: str) -> tuple[str, str]:
    """Columns that come with the scores of a metric: its error and its ranks."""
    return f"{name}_std_error", f"rank_{name}"


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1 for the largest score; equal scores share one, NaN comes last."""
    keys = np.where(np.isnan(scores), np.inf, -scores)
    rank = rankdata(keys, method="min")
    failed = np.isnan(scores)
    rank[failed] = np.sum(~failed) + 1
    return rank.astype(np.int32)


def probability_better(rows: list[Row]) -> np.ndarray:
    """Probability that the LogME of row i is larger than that of row j.

    Phi((LogME_i - LogME_j) / stderr), with the standard error of the difference from
    the paired influences: both models have seen the same samples. Differences within
    the rounding of the features, 1e-4 nats for float32 and 5e-9 for float64, are ties.

    Parameters
    ----------
    rows : list of Row

    Returns
    -------
    ndarray of shape (n_rows, n_rows)
        0.5 on the diagonal and for ties, NaN where a row has no LogME.
    """
    n_rows = len(rows)
    probability = np.full((n_rows, n_rows), np.nan)
    measured = [i for i, row in enumerate(rows) if row.influence is not None]
    if not measured:
        return probability
    scores = np.array([rows[i].logme.logme_ for i in measured])
    influence = np.stack([rows[i].influence for i in measured])
    resolution = np.array([rows[i].resolution for i in measured])
    for a, i in enumerate(measured):
        std_error = np.std(influence - influence[a], axis=1)
        std_error /= np.sqrt(influence.shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = scores[a] - scores
            z = difference / std_error
        # Copies of one network differ by rounding, in score and influence alike.
        rounding = np.maximum(resolution, resolution[a])
        same = (np.abs(difference) <= rounding) | (scores == scores[a])
        z = np.where(same, 0.0, np.where(np.isinf(difference), difference, z))
        probability[i, measured] = ndtr(z)
    return probability


def failure_summary(rows: list[Row]) -> str:
    """One line for each row with an error."""
    lines = (f"  {row.label}: {'; '.join(row.errors)}" for row in rows if row.errors)
    return printable("\n".join(lines))
