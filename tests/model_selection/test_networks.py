"""The network that was scored is the one that predicts, and few are held at once."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pytest
from joblib import Memory, parallel_config
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer.metrics import get_scorer
from sktransfer.model_selection import BaseModelSelector, ModelSelector
from sktransfer.model_selection._candidate import EvaluationSpec, evaluate_candidate

torch = pytest.importorskip("torch")

from sktransfer.feature_extraction import TorchFeatureExtractor  # noqa: E402

OTHER_WEIGHTS = "scored with other weights than those loaded now"


class Net(torch.nn.Module):
    """Two layers of random features."""

    def __init__(self):
        super().__init__()
        self.block1 = torch.nn.Linear(13, 6)
        self.block2 = torch.nn.Linear(6, 6)

    def forward(self, x):
        return self.block2(self.block1(x).relu()).relu()


class Projection(torch.nn.Module):
    """Random features that are buffers, and stay out of the state dict."""

    def __init__(self):
        super().__init__()
        self.register_buffer("directions", torch.randn(13, 6), persistent=False)

    def forward(self, x):
        return x @ self.directions


class Lazy(torch.nn.Module):
    """Draws its weights at the first pass."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.LazyLinear(6)

    def forward(self, x):
        return self.head(x)


def seeded(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def unseeded(kind=Net, **params):
    return TorchFeatureExtractor(kind, device="cpu", **params)


def noise(X, seed):
    return np.random.default_rng(seed).normal(size=(len(X), 300))


def check_consistent(selector, X, y):
    """The features that predict have the evidence that was reported."""
    assert selector.score(X, y) == pytest.approx(selector.best_score_, abs=1e-5)


@pytest.fixture
def data(wine):
    X, y = wine
    return X.astype(np.float32), y


wraps = pytest.mark.parametrize(
    "wrap",
    [
        lambda e: e,
        lambda e: make_pipeline(StandardScaler(), e),
        lambda e: make_pipeline(e, StandardScaler()),
        lambda e: FeatureUnion([("net", e), ("raw", FunctionTransformer())]),
        lambda e: ColumnTransformer([("net", e, list(range(13)))]),
        FrozenEstimator,
    ],
    ids=["alone", "last", "first", "union", "columns", "frozen"],
)


@wraps
@pytest.mark.parametrize("layer", [None, ["block1", "block2"]])
@pytest.mark.parametrize("backend", ["sequential", "threading"])
def test_best_predicts_with_the_network_that_was_scored(wrap, layer, backend, data):
    X, y = data
    candidates = [(name, wrap(unseeded(layer=layer))) for name in "abc"]
    with parallel_config(backend=backend, n_jobs=2):
        selector = ModelSelector(candidates).fit(X, y)
    check_consistent(selector, X, y)
    copy = pickle.loads(pickle.dumps(selector))
    with pytest.raises(ValueError, match=OTHER_WEIGHTS):
        copy.predict(X)


@wraps
def test_network_made_in_a_worker_is_not_taken_for_another(wrap, data):
    X, y = data
    candidates = [("net", wrap(unseeded(layer=["block1", "block2"])))]
    with parallel_config(backend="loky", n_jobs=2):
        selector = ModelSelector(candidates).fit(X, y)
    with pytest.raises(ValueError, match=OTHER_WEIGHTS):
        selector.predict(X)


def test_network_that_was_scored_in_an_earlier_run(data, tmp_path):
    X, y = data
    candidates = [("net", unseeded(layer=["block1", "block2"]))]
    first = ModelSelector(candidates, memory=str(tmp_path)).fit(X, y)
    check_consistent(first, X, y)
    second = ModelSelector(candidates, memory=str(tmp_path)).fit(X, y)
    assert second.best_score_ == first.best_score_  # from the cache
    with pytest.raises(ValueError, match=OTHER_WEIGHTS):
        second.predict(X)
    # Seeded, the network is the same every time.
    seeds = [("net", TorchFeatureExtractor(seeded, device="cpu"))]
    for _ in range(2):
        selector = ModelSelector(seeds, memory=str(tmp_path)).fit(X, y)
        check_consistent(selector, X, y)


class Half(BaseModelSelector):
    """Everything on half of the samples, then on all."""

    def _run_selection(self, evaluate):
        evaluate(samples=range(0, evaluate.n_samples, 2))
        evaluate()


@pytest.mark.parametrize("make", [Net, seeded])
def test_features_of_different_networks_are_not_mixed(make, data, tmp_path):
    X, y = data
    passes = []

    def note(module, args):
        if isinstance(module, Net):
            passes.append(len(args[0]))

    extractor = TorchFeatureExtractor(make, batch_size=200, device="cpu")
    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        selector = Half([("net", extractor)], memory=str(tmp_path)).fit(X, y)
    finally:
        hook.remove()
    # Drawn anew, the network is another in the second round: nothing kept is of use.
    assert passes == ([89, 89] if make is seeded else [89, 89, 178])
    check_consistent(selector, X, y)


@pytest.mark.parametrize("kind", [Net, Projection, Lazy])
def test_other_weights_are_told_wherever_they_are(kind, data):
    X, y = data
    selector = ModelSelector([("net", unseeded(kind))]).fit(X, y)
    check_consistent(selector, X, y)
    with pytest.raises(ValueError, match=OTHER_WEIGHTS):
        pickle.loads(pickle.dumps(selector)).transform(X)


@pytest.mark.parametrize("layer", [None, ["block1", "block2"]])
@pytest.mark.parametrize("backend", ["sequential", "threading", "loky"])
def test_networks_that_can_be_made_again_serve_everywhere(backend, layer, data):
    X, y = data
    params = {"layer": layer, "device": "cpu"}
    candidates = [
        ("factory", TorchFeatureExtractor(seeded, **params)),
        ("module", TorchFeatureExtractor(seeded(1), **params)),
        ("local", TorchFeatureExtractor(lambda: seeded(2), **params)),
    ]
    with parallel_config(backend=backend, n_jobs=2):
        selector = ModelSelector(candidates, scoring="logme").fit(X, y)
    copy = pickle.loads(pickle.dumps(ModelSelector(candidates[:2]).fit(X, y)))
    for fitted in (selector, copy):
        check_consistent(fitted, X, y)
        scores = -np.sort(-fitted.results_["logme"])
        teachers = fitted.teachers(6)
        assert len(teachers) == len(scores)
        for (extractor, head), score in zip(teachers, scores, strict=True):
            assert head.score(extractor.transform(X), y) == pytest.approx(
                score, abs=1e-5
            )


def test_runner_up_says_that_its_network_is_gone(data):
    X, y = data
    selector = ModelSelector([(name, unseeded()) for name in "ab"]).fit(X, y)
    (best, _), (second, _) = selector.teachers(2)
    best.transform(X)
    with pytest.raises(ValueError, match=OTHER_WEIGHTS):
        second.transform(X)
    # Its user may have it make another, or be as fast as they like.
    assert second.set_params(batch_size=3).layer is None
    with pytest.raises(ValueError, match=OTHER_WEIGHTS):
        second.transform(X)
    second.set_params(network=seeded).transform(X)


@pytest.mark.filterwarnings("ignore:.*Unable to cache")
@pytest.mark.parametrize("layer", [None, ["block1", "block2"]])
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_networks_are_let_go_of(n_jobs, memory, layer, data, tmp_path):
    """Two at most in each thread: the best so far, and the one at work."""
    X, y = data
    alive, most = [], []

    def make(seed):
        gc.collect()
        most.append(sum(net() is not None for net in alive))
        net = seeded(seed)
        alive.append(weakref.ref(net))
        return net

    candidates = [
        (str(i), TorchFeatureExtractor(lambda i=i: make(i), layer=layer, device="cpu"))
        for i in range(8)
    ]
    memory = str(tmp_path) if memory else None
    with parallel_config(backend="threading", n_jobs=n_jobs):
        selector = ModelSelector(candidates, memory=memory).fit(X, y)
    gc.collect()
    assert sum(net() is not None for net in alive) == 1
    assert max(most) <= (1 if n_jobs is None else 6)
    selector.predict(X)
    assert len(alive) == 8


def test_results_are_light_when_they_come_back(data):
    """Results no better than the best so far leave a worker without a Gram matrix."""
    X, y = data
    metrics = get_scorer("logme").metrics
    spec = EvaluationSpec(
        metrics, "classification", True, True, None, np.nan, "logme", Memory(None)
    )
    wide = FunctionTransformer(noise, kw_args={"seed": 0})
    sizes = {}
    for best_score in (None, -10.0, 10.0):
        (result,) = evaluate_candidate("wide", wide, X, y, None, spec, None, best_score)
        sizes[best_score] = len(pickle.dumps(result))
    gram = 300 * 300 * 4
    assert sizes[None] == sizes[-10.0] > gram > sizes[10.0]
    # Of several layers one can be the best at most.
    net = TorchFeatureExtractor(seeded, layer=["block1", "block2"], device="cpu")
    rows = evaluate_candidate("net", net, X, y, None, spec)
    full = [row.logme.statistics_ is not None for row in rows]
    assert full == [row.head is not None for row in rows]
    assert full == [row is max(rows, key=lambda r: r.value("logme")) for row in rows]


class Nested(Net):
    """Holds a tensor of which there is no digest."""

    def __init__(self):
        super().__init__()
        rows = [torch.ones(3), torch.ones(2)]
        self.register_buffer("rows", torch.nested.nested_tensor(rows))


@pytest.mark.filterwarnings("ignore:.*nested tensors")
@pytest.mark.parametrize("kind", [Nested, Lazy])
def test_weights_without_a_digest_cost_no_candidate(kind, data, tmp_path):
    X, y = data
    # A lambda counts by the weights that it makes.
    candidates = [("net", unseeded(lambda: kind()))]
    with pytest.warns(UserWarning, match="not kept in memory. Cannot make a finger"):
        selector = ModelSelector(candidates, memory=str(tmp_path)).fit(X, y)
    check_consistent(selector, X, y)


class Counting(Net):
    """Notes how often it was used."""

    uses = 0

    def forward(self, x):
        self.uses += 1
        return super().forward(x)


@pytest.mark.filterwarnings("ignore:.*cannot be read back")
def test_a_network_in_a_union_that_use_leaves_a_trace_in(data, tmp_path):
    X, y = data
    parts = [("net", unseeded(Counting())), ("same", FunctionTransformer())]
    union = FeatureUnion(parts)
    scores = [
        ModelSelector([("union", union)], memory=str(tmp_path)).fit(X, y).best_score_
        for _ in range(2)
    ]
    assert scores[0] == scores[1]
