"""Train the networks of the embedded zoo from scratch and write their cards.

    python examples/zoo/train_zoo.py FOLDER --output DIR

FOLDER holds one ``.npz`` file per source with ``images`` uint8 (n, 32, 32, 3),
``labels`` (n,) and ``class_names``. The script writes ``NAME.safetensors`` (float16)
and ``cards.json`` to DIR. It skips networks that are in DIR already, so a stopped
script resumes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table
from safetensors.torch import save
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from sktransfer.datasets._networks import ARCHITECTURES, build_network

SEED = 0
VALIDATION_FRACTION = 0.18
BATCH_SIZE = 64
LEARNING_RATE = 0.15
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.1
# Largest change of a pixel (0..255) in adversarial images.
ATTACK_RADIUS = 8.0
# Largest random shift (fraction of the side), scale and rotation (degrees) of an image.
PHOTO = {"shift": 0.125, "scale": 0.2, "turn": 10.0, "flip": True}
STROKES = {"shift": 0.1, "scale": 0.1, "turn": 10.0, "flip": False}

SOURCES = {
    "objects": {
        "file": "caltech101_50",
        "epochs": 110,
        "augmentation": PHOTO,
        "description": "photos of objects and animals (50 classes of Caltech 101)",
        "repository": "MachineLearning2020/Homework2-Caltech101",
        "revision": "836044dd",
        "attribution": "Caltech 101: Li, Andreetto, Ranzato and Perona, CaltechDATA",
        "licence": "CC BY 4.0",
    },
    "clothes": {
        "file": "clothing",
        "epochs": 80,
        "augmentation": PHOTO,
        "description": "photos of clothes",
        "repository": "alexeygrigorev/clothing-dataset-small",
        "revision": "11961516",
        "attribution": "Alexey Grigorev and contributors",
        "licence": "CC0 1.0",
    },
    "products": {
        "file": "fashion_mnist_900",
        "epochs": 150,
        "augmentation": PHOTO | {"turn": 0.0},
        "description": "grey product pictures (900 images of Fashion-MNIST)",
        "repository": "zalandoresearch/fashion-mnist",
        "revision": "b2617bb6",
        "attribution": "Fashion-MNIST: Zalando SE",
        "licence": "MIT",
    },
    "handwritten": {
        "file": "mnist",
        "epochs": 40,
        "augmentation": STROKES,
        "description": "handwritten digits (4,000 test images of MNIST)",
        "repository": "rasbt/mnist-pngs",
        "revision": "d26bd33b",
        "attribution": "MNIST: Yann LeCun and Corinna Cortes",
        "licence": "CC BY-SA 3.0",
    },
    "alphabets": {
        "file": "omniglot_alphabets",
        "epochs": 80,
        "augmentation": STROKES,
        "description": "pen strokes of 197 characters, class = alphabet (Omniglot)",
        "repository": "brendenlake/omniglot",
        "revision": "057f034b",
        "attribution": "Omniglot: Brenden Lake and contributors",
        "licence": "MIT",
    },
    "emoji": {
        "file": "noto_emoji_groups",
        "epochs": 120,
        "augmentation": STROKES,
        "description": "colour icons, class = Unicode emoji group (Noto Emoji)",
        "repository": "googlefonts/noto-emoji",
        "revision": "b3e3051a",
        "attribution": (
            "Noto Emoji: Google; groups: muan/unicode-emoji-json (250dc80a, MIT)"
        ),
        "licence": "Apache-2.0 and OFL-1.1, flags public domain",
    },
}
# Entries that a card copies from its source.
ORIGIN = ("description", "repository", "revision", "attribution", "licence")


def zoo_names() -> list[str]:
    """All names of the zoo, the untrained networks last."""
    sources = [*SOURCES, "untrained"]
    return [f"{network}-{source}" for source in sources for network in ARCHITECTURES]


def augmented(images: torch.Tensor, rule: dict, generator: torch.Generator):
    """Float images, randomly shifted, scaled, rotated and (if allowed) mirrored."""
    n = len(images)

    def uniform(limit, *shape):
        return (2 * torch.rand(n, *shape, generator=generator) - 1) * limit

    angle, scale = torch.deg2rad(uniform(rule["turn"])), 1 + uniform(rule["scale"])
    mirror = torch.ones(n)
    if rule["flip"]:
        mirror = 1 - 2 * (torch.rand(n, generator=generator) < 0.5).float()
    theta = torch.empty(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * scale * angle.cos(), -scale * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = mirror * scale * angle.sin(), scale * angle.cos()
    theta[:, :, 2] = uniform(2 * rule["shift"], 2)
    channels_first = images.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(theta, channels_first.shape, align_corners=False)
    moved = functional.grid_sample(
        channels_first, grid, padding_mode="border", align_corners=False
    )
    return moved.permute(0, 2, 3, 1)


def as_half(network: nn.Module) -> dict[str, torch.Tensor]:
    """State of a network with its numbers rounded to float16."""
    return {
        name: value.half().contiguous() if value.is_floating_point() else value.clone()
        for name, value in network.state_dict().items()
    }


def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    with torch.inference_mode():
        hits = [
            (network(batch).argmax(1) == target).sum().item()
            for batch, target in zip(images.split(256), labels.split(256), strict=True)
        ]
    return sum(hits) / len(labels)


def load_source(folder: Path, source: str) -> dict:
    """A source as :func:`prepare` gives it, and the names of its classes."""
    with np.load(folder / f"{SOURCES[source]['file']}.npz") as file:
        images, labels = file["images"], file["labels"]
        class_names = [str(name) for name in file["class_names"]]
    return prepare(images, labels) | {"class_names": class_names}


def prepare(images: np.ndarray, labels: np.ndarray) -> dict:
    """Images, labels, the stratified split and the normalisation of a source."""
    train, validation = train_test_split(
        np.arange(len(labels)),
        test_size=VALIDATION_FRACTION,
        stratify=labels,
        random_state=SEED,
    )
    pixels = images[train] / 255.0
    # Three decimals, so that the card states the exact values.
    mean, std = (stat(pixels, axis=(0, 1, 2)).round(3) for stat in (np.mean, np.std))
    return {
        "images": torch.from_numpy(images),
        "labels": torch.from_numpy(labels),
        "n_classes": int(labels.max()) + 1,
        "train": torch.from_numpy(train),
        "validation": torch.from_numpy(validation),
        "mean": mean.tolist(),
        "std": std.tolist(),
    }


def facts_of(network: nn.Module, name: str) -> dict:
    """Entries of a card that depend on the network only."""
    return {
        "n_classes": network.head.out_features,
        "n_parameters": sum(weight.numel() for weight in network.parameters()),
        "n_features": network.head.in_features,
        "weights": f"{name}.safetensors",
    }


def make_untrained(name: str, output: Path) -> dict:
    """The negative control: PyTorch's default initialisation, rounded to float16."""
    architecture = name.split("-")[0]
    mean, std = [0.5] * 3, [0.25] * 3
    network = build_network(architecture, 10, mean, std, seed=SEED)
    (output / f"{name}.safetensors").write_bytes(save(as_half(network)))
    return {
        "name": name,
        "architecture": architecture,
        "source": "untrained",
        "description": "default initialisation, never trained: a negative control",
        "repository": None,
        "revision": None,
        "attribution": None,
        "licence": "BSD-3-Clause",
        "class_names": None,
        "n_train": 0,
        "n_validation": 0,
        "validation_fraction": None,
        "seed": SEED,
        "epochs": 0,
        "validation_accuracy": None,
        "mean": mean,
        "std": std,
        **facts_of(network, name),
    }


