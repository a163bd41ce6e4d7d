"""What every extractor owes: one table of small instances, one list of promises."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from joblib import Memory
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

torch = pytest.importorskip("torch")

from sktransfer.datasets import load_zoo  # noqa: E402
from sktransfer.feature_extraction import TorchFeatureExtractor  # noqa: E402
from sktransfer.linear_model import LogMEClassifier  # noqa: E402

WORDS = ["good", "bad", "film", "plot", "a", "the", "very", "long"]
N_SAMPLES = 71  # more than one batch of 64, and no multiple of 7


@dataclass
class Case:
    """An extractor, what it reads, and what is to be expected of it."""

    extractor: Any
    samples: Any
    layers: tuple[str | int, str | int]
    head: bool = True
    # Makes samples with a wrong number of channels of good ones.
    spoil: Callable | None = None
    holds_weights: bool = False

    def take(self, rows):
        if isinstance(self.samples, np.ndarray):
            return self.samples[rows]
        return [self.samples[i] for i in rows]


def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, size=(N_SAMPLES, 32, 32, 3), dtype=np.uint8)


def module_case(folder):
    """A module handed over as it is: cloned and pickled with its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3, stride=2),
            torch.nn.BatchNorm2d(6),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.5),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(6, 4),
        )
    X = images().transpose(0, 3, 1, 2).astype(np.float32) / 255
    return Case(
        TorchFeatureExtractor(net, source_head="6"),
        X,
        layers=("1", "2"),
        spoil=lambda X: X[:, :2],
        holds_weights=True,
    )


def zoo_case(folder):
    ((_, extractor),) = load_zoo("residual-objects")
    return Case(
        extractor, images(), layers=("stage1", "stage3"), spoil=lambda X: X[..., :2]
    )


def timm_case(folder, name="test_resnet", layers=("layer1", "layer3")):
    pytest.importorskip("timm")
    from sktransfer.feature_extraction import TimmFeatureExtractor

    return Case(
        TimmFeatureExtractor(name, pretrained=False, image_size=32),
        images(),
        layers=layers,
        spoil=lambda X: X[..., :2],
    )


def timm_tokens_case(folder):
    return timm_case(folder, "test_vit", layers=("blocks.0", "blocks.2"))


def make_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    )


def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(N_SAMPLES)]


def language_case(folder, architecture, **config):
    """A language model that was saved to a folder with its tokenizer."""
    transformers = pytest.importorskip("transformers")
    from sktransfer.feature_extraction import TransformersFeatureExtractor

    maker = getattr(transformers, architecture)
    config = maker.config_class(vocab_size=len(WORDS) + 2, pad_token_id=0, **config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        maker(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return Case(
        TransformersFeatureExtractor(str(folder)),
        texts(),
        layers=(1, 2),
        head=architecture.endswith("Classification"),
    )


def encoder_case(folder):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    return language_case(
        folder, "BertForSequenceClassification", num_hidden_layers=2, **sizes
    )


def decoder_case(folder):
    sizes = {"n_embd": 16, "n_head": 2, "n_inner": 16, "n_positions": 16}
    case = language_case(folder, "GPT2Model", n_layer=2, **sizes)
    case.extractor.set_params(pooling="last")
    return case


def encoder_decoder_case(folder):
    sizes = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 16}
    return language_case(folder, "T5Model", num_layers=2, **sizes)


CASES = {
    "module": module_case,
    "zoo": zoo_case,
    "timm": timm_case,
    "timm tokens": timm_tokens_case,
    "encoder": encoder_case,
    "decoder": decoder_case,
    "encoder-decoder": encoder_decoder_case,
}
IMAGES = ["module", "zoo", "timm", "timm tokens"]
FILES = ["timm", "timm tokens"]


@pytest.fixture(scope="module", params=CASES)
def shared_case(request, tmp_path_factory):
    return CASES[request.param](tmp_path_factory.mktemp("model"))


@pytest.fixture
def case(shared_case):
    """The case with an extractor of the test's own."""
    return Case(**{**vars(shared_case), "extractor": clone(shared_case.extractor)})


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)


@pytest.fixture
def expected(case):
    """Features, and source probabilities if there are any, batch by batch of 64."""
    return case.extractor.extract(case.samples, source_proba=case.head)


def test_shapes_and_types(case, expected):
    for features in expected.features.values():
        assert features.dtype == np.float32
        assert features.shape[0] == N_SAMPLES
        assert np.ptp(features, axis=0).max() > 0  # samples are told apart
    assert hasattr(case.extractor, "source_proba") == case.head
    if case.head:
        close(expected.source_proba.sum(axis=1, dtype=np.float64), 1)


def test_repeated(case, expected):
    again = case.extractor.transform(case.samples)
    np.testing.assert_array_equal(again, expected.joined)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_and_order_do_not_matter(case, expected, batch_size):
    order = np.random.default_rng(1).permutation(N_SAMPLES)
    case.extractor.set_params(batch_size=batch_size)
    given = case.extractor.extract(case.take(order), source_proba=case.head)
    close(given.joined, expected.joined[order])
    if case.head:
        close(given.source_proba, expected.source_proba[order])


