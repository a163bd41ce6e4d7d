"""Graphs, sequences, dicts: what `collate_fn` makes of samples gets to the module."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_sequence, pad_sequence  # noqa: E402
from torch.utils.data import Dataset, default_collate  # noqa: E402

from sktransfer.feature_extraction import TorchFeatureExtractor  # noqa: E402
from sktransfer.linear_model import LogME, LogMEClassifier  # noqa: E402
from sktransfer.metrics import logme_score  # noqa: E402
from sktransfer.model_selection import ModelSelector  # noqa: E402

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


class Graph(NamedTuple):
    """Features of the nodes, and edges as pairs of nodes."""

    nodes: np.ndarray
    edges: np.ndarray


@dataclass
class GraphBatch:
    """Graphs side by side, as graph libraries have it."""

    nodes: torch.Tensor
    edges: torch.Tensor
    graph: torch.Tensor
    n_graphs: int

    def to(self, device):
        moved = {k: getattr(self, k).to(device) for k in ("nodes", "edges", "graph")}
        return replace(self, **moved)


def collate_graphs(graphs):
    sizes = [len(graph.nodes) for graph in graphs]
    starts = np.cumsum([0, *sizes[:-1]])
    edges = [graph.edges + start for graph, start in zip(graphs, starts, strict=True)]
    return GraphBatch(
        nodes=torch.from_numpy(np.concatenate([graph.nodes for graph in graphs])),
        edges=torch.from_numpy(np.concatenate(edges)),
        graph=torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes)),
        n_graphs=len(graphs),
    )


def mean_over_graphs(nodes, batch):
    sums = nodes.new_zeros(batch.n_graphs, nodes.shape[1])
    return sums.index_add(0, batch.graph, nodes) / torch.bincount(batch.graph)[:, None]


class MessagePassing(nn.Module):
    """Two rounds of messages along the edges, a mean over nodes, a head."""

    def __init__(self, seed=0, messages=True):
        super().__init__()
        self.messages = messages
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Linear(4, 8)
            self.second = nn.Linear(16, 8)
            self.head = nn.Linear(8, 3)

    def gather(self, h, edges):
        sums = torch.zeros_like(h)
        return sums.index_add(0, edges[:, 1], h[edges[:, 0]]) if self.messages else sums

    def forward(self, batch):
        h = torch.cat([batch.nodes, self.gather(batch.nodes, batch.edges)], dim=1)
        h = self.first(h).tanh()
        h = self.second(torch.cat([h, self.gather(h, batch.edges)], dim=1))
        return self.head(mean_over_graphs(h, batch))


def dense_features(net, graph):
    """The same of one graph, by NumPy and an adjacency matrix."""
    A = np.zeros((len(graph.nodes),) * 2)
    np.add.at(A, (graph.edges[:, 1], graph.edges[:, 0]), 1)
    h = graph.nodes
    for layer in (net.first, net.second):
        weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
        h = np.hstack([h, A @ h]) @ weight.T + bias
        h = np.tanh(h) if layer is net.first else h
    return h.mean(axis=0)


@pytest.fixture
def graphs():
    """Rings and stars of 4 to 9 nodes: only the edges tell them apart."""
    rng = np.random.default_rng(0)
    graphs = []
    for i in range(60):
        n = int(rng.integers(4, 10))
        start = np.arange(n)
        end = (start + 1) % n if i % 2 else np.zeros(n, dtype=int)
        nodes = rng.normal(1, 0.3, size=(n, 2)).astype(np.float32)
        graphs.append(Graph(nodes, np.stack([start, end], axis=1)))
    return graphs


@pytest.fixture
def extractor():
    return TorchFeatureExtractor(
        MessagePassing, collate_fn=collate_graphs, source_head="head"
    )


class TestGraphs:
    def test_features_are_those_of_each_graph_alone(self, extractor, graphs):
        net = MessagePassing()
        expected = np.stack([dense_features(net, graph) for graph in graphs])
        for batch_size in (1, 7, 64):
            extractor.set_params(batch_size=batch_size)
            features, proba = extractor.extract(graphs, source_proba=True)
            close(features["penultimate"], expected)
            assert proba.shape == (60, 3)
        close(extractor.transform(graphs[::-1])[::-1], expected)

    def test_nodes_are_pooled_by_graph(self, extractor, graphs):
        expected = extractor.transform(graphs)
        extractor.set_params(layer="second", pooling=mean_over_graphs)
        close(extractor.transform(graphs), expected)

    def test_nodes_that_are_not_pooled(self, extractor, graphs):
        n_nodes = sum(len(graph.nodes) for graph in graphs[:5])
        extractor.set_params(layer="second")
        with pytest.raises(ValueError, match=rf"\({n_nodes}, 8\).*have shape \(5, n_f"):
            extractor.transform(graphs[:5])
        extractor.set_params(layer="output", source_head="second")
        with pytest.raises(
            ValueError, match=rf"row of logits per.*{n_nodes} rows for 5"
        ):
            extractor.source_proba(graphs[:5])

    def test_classification(self, extractor, graphs):
        y = np.where(np.arange(60) % 2, "ring", "star")
        blind = clone(extractor).set_params(
            network=partial(MessagePassing, messages=False)
        )
        selector = ModelSelector(
            [("blind", blind), ("sees", extractor)],
            scoring=["logme", "transrate", "leep"],
        ).fit(graphs, y)
        features = extractor.transform(graphs)
        assert selector.ranking_ == ["sees", "blind"]
        assert selector.best_score_ == pytest.approx(logme_score(features, y), abs=1e-9)
        for name in ("transrate", "leep"):
            assert selector.results_[f"rank_{name}"].tolist() == [2, 1]
        assert (selector.predict(graphs) == y).mean() > 0.9

    def test_regression(self, extractor, graphs):
        y = np.array([np.square(np.bincount(g.edges[:, 1])).sum() for g in graphs])
        y = y / y.std()
        model = Pipeline([("extract", extractor), ("logme", LogME())])
        model.fit(graphs, y)
        logme = logme_score(extractor.transform(graphs), y)
        assert model.score(graphs, y) == pytest.approx(logme, abs=1e-9)
        selector = ModelSelector(
            [("net", extractor)], scoring="logme", fit_intercept=False
        ).fit(graphs, y)
        assert selector.best_score_ == pytest.approx(logme, abs=1e-9)
        assert np.corrcoef(selector.predict(graphs), y)[0, 1] > 0.7

    def test_grid_search(self, extractor, graphs):
        y = np.arange(60) % 2
        model = Pipeline([("extract", extractor), ("logme", LogMEClassifier())])
        modules = [partial(MessagePassing, messages=m) for m in (False, True)]
        search = GridSearchCV(model, {"extract__network": modules}, cv=3)
        search.fit(graphs, y)
        assert search.best_params_["extract__network"].keywords["messages"]

    def test_clone_and_pickle(self, extractor, graphs):
        expected = extractor.transform(graphs)
        for copy in (clone(extractor), pickle.loads(pickle.dumps(extractor))):
            assert copy.fingerprint() == extractor.fingerprint()
            np.testing.assert_array_equal(copy.transform(graphs), expected)
        other = clone(extractor).set_params(collate_fn=None)
        assert other.fingerprint() != extractor.fingerprint()


class Reader(nn.Module):
    """A GRU over sequences of vectors."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.lift = nn.Linear(3, 5)
            self.gru = nn.GRU(5, 4, batch_first=True)

    def forward(self, values, lengths):
        states, _ = self.gru(self.lift(values))
        return states[torch.arange(len(values)), lengths - 1]


