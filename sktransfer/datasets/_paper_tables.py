"""Tables of published papers on transferability, as printed."""

from __future__ import annotations

import csv
import json
import textwrap
from collections import Counter
from importlib import resources
from typing import NamedTuple

import numpy as np
from sklearn.utils import Bunch


class SuspectCell(NamedTuple):
    """A printed cell that is probably wrong, or may have been misread."""

    row: int
    column: str
    reason: str


def _read_text(name: str) -> str:
    folder = resources.files("sktransfer.datasets") / "data" / "paper_tables"
    return (folder / name).read_text("utf-8")


def _read_columns(name: str) -> dict[str, np.ndarray]:
    """Columns of a file: float64 with NaN for blanks, bool, or object for text."""
    header, *rows = csv.reader(_read_text(name).splitlines())
    return {
        column: _typed(cells)
        for column, cells in zip(header, zip(*rows, strict=True), strict=True)
    }


def _typed(cells: tuple[str, ...]) -> np.ndarray:
    if set(cells) <= {"true", "false"}:
        return np.array(cells) == "true"
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return np.array(cells, dtype=object)


def _suspect_cells(name: str, data: dict[str, np.ndarray]) -> list[SuspectCell]:
    listed = csv.DictReader(_read_text("suspect.csv").splitlines())
    n_rows = len(next(iter(data.values())))
    cells = []
    for entry in listed:
        if entry["table"] != name:
            continue
        chosen = np.full(n_rows, True)
        for condition in filter(None, entry["rows"].split(";")):
            column, value = condition.split("=")
            text = data[column].dtype == object
            chosen &= data[column] == (value if text else float(value))
        cells += [
            SuspectCell(int(row), entry["column"], entry["reason"])
            for row in np.flatnonzero(chosen)
        ]
    return cells


def _describe(
    name: str, entry: dict, source: str, url: str, suspect: list[SuspectCell]
) -> str:
    title = f"{name}: {entry['number']}"
    lines = [title, "-" * len(title), "", *textwrap.wrap(entry["description"], 88), ""]
    lines += [*textwrap.wrap(source, 88), url, ""]
    for column, about in entry["columns"].items():
        better = f"{about['better']} is better" if about["better"] else ""
        text = "; ".join(filter(None, [about["meaning"], about["unit"], better]))
        lines += textwrap.wrap(
            f":{column}: {text}", 88, subsequent_indent="    ", break_on_hyphens=False
        )
    if suspect:
        lines += ["", "Doubtful cells:"]
        counts = Counter((cell.column, cell.reason) for cell in suspect)
        for (column, reason), count in counts.items():
            lines += textwrap.wrap(
                f"- {column} ({count}): {reason}", 88, subsequent_indent="  "
            )
    return "\n".join(lines) + "\n"


def load_paper_table(name: str) -> Bunch:
    """Load a table of a published paper, with its doubtful cells marked.

    Parameters
    ----------
    name : str
        From the LogME papers `"logme_jmlr_table3"`, `"logme_jmlr_table4"`,
        `"logme_jmlr_table5"`, `"logme_jmlr_table6"`, `"logme_jmlr_table7"`,
        `"logme_jmlr_table8"`, `"logme_jmlr_table10"`, `"logme_jmlr_table11"`,
        `"logme_jmlr_table12"`, `"logme_jmlr_table13"`,
        `"logme_jmlr_table13_as_printed"`, `"logme_jmlr_fig10_combinations"`,
        `"logme_jmlr_fig10_logme"`, `"logme_jmlr_fig11"` and `"logme_icml_table4"`; from
        the TransRate paper `"transrate_table2"`, `"transrate_table3"`,
        `"transrate_table4"`, `"transrate_table5"`, `"transrate_table6"`,
        `"transrate_table7"` and `"transrate_fig2"`.

    Returns
    -------
    table : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes

        data : dict of str to ndarray of shape (n_rows,)
            The columns: float64 with NaN for blanks, bool, or object for text.
        suspect : list of (row, column, reason)
            Doubtful cells, whose numbers are kept as printed.
        suspect_mask : dict of str to ndarray of bool, shape (n_rows,)
            The same by column.
        columns : dict of str to dict
            The `meaning`, the `unit` and which values are `better` ("higher", "lower"
            or ""), for each column.
        published_tau_w : dict of (str, str) to float
            The weighted Kendall correlation printed with the scores, by data set and
            column of `data`.
        source, url, arxiv : str
            The paper, its address, and its arXiv number.
        number : str
            The number of the table or figure.
        DESCR : str
            Description of the table.

    Raises
    ------
    ValueError
        If there is no table called `name`.

    See Also
    --------
    sktransfer.agreement.agreement_report : Agreement of scores with performances.

    Notes
    -----
    The published correlations are those of
    :func:`sktransfer.agreement.weighted_kendall_tau`, except for three that come from
    unrounded numbers.

    Examples
    --------
    >>> from sktransfer.datasets import load_paper_table
    >>> from sktransfer.agreement import weighted_kendall_tau
    >>> table = load_paper_table("logme_jmlr_table10")
    >>> pets = table.data["dataset"] == "Pets"
    >>> tau = weighted_kendall_tau(
    ...     table.data["accuracy"][pets], table.data["logme"][pets]
    ... )
    >>> round(tau, 2), table.published_tau_w["Pets", "logme"]
    (0.61, 0.61)
    >>> bool(table.suspect_mask["leep"].all())
    True
    """
    index = json.loads(_read_text("tables.json"))
    if name not in index["tables"]:
        raise ValueError(
            f"The 'name' parameter of load_paper_table must be a str among "
            f"{list(index['tables'])}. Got {name!r} instead."
        )
    entry = index["tables"][name]
    paper = index["papers"][entry["paper"]]
    data = _read_columns(f"{name}.csv")
    suspect = _suspect_cells(name, data)
    mask = {column: np.full(len(values), False) for column, values in data.items()}
    for cell in suspect:
        mask[cell.column][cell.row] = True
    published = csv.DictReader(_read_text("published_tau_w.csv").splitlines())
    return Bunch(
        data=data,
        suspect=suspect,
        suspect_mask=mask,
        columns=entry["columns"],
        published_tau_w={
            (row["dataset"], row["measure"]): float(row["tau_w"])
            for row in published
            if row["table"] == name
        },
        source=paper["source"],
        url=paper["url"],
        arxiv=paper["arxiv"],
        number=entry["number"],
        DESCR=_describe(name, entry, paper["source"], paper["url"], suspect),
    )
