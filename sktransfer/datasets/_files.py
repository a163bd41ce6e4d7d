"""Files of the user: folders of images, tables of texts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sktransfer.utils._optional import import_optional

_ENDINGS = tuple(".jpg .jpeg .png .bmp .gif .tif .tiff .webp .ppm .pgm".split())


def load_image_folder(
    path: str | os.PathLike, *, labelled: bool = True
) -> tuple[list[str], np.ndarray] | list[str]:
    """Find the images of a folder; they are read when they are needed.

    Parameters
    ----------
    path : str or path
        If `labelled`, a folder that has a subfolder for each class, at any depth of
        which are its images. Otherwise a folder with images at any depth.
    labelled : bool, default=True
        Whether the subfolders are labels.

    Returns
    -------
    X : list of str
        The paths of the n_samples images, sorted: files that end in .jpg, .png, .webp
        and so on. Others, and hidden ones, are left out.
    y : ndarray of str of shape (n_samples,), only if `labelled`
        The names of the subfolders.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If there is no image, a subfolder without any, a single class, an image outside
        of the subfolders, or a file that is no image by its first bytes.

    See Also
    --------
    load_text_csv : Texts and labels.
    sktransfer.feature_extraction.TimmFeatureExtractor : Takes paths.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sktransfer.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cats/1.png", "cats/2.png", "dogs/1.png"):
    ...         file = Path(folder, name)
    ...         file.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (8, 8)).save(file)
    ...     X, y = load_image_folder(folder)
    >>> [Path(image).name for image in X], y.tolist()
    (['1.png', '2.png', '1.png'], ['cats', 'cats', 'dogs'])
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {os.fspath(path)!r}.")
    if not labelled:
        X = list(_find_images(folder))
        if not X:
            raise ValueError(
                f"Found no images in {str(folder)!r}. They end in one of "
                f"{', '.join(_ENDINGS)}."
            )
        _check_images(X)
        return X
    classes = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    outside = [name for name in sorted(os.listdir(folder)) if _is_image(name)]
    if outside:
        raise ValueError(
            f"The images of {str(folder)!r} must be in subfolders, one for each class. "
            f"Got {len(outside)} outside of them, such as {outside[0]!r}. For images "
            "without labels set labelled=False."
        )
    if len(classes) < 2:
        raise ValueError(
            f"{str(folder)!r} must have a subfolder for each of at least 2 classes. "
            f"Got {classes}."
        )
    images = {name: list(_find_images(folder / name)) for name in classes}
    if empty := [name for name, own in images.items() if not own]:
        raise ValueError(
            f"Found no images in the subfolders {empty} of {str(folder)!r}. They end "
            f"in one of {', '.join(_ENDINGS)}."
        )
    X = [image for own in images.values() for image in own]
    _check_images(X)
    return X, np.repeat(classes, [len(own) for own in images.values()])


def _is_image(name: str) -> bool:
    return name.lower().endswith(_ENDINGS) and not name.startswith(".")


def _find_images(folder: Path) -> Iterator[str]:
    for place, subfolders, files in os.walk(folder, followlinks=True):
        subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
        for name in sorted(files):
            if _is_image(name):
                yield os.path.join(place, name)


def _check_images(paths: Sequence[str]) -> None:
    """Raise a ValueError if the beginning of a file is not that of an image."""
    Image = import_optional("PIL.Image", extra="vision", needed_by="load_image_folder")
    bad = []
    for path in paths:
        try:
            Image.open(path).close()
        except Exception as error:  # PIL has many
            bad.append(f"{path!r} ({type(error).__name__})")
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if bad[5:] else "")
        raise ValueError(
            f"{len(bad)} of {len(paths)} files cannot be read as images: {shown}. "
            "Remove them."
        )


def load_text_csv(
    path: str | os.PathLike,
    *,
    text: str | Sequence[str],
    label: str | None = None,
    sep: str = ",",
) -> tuple[list, np.ndarray] | list:
    r"""Read texts, and their labels if wanted, from a table.

    Parameters
    ----------
    path : str or path
        A file that :func:`pandas.read_csv` reads, in UTF-8, with names of columns.
    text : str or two of them
        The column of the texts, or the two columns of pairs of texts.
    label : str, default=None
        The column of the labels, or of numbers. None is a table without.
    sep : str, default=","
        What separates the columns; ``"\t"`` in .tsv files.

    Returns
    -------
    X : list of str, or of (str, str)
        The n_samples texts.
    y : ndarray of shape (n_samples,), only with a `label`
        Of numbers, if all labels are numbers, else of str.

    Raises
    ------
    ValueError
        If there is no such column, no rows, an empty text or label, or a single label.

    See Also
    --------
    load_image_folder : Images and labels.
    sktransfer.feature_extraction.TransformersFeatureExtractor : Takes texts.

    Examples
    --------
    >>> import io
    >>> from sktransfer.datasets import load_text_csv
    >>> table = io.StringIO("review,stars\na good film,5\na bad film,1\n")
    >>> load_text_csv(table, text="review", label="stars")
    (['a good film', 'a bad film'], array([5, 1]))
    """
    pandas = import_optional("pandas", extra="text", needed_by="load_text_csv")
    texts = [text] if isinstance(text, str) else list(text)
    if len(texts) not in (1, 2):
        raise ValueError(
            f"The 'text' parameter must be one column or two. Got {text!r} instead."
        )
    columns = texts + ([] if label is None else [label])
    # "NA" and "null" are texts.
    table = pandas.read_csv(
        path,
        sep=sep,
        dtype=dict.fromkeys(texts, str),
        keep_default_na=False,
        na_values=[""],
        encoding="utf-8-sig",
    )
    if not isinstance(table.index, pandas.RangeIndex):
        raise ValueError(
            f"The rows of the table have more fields than its columns {list(table)}. "
            f"Texts that hold the separator {sep!r} must be in quotes."
        )
    if missing := [name for name in columns if name not in table]:
        raise ValueError(
            f"The table has no column {missing[0]!r}. Its columns are {list(table)}."
        )
    if not len(table):
        raise ValueError("The table has no rows.")
    for name in columns:
        empty = np.flatnonzero(table[name].isna() | (table[name] == ""))
        if len(empty):
            advice = "Leave it out."
            if name == label:
                advice = "Rows without a label can be unlabelled samples of a table."
            raise ValueError(
                f"The column {name!r} is empty in {len(empty)} of {len(table)} rows, "
                f"the first of them row {empty[0]}, counted from 0. {advice}"
            )
    X = table[texts[0]].tolist()
    if len(texts) == 2:
        X = list(zip(X, table[texts[1]], strict=True))
    if label is None:
        return X
    y = table[label].to_numpy()
    y = y if y.dtype.kind in "iufb" else y.astype(str)
    if len(np.unique(y)) < 2:
        raise ValueError(
            f"The column {label!r} must hold at least 2 different labels. Got {y[0]!r} "
            "in all rows."
        )
    return X, y
