"""Progress bars of long work, for a terminal that somebody looks at."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from sktransfer.utils._terminal import is_terminal, printable


def make_progress(*, shown: bool | None = None) -> Progress:
    """Bars on standard error; by default if it is a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True, force_terminal=shown or None),
        transient=True,
        disable=not (is_terminal(sys.stderr) if shown is None else shown),
    )


class ProgressCallback:
    """scikit-learn callback that advances a bar by one step per subtask of `fit`.

    Without a `description`, the bar is labelled with the subtask at work.
    """

    def __init__(self, progress: Progress, description: str | None = None):
        self.progress = progress
        self.description = description

    def setup(self, estimator: Any, context: Any) -> None:
        self.task = self.progress.add_task(
            self.description or "Extracting", total=context.max_subtasks
        )

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        if context.parent is not None and self.description is None:
            description = printable(context.task_name)
            self.progress.update(self.task, description=description)

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        if context.parent is not None:
            self.progress.advance(self.task)

    def teardown(self, estimator: Any, context: Any) -> None:
        self.progress.remove_task(self.task)
