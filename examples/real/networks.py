"""Small networks with published weights, for images of 32 x 32 pixels.

They are rebuilt from the description that comes with the weights. They take stored
images: uint8, (n_samples, 32, 32, 3). The first layer of each network, ``pixels``,
prepares them (grey images, 28 x 28 pixels, normalisation).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sktransfer.feature_extraction import TorchFeatureExtractor

RESNETS = ("resnet20", "resnet32", "resnet44", "resnet56")
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()

# Chains of two convolutions and two or three linear layers: padding of the
# convolutions, mean and standard deviation of the pixels.
CHAINS = {
    "abcrown_cnn_a_mix_cifar10": (
        1,
        (0.4914, 0.4822, 0.4465),
        (0.2023, 0.1994, 0.201),
    ),
    "abcrown_conv_small_nat_mnist": (0, (0.1307,), (0.3081,)),
    "abcrown_marabou_large_cifar10": (0, (0.0,) * 3, (1.0,) * 3),
    "abcrown_marabou_medium_cifar10": (0, (0.0,) * 3, (1.0,) * 3),
    "abcrown_marabou_small_cifar10": (0, (0.0,) * 3, (1.0,) * 3),
    "locuslab_fashion_mnist": (1, (0.0,), (1.0,)),
    "locuslab_mnist": (1, (0.0,), (1.0,)),
    "locuslab_svhn": (1, (0.0,) * 3, (1.0,) * 3),
}


class Pixels(nn.Module):
    """Convert stored images to the input that a network was trained on.

    Networks with one channel take grey images without the border of two pixels.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        for name, value in {"mean": mean, "std": std}.items():
            tensor = torch.tensor(value).reshape(-1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.permute(0, 3, 1, 2) / 255
        if len(self.mean) == 1:
            grey = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
            x = grey[:, None, 2:30, 2:30]
        return (x - self.mean) / self.std


class Block(nn.Module):
    """Two convolutions and a shortcut without weights."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride, self.n_missing = stride, n_out - n_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = self.n_missing // 2
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, half, self.n_missing - half))
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + shortcut)


class ResNet(nn.Module):
    """Residual network with 6 n + 2 layers for CIFAR-10: three stages of n blocks."""

    def __init__(self, n_layers: int):
        super().__init__()
        self.pixels = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        n_blocks = (n_layers - 2) // 6
        self.layer1 = self._stage(16, 16, n_blocks)
        self.layer2 = self._stage(16, 32, n_blocks)
        self.layer3 = self._stage(32, 64, n_blocks)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(n_in: int, n_out: int, n_blocks: int) -> nn.Sequential:
        first = Block(n_in, n_out, stride=n_out // n_in)
        others = [Block(n_out, n_out, stride=1) for _ in range(n_blocks - 1)]
        return nn.Sequential(first, *others)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(self.pixels(images))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Chain(nn.Module):
    """Two convolutions and some linear layers, with sizes taken from the weights."""

    def __init__(
        self,
        state: dict[str, torch.Tensor],
        padding: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        super().__init__()
        self.pixels = Pixels(mean, std)
        shapes = [value.shape for name, value in state.items() if "weight" in name]
        layers = []
        for n_out, n_in, *kernel in shapes[:2]:
            layers += [nn.Conv2d(n_in, n_out, kernel, 2, padding), nn.ReLU()]
        layers.append(nn.Flatten())
        for n_out, n_in in shapes[2:]:
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.chain = nn.Sequential(*layers[:-1])
        self.chain.load_state_dict(state)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.chain(self.pixels(images))


def load_network(weights: str, name: str) -> nn.Module:
    """Load a network with its weights from a folder."""
    (file,) = Path(weights).glob(f"{name}[-.]*")
    state = torch.load(file, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    if name in CHAINS:
        state = state[0] if isinstance(state, list) else state
        return Chain(state, *CHAINS[name]).eval()
    network = ResNet(int(name.removeprefix("resnet")))
    network.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    return network.eval()


def make_extractor(
    weights: str | Path, name: str, **params: Any
) -> TorchFeatureExtractor:
    """Make an extractor of features and source probabilities."""
    head = "linear"
    if name in CHAINS:
        head = "chain.9" if "marabou" in name else "chain.7"
    return TorchFeatureExtractor(
        partial(load_network, str(weights), name), source_head=head, **params
    )
