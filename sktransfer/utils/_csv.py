"""Numbers and words from .csv files, without the columns that only number the rows."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_INDEX_NAMES = ("id", "index", "idx")


def read_csv_features(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read numbers, one row a sample.

    Parameters
    ----------
    path : Path

    Returns
    -------
    values : ndarray of shape (n_samples, n_features), float64
    dropped : list of str
        Sentences on what was left out: index columns, names that are numbers.

    Raises
    ------
    ValueError
        If there are no numbers, or anything else; it names line and column.
    """
    dropped = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = _first_row(file)
        n_columns = len(first)
        names = None if all(map(_is_number, first)) else first
        if n_columns > 2 and first == [str(i) for i in range(n_columns)]:
            dropped.append("took the first line, 0, 1, 2, ..., for column names.")
            names = first
        by_name = _index_columns(names or ())
        if names is None:  # it was a sample
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
                    converters={i: _zero for i in by_name} or None,
                )
        except ValueError as error:
            raise ValueError(_what_is_wrong(path, names, by_name) or error) from error
    if not values.size:
        raise ValueError("there are no rows below its header")
    if values.shape[1] != n_columns:
        raise ValueError(_what_is_wrong(path, names, by_name))
    index = by_name or ([0] if n_columns > 1 and _counts(values) else [])
    dropped += [_left_out(names, i) for i in index]
    if len(index) == n_columns:
        raise ValueError("it holds nothing but an index; features are missing")
    if index == [0]:
        values = values[:, 1:]  # a view
    elif index:
        values = np.delete(values, index, axis=1)
    return values, dropped


def read_csv_labels(path: Path, n_samples: int) -> tuple[np.ndarray, list[str]]:
    """Read labels or numbers: one column, or several columns of numbers.

    Parameters
    ----------
    path : Path
    n_samples : int
        Tells whether the first line is a header where its kind does not.

    Returns
    -------
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Integers where all numbers are whole, for classes written as 0, 1, 2 or 0.0,
        1.0, 2.0 are not measurements; else floats, or text.
    dropped : list of str
        Sentences on what was left out: index columns, names that are numbers.

    Raises
    ------
    ValueError
        If a label is missing, or several columns are not all numbers.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines, rows = [], []
        for line, row in _rows(file):
            lines.append(line)
            rows.append(row)
    if not rows:
        raise ValueError("the file is empty")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(rows[0]):
            raise ValueError(_ragged(line, row, len(rows[0])))
    dropped, names = [], None
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    is_header = any(
        not _is_number(column[0]) and all(map(_is_number, column[1:]))
        for column in columns
    )
    if len(rows) == n_samples + 1 and not is_header:
        of_words = not all(map(_is_number, rows[0]))
        is_header = of_words or rows[0] == [str(i) for i in range(len(rows[0]))]
        if not of_words and is_header:
            dropped.append(f"took the first line, {','.join(rows[0])}, for a header.")
    if is_header:
        names, lines = rows[0], lines[1:]
        columns = [column[1:] for column in columns]
    if not len(columns[0]):
        raise ValueError("there are no rows below its header")
    kept = list(range(len(columns)))
    if len(columns) > 1:
        index = _index_columns(names or ())
        if not index and _are_numbers(columns[0]) and _counts(_numbers(columns[:1])):
            index = [0]
        if len(index) < len(columns):
            dropped += [_left_out(names, i) for i in index]
            kept = [i for i in kept if i not in index]
    columns = [columns[i] for i in kept]
    for column in columns:
        missing = np.flatnonzero(np.isin(np.char.lower(column), ("", "nan")))
        if len(missing):
            raise ValueError(
                f"line {lines[missing[0]]} has no label; leave such samples out of all "
                "files"
            )
    if all(map(_are_numbers, columns)):
        numbers = _numbers(columns)
        if len(columns) > 1:
            for i, column in zip(kept, numbers.T, strict=True):
                if _is_whole(column) and _all_differ(column):
                    raise ValueError(
                        f"{_name(names, i)} holds a different whole number in every "
                        "row, as ids do; keep the columns of labels only, or save them "
                        "as .npy if it is one of them"
                    )
        return numbers.astype(np.int64) if _is_whole(numbers) else numbers, dropped
    if len(columns) > 1:
        named = "" if names is None else f" ({', '.join(names[i] for i in kept)})"
        raise ValueError(
            f"it has {len(columns)} columns{named}, not all of them numbers; keep one "
            "column, that of the labels"
        )
    if _all_differ(columns[0]):
        raise ValueError(
            "every label is different, as ids are; keep the column of the labels, and "
            "commas between columns"
        )
    return columns[0], dropped


def _first_row(file: Iterator[str]) -> list[str]:
    """The first row that is not empty, no further line of the file being read."""
    for _, row in _rows(file):
        return row
    raise ValueError("the file is empty")


def _rows(file: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, and the line where each ends."""
    # A file that is iterated over reads ahead.
    reader = csv.reader(iter(file.readline, ""))
    for row in reader:
        if row:
            yield reader.line_num, row


def _is_number(cell: str) -> bool:
    """Whether NumPy reads it as one; Python's own float takes more."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def _are_numbers(column: np.ndarray) -> bool:
    return all(map(_is_number, column))


def _numbers(columns: list[np.ndarray]) -> np.ndarray:
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def _zero(cell: str) -> float:
    return 0.0


def _index_columns(names: list[str] | tuple[str, ...]) -> list[int]:
    """Columns that are named as an index is; pandas leaves the first without a name."""
    names = [name.strip().casefold() for name in names]
    return [
        i
        for i, name in enumerate(names)
        if name in _INDEX_NAMES or (i == 0 and (not name or name.startswith("unnamed")))
    ]


def _counts(values: np.ndarray) -> bool:
    """Whether the first of several columns only numbers the rows."""
    column = values[:, 0]
    return bool(len(column) > 2 and _is_whole(column) and (np.diff(column) > 0).all())


def _is_whole(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values == np.rint(values)).all())


def _all_differ(column: np.ndarray) -> bool:
    return len(column) > 2 and len(np.unique(column)) == len(column)


def _name(names: list[str] | None, column: int) -> str:
    return f"column {column + 1}" if names is None else repr(names[column])


def _left_out(names: list[str] | None, column: int) -> str:
    return (
        f"left out {_name(names, column)}, which looks like an index of the samples. "
        "If it is a measurement, save the data as .npy."
    )


def _ragged(line: int, row: list[str], expected: int) -> str:
    return (
        f"line {line} has {len(row)} values, but the first has {expected}; values that "
        "hold commas need quotes"
    )


def _what_is_wrong(path: Path, names: list[str] | None, index: list[int]) -> str:
    """The first line that is not like the others, found by reading anew."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = _rows(file)
        expected = len(next(rows)[1]) if names is not None else None
        for line, row in rows:
            expected = len(row) if expected is None else expected
            if len(row) != expected:
                return _ragged(line, row, expected)
            for i, cell in enumerate(row):
                if i not in index and not _is_number(cell):
                    name = names[i][:40] if names else ""
                    column = f"column {i + 1}" + (f" ({name})" if name else "")
                    what = f"holds {cell[:40]!r}, no number" if cell else "is empty"
                    return (
                        f"line {line}, {column} {what}; features are numbers separated "
                        "by commas, without columns of anything else"
                    )
    return ""
