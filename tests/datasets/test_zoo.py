"""The embedded zoo: networks, cards and the control that was never trained."""

import pickle
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from sktransfer.datasets import (
    load_dataset,
    load_zoo,
    load_zoo_cards,
    load_zoo_network,
)

ZOO = resources.files("sktransfer.datasets") / "data" / "zoo"
NAMES = list(load_zoo_cards())
TRAINED = [name for name in NAMES if not name.endswith("untrained")]
UNTRAINED = [name for name in NAMES if name.endswith("untrained")]
SOURCE_FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "real" / "images"
SOURCE_FILES = {
    "objects": "caltech101_50",
    "clothes": "clothing",
    "products": "fashion_mnist_900",
    "handwritten": "mnist",
    "alphabets": "omniglot_alphabets",
    "emoji": "noto_emoji_groups",
}


@pytest.fixture(scope="module")
def images():
    return load_dataset().data[::60]


def test_two_architectures_times_six_sources_and_a_control():
    sources = [*SOURCE_FILES, "untrained"]
    expected = [f"{a}-{source}" for source in sources for a in ("residual", "plain")]
    assert expected == NAMES


def test_the_weights_are_small_and_all_there():
    sizes = {name: len((ZOO / f"{name}.safetensors").read_bytes()) for name in NAMES}
    assert min(sizes.values()) > 100_000
    assert sum(sizes.values()) <= 2_500_000


def test_cards_are_complete():
    cards = load_zoo_cards()
    keys = set(cards["residual-objects"])
    readme = (ZOO / "README.md").read_text("utf-8")
    for name, card in cards.items():
        assert set(card) == keys
        assert name == card["name"] == f"{card['architecture']}-{card['source']}"
        assert card["weights"] == f"{name}.safetensors"
        assert card["description"]
        assert card["licence"]
    for name in TRAINED:
        card = cards[name]
        assert card["n_classes"] == len(set(card["class_names"]))
        assert card["epochs"] > 0
        share = card["n_validation"] / (card["n_validation"] + card["n_train"])
        assert 0.15 <= share <= 0.2
        # Far above chance, and no source is so easy that it says nothing.
        assert 3 / card["n_classes"] < card["validation_accuracy"] <= 1
        assert card["repository"] in readme
        assert card["revision"] in readme
    for name in UNTRAINED:
        assert cards[name]["validation_accuracy"] is None
        assert cards[name]["n_train"] == cards[name]["epochs"] == 0


def test_cards_are_fresh_copies():
    load_zoo_cards()["plain-emoji"]["n_classes"] = -1
    assert load_zoo_cards()["plain-emoji"]["n_classes"] == 9


def test_importing_the_package_leaves_torch_out():
    code = "import sys, sktransfer.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_cards_are_true(name):
    torch = pytest.importorskip("torch")
    card, network = load_zoo_cards()[name], load_zoo_network(name)
    assert not network.training
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    n_parameters = sum(weight.numel() for weight in network.parameters())
    assert n_parameters == card["n_parameters"] <= 82_000
    assert list(network.named_children())[-1][0] == "head"
    assert network.head.in_features == card["n_features"] == 64
    assert network.head.out_features == card["n_classes"]
    # The buffers went through float16.
    np.testing.assert_allclose(network.mean, card["mean"], rtol=1e-3)
    np.testing.assert_allclose(network.std, card["std"], rtol=1e-3)


def test_architectures_are_of_equal_size():
    cards = load_zoo_cards()
    for source in [*SOURCE_FILES, "untrained"]:
        residual, plain = (
            cards[f"{architecture}-{source}"]["n_parameters"]
            for architecture in ("residual", "plain")
        )
        assert abs(residual - plain) < 0.05 * residual


@pytest.mark.parametrize("name", NAMES)
def test_extractor_gives_the_input_of_the_head(name, images):
    torch = pytest.importorskip("torch")
    ((loaded_name, extractor),) = load_zoo([name], device="cpu")
    assert loaded_name == name
    features = extractor.fit(images).transform(images)
    assert features.shape == (len(images), 64)
    assert features.dtype == np.float32
    network = load_zoo_network(name)
    with torch.inference_mode():
        logits = network(torch.from_numpy(images))
        np.testing.assert_allclose(
            network.head(torch.from_numpy(features)), logits, rtol=1e-3, atol=1e-4
        )
    probabilities = extractor.source_proba(images)
    np.testing.assert_allclose(
        probabilities, torch.softmax(logits, dim=1), rtol=1e-3, atol=1e-5
    )


