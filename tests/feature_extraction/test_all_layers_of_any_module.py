"""All layers of unusual modules."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from sktransfer.feature_extraction import TorchFeatureExtractor  # noqa: E402
from sktransfer.feature_extraction._pooling import pool  # noqa: E402

GRID = ("grid", 2)


class Run(nn.Module):
    """Calls a function with its parts."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def names_of(net, X, **params):
    extractor = TorchFeatureExtractor(net, layer="all", **params)
    return list(extractor.transform_layers(X))


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def vectors():
    return torch.randn(6, 8)


def test_grid_with_another_default_dtype():
    maps = torch.randn(2, 3, 10, 6)
    expected = pool(maps, GRID)
    pool.__globals__["_grid"].cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(pool(maps, GRID), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(pool(maps, GRID), expected)


def test_weights_in_containers(vectors):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterList([torch.randn(8, 8)])

        def forward(self, x):
            return x @ self.weights[0]

    net = nn.Sequential(Product(), Product(), nn.Linear(8, 2), nn.Tanh())
    assert names_of(net, vectors) == ["input(1)", "input(2)", "output"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scripted_modules(vectors):
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    net = nn.Sequential(scripted, nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 2))
    assert names_of(net, vectors) == ["input(3)", "output"]  # compiled: no hooks
    features = TorchFeatureExtractor(net, layer="*").transform_layers(vectors)
    assert list(features) == ["1", "2", "3"]


def nest(x):
    return torch.nested.nested_tensor([row[: 2 + i % 2] for i, row in enumerate(x)])


def pad(x):
    return torch.nested.to_padded_tensor(x, 0.0)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors():
    tokens = torch.randn(6, 3, 8)
    inner = Run(lambda net, x: nest(x))
    net = Run(lambda net, x: net.head(pad(net.inner(x))[:, 0]), inner=inner)
    net.head = nn.Linear(8, 2)
    assert names_of(net, tokens, source_head="head") == ["penultimate"]
    by_name = TorchFeatureExtractor(net, layer="inner", pooling=lambda x: pad(x)[:, 0])
    np.testing.assert_array_equal(by_name.transform(tokens), tokens[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_encoder_with_padding():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = Run(
        lambda net, x, mask: net.head(net.encoder(x, src_key_padding_mask=mask)[:, 0]),
        encoder=nn.TransformerEncoder(layer, 2),
        head=nn.Linear(8, 2),
    )
    lengths = (3, 4, 5, 2, 5)
    X = [{"x": torch.randn(5, 8), "mask": torch.arange(5) >= n} for n in lengths]
    extractor = TorchFeatureExtractor(
        net, layer="all", source_head="head", batch_size=3
    )
    layers = extractor.transform_layers(X)
    alone = extractor.select_layer("penultimate").transform(X)
    np.testing.assert_allclose(layers["penultimate"], alone, rtol=1e-4, atol=1e-5)
