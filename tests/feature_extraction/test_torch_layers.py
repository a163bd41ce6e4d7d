"""Layers are found, tapped and pooled as a bare forward pass says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from sktransfer.feature_extraction import TorchFeatureExtractor  # noqa: E402
from sktransfer.feature_extraction._pooling import pool, softmax  # noqa: E402


class Net(nn.Module):
    """Blocks of equal width, one of them reused, a list, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True))
        self.block1 = nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8))
        self.block2 = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.stages = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.block2(self.block1(self.stem(x))).mean((2, 3))
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


def bare(net, x):
    """All the layers by hand."""
    net.eval()
    with torch.inference_mode():
        stem0 = net.stem[0](x)
        block1 = net.block1(stem0.relu())
        block2 = net.block2(block1)
        stage0 = net.stages[0](block2.mean((2, 3)))
        stage1 = net.stages[1](stage0)
        layers = {"stem.0": stem0, "block1": block1, "block2": block2}
        layers |= {"stages.0": stage0, "stages.1": stage1, "penultimate": stage1}
        layers["output"] = net.head(stage1)
    mean = {k: v.mean((2, 3)) if v.ndim == 4 else v for k, v in layers.items()}
    return {name: value.numpy() for name, value in mean.items()}


@pytest.fixture(scope="module")
def net():
    return Net()


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(7, 3, 9, 9)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(net, X):
    return bare(net, torch.from_numpy(X))


def check(layers, expected, names):
    assert list(layers) == names
    for name in names:
        assert layers[name].dtype == np.float32
        np.testing.assert_allclose(layers[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "source_head", "names"),
    [
        (None, None, ["output"]),
        (None, "head", ["penultimate"]),
        (None, "output", ["output"]),
        ("output", "head", ["output"]),
        ("stem.0", None, ["stem.0"]),  # as it was before the ReLU in place
        (["block2", "block1"], None, ["block2", "block1"]),
        ("block*", None, ["block1", "block2"]),
        ("block[!1]", None, ["block2"]),
        ("stages.*", None, ["stages.0", "stages.1"]),
        (
            ("block*", "block1", "penultimate"),
            "head",
            ["block1", "block2", "penultimate"],
        ),
    ],
)
def test_layers(net, X, expected, layer, source_head, names):
    extractor = TorchFeatureExtractor(
        net, layer=layer, source_head=source_head, batch_size=3
    )
    check(extractor.transform_layers(X), expected, names)
    np.testing.assert_allclose(
        extractor.transform(X), np.hstack([expected[n] for n in names]), atol=1e-5
    )


def test_mean_of_layers(net, X, expected):
    mean = (expected["block1"] + expected["block2"]) / 2
    extractor = TorchFeatureExtractor(net, layer=["mean", "block*"])
    check(
        extractor.transform_layers(X),
        {**expected, "mean": mean},
        ["mean", "block1", "block2"],
    )
    for alone in ("mean(block*)", "mean(block1, block2)"):
        extractor.set_params(layer=alone)
        check(extractor.transform_layers(X), {alone: mean}, [alone])


def test_select_layer(net, X):
    extractor = TorchFeatureExtractor(net, layer=["block*", "stages.1", "mean"])
    for name, features in extractor.transform_layers(X).items():
        selected = extractor.select_layer(name)
        assert selected.network is net
        np.testing.assert_allclose(selected.transform(X), features, rtol=1e-6)


def test_mean_needs_equal_widths(net, X):
    with pytest.raises(ValueError, match=r"same number of features.*'stem': 6.*: 8"):
        TorchFeatureExtractor(net, layer=["stem", "block1", "mean"]).transform(X)


@pytest.mark.parametrize("layer", ["mean", ["mean"]])
def test_mean_needs_other_layers(net, X, layer):
    with pytest.raises(ValueError, match="'mean' averages the other layers"):
        TorchFeatureExtractor(net, layer=layer).transform(X)


