"""All layers of a network, in one pass: against hooks by hand."""

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
from sktransfer.feature_extraction._pooling import pool  # noqa: E402
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


def by_hand(net, X, names):
    """Inputs of submodules, copied at once."""
    inputs, hooks = {}, []
    for name in names:

        def keep(_, args, name=name):
            inputs[name] = args[0].clone()

        hooks.append(net.get_submodule(name).register_forward_pre_hook(keep))
    net.eval()
    with torch.no_grad():
        net(torch.as_tensor(X))
    for hook in hooks:
        hook.remove()
    return inputs


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


# The convolutions after the first, which reads the images.
READERS = [f"blocks.{i}.conv{j}" for i in range(3) for j in (1, 2)]
NAMES = [*(f"input({name})" for name in READERS), "penultimate"]


@pytest.mark.parametrize("pooling", POOLS, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_what_all_weights_read(net, X, pooling, channels_last):
    if channels_last:
        X = torch.from_numpy(X).to(memory_format=torch.channels_last)
    expected = by_hand(net, X, [*READERS, "fc"])
    extractor = TorchFeatureExtractor(
        net, layer="all", source_head="fc", pooling=pooling, batch_size=4
    )
    layers = extractor.transform_layers(X)
    assert list(layers) == NAMES
    for features, output in zip(layers.values(), expected.values(), strict=True):
        assert features.dtype == np.float32
        own = POOLS[pooling](output)
        np.testing.assert_allclose(features, own, rtol=1e-4, atol=1e-5)


def test_same_as_each_layer_alone(net, X):
    extractor = TorchFeatureExtractor(
        net, layer="all", source_head="fc", pooling=("grid", 2), batch_size=4
    )
    layers, proba = extractor.extract(X, source_proba=True)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(extractor.transform(X), np.hstack([*layers.values()]))
    for name, features in layers.items():
        alone = extractor.select_layer(name).transform(X)
        np.testing.assert_array_equal(alone, features)
    whole = clone(extractor).set_params(source_head=None).transform_layers(X)
    assert list(whole) == [*NAMES[:-1], "input(fc)", "output"]


def test_input_of_submodules_by_wildcard(net, X):
    extractor = TorchFeatureExtractor(net, layer=["input(blocks.*.act)", "input(fc)"])
    layers = extractor.transform_layers(X)
    acts = [f"blocks.{i}.act" for i in range(3)]
    assert list(layers) == [*(f"input({name})" for name in acts), "input(fc)"]
    expected = by_hand(net, X, acts)  # of the last runs
    for name in acts:
        mean = POOLS["mean"](expected[name])
        np.testing.assert_allclose(layers[f"input({name})"], mean, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"must name a submodule .* Got 'input\(no\)'"):
        clone(extractor).set_params(layer="input(no)").transform(X)


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
    assert len(extractor.transform_layers(X)) == 8  # 7 inputs, and the output
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


class Reader(nn.Module):
    """Has weights, and ignores what it reads."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2))

    def forward(self, x):
        return torch.zeros(4, 3)


def reading(*functions, **named):
    """A network with a reader of each function of its input, and of the input first."""
    named |= {f"part{i}": function for i, function in enumerate(functions)}

    def run(net, x):
        net.first(x)
        for name, function in named.items():
            getattr(net, name)(function(x))
        return x + 0

    return Sequence(run, first=Reader(), **{name: Reader() for name in named})


def names_of(module, X, **params):
    extractor = TorchFeatureExtractor(
        module, layer="all", **{"source_head": "head", "batch_size": 4} | params
    )
    return list(extractor.transform_layers(X))


V = np.random.default_rng(1).normal(size=(11, 3)).astype(np.float32)


def test_inputs_that_are_no_features_are_left_out():
    module = reading(
        vector=lambda x: x[:, 0],
        tokens=lambda x: x[:, None] + x[:, :, None],
        maps=lambda x: (x[:, :, None] * x[:, None])[..., None],
        volume=lambda x: x.reshape(-1, 3, 1, 1, 1) + 0,
        windows=lambda x: x.repeat(2, 1),
        mean=lambda x: x.mean(0, keepdim=True),
        integers=lambda x: x.long(),
        nothing=lambda x: None,
        empty=lambda x: x[:, :0] + 0,
        wrapped=lambda x: {"nothing": None, "hidden": (x + 1,)},
        late=torch.tanh,
    )
    names = [f"input({name})" for name in ("tokens", "maps", "wrapped", "late")]
    assert names_of(module, V) == [*names, "penultimate"]


def test_only_the_features_where_nothing_else_fits():
    assert names_of(reading(lambda x: x.mean(0)), V) == ["penultimate"]
    assert names_of(reading(lambda x: x, lambda x: x[:]), V) == ["penultimate"]
    assert names_of(nn.Linear(3, 2), V, source_head=None) == ["output"]
    assert names_of(nn.Tanh(), V, source_head=None) == ["output"]
    one_row = Lambda(lambda x: x.mean(0))
    with pytest.raises(ValueError, match=r"'output' of shape \(3,\) was pooled"):
        names_of(one_row, V, source_head=None)


def test_a_layer_that_stops_to_fit():
    module = reading(table=lambda x: torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"table.* of shape \(4, 3\).*have.*\(3, "):
        names_of(module, V)  # the last batch has three samples


def test_last_run_decides_value_and_order():
    module = Sequence(
        lambda net, x: net.twin(net.other(net.twin(net.stem(x)).exp()) + 1).exp(),
        stem=nn.Linear(3, 3),
        twin=nn.Linear(3, 3),
        other=nn.Linear(3, 3),
    )
    layers = TorchFeatureExtractor(
        module, layer="all", source_head="head"
    ).transform_layers(V)
    assert list(layers) == ["input(other)", "input(twin)", "penultimate"]
    expected = by_hand(module, V, ["other", "twin"])
    np.testing.assert_allclose(layers["input(twin)"], expected["twin"], rtol=1e-5)
    # What runs once more after the features were taken is not one of their layers.
    after = Sequence(lambda net, x: net.other(net.twin(net.stem(x))) + 1)
    after.stem, after.other = nn.Linear(3, 3), nn.Linear(3, 3)
    after.twin = nn.Linear(3, 3)
    after.head = nn.Sequential(nn.Linear(3, 3), after.twin)
    assert names_of(after, V) == ["input(other)", "penultimate"]


def test_exact_copies_are_left_out():
    def run(net, x):
        x = net.stem(x)
        shortcut = net.shortcut(x)
        x = net.same(net.conv(net.drop(x)) + shortcut)
        net.late(x)
        return x

    parts = {name: nn.Linear(3, 3) for name in ("stem", "shortcut", "conv", "late")}
    module = Sequence(run, **parts, drop=nn.Dropout(), same=nn.Identity())
    assert names_of(module, V) == ["input(shortcut)", "penultimate"]


def test_what_is_changed_in_place_is_no_copy():
    module = Sequence(
        lambda net, x: net.two(net.act(net.one(net.stem(x)).mul_(2))),
        **{name: nn.Linear(3, 3) for name in ("stem", "one", "two")},
        act=nn.ReLU(inplace=True),
    )
    layers = TorchFeatureExtractor(
        module, layer="all", source_head="head"
    ).transform_layers(V)
    assert list(layers) == ["input(one)", "input(two)", "penultimate"]
    for name, expected in by_hand(module, V, ["one", "two"]).items():
        np.testing.assert_allclose(layers[f"input({name})"], expected, rtol=1e-5)


def test_computed_weights_are_weights():
    norm = nn.utils.parametrizations.weight_norm
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), norm(nn.Linear(3, 3)))
    assert names_of(module, V, source_head=None) == ["input(2)", "output"]
    gates = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.PReLU(3))
    assert names_of(gates, V, source_head=None) == ["output"]


def test_all_stands_alone(net, X):
    with pytest.raises(ValueError, match="'all' stands for all layers, in a list too"):
        TorchFeatureExtractor(net, layer=["all", "mean"]).transform(X)
    extractor = TorchFeatureExtractor(net, layer=["all"], source_head="fc")
    assert list(extractor.transform_layers(X)) == NAMES
    named = nn.Sequential()
    named.add_module("all", nn.Linear(3, 4))
    named.add_module("last", nn.Linear(4, 2))
    assert TorchFeatureExtractor(named, layer="all").transform(V).shape == (11, 4)


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
    module = reading(bad=lambda x: torch.where(x > 1, torch.nan, x), good=torch.tanh)
    extractor = TorchFeatureExtractor(module, layer="all", source_head="head")
    layers = extractor.transform_layers(V)
    assert np.isnan(layers["input(bad)"]).any()
    assert np.isfinite(layers["input(good)"]).all()
    n_bad = (V > 1).any(axis=1).sum()
    selector = ModelSelector([("net", extractor)], error_score="raise")
    message = rf"layer 'input\(bad\)' gave NaN .* {n_bad} of 11 rows"
    with pytest.raises(ValueError, match=message):
        selector.fit(V, target)
    other = ("other", extractor.select_layer("input(good)"))
    with pytest.warns(CandidateFailedWarning, match=r"layer 'input\(bad\)' gave NaN"):
        selector = ModelSelector([("net", extractor), other]).fit(V, target)
    assert selector.best_name_.startswith("other")


def test_constant_layer(target):
    module = reading(flat=torch.zeros_like, good=torch.tanh)
    extractor = TorchFeatureExtractor(module, layer="all", source_head="head")
    selector = ModelSelector([("net", extractor)]).fit(V, target)
    names = ["input(flat)", "input(good)", "penultimate"]
    assert selector.results_["layer"].tolist() == names
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
