"""Messages to the user: lines, warnings, the error if all candidates failed.

`stacklevel` is that of the code that called the selector.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection._candidate import CandidateResult
from sktransfer.utils._terminal import escaped, printable


def print_results(results: list[CandidateResult]) -> None:
    """Print a line for each result."""
    for result in results:
        scores = ", ".join(f"{k} {v.value:.4g}" for k, v in result.scores.items())
        scores = scores or "failed"
        seconds = np.nansum([result.extract_time, result.score_time])
        failed = f" [{'; '.join(result.errors)}]" if result.errors else ""
        line = printable(f"{result.label}: {scores} ({seconds:.1f} s){failed}")
        print(escaped(line, sys.stdout))


def warn_of_failures(
    results: list[CandidateResult], best: CandidateResult | None, *, stacklevel: int
) -> None:
    """Warn of the results with errors; raise an error if none can be the best."""
    failed = [result for result in results if result.errors]
    reasons = "\n".join(f"  {r.label}: {'; '.join(r.errors)}" for r in failed)
    reasons = printable(reasons)
    if best is None:
        errors = [error for result in failed for error in result.errors]
        unreadable = all(error.startswith("TypeError") for error in errors)
        raise (TypeError if unreadable else ValueError)(
            f"All {len(results)} candidates failed:\n{reasons}"
        )
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(results)} candidates failed, at least in part; see "
            f"results_['error']:\n{reasons}",
            CandidateFailedWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_unknown_order(
    results: list[CandidateResult], metric: str, P: np.ndarray, *, stacklevel: int
) -> None:
    """Name the results whose order is unknown for want of a standard error."""
    n_samples = np.array([r.n_samples if metric in r.scores else -1 for r in results])
    unknown = ", ".join(
        repr(result.label)
        for i, result in enumerate(results)
        if metric in result.scores
        and np.isnan(result.scores[metric].std_error)
        and np.isnan(P[i, n_samples == n_samples[i]]).any()
    )
    if unknown:
        warnings.warn(
            f"probability_better_ is unknown (NaN) for pairs with {unknown}: the "
            f"standard error of their {metric} cannot be computed.",
            stacklevel=stacklevel + 1,
        )
