"""Feature maps beside those of the start: formula, inputs, and what is left behind."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import skorch
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sktransfer.feature_extraction import TorchFeatureExtractor
from sktransfer.linear_model import LogMEClassifier
from sktransfer.tuning import (
    BasePenalty,
    FeatureMapDistance,
    FineTuneClassifier,
    FineTuneRegressor,
    PenaltyBatch,
    PenaltyContext,
    ZooTuning,
)
from sktransfer.tuning._backbone import Backbone

FAST = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}


@pytest.fixture
def images(data):
    X, y = data
    return np.tile(X, (1, 6)).reshape(60, 1, 6, 6), y


def network(*, dropout=0.0):
    """A convolutional network with batch normalisation, away from its statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 3, 2),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(27, 5),
        )
        nn.init.normal_(module[1].running_mean)
    return TorchFeatureExtractor(module, device="cpu")


def bind(extractor, X, **params):
    """A backbone in training mode, and the term of a penalty that is bound to it."""
    module = extractor.load_module()
    backbone = Backbone(extractor, module, batch_size=len(X), device="cpu")
    context = PenaltyContext(
        module=backbone.module,
        start={},
        X=X,
        y=None,
        train=np.arange(len(X)),
        unlabelled=None,
        classes=None,
        scale=None,
        features=backbone.transform,
        precompute=True,
        layers=backbone.follow_layers,
    )
    term = FeatureMapDistance(**params).bind(context)

    def run(X):
        features = backbone.train()(X)
        rows = np.arange(len(X))
        return term(PenaltyBatch(features=features, outputs=None, X=X, rows=rows))

    return backbone, run


def pooled(maps):
    """Means of the quarters of each channel, or the features."""
    if maps.ndim == 2:
        return maps
    return np.asarray(nn.functional.adaptive_avg_pool2d(torch.tensor(maps), 2)).reshape(
        len(maps), -1
    )


def test_formula_by_hand(images):
    X, _ = images
    extractor = network()
    module = extractor.network
    module[1] = nn.Identity()  # whatever the mode
    copied = clone(extractor).network
    backbone, run = bind(extractor, X)
    assert run(X).item() == 0
    with torch.no_grad():
        for p in backbone.module.parameters():
            p += 0.1 * torch.randn(p.shape)
    value = run(X[:7]).item()

    def layers(module, X):
        with torch.no_grad():
            first = module[2](module[0](torch.from_numpy(X)))
            second = module[3](first).flatten(1)
            return [t.numpy() for t in (first, second, module[6](second))]

    expected = 0.0
    now, before = layers(backbone.module, X[:7]), layers(copied, X[:7])
    for own, start, every in zip(now, before, layers(copied, X), strict=True):
        own, start, every = map(pooled, (own, start, every))
        total = ((own - start) ** 2).sum() / every.var(axis=0).sum()
        expected += total / 7 / 3
    assert expected > 1e-3
    assert value == pytest.approx(expected, rel=1e-4)


def test_gradient(images):
    X, _ = images
    extractor = network()
    extractor.network[2] = nn.Tanh()  # smooth
    backbone, run = bind(extractor, X)
    with torch.no_grad():
        for p in backbone.module.parameters():
            p += 0.1 * torch.randn(p.shape)
    run(X).backward()
    step = 1e-3
    for p in backbone.module.parameters():
        direction = torch.randn(p.shape)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                p += sign * step * direction
                values.append(run(X).item())
                p -= sign * step * direction
        slope = (values[0] - values[1]) / (2 * step)
        wanted = (p.grad * direction).sum().item()
        assert slope == pytest.approx(wanted, rel=0.02, abs=2e-3)


def test_batch_normalisation_sees_the_batch_on_both_sides(images):
    X, _ = images
    _, run = bind(network(), X)
    assert run(X[:9]).item() < 1e-10
    # Running statistics of the network have moved, and do not matter.
    for _ in range(9):
        assert run(X[20:]).item() < 1e-10


def test_the_scale_of_maps_means_nothing(images):
    X, _ = images
    values = []
    for scale in (1, 1000):
        extractor = network()
        with torch.no_grad():
            extractor.network[3].weight *= scale
            extractor.network[3].bias *= scale
            extractor.network[6].weight /= scale
        backbone, run = bind(extractor, X, layers=["input(6)"])
        with torch.no_grad():
            for p in backbone.module[3].parameters():
                p *= 1.1
        values.append(run(X).item())
    assert values[0] > 1e-3
    assert values[1] == pytest.approx(values[0], rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.3, 1e4])
def test_a_layer_that_is_constant_does_not_count(data, value):
    X, _ = data
    module = nn.Sequential(nn.Linear(6, 4), nn.Hardtanh(), nn.Linear(4, 3))
    module[1].min_val, module[1].max_val = value, value + 1
    with torch.no_grad():
        module[0].bias -= 1e6
    backbone, run = bind(TorchFeatureExtractor(module, device="cpu"), X)
    with torch.no_grad():
        backbone.module[2].weight += 1
        backbone.module[0].bias += 1e7
    assert run(X).item() == 0


