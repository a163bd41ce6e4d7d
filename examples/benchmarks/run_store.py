"""Finished runs of a benchmark: kept in a file, completed by several processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, as_completed
from pathlib import Path

from rich.progress import Progress, TimeElapsedColumn


class RunStore:
    """Accuracies of finished runs, one JSON line per run, appended to a file."""

    def __init__(self, path: Path):
        self.path = path
        self.results: dict[tuple, float] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                record = json.loads(line)
                self.results[tuple(record["run"])] = record["accuracy"]

    def add(self, run: tuple, result: float, seconds: float) -> None:
        self.results[run] = result
        record = {"run": run, "accuracy": result, "seconds": round(seconds, 3)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def complete(
    store: RunStore,
    runs: Iterable[tuple],
    pool: Executor,
    run_one: Callable[..., tuple],
    settings: tuple,
    label: str,
) -> None:
    """Run what is missing."""
    runs = list(runs)
    missing = [run for run in runs if run not in store.results]
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress:
        bar = progress.add_task(
            label, total=len(runs), completed=len(runs) - len(missing)
        )
        futures = [pool.submit(run_one, run, *settings) for run in missing]
        try:
            for future in as_completed(futures):
                store.add(*future.result())
                progress.advance(bar)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
