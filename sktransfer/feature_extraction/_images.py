"""Images of all kinds as PIL images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from sktransfer.utils._optional import import_optional

Image = import_optional("PIL.Image", extra="vision", needed_by="Reading images")


def as_rgb(image: Any) -> Image.Image:
    """A PIL image in RGB of a PIL image, a path or an array of 8 bits per channel.

    Arrays have shape (height, width[, channels]) with 1, 3 or 4 channels. Grey is
    repeated, transparency dropped. A ValueError says what is no such image.
    """
    if isinstance(image, (str, os.PathLike)):
        with Image.open(image) as opened:
            return as_rgb(opened)
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
        if array.dtype != np.uint8 or not is_image:
            raise ValueError(
                "an image must be a PIL image, a file path, or an array of type uint8 "
                "and shape (height, width) or (height, width, channels) with 1, 3 or 4 "
                f"channels. Got type {array.dtype} and shape {array.shape}"
            )
        image = Image.fromarray(array)
    if image.mode[0] in "IF":  # PIL would cut off what is above 255
        raise ValueError(
            f"an image must have 8 bits per channel. Got one of mode {image.mode!r}"
        )
    return image.convert("RGB")
