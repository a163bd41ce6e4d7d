"""Tell the user how a sweep went: lines, warnings, the error if nothing worked.

A `stacklevel` is that of whoever called the selector, counted from the caller.
"""

from __future__ import annotations

import warnings

import numpy as np

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection._candidate import Row
from sktransfer.model_selection._results import failure_summary
from sktransfer.model_selection._warnings import as_warning
from sktransfer.utils._terminal import printable


def print_rows(rows: list[Row]) -> None:
    """Print a line for each row."""
    for row in rows:
        scores = ", ".join(f"{k} {v:.4g}" for k, v in row.scores.items())
        scores = scores or "failed"
        seconds = np.nansum([row.extract_time, row.score_time])
        failed = f" [{'; '.join(row.errors)}]" if row.errors else ""
        print(printable(f"{row.label}: {scores} ({seconds:.1f} s){failed}"))


def give_warnings(rows: list[Row], *, stacklevel: int) -> None:
    """Give the warnings of all candidates, whatever process they came from."""
    for row in rows:
        for text, category in row.warnings:
            warnings.warn(as_warning(text, category), stacklevel=stacklevel + 1)


def warn_of_failures(rows: list[Row], best: Row | None, *, stacklevel: int) -> None:
    """Warn of the rows that failed; raise an error if there is no best one."""
    failed = [row for row in rows if row.errors]
    if best is None:
        reasons = [reason for row in failed for reason in row.errors]
        unreadable = all(reason.startswith("TypeError") for reason in reasons)
        raise (TypeError if unreadable else ValueError)(
            f"All {len(rows)} candidates failed:\n{failure_summary(failed)}"
        )
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(rows)} candidates failed, at least in part; see "
            f"results_['error']:\n{failure_summary(failed)}",
            CandidateFailedWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_unknown_order(
    rows: list[Row], probability: np.ndarray, *, stacklevel: int
) -> None:
    """Name the rows with a LogME but no influence, of whose order nothing is known."""
    scored = [i for i, row in enumerate(rows) if row.influence is not None]
    unknown = [
        rows[i].label
        for i in scored
        if np.isnan(rows[i].influence).any() and np.isnan(probability[i, scored]).any()
    ]
    if unknown:
        warnings.warn(
            "probability_better_ is unknown (NaN) for pairs with "
            f"{', '.join(map(repr, unknown))}: the standard error of their LogME "
            "cannot be computed.",
            stacklevel=stacklevel + 1,
        )
