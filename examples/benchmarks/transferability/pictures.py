"""Sources of labelled pictures that are drawn here: letters in many fonts, shapes."""

from __future__ import annotations

import math
import string
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 32
# Shapes are drawn larger and scaled down, which smooths their edges.
ZOOM = 4
FACES = (
    "DejaVuSans",
    "DejaVuSansMono",
    "DejaVuSerif",
    "STIXGeneral",
    "cmr10",
    "cmss10",
)
SHAPES = ("disc", "ring", "square", "frame", "triangle", "star", "cross", "bars")


def letters(per_class: int = 66, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list]:
    """Capital and small letters in the fonts that come with Matplotlib."""
    rng = np.random.default_rng(seed)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [
        ImageFont.truetype(str(path), size)
        for path in sorted(folder.glob("*.ttf"))
        if path.stem.split("-")[0].startswith(FACES) and "Display" not in path.stem
        for size in (20, 24, 28)
    ]
    names = list(string.ascii_letters)
    images = []
    for letter in np.repeat(names, per_class):
        dark, light = rng.integers(0, 80), rng.integers(176, 256)
        if rng.random() < 0.5:
            dark, light = light, dark
        image = Image.new("L", (SIZE, SIZE), int(dark))
        place = SIZE / 2 + rng.uniform(-3, 3, 2)
        ImageDraw.Draw(image).text(
            tuple(place), letter, fill=int(light), font=rng.choice(fonts), anchor="mm"
        )
        images.append(np.asarray(image.convert("RGB")))
    return np.stack(images), np.repeat(np.arange(len(names)), per_class), names


def _polygon(shape: str, centre: np.ndarray, radius: float, turn: float) -> list:
    n_points = {"triangle": 3, "square": 4, "frame": 4, "star": 10}[shape]
    angles = turn + 2 * math.pi * np.arange(n_points) / n_points
    radii = radius * (np.tile([1.0, 0.45], 5) if shape == "star" else np.ones(n_points))
    points = centre + radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    return [tuple(point) for point in points]


def _draw(draw, shape: str, centre, radius: float, turn: float, colour: tuple) -> None:
    low, high = centre - radius, centre + radius
    width = max(2, int(radius / 3))
    if shape in ("disc", "ring"):
        filled = {"fill": colour} if shape == "disc" else {"outline": colour}
        draw.ellipse([*low, *high], width=width, **filled)
    elif shape in ("cross", "bars"):
        along = radius * np.array([math.cos(turn), math.sin(turn)])
        across = along[::-1] * [-1, 1]
        starts = (
            [centre] if shape == "cross" else [centre - across, centre, centre + across]
        )
        lines = [(start - along, start + along) for start in starts]
        if shape == "cross":
            lines.append((centre - across, centre + across))
        for start, end in lines:
            draw.line([*start, *end], fill=colour, width=width)
    else:
        points = _polygon(shape, centre, radius, turn)
        filled = {"outline": colour} if shape == "frame" else {"fill": colour}
        draw.polygon(points, width=width, **filled)


def shapes(per_class: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list]:
    """Eight shapes of any colour, size, place and angle on noisy grounds."""
    rng = np.random.default_rng(seed)
    side = ZOOM * SIZE
    images = []
    for shape in np.repeat(SHAPES, per_class):
        ground, colour = rng.integers(0, 256, (2, 3))
        while abs(ground - colour).sum() < 150:
            ground, colour = rng.integers(0, 256, (2, 3))
        image = Image.new("RGB", (side, side), tuple(ground.tolist()))
        centre = side / 2 + rng.uniform(-0.15, 0.15, 2) * side
        radius, turn = rng.uniform(0.2, 0.42) * side, rng.uniform(0, 2 * math.pi)
        draw = ImageDraw.Draw(image)
        _draw(draw, shape, centre, radius, turn, tuple(colour.tolist()))
        small = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
        noisy = small + rng.normal(0, rng.uniform(0, 25), small.shape)
        images.append(noisy.clip(0, 255).astype(np.uint8))
    return np.stack(images), np.repeat(np.arange(len(SHAPES)), per_class), list(SHAPES)
