"""
==========================
Extraction and a bare loop
==========================

This script times ``TorchFeatureExtractor`` on a 20-layer residual network for CIFAR
(random weights) against a bare ``torch.inference_mode`` loop over the same batches on
the same network. The images are split into 16 pieces, and the methods take turns on
each piece, so that other load on the machine affects all of them. The table shows the
sum over pieces of the minimum (and of the median) time.

On Linux it then measures memory: the peak that a call adds to the resident memory of a
new process that holds the data. The module here only averages and has almost no
activations, so the measured memory is that of the copies of batches and of the output.

    python bench_extract.py            # 4,000 images
    python bench_extract.py --quick
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from sktransfer.feature_extraction import TorchFeatureExtractor

MIB = 2**20


class Block(nn.Module):
    """Two convolutions and a shortcut without weights."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.missing = (width - width_in) // 2
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        padding = (0, 0, 0, 0, self.missing, self.missing)
        return torch.relu(out + nn.functional.pad(shortcut, padding))


class ResNet20(nn.Module):
    """The 20-layer network for CIFAR."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for i in (1, 2, 3):
            blocks = [Block(widths[i - 1], widths[i], 1 if i == 1 else 2)]
            blocks += [Block(widths[i], widths[i], 1) for _ in range(2)]
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Average(nn.Module):
    """The mean of each channel, which takes almost no time and memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def bare_loop(module: nn.Module, X: np.ndarray, batch_size: int) -> np.ndarray:
    """The loop that users write by hand."""
    module.eval()
    outputs = []
    with torch.inference_mode():
        for start in range(0, len(X), batch_size):
            outputs.append(module(torch.from_numpy(X[start : start + batch_size])))
        return torch.cat(outputs).numpy()


def take_turns(
    methods: dict[str, Callable[[np.ndarray], object]],
    pieces: list[np.ndarray],
    repeats: int,
) -> dict[str, np.ndarray]:
    """Time each method, (repeats, pieces) seconds, in rotating order."""
    seconds = {name: np.empty((repeats, len(pieces))) for name in methods}
    for run in methods.values():
        run(pieces[0])  # warm-up
    names = list(methods)
    for i, j in np.ndindex(repeats, len(pieces)):
        first = (i + j) % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            methods[name](pieces[j])
            seconds[name][i, j] = time.perf_counter() - start
    return seconds


def bench_time(n_samples: int, batch_size: int, repeats: int) -> None:
    """Print the times of the bare loop and of the extractor."""
    torch.manual_seed(0)
    net = ResNet20()
    X = np.random.default_rng(0).normal(size=(n_samples, 3, 32, 32)).astype(np.float32)

    def make(**params) -> TorchFeatureExtractor:
        return TorchFeatureExtractor(net, batch_size=batch_size, device="cpu", **params)

    plain, headed = make(), make(source_head="linear")
    layered = make(layer=["conv1", "layer*", "layer3.*"])
    whole = make(layer="all", pooling=("grid", 2), source_head="linear")
    np.testing.assert_allclose(
        plain.transform(X[:200]), bare_loop(net, X[:200], batch_size), atol=1e-5
    )
    seconds = take_turns(
        {
            "bare loop": lambda X: bare_loop(net, X, batch_size),
            "transform": plain.transform,
            "features and source probabilities": lambda X: headed.extract(
                X, source_proba=True
            ),
            "seven layers": layered.transform_layers,
            "all layers, 2 x 2 grids": whole.transform_layers,
        },
        np.array_split(X, 16),
        repeats,
    )
    table = Table(title=f"{n_samples:,} images, batches of {batch_size}, 20 layers")
    for title in ("method", "minimum, s", "x bare", "median, s", "x bare "):
        table.add_column(title, justify="left" if title == "method" else "right")
    least, middle = (
        {name: how(taken, axis=0).sum() for name, taken in seconds.items()}
        for how in (np.min, np.median)
    )
    for name in seconds:
        cells = []
        for of in (least, middle):
            cells += [f"{of[name]:.3g}", f"{of[name] / of['bare loop']:.3f}"]
        table.add_row(name, *cells)
    Console(width=100).print(table)


def resident(field: str) -> float:
    """MiB of this process: ``VmRSS`` now, ``VmHWM`` at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return int(line.split()[1]) / 1024


def added_memory(method: str, batch_size: int) -> tuple[float, float, float]:
    """MiB of a batch, of the output, and of the peak that a call adds."""
    X = np.zeros((8 * batch_size, 3, 32, 32), dtype=np.float32)
    X += 1  # makes the system allocate the memory
    samples = list(X) if "list" in method else X
    net = nn.AvgPool2d(4) if "192" in method else Average()
    extractor = TorchFeatureExtractor(
        net, batch_size=batch_size, pooling="flatten", device="cpu"
    )

    def run(samples: list | np.ndarray) -> np.ndarray:
        if method == "bare loop":
            return bare_loop(net, samples, batch_size)
        return extractor.transform(samples)

    run(samples[:2])  # loads libraries and starts threads
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    output = run(samples)
    added = resident("VmHWM") - before
    return X[:batch_size].nbytes / MIB, output.nbytes / MIB, added


def bench_memory(batch_size: int) -> None:
    """Print the peak memory that calls add, each measured in a separate process."""
    table = Table(title=f"Peak memory that a call adds, for 8 x {batch_size:,} images")
    table.add_column("method")
    for title in ("batch, MiB", "output, MiB", "added, MiB", "minus output, batches"):
        table.add_column(title, justify="right")
    for method in ("bare loop", "array", "list", "array, 192 features"):
        command = [sys.executable, __file__, "--memory-of", method]
        text = subprocess.run(
            [*command, "--memory-batch", str(batch_size)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        batch, output, added = map(float, text.split())
        figures = (f"{batch:.1f}", f"{output:.1f}", f"{added:.1f}")
        table.add_row(method, *figures, f"{(added - output) / batch:.2f}")
    Console(width=100).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--n", type=int, default=4_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory-batch", type=int, default=2_000)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a small problem")
    args = parser.parse_args()
    if args.memory_of:
        print(*added_memory(args.memory_of, args.memory_batch))
        return
    if args.quick:
        args.n, args.repeats, args.memory_batch = 400, 3, 500
    bench_time(args.n, args.batch_size, args.repeats)
    if sys.platform == "linux":
        bench_memory(args.memory_batch)


if __name__ == "__main__":
    main()
