"""From a folder of images or a table of texts to a tuned network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sktransfer.datasets import load_image_folder, load_text_csv
from sktransfer.linear_model import LogMEClassifier
from sktransfer.tuning import BayesianTuning, FineTuneClassifier

OPTIONS = {"max_epochs": 6, "batch_size": 12, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dark and bright images of several sizes, and more without labels."""
    Image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(60):
        noise = rng.integers(0, 100, (30 + i % 5, 40, 3), dtype=np.uint8)
        place = folder / ("more" if i >= 40 else f"own/{['bright', 'dark'][i % 2]}")
        place.mkdir(parents=True, exist_ok=True)
        image = noise + np.uint8(150 * (i % 2 == 0))
        Image.fromarray(image).save(place / f"{i}.jpg")
    return folder


@pytest.fixture
def network():
    pytest.importorskip("timm")
    from sktransfer.feature_extraction import TimmFeatureExtractor

    return TimmFeatureExtractor("test_resnet", pretrained=False, image_size=32)


# Those of an untrained network are not better than itself.
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.WeakTeachersWarning")
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.UnboundedEvidenceWarning")
def test_a_folder_of_images(folder, network, weights):
    X, y = load_image_folder(folder / "own")
    unlabelled = load_image_folder(folder / "more", labelled=False)
    assert (len(X), len(unlabelled)) == (40, 20)
    fits = []
    for n_workers in (0, 2):
        penalty = BayesianTuning([(network, LogMEClassifier())], weight=0.01)
        model = FineTuneClassifier(
            network, penalty=penalty, num_workers=n_workers, **OPTIONS
        )
        fits.append(model.fit(X, y, unlabelled=unlabelled))
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))
    assert model.classes_.tolist() == ["bright", "dark"]
    assert model.score(X, y) > 0.9
    images = model.predict_proba(unlabelled)
    assert (images.argmax(axis=1) == np.arange(40, 60) % 2).mean() > 0.9


def opened(paths):
    """Open the images and mirror some of them."""
    from PIL import Image, ImageOps

    flips = torch.rand(len(paths)) < 0.5
    return [
        ImageOps.mirror(Image.open(path)) if flip else Image.open(path)
        for path, flip in zip(paths, flips, strict=True)
    ]


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.WeakTeachersWarning")
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.UnboundedEvidenceWarning")
def test_augmentation_opens_the_images_in_workers(folder, network):
    X, y = load_image_folder(folder / "own")
    penalty = BayesianTuning([(network, LogMEClassifier())], weight=0.01)
    model = FineTuneClassifier(
        network, penalty=penalty, augment=opened, num_workers=2, **OPTIONS
    )
    assert model.fit(X, y).score(X, y) > 0.9


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_broken_image_is_named(folder, network, tmp_path, n_workers):
    X, y = load_image_folder(folder / "own")
    broken = tmp_path / "broken.jpg"
    content = Path(X[3]).read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    model = FineTuneClassifier(network, num_workers=n_workers, **OPTIONS)
    with pytest.raises(ValueError, match=r"failed on .*broken.jpg'\): OSError"):
        model.fit([*X[:3], str(broken), *X[4:]], y)


def test_a_module_of_ones_own_with_preprocess(folder):
    Image = pytest.importorskip("PIL.Image")
    from sktransfer.feature_extraction import TorchFeatureExtractor

    def read(path):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((8, 8)), dtype=np.float32)
        return (pixels / 255).transpose(2, 0, 1)

    module = torch.nn.Conv2d(3, 8, 3)
    extractor = TorchFeatureExtractor(module, preprocess=read, pooling="max")
    X, y = load_image_folder(folder / "own")
    model = FineTuneClassifier(extractor, num_workers=2, **OPTIONS)
    assert model.set_params(max_epochs=20).fit(X, y).score(X, y) > 0.9


@pytest.fixture
def language_model():
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from sktransfer.feature_extraction import TransformersFeatureExtractor

    words = ["[PAD]", "[UNK]", "good", "bad", "film", "a"]
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")
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
    return TransformersFeatureExtractor(model, tokenizer=tokenizer)


def test_a_table_of_texts(language_model, tmp_path, weights):
    pytest.importorskip("pandas")
    rows = [
        f"{i % 4 * 'a '}film {word},{word}\n"
        for i in range(30)
        for word in ("good", "bad")
    ]
    (tmp_path / "own.csv").write_text("review,opinion\n" + "".join(rows))
    X, y = load_text_csv(tmp_path / "own.csv", text="review", label="opinion")
    fits = [
        FineTuneClassifier(
            language_model, optimizer="adamw", num_workers=n, **OPTIONS
        ).fit(X, y)
        for n in (0, 2)
    ]
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))
    assert fits[1].score(X, y) > 0.9
    assert fits[1].classes_.tolist() == ["bad", "good"]