def pad(samples):
    values = pad_sequence([torch.from_numpy(x) for x in samples], batch_first=True)
    return {"values": values, "lengths": torch.tensor([len(x) for x in samples])}


def mean_of_steps(tensor, batch):
    steps = torch.arange(tensor.shape[1]) < batch["lengths"][:, None]
    return (tensor * steps[:, :, None]).sum(1) / batch["lengths"][:, None]


class TestSequences:
    @pytest.fixture
    def sequences(self):
        rng = np.random.default_rng(0)
        lengths = rng.integers(1, 9, size=11)
        return [rng.normal(size=(n, 3)).astype(np.float64) for n in lengths]

    def test_padded(self, sequences):
        net = Reader().eval()
        with torch.inference_mode():
            alone = [torch.from_numpy(x).float()[None] for x in sequences]
            last = np.stack([net(x, torch.tensor([x.shape[1]]))[0] for x in alone])
            lifted = np.stack([net.lift(x)[0].mean(0) for x in alone])
        for batch_size in (1, 4, 11):
            make = partial(
                TorchFeatureExtractor, net, collate_fn=pad, batch_size=batch_size
            )
            close(make().transform(sequences), last)
            inner = make(layer="lift", pooling=mean_of_steps)
            close(inner.transform(sequences), lifted)

    def test_packed(self, sequences):
        class Packed(Reader):
            def forward(self, packed):
                lifted = packed._replace(data=self.lift(packed.data))
                return self.gru(lifted)[1][0]

        def pack(samples):
            tensors = [torch.from_numpy(x).float() for x in samples]
            return pack_sequence(tensors, enforce_sorted=False)

        padded = TorchFeatureExtractor(Reader, collate_fn=pad).transform(sequences)
        packed = TorchFeatureExtractor(Packed, collate_fn=pack)
        close(packed.transform(sequences), padded)


