"""All layers of unusual modules: against forward hooks by hand."""

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


class Plus(nn.Module):
    def __init__(self, offset):
        super().__init__()
        self.offset = offset

    def forward(self, x):
        return x + self.offset


def batch_norm(n_channels):
    norm = nn.BatchNorm2d(n_channels)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


def by_hand(net, X, names):
    """Outputs of submodules, copied at once."""
    outputs = {}
    hooks = [
        net.get_submodule(name).register_forward_hook(
            lambda _, args, out, name=name: outputs.update({name: out.clone()})
        )
        for name in names
    ]
    net.eval()
    with torch.no_grad():
        net(torch.as_tensor(X))
    for hook in hooks:
        hook.remove()
    return outputs


def check(net, X, names, pooling="mean", *, rtol=1e-5, **params):
    """Check names and values of all layers but the features."""
    extractor = TorchFeatureExtractor(net, layer="all", pooling=pooling, **params)
    layers = extractor.transform_layers(X)
    assert list(layers)[:-1] == names
    for name, output in by_hand(net, X, names).items():
        expected = pool(output, pooling)
        atol = rtol * float(expected.abs().max())
        np.testing.assert_allclose(layers[name], expected, rtol=0, atol=atol)


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def images():
    return torch.randn(6, 3, 9, 9)


@pytest.fixture
def vectors():
    return torch.randn(6, 8)


def test_batch_normalisation_that_does_more(images):
    def relu_after(norm):
        forward = norm.forward
        norm.forward = lambda x: forward(x).relu()
        return norm

    net = nn.Sequential(nn.Conv2d(3, 4, 3), relu_after(batch_norm(4)), nn.Flatten())
    check(net, images, ["0", "1"], GRID)


def test_batch_normalisation_in_double_precision(images):
    net = nn.Sequential(Plus(1e6), batch_norm(3), nn.Flatten()).double()
    net[1].running_mean += 1e6
    check(net, images.double(), ["0", "1"], GRID)


@pytest.mark.parametrize("pooling", ["mean", GRID])
def test_batch_normalisation_of_something_else(images, pooling):
    """Of tokens, of a view, of what was changed in place, of its own output."""

    def as_one_channel(net, x):
        tokens = net.first(x)
        return net.norm(tokens[:, None]) * tokens.mean()

    tokens = torch.randn(6, 4, 4)
    net = Run(as_one_channel, first=nn.Linear(4, 4), norm=batch_norm(1))
    check(net, tokens, ["first", "norm"], pooling)

    def of_a_view(net, x):
        maps = net.first(x)
        return net.norm(maps[:, :, :4, :4]) * maps.mean()

    first, norm = nn.Conv2d(3, 4, 3), batch_norm(4)
    check(Run(of_a_view, first=first, norm=norm), images, ["first", "norm"], pooling)

    def changed(net, x):
        return net.norm(net.first(x).mul_(2).add_(1)) + 1

    check(Run(changed, first=first, norm=norm), images, ["first", "norm"], pooling)

    def twice(net, x):
        return net.norm(net.norm(net.first(x))) + 1

    check(Run(twice, first=first, norm=norm), images, ["first", "norm"], pooling)


def test_batch_normalisation_of_the_logits(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 9), batch_norm(4))
    alone = TorchFeatureExtractor(net, layer="1", source_head="0")
    features, _ = alone.extract(images, source_proba=True)
    np.testing.assert_array_equal(features["1"], alone.transform(images))


def test_listed_layers_are_pooled_themselves(images):
    """Even where memory was changed such that torch does not count it."""

    def hidden(net, x):
        maps = net.first(x)
        maps.data.mul_(3)
        return net.norm(maps)

    net = Run(hidden, first=nn.Conv2d(3, 4, 3), norm=batch_norm(4))
    extractor = TorchFeatureExtractor(net, layer=["first", "norm"], pooling=GRID)
    expected = pool(by_hand(net, images, ["norm"])["norm"], GRID)
    features = extractor.transform_layers(images)["norm"]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


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
    check(net, vectors, ["0", "1", "2"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scripted_modules(vectors):
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    net = nn.Sequential(scripted, nn.Tanh(), nn.Linear(8, 2))
    check(net, vectors, ["1"])  # compiled parts take no hooks
    features = TorchFeatureExtractor(net, layer="*").transform_layers(vectors)
    assert list(features) == ["1", "2"]


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
    check(net, tokens, [], source_head="head")
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
