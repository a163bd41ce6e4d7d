"""What standard error shows while a selector is fitted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sktransfer.cli._errors import as_typed
from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._progress import ProgressCallback, make_progress
from sktransfer.utils._terminal import say


def fit_with_progress(
    selector: ModelSelector, X: Any, y: Any, *, groups: Any = None
) -> None:
    """Fit with a progress bar, if anybody can see it."""
    with make_progress() as progress, _plain_warnings():
        selector.set_callbacks(ProgressCallback(progress)).fit(X, y, groups=groups)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings as sentences, without their place in the code."""

    def show(message, category, *_, **__):
        # The table lists failures with their reasons.
        if not issubclass(category, CandidateFailedWarning):
            say(f"warning: {as_typed(message)}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield
