"""Contents of .csv files, without columns that only number the rows."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np

_INDEX_NAMES = ("id", "index", "idx")
_LABEL_NAMES = ("label", "labels", "class", "target", "y")
_MIN_ROWS = 20  # of an index in any order; fewer may be a measurement


def read_csv_features(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read numbers of shape (n_samples, n_features), and tell what was left out.

    Index columns and column names that are numbers are left out, with a sentence each.
    A ValueError names the line and column of anything that is not a number.
    """
    dropped = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        _, first = next(_rows(file))
        n_columns = len(first)
        names = None if all(map(_is_number, first)) else first
        if n_columns > 2 and first == [str(i) for i in range(n_columns)]:
            dropped.append("took the first line, 0, 1, 2, ..., for column names.")
            names = first
        by_name = _index_columns(names or ())
        if names is None:  # the first row is a sample
            file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on no data, which is refused below
                values = np.loadtxt(
                    file,
                    delimiter=",",
                    comments=None,
                    quotechar='"',
                    ndmin=2,
                    converters={i: lambda cell: 0.0 for i in by_name} or None,
                )
        except ValueError:
            _refuse_cells(path, names, by_name)
            raise
    if not values.size:
        raise ValueError("there are no rows below its header")
    if values.shape[1] != n_columns:
        _refuse_cells(path, names, by_name)
        raise ValueError("its rows differ in length")
    index = by_name
    if not index and n_columns > 1 and (_counts(values[:, 0]) or _is_shuffled(values)):
        index = [0]
    dropped += [_left_out(names, i) for i in index]
    if len(index) == n_columns:
        raise ValueError("it holds nothing but an index; features are missing")
    if index == [0]:
        values = values[:, 1:]  # a view
    elif index:
        values = np.delete(values, index, axis=1)
    return values, dropped


def read_csv_labels(path: Path, n_samples: int) -> tuple[np.ndarray, list[str]]:
    """Read a column of labels, or columns of numbers, and tell what was left out.

    The target is of integers if all are written as such; of floats if a decimal point
    or an exponent marks measurements, even whole ones; else of text. So are integers of
    more than 64 bits, which no number type separates. `n_samples` tells whether the
    first line is a header if its cells do not. Index columns and column names that are
    numbers are left out, with a sentence each.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines, rows = zip(*_rows(file), strict=True)
    first, cells = rows[0], np.array(rows)
    dropped, names = [], None
    words = [i for i, cell in enumerate(first) if not _is_number(cell)]
    # A word that recurs is a label, even in the first line.
    recurs = any(first[i] in cells[1:, i] for i in words)
    is_header = any(
        _are_numbers(cells[1:, i])
        or (first[i].strip().casefold() in _LABEL_NAMES and not recurs)
        for i in words
    )
    took_first = f"took the first line, {','.join(first)}, for a header."
    if is_header and len(rows) == n_samples:  # one label is missing then
        dropped.append(took_first)
    if len(rows) == n_samples + 1 and not is_header and not recurs:
        is_header = bool(words)
        if first == [str(i) for i in range(len(first))]:
            is_header = True
            dropped.append(took_first)
    if is_header:
        names, lines, cells = first, lines[1:], cells[1:]
    if not len(cells):
        raise ValueError("there are no rows below its header")
    kept = list(range(len(first)))
    if len(kept) > 1:
        index = _index_columns(names or ())
        column = cells[:, 0]
        if not index and _are_numbers(column) and _counts(column.astype(float)):
            index = [0]
        if len(index) < len(kept):
            dropped += [_left_out(names, i) for i in index]
            kept = [i for i in kept if i not in index]
    cells = cells[:, kept]
    missing = np.argwhere(is_missing(cells.T))
    if len(missing):
        raise ValueError(
            f"line {lines[missing[0, 1]]} has no label; leave such samples out of all "
            "files"
        )
    several = len(kept) > 1
    if _are_numbers(cells.flat):
        numbers = cells.astype(np.float64)
        for i, column in zip(kept, numbers.T, strict=True):
            if several and _is_whole(column) and _all_differ(column):
                raise ValueError(
                    f"{_name(names, i)} holds a different whole number in every row, "
                    "as ids do; keep only the columns of labels, or save the data as "
                    ".npy if it is one of them"
                )
        integers = all(map(_is_integer, cells.flat))
        if integers and np.abs(numbers).max() < 2**63:
            return cells.astype(np.int64), dropped
        if several or not integers:
            return numbers, dropped
    elif several:
        named = "" if names is None else f" ({', '.join(names[i] for i in kept)})"
        raise ValueError(
            f"it has {len(kept)} columns{named}, not all of them numbers; keep one "
            "column, the labels"
        )
    if _all_differ(cells):
        raise ValueError(
            "every label is different, as ids are; keep only the labels, and "
            "separate columns by commas"
        )
    return cells[:, 0], dropped


def is_missing(text: np.ndarray) -> np.ndarray:
    """Which cells hold no value: they are empty, or NaN as text."""
    return np.isin(np.char.lower(np.char.strip(text)), ("", "nan"))


def _rows(file: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows of equal length that are not empty, and the line where each ends."""
    n_columns = empty = 0
    # Iterating over the file itself would read ahead.
    reader = csv.reader(iter(file.readline, ""))
    for row in reader:
        if any("\0" in cell for cell in row):
            raise ValueError(
                f"line {reader.line_num} has zero bytes, as UTF-16 has; save it in "
                "UTF-8"
            )
        if not row:
            empty = reader.line_num if n_columns == 1 else 0
            continue
        if empty:
            raise ValueError(
                f"line {empty} is empty, so that a value of the one column is missing"
            )
        n_columns = n_columns or len(row)
        if len(row) != n_columns:
            raise ValueError(
                f"line {reader.line_num} has {len(row)} values, but the first has "
                f"{n_columns}; values that contain commas need quotes"
            )
        yield reader.line_num, row
    if not n_columns:
        raise ValueError("the file is empty")


def _is_number(cell: str) -> bool:
    """Whether NumPy reads the cell as a number; Python's float accepts more."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def _is_integer(cell: str) -> bool:
    """Whether a number is written without decimal point or exponent."""
    return cell.strip().lstrip("+-").isdecimal()


def _are_numbers(cells: Iterable[str]) -> bool:
    return all(map(_is_number, cells))


def _index_columns(names: list[str] | tuple[str, ...]) -> list[int]:
    """Columns named like an index; pandas leaves the first without a name."""
    names = [name.strip().casefold() for name in names]
    # Several come first if the index has levels, or was written more than once.
    unnamed = takewhile(lambda name: not name or name.startswith("unnamed"), names)
    n_unnamed = len(list(unnamed))
    return [i for i, name in enumerate(names) if i < n_unnamed or name in _INDEX_NAMES]


def _counts(column: np.ndarray) -> bool:
    """Whether the column only numbers the rows."""
    return bool(len(column) > 2 and _is_whole(column) and (np.diff(column) > 0).all())


def _is_shuffled(values: np.ndarray) -> bool:
    """Whether the first column alone numbers the rows, in any order."""
    column = values[:, 0]
    return bool(
        len(column) >= _MIN_ROWS
        and (np.diff(np.sort(column)) == 1).all()
        and _is_whole(column)
        and not _is_whole(values[:, 1:])
    )


def _is_whole(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values == np.rint(values)).all())


def _all_differ(column: np.ndarray) -> bool:
    return len(column) > 2 and len(np.unique(column)) == len(column)


def _name(names: list[str] | None, column: int) -> str:
    return f"column {column + 1}" if names is None else repr(names[column])


def _left_out(names: list[str] | None, column: int) -> str:
    return (
        f"left out {_name(names, column)}, which looks like an index of the samples; "
        "rows are matched by their order in the file. If it is a measurement, save the "
        "data as .npy."
    )


def _refuse_cells(path: Path, names: list[str] | None, index: list[int]) -> None:
    """Read the file again, and name the first cell that is not a number."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = _rows(file)
        if names is not None:
            next(rows)
        for line, row in rows:
            for i, cell in enumerate(row):
                if i not in index and not _is_number(cell):
                    column = f"column {i + 1}"
                    if names and names[i]:
                        column += f" ({names[i][:40]})"
                    what = f"holds {cell[:40]!r}, not a number" if cell else "is empty"
                    raise ValueError(
                        f"line {line}, {column} {what}; features must be numbers "
                        "separated by commas, without any other columns"
                    )
