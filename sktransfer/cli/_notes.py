"""Sentences below a ranking: what its columns mean, and when to doubt its order."""

from __future__ import annotations

import textwrap

import numpy as np
from rich.table import Table

from sktransfer.cli._tables import show_score
from sktransfer.inspection._ranking import CLEAR
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._terminal import printable

_EXPECTED = "expected of a linear head on unseen samples, by leave-one-out"
_IN_NATS = "log-likelihood in nats per sample with its standard error"
# By the beginnings of headers.
_MEANINGS = {
    "LogME": "nats per sample, with its standard error",
    "deep LogME": "LogME of all layers of the network, in nats per sample, with its "
    "standard error",
    "log-lik.": f"{_IN_NATS}, {_EXPECTED}",
    "deep log-lik.": f"{_IN_NATS}, expected of a linear head on all layers",
    "gain": "the score minus that of features that say nothing about the target",
    "P(> next)": "probability that the score is larger than the next one's, on this "
    "many samples",
    "tied": "ranks too close to call, as the first is better than any of the others "
    f"with a probability below {CLEAR}",
    "accuracy %": _EXPECTED,
    "R²": _EXPECTED,
    "R^2": _EXPECTED,
    "deep_": "of all layers of a network at once",
    "width": "number of features",
}


def paragraph(text: str) -> str:
    """The text in lines of 80 characters."""
    return textwrap.fill(printable(text), 80, break_on_hyphens=False) + "\n"


def legend(table: Table) -> str:
    """What the columns of a ranking mean."""
    headers = [str(column.header).strip() for column in table.columns]
    return " ".join(
        f"{start}: {meaning}."
        for start, meaning in _MEANINGS.items()
        if any(header.startswith(start) for header in headers)
    )


def doubt(selector: ModelSelector) -> str:
    """Name a model that is clearly expected to beat the first by LogME; else empty."""
    metrics = selector.scorer_.metrics
    expected = "loo_r2" if selector.task_ == "regression" else "loo_accuracy"
    by_metric = getattr(selector, "probability_better_by_metric_", {})
    if next(iter(metrics)) != "logme" or expected not in by_metric:
        return ""
    results, first = selector.results_, selector.best_index_
    clear = by_metric[expected][:, first] > CLEAR
    if not clear.any():
        return ""
    better = np.argmax(np.where(clear, results[expected], -np.inf))

    def describe(row):
        score = show_score(
            results[expected][row],
            results[f"{expected}_std_error"][row],
            per_cent=expected == "loo_accuracy",
            digits=3,
        )
        return score + " %" * (expected == "loo_accuracy")

    what = "accuracy" if expected == "loo_accuracy" else "R^2"
    names = results["name"]
    return (
        f"LogME ranks {names[first]} first, but {names[better]} is clearly expected to "
        f"be better on unseen samples: {what} {describe(better)} against "
        f"{describe(first)} (P = {by_metric[expected][better, first]:.3f})."
    )
