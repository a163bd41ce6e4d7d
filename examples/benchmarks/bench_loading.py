"""
===========================================
Time of an epoch with and without workers
===========================================

This script fine-tunes a small network of timm on a folder of JPEG files, which are
decoded and resized in every epoch, with different numbers of worker processes. Fits
take turns, and the median of all epochs is reported.

    python bench_loading.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from sktransfer.datasets import load_image_folder
from sktransfer.feature_extraction import TimmFeatureExtractor
from sktransfer.tuning import FineTuneClassifier


def write_images(folder: Path, n_images: int, side: int) -> None:
    """Smooth random images of two classes, which JPEG packs as it packs photos."""
    rng = np.random.default_rng(0)
    for i in range(n_images):
        noise = rng.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
        file = folder / ("odd" if i % 2 else "even") / f"{i}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(noise).resize((side, side)).save(file, quality=90)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="test_resnet")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    extractor = TimmFeatureExtractor(args.network, pretrained=False)
    seconds = {n: [] for n in args.workers}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images, args.side)
        X, y = load_image_folder(folder)
        for _ in range(args.turns):
            for n in args.workers:
                model = FineTuneClassifier(
                    extractor,
                    max_epochs=2,
                    batch_size=32,
                    num_workers=n,
                    random_state=0,
                )
                seconds[n] += model.fit(X, y).history_[:, "dur"]
    table = Table(
        "workers",
        "seconds per epoch",
        "ratio",
        title=f"{args.images} JPEG files of {args.side} x {args.side} pixels, "
        f"{args.network}, {len(os.sched_getaffinity(0))} cores",
    )
    first = np.median(seconds[args.workers[0]])
    for n, values in seconds.items():
        median = np.median(values)
        table.add_row(str(n), f"{median:.2f}", f"{median / first:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