class TwoInputs(nn.Module):
    def forward(self, left, right):
        return 2 * left - right


class Whole(nn.Module):
    """Takes one argument that holds both."""

    def __init__(self, get):
        super().__init__()
        self.get = get

    def forward(self, batch):
        left, right = self.get(batch)
        return 2 * left - right


class Pair(NamedTuple):
    left: np.ndarray
    right: np.ndarray


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def by_name(batch):
    return batch["left"], batch["right"]


class TestStructures:
    left = np.arange(10.0).reshape(5, 2)
    right = np.arange(10.0)[::-1].reshape(5, 2).copy()
    expected = 2 * left - right
    dicts = [{"left": a, "right": b} for a, b in zip(left, right, strict=True)]
    tuples = list(zip(left, right, strict=True))

    @pytest.mark.parametrize("batch_size", [2, 5])
    @pytest.mark.parametrize(
        ("samples", "module", "collate_fn"),
        [
            (dicts, TwoInputs, None),
            (tuples, TwoInputs, default_collate),
            (tuples, TwoInputs, lambda s: tuple(default_collate(s))),
            # Each kind in one piece.
            (dicts, partial(Whole, by_name), lambda s: (default_collate(s),)),
            (tuples, partial(Whole, tuple), lambda s: (default_collate(s),)),
            ([Pair(*x) for x in tuples], partial(Whole, tuple), default_collate),
            # Of the pairs (x, y) of a dataset, y is no input.
            (Items([(x, "y") for x in dicts]), TwoInputs, None),
            (Items([(x, "y") for x in tuples]), TwoInputs, default_collate),
            (Items(dicts), TwoInputs, None),
        ],
    )
    def test_kinds(self, samples, module, collate_fn, batch_size):
        extractor = TorchFeatureExtractor(
            module, collate_fn=collate_fn, batch_size=batch_size
        )
        features = extractor.transform(samples)
        assert features.dtype == np.float32
        np.testing.assert_array_equal(features, self.expected)

    def test_batch_goes_to_the_device_and_type_of_the_weights_however_deep(self):
        seen = []

        class Spy(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

            def forward(self, **batch):
                seen.append(batch)
                return batch["parts"][0]["x"]

        class Movable:
            def to(self, device):
                return f"moved to {device.type}"

        def gather(samples):
            x = np.stack(samples)
            tensor = torch.from_numpy(x)
            return {
                "parts": ({"x": x[::-1]}, [tensor.int(), tensor.half()]),
                "names": np.array(["a", "b"]),
                "movable": Movable(),
                "n": len(samples),
                "nothing": None,
            }

        X = np.ones((2, 3), dtype=np.float32)
        TorchFeatureExtractor(Spy, collate_fn=gather, device="cpu").transform(X)
        (batch,) = seen
        (first, (integers, halves)) = batch["parts"]
        assert first["x"].dtype == halves.dtype == torch.float64
        assert integers.dtype == torch.int32
        assert batch["names"].tolist() == ["a", "b"]
        assert batch["movable"] == "moved to cpu"
        assert batch["n"] == 2 and batch["nothing"] is None

    def test_samples_are_left_alone(self):
        class InPlace(nn.Module):
            def forward(self, x):
                return x.zero_()

        for convert in (np.asarray, torch.tensor):
            X = [convert(np.ones((2, 3), dtype=np.float32))]
            extractor = TorchFeatureExtractor(InPlace, collate_fn=lambda s: s[0])
            with pytest.raises(ValueError, match="features must have shape"):
                extractor.transform(X)
            assert (X[0] == 1).all()
            extractor.set_params(collate_fn=None, pooling="flatten").transform(X)
            assert (X[0] == 1).all()

    def test_preprocess_goes_first(self):
        extractor = TorchFeatureExtractor(
            nn.Identity,
            preprocess=lambda word: torch.tensor([float(ord(c)) for c in word]),
            collate_fn=lambda s: pad_sequence(s, batch_first=True),
        )
        features = extractor.transform(["ab", "a"])
        np.testing.assert_array_equal(features, [[97, 98], [97, 0]])


class TestErrors:
    def test_collate_fn_that_fails(self):
        extractor = TorchFeatureExtractor(
            nn.Identity, collate_fn=torch.stack, batch_size=2
        )
        X = [torch.ones(2), torch.ones(2), torch.ones(2), torch.ones(3)]
        with pytest.raises(
            ValueError, match="`collate_fn` failed on samples 2 to 3: Runt"
        ):
            extractor.transform(X)

    @pytest.mark.parametrize(
        ("odd", "message"),
        [
            ({"x": np.ones(3)}, "or 'collate_fn' to batch them"),
            ({"z": np.ones(2)}, "must have the same keys"),
        ],
    )
    def test_mappings_that_do_not_fit_together(self, odd, message):
        with pytest.raises(ValueError, match=message):
            TorchFeatureExtractor(nn.Identity).transform([{"x": np.ones(2)}, odd])

    def test_objects_without_collate_fn(self):
        with pytest.raises(TypeError, match="or 'collate_fn'.* type GraphBatch"):
            batch = GraphBatch(*[torch.ones(1)] * 3, 1)
            TorchFeatureExtractor(nn.Identity).transform([batch, batch])

    def test_module_that_fails(self):
        X = [{"left": np.ones(2), "other": 3}] * 2
        with pytest.raises(
            ValueError,
            match=r"samples 0 to 1, 'left': an input of shape \(2, 2\) and type torch"
            r".float32, 'other': an input of shape \(2,\) and type torch.int64: .*"
            "unexpected keyword argument 'other'",
        ):
            TorchFeatureExtractor(TwoInputs).transform(X)

    def test_not_callable(self):
        with pytest.raises(ValueError, match="'collate_fn' parameter of TorchFeat"):
            TorchFeatureExtractor(nn.Identity, collate_fn="pad").transform([1])


@pytest.mark.parametrize(
    "pooling",
    [
        torch.relu,  # tells no signature
        nn.Flatten(),
        lambda x, start=1: x.flatten(start),
        partial(torch.flatten, start_dim=1),
        lambda x, batch: x + 0 * len(batch),
        partial(lambda how, x, batch: how(x) + 0 * len(batch), nn.Flatten()),
    ],
)
def test_pooling_gets_the_batch_if_it_takes_two_arguments(pooling):
    X = np.arange(4, dtype=np.float32).reshape(4, 1)
    features = TorchFeatureExtractor(nn.Identity, pooling=pooling).transform(X)
    np.testing.assert_array_equal(features, X)