def test_pil_images_and_paths_give_the_features_of_their_arrays(images, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    ((_, extractor),) = load_zoo("plain-emoji")
    expected = extractor.transform(images)
    pictures = [Image.fromarray(image) for image in images]
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    for X in (pictures, paths, [str(path) for path in paths], list(images)):
        np.testing.assert_allclose(extractor.transform(X), expected, atol=1e-5)
    large = [picture.resize((64, 64), resample=0) for picture in pictures]
    near = extractor.transform(large)
    assert np.corrcoef(near.ravel(), expected.ravel())[0, 1] > 0.9
    wide = [Image.new("L", (200, 40)), Image.new("RGBA", (10, 90))]
    assert extractor.transform(wide).shape == (2, 64)


def test_what_is_no_image_is_named(images, tmp_path):
    ((_, extractor),) = load_zoo("plain-emoji")
    with pytest.raises(ValueError, match="sample 0 .*FileNotFoundError"):
        extractor.transform([tmp_path / "nowhere.png"])
    with pytest.raises(ValueError, match="sample 0: .*arrays of shape .*type int"):
        extractor.transform([1, 2])


def test_features_are_repeatable(images):
    pytest.importorskip("torch")
    ((_, extractor),) = load_zoo("residual-alphabets", device="cpu")
    features = extractor.transform(images)
    np.testing.assert_array_equal(extractor.transform(images), features)
    for twin in (clone(extractor), pickle.loads(pickle.dumps(extractor))):
        np.testing.assert_array_equal(twin.transform(images), features)
    small = extractor.set_params(batch_size=7).transform(images)
    np.testing.assert_allclose(small, features, rtol=1e-4, atol=1e-5)


def test_extractors_pickle_without_their_weights(images):
    pytest.importorskip("torch")
    ((_, extractor),) = load_zoo("plain-clothes", device="cpu")
    extractor.transform(images)
    assert len(pickle.dumps(extractor)) < 5_000


def test_layers_come_from_one_pass(images):
    pytest.importorskip("torch")
    ((_, extractor),) = load_zoo("plain-products", device="cpu")
    extractor.set_params(layer=["stage1", "stage2", "stage3"])
    widths = {k: f.shape[1] for k, f in extractor.transform_layers(images).items()}
    assert widths == {"stage1": 16, "stage2": 32, "stage3": 64}


@pytest.mark.parametrize("architecture", ["residual", "plain"])
def test_networks_take_integers_and_floats(architecture, images):
    torch = pytest.importorskip("torch")
    network = load_zoo_network(f"{architecture}-objects")
    with torch.inference_mode():
        logits = network(torch.from_numpy(images))
        for dtype in (torch.float32, torch.float64, torch.int64):
            same = network(torch.from_numpy(images).to(dtype))
            np.testing.assert_array_equal(same, logits)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (32, 32, 3), (2, 28, 28, 3)])
def test_wrong_image_shapes(shape):
    torch = pytest.importorskip("torch")
    network = load_zoo_network("plain-emoji")
    with pytest.raises(ValueError, match="channels last, got an array of shape"):
        network(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("name", UNTRAINED)
def test_the_control_is_untrained(name):
    torch = pytest.importorskip("torch")
    from sktransfer.datasets._networks import build_network

    card = load_zoo_cards()[name]
    fresh = build_network(
        card["architecture"], 10, card["mean"], card["std"], seed=card["seed"]
    ).state_dict()
    stored = load_zoo_network(name).state_dict()
    assert fresh.keys() == stored.keys()
    for key, value in fresh.items():
        if value.is_floating_point():
            value = value.half().float()
        assert torch.equal(value, stored[key]), key


def test_loading_leaves_the_random_state_alone():
    torch = pytest.importorskip("torch")
    before = torch.random.get_rng_state()
    load_zoo_network("residual-clothes")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_can_be_changed_without_harm(images):
    torch = pytest.importorskip("torch")
    first = load_zoo_network("residual-emoji")
    with torch.no_grad():
        first.head.weight.zero_()
    assert load_zoo_network("residual-emoji").head.weight.abs().max() > 0


@pytest.mark.skipif(
    not SOURCE_FOLDER.is_dir(), reason="the sources' images are not part of the package"
)
@pytest.mark.parametrize("name", TRAINED)
def test_source_accuracy_is_true(name):
    pytest.importorskip("torch")
    card = load_zoo_cards()[name]
    with np.load(SOURCE_FOLDER / f"{SOURCE_FILES[card['source']]}.npz") as file:
        pictures, labels = file["images"], file["labels"]
        assert [str(label) for label in file["class_names"]] == card["class_names"]
    train, validation = train_test_split(
        np.arange(len(labels)),
        test_size=card["validation_fraction"],
        stratify=labels,
        random_state=card["seed"],
    )
    assert len(train) == card["n_train"]
    assert len(validation) == card["n_validation"]
    ((_, extractor),) = load_zoo(name, device="cpu")
    proba = extractor.source_proba(pictures[validation])
    accuracy = np.mean(proba.argmax(axis=1) == labels[validation])
    # Another machine may round a sample or two to the other side.
    assert accuracy == pytest.approx(
        card["validation_accuracy"], abs=2.5 / len(validation)
    )


def test_unknown_networks():
    for load in (load_zoo_network, load_zoo):
        with pytest.raises(ValueError, match=r"no network 'resnet'.*'plain-untrained'"):
            load("resnet")
    with pytest.raises(ValueError, match="no network 'emoji'"):
        load_zoo(["plain-emoji", "emoji"])


def test_order_of_names_is_kept():
    pytest.importorskip("torch")
    wanted = ["plain-emoji", "residual-untrained", "plain-clothes"]
    assert [name for name, _ in load_zoo(wanted)] == wanted
    assert [name for name, _ in load_zoo()] == NAMES


@pytest.mark.parametrize("missing", ["torch", "safetensors.torch"])
def test_missing_packages_name_the_extra(monkeypatch, missing):
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"sktransfer\[torch\]"):
        load_zoo_network("plain-emoji")
    if missing == "torch":
        with pytest.raises(ImportError, match=r"sktransfer\[torch\]"):
            load_zoo("plain-emoji")
