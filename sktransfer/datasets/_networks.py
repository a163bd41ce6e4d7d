"""The two small architectures of the embedded zoo (the only module with torch here).

Both read images as they come from a dataset, (n_samples, 32, 32, 3) on the scale
0..255, and normalise them inside, so that feature extraction and fine-tuning need no
preprocessing that could be forgotten or differ between the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sktransfer.datasets._dataset import IMAGE_SIZE
from sktransfer.utils._exclusive import exclusive

WIDTHS = (16, 32, 64)


def _convolution(n_in, n_out, *, size=3, stride=1, activation=True) -> nn.Sequential:
    """Convolution without bias (batch norm has one), batch norm and mostly a ReLU."""
    layers = [
        nn.Conv2d(n_in, n_out, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(n_out),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if activation else nn.Sequential(*layers)


class _ZooNet(nn.Module):
    """What the two architectures share: normalisation, stem, pooling and head."""

    def __init__(
        self,
        n_classes: int = 10,
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ):
        super().__init__()
        self.n_classes = n_classes
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32))
        # Halving the image at once makes the network four times as fast on a CPU.
        self.stem = _convolution(3, WIDTHS[0], size=5, stride=2)
        self._add_stages()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1], n_classes)

    def _add_stages(self) -> None:
        raise NotImplementedError

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised float images, channels first, of images on the scale 0..255."""
        if images.ndim != 4 or tuple(images.shape[1:]) != (IMAGE_SIZE, IMAGE_SIZE, 3):
            raise ValueError(
                f"Expected images of shape (n_samples, {IMAGE_SIZE}, {IMAGE_SIZE}, 3),"
                f" channels last, got an array of shape {tuple(images.shape)}."
            )
        images = images.to(self.mean.dtype) / 255
        return ((images - self.mean) / self.std).permute(0, 3, 1, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (n_samples, n_classes) of images (n_samples, 32, 32, 3)."""
        maps = self.stem(self.normalize(images))
        maps = self.stage3(self.stage2(self.stage1(maps)))
        return self.head(self.pool(maps))


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (1 x 1 where the shape changes)."""

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1):
        super().__init__()
        self.conv1 = _convolution(n_in, n_out, stride=stride)
        self.conv2 = _convolution(n_out, n_out, activation=False)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and n_in == n_out
            else _convolution(n_in, n_out, size=1, stride=stride, activation=False)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv2(self.conv1(maps)) + self.shortcut(maps))


class ResidualNet(_ZooNet):
    """ResNet-8: a stem and three residual blocks of width 16, 32 and 64."""

    def _add_stages(self) -> None:
        narrow, middle, wide = WIDTHS
        self.stage1 = _ResidualBlock(narrow, narrow)
        self.stage2 = _ResidualBlock(narrow, middle, stride=2)
        self.stage3 = _ResidualBlock(middle, wide, stride=2)


class PlainNet(_ZooNet):
    """VGG-like: the widths of :class:`ResidualNet`, max pooling and no shortcuts."""

    def _add_stages(self) -> None:
        narrow, middle, wide = WIDTHS
        self.stage1 = nn.Sequential(
            _convolution(narrow, narrow), _convolution(narrow, narrow)
        )
        self.stage2 = nn.Sequential(
            nn.MaxPool2d(2), _convolution(narrow, middle), _convolution(middle, middle)
        )
        self.stage3 = nn.Sequential(
            nn.MaxPool2d(2), _convolution(middle, wide), _convolution(wide, wide)
        )


ARCHITECTURES = {"residual": ResidualNet, "plain": PlainNet}


def build_network(
    architecture: str, n_classes: int, mean, std, seed: int | None = None
):
    """A network with PyTorch's default initialisation, seeded when asked for.

    The global random state of torch is left as it was.
    """
    with (
        exclusive([torch.default_generator]),
        torch.random.fork_rng(devices=[], enabled=seed is not None),
    ):
        if seed is not None:
            torch.manual_seed(seed)
        return ARCHITECTURES[architecture](n_classes, mean=mean, std=std)
