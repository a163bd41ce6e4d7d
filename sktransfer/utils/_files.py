"""The .npy, .npz and .csv files that a user names."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy

from sktransfer.utils._csv import is_missing, read_csv_features, read_csv_labels

SUFFIXES = (".npy", ".npz", ".csv")
_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(eq=False)
class StoredArray:
    """An array in a file, whose header is read at once and whose values later."""

    path: Path
    member: str  # its name in an archive; empty if the file is the array
    shape: tuple[int, ...]
    dtype: np.dtype
    values: np.ndarray | None = None  # of a file that has no header

    def __post_init__(self):
        # A worker may start in another folder.
        self._location = self.path.absolute()

    def __str__(self) -> str:
        member = self.member.removesuffix(".npy")
        return f"{self.path}:{member}" if member else str(self.path)

    def read(self) -> np.ndarray:
        """The array; an .npy file is mapped into memory."""
        if self.values is not None:
            return self.values
        with _naming(self.path):
            if not self.member:
                array = np.asarray(np.load(self._location, mmap_mode="r"))
            else:
                with (
                    ZipFile(self._location) as zipped,
                    zipped.open(self.member) as file,
                ):
                    array = npy.read_array(file)
            if array.shape != self.shape:
                raise ValueError(
                    f"its shape was {self.shape} at first and is {array.shape} now; "
                    "do not write to it meanwhile"
                )
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def open_features(
    paths: list[Path], note: Callable[[str], None] = lambda message: None
) -> dict[str, StoredArray]:
    """Find the feature matrices of models by name, refusing what is not one.

    Each file is a model, and so is each array of an .npz file with several. Models have
    the names of their files (and arrays), with the folders where names repeat. `note`
    is called with a sentence on what was left out of a file.
    """
    stems = Counter(path.stem for path in paths)
    features: dict[str, StoredArray] = {}
    for path in paths:
        stem = path.stem if stems[path.stem] == 1 else str(path)
        arrays = _open(path, read_csv_features, note)
        for array in arrays:
            key = array.member.removesuffix(".npy")
            name = f"{stem}:{key}" if len(arrays) > 1 else stem
            if name in features:  # such as "a:b.npy" and the array b of "a.npz"
                name = f"{path}:{key}" if key else str(path)
            if name in features:
                raise ValueError(f"{path} is given twice; each model needs one file.")
            if array.dtype.kind not in "fiub":
                raise ValueError(
                    f"{array} must hold numbers; it holds {array.dtype} values."
                )
            if len(array.shape) != 2 or 0 in array.shape:
                raise ValueError(
                    f"{array} must have shape (n_samples, n_features), both above 0; "
                    f"it has shape {array.shape}."
                )
            features[name] = array
    return features


def open_layers(
    paths: list[Path], note: Callable[[str], None] = lambda message: None
) -> dict[str, dict[str, StoredArray]]:
    """Find the layers of models by name: each file is a model, each array a layer.

    Models have the names of their files, with the folders where names repeat.
    """
    stems = Counter(path.stem for path in paths)
    models: dict[str, dict[str, StoredArray]] = {}
    for array in open_features(paths, note).values():
        path = array.path
        name = path.stem if stems[path.stem] == 1 else str(path)
        layer = array.member.removesuffix(".npy") or "features"
        models.setdefault(name, {})[layer] = array
    return models


def read_labels(
    path: Path, n_samples: int, note: Callable[[str], None] = lambda message: None
) -> np.ndarray:
    """Read a target of shape (n_samples,) or (n_samples, n_targets) from a file.

    `n_samples` tells whether the first line of a .csv file of words is a header. `note`
    is called with a sentence on what was left out of the file.
    """
    arrays = _open(path, partial(read_csv_labels, n_samples=n_samples), note)
    if len(arrays) > 1:
        names = sorted(array.member.removesuffix(".npy") for array in arrays)
        raise ValueError(
            f"{path} must hold one array; it holds {names}. Save the labels to a file "
            "of their own."
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
    """Refuse a path that could not be written later, or that is one of the inputs."""
    if path.suffix.lower() != ".csv":
        raise ValueError(f"--output must end in .csv; got {path}.")
    try:
        folder = path.resolve().parent
        if not folder.is_dir():
            missing = folder if path.is_symlink() else path.parent
            raise ValueError(f"--output: {missing} is not a folder; create it first.")
        if path.exists() and not path.is_file():
            raise ValueError(f"--output: {path} exists, but is not a file.")
        for place in (folder, path):
            if place.exists() and not os.access(place, os.W_OK):
                raise ValueError(f"--output: {place} must not be written to.")
        if path.exists() and any(p.exists() and path.samefile(p) for p in inputs):
            raise ValueError(f"--output: {path} is an input; name another file.")
    except (OSError, RuntimeError) as error:  # among them a link to itself
        raise ValueError(f"--output: {error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a text file that replaces `path`, or the target of that link, when complete.

    It is in UTF-8; what that cannot express, such as bytes of a file name, is escaped.
    """
    with (
        replacing_file(path) as part,
        part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield file


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A path to write to; the file replaces `path`, or its target, when complete."""
    path = Path(os.path.realpath(path))
    own = f"{os.getpid()}-{threading.get_ident()}"
    # With the suffix, for some libraries look at it.
    part = path.with_name(f".sktransfer-{own}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _suffix(path: Path) -> str:
    """The suffix of a file, which must exist and hold something."""
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


def _open(path: Path, read_csv: Callable, note: Callable) -> list[StoredArray]:
    """All arrays of a file; those of an .npy or .npz file by their headers."""
    if _suffix(path) == ".csv":
        with _naming(path):
            values, dropped = read_csv(path)
        for what in dropped:
            note(f"{path}: {what}")
        return [StoredArray(path, "", values.shape, values.dtype, values)]
    with _naming(path), path.open("rb") as file:
        # The content, not the suffix, tells whether this is an archive.
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
        raise ValueError(f"{path} holds no array; create it with numpy.savez.")
    return arrays


def _read_header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array, if the file of `size` bytes really contains it."""
    version = npy.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"version {version} of the format is not for plain numbers")
    shape, _, dtype = _READ_HEADER[version](file)
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects, and nothing is unpickled; save numbers or text "
            "instead, such as array.astype(float) or array.astype(str)"
        )
    needed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or needed > there:
        raise ValueError(
            f"its header announces shape {shape}, {needed} bytes, but {there} follow; "
            "the file is damaged or truncated"
        )
    return shape, dtype


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in any error: damaged files raise many kinds."""
    try:
        yield
    except Exception as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, UnicodeDecodeError):
            text += "; save it in UTF-8"
        raise ValueError(f"{path} cannot be read: {text.rstrip('.')}.") from error
