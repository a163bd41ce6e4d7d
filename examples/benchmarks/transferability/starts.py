"""The starts of the benchmark: the zoo, and more networks of its two architectures.

    python examples/benchmarks/transferability/starts.py FOLDER --output DIR

FOLDER holds the images of the zoo's sources (see examples/zoo). The script trains the
starts that do not come with the package, and writes their weights (float16) and cards
to DIR. Those that are in DIR already are skipped, so a stopped script resumes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from pictures import letters, shapes
from rich.progress import Progress, TimeElapsedColumn
from safetensors.torch import load_file, save_file
from sklearn.model_selection import train_test_split

from sktransfer.datasets import load_zoo_cards, load_zoo_network
from sktransfer.datasets._networks import build_network

sys.path.append(str(Path(__file__).resolve().parents[2] / "zoo"))
from train_zoo import (
    PHOTO,
    SEED,
    SOURCES,
    STROKES,
    accuracy,
    as_half,
    fit,
    load_source,
    prepare,
)

# Sources beside those of the zoo: epochs, augmentation.
NEW_SOURCES = {
    "characters": (80, STROKES),
    "letters": (40, STROKES),
    "shapes": (40, PHOTO),
    "rotations": (60, PHOTO | {"turn": 0.0, "flip": False}),
}


@dataclass(frozen=True)
class Recipe:
    """How a start differs from a network of the zoo with the same source.

    `source` names the labels; `images` the source that the images come from.
    """

    source: str
    images: str
    epochs: int | None = None
    fraction: float = 1.0
    shuffled: bool = False
    robust: bool = False
    n_kept_stages: int | None = None


def _recipe(source: str, images: str | None = None, **changes) -> Recipe:
    return Recipe(source, images or source, **changes)


RECIPES = {
    "residual-characters": _recipe("characters", "alphabets"),
    "plain-characters": _recipe("characters", "alphabets"),
    "residual-letters": Recipe("letters", "letters"),
    "plain-letters": Recipe("letters", "letters"),
    "residual-shapes": Recipe("shapes", "shapes"),
    "plain-shapes": Recipe("shapes", "shapes"),
    "residual-rotations": _recipe("rotations", "clothes"),
    "plain-rotations": _recipe("rotations", "objects"),
    "residual-objects-early": _recipe("objects", epochs=8),
    "plain-objects-early": _recipe("objects", epochs=8),
    "residual-emoji-tenth": _recipe("emoji", fraction=0.1, epochs=300),
    "plain-objects-tenth": _recipe("objects", fraction=0.1, epochs=300),
    "residual-alphabets-tenth": _recipe("alphabets", fraction=0.1, epochs=300),
    "residual-objects-shuffled": _recipe("objects", shuffled=True),
    "plain-emoji-shuffled": _recipe("emoji", shuffled=True),
    "residual-objects-robust": _recipe("objects", robust=True, epochs=60),
    "plain-clothes-robust": _recipe("clothes", robust=True, epochs=50),
    "residual-emoji-stem": _recipe("emoji", n_kept_stages=1),
    "plain-objects-stem": _recipe("objects", n_kept_stages=2),
}


def start_cards(folder: Path | None = None) -> dict[str, dict]:
    """Cards of the zoo, and of the starts trained in a folder."""
    cards = load_zoo_cards()
    for card in cards.values():
        card["images"] = None if card["source"] == "untrained" else card["source"]
    if folder is not None:
        for name in RECIPES:
            path = folder / f"{name}.json"
            if path.exists():
                cards[name] = json.loads(path.read_text("utf-8"))
    return cards


def load_start(name: str, folder: Path | None = None) -> torch.nn.Module:
    """One start, in evaluation mode."""
    if name not in RECIPES:
        return load_zoo_network(name)
    card = start_cards(folder)[name]
    network = build_network(
        card["architecture"], card["n_classes"], card["mean"], card["std"], seed=SEED
    )
    network.load_state_dict(load_file(folder / f"{name}.safetensors"))
    return network.eval()


@cache
def _data(folder: Path, recipe: Recipe) -> dict:
    """Images, labels and split that a recipe trains on."""
    if recipe.source in ("letters", "shapes"):
        images, labels, _ = (letters if recipe.source == "letters" else shapes)()
        return prepare(images, labels)
    if recipe.source == "characters":
        with np.load(folder / f"{SOURCES['alphabets']['file']}.npz") as file:
            return prepare(file["images"], file["labels_character"])
    data = load_source(folder, recipe.images)
    if recipe.source == "rotations":
        images = data["images"].numpy()
        turned = [np.rot90(images, n_turns, axes=(1, 2)) for n_turns in range(4)]
        labels = np.repeat(np.arange(4), len(images))
        return prepare(np.concatenate(turned), labels)
    return data


def _first_stages(name: str, n_kept: int) -> torch.nn.Module:
    """A network of the zoo whose stages after the first `n_kept` are new."""
    original = load_zoo_network(name.removesuffix("-stem"))
    architecture = name.split("-")[0]
    network = build_network(
        architecture,
        original.n_classes,
        original.mean.tolist(),
        original.std.tolist(),
        seed=SEED,
    )
    for part in ["stem", *(f"stage{i + 1}" for i in range(n_kept))]:
        getattr(network, part).load_state_dict(getattr(original, part).state_dict())
    return network


def train_start(name: str, folder: Path, output: Path) -> str:
    """Train one start; write its weights, then its card."""
    torch.set_num_threads(1)
    recipe, architecture = RECIPES[name], name.split("-")[0]
    data = _data(folder, recipe)
    train, labels = data["train"], data["labels"].clone()
    epochs, augmentation = NEW_SOURCES.get(recipe.source) or (
        SOURCES[recipe.source]["epochs"],
        SOURCES[recipe.source]["augmentation"],
    )
    if recipe.fraction < 1:
        train, _ = train_test_split(
            train, train_size=recipe.fraction, stratify=labels[train], random_state=SEED
        )
    if recipe.shuffled:
        order = torch.randperm(
            len(train), generator=torch.Generator().manual_seed(SEED)
        )
        labels[train] = labels[train][order]
    if recipe.n_kept_stages is not None:
        network, epochs = _first_stages(name, recipe.n_kept_stages), 0
    else:
        epochs = recipe.epochs or epochs
        network = build_network(
            architecture, data["n_classes"], data["mean"], data["std"], seed=SEED
        )
        fit(
            network,
            data["images"][train],
            labels[train],
            epochs=epochs,
            augmentation=augmentation,
            robust=recipe.robust,
        )
    half = as_half(network)
    network.load_state_dict(half)
    held_out = data["validation"]
    score = accuracy(network, data["images"][held_out], labels[held_out])
    save_file(half, output / f"{name}.safetensors")
    card = {
        "name": name,
        "architecture": architecture,
        "source": name.split("-", 1)[1],
        "images": recipe.images,
        "epochs": epochs,
        "n_train": len(train),
        "n_classes": data["n_classes"],
        "validation_accuracy": round(score, 4),
        "mean": data["mean"],
        "std": data["std"],
    }
    (output / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the .npz files")
    parser.add_argument("--output", type=Path, required=True, help="output folder")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    missing = [name for name in RECIPES if not (args.output / f"{name}.json").exists()]
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress,
        ProcessPoolExecutor(args.jobs, mp_context=context) as pool,
    ):
        bar = progress.add_task("starts", total=len(missing))
        futures = [
            pool.submit(train_start, name, args.folder, args.output) for name in missing
        ]
        for future in as_completed(futures):
            progress.console.print(future.result())
            progress.advance(bar)


if __name__ == "__main__":
    main()
