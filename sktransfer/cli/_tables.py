"""Rankings as tables, on the terminal or in a .csv file."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.table import Table

from sktransfer.inspection import RankingDisplay
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._files import replacing
from sktransfer.utils._terminal import (
    encodable,
    escaped,
    is_terminal,
    printable,
    write,
)

_ASCII_HEAD = Box(str(SIMPLE_HEAD).replace("─", "-"), ascii=True)
_HEADERS = {
    "logme": "LogME",
    "loo_log_likelihood": "log-lik.",
    "deep_logme": "deep LogME",
    "deep_loo_log_likelihood": "deep log-lik.",
    "loo_accuracy": "accuracy",
    "loo_r2": "R²",
}
# Metrics whose gain over no information is shown.
_IN_NATS = (
    "logme",
    "loo_log_likelihood",
    "deep_logme",
    "deep_loo_log_likelihood",
)


def show(table: Table) -> None:
    """Print a table, cutting nothing where the terminal is too narrow."""
    on_terminal = is_terminal(sys.stdout)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    page = io.TextIOWrapper(io.BytesIO(), encoding, "backslashreplace", newline="")
    # Brackets in names and messages are not rich's markup.
    console = Console(
        file=page, force_terminal=on_terminal, markup=False, highlight=False
    )
    # Set both, because rich gives a dumb terminal eighty columns otherwise.
    console.size = max(_page_width(), _least_width(table)), console.height
    console.print(table)
    page.flush()
    lines = page.buffer.getvalue().decode(encoding).split("\n")
    write("\n".join(line.rstrip(" ") for line in lines))


def _page_width() -> int:
    # Eighty columns, rich's width of a pipe, are too few for three metrics.
    return Console().width if is_terminal(sys.stdout) else 120


def _least_width(table: Table) -> int:
    """Columns that may not wrap, and a dozen characters for each that may."""
    gap = 1 + table.padding[1]
    return sum(
        gap
        + max(12 if not c.no_wrap else len(str(cell)) for cell in (c.header, *c.cells))
        for c in table.columns
    )


def new_table(title: str, *, gap: int = 2) -> Table:
    """Make an empty table with a gap between columns."""
    return Table(
        title=title + "\n",
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=SIMPLE_HEAD if encodable(str(SIMPLE_HEAD), sys.stdout) else _ASCII_HEAD,
        padding=(0, gap - 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )


def ranking_table(
    selector: ModelSelector,
    title: str,
    *,
    metrics: Sequence[str],
    model: str = "model",
    widths: bool = False,
) -> Table:
    """Ranking by the first of the metrics as a table, best first.

    With the number of features if `widths` and there is room.
    """
    results = selector.results_
    order = np.argsort(results["rank"], kind="stable")
    ordered = {name: column[order] for name, column in results.items()}
    seconds = [np.nansum(results[f"{what}_time"]) for what in ("extract", "score")]
    table = new_table(
        f"{title}\nextracted in {seconds[0]:.1f} s, scored in {seconds[1]:.1f} s",
        gap=1,
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column(model, overflow="fold")
    # One line per row, whatever the names.
    names = [printable(name).replace("\n", "\\n") for name in ordered["name"]]
    names = [escaped(name, sys.stdout) for name in names]
    # The last row is that of features that say nothing.
    columns = [[*map(str, ordered["rank"]), ""], [*names, "no information"]]

    def add(header, cells, *, last=""):
        # Aligned here, because rich would drop the spaces at the end of a cell.
        cells = [*cells, last]
        width = max(map(len, [header, *cells])) + 1
        table.add_column(header.rjust(width), no_wrap=True)
        columns.append([cell.rjust(width) for cell in cells])

    for metric in metrics:
        first = metric == metrics[0]
        header, cells, last = _score_column(selector, ordered, metric)
        with_error = f"{metric}_std_error" in results
        is_long = metric in _IN_NATS and metric != "logme"
        error = "se" if is_long else "std. error"
        if first and with_error:
            header += f" {plus_minus()} {error}"
        add(header, cells, last=last)
        if first and metric in _IN_NATS:
            gains = [f"{gain:.3f}" for gain in ordered[f"{metric}_gain"]]
            add("gain", np.where(np.isnan(ordered[metric]), "", gains), last="0.000")
        if first and with_error:
            better = selector.probability_better_by_metric_[metric]
            better = [*better[order[:-1], order[1:]], np.nan]
            add("P(> next)", ["" if np.isnan(p) else f"{p:.3f}" for p in better])
            add("tied", _tied(RankingDisplay.from_selector(selector, metric).groups))
    taken = sum(1 + max(map(len, cells)) for cells in columns)
    if widths and taken + len(" width") <= _page_width():
        add("width", map(str, ordered["n_features"]))
    *rows, last = zip(*columns, strict=True)
    for cells, error in zip(rows, ordered["error"], strict=True):
        table.add_row(*cells, style="dim" if error else None)
    if set(metrics).intersection(selector.no_information_):
        table.add_section()
        table.add_row(*last)
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


def plus_minus() -> str:
    """The sign between a value and its error that standard output can express."""
    return "±" if encodable("±", sys.stdout) else "+/-"


def show_score(value: float, error: float, *, per_cent: bool, digits: int = 4) -> str:
    """A score and, unless it is NaN, its standard error."""
    if per_cent:
        value, error, digits = 100 * value, 100 * error, 1
    text = f"{value:.{digits}f}"
    return text if np.isnan(error) else f"{text} {plus_minus()} {error:.{digits}f}"


def _score_column(
    selector: ModelSelector, ordered: dict, metric: str
) -> tuple[str, list[str], str]:
    """Header and cells of a metric, and the cell of no information."""
    display = RankingDisplay.from_selector(selector, metric)
    unknown = np.full(len(ordered["rank"]), np.nan)
    errors = ordered.get(f"{metric}_std_error", unknown)
    form = {"per_cent": display.per_cent, "digits": 3 if metric == "loo_r2" else 4}
    cells = [
        "failed" if np.isnan(score) else show_score(score, error, **form)
        for score, error in zip(ordered[metric], errors, strict=True)
    ]
    last = ""
    if np.isfinite(display.no_information):
        last = show_score(display.no_information, np.nan, **form)
        # Below the values, rather than below their errors.
        _, sign, error = max(cells, key=len).partition(f" {plus_minus()} ")
        last += " " * len(sign + error)
    header = _HEADERS.get(metric, metric)
    if metric == "loo_r2" and not encodable(header, sys.stdout):
        header = "R^2"
    return header + " %" * display.per_cent, cells, last


def _tied(groups: np.ndarray) -> list[str]:
    """The first and the last rank of each row's group, if it has several rows."""
    cells = []
    for group in groups:
        ranks = np.flatnonzero(groups == group) + 1
        cells.append(f"{ranks[0]}-{ranks[-1]}" if len(ranks) > 1 else "")
    return cells