def test_clone(case, expected):
    copy = clone(case.extractor)
    assert copy.fingerprint() == case.extractor.fingerprint()
    np.testing.assert_array_equal(copy.transform(case.samples), expected.joined)


def test_pickle(case, expected):
    pickled = pickle.dumps(case.extractor)  # after it has loaded its weights
    if not case.holds_weights:
        assert len(pickled) < 5_000
    restored = pickle.loads(pickled)
    assert restored.fingerprint() == case.extractor.fingerprint()
    np.testing.assert_array_equal(restored.transform(case.samples), expected.joined)


def test_module_is_left_as_it_was(case):
    module = case.extractor.load_module().train()
    next(module.children()).eval()
    modes = [part.training for part in module.modules()]
    state = {name: value.clone() for name, value in module.state_dict().items()}
    case.extractor.extract(case.samples, source_proba=case.head)
    assert [part.training for part in module.modules()] == modes
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name
    for name, parameter in module.named_parameters():
        assert parameter.requires_grad and parameter.grad is None, name
        assert not parameter.is_inference(), name
    assert torch.is_grad_enabled()


def test_empty_input(case):
    for samples in (case.samples[:0], []):
        with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
            case.extractor.transform(samples)


@pytest.mark.parametrize("shared_case", IMAGES, indirect=True, scope="module")
def test_wrong_number_of_channels(case):
    with pytest.raises(ValueError, match="channel"):
        case.extractor.transform(case.spoil(case.samples))
    assert len(case.extractor.transform(case.samples[:1])) == 1  # and it still works


@pytest.mark.parametrize("shared_case", FILES, indirect=True, scope="module")
def test_bad_file_in_a_folder_is_named(case, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for path, image in zip(paths, case.samples, strict=False):
        Image.fromarray(image).save(path)
    good = case.extractor.transform(paths)
    close(good, case.extractor.transform(case.samples[:9]))
    whole = paths[7].read_bytes()
    paths[7].write_bytes(whole[: len(whole) // 2])
    for batch_size in (1, 4):
        case.extractor.set_params(batch_size=batch_size)
        with pytest.raises(ValueError, match=r"sample 7 \('.*7.png'\)"):
            case.extractor.transform(paths)
    paths[7].write_bytes(whole)
    close(case.extractor.transform(paths[:4]), good[:4])


def test_frozen(case, expected):
    frozen = FrozenEstimator(case.extractor)
    assert clone(frozen) is frozen
    features = make_pipeline(frozen, StandardScaler()).fit_transform(case.samples)
    close(features, StandardScaler().fit_transform(expected.joined), atol=1e-4)


def test_feature_names(case):
    pytest.importorskip("pandas")
    case.extractor.set_params(layer=list(case.layers)).set_output(transform="pandas")
    frame = case.extractor.transform(case.samples)
    layers = case.extractor.transform_layers(case.samples)
    names = [f"{name}_{i}" for name, f in layers.items() for i in range(f.shape[1])]
    assert list(frame.columns) == names
    assert case.extractor.get_feature_names_out().tolist() == names
    np.testing.assert_array_equal(frame, np.hstack(list(layers.values())))


def search_layers(case, memory=None, n_jobs=None):
    """Choose the layer with the larger LogME."""
    steps = [("extract", case.extractor), ("logme", LogMEClassifier())]
    search = GridSearchCV(
        Pipeline(steps, memory=memory),
        {"extract__layer": list(case.layers)},
        cv=2,
        n_jobs=n_jobs,
        error_score="raise",
    )
    return search.fit(case.samples, np.arange(N_SAMPLES) % 2)


def test_grid_search_with_a_cache(case, tmp_path):
    expected = search_layers(case).cv_results_["mean_test_score"]
    assert np.isfinite(expected).all() and expected[0] != expected[1]
    cached = []
    for _ in range(2):
        search = search_layers(case, Memory(str(tmp_path), verbose=0))
        close(search.cv_results_["mean_test_score"], expected)
        best = case.extractor.set_params(layer=search.best_params_["extract__layer"])
        close(
            search.best_estimator_[0].transform(case.samples),
            best.transform(case.samples),
        )
        cached.append(len(list(tmp_path.rglob("output.pkl"))))
    if not case.holds_weights:  # equal modules hash differently
        assert cached == [5, 5]  # two layers of two folds, and the whole


def test_grid_search_in_worker_processes(tmp_path):
    for name, make in CASES.items():  # one after the other, to start workers once
        case = make(tmp_path / name)
        search = search_layers(case, n_jobs=2)
        close(
            search.cv_results_["mean_test_score"],
            search_layers(case).cv_results_["mean_test_score"],
        )
