"""Progress bars of long work, for a terminal that somebody looks at."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
)

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

    Without a `description`, the bar is labelled with the subtask at work. A subtask
    that has subtasks of its own gets a second bar.
    """

    def __init__(self, progress: Progress, description: str | None = None):
        self.progress = progress
        self.description = description
        self.bars: dict[int, TaskID] = {}

    def setup(self, estimator: Any, context: Any) -> None:
        self._add(context, self.description or "Extracting")

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        if context.parent is None:
            return
        if context.max_subtasks != 0:
            self._add(context, context.task_name)
        bar = self.bars.get(id(context.parent))
        if self.description is None and bar is not None:
            description = printable(context.task_name)
            self.progress.update(bar, description=description)

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        if context.parent is None:
            return
        if (bar := self.bars.get(id(context.parent))) is not None:
            self.progress.advance(bar)
        if (bar := self.bars.pop(id(context), None)) is not None:
            self.progress.remove_task(bar)

    def teardown(self, estimator: Any, context: Any) -> None:
        for bar in self.bars.values():
            self.progress.remove_task(bar)
        self.bars.clear()

    def _add(self, context: Any, description: str) -> None:
        total = context.max_subtasks
        bar = self.progress.add_task(printable(description), total=total)
        self.bars[id(context)] = bar