def test_unknown_layers(net, X):
    with pytest.raises(
        ValueError,
        match="'layer' parameter must name a submodule of Net. Got 'blok2'. "
        "Available: 'block2', .*'block1', .*'stem', .*'output'",
    ):
        TorchFeatureExtractor(net, layer="blok2").transform(X)
    with pytest.raises(ValueError, match="a submodule of Net. Got 'nothing[*]'"):
        TorchFeatureExtractor(net, layer=["block1", "nothing*"]).transform(X)
    with pytest.raises(
        ValueError, match="'source_head' parameter must name a.*'heads'"
    ):
        TorchFeatureExtractor(net, source_head="heads").transform(X)
    with pytest.raises(ValueError, match="'penultimate' is the input of the source he"):
        TorchFeatureExtractor(net, layer="penultimate").transform(X)
    with pytest.raises(ValueError, match=r"The 'layer' parameter must be.*Got \[\]"):
        TorchFeatureExtractor(net, layer=[]).transform(X)


def test_layer_that_does_not_run(net, X):
    with pytest.raises(ValueError, match=r"did not run \['unused'\]"):
        TorchFeatureExtractor(net, layer="unused").transform(X)


def test_last_run_of_a_reused_submodule_counts():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.twin = nn.Sequential()

        def forward(self, x):
            return self.twin(self.twin(x) * 2 + 1)

    X = np.ones((2, 3), dtype=np.float32)
    features = TorchFeatureExtractor(Twice, layer="twin").transform(X)
    np.testing.assert_array_equal(features, np.full((2, 3), 3))


def test_submodule_of_a_special_name_goes_first():
    net = nn.Sequential()
    net.add_module("output", nn.Linear(3, 4))
    net.add_module("last", nn.Linear(4, 2))
    X = np.ones((2, 3), dtype=np.float32)
    assert TorchFeatureExtractor(net, layer="output").transform(X).shape == (2, 4)


@dataclass
class Output:
    nothing: None
    hidden: torch.Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x, x + 1),
        lambda x: [(None, x), x + 1],
        lambda x: {"hidden": x, "other": x + 1},
        lambda x: Output(None, x),
    ],
)
def test_first_tensor_of_an_output_counts(wrap):
    class Wrapping(nn.Module):
        def forward(self, x):
            return wrap(x)

    X = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(TorchFeatureExtractor(Wrapping).transform(X), X)


def test_output_without_a_tensor():
    class Silent(nn.Module):
        def forward(self, x):
            return {"loss": None}

    with pytest.raises(ValueError, match="The layer 'output' has no tensor"):
        TorchFeatureExtractor(Silent).transform(np.eye(3))


def test_head_called_with_keywords():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(input=x)

    X = np.eye(3, dtype=np.float32)
    extractor = TorchFeatureExtractor(Keyword, source_head="head")
    np.testing.assert_array_equal(extractor.transform(X), X)


SHAPES = [(4,), (4, 5), (4, 5, 3), (4, 3, 5, 6), (4, 3, 2, 5, 6)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("how", ["mean", "max", "flatten"])
def test_pooling(shape, how):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pooled = pool(torch.from_numpy(values), how)
    if how == "flatten" or len(shape) < 3:
        expected = values.reshape(4, -1)
    else:
        axes = 1 if len(shape) == 3 else tuple(range(2, len(shape)))
        expected = getattr(values, how)(axis=axes)
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["mean", "flatten", lambda x: x, lambda x: x[:, :2]])
def test_pooled_features_are_not_a_view(how):
    tensor = torch.ones(3, 4)
    pooled = pool(tensor, how)
    tensor.zero_()
    assert pooled.all()


def test_pooling_is_float32(X):
    tensor = torch.full((1, 1, 100, 100), 1.001, dtype=torch.bfloat16)
    pooled = pool(tensor, "mean")
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(tensor[0, 0, 0, 0].item())


def test_callable_pooling(net, X):
    extractor = TorchFeatureExtractor(
        net, layer="block2", pooling=lambda x: x[:, :, 0, 0].numpy()
    )
    with torch.inference_mode():
        whole = net.eval().block2(net.block1(net.stem(torch.from_numpy(X))))
    np.testing.assert_allclose(extractor.transform(X), whole[:, :, 0, 0], rtol=1e-5)
    extractor.set_params(pooling=lambda x: x.mean())
    with pytest.raises(ValueError, match=r"pooled to shape \(\), but features must"):
        extractor.transform(X)


def test_softmax():
    logits = 30 * torch.randn(50, 20_000)
    sums = softmax(logits).numpy().sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    np.testing.assert_array_equal(softmax(logits[..., None, None]), softmax(logits))
    with pytest.raises(ValueError, match=r"shape \(n_samples, n_source_classes\). Got"):
        softmax(torch.zeros(2, 3, 4, 4))
