"""ZooTuning: mixtures of weights, folding, and networks that do not fit together."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sktransfer.feature_extraction import TorchFeatureExtractor
from sktransfer.linear_model import LogMEClassifier
from sktransfer.tuning import FineTuneClassifier, ZooTuning
from sktransfer.tuning._mixed_layer import MixedLayer

FAST = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}


def network(seed, width=4, n_source=3):
    """A convolutional network with a head of its own, statistics included."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential()
        module.add_module("conv", nn.Conv2d(1, width, 3))
        module.add_module("norm", nn.BatchNorm2d(width))
        module.add_module("relu", nn.ReLU())
        module.add_module("flatten", nn.Flatten())
        module.add_module("linear", nn.Linear(width * 16, 5))
        module.add_module("scale", nn.LayerNorm(5))
        module.add_module("head", nn.Linear(5, n_source))
        nn.init.normal_(module.norm.weight, 1, 0.3)
        nn.init.normal_(module.norm.running_mean)
    return TorchFeatureExtractor(module, source_head="head", device="cpu")


def pairs(*extractors):
    return [(extractor, LogMEClassifier()) for extractor in extractors]


@pytest.fixture
def images(data):
    X, y = data
    return np.tile(X, (1, 6)).reshape(60, 1, 6, 6), y


@pytest.mark.parametrize("lite", [True, False])
def test_one_source_without_alignment_is_plain_fine_tuning(images, lite):
    X, y = images
    own = network(0)
    zoo = ZooTuning(own, pairs(own), align=False, lite=lite)
    plain = FineTuneClassifier(own, **FAST).fit(X, y)
    mixed = FineTuneClassifier(zoo, **FAST).fit(X, y)
    np.testing.assert_allclose(
        mixed.history_[:, "batches", :, "train_loss"],
        plain.history_[:, "batches", :, "train_loss"],
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        mixed.predict_proba(X), plain.predict_proba(X), atol=1e-4
    )


LAYERS = {
    "conv": (lambda: nn.Conv2d(3, 4, 2, bias=True), (5, 3, 4, 4)),
    "depthwise": (lambda: nn.Conv1d(4, 4, 2, groups=4), (5, 4, 6)),
    "linear": (lambda: nn.Linear(3, 4), (5, 3)),
    "tokens": (lambda: nn.Linear(3, 4, bias=False), (5, 7, 3)),
    "batch norm": (lambda: nn.BatchNorm2d(3), (5, 3, 4, 4)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (5, 4, 3)),
    "layer norm": (lambda: nn.LayerNorm(3), (5, 7, 3)),
    "layer norm of two axes": (lambda: nn.LayerNorm((2, 3)), (5, 2, 3)),
    "RMS norm": (lambda: nn.RMSNorm(3), (5, 7, 3)),
}


@pytest.fixture(params=LAYERS, ids=LAYERS)
def layers_and_input(request):
    make, shape = LAYERS[request.param]
    torch.manual_seed(0)
    layers = [make().eval() for _ in range(3)]
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    return layers, torch.randn(shape)


def with_weights(layer, weights):
    layer = copy.deepcopy(layer)
    for name, values in weights.items():
        setattr(layer, name, nn.Parameter(values))
    return layer


def aligned_by_hand(mixed, layers):
    """Per source, every weight with its output channels recombined, sum by sum."""
    result = []
    for k, layer in enumerate(layers):
        weights = {name: w.detach() for name, w in layer.named_parameters()}
        if mixed.alignment is not None:
            matrix = mixed.alignment[k].detach() + torch.eye(4)
            weights = {
                name: torch.stack(
                    [sum(matrix[o, c] * w[c] for c in range(4)) for o in range(4)]
                )
                for name, w in weights.items()
            }
        result.append(weights)
    return result


def randomise(alignment):
    if alignment is not None:
        nn.init.normal_(alignment)


def mixture(weights, gate):
    return {
        n: sum(g * w[n] for g, w in zip(gate, weights, strict=True)) for n in weights[0]
    }


def test_every_sample_has_weights_of_its_own(layers_and_input):
    layers, x = layers_and_input
    mixed = MixedLayer(layers, initial_weight=0.5, align=True, lite=False).eval()
    nn.init.normal_(mixed.gate.weight)
    randomise(mixed.alignment)
    weights = aligned_by_hand(mixed, layers)
    channels_last = isinstance(layers[0], (nn.Linear, nn.LayerNorm, nn.RMSNorm))
    with torch.no_grad():
        output = mixed(x)
        for i in range(len(x)):
            axis = x.ndim - 2 if channels_last else 0
            others = tuple(a for a in range(x.ndim - 1) if a != axis)
            pooled = x[i].mean(others) if others else x[i]
            gate = torch.softmax(mixed.gate(pooled), dim=0)
            layer = with_weights(mixed.template, mixture(weights, gate))
            torch.testing.assert_close(output[i], layer(x[i : i + 1])[0])


def test_folded_layer_computes_the_same(layers_and_input):
    layers, x = layers_and_input
    mixed = MixedLayer(layers, initial_weight=0.5, align=True, lite=True)
    nn.init.normal_(mixed.gate.weight)
    randomise(mixed.alignment)
    mixed.train()(x)
    mixed.eval()
    folded = mixed.fold()
    assert type(folded) is type(layers[0])
    assert {n: p.shape for n, p in folded.named_parameters()} == {
        n: p.shape for n, p in layers[0].named_parameters()
    }
    weights = mixture(aligned_by_hand(mixed, layers), mixed.running_gate)
    with torch.no_grad():
        torch.testing.assert_close(mixed(x), folded(x))
        torch.testing.assert_close(
            mixed(x), with_weights(mixed.template, weights)(x), rtol=1e-4, atol=1e-5
        )


