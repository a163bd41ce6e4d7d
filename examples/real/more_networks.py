"""Eight more networks with published weights: residual, depthwise and for ImageNet.

They are assembled from the tensors of the checkpoints, and take stored images as those
of ``networks`` do. The networks for ImageNet, and that for persons, enlarge them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import Pixels
from torch import nn
from torch.nn import functional

from sktransfer.feature_extraction import TorchFeatureExtractor

State = dict[str, torch.Tensor]
RAW = ((0.0,) * 3, (1.0,) * 3)


def _conv(
    state: State, name: str, stride: int = 1, padding: int | None = None, **params: Any
) -> nn.Module:
    """The convolution of some tensors; without `padding`, TensorFlow's "same"."""
    weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias", None)
    n_out, n_in, size, _ = weight.shape
    before = padding
    if padding is None:
        before = 0 if stride == 2 else size // 2
    conv = nn.Conv2d(
        n_in * params.get("groups", 1),
        n_out,
        size,
        stride,
        before,
        bias=bias is not None,
        **params,
    )
    conv.load_state_dict(
        {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    )
    if padding is None and stride == 2 and size > 1:
        return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv)
    return conv


def _norm(state: State, name: str) -> nn.BatchNorm2d:
    """Batch norm as in Keras."""
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {key: state.pop(f"{name}.{key}") for key in names}
    norm = nn.BatchNorm2d(len(tensors["weight"]), eps=1e-3)
    norm.load_state_dict(tensors, strict=False)
    return norm


def _linear(state: State, name: str) -> nn.Linear:
    weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias")
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


class Sum(nn.Module):
    """A branch and a shortcut, added and passed through an activation."""

    def __init__(
        self, branch: nn.Module, shortcut: nn.Module, activation: Callable | None = None
    ):
        super().__init__()
        self.branch, self.shortcut = branch, shortcut
        self.activation = activation or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.branch(x) + self.shortcut(x))


class Enlarge(nn.Module):
    """Enlarge images, then scale and shift the values, which are in [0, 1]."""

    def __init__(
        self,
        size: int,
        scale: float = 1.0,
        shift: tuple[float, ...] = (0.0,) * 3,
        bgr: bool = False,
    ):
        super().__init__()
        self.size, self.scale, self.bgr = size, scale, bgr
        shift = torch.tensor(shift).reshape(-1, 1, 1)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.interpolate(x, size=self.size, mode="bilinear")
        return self.scale * (x.flip(1) if self.bgr else x) - self.shift


def _pool() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def _resnet8(state: State) -> list[nn.Module]:
    stages = []
    for name, stride in {"stage1": 1, "stage2": 2, "stage3": 2}.items():
        branch = nn.Sequential(
            _conv(state, f"{name}.conv1", stride),
            _norm(state, f"{name}.bn1"),
            nn.ReLU(),
            _conv(state, f"{name}.conv2"),
            _norm(state, f"{name}.bn2"),
        )
        shortcut = nn.Identity()
        if stride == 2:
            shortcut = _conv(state, f"{name}.shortcut", 2)
        stages.append(Sum(branch, shortcut, nn.ReLU()))
    stem = [_conv(state, "conv1"), _norm(state, "bn1"), nn.ReLU()]
    return [Pixels((0.0,) * 3, (1 / 255,) * 3), *stem, *stages, *_pool()]


