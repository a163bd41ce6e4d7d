"""Extractors that a user writes by the contract alone, without any private name."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from joblib import Memory
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

torch = pytest.importorskip("torch")

from sktransfer.feature_extraction import (  # noqa: E402
    BaseExtractor,
    BaseNetworkExtractor,
    Extraction,
    check_samples,
    take_samples,
)
from sktransfer.linear_model import LogMEClassifier  # noqa: E402
from sktransfer.model_selection import ModelSelector  # noqa: E402


class Moments(BaseExtractor):
    """Mean powers of the pixels, one power per layer."""

    def __init__(self, layer=None, power=3):
        self.layer = layer
        self.power = power

    def extract(self, X, *, source_proba=False):
        layers = {f"m{k}": (X**k).mean(axis=(1, 2)) for k in range(1, self.power + 1)}
        wanted = layers if self.layer is None else [self.layer]
        proba = np.full((len(X), 2), 0.5) if source_proba else None
        return Extraction({k: layers[k].astype(np.float32) for k in wanted}, proba)

    def check_source_proba(self):
        return


class Streamed(BaseExtractor):
    """The same, file by file or image by image."""

    def __init__(self, layer=None, power=3, batch_size=16):
        self.layer = layer
        self.power = power
        self.batch_size = batch_size

    def check_source_proba(self):
        return

    def iter_extract(self, X, *, source_proba=False):
        X, n_samples = check_samples(X, self)
        whole = Moments(self.layer, self.power)
        for start in range(0, n_samples, self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, n_samples))
            images = np.stack(take_samples(X, rows))
            yield rows, whole.extract(images, source_proba=source_proba)


class Convolved(BaseNetworkExtractor):
    """A network by its seed, with images whose channels come last."""

    source_head = "2"

    def __init__(self, network=0, *, layer=("0", "1"), width=4, batch_size=16):
        self.network = network
        self.layer = layer
        self.width = width
        self.batch_size = batch_size

    def make_module(self):
        with torch.random.fork_rng():
            torch.manual_seed(self.network)
            layers = torch.nn.Conv2d(3, self.width, 3), torch.nn.AdaptiveMaxPool2d(1)
            return torch.nn.Sequential(*layers, torch.nn.Conv2d(self.width, 2, 1))

    def iter_batches(self, X, module, device):
        for rows, images in super().iter_batches(X, module, device):
            yield rows, images.permute(0, 3, 1, 2)

    def forward(self, module, inputs):
        return module(inputs / 2)


KINDS = [Moments, Streamed, Convolved]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    return rng.normal(size=(40, 6, 6, 3)).astype(np.float32) + y[:, None, None, None], y


def test_it_takes_less_than_30_lines_and_no_private_name(kind):
    source = inspect.getsource(kind)
    assert len(source.splitlines()) < 30
    assert not re.findall(r"\b_[a-z]\w*", source)


def test_features_and_source_probabilities(kind, data):
    X, _ = data
    features, proba = kind().extract(X, source_proba=True)
    assert len(features) == {Convolved: 2}.get(kind, 3)
    assert all(len(f) == 40 and f.dtype == np.float32 for f in features.values())
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(kind().source_proba(X), proba)
    for rows, batch in kind().iter_extract(X):
        np.testing.assert_allclose(
            batch.joined, np.hstack(list(features.values()))[rows]
        )
    last = list(features)[-1]
    np.testing.assert_array_equal(
        kind().select_layer(last).transform(X), features[last]
    )
    samples = X if kind is Moments else list(X)
    joined = np.hstack(list(features.values()))
    np.testing.assert_allclose(kind().transform(samples), joined)


def test_cloned_pickled_and_named(kind, data):
    X, _ = data
    extractor = kind(layer=None).set_params(layer="m2" if kind != Convolved else "1")
    expected = extractor.transform(X)
    for other in (clone(extractor), pickle.loads(pickle.dumps(extractor))):
        np.testing.assert_array_equal(other.transform(X), expected)
        assert other.fingerprint() == extractor.fingerprint()
    assert len(pickle.dumps(extractor)) < 2_000
    assert len(extractor.get_feature_names_out()) == expected.shape[1]
    other = {"width": 5} if kind == Convolved else {"power": 2}
    assert clone(extractor).set_params(**other).fingerprint() != extractor.fingerprint()


def test_another_parameter_makes_another_network(data):
    extractor = Convolved()
    assert extractor.transform(data[0]).shape == (40, 8)
    assert extractor.set_params(width=5).transform(data[0]).shape == (40, 10)
    assert extractor.load_module() is extractor.load_module()


def test_in_a_pipeline(kind, data):
    X, y = data
    model = make_pipeline(kind(), StandardScaler(), LogMEClassifier()).fit(X, y)
    assert (model.predict(X) == y).mean() > 0.8


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_in_a_selector_with_memory(kind, data, tmp_path, n_jobs):
    X, y = data
    memory = Memory(tmp_path, verbose=0)
    candidates = [("one", kind()), ("two", make_pipeline(kind()))]
    scoring = ["logme", "leep"]
    selector = ModelSelector(candidates, scoring=scoring, memory=memory, n_jobs=n_jobs)
    fits = [clone(selector).fit(X, y) for _ in range(2)]
    # A pipeline gives what its only step gives.
    assert len(list(tmp_path.rglob("output.pkl"))) == 1
    for selector in fits:
        assert not any(selector.results_["error"])
        assert selector.results_["logme"].tolist() == fits[0].results_["logme"].tolist()
        assert selector.predict(X).shape == (40,)
    plain = ModelSelector(candidates[:1], scoring=scoring).fit(X, y)
    assert plain.best_score_ == pytest.approx(fits[0].best_score_)
    restored = pickle.loads(pickle.dumps(plain))
    np.testing.assert_array_equal(restored.predict(X), plain.predict(X))


class FromFile(BaseNetworkExtractor):
    def __init__(self, network):
        self.network = network

    def make_module(self):
        return torch.load(self.network, weights_only=False)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_weights_counts_in_the_fingerprint(tmp_path, kind):
    file = tmp_path / "network.pt"
    extractor = FromFile(kind(file))
    found = []
    for width in (3, 4):
        torch.save(torch.nn.Conv2d(3, width, 1), file)
        found += [extractor.fingerprint(), clone(extractor).fingerprint()]
    assert found[0] == found[1] != found[2] == found[3]


def test_a_copy_with_another_module_takes_parameters_that_the_class_lacks(data):
    X = data[0].transpose(0, 3, 1, 2)
    given = FromFile("nowhere").with_module(
        torch.nn.Flatten(), batch_size=7, device="cpu", dtype=None
    )
    assert [len(b.joined) for _, b in given.iter_extract(X)] == [7] * 5 + [5]
    assert FromFile("nowhere").batch_size == 64
    with pytest.raises(ValueError, match="Invalid parameter 'size'"):
        given.with_module(torch.nn.Flatten(), size=7)


def test_no_mean_of_a_single_layer(data):
    extractor = Convolved(layer=None)
    with pytest.raises(ValueError, match="'mean' averages the other layers"):
        extractor.select_layer("mean").transform(data[0])


class Widths(BaseNetworkExtractor):
    def __init__(self, network):
        self.network = network

    def make_module(self):
        return torch.nn.Conv2d(3, int(self.network[0]), 1)


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_a_parameter_that_is_changed_or_replaced_makes_another_network(data, make):
    X = data[0].transpose(0, 3, 1, 2)
    extractor = Widths(make([4, 4]))
    assert extractor.transform(X).shape == (40, 4)
    assert extractor.load_module() is extractor.load_module()
    if make is list:
        extractor.network[0] = 5
        assert extractor.transform(X).shape == (40, 5)
    extractor.network = make([6, 4])
    assert extractor.transform(X).shape == (40, 6)
