"""Exported networks: the same outputs, in other processes too, and clear errors."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import threading
from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.exceptions import NotFittedError
from torch import nn

from sktransfer.datasets import load_dataset, load_zoo
from sktransfer.feature_extraction import TorchFeatureExtractor
from sktransfer.linear_model import LogMEClassifier
from sktransfer.tuning import FineTuneClassifier, FineTuneRegressor, ZooTuning

FAST = {"max_epochs": 1, "batch_size": 16, "random_state": 0, "device": "cpu"}
HAS_ONNX = all(map(find_spec, ["onnx", "onnxscript", "onnxruntime"]))
SUFFIXES = [".pt2"]
if HAS_ONNX:
    SUFFIXES.append(".onnx")

# What a file is used for: neither sktransfer nor this module can be imported.
ELSEWHERE = """
import sys
sys.modules["sktransfer"] = None
import numpy as np, torch
for path in sys.argv[1:]:
    with np.load(path + ".npz") as file:
        inputs = dict(file)
    if path.endswith(".onnx"):
        import onnxruntime
        session = onnxruntime.InferenceSession(path)
        (outputs,) = session.run(None, inputs)
    else:
        module = torch.export.load(path).module()
        inputs = [torch.from_numpy(x) for x in inputs.values()]
        outputs = module(*inputs).detach().numpy()
    np.save(path + ".npy", outputs)
"""


class Net(nn.Module):
    """Convolutions with batch normalisation, and a head of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 6, 3)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(24, 10)

    def features(self, images):
        maps = self.deep(self.norm(self.conv(images)).relu()).relu_()
        return nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)

    def forward(self, images):
        return self.fc(self.dropout(self.features(images)))


class Branching(Net):
    """A network that looks at the values of its inputs."""

    def forward(self, images):
        return super().forward(images if images.sum() > 0 else -images)


class Counting(Net):
    """A network that reads the number of samples as an int."""

    def forward(self, images):
        return super().forward(images.reshape(len(images), 3, 8, 8))


class Caching(Net):
    """A network that keeps a tensor of its first run."""

    scale = None

    def forward(self, images):
        if self.scale is None:
            self.scale = torch.arange(1.0, 4.0)[:, None, None] / 2
        return super().forward(images * self.scale)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 5, batch_first=True)
        self.fc = nn.Linear(5, 4)

    def forward(self, images):
        return self.fc(self.rnn(images.flatten(1, 2))[0][:, -1])


class Random(Net):
    """A network with dropout that cannot be switched off."""

    def forward(self, images):
        return self.fc(nn.functional.dropout(self.features(images), training=True))


class TwoInputs(Net):
    def forward(self, images, factor):
        return super().forward(images * factor[:, None, None, None])


class Tied(nn.Module):
    """Reads tokens; the source head has the weights of the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 5)
        self.mix = nn.Linear(5, 5)
        self.head = nn.Linear(5, 9)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.mix(self.embedding(tokens)).tanh().mean(dim=1))


class HeadOnTokens(nn.Module):
    """The source head reads every token; its logits are averaged."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, images):
        return self.head(self.body(images.flatten(1, 2)).tanh()).mean(dim=1)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def extractor(make=Net, source_head="fc", **params):
    return TorchFeatureExtractor(seeded(make), source_head=source_head, **params)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3, 8, 8)).astype(np.float32)
    return X, np.array(["a", "b", "c"])[np.arange(40) % 3]


@pytest.fixture(scope="module")
def digits():
    X, y = load_dataset(return_X_y=True)
    return X[:60], y[:60]


@pytest.fixture(scope="module")
def tuned(images):
    return FineTuneClassifier(extractor(), **FAST).fit(*images)


def check_same(model, module, X, inputs=None):
    """Outputs for any number of samples are those of the estimator."""
    for n in (1, 7, len(X)):
        given = torch.from_numpy(X[:n]) if inputs is None else inputs[:n]
        logits = module(given).detach().numpy()
        np.testing.assert_allclose(
            softmax(logits, axis=1), model.predict_proba(X[:n]), atol=1e-5
        )