def _robust_resnet(state: State) -> list[nn.Module]:
    blocks = []
    for name in ("layer1.0", "layer1.1", "layer2.0", "layer2.1"):
        if f"{name}.conv1.weight" not in state:
            continue
        first = f"{name}.shortcut.0.weight" in state
        branch = nn.Sequential(
            _conv(state, f"{name}.conv1", 2 if first else 1, 1),
            nn.ReLU(),
            _conv(state, f"{name}.conv2"),
        )
        shortcut = _conv(state, f"{name}.shortcut.0", 2, 0) if first else nn.Identity()
        blocks.append(Sum(branch, shortcut, nn.ReLU()))
    pixels = Pixels((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
    stem = [_conv(state, "conv1", 2, 1), nn.ReLU()]
    return [pixels, *stem, *blocks, nn.Flatten(), _linear(state, "linear1"), nn.ReLU()]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel."""

    def __init__(self, state: State, name: str):
        super().__init__()
        self.weight = nn.Parameter(state.pop(f"{name}.ln.weight"))
        self.bias = nn.Parameter(state.pop(f"{name}.ln.bias"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.movedim(1, -1)
        x = functional.layer_norm(x, self.weight.shape, self.weight, self.bias)
        return x.movedim(-1, 1)


class TiniestBlock(nn.Module):
    """Depthwise convolutions of three sizes, and a gated mixture of channels."""

    def __init__(self, state: State, name: str):
        super().__init__()
        self.scale = nn.Parameter(state.pop(f"{name}.rs"))
        groups = len(state[f"{name}.dwconv1.weight"])
        conv = partial(_conv, state, groups=groups)
        self.small = conv(f"{name}.dwconv1", padding=1)
        self.large = conv(f"{name}.dwconv2", padding=3)
        self.wide = nn.Sequential(
            nn.AvgPool2d(3, 1, 1), conv(f"{name}.dwconv3", padding=9, dilation=3)
        )
        self.norm = ChannelNorm(state, f"{name}.ln")
        self.gate, self.mix = _conv(state, f"{name}.fc1"), _conv(state, f"{name}.fc2")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c, e = x.chunk(4, dim=1)
        parts = torch.cat([a, self.small(b), self.large(c), self.wide(e)], dim=1)
        u, v = self.gate(self.norm(parts)).chunk(2, dim=1)
        return self.mix(torch.tanh(torch.exp(u)) * u * v) + self.scale * x


def _tiniest(state: State) -> list[nn.Module]:
    return [
        Pixels(*RAW),
        _conv(state, "conv1", padding=1),
        ChannelNorm(state, "ln1"),
        *(TiniestBlock(state, f"l{i}") for i in (1, 2, 3)),
        _conv(state, "dsconv", 2, 1, groups=16),
        ChannelNorm(state, "ln2"),
        *(TiniestBlock(state, f"l{i}") for i in (4, 5, 6)),
        *_pool(),
    ]


def _mobilenet_v1(
    state: State, enlarge: dict[str, Any], activation: type[nn.Module]
) -> list[nn.Module]:
    layers = [_conv(state, "conv1", 2), _norm(state, "bn1"), activation()]
    for i, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), 1):
        groups = len(state[f"block{i}.dw.weight"])
        layers += [
            _conv(state, f"block{i}.dw", stride, groups=groups),
            _norm(state, f"block{i}.dw_bn"),
            activation(),
            _conv(state, f"block{i}.pw"),
            _norm(state, f"block{i}.pw_bn"),
            activation(),
        ]
    return [Pixels(*RAW), Enlarge(**enlarge), *layers, *_pool()]


def _mobilenet_v2(state: State) -> list[nn.Module]:
    names = {key.rpartition(".")[0] for key in state if key.endswith("weight_q")}
    for name in names:
        quantised = state.pop(f"{name}.weight_q").float()
        zero = state.pop(f"{name}.zero_point")
        state[f"{name}.weight"] = state.pop(f"{name}.scale") * (quantised - zero)
    layers = [_conv(state, "conv0", 2), nn.ReLU6()]
    for i in range(17):
        stride = 2 if i in (1, 3, 6, 13) else 1
        branch = []
        if i > 0:
            branch = [_conv(state, f"block{i}.expand"), nn.ReLU6()]
        groups = len(state[f"block{i}.depthwise.weight"])
        branch += [
            _conv(state, f"block{i}.depthwise", stride, groups=groups),
            nn.ReLU6(),
            _conv(state, f"block{i}.project"),
        ]
        same = i > 0 and stride == 1
        same = same and branch[0].in_channels == branch[-1].out_channels
        branch = nn.Sequential(*branch)
        layers.append(Sum(branch, nn.Identity()) if same else branch)
    layers += [_conv(state, "conv_last"), nn.ReLU6()]
    return [Pixels(*RAW), Enlarge(96, 2, (1.0,) * 3), *layers, *_pool()]


class Fire(nn.Module):
    """A narrow convolution, and two wide ones side by side."""

    def __init__(self, state: State, name: str):
        super().__init__()
        self.squeeze = _conv(state, f"{name}.squeeze")
        self.expand1x1 = _conv(state, f"{name}.expand1x1")
        self.expand3x3 = _conv(state, f"{name}.expand3x3")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.squeeze(x))
        return functional.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


def _squeezenet(state: State) -> list[nn.Module]:
    layers = [_conv(state, "conv1", 2, 0), nn.ReLU()]
    for i in range(2, 10):
        if i in (2, 5, 9):
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        layers.append(Fire(state, f"fire{i}"))
    enlarge = Enlarge(128, 255, (104.0, 117.0, 123.0), bgr=True)
    return [Pixels(*RAW), enlarge, *layers, *_pool()]


BUILDERS = {
    "abcrown_resnet2b_cifar10": _robust_resnet,
    "abcrown_resnet4b_cifar10": _robust_resnet,
    "mlperf_tiny_resnet8_cifar10": _resnet8,
    "mlperf_tiny_vww_mobilenet_v1_0.25_96": partial(
        _mobilenet_v1,
        enlarge={"size": 96},
        activation=nn.ReLU,
    ),
    "mobilenet_v1_0.25_128_imagenet_features": partial(
        _mobilenet_v1,
        enlarge={"size": 128, "scale": 2, "shift": (1.0,) * 3},
        activation=nn.ReLU6,
    ),
    "mobilenet_v2_1.0_224_imagenet_uint8": _mobilenet_v2,
    "squeezenet_v1.0_imagenet": _squeezenet,
    "tiniest_cifar10": _tiniest,
}
# What is built without the layers that give source probabilities.
HEADS = ("linear", "linear2", "fc", "classifier", "conv_final")


def load_body(weights: str, name: str) -> nn.Sequential:
    """Load a network without its head from a folder."""
    (file,) = Path(weights).glob(f"{name}.*")
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            state = {key: torch.from_numpy(arrays[key]) for key in arrays}
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
        state = dict(state.get("state_dict", state))
    state = {k: v for k, v in state.items() if k.rpartition(".")[0] not in HEADS}
    body = nn.Sequential(*BUILDERS[name](state))
    unused = [key for key in state if not key.endswith("num_batches_tracked")]
    unused = [key for key in unused if not key.startswith(HEADS)]
    if unused:
        raise ValueError(f"{file} has tensors that {name} does not: {unused}.")
    return body.eval()


def make_body_extractor(
    weights: str | Path, name: str, **params: Any
) -> TorchFeatureExtractor:
    """Make an extractor of features."""
    return TorchFeatureExtractor(partial(load_body, str(weights), name), **params)
