"""What the user is told of a sweep: lines, warnings, the error if all has failed.

A `stacklevel` is that of whoever called the selector, counted from the caller.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection._candidate import CandidateResult
from sktransfer.model_selection._results import failure_summary
from sktransfer.model_selection._warnings import as_warning
from sktransfer.utils._terminal import printable


def print_results(results: list[CandidateResult]) -> None:
    """Print a line for each result."""
    for result in results:
        scores = ", ".join(f"{k} {v.value:.4g}" for k, v in result.scores.items())
        scores = scores or "failed"
        seconds = np.nansum([result.extract_time, result.score_time])
        failed = f" [{'; '.join(result.errors)}]" if result.errors else ""
        print(printable(f"{result.label}: {scores} ({seconds:.1f} s){failed}"))


def give_warnings(
    caught: Iterable[tuple[str, type[Warning]]], *, stacklevel: int
) -> None:
    """Give the warnings of all candidates, whatever process they came from."""
    for text, category in caught:
        warnings.warn(as_warning(text, category), stacklevel=stacklevel + 1)


def warn_of_failures(
    results: list[CandidateResult], best: CandidateResult | None, *, stacklevel: int
) -> None:
    """Warn of the results with errors; raise an error if none can be the best."""
    failed = [result for result in results if result.errors]
    if best is None:
        reasons = [reason for result in failed for reason in result.errors]
        unreadable = all(reason.startswith("TypeError") for reason in reasons)
        raise (TypeError if unreadable else ValueError)(
            f"All {len(results)} candidates failed:\n{failure_summary(failed)}"
        )
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(results)} candidates failed, at least in part; see "
            f"results_['error']:\n{failure_summary(failed)}",
            CandidateFailedWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_unknown_order(
    results: list[CandidateResult],
    metric: str,
    probability: np.ndarray,
    *,
    stacklevel: int,
) -> None:
    """Name the results with a score whose order is not known for want of its parts."""
    scored = [i for i, r in enumerate(results) if metric in r.scores]
    n_samples = np.array([results[i].n_samples for i in scored])
    unknown = []
    for i in scored:
        parts = results[i].scores[metric].parts
        alike = np.array(scored)[n_samples == results[i].n_samples]
        if np.isnan(parts).any() and np.isnan(probability[i, alike]).any():
            unknown.append(results[i].label)
    if unknown:
        warnings.warn(
            "probability_better_ is unknown (NaN) for pairs with "
            f"{', '.join(map(repr, unknown))}: the standard error of their {metric} "
            "cannot be computed.",
            stacklevel=stacklevel + 1,
        )