def snapshot(model):
    modules = model.net_.module_.modules()
    state = copy.deepcopy(model.net_.module_.state_dict())
    return state, [(m.training, len(m._forward_hooks)) for m in modules]


# The network's own class.


def test_the_source_head_is_replaced(tuned, images):
    module = tuned.export(images[0])
    assert type(module) is Net
    assert type(module.fc) is nn.Linear
    torch.testing.assert_close(module.fc.weight, tuned.head_.weight, rtol=0, atol=0)
    assert not any(part.training for part in module.modules())
    for part in module.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks
        assert not type(part).__module__.startswith("sktransfer")
    check_same(tuned, module, images[0])
    pickle.loads(pickle.dumps(module))


def test_a_network_without_head_is_put_before_the_new_one(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    model = FineTuneClassifier(network, **FAST).fit(*images)
    module = model.export(images[0])
    assert [type(part) for part in module] == [nn.Sequential, nn.Linear]
    check_same(model, module, images[0])


@pytest.mark.parametrize("suffix", [None, *SUFFIXES])
def test_the_estimator_is_left_as_it_was(images, tmp_path, suffix):
    X, y = images
    own = extractor()
    model = FineTuneClassifier(own, **FAST).fit(X, y)
    model.net_.module_.train()  # a mode that export must not reset
    state, modes = snapshot(model)
    module = model.export(X, suffix and tmp_path / f"network{suffix}")
    state_after, modes_after = snapshot(model)
    assert modes_after == modes
    for name, value in state.items():
        assert torch.equal(value, state_after[name])
    proba = model.predict_proba(X)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.fill_(3)
    np.testing.assert_array_equal(model.predict_proba(X), proba)


def test_exporting_again_and_from_a_pickle_gives_the_same(tuned, images, tmp_path):
    X = torch.from_numpy(images[0])
    outputs = tuned.export(images[0])(X)
    again = pickle.loads(pickle.dumps(tuned))
    path = tmp_path / "network.pt2"
    for model in (tuned, again):
        for _ in range(2):
            assert torch.equal(model.export(images[0], path)(X), outputs)
            assert torch.equal(torch.export.load(path).module()(X), outputs)
    assert os.listdir(tmp_path) == ["network.pt2"]


def test_frozen_parameters_stay_frozen(images):
    network = extractor()
    network.network.conv.requires_grad_(False)
    model = FineTuneClassifier(network, **FAST).fit(*images)
    module = model.export(images[0])
    assert not module.conv.weight.requires_grad and module.fc.weight.requires_grad
    assert torch.equal(module.conv.weight, network.network.conv.weight)


def test_values_of_inputs_may_decide_in_the_own_class_only(images, tmp_path):
    model = FineTuneClassifier(extractor(Branching), **FAST).fit(*images)
    module = model.export(images[0])
    assert type(module) is Branching
    for X in (np.abs(images[0][:5]), -np.abs(images[0][:5])):
        logits = module(torch.from_numpy(X)).detach()
        np.testing.assert_allclose(
            softmax(logits, axis=1), model.predict_proba(X), atol=1e-5
        )
    with pytest.raises(ValueError, match=r"Branching cannot be traced by torch\.exp"):
        model.export(images[0], tmp_path / "network.pt2")
    assert os.listdir(tmp_path) == []


def test_the_number_of_samples_must_not_be_a_constant(images, tmp_path):
    model = FineTuneClassifier(extractor(Counting), **FAST).fit(*images)
    check_same(model, model.export(images[0]), images[0])
    with pytest.raises(ValueError, match=r"number of samples in len\(x\), where x\.sh"):
        model.export(images[0], tmp_path / "network.pt2")


@pytest.mark.parametrize("suffix", [None, ".pt2"])
def test_runs_leave_no_traces_in_the_module(images, tmp_path, suffix):
    model = FineTuneClassifier(extractor(Caching), **FAST).fit(*images)
    model.module_.scale = None
    module = model.export(images[0], suffix and tmp_path / f"network{suffix}")
    assert module.scale is None and model.module_.scale is None
    check_same(model, module, images[0])


@pytest.mark.parametrize("layer", ["penultimate", "rnn"])
def test_recurrent_networks(images, tmp_path, layer):
    model = FineTuneClassifier(extractor(Recurrent, layer=layer), **FAST).fit(*images)
    module = model.export(images[0], tmp_path / "network.pt2")
    assert (type(module) is Recurrent) == (layer == "penultimate")
    check_same(model, module, images[0])


def test_inputs_that_are_no_tensors(images, tmp_path):
    class Batch:
        def __init__(self, samples):
            self.images = torch.from_numpy(np.stack(samples))

        def to(self, device):
            return self

    class OfBatch(Net):
        def forward(self, batch):
            return super().forward(batch.images)

    own = extractor(OfBatch, collate_fn=Batch)
    model = FineTuneClassifier(own, **FAST).fit(*images)
    module = model.export(images[0])
    check_same(model, lambda X: module(Batch(list(X.numpy()))), images[0])
    with pytest.raises(TypeError, match="inputs are tensors.*input of type Batch"):
        model.export(images[0], tmp_path / "network.pt2")


def test_outputs_that_differ_from_call_to_call_are_refused(images):
    model = FineTuneClassifier(extractor(Random), **FAST).fit(*images)
    with pytest.raises(ValueError, match=r"run once more, gives outputs that differ"):
        model.export(images[0])


# Traced networks.

PARAMS = {
    "own class": {},
    "mean": {"layer": "norm"},
    "max": {"layer": "norm", "pooling": "max"},
    "flatten": {"layer": "deep", "pooling": "flatten"},
    "grid": {"layer": "norm", "pooling": ("grid", 4)},
    "callable": {"layer": "norm", "pooling": lambda maps: 2 * maps.mean((2, 3))},
    "several layers": {"layer": ["conv", "input(deep)", "penultimate"]},
    "all layers": {"layer": "all", "pooling": ("grid", 2)},
    "mean of layers": {"layer": "mean(conv, norm)"},
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_give_the_same_outputs_without_sktransfer(images, tmp_path, suffix):
    X, y = images
    models = {}
    step = 1 if suffix == ".pt2" else 4  # ONNX takes longer
    for i, (case, params) in enumerate([*PARAMS.items()][::step]):
        model = FineTuneClassifier(extractor(**params), **FAST).fit(X, y)
        path = tmp_path / f"{i}{suffix}"
        module = model.export(X, path)
        assert (type(module) is Net) == (case == "own class")
        check_same(model, module, X)
        for n in (1, 7):
            target = f"{path}-{n}{suffix}"
            os.link(path, target)
            (given,) = read_facts(path)["inputs"]
            np.savez(f"{target}.npz", **{given["name"]: X[:n]})
            models[target] = model.predict_proba(X[:n])
    command = [sys.executable, "-c", ELSEWHERE, *models]
    subprocess.run(command, check=True, cwd=tmp_path)
    for path, proba in models.items():
        outputs = np.load(f"{path}.npy")
        np.testing.assert_allclose(softmax(outputs, axis=1), proba, atol=1e-5)


def test_what_comes_after_the_layer_is_left_out(images):
    model = FineTuneClassifier(extractor(layer="conv"), **FAST).fit(*images)
    names = set(model.export(images[0]).state_dict())
    kinds = ("weight", "bias")
    assert names == {f"{a}.{b}" for a in ("network.conv", "head") for b in kinds}


def test_head_on_tokens_is_not_taken_for_the_new_head(images):
    # On equal tokens, the logits' mean is what the maximum's logits are.
    X = np.ones_like(images[0])
    own = extractor(HeadOnTokens, "head", pooling="max")
    model = FineTuneClassifier(own, **FAST).fit(*images)
    module = model.export(X[:3])
    check_same(model, module, images[0])


@pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning")  # torch's own
def test_traced_module_can_be_copied_and_refuses_other_sizes(images):
    model = FineTuneClassifier(extractor(layer="norm"), **FAST).fit(*images)
    module = copy.deepcopy(model.export(images[0]).eval())
    check_same(model, module, images[0])
    with pytest.raises(Exception, match="8"):
        module(torch.zeros(2, 3, 9, 9))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_sequences_of_other_lengths(pooling, tmp_path):
    rng = np.random.default_rng(0)
    X = [torch.from_numpy(rng.integers(1, 9, size=n)) for n in rng.integers(2, 9, 30)]

    def pad(samples):
        return nn.utils.rnn.pad_sequence(samples, batch_first=True)

    # The padding counts, so that samples are compared in the same batches.
    own = extractor(Tied, "head", collate_fn=pad, layer="mix", pooling=pooling)
    model = FineTuneClassifier(own, **FAST).fit(X, np.arange(30) % 3)
    module = model.export(X, tmp_path / "network.pt2")
    long = [torch.from_numpy(rng.integers(1, 9, size=n)) for n in (40, 13, 40)]
    outputs = module(pad(long)).detach()
    np.testing.assert_allclose(
        softmax(outputs, axis=1), model.predict_proba(long), atol=1e-5
    )


def test_a_head_with_tied_weights(images):
    X = np.random.default_rng(0).integers(0, 9, size=(30, 6))
    model = FineTuneClassifier(extractor(Tied, "head"), **FAST)
    model.fit(X, np.arange(30) % 3)
    module = model.export(X)
    assert type(module) is Tied
    assert module.head.weight is not module.embedding.weight
    check_same(model, module, X)


@pytest.mark.parametrize(
    ("as_mapping", "layer", "suffix"),
    [
        *product([True, False], ["penultimate", "norm"], [".pt2"]),
        *product([True], ["norm"], SUFFIXES[1:]),
    ],
)
def test_several_inputs(images, tmp_path, suffix, as_mapping, layer):
    X, y = images

    def collate(samples):
        batch = np.stack(samples)
        both = {"images": batch, "factor": batch[:, 0, 0, 0]}
        return both if as_mapping else tuple(both.values())

    own = extractor(TwoInputs, collate_fn=collate, layer=layer)
    model = FineTuneClassifier(own, **FAST).fit(X, y)
    module = model.export(X, tmp_path / f"network{suffix}")
    given = collate(list(X[:5]))
    if as_mapping:
        outputs = module(**{name: torch.as_tensor(x) for name, x in given.items()})
    else:
        outputs = module(*map(torch.as_tensor, given))
    np.testing.assert_allclose(
        softmax(outputs.detach(), axis=1), model.predict_proba(X[:5]), atol=1e-5
    )


def test_networks_of_sktransfer_are_traced(digits, tmp_path):
    X, y = digits
    ((_, network),) = load_zoo(["residual-clothes"])
    model = FineTuneClassifier(network, **FAST).fit(X, y)
    module = model.export(X[:1])  # one sample is enough
    assert isinstance(module, torch.fx.GraphModule)
    assert module.head.weight.shape == (10, 64)
    check_same(model, module, X)


@pytest.mark.parametrize(
    ("lite", "suffix"),
    [*product([True, False], [".pt2"]), *product([False], SUFFIXES[1:])],
)
def test_zoo_tuning(images, tmp_path, lite, suffix):
    X, y = images
    own, other = extractor(), extractor(pooling="max")
    other.network.conv.weight.data += 0.1
    zoo = ZooTuning(own, [(other, LogMEClassifier())], lite=lite)
    model = FineTuneClassifier(zoo, **FAST).fit(X, y)
    module = model.export(X, tmp_path / f"network{suffix}")
    assert (type(module) is Net) == lite
    check_same(model, module, X)


@pytest.mark.parametrize(
    ("n_targets", "suffix"), [*product([1, 2], [".pt2"]), *product([2], SUFFIXES[1:])]
)
def test_regression(images, tmp_path, n_targets, suffix):
    X, _ = images
    y = X.mean(axis=(2, 3))[:, :n_targets]
    y = y[:, 0] if n_targets == 1 else y
    model = FineTuneRegressor(extractor(), **FAST).fit(X, y)
    path = tmp_path / f"network{suffix}"
    outputs = model.export(X, path)(torch.from_numpy(X)).detach().numpy()
    assert outputs.shape == (40, n_targets)
    np.testing.assert_allclose(outputs.reshape(y.shape), model.predict(X), atol=1e-5)
    facts = read_facts(path)
    assert facts["output"] == "numbers" and facts["classes"] is None


def test_mixed_precision_is_exported_in_float32(images):
    model = FineTuneClassifier(extractor(), mixed_precision=True, **FAST).fit(*images)
    module = model.export(images[0])
    outputs = module(torch.from_numpy(images[0]))
    assert outputs.dtype == torch.float32
    np.testing.assert_allclose(
        softmax(outputs.detach(), axis=1), model.predict_proba(images[0]), atol=0.02
    )
    model.net_.mixed_precision = None
    check_same(model, module, images[0])


def test_networks_of_half_precision_are_exported_in_float32(images):
    own = extractor(lambda: Net().half())
    model = FineTuneClassifier(own, **FAST).fit(*images)
    module = model.export(images[0])
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    check_same(model, module, images[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("layer", ["penultimate", "norm"])
def test_networks_tuned_on_cuda_are_exported_to_the_cpu(
    images, tmp_path, layer, suffix
):
    options = {**FAST, "device": "cuda", "mixed_precision": False}
    model = FineTuneClassifier(extractor(layer=layer), **options).fit(*images)
    module = model.export(images[0], tmp_path / f"network{suffix}")
    assert {p.device.type for p in module.parameters()} == {"cpu"}
    assert model.head_.weight.is_cuda
    outputs = module(torch.from_numpy(images[0])).detach()
    np.testing.assert_allclose(
        softmax(outputs, axis=1), model.predict_proba(images[0]), atol=1e-3
    )


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *product(["test_vit"], SUFFIXES),
        ("test_resnet", ".pt2"),
        ("test_convnext", ".pt2"),
    ],
)
def test_networks_of_timm(name, tmp_path, suffix):
    pytest.importorskip("timm")
    from sktransfer.feature_extraction import TimmFeatureExtractor

    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, size=(12, 40, 50, 3), dtype=np.uint8)
    own = TimmFeatureExtractor(name, pretrained=False, image_size=64)
    model = FineTuneClassifier(own, **FAST).fit(X, np.arange(12) % 2)
    path = tmp_path / f"network{suffix}"
    module = model.export(X, path)
    assert type(module).__module__.startswith("timm.")
    inputs = torch.stack([own.preprocess(image) for image in X])
    check_same(model, module, X, inputs)
    facts = read_facts(path)
    assert facts["preprocessing"]["network"] == name
    assert len(facts["preprocessing"]["mean"]) == 3
    assert facts["inputs"][0]["shape"] == [None, 3, 64, 64]


@pytest.mark.parametrize(
    ("pooling", "suffix"),
    [*product(["mean"], SUFFIXES), ("cls", ".pt2"), ("last", ".pt2")],
)
def test_language_models(tmp_path, suffix, pooling):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from sktransfer.feature_extraction import TransformersFeatureExtractor

    words = ["good", "bad", "film", "a", "very"]
    vocabulary = {name: i for i, name in enumerate(["[PAD]", "[UNK]", *words])}
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    )
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
    )
    own = TransformersFeatureExtractor(
        seeded(lambda: transformers.BertModel(config)),
        tokenizer=tokenizer,
        pooling=pooling,
        layer=[1, -1],
    )
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, size=n)) for n in rng.integers(1, 9, 30)]
    model = FineTuneClassifier(own, **FAST).fit(texts, np.arange(30) % 3)
    path = tmp_path / f"network{suffix}"
    module = model.export(texts[:4], path)
    assert all(given["shape"] == [None, None] for given in read_facts(path)["inputs"])
    with pytest.raises(ValueError, match="Pass a text of two tokens or more"):
        model.export(["good", "bad"])
    # Longer than all that were shown, padded, and alone.
    longer = [*texts[:5], "very " * 20 + "good film"]
    for given in (longer, longer[-1:], longer[:1]):
        tokens = tokenizer(given, padding=True, return_tensors="pt")
        outputs = module(**{**tokens}).detach()
        np.testing.assert_allclose(
            softmax(outputs, axis=1), model.predict_proba(given), atol=1e-5
        )


