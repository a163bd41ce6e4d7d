"""Each batch goes through a module once, whatever is asked for."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from sktransfer.exceptions import CandidateFailedWarning  # noqa: E402
from sktransfer.feature_extraction import TorchFeatureExtractor  # noqa: E402
from sktransfer.linear_model import LogMEClassifier  # noqa: E402
from sktransfer.metrics import get_metric, get_scorer  # noqa: E402
from sktransfer.model_selection import ModelSelector  # noqa: E402

LAYERS = [f"block{i}" for i in range(1, 7)]
METRICS = ["logme", "h_score", "transrate", "leep"]


class Net(nn.Module):
    """Six blocks and a head; notes the first feature of the samples of each pass."""

    def __init__(self, passes):
        super().__init__()
        self.passes = passes
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for name in LAYERS:
                self.add_module(name, nn.Linear(8, 8))
            self.head = nn.Linear(8, 5)

    def forward(self, x):
        self.passes.append(x[:, 0].tolist())
        for name in LAYERS:
            x = torch.tanh(getattr(self, name)(x)) + x
        return self.head(x)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 17)
    X = rng.normal(size=(51, 8)).astype(np.float32)
    X[:, 1:4] += np.eye(3, dtype=np.float32)[y]
    X[:, 0] = np.arange(51) / 51  # tells the samples apart
    return X, y


@pytest.fixture
def passes():
    return []


@pytest.fixture
def extractor(passes):
    return TorchFeatureExtractor(
        lambda: Net(passes), layer="block*", source_head="head", batch_size=8
    )


def check_once(passes, X, batch_size=8):
    batches = [X[i : i + batch_size, 0].tolist() for i in range(0, len(X), batch_size)]
    assert passes == batches
    passes.clear()


def scores_one_by_one(extractor, X, y):
    layers, P = extractor.extract(X, source_proba=True)
    scores = {}
    for metric in map(get_metric, METRICS):
        reads_features = metric.reads == "features"
        scores[metric.name] = [
            metric.score_func(features if reads_features else P, y)
            for features in layers.values()
        ]
    return scores


@pytest.mark.parametrize(
    "wrap",
    [
        lambda e: e,
        FrozenEstimator,
        make_pipeline,
        lambda e: FrozenEstimator(make_pipeline("passthrough", e)),
        lambda e: make_pipeline("passthrough", FrozenEstimator(e)),
    ],
)
def test_six_layers_and_four_metrics(wrap, extractor, passes, data):
    X, y = data
    selector = ModelSelector([("net", wrap(extractor))], scoring=METRICS).fit(X, y)
    check_once(passes, X)
    results = selector.results_
    assert results["layer"].tolist() == LAYERS
    assert not any(results["error"])
    for name, expected in scores_one_by_one(extractor, X, y).items():
        np.testing.assert_allclose(results[name], expected, rtol=1e-6)
    best = selector.best_name_.removeprefix("net/")
    np.testing.assert_array_equal(
        selector.transform(X), extractor.transform_layers(X)[best]
    )


def test_layers_and_source_probabilities(extractor, passes, data):
    X, _ = data
    layers, P = extractor.extract(X, source_proba=True)
    check_once(passes, X)
    assert list(layers) == LAYERS and P.shape == (51, 5)
    for call in ("transform", "transform_layers", "source_proba"):
        getattr(extractor, call)(X)
        check_once(passes, X)


@pytest.mark.parametrize("frozen", [False, True])
def test_scorer_of_four_metrics(frozen, extractor, passes, data):
    X, y = data
    extractor.set_params(layer="block2")
    model = Pipeline([("extract", extractor), ("logme", LogMEClassifier())]).fit(X, y)
    check_once(passes, X)
    scores = get_scorer(METRICS)(FrozenEstimator(model) if frozen else model, X, y)
    check_once(passes, X)
    for name, (expected,) in scores_one_by_one(extractor, X, y).items():
        assert scores[name] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("wrap", [lambda e: e, FrozenEstimator])
def test_without_a_source_head(wrap, extractor, passes, data):
    X, y = data
    headless = TorchFeatureExtractor(lambda: Net(passes), layer="block*", batch_size=8)
    candidates = [("headless", wrap(headless)), ("headed", extractor)]
    with pytest.warns(CandidateFailedWarning, match="at least in part"):
        selector = ModelSelector(candidates, scoring=METRICS).fit(X, y)
    results = selector.results_
    assert np.isnan(results["leep"]).tolist() == [True] * 6 + [False] * 6
    for name in METRICS[:3]:
        np.testing.assert_array_equal(results[name][:6], results[name][6:])
    assert all("need the 'source_head' parameter" in e for e in results["error"][:6])
    check_once(passes[:7], X)
    check_once(passes[7:], X)


@pytest.mark.parametrize("hook", ["preprocess", "collate_fn"])
@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, list])
def test_a_batch_is_gone_before_the_next_is_read(convert, hook, data):
    X, _ = data
    inputs, collated = [], []

    def alive(references):
        return any(reference() is not None for reference in references)

    class Spy(nn.Module):
        def forward(self, x):
            assert not alive(collated)
            inputs.append(weakref.ref(x))
            return x.sum(1, keepdim=True)

    def preprocess(sample):
        assert not alive(inputs)
        return sample

    def collate_fn(samples):
        assert not alive(inputs)
        batch = np.stack(samples)
        collated.append(weakref.ref(batch))
        return batch

    hooks = {"preprocess": preprocess, "collate_fn": collate_fn}
    extractor = TorchFeatureExtractor(
        Spy, batch_size=8, device="cpu", **{hook: hooks[hook]}
    )
    extractor.transform(convert(X))
    assert len(inputs) == 7