def test_layers_by_name(images):
    X, y = images
    names = list(network().extract(X, all_layers=True).layers)
    assert names == ["input(3)", "input(6)", "output"]

    def fit(layers):
        penalty = FeatureMapDistance(layers=layers)
        return FineTuneClassifier(network(), penalty=penalty, **FAST).fit(X, y)

    losses = [
        fit(layers).history_[:, "train_loss"]
        for layers in ("all", names, ["input*", "output"], ["output"], ["out*", "o*"])
    ]
    assert losses[0] == losses[1] == losses[2] != losses[3]
    assert losses[3] == losses[4]
    with pytest.raises(ValueError, match=r"Got 'conv1'. Available: \['input\(3\)'"):
        fit(["conv1"])
    with pytest.raises(ValueError, match="at least one layer"):
        fit([])
    with pytest.raises(ValueError, match="'layers' parameter of FeatureMapDistance"):
        fit("output")


@pytest.mark.parametrize("regression", [False, True])
def test_weight_0_is_plain_fine_tuning_step_by_step(images, weights, regression):
    X, y = images
    kind = FineTuneRegressor if regression else FineTuneClassifier
    y = X[:, 0, 0, :2] if regression else y
    fits = [
        kind(network(dropout=0.2), penalty=penalty, **FAST).fit(X, y)
        for penalty in (None, FeatureMapDistance(weight=0), FeatureMapDistance())
    ]
    batches = [fit.history_[:, "batches", :, "train_loss"] for fit in fits]
    assert batches[0] == batches[1] != batches[2]
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))
    assert fits[1].history_[0, "train_penalty"] > 0


def test_a_huge_weight_keeps_the_maps(images):
    X, y = images
    options = {**FAST, "max_epochs": 30, "lr": 1e-4, "head_lr_factor": 1e3}

    def moved(weight):
        extractor = network()
        penalty = FeatureMapDistance(weight=weight)
        model = FineTuneClassifier(extractor, penalty=penalty, **options).fit(X, y)
        assert model.score(X, y) > 0.8
        return model.history_[-1, "train_penalty"]

    assert moved(500) < moved(0) / 20


