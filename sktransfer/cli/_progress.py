"""What standard error shows while a selector is fitted."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from sktransfer.cli._errors import as_typed
from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._terminal import is_terminal, printable, say


def fit_with_progress(
    selector: ModelSelector, X: Any, y: Any, *, groups: Any = None
) -> None:
    """Fit with a progress bar, if anybody can see it."""
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not is_terminal(sys.stderr),
    )
    with progress, _plain_warnings():
        selector.set_callbacks(_ProgressCallback(progress)).fit(X, y, groups=groups)


class _ProgressCallback:
    """scikit-learn callback that advances a bar by one step per candidate."""

    def __init__(self, progress: Progress):
        self.progress = progress

    def setup(self, estimator: Any, context: Any) -> None:
        self.task = self.progress.add_task("Extracting", total=context.max_subtasks)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        if context.parent is not None:
            description = printable(context.task_name)
            self.progress.update(self.task, description=description)

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        if context.parent is not None:
            self.progress.advance(self.task)

    def teardown(self, estimator: Any, context: Any) -> None:
        self.progress.remove_task(self.task)


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
