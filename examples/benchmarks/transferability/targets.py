"""Candidate targets of the benchmark: images, labels and the splits of a seed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split

# File, and the source of the zoo whose networks have seen its images.
FILES = {
    "clothes": "clothing",
    "alphabets": "omniglot_alphabets",
    "emoji": "noto_emoji_groups",
    "objects": "caltech101_50",
    "characters": "omniglot_alphabets",
    "products": "fashion_mnist_900",
    "handwritten": "mnist",
}
TARGETS = tuple(FILES)
N_OBJECTS = 20
MAX_TEST = 1500


def images_of(target: str) -> str:
    """The source that the target's images come from."""
    return "alphabets" if target == "characters" else target


@cache
def load_target(target: str, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 32, 32, 3) and labels 0, 1, ... of a target."""
    with np.load(folder / f"{FILES[target]}.npz") as file:
        images, labels, names = file["images"], file["labels"], file["class_names"]
        if target == "characters":
            chosen = np.isin(names[labels], ("Greek", "Latin"))
            images, labels = images[chosen], file["labels_character"][chosen]
    if target == "objects":
        chosen = labels < N_OBJECTS
        images, labels = images[chosen], labels[chosen]
    labels = np.unique(labels, return_inverse=True)[1]
    return torch.from_numpy(images), torch.from_numpy(labels)


def split(target: str, folder: Path, n_train: int, seed: int, part: str):
    """Indices to train and to test on; `part` is "validation" or "test".

    The splits are stratified and the same for every start. Validation images are taken
    from the training images.
    """
    y = load_target(target, folder)[1].numpy()
    train, test = train_test_split(
        np.arange(len(y)), train_size=n_train, stratify=y, random_state=seed
    )
    if part == "validation":
        n_validation = max(round(0.3 * n_train), len(np.unique(y)))
        train, test = train_test_split(
            train, test_size=n_validation, stratify=y[train], random_state=seed
        )
    return torch.from_numpy(train), torch.from_numpy(test[:MAX_TEST])