class PullThePlug(skorch.callbacks.Callback):
    """Fails once, in the third epoch."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3 and os.environ.pop("PULL_THE_PLUG", ""):
            raise RuntimeError("pulled the plug")


def flip(batch):
    return batch[..., ::-1].copy() if torch.rand(1) < 0.5 else batch


@pytest.mark.parametrize("unlabelled", [False, True])
def test_it_resumes_towards_the_same_start(
    images, weights, tmp_path, monkeypatch, unlabelled
):
    X, y = images
    more = {"unlabelled": X[:30] + 1} if unlabelled else {}
    model = FineTuneClassifier(
        network(dropout=0.2),
        penalty=FeatureMapDistance(),
        callbacks=[PullThePlug()],
        augment=flip,
        validation_fraction=0.2,
        **{**FAST, "max_epochs": 5},
    )
    expected = weights(model.fit(X, y, **more))
    model.set_params(checkpoint_dir=tmp_path)
    monkeypatch.setenv("PULL_THE_PLUG", "once")
    with pytest.raises(RuntimeError, match="pulled the plug"):
        model.fit(X, y, **more)
    np.testing.assert_array_equal(weights(model.fit(X, y, **more)), expected)


def test_it_is_pickled_cloned_and_searched(images, weights):
    X, y = images
    penalty = FeatureMapDistance()
    model = FineTuneClassifier(network(), penalty=penalty, **FAST).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(weights(clone(model).fit(X, y)), weights(model))
    grid = {"penalty__weight": [0.0, 0.1], "penalty__layers": ["all", ["output"]]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 4


def test_nothing_of_the_start_is_left(images):
    X, y = images
    penalty = FeatureMapDistance()
    model = FineTuneClassifier(network(), penalty=penalty, **FAST).fit(X, y)
    plain = FineTuneClassifier(network(), **FAST).fit(X, y)
    assert len(pickle.dumps(model)) < 1.1 * len(pickle.dumps(plain))
    backbone = model.net_.module_.backbone
    assert backbone._start is None
    assert backbone._run_as[1].behind is None
    assert not any(m._forward_hooks for m in model.module_.modules())


def test_it_learns_from_unlabelled_samples(images):
    X, y = images
    seen = []

    class Watched(FeatureMapDistance):
        def bind(self, context):
            term = super().bind(context)

            def watched(batch):
                seen.append(len(batch.rows))
                return term(batch)

            return watched

    model = FineTuneClassifier(network(), penalty=Watched(), **FAST)
    first = model.fit(X[:32], y[:32]).history_[-1, "train_penalty"]
    seen.clear()
    model.fit(X[:32], y[:32], unlabelled=X[32:])
    assert set(seen) == {16 * 5}
    assert model.history_[-1, "train_penalty"] != first


def test_samples_are_read_once(images):
    X, y = images
    calls = []

    def read(row):
        calls.append(row)
        return torch.from_numpy(X[row]) + torch.randn(1)  # as an augmentation does

    extractor = network().set_params(preprocess=read)
    penalty = FeatureMapDistance()
    model = FineTuneClassifier(extractor, penalty=penalty, **FAST)
    model.set_params(max_epochs=1, lr=1e-12, weight_decay=0, batch_size=60)
    model.fit(list(range(60)), y)
    assert model.history_[0, "train_penalty"] < 1e-8
    # The width of the features, the variances, and the epoch.
    assert len(calls) == 1 + 60 + 60


@pytest.mark.parametrize("lite", [True, False])
def test_mixture_of_networks(images, lite):
    X, y = images
    zoo = ZooTuning(network(), [(network(), LogMEClassifier())], lite=lite)
    penalty = FeatureMapDistance(weight=1)
    model = FineTuneClassifier(zoo, penalty=penalty, **FAST).fit(X, y)
    assert 0 < model.history_[-1, "train_penalty"] < 1
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_frozen_parameters(images):
    X, y = images
    extractor = network()
    extractor.network[1] = nn.Identity()
    extractor.network.requires_grad_(False)
    penalty = FeatureMapDistance()
    model = FineTuneClassifier(extractor, penalty=penalty, **FAST).fit(X, y)
    assert model.history_[-1, "train_penalty"] == 0


def test_mixed_precision(images):
    X, y = images
    penalty = FeatureMapDistance()
    model = FineTuneClassifier(network(), penalty=penalty, **FAST)
    model.set_params(mixed_precision=True, lr=1e-12, weight_decay=0).fit(X, y)
    assert model.history_[-1, "train_penalty"] < 1e-10


@pytest.fixture
def language_model(data):
    """A small language model, texts of several lengths and their labels."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from sktransfer.feature_extraction import TransformersFeatureExtractor

    words = ["[PAD]", "[UNK]", "good", "bad", "film", "a"]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {word: i for i, word in enumerate(words)}, unk_token="[UNK]"
        )
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", model_max_length=16
    )
    config = transformers.BertConfig(
        vocab_size=6,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertModel(config)
    y = data[1] % 2
    ends = np.array(["film bad", "film good"])[y]
    samples = [(i % 4) * "a " + end for i, end in enumerate(ends)]
    return TransformersFeatureExtractor(model, tokenizer=tokenizer), samples, y


def test_texts(language_model):
    extractor, texts, y = language_model
    options = {**FAST, "max_epochs": 12, "lr": 0.01, "optimizer": "adamw"}
    penalty = FeatureMapDistance(weight=0.01)
    model = FineTuneClassifier(extractor, penalty=penalty, **options).fit(texts, y)
    assert model.score(texts, y) > 0.9
    assert 0 < model.history_[-1, "train_penalty"] < 10
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.predict_proba(texts), model.predict_proba(texts)
    )


def test_padding_of_texts_does_not_count(language_model):
    extractor, texts, _ = language_model
    for module in extractor.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    backbone, run = bind(extractor, texts)
    assert run(texts).item() < 1e-9
    with torch.no_grad():
        backbone.module.embeddings.word_embeddings.weight[0] += 1  # of the padding
    # The words do not attend to it.
    assert run(texts).item() < 1e-9


def test_a_middle_layer_of_a_language_model_is_tuned_and_pickled(language_model):
    extractor, texts, y = language_model
    extractor.set_params(layer="1")
    model = FineTuneClassifier(extractor, **FAST).fit(texts, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.predict_proba(texts), model.predict_proba(texts)
    )


class Both(BasePenalty):
    """What ``layers`` of the context gives."""

    uses_unlabelled = True

    def bind(self, context):
        followed = context.layers()
        rows = [len(layers["output"]) for layers in followed.iter_start(context.X)]
        assert sum(rows) == len(context.X)

        def term(batch):
            ((own, start),) = followed.take_pairs()
            assert own["output"].requires_grad
            assert not start["output"].requires_grad
            np.testing.assert_array_equal(
                own["output"].detach(), batch.features.detach()
            )
            assert len(start["output"]) == len(batch.rows)
            return own["output"].sum() * 0

        return term


def test_the_contract_gives_layers(images):
    X, y = images
    model = FineTuneClassifier(network(), penalty=Both(), validation_fraction=0.2)
    model.set_params(**FAST).fit(X, y, unlabelled=X[:30] + 1)