# Files.


def read_facts(path):
    """The metadata, read as the documentation says."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return json.loads(
            session.get_modelmeta().custom_metadata_map["sktransfer.json"]
        )
    extra = {"sktransfer.json": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["sktransfer.json"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_classes_and_inputs_are_in_the_file(tuned, images, tmp_path, suffix):
    path = tmp_path / f"network{suffix}"
    tuned.export(images[0], str(path))
    facts = read_facts(path)
    assert facts["output"] == "logits" and facts["classes"] == ["a", "b", "c"]
    (given,) = facts["inputs"]
    assert given["dtype"] == "float32" and given["shape"] == [None, 3, 8, 8]


def test_not_fitted(images):
    with pytest.raises(NotFittedError):
        FineTuneClassifier(extractor()).export(images[0])


@pytest.mark.parametrize("name", ["network", "network.pth", "network.pt2.zip"])
def test_other_suffixes_are_refused(tuned, images, tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in '\.pt2' .* or '\.onnx'\. Got"):
        tuned.export(images[0], tmp_path / name)


def test_a_path_in_place_of_samples_is_refused(tuned, tmp_path):
    with pytest.raises(TypeError, match="collection of samples.*Got one str"):
        tuned.export("network.pt2")


def test_samples_that_tell_nothing_are_refused(tuned, images):
    with pytest.raises(ValueError, match="NaN or infinite"):
        tuned.export(np.full_like(images[0], np.nan))
    with pytest.raises(ValueError, match="Net failed on the batch"):
        tuned.export(images[0][:, :2])


def test_folders_that_cannot_be_written_to(tuned, images, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder; create it"):
        tuned.export(images[0], tmp_path / "nowhere" / "network.pt2")
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.pt2 is a folder"):
        tuned.export(images[0], tmp_path / "folder.pt2")
    monkeypatch.setattr(os, "access", lambda *args: False)  # even root's
    with pytest.raises(PermissionError, match="must not be written to"):
        tuned.export(images[0], tmp_path / "network.pt2")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_earlier_file(
    tuned, images, tmp_path, monkeypatch, error
):
    path = tmp_path / "network.pt2"
    path.write_bytes(b"earlier")

    def save(program, part, **options):
        part.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch.export, "save", save)
    with pytest.raises(error):
        tuned.export(images[0], path)
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["network.pt2"]


def test_a_file_with_other_outputs_is_not_kept(tuned, images, tmp_path, monkeypatch):
    load = torch.export.load

    def load_damaged(path):
        program = load(path)
        program.state_dict["fc.bias"].data += 1e-3
        return program

    monkeypatch.setattr(torch.export, "load", load_damaged)
    with pytest.raises(ValueError, match="differ from those of the tuned network by"):
        tuned.export(images[0], tmp_path / "network.pt2")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_onnx_says_what_to_install(tuned, images, tmp_path, monkeypatch, missing):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if not find_spec(name):
            missing = "onnx"
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "sktransfer\[onnx\]"'):
        tuned.export(images[0], tmp_path / "network.onnx")


# Threads.


def test_threads_predict_and_export_at_the_same_time(tuned, images, tmp_path):
    X, _ = images
    expected = tuned.predict_proba(X)
    outputs = tuned.export(X)(torch.from_numpy(X))
    errors, finished = [], threading.Event()

    def predict():
        while not finished.is_set():
            np.testing.assert_allclose(tuned.predict_proba(X), expected, atol=1e-6)

    def export(i):
        path = tmp_path / f"{i % 2}.pt2"
        torch.testing.assert_close(
            tuned.export(X, path)(torch.from_numpy(X)), outputs, rtol=0, atol=1e-6
        )

    def noting(call, *args):
        try:
            call(*args)
        except Exception as error:
            errors.append(error)

    predicting = [threading.Thread(target=noting, args=(predict,)) for _ in range(2)]
    exporting = [threading.Thread(target=noting, args=(export, i)) for i in range(4)]
    for thread in predicting + exporting:
        thread.start()
    for thread in exporting:
        thread.join()
    finished.set()
    for thread in predicting:
        thread.join()
    assert not errors
    assert sorted(os.listdir(tmp_path)) == ["0.pt2", "1.pt2"]