def test_shares_at_the_start(images):
    X, _ = images
    zoo = ZooTuning(network(0), pairs(network(1), network(2)), initial_weight=0.6)
    backbone = zoo.make_backbone(batch_size=16, device="cpu")
    layer = backbone.module.conv
    torch.testing.assert_close(layer.running_gate, torch.tensor([0.6, 0.2, 0.2]))
    nets = [network(seed).network for seed in range(3)]
    expected = sum(
        s * net.conv.weight for s, net in zip([0.6, 0.2, 0.2], nets, strict=True)
    )
    folded = zoo.fold(backbone.module)
    torch.testing.assert_close(folded.conv.weight, expected)
    expected = sum(
        s * net.norm.running_mean for s, net in zip([0.6, 0.2, 0.2], nets, strict=True)
    )
    torch.testing.assert_close(folded.norm.running_mean, expected)
    assert backbone.transform(X).shape == (60, 5)


def test_lite_ends_as_a_plain_network(images):
    X, y = images
    zoo = ZooTuning(network(0), pairs(network(1), network(2)))
    model = FineTuneClassifier(zoo, **FAST).fit(X, y)
    kinds = [type(layer) for layer in model.module_.modules()]
    assert kinds == [type(layer) for layer in network(0).network.modules()]
    features = TorchFeatureExtractor(model.module_, source_head="head").transform(X)
    logits = model.head_(torch.from_numpy(features))
    np.testing.assert_allclose(
        logits.softmax(1).detach(), model.predict_proba(X), atol=1e-6
    )


def test_full_keeps_its_gates_and_can_be_folded(images):
    X, y = images
    zoo = ZooTuning(network(0), pairs(network(1)), lite=False)
    model = FineTuneClassifier(zoo, **FAST).fit(X, y)
    assert isinstance(model.module_.conv, MixedLayer)
    assert isinstance(zoo.fold(model.module_).conv, nn.Conv2d)
    assert isinstance(model.module_.conv, MixedLayer)


def test_all_sources_learn_and_none_is_changed(images):
    X, y = images
    sources = [network(seed) for seed in range(3)]
    before = [copy.deepcopy(s.network.state_dict()) for s in sources]
    zoo = ZooTuning(sources[0], pairs(*sources[1:]), lite=False)
    model = FineTuneClassifier(zoo, **FAST).fit(X, y)
    for k in range(3):
        layer = model.module_.linear
        assert not torch.equal(layer.sources["weight"][k], before[k]["linear.weight"])
        assert layer.alignment[k].abs().max() > 0
        for name, value in sources[k].network.state_dict().items():
            assert torch.equal(value, before[k][name])


@pytest.mark.parametrize("lite", [True, False])
def test_mixed_precision(images, lite):
    X, y = images
    zoo = ZooTuning(network(0), pairs(network(1)), lite=lite)
    model = FineTuneClassifier(zoo, **FAST).fit(X, y)
    mixed = clone(model).set_params(mixed_precision=True).fit(X, y)
    gap = np.abs(mixed.predict_proba(X) - model.predict_proba(X)).max()
    assert 0 < gap < 0.2


def test_teachers_heads_may_differ_and_the_network_counts_once():
    zoo = ZooTuning(network(0), pairs(network(1, n_source=8), network(0)))
    backbone = zoo.make_backbone(batch_size=16, device="cpu")
    assert len(backbone.module.conv.running_gate) == 2
    assert backbone.module.head.out_features == 3


def test_networks_of_another_structure(images):
    message = r"teachers\[1\] has Conv2d\(1, 6.* as layer 'conv', where the network has"
    with pytest.raises(ValueError, match=message):
        FineTuneClassifier(
            ZooTuning(network(0), pairs(network(1), network(2, width=6)))
        ).fit(*images)
    longer = network(1)
    longer.network.add_module("more", nn.ReLU())
    with pytest.raises(
        ValueError, match="ReLU as layer 'more', which the network does"
    ):
        FineTuneClassifier(ZooTuning(network(0), pairs(longer))).fit(*images)
    with pytest.raises(ValueError, match="no layer 'more', where the network has ReLU"):
        FineTuneClassifier(ZooTuning(longer, pairs(network(0)))).fit(*images)
    other = network(1)
    other.network.relu = nn.GELU()
    with pytest.raises(ValueError, match="GELU as layer 'relu', where the network has"):
        FineTuneClassifier(ZooTuning(network(0), pairs(other))).fit(*images)


def test_layers_that_cannot_be_mixed():
    module = nn.Sequential(nn.Embedding(10, 4), nn.Flatten())
    zoo = ZooTuning(module, pairs(TorchFeatureExtractor(copy.deepcopy(module))))
    with pytest.raises(ValueError, match="'0' of the network has weights.*Embedding"):
        FineTuneClassifier(zoo).fit(np.zeros((4, 2), dtype=np.int64), [0, 1, 0, 1])


def test_grid_search_reaches_the_mixture(images):
    X, y = images
    model = FineTuneClassifier(ZooTuning(network(0), pairs(network(1))), **FAST)
    search = GridSearchCV(model, {"network__initial_weight": [0.5, 0.9]}, cv=2).fit(
        X, y
    )
    assert search.best_params_["network__initial_weight"] in (0.5, 0.9)
    with pytest.raises(ValueError, match="'initial_weight' parameter of ZooTuning"):
        model.set_params(network__initial_weight=1.0).fit(X, y)
