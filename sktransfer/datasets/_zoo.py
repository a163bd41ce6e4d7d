"""The embedded zoo: fourteen small pre-trained networks, their cards and their truth.

Two architectures of equal size times six sources, and an untrained control of each, so
that neither size nor depth can explain which network transfers best.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from functools import partial
from importlib import resources
from typing import Any

import numpy as np

from sktransfer.datasets._dataset import IMAGE_SIZE
from sktransfer.feature_extraction._samples import is_array
from sktransfer.utils._optional import import_optional

# Columns of the ground truth that are not floats.
_COLUMN_TYPES = {
    "network": str,
    "architecture": str,
    "source": str,
    "n_seeds": int,
    "n_train": int,
}


def _zoo_file(name: str):
    return resources.files("sktransfer.datasets") / "data" / "zoo" / name


def load_zoo_cards() -> dict[str, dict]:
    """Load the model cards of the zoo.

    Returns
    -------
    cards : dict of str to dict
        For each network, in the order of the zoo: `name`, `architecture`, `source`,
        `description`, `repository` and `revision` (where the source's images come
        from), `attribution`, `licence`, `class_names`, `n_classes`, `n_train`,
        `n_validation`, `validation_fraction` and `seed` (of the stratified split),
        `epochs`, `validation_accuracy` (on the source, with the weights as shipped;
        None for an untrained network), `mean` and `std` (normalisation, built into
        the network), `n_parameters`, `n_features` and `weights` (the file).

    See Also
    --------
    load_zoo : Feature extractors of the networks.

    Examples
    --------
    >>> from sktransfer.datasets import load_zoo_cards
    >>> card = load_zoo_cards()["residual-handwritten"]
    >>> card["n_classes"], card["n_features"], card["licence"]
    (10, 64, 'CC BY-SA 3.0')
    """
    return json.loads(_zoo_file("cards.json").read_text("utf-8"))


def _checked_card(name: str, cards: dict[str, dict]) -> dict:
    if name not in cards:
        raise ValueError(
            f"There is no network {name!r} in the zoo. It must be a str among "
            f"{list(cards)}."
        )
    return cards[name]


def load_zoo_network(name: str):
    """Load one network of the zoo with its pre-trained weights.

    Parameters
    ----------
    name : str
        The network, `"<architecture>-<source>"`; :func:`load_zoo_cards` lists them.

    Returns
    -------
    network : torch.nn.Module
        The network in evaluation mode, float32 and on the CPU. It maps images of shape
        (n_samples, 32, 32, 3), on the scale 0..255 and of any dtype, to logits of shape
        (n_samples, n_source_classes). Its last submodule is called `head`.

    Raises
    ------
    ValueError
        If there is no network called `name`.
    ImportError
        If torch or safetensors is not installed.

    See Also
    --------
    load_zoo : Feature extractors that load their network when first used.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sktransfer.datasets import load_dataset, load_zoo_network
    >>> network = load_zoo_network("plain-handwritten")
    >>> images = torch.from_numpy(load_dataset().data[:4])
    >>> with torch.inference_mode():
    ...     network(images).shape
    torch.Size([4, 10])
    """
    card = _checked_card(name, load_zoo_cards())
    import_optional("torch", extra="torch", needed_by="The zoo")
    safetensors = import_optional(
        "safetensors.torch", extra="torch", needed_by="The zoo"
    )
    from sktransfer.datasets._networks import build_network

    # The seed only keeps the caller's random state as it is: all weights are replaced.
    network = build_network(
        card["architecture"], card["n_classes"], card["mean"], card["std"], seed=0
    )
    # Parameters are float32, and loading casts the stored float16 to them.
    network.load_state_dict(safetensors.load(_zoo_file(card["weights"]).read_bytes()))
    return network.eval()


def _as_zoo_image(image: Any) -> Any:
    """An array of 32 x 32 pixels of a file path or a PIL image; others as they are."""
    if is_array(image):
        return image
    from sktransfer.feature_extraction._images import Image, as_rgb

    ops = import_optional("PIL.ImageOps", extra="vision", needed_by="Reading images")
    if not isinstance(image, (str, os.PathLike, Image.Image)):
        raise TypeError(
            "the zoo takes images as arrays of shape (32, 32, 3) on the scale 0..255, "
            f"as PIL images or as file paths. Got an object of type "
            f"{type(image).__name__}"
        )
    return np.asarray(ops.fit(as_rgb(image), (IMAGE_SIZE, IMAGE_SIZE)))


def load_zoo(
    names: Iterable[str] | str | None = None,
    *,
    batch_size: int = 256,
    device: str = "auto",
) -> list:
    """Load the zoo as named feature extractors, ready for a model selector.

    Parameters
    ----------
    names : str, iterable of str or None, default=None
        The networks, in the order wanted. None gives all fourteen.
    batch_size : int, default=256
        Number of images sent through a network at once.
    device : str, default="auto"
        Where the networks run; see
        :class:`~sktransfer.feature_extraction.TorchFeatureExtractor`.

    Returns
    -------
    extractors : list of (str, TorchFeatureExtractor)
        Each extractor takes images of shape (n_samples, 32, 32, 3) on the scale 0..255,
        or a list of PIL images or file paths, which are scaled down and cropped to 32 x
        32 pixels. It gives the features before the `head`, (n_samples, 64), and the
        probabilities of the source's classes. It holds a factory, so that the weights
        are read at first use and stay out of clones and pickles.

    Raises
    ------
    ValueError
        If there is no network of one of the `names`.
    ImportError
        If torch is not installed.

    See Also
    --------
    load_dataset : A target to rank the networks on.
    load_zoo_ground_truth : Their accuracies on it after fine-tuning.
    load_zoo_cards : What each network was trained on.

    Notes
    -----
    Both architectures have about 80,000 parameters and the same widths (16, 32 and 64):
    `residual` has shortcuts, `plain` has max pooling and none. Every source trained
    both, from scratch. `residual-untrained` and `plain-untrained` keep their random
    initialisation: a measure that ranks them high measures something else.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> X, y = load_dataset(return_X_y=True)
    >>> for name, extractor in load_zoo(["residual-emoji", "plain-emoji"]):
    ...     print(name, extractor.fit(X[:8]).transform(X[:8]).shape)
    residual-emoji (8, 64)
    plain-emoji (8, 64)
    """
    cards = load_zoo_cards()
    if names is None:
        names = list(cards)
    elif isinstance(names, str):
        names = [names]
    chosen = [_checked_card(name, cards)["name"] for name in names]
    import_optional("torch", extra="torch", needed_by="The zoo")
    from sktransfer.feature_extraction import TorchFeatureExtractor

    return [
        (
            name,
            TorchFeatureExtractor(
                partial(load_zoo_network, name),
                preprocess=_as_zoo_image,
                source_head="head",
                batch_size=batch_size,
                device=device,
            ),
        )
        for name in chosen
    ]


def load_zoo_ground_truth(n_train: int = 100) -> dict[str, np.ndarray]:
    """Load the accuracies of the fine-tuned zoo on the target `"digits"`.

    Every network was fine-tuned whole, with a fresh head, on `n_train` images and
    tested on all the others, on the same stratified splits. Learning rate and weight
    decay were chosen for each network on a validation part of the training images.

    Parameters
    ----------
    n_train : {100, 500}, default=100
        The number of images that the networks were fine-tuned on.

    Returns
    -------
    truth : dict of str to ndarray of shape (n_networks,)
        Columns, in the order of the zoo: `network`, `architecture`, `source`,
        `accuracy_mean` and `accuracy_std` (test accuracy over the seeds), `n_seeds`,
        `learning_rate`, `weight_decay`, `validation_accuracy` (of the chosen setting),
        `linear_probe_accuracy_mean` and `linear_probe_accuracy_std` (a logistic
        regression on the frozen features) and `n_train`.

    Raises
    ------
    ValueError
        If the zoo was not fine-tuned on `n_train` images.

    See Also
    --------
    load_dataset : The images and labels.
    load_zoo : The networks.

    Notes
    -----
    With 100 images the differences between networks are several times their standard
    error. With 500 nearly every network comes close to the best, the untrained ones
    included, and the order within half a point is left to chance: judge rankings by
    the 100.

    An untrained network is not a bad start for so simple a target: `plain-untrained`
    ends above some of the pre-trained networks. That is the truth that a measure is
    asked to tell.

    Examples
    --------
    >>> from sktransfer.datasets import load_zoo_ground_truth
    >>> truth = load_zoo_ground_truth()
    >>> truth["network"].shape
    (14,)
    """
    text = _zoo_file("digits_fine_tuned.csv").read_text("utf-8")
    header, *rows = csv.reader(text.splitlines())
    table = {
        column: np.array([_COLUMN_TYPES.get(column, float)(value) for value in values])
        for column, values in zip(header, zip(*rows, strict=True), strict=True)
    }
    chosen = table["n_train"] == n_train
    if not chosen.any():
        raise ValueError(
            f"The 'n_train' parameter of load_zoo_ground_truth must be an int among "
            f"{np.unique(table['n_train']).tolist()}. Got {n_train!r} instead."
        )
    return {column: values[chosen] for column, values in table.items()}