def perturbed(network, images, labels, generator) -> torch.Tensor:
    """Images changed within the attack's radius so as to raise the loss (one step)."""
    noise = 2 * torch.rand(images.shape, generator=generator) - 1
    moved = (images + ATTACK_RADIUS * noise).requires_grad_()
    (slope,) = torch.autograd.grad(
        functional.cross_entropy(network(moved), labels), moved
    )
    step = 1.25 * ATTACK_RADIUS * slope.sign()
    change = (moved.detach() + step - images).clamp(-ATTACK_RADIUS, ATTACK_RADIUS)
    return images + change


def fit(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int,
    augmentation: dict,
    robust: bool = False,
    report=lambda share: None,
) -> None:
    """Train a network from its initial weights with the recipe of the zoo.

    `robust` trains on adversarial images (fast gradient sign, random start) instead.
    `report` is told the share done after each epoch.
    """
    n_batches = len(labels) // BATCH_SIZE
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=LEARNING_RATE,
        momentum=0.9,
        nesterov=True,
        weight_decay=WEIGHT_DECAY,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * n_batches, pct_start=0.2
    )
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(epochs):
        network.train()
        order = torch.randperm(len(labels), generator=generator)
        for chosen in order[: n_batches * BATCH_SIZE].split(BATCH_SIZE):
            batch = augmented(images[chosen], augmentation, generator)
            if robust:
                batch = perturbed(network, batch, labels[chosen], generator)
            loss = functional.cross_entropy(
                network(batch), labels[chosen], label_smoothing=LABEL_SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        report(1 / epochs)


def train(name: str, folder: Path, output: Path, epochs: int | None, report) -> dict:
    """Train one network, save its weights as float16 and return its card."""
    torch.set_num_threads(1)
    architecture, source = name.split("-")
    about = SOURCES[source]
    epochs = epochs or about["epochs"]
    data = load_source(folder, source)
    network = build_network(
        architecture, len(data["class_names"]), data["mean"], data["std"], seed=SEED
    )
    fit(
        network,
        data["images"][data["train"]],
        data["labels"][data["train"]],
        epochs=epochs,
        augmentation=about["augmentation"],
        report=partial(report, name),
    )
    half = as_half(network)
    # Evaluate the rounded weights, which are those in the package.
    network.load_state_dict(half)
    held_out = data["validation"]
    score = accuracy(network, data["images"][held_out], data["labels"][held_out])
    (output / f"{name}.safetensors").write_bytes(save(half))
    return {
        "name": name,
        "architecture": architecture,
        "source": source,
        **{key: about[key] for key in ORIGIN},
        "class_names": data["class_names"],
        "n_train": len(data["train"]),
        "n_validation": len(held_out),
        "validation_fraction": VALIDATION_FRACTION,
        "seed": SEED,
        "epochs": epochs,
        "validation_accuracy": round(score, 4),
        "mean": data["mean"],
        "std": data["std"],
        **facts_of(network, name),
    }


class QueueReport:
    """Send (name, fraction done) to the main process; picklable, unlike a closure."""

    def __init__(self, queue):
        self.queue = queue

    def __call__(self, name: str, share: float) -> None:
        self.queue.put((name, share))


def write_cards(cards: dict[str, dict], output: Path) -> None:
    """Write the cards in the order of the zoo, replacing the file at once."""
    ordered = {name: cards[name] for name in zoo_names() if name in cards}
    draft = output / "cards.json.part"
    draft.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")
    draft.replace(output / "cards.json")


def train_all(names: list[str], args: argparse.Namespace, cards: dict) -> None:
    """Train the networks in processes with one thread each, and add their cards."""
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress,
        ProcessPoolExecutor(args.jobs, mp_context=context) as pool,
    ):
        queue = manager.Queue()
        bars = {name: progress.add_task(name, total=1.0) for name in names}
        settings = args.folder, args.output, args.epochs, QueueReport(queue)
        waiting = {pool.submit(train, name, *settings) for name in names}
        while waiting:
            done, waiting = wait(waiting, timeout=0.5)
            while not queue.empty():
                name, share = queue.get()
                progress.advance(bars[name], share)
            for future in done:
                card = future.result()
                cards[card["name"]] = card
                progress.update(bars[card["name"]], completed=1.0)
                write_cards(cards, args.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the .npz files")
    parser.add_argument("--output", type=Path, required=True, help="output folder")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=zoo_names())
    parser.add_argument("--epochs", type=int, help="number of epochs for all sources")
    parser.add_argument(
        "--jobs", type=int, default=2, help="number of networks trained in parallel"
    )
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    written = args.output / "cards.json"
    cards = json.loads(written.read_text("utf-8")) if written.exists() else {}
    missing = [
        name
        for name in args.only or zoo_names()
        if name not in cards or not (args.output / f"{name}.safetensors").exists()
    ]
    for name in [name for name in missing if name.endswith("-untrained")]:
        cards[name] = make_untrained(name, args.output)
        write_cards(cards, args.output)
    trainable = [name for name in missing if not name.endswith("-untrained")]
    if trainable:
        train_all(trainable, args, cards)
    table = Table("network", "classes", "training images", "epochs", "validation")
    for name in filter(cards.get, zoo_names()):
        card = cards[name]
        score = card["validation_accuracy"]
        table.add_row(
            name,
            str(card["n_classes"]),
            str(card["n_train"]),
            str(card["epochs"]),
            "" if score is None else f"{100 * score:.1f} %",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
