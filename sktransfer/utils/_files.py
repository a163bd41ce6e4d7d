"""Features and labels from the files of a user: .npy, .npz and .csv."""

from __future__ import annotations

import csv
import zlib
from collections import Counter
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

SUFFIXES = (".npy", ".npz", ".csv")


def read_feature_files(paths: list[Path]) -> dict[str, np.ndarray]:
    """Read one feature matrix a model.

    Parameters
    ----------
    paths : list of Path
        Each file is a model, each array of an .npz file with several is one.

    Returns
    -------
    dict of str to ndarray of shape (n_samples, n_features)
        By the name of the file (and array), with its folders where names repeat.

    Raises
    ------
    ValueError
        If a file cannot be read or does not hold numbers in two dimensions.
    """
    stems = Counter(path.stem for path in paths)
    features: dict[str, np.ndarray] = {}
    for path in paths:
        name = path.stem if stems[path.stem] == 1 else str(path)
        arrays = read_arrays(path)
        for key, array in arrays.items():
            label = name if len(arrays) == 1 else f"{name}:{key}"
            if label in features:
                raise ValueError(f"{path} is given twice; each model needs one file.")
            if array.dtype.kind not in "fiub":
                raise ValueError(
                    f"{path} must hold numbers; it holds {array.dtype} values."
                )
            if array.ndim != 2:
                raise ValueError(
                    f"{path} must have shape (n_samples, n_features); it has shape "
                    f"{array.shape}."
                )
            features[label] = array
    return features


def read_labels(path: Path, n_samples: int) -> np.ndarray:
    """Read a target.

    Parameters
    ----------
    path : Path
        With a single array.
    n_samples : int
        Tells whether the first line of a .csv file of words is a header.

    Returns
    -------
    ndarray of shape (n_samples,) or (n_samples, n_targets)

    Raises
    ------
    ValueError
        If the file cannot be read, holds several arrays or has another shape.
    """
    arrays = read_arrays(path)
    if len(arrays) > 1:
        raise ValueError(f"{path} must hold one array; it holds {sorted(arrays)}.")
    (y,) = arrays.values()
    if y.ndim not in (1, 2):
        raise ValueError(
            f"{path} must have shape (n_samples,) or (n_samples, n_targets); it has "
            f"shape {y.shape}."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "U" and len(y) == n_samples + 1:
        y = y[1:]
    return y


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file by name (``""`` where they have none).

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If the file is missing, of another kind, empty or damaged.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} must end in one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ValueError(f"{path} does not exist.")
    try:
        if path.suffix == ".csv":
            return {"": _read_csv(path)}
        # Object arrays are pickles, and nothing of a user's is unpickled.
        loaded = np.load(path, allow_pickle=False)
        # What the file is, not what it is called, tells how many arrays it holds.
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, csv.Error, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    if not arrays:
        raise ValueError(f"{path} holds no array.")
    return arrays


def _read_csv(path: Path) -> np.ndarray:
    """Numbers, without a header; text, as it is, where there are words below it."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError("the file is empty")
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError(f"lines have between {min(widths)} and {max(widths)} values")
    for body in (rows, rows[1:]):
        try:
            numbers = np.array(body, dtype=np.float64)
        except ValueError:
            continue
        if len(numbers):
            # Classes written as 0, 1, 2 are not measurements.
            whole = np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all()
            return numbers.astype(np.int64) if whole else numbers
    return np.array(rows)
