"""All layers of a network, in one pass: against forward hooks by hand."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from sklearn.base import clone

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.functional import adaptive_avg_pool2d, relu  # noqa: E402

from sktransfer.exceptions import CandidateFailedWarning  # noqa: E402
from sktransfer.feature_extraction import TorchFeatureExtractor  # noqa: E402
from sktransfer.feature_extraction._layers import pool  # noqa: E402
from sktransfer.metrics import logme_score  # noqa: E402
from sktransfer.model_selection import ModelSelector  # noqa: E402


class Block(nn.Module):
    """Two convolutions and a shortcut; the activation runs twice, in place."""

    def __init__(self, n_in, n_out):
        super().__init__()
        stride = 1 if n_in == n_out else 2
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        shortcut = x if self.conv1.stride == (1, 1) else x[:, :, ::2, ::2]
        missing = self.bn2.num_features - shortcut.shape[1]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, missing))
        x = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.act(x + shortcut)


class ResNet(nn.Module):
    """A residual network with 6 n_blocks + 2 layers."""

    def __init__(self, n_blocks=1, width=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, width, 3, 1, 1)
            widths = [width, *np.repeat([width, 2 * width, 4 * width], n_blocks)]
            self.blocks = nn.Sequential(
                *(Block(*map(int, widths[i : i + 2])) for i in range(len(widths) - 1))
            )
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.flatten = nn.Flatten()
            self.dropout = nn.Dropout(0.5)
            self.fc = nn.Linear(4 * width, 5)
            self.softmax = nn.Softmax(dim=1)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
                    nn.init.normal_(module.running_mean)
                    nn.init.uniform_(module.running_var, 0.5, 2)

    def forward(self, x):
        x = self.pool(self.blocks(relu(self.stem(x))))
        return self.softmax(self.fc(self.dropout(self.flatten(x))))


def by_hand(net, X, *, skip=()):
    """Outputs of the leaves by the order of their last runs, copied at once."""
    outputs, hooks = {}, []
    for name, module in net.named_modules():
        if name and not list(module.children()) and name not in skip:

            def keep(_, args, output, name=name):
                outputs.pop(name, None)
                outputs[name] = output.clone()

            hooks.append(module.register_forward_hook(keep))
    net.eval()
    with torch.no_grad():
        net(torch.as_tensor(X))
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.fixture(scope="module")
def net():
    return ResNet()


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(11, 3, 9, 9)).astype(np.float32)


def grid(maps, k=2):
    return adaptive_avg_pool2d(maps, k).flatten(1) if maps.ndim == 4 else maps


POOLS = {
    "mean": lambda maps: maps.flatten(2).mean(2) if maps.ndim == 4 else maps,
    "max": lambda maps: maps.flatten(2).amax(2) if maps.ndim == 4 else maps,
    ("grid", 1): lambda maps: grid(maps, 1),
    ("grid", 2): grid,
    ("grid", 3): lambda maps: grid(maps, 3),
}


@pytest.mark.parametrize("pooling", POOLS, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_outputs_of_all_leaves(net, X, pooling, channels_last):
    if channels_last:
        X = torch.from_numpy(X).to(memory_format=torch.channels_last)
    # The features are a copy of the map before Flatten, which is left out for them.
    skip = ("pool", "flatten", "dropout", "fc", "softmax")
    expected = by_hand(net, X, skip=skip)
    features = by_hand(net, X)["flatten"]
    extractor = TorchFeatureExtractor(
        net, layer="all", source_head="fc", pooling=pooling, batch_size=4
    )
    layers = extractor.transform_layers(X)
    assert list(layers) == [*expected, "penultimate"]
    assert len(layers) == 1 + 3 * 5 + 1
    for name, output in expected.items():
        own = POOLS[pooling](output)
        assert layers[name].dtype == np.float32
        np.testing.assert_allclose(layers[name], own, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layers["penultimate"], features, rtol=1e-5, atol=1e-6)


def test_same_as_each_layer_alone(net, X):
    extractor = TorchFeatureExtractor(
        net, layer="all", source_head="fc", pooling=("grid", 2), batch_size=4
    )
    layers, proba = extractor.extract(X, source_proba=True)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(extractor.transform(X), np.hstack([*layers.values()]))
    for name, features in layers.items():
        alone = extractor.select_layer(name).transform(X)
        np.testing.assert_allclose(alone, features, rtol=1e-4, atol=1e-5)
    whole = clone(extractor).set_params(source_head=None).transform_layers(X)
    *inner, last = whole
    assert inner[: len(layers) - 1] == list(layers)[:-1]
    assert (inner[-1], last) == ("fc", "output")  # softmax gives the output itself


def test_one_pass_and_one_output_at_a_time(X):
    alive, n_passes = [], 0

    class Link(nn.Conv2d):
        def forward(self, x):
            nonlocal n_passes
            n_passes += self.is_first
            assert sum(output() is not None for output in alive) <= 1
            x = super().forward(x)
            alive.append(weakref.ref(x))
            return x

    links = [Link(3, 3, 3, padding=1) for _ in range(8)]
    for link in links:
        link.is_first = link is links[0]
    extractor = TorchFeatureExtractor(nn.Sequential(*links), layer="all", batch_size=4)
    assert len(extractor.transform_layers(X)) == 8
    assert n_passes == 3


@pytest.mark.parametrize("size", [(7, 5), (8, 8), (1, 1), (2, 3), (32, 40), (64, 64)])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_grid_is_adaptive_average_pooling(size, k, layout):
    maps = torch.randn(3, 4, *size)
    if layout == "channels_last":
        maps = maps.to(memory_format=torch.channels_last)
    elif layout == "sliced":
        maps = torch.randn(3, 9, *size)[:, ::2][:, :4]
    expected = adaptive_avg_pool2d(maps.double(), k).flatten(1)
    pooled = pool(maps, ("grid", k))
    assert pooled.dtype == torch.float32
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(pool(maps, ("grid", k)), pooled)


def test_grid_of_other_outputs():
    for shape in [(3, 4), (3, 5, 4), (3, 4, 2, 5, 6)]:
        output = torch.randn(shape)
        expected = pool(output, "mean")
        assert torch.equal(pool(output, ("grid", 2)), expected)


def test_grid_has_gradients():
    with torch.inference_mode():
        pool(torch.randn(2, 3, 11, 13), ("grid", 2))  # may keep what it computes
    maps = torch.randn(2, 3, 11, 13, dtype=torch.float32, requires_grad=True)
    pool(maps, ("grid", 2)).sum().backward()
    expected = maps.detach().requires_grad_()
    adaptive_avg_pool2d(expected, 2).sum().backward()
    np.testing.assert_allclose(maps.grad, expected.grad, rtol=1e-5)


@pytest.mark.parametrize(
    "pooling",
    [("grid",), ("grid", 0), ("grid", 2.0), ("mesh", 2), ("grid", 2, 2), ("grid", "2")],
    ids=str,
)
def test_invalid_grid(net, X, pooling):
    extractor = TorchFeatureExtractor(net, pooling=pooling)
    for run in (extractor.fit, extractor.transform):
        with pytest.raises(ValueError, match=r"'pooling' parameter of .*'grid', k"):
            run(X)


class Sequence(nn.Module):
    """Runs what it is given by name, and then a head."""

    def __init__(self, forward=None, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.head = nn.Linear(3, 2)
        self.run = forward

    def forward(self, x):
        return self.head(self.run(self, x))


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def chain(net, x):
    for name, part in net.named_children():
        if name != "head":
            part(x)
    return x


def names_of(module, X, **params):
    extractor = TorchFeatureExtractor(
        module, layer="all", **{"source_head": "head", "batch_size": 4} | params
    )
    return list(extractor.transform_layers(X))


V = np.random.default_rng(1).normal(size=(11, 3)).astype(np.float32)


def test_outputs_that_are_no_features_are_left_out():
    module = Sequence(
        chain,
        vector=Lambda(lambda x: x[:, 0]),
        tokens=Lambda(lambda x: x[:, None] + x[:, :, None]),
        maps=Lambda(lambda x: (x[:, :, None] * x[:, None])[..., None]),
        volume=Lambda(lambda x: x.reshape(-1, 3, 1, 1, 1) + 0),
        windows=Lambda(lambda x: x.repeat(2, 1)),
        mean=Lambda(lambda x: x.mean(0, keepdim=True)),
        integers=Lambda(lambda x: x.long()),
        nothing=Lambda(lambda x: None),
        empty=Lambda(lambda x: x[:, :0] + 0),
        wrapped=Lambda(lambda x: {"nothing": None, "hidden": (x + 1,)}),
        late=nn.Tanh(),
    )
    assert names_of(module, V) == ["tokens", "maps", "wrapped", "late", "penultimate"]


def test_only_the_features_where_nothing_else_fits():
    module = Sequence(chain, mean=Lambda(lambda x: x.mean(0)))
    assert names_of(module, V) == ["penultimate"]
    assert names_of(nn.Linear(3, 2), V, source_head=None) == ["output"]
    one_row = Lambda(lambda x: x.mean(0))
    with pytest.raises(ValueError, match=r"'output' of shape \(3,\) was pooled"):
        names_of(one_row, V, source_head=None)


def test_a_layer_that_stops_to_fit():
    module = Sequence(chain, table=Lambda(lambda x: torch.ones(4, 3)))
    with pytest.raises(ValueError, match=r"'table' of shape \(4, 3\).*have.*\(3, "):
        names_of(module, V)  # the last batch has three samples


def test_last_run_decides_value_and_order():
    module = Sequence(
        lambda net, x: net.twin(net.other(net.twin(x)) + 1),
        twin=Lambda(lambda x: 2 * x),
        other=Lambda(lambda x: x - 3),
    )
    extractor = TorchFeatureExtractor(module, layer="all", source_head="output")
    layers = extractor.transform_layers(V)
    assert list(layers) == ["other", "twin", "output"]
    np.testing.assert_allclose(layers["twin"], 2 * (2 * V - 2), rtol=1e-5, atol=1e-6)
    # What runs once more after the features were taken is not one of their layers.
    after = Sequence(lambda net, x: net.other(net.twin(x)) + 1, twin=nn.Tanh())
    after.other = nn.Sigmoid()
    after.head = nn.Sequential(nn.Linear(3, 3), after.twin)
    assert names_of(after, V) == ["other", "penultimate"]


def test_exact_copies_are_left_out():
    module = Sequence(
        lambda net, x: net.late(net.inplace(net.drop(net.same(net.first(x))))),
        first=nn.Linear(3, 3),
        same=nn.Identity(),
        drop=nn.Dropout(),
        inplace=nn.ReLU(inplace=True),
        late=nn.Identity(),
    )
    extractor = TorchFeatureExtractor(module, layer="all", source_head="head")
    layers = extractor.transform_layers(V)
    assert list(layers) == ["first", "penultimate"]  # inplace gives the latter
    with torch.no_grad():
        first = module.first(torch.from_numpy(V))
    np.testing.assert_allclose(layers["first"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layers["penultimate"], relu(first), rtol=1e-5)


def test_what_only_an_identity_shows_is_kept():
    module = Sequence(lambda net, x: net.same(net.first(x).exp()) + 1)
    module.first, module.same = nn.Linear(3, 3), nn.Identity()
    assert names_of(module, V) == ["first", "same", "penultimate"]


def test_weights_that_are_computed_are_no_layers():
    square = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    module = Sequence(lambda net, x: net.square(x).exp(), square=square)
    assert names_of(module, V[:9], batch_size=3) == ["square", "penultimate"]


def test_all_stands_alone(net, X):
    with pytest.raises(ValueError, match="'all' stands for all layers, in a list too"):
        TorchFeatureExtractor(net, layer=["all", "mean"]).transform(X)
    extractor = TorchFeatureExtractor(net, layer=["all"], source_head="fc")
    assert len(extractor.transform_layers(X)) == 17
    named = nn.Sequential()
    named.add_module("all", nn.Linear(3, 4))
    named.add_module("last", nn.Linear(4, 2))
    assert TorchFeatureExtractor(named, layer="all").transform(V).shape == (11, 4)


def test_batch_normalisation_with_a_hook_of_its_own(X):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    net[1].register_forward_hook(lambda module, args, output: output + 7)
    layers = TorchFeatureExtractor(net, layer="all").transform_layers(X)
    mean = by_hand(net, X)["1"].mean((2, 3))
    np.testing.assert_allclose(layers["1"], mean, rtol=1e-5)


@pytest.fixture
def target():
    return np.arange(11) % 2


def test_selector_ranks_every_layer(net, X, target, tmp_path):
    extractor = TorchFeatureExtractor(
        net, layer="all", source_head="fc", pooling=("grid", 2)
    )
    for memory in (None, str(tmp_path), str(tmp_path)):
        selector = ModelSelector([("net", extractor)], memory=memory).fit(X, target)
        layers = extractor.transform_layers(X)
        assert selector.results_["layer"].tolist() == list(layers)
        expected = [logme_score(features, target) for features in layers.values()]
        np.testing.assert_allclose(selector.results_["logme"], expected, atol=1e-4)
    widths = selector.results_["n_features"]
    other = clone(extractor).set_params(pooling="mean")
    selector = ModelSelector([("net", other)], memory=str(tmp_path)).fit(X, target)
    np.testing.assert_array_equal(4 * selector.results_["n_features"][:-1], widths[:-1])


def test_fingerprint(net):
    extractor = TorchFeatureExtractor(net, layer="all", pooling=("grid", 2))
    prints = {
        clone(extractor).set_params(**params).fingerprint()
        for params in (
            {},
            {"batch_size": 3},
            {"layer": None},
            {"pooling": ("grid", 3)},
            {"pooling": "mean"},
        )
    }
    assert len(prints) == 4


def test_nan_in_an_inner_layer(target):
    hidden = Lambda(lambda x: torch.where(x > 1, torch.nan, x))
    module = Sequence(chain, bad=hidden, good=nn.Tanh())
    extractor = TorchFeatureExtractor(module, layer="all", source_head="head")
    layers = extractor.transform_layers(V)
    assert np.isnan(layers["bad"]).any()
    assert np.isfinite(layers["good"]).all()
    n_bad = (V > 1).any(axis=1).sum()
    selector = ModelSelector([("net", extractor)], error_score="raise")
    with pytest.raises(ValueError, match=f"layer 'bad' gave NaN .* {n_bad} of 11 rows"):
        selector.fit(V, target)
    other = ("other", extractor.select_layer("good"))
    with pytest.warns(CandidateFailedWarning, match="layer 'bad' gave NaN"):
        selector = ModelSelector([("net", extractor), other]).fit(V, target)
    assert selector.best_name_.startswith("other")


def test_constant_layer(target):
    module = Sequence(chain, flat=Lambda(torch.zeros_like), good=nn.Tanh())
    extractor = TorchFeatureExtractor(module, layer="all", source_head="head")
    selector = ModelSelector([("net", extractor)]).fit(V, target)
    assert selector.results_["layer"].tolist() == ["flat", "good", "penultimate"]
    assert np.isfinite(selector.results_["logme"]).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_precision(net, X, dtype):
    extractor = TorchFeatureExtractor(
        net, layer="all", source_head="fc", pooling=("grid", 2), dtype=dtype
    )
    layers = extractor.transform_layers(X)
    exact = clone(extractor).set_params(dtype=None).transform_layers(X)
    assert list(layers) == list(exact)
    for name, features in layers.items():
        assert np.abs(features - exact[name]).max() < 0.1 * np.abs(exact[name]).max()
