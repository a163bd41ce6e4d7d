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
    with_probability = f"{metrics[0]}_std_error" in results
    order = np.argsort(results["rank"], kind="stable")
    table = new_table(title)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column(model, overflow="fold")
    columns = [_score_header(results, metric) for metric in metrics]
    columns += ["P(> next)"] * with_probability + ["features"] * widths
    for header in (*columns, "extract s", "score s"):
        table.add_column(header, justify="right", no_wrap=True)
    for row, following in zip(order, [*order[1:], None], strict=True):
        name = printable(results["name"][row]).replace("\n", "\\n")  # one line per row
        cells = [str(results["rank"][row]), name]
        cells += [_score_cell(results, metric, row) for metric in metrics]
        if with_probability:
            cells.append(_better_cell(selector, row, following))
        if widths:
            cells.append(str(results["n_features"][row]))
        cells += [
            f"{results[time][row]:.2f}" for time in ("extract_time", "score_time")
        ]
        table.add_row(*cells, style="dim" if results["error"][row] else None)
    errors = [
        f"{results['name'][row]}: {results['error'][row]}"
        for row in order
        if results["error"][row]
    ]
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


def _score_header(results: dict, metric: str) -> str:
    name = "LogME" if metric == "logme" else metric
    if f"{metric}_std_error" in results:
        return f"{name} {_plus_minus()} std. error"
    return name


def _score_cell(results: dict, metric: str, row: int) -> str:
    score = results[metric][row]
    if np.isnan(score):
        return "failed"
    if f"{metric}_std_error" in results:
        std_error = results[f"{metric}_std_error"][row]
        return f"{score:.4f} {_plus_minus()} {std_error:.4f}"
    return f"{score:.4f}"


def _plus_minus() -> str:
    return "±" if encodable("±", sys.stdout) else "+/-"


def _better_cell(selector: ModelSelector, row: int, following: int | None) -> str:
    if following is None:
        return ""
    p = selector.probability_better_[row, following]
    return "" if np.isnan(p) else f"{p:.3f}"
