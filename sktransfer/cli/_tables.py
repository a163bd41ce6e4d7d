"""Rankings as tables, on the terminal or in a .csv file."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from sktransfer.model_selection import ModelSelector
from sktransfer.utils._files import replacing
from sktransfer.utils._terminal import encodable, is_terminal, printable, write


def show(table: Table) -> None:
    """Print a table, cutting nothing where the terminal is too narrow."""
    on_terminal = is_terminal(sys.stdout)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    page = io.TextIOWrapper(io.BytesIO(), encoding, "backslashreplace", newline="")
    # Brackets in names and messages are not rich's markup.
    console = Console(
        file=page, force_terminal=on_terminal, markup=False, highlight=False
    )
    # Eighty columns, rich's width of a pipe, are too few for three metrics.
    width = console.width if on_terminal else 120
    # Set both, because rich gives a dumb terminal eighty columns otherwise.
    console.size = max(width, _least_width(table)), console.height
    console.print(table)
    page.flush()
    write(page.buffer.getvalue().decode(encoding))


def _least_width(table: Table) -> int:
    """Columns that may not wrap, and a dozen characters for each that may."""
    return sum(
        1
        + max(12 if not c.no_wrap else len(str(cell)) for cell in (c.header, *c.cells))
        for c in table.columns
    )


def new_table(title: str) -> Table:
    """Make an empty table."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def ranking_table(
    selector: ModelSelector, title: str, *, model: str = "model", widths: bool = False
) -> Table:
    """Ranking as a table, best first; with the number of features if `widths`."""
    results = selector.results_
    metrics = list(selector.scorer_.metrics)
    order = np.argsort(results["rank"], kind="stable")
    ordered = {name: column[order] for name, column in results.items()}
    # One line per row, whatever the names.
    names = [printable(name).replace("\n", "\\n") for name in ordered["name"]]
    columns = [map(str, ordered["rank"]), names]
    table = new_table(title)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column(model, overflow="fold")

    def add(header, cells):
        table.add_column(header, justify="right", no_wrap=True)
        columns.append(cells)

    for metric in metrics:
        add(*_score_column(ordered, metric))
    if f"{metrics[0]}_std_error" in results:
        better = selector.probability_better_[order[:-1], order[1:]]
        add("P(> next)", ["" if np.isnan(p) else f"{p:.3f}" for p in (*better, np.nan)])
    if widths:
        add("features", map(str, ordered["n_features"]))
    for what in ("extract", "score"):
        add(f"{what} s", [f"{seconds:.2f}" for seconds in ordered[f"{what}_time"]])
    for error, *cells in zip(ordered["error"], *columns, strict=True):
        table.add_row(*cells, style="dim" if error else None)
    named = zip(ordered["name"], ordered["error"], strict=True)
    errors = [f"{name}: {error}" for name, error in named if error]
    if errors:
        table.caption = printable("failed: " + "; ".join(errors))
    return table


def write_csv(selector: ModelSelector, path: Path) -> None:
    """Write the ranking to a file, best first."""
    results = selector.results_
    columns = [name for name in results if name != "layer"]
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in np.argsort(results["rank"], kind="stable"):
            writer.writerow([results[name][row] for name in columns])


def _score_column(results: dict, metric: str) -> tuple[str, list[str]]:
    """Header and cells of a metric."""
    header = "LogME" if metric == "logme" else metric
    cells = [f"{score:.4f}" for score in results[metric]]
    if f"{metric}_std_error" in results:
        sign = "±" if encodable("±", sys.stdout) else "+/-"
        header += f" {sign} std. error"
        errors = results[f"{metric}_std_error"]
        cells = [f"{s} {sign} {e:.4f}" for s, e in zip(cells, errors, strict=True)]
    failed = np.isnan(results[metric])
    return header, np.where(failed, "failed", cells).tolist()
