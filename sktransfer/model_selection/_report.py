"""What the user is told of a sweep: lines, warnings, the error if all has failed.

A `stacklevel` is that of whoever called the selector, counted from the caller.
"""

from __future__ import annotations

import warnings

import numpy as np

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection._candidate import CandidateResult
from sktransfer.utils._terminal import printable


def print_results(results: list[CandidateResult]) -> None:
    """Print a line for each result."""
    for result in results:
        scores = ", ".join(f"{k} {v.value:.4g}" for k, v in result.scores.items())
        scores = scores or "failed"
        seconds = np.nansum([result.extract_time, result.score_time])
        failed = f" [{'; '.join(result.errors)}]" if result.errors else ""
        print(printable(f"{result.label}: {scores} ({seconds:.1f} s){failed}"))


def failure_summary(results: list[CandidateResult]) -> str:
    """One line for each result with an error."""
    lines = (f"  {r.label}: {'; '.join(r.errors)}" for r in results if r.errors)
    return printable("\n".join(lines))


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
    """Name the results whose order is unknown for want of a standard error."""
    n_samples = np.array([r.n_samples for r in results if metric in r.scores])
    scored = [i for i, result in enumerate(results) if metric in result.scores]
    unknown = [
        repr(results[i].label)
        for i in scored
        if np.isnan(results[i].scores[metric].std_error)
        and np.isnan(
            probability[i, np.array(scored)[n_samples == results[i].n_samples]]
        ).any()
    ]
    if unknown:
        warnings.warn(
            "probability_better_ is unknown (NaN) for pairs with "
            f"{', '.join(unknown)}: the standard error of their {metric} cannot be "
            "computed.",
            stacklevel=stacklevel + 1,
        )
