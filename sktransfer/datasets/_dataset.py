"""Labelled images that come with an installation, for the networks of the zoo."""

from __future__ import annotations

from importlib import resources

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

# Side of the images, in pixels.
IMAGE_SIZE = 32

_DIGITS_DESCR = """\
Digits, 32 x 32
---------------

The 1,797 handwritten digits of :func:`sklearn.datasets.load_digits` (8 x 8 pixels, 17
grey values), enlarged to 32 x 32 pixels by bilinear interpolation, brought to 0..255
and repeated in three equal channels. White strokes on black; ten classes of 174 to 183
images. Test set of "Optical Recognition of Handwritten Digits", E. Alpaydin and C.
Kaynak, UCI Machine Learning Repository, CC BY 4.0.
"""

_ALPHABETS_DESCR = """\
Alphabets, 32 x 32
------------------

600 handwritten characters of eight alphabets, 75 of each: which alphabet is a character
from? Black strokes on white, drawn online by many people, scaled to 32 x 32 pixels and
repeated in three equal channels. From the two small background sets of Omniglot (B. M.
Lake, R. Salakhutdinov, J. B. Tenenbaum, "Human-level concept learning through
probabilistic program induction", Science 350, 2015), brendenlake/omniglot (057f034b),
MIT licence, Copyright (c) 2015 Brenden Lake. The networks of the zoo whose source is
"alphabets" have seen these images.
"""


def _enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Square images (n, s, s) interpolated bilinearly to (n, size, size).

    One small matrix from each side: its entries are exact in binary when `size / s` is
    a power of two, so that every machine gets the same bytes.
    """
    n_old = images.shape[-1]
    # Centres of the new pixels in units of the old ones; constant beyond the border.
    centres = (np.arange(size) + 0.5) * n_old / size - 0.5
    weights = np.stack(
        [np.interp(centres, np.arange(n_old), unit) for unit in np.eye(n_old)], axis=1
    )
    return weights @ images @ weights.T


def _load_digits() -> Bunch:
    digits = load_digits()
    grey = np.rint(_enlarged(digits.images, IMAGE_SIZE) * (255 / 16)).astype(np.uint8)
    return Bunch(
        data=np.repeat(grey[..., np.newaxis], 3, axis=-1),
        target=digits.target,
        target_names=digits.target_names,
        DESCR=_DIGITS_DESCR,
    )


def _load_alphabets() -> Bunch:
    folder = resources.files("sktransfer.datasets") / "data" / "alphabets"
    with (folder / "alphabets.npz").open("rb") as file, np.load(file) as arrays:
        return Bunch(
            data=np.repeat(arrays["images"][..., np.newaxis], 3, axis=-1),
            target=arrays["labels"].astype(np.int64),
            target_names=arrays["class_names"],
            DESCR=_ALPHABETS_DESCR,
        )


_DATASETS = {"digits": _load_digits, "alphabets": _load_alphabets}


def load_dataset(name: str = "digits", *, return_X_y: bool = False):
    """Load a labelled data set of images for the networks of the zoo.

    Parameters
    ----------
    name : {"digits", "alphabets"}, default="digits"
        Name of the data set: the 1,797 handwritten digits of scikit-learn, enlarged, or
        600 handwritten characters of eight alphabets (Omniglot). Digits are easy: after
        fine-tuning on 500 of them, all networks of the zoo are within a point of each
        other. Alphabets tell them apart.
    return_X_y : bool, default=False
        If True, returns `(data, target)` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes

        data : ndarray of shape (n_samples, 32, 32, 3), dtype uint8
            The images, channels last.
        target : ndarray of shape (n_samples,)
            The labels.
        target_names : ndarray of shape (n_classes,)
            Names of the labels.
        DESCR : str
            Description and source of the data set.

    (data, target) : tuple if `return_X_y` is True

    Raises
    ------
    ValueError
        If there is no data set called `name`.

    See Also
    --------
    load_zoo : The networks to rank.
    load_zoo_ground_truth : Their accuracy after fine-tuning.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset
    >>> digits = load_dataset("digits")
    >>> digits.data.shape, digits.target.shape
    ((1797, 32, 32, 3), (1797,))
    >>> alphabets = load_dataset("alphabets")
    >>> alphabets.data.shape, str(alphabets.target_names[alphabets.target[0]])
    ((600, 32, 32, 3), 'Greek')
    """
    if name not in _DATASETS:
        raise ValueError(
            f"The 'name' parameter of load_dataset must be a str among "
            f"{sorted(_DATASETS)}. Got {name!r} instead."
        )
    bunch = _DATASETS[name]()
    return (bunch.data, bunch.target) if return_X_y else bunch
