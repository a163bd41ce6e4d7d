"""All layers beside the features, from the same pass."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from sktransfer.datasets import load_dataset, load_zoo  # noqa: E402
from sktransfer.feature_extraction import (  # noqa: E402
    BaseExtractor,
    BaseNetworkExtractor,
    Extraction,
    TorchFeatureExtractor,
)
from sktransfer.feature_extraction._extract import (  # noqa: E402
    all_layers_problem,
    extract,
    layers_under,
)

READ = "input(conv2)"


class Net(nn.Module):
    """Convolutions with normalisation; it counts its passes."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv1 = nn.Conv2d(3, 4, 3)
            self.bn1 = nn.BatchNorm2d(4)
            self.act = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(4, 6, 3)
            self.bn2 = nn.BatchNorm2d(6)
            self.fc = nn.Linear(6, 5)
            for bn in (self.bn1, self.bn2):
                nn.init.normal_(bn.running_mean)
                nn.init.uniform_(bn.running_var, 0.5, 2)
        self.n_passes = 0

    def forward(self, x):
        self.n_passes += 1
        x = self.act(self.bn1(self.conv1(x)))
        x = torch.tanh(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def net():
    return Net()


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(11, 3, 8, 8)).astype(np.float32)


ASKED = [
    {},
    {"layer": "conv1", "pooling": "max"},
    {"layer": ["conv1", "bn1", "conv2"]},
    {"layer": ["bn*"], "pooling": ("grid", 2)},
    {"layer": "all", "pooling": ("grid", 3)},
    {"layer": "conv2", "pooling": "flatten"},
    {"layer": "mean(conv2, bn2)"},
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("source_proba", [False, True])
def test_features_stay_as_they_are(net, X, asked, source_proba):
    extractor = TorchFeatureExtractor(net, source_head="fc", batch_size=4, **asked)
    expected = extractor.extract(X, source_proba=source_proba)
    assert expected.layers is None
    net.n_passes = 0
    found = extractor.extract(X, source_proba=source_proba, all_layers=True)
    assert net.n_passes == 3
    assert list(found.features) == list(expected.features)
    for name, features in expected.features.items():
        np.testing.assert_array_equal(found.features[name], features)
    if source_proba:
        np.testing.assert_array_equal(found.source_proba, expected.source_proba)
    whole = TorchFeatureExtractor(
        net, source_head="fc", batch_size=4, layer="all", pooling=("grid", 2)
    ).transform_layers(X)
    assert list(found.layers) == list(whole)
    for name, layer in whole.items():
        np.testing.assert_array_equal(found.layers[name], layer)
        assert found.layers[name].dtype == np.float32


def test_stream_and_pickle(net, X):
    extractor = TorchFeatureExtractor(net, source_head="fc", batch_size=4)
    whole = extractor.extract(X, all_layers=True)
    for rows, batch in extractor.iter_extract(X, all_layers=True):
        assert list(batch.layers) == list(whole.layers)
        assert all(isinstance(layer, torch.Tensor) for layer in batch.layers.values())
        np.testing.assert_array_equal(batch.layers[READ], whole.layers[READ][rows])
    assert tuple(whole) == (whole.features, None)  # as ever
    again = pickle.loads(pickle.dumps(whole))
    np.testing.assert_array_equal(again.layers[READ], whole.layers[READ])
    np.testing.assert_array_equal(again.joined, whole.joined)
    assert list(whole.layers) == [READ, "penultimate"] == list(layers_under(whole))


def test_zoo():
    images = load_dataset().data[:20]
    for _, extractor in load_zoo(device="cpu")[::5]:
        found = extractor.extract(images, all_layers=True)
        np.testing.assert_array_equal(found.joined, extractor.transform(images))
        *_, last = found.layers
        assert len(found.layers) > 5
        np.testing.assert_array_equal(found.layers[last], found.joined)


class TestSteps:
    def test_pipeline(self, net, X):
        extractor = TorchFeatureExtractor(net, source_head="fc")
        layers = extractor.extract(X, all_layers=True).layers
        flip = FunctionTransformer(lambda X: X[:, :, ::-1].copy())
        for pipeline in (
            make_pipeline(extractor, StandardScaler()).fit(X),
            make_pipeline(extractor, "passthrough", StandardScaler()).fit(X),
            FrozenEstimator(make_pipeline(extractor, StandardScaler()).fit(X)),
        ):
            found = extract(pipeline, X, all_layers=True)
            assert list(found.layers) == list(layers)
            under = layers_under(found)
            assert list(under) == [*layers, "the features"]
            scaled = StandardScaler().fit_transform(extractor.transform(X))
            np.testing.assert_array_equal(under["the features"], scaled)
        flipped = extract(make_pipeline(flip, extractor), X, all_layers=True).layers
        expected = extractor.extract(X[:, :, ::-1].copy(), all_layers=True).layers
        np.testing.assert_array_equal(flipped[READ], expected[READ])

    def test_the_features_replace_their_layer(self, net, X):
        extractor = TorchFeatureExtractor(net, layer=[READ, "conv2"])
        found = extractor.extract(X, all_layers=True)
        *others, last = layers_under(found, READ)
        assert last == READ
        assert set(others) == set(found.layers) - {READ}
        under = layers_under(found, READ)
        np.testing.assert_array_equal(under[READ], found.features[READ])
        *others, last = layers_under(found)
        assert others == list(found.layers)
        np.testing.assert_array_equal(layers_under(found)[last], found.joined)

    def test_without_network(self, X):
        scaler = StandardScaler().fit(X[:, 0, 0])
        assert "no extractor that shows" in all_layers_problem(scaler)
        with pytest.raises(ValueError, match="StandardScaler shows no layers: it has"):
            extract(scaler, X[:, 0, 0], all_layers=True)
        found = extract(scaler, X[:, 0, 0])
        assert list(layers_under(found)) == ["the features"]


class Old(BaseExtractor):
    def extract(self, X, *, source_proba=False):
        return Extraction({"mean": X.mean((2, 3))})


class OldStream(BaseExtractor):
    def iter_extract(self, X, *, source_proba=False):
        yield slice(None), Extraction({"mean": X.mean((2, 3))})


class OldNetwork(TorchFeatureExtractor):
    def iter_extract(self, X, *, source_proba=False):
        yield from super().iter_extract(X, source_proba=source_proba)


class OldHook(TorchFeatureExtractor):
    def find_layers(self, module, *, source_proba=False):
        return super().find_layers(module, source_proba=source_proba)


class OldExtract(TorchFeatureExtractor):
    def extract(self, X, *, source_proba=False):
        return super().extract(X, source_proba=source_proba)


class TestOlderExtractors:
    """The argument is asked of those alone that have it."""

    @pytest.mark.parametrize("kind", [Old, OldStream])
    def test_without_layers(self, kind, X):
        features, _ = kind().extract(X)
        assert list(features) == ["mean"]
        assert "lacks the argument 'all_layers'" in all_layers_problem(kind())
        with pytest.raises(ValueError, match="shows no layers"):
            extract(kind(), X, all_layers=True)
        assert extract(kind(), X).layers is None

    @pytest.mark.parametrize("kind", [OldNetwork, OldHook, OldExtract])
    def test_networks(self, kind, net, X):
        extractor = kind(net, source_head="fc")
        assert "lacks the argument 'all_layers'" in all_layers_problem(extractor)
        with pytest.raises(ValueError, match="lacks the argument"):
            extract(extractor, X, all_layers=True)
        assert extract(extractor, X, source_proba=True).source_proba.shape == (11, 5)
        # A pipeline asks the other of its two extractors.
        flat = make_pipeline(extractor, FunctionTransformer(lambda Z: Z[:, :, None]))
        assert all_layers_problem(make_pipeline(flat, Both())) is None

    def test_arguments_by_any_name(self, net, X):
        class Wrapped(TorchFeatureExtractor):
            def iter_extract(self, X, **wanted):
                yield from super().iter_extract(X, **wanted)

        found = Wrapped(net, source_head="fc").extract(X, all_layers=True)
        assert list(found.layers) == [READ, "penultimate"]


class Both(BaseExtractor):
    """Layers without a network."""

    def extract(self, X, *, source_proba=False, all_layers=False):
        first = np.asarray(X, dtype=np.float32).reshape(len(X), -1)
        layers = {"first": first, "second": np.tanh(first)} if all_layers else None
        return Extraction({"second": np.tanh(first)}, None, layers)

    def check_all_layers(self):
        return


def test_an_extractor_without_network(X):
    found = extract(Both(), X, all_layers=True)
    assert list(found.layers) == ["first", "second"]
    ((_, batch),) = Both().iter_extract(X, all_layers=True)
    assert list(batch.layers) == ["first", "second"]


class TestWhatDoesNotFit:
    def test_three_axes(self, X):
        class Maps(Both):
            def extract(self, X, *, source_proba=False, all_layers=False):
                features = X.mean((2, 3))
                layers = {"conv": X[:, :, 0], "mean": features}
                return Extraction({"mean": features}, None, layers)

        with pytest.raises(ValueError, match=r"two axes.* \(11, 3, 8\) .*layer 'conv'"):
            extract(Maps(), X, all_layers=True)

    def test_outputs_of_another_batch_size_are_left_out(self, X):
        class Windows(nn.Module):
            def forward(self, x):
                return x.reshape(2 * len(x), -1)

        class Whole(nn.Module):
            def forward(self, x):
                return x.reshape(len(x) // 2, -1)

        class Tokens(nn.Linear):
            def forward(self, x):
                return super().forward(x.reshape(len(x), 36))

        parts = Tokens(36, 72), Whole(), nn.Linear(72 * 2, 3)
        net = nn.Sequential(nn.Conv2d(3, 2, 3), Windows(), *parts)
        found = TorchFeatureExtractor(net, batch_size=4).extract(X, all_layers=True)
        assert list(found.layers) == ["input(4)", "output"]

    def test_features_that_are_no_layer(self, X):
        """As those of the nodes of graphs, which the pooling knows."""

        class Nodes(nn.Module):
            def forward(self, x):
                return x.reshape(2 * len(x), -1)

        net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Tanh(), nn.Conv2d(2, 2, 3), Nodes())
        extractor = TorchFeatureExtractor(
            net, pooling=lambda nodes: nodes.reshape(len(nodes) // 2, -1), batch_size=4
        )
        found = extractor.extract(X, all_layers=True)
        assert list(found.layers) == ["input(2)"]
        assert found.joined.shape == (11, 72)

    def test_one_layer(self, X):
        found = TorchFeatureExtractor(nn.Flatten).extract(X, all_layers=True)
        assert list(found.layers) == ["output"]
        assert list(layers_under(found)) == ["output"]

    def test_batches_with_other_layers(self):
        class Odd(BaseExtractor):
            def iter_extract(self, X, *, source_proba=False, all_layers=False):
                for i in range(len(X)):
                    layers = {f"layer {i}": X[i : i + 1]}
                    yield slice(i, i + 1), Extraction({"x": X[i : i + 1]}, None, layers)

            def check_all_layers(self):
                return

        with pytest.raises(ValueError, match="Got layer 'x', layer 'layer 0' at first"):
            extract(Odd(), np.ones((3, 2)), all_layers=True)


def test_user_networks_may_pool_layers_in_their_own_way(X):
    class Strips(BaseNetworkExtractor):
        def __init__(self, network=2):
            self.network = network

        def make_module(self):
            maps = nn.Conv2d(3, 2, 1), nn.Conv2d(2, self.network, 3), nn.Tanh()
            return nn.Sequential(*maps)

        def pool_layer(self, tensor, inputs):
            return tensor.mean(3).flatten(1)

    found = Strips().extract(X, all_layers=True)
    assert {name: a.shape for name, a in found.layers.items()} == {
        "input(1)": (11, 16),
        "output": (11, 12),
    }
    assert found.joined.shape == (11, 2)
