"""Images of the benchmark: targets, their splits, and features for the teachers."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import train_test_split

from sktransfer.datasets import load_zoo, load_zoo_cards
from sktransfer.linear_model import LogMEClassifier

sys.path.append(str(Path(__file__).resolve().parents[2] / "real"))
from more_networks import make_body_extractor

# File, and the source of the zoo whose networks have seen its images.
TARGETS = {
    "clothes": ("clothing", "clothes"),
    "objects": ("caltech101_50", "objects"),
    "alphabets": ("omniglot_alphabets", "alphabets"),
}
STRONG = (
    "squeezenet_v1.0_imagenet",
    "mobilenet_v1_0.25_128_imagenet_features",
    "mobilenet_v2_1.0_224_imagenet_uint8",
)
MAX_UNLABELLED = 2000
MAX_TEST = 1500
N_WEAK = 3


@cache
def load_target(target: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) and labels 0, 1, ... of a target."""
    with np.load(folder / "images" / f"{TARGETS[target][0]}.npz") as file:
        images, labels = file["images"], file["labels"]
    return images, np.unique(labels, return_inverse=True)[1]


def split(
    target: str, folder: Path, n_labels: int, n_unlabelled: int, seed: int, part: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of labelled, unlabelled and held-out images.

    `part` is "test", or "validation": then 30 % of the labelled images are held out.
    The test images are the same whatever `n_unlabelled` is.
    """
    y = load_target(target, folder)[1]
    labelled, rest = train_test_split(
        np.arange(len(y)), train_size=n_labels, stratify=y, random_state=seed
    )
    held_out = rest[MAX_UNLABELLED:][:MAX_TEST]
    if part == "validation":
        labelled, held_out = train_test_split(
            labelled, test_size=0.3, stratify=y[labelled], random_state=seed
        )
    return labelled, rest[:n_unlabelled], held_out


def zoo_names(target: str) -> list[str]:
    """Pre-trained networks of the zoo that have not seen the target's images."""
    cards = load_zoo_cards().values()
    unusable = (TARGETS[target][1], "untrained")
    return [card["name"] for card in cards if card["source"] not in unusable]


class StoredFeatures(TransformerMixin, BaseEstimator):
    """A frozen network whose features of all images of a target are kept in a file."""

    def __init__(self, target: str, name: str, folder: Path, cache: Path):
        self.target = target
        self.name = name
        self.folder = folder
        self.cache = cache

    def fit(self, X, y=None):
        return self

    def transform(self, X) -> np.ndarray:
        row_of = _rows(self.target, self.folder)
        return self.features()[[row_of[image.tobytes()] for image in X]]

    def features(self) -> np.ndarray:
        """Features of all images of the target, in their order."""
        return _features(self.target, self.name, self.folder, self.cache)


@cache
def _rows(target: str, folder: Path) -> dict[bytes, int]:
    """The row of an image, found by its pixels."""
    images, _ = load_target(target, folder)
    return {image.tobytes(): row for row, image in enumerate(images)}


@cache
def _features(target: str, name: str, folder: Path, cache: Path) -> np.ndarray:
    path = cache / f"{target}-{name}.npy"
    if not path.exists():
        images, _ = load_target(target, folder)
        if name in STRONG:
            extractor = make_body_extractor(folder / "weights", name)
        else:
            ((_, extractor),) = load_zoo([name])
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, extractor.transform(images))
    return np.load(path).astype(np.float64)


def ranked(names: list[str], target: str, labelled: np.ndarray, *places) -> list[str]:
    """The names, ordered by LogME on the labelled images, best first."""
    y = load_target(target, places[0])[1][labelled]

    def logme(name: str) -> float:
        features = StoredFeatures(target, name, *places).features()[labelled]
        return LogMEClassifier().fit(features, y).logme_

    return sorted(names, key=logme, reverse=True)


def teacher_names(
    which: str, student: str, target: str, labelled: np.ndarray, *places
) -> list[str]:
    """Names of teachers.

    "strong" are the networks for ImageNet, "weak" the three of the zoo that LogME
    ranks highest, "alike" the three of these with the student's architecture; "best 5"
    are the five best of both kinds together.
    """
    if which == "strong":
        return list(STRONG)
    zoo = [name for name in zoo_names(target) if name != student]
    if which == "alike":
        zoo = [name for name in zoo if name.split("-")[0] == student.split("-")[0]]
    if which in ("weak", "alike"):
        return ranked(zoo, target, labelled, *places)[:N_WEAK]
    k = int(which.removeprefix("best "))
    return ranked([*STRONG, *zoo], target, labelled, *places)[:k]


def expected_accuracy(
    which: str, student: str, target: str, labelled: np.ndarray, *places
) -> float:
    """Leave-one-out accuracy of the mixed heads of teachers on the labelled images."""
    y = load_target(target, places[0])[1][labelled]
    heads = []
    for name in teacher_names(which, student, target, labelled, *places):
        features = StoredFeatures(target, name, *places).features()[labelled]
        head = LogMEClassifier(fit_intercept=True, prior="shared", leave_one_out=True)
        heads.append(head.fit(features, y))
    weights = softmax([head.loo_log_likelihood_ / 0.1 for head in heads])
    mixed = np.tensordot(
        weights,
        [softmax(head.loo_predictions_ / head.temperature_, axis=1) for head in heads],
        axes=1,
    )
    return float((mixed.argmax(axis=1) == y).mean())
