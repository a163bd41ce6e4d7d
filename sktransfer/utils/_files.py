"""Features and labels from the files of a user: .npy, .npz and .csv."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy

from sktransfer.utils._csv import is_missing, read_csv_features, read_csv_labels

SUFFIXES = (".npy", ".npz", ".csv")
_READ_HEADER = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


@dataclass(eq=False)
class StoredArray:
    """An array in a file, known by its header and read when it is wanted.

    Attributes
    ----------
    path : Path
    member : str
        Where it is in an archive; empty where the file is the array.
    shape : tuple of int
    dtype : dtype
    values : ndarray or None
        The array, where there is no way to know its shape but to read it.
    """

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype
    values: np.ndarray | None = None

    def __post_init__(self):
        # A worker may have been started in another folder.
        self._location = self.path.absolute()

    def __str__(self) -> str:
        member = self.member.removesuffix(".npy")
        return f"{self.path}:{member}" if member else str(self.path)

    def read(self) -> np.ndarray:
        """The array; one of an .npy file stays there, mapped into memory."""
        if self.values is not None:
            return self.values
        with _naming(self.path):
            if not self.member:
                array = np.asarray(np.load(self._location, mmap_mode="r"))
            else:
                with (
                    ZipFile(self._location) as archive,
                    archive.open(self.member) as file,
                ):
                    array = npy.read_array(file)
            if array.shape != self.shape:
                raise ValueError(
                    f"its shape was {self.shape} at first and is {array.shape} now; "
                    "let nothing write to it meanwhile"
                )
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def open_features(
    paths: list[Path], note: Callable[[str], None] = lambda message: None
) -> dict[str, StoredArray]:
    """Find one feature matrix a model.

    Parameters
    ----------
    paths : list of Path
        Each file is a model, each array of an .npz file with several is one.
    note : callable, default: ignore
        Told in a sentence what was left out of a file.

    Returns
    -------
    dict of str to StoredArray of shape (n_samples, n_features)
        By the name of the file (and array), with its folders where names repeat.

    Raises
    ------
    ValueError
        If a file cannot be read or does not hold numbers in two dimensions.
    """
    stems = Counter(path.stem for path in paths)
    features: dict[str, StoredArray] = {}
    for path in paths:
        stem = path.stem if stems[path.stem] == 1 else str(path)
        if _suffix(path) == ".csv":
            with _naming(path):
                values, dropped = read_csv_features(path)
            _note_dropped(path, dropped, note)
            arrays = [StoredArray(path, "", values.shape, values.dtype, values)]
        else:
            arrays = _open_arrays(path)
        for array in arrays:
            key = array.member.removesuffix(".npy")
            name = f"{stem}:{key}" if len(arrays) > 1 else stem
            if name in features:  # a file "a:b.npy" beside the array b of "a.npz"
                name = f"{path}:{key}" if key else str(path)
            if name in features:
                raise ValueError(f"{path} is given twice; each model needs one file.")
            _check_features(array)
            features[name] = array
    return features


def _check_features(array: StoredArray) -> None:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{array} must hold numbers; it holds {array.dtype} values.")
    if len(array.shape) != 2 or 0 in array.shape:
        raise ValueError(
            f"{array} must have shape (n_samples, n_features), neither of them 0; it "
            f"has shape {array.shape}."
        )


def read_labels(
    path: Path, n_samples: int, note: Callable[[str], None] = lambda message: None
) -> np.ndarray:
    """Read a target.

    Parameters
    ----------
    path : Path
        With a single array.
    n_samples : int
        Tells whether the first line of a .csv file of words is a header.
    note : callable, default: ignore
        Told in a sentence what was left out of the file.

    Returns
    -------
    ndarray of shape (n_samples,) or (n_samples, n_targets)

    Raises
    ------
    ValueError
        If the file cannot be read, holds several arrays or has another shape, or if
        labels are missing.
    """
    if _suffix(path) == ".csv":
        with _naming(path):
            y, dropped = read_csv_labels(path, n_samples)
        _note_dropped(path, dropped, note)
    else:
        arrays = _open_arrays(path)
        if len(arrays) > 1:
            names = sorted(array.member.removesuffix(".npy") for array in arrays)
            raise ValueError(
                f"{path} must hold one array; it holds {names}. Save the labels to a "
                "file of their own."
            )
        y = arrays[0].read()
    if y.ndim not in (1, 2) or 0 in y.shape:
        raise ValueError(
            f"{path} must have shape (n_samples,) or (n_samples, n_targets); it has "
            f"shape {y.shape}."
        )
    if y.dtype.kind not in "biufUS":
        raise ValueError(
            f"{path} must hold labels or numbers; it holds {y.dtype} values."
        )
    if y.dtype.kind == "S":
        with _naming(path):
            y = np.char.decode(y, "utf-8")
    bad, what = np.zeros(y.shape, dtype=bool), "no label"
    if y.dtype.kind == "f":
        bad, what = ~np.isfinite(y), "NaN or infinity"
    elif y.dtype.kind == "U":
        bad = is_missing(y)
    rows = np.flatnonzero(bad.reshape(len(y), -1).any(axis=1))
    if len(rows):
        raise ValueError(
            f"{path} has {what} in {len(rows)} of {len(y)} rows, the first of them row "
            f"{rows[0] + 1}. Leave these samples out of all files."
        )
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def check_output(path: Path, inputs: list[Path]) -> None:
    """Refuse before any work is done what could not be written after it.

    Parameters
    ----------
    path : Path
    inputs : list of Path
        What must not be overwritten.

    Raises
    ------
    ValueError
    """
    if path.suffix.lower() != ".csv":
        raise ValueError(f"--output must end in .csv; got {path}.")
    try:
        folder = path.resolve().parent
        if not folder.is_dir():
            missing = folder if path.is_symlink() else path.parent
            raise ValueError(f"--output: {missing} is not a folder; make it first.")
        if path.exists() and not path.is_file():
            raise ValueError(f"--output: {path} is there, and is not a file.")
        for place in (folder, path):
            if place.exists() and not os.access(place, os.W_OK):
                raise ValueError(f"--output: {place} must not be written to.")
        if path.exists() and any(p.exists() and path.samefile(p) for p in inputs):
            raise ValueError(f"--output: {path} is an input; name another file.")
    except (OSError, RuntimeError) as error:  # among them a link to itself
        raise ValueError(f"--output: {error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a text file that takes the place of `path` when it is whole.

    Parameters
    ----------
    path : Path
        Behind a link it is the link's target that is replaced.

    Yields
    ------
    file open for writing
        In UTF-8; what that cannot express, such as bytes of a file name, is escaped.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(f".sktransfer-{os.getpid()}.part")
    try:
        with part.open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        ) as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _note_dropped(path: Path, dropped: list[str], note: Callable[[str], None]) -> None:
    for what in dropped:
        note(f"{path}: {what}")


def _suffix(path: Path) -> str:
    """The kind of a file that is there and can be read."""
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder, but a file was expected: name the files in it, "
                f"such as {path / '*.npy'}."
            )
        if suffix not in SUFFIXES:
            raise ValueError(f"{path} must end in one of {', '.join(SUFFIXES)}.")
        if not path.exists():
            raise ValueError(f"{path} does not exist.")
        if not path.is_file():
            raise ValueError(f"{path} is a pipe or a device: save it to a file first.")
        if not path.stat().st_size:
            raise ValueError(f"{path} is empty.")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    return suffix


def _open_arrays(path: Path) -> list[StoredArray]:
    """All arrays of an .npy or .npz file, by their headers."""
    with _naming(path), path.open("rb") as file:
        # What the file is, not what it is called, tells how many arrays it holds.
        if file.read(2) != b"PK":
            file.seek(0)
            header = _read_header(file, path.stat().st_size)
            return [StoredArray(path, "", *header)]
        file.seek(0)
        arrays = []
        with ZipFile(file) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    with archive.open(info) as member:
                        header = _read_header(member, info.file_size)
                    arrays.append(StoredArray(path, info.filename, *header))
    if not arrays:
        raise ValueError(f"{path} holds no array: make it by numpy.savez.")
    return arrays


def _read_header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array that really is in the `size` bytes of a file."""
    version = npy.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"version {version} of the format is not for plain numbers")
    shape, _, dtype = _READ_HEADER[version](file)
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects, and nothing is unpickled; save numbers or text, "
            "such as array.astype(float) or array.astype(str)"
        )
    needed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or needed > there:
        raise ValueError(
            f"its header promises shape {shape}, {needed} bytes, but {there} follow; "
            "it is damaged or was cut short"
        )
    return shape, dtype


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in whatever goes wrong: damage has many errors of its own."""
    try:
        yield
    except Exception as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, UnicodeDecodeError):
            text += "; save it in UTF-8"
        raise ValueError(f"{path} cannot be read: {text.rstrip('.')}.") from error
