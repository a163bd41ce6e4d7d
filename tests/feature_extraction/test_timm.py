"""TimmFeatureExtractor: against timm itself, with random weights and no network."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
Image = pytest.importorskip("PIL.Image")

from sktransfer.exceptions import CandidateFailedWarning  # noqa: E402
from sktransfer.feature_extraction import (  # noqa: E402
    TimmFeatureExtractor,
    TorchFeatureExtractor,
)
from sktransfer.model_selection import ModelSelector  # noqa: E402

close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
Untrained = partial(TimmFeatureExtractor, pretrained=False)
CONV, VIT = "test_resnet", "test_vit"
SMALL = {"image_size": 64}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    # Smooth, so that interpolation has something to do, and of a shape to be cropped.
    coarse = rng.integers(0, 256, size=(5, 8, 10, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((50, 40))) for c in coarse])


def save_checkpoint(file, name=CONV, seed=3, **kwargs):
    """Weights of a network that no extractor makes by itself."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model(name, **kwargs).eval()
    if file.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(model.state_dict(), file)
    else:
        torch.save({"state_dict": model.state_dict()}, file)
    return model


def inputs_of(model, images):
    """What timm's own loader would hand to the model."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    return torch.stack([transform(Image.fromarray(image)) for image in images])


# Convolutions, a classifier inside of a head, tokens, maps with channels last; then two
# classifiers, and a list of them.
@pytest.mark.parametrize(
    "name",
    [
        CONV,
        "test_convnext",
        VIT,
        "test_mambaout",
        "deit_tiny_distilled_patch16_224",
        "crossvit_9_240",
    ],
)
def test_penultimate_features_and_source_proba_are_timm_s(name, images, tmp_path):
    path = tmp_path / "weights.pt"
    model = save_checkpoint(path, name)
    with torch.inference_mode():
        inputs = inputs_of(model, images[:3])
        maps = model.forward_features(inputs)
        features = model.forward_head(maps, pre_logits=True)
        proba = torch.softmax(model(inputs), dim=1)
    extractor = TimmFeatureExtractor(name, checkpoint_path=path)
    extraction = extractor.extract(images[:3], source_proba=True)
    close(extraction.features["penultimate"], features)
    close(extraction.source_proba, proba)
    close(extractor.transform(images[:3]), features)


def test_checkpoints_of_both_kinds(images, tmp_path):
    model = save_checkpoint(tmp_path / "a.safetensors", num_classes=7)
    save_checkpoint(tmp_path / "b.pth", num_classes=7)
    with torch.inference_mode():
        proba = torch.softmax(model(inputs_of(model, images)), dim=1)
    for file in ("a.safetensors", "b.pth"):
        extractor = TimmFeatureExtractor(
            CONV, checkpoint_path=tmp_path / file, model_kwargs={"num_classes": 7}
        )
        close(extractor.source_proba(images), proba)


def test_network_of_a_local_folder(images, tmp_path):
    pytest.importorskip("safetensors")
    model = save_checkpoint(tmp_path / "weights.pt")
    folders = [tmp_path / "here", tmp_path / "there", tmp_path / "other"]
    for folder in folders[:2]:
        timm.models.save_for_hf(model, folder)
    timm.models.save_for_hf(timm.create_model(CONV, num_classes=5), folders[2])
    here, there, other = (
        TimmFeatureExtractor(f"local-dir:{folder}") for folder in folders
    )
    with torch.inference_mode():
        proba = torch.softmax(model(inputs_of(model, images)), dim=1)
    close(here.source_proba(images), proba)
    assert other.source_proba(images).shape == (len(images), 5)
    assert here.fingerprint() == there.fingerprint() != other.fingerprint()


def test_checkpoint_that_does_not_fit(images, tmp_path):
    save_checkpoint(tmp_path / "other.pth", num_classes=7)
    torch.save({"model": Untrained(CONV)}, tmp_path / "pickle.pth")
    for file, reason in [
        ("other.pth", "size mismatch"),
        ("absent.pth", "FileNotFoundError"),
        ("pickle.pth", "weights_only"),
    ]:
        extractor = TimmFeatureExtractor(CONV, checkpoint_path=tmp_path / file)
        with pytest.raises(
            ValueError, match=rf"(?s)'checkpoint_path'.*{file}.*{reason}"
        ):
            extractor.transform(images)


def test_layers_by_wildcard(images):
    model = timm.create_model(VIT)
    layers = Untrained(VIT, layer=["blocks.*", "mean"]).transform_layers(images)
    blocks = [f"blocks.{i}" for i in range(len(model.blocks))]
    assert list(layers) == [*blocks, "mean"]
    close(layers["mean"], np.mean([layers[name] for name in blocks], axis=0))
    with pytest.raises(ValueError, match="a submodule of VisionTransformer. Got"):
        Untrained(VIT, layer="fc").transform(images)


@pytest.mark.parametrize("name", [CONV, VIT, "test_efficientnet", "levit_128s"])
def test_all_layers_end_with_the_features(name, images):
    images = images[:3]
    model = Untrained(name).load_module()
    inputs, hooks = {}, []
    for part, module in model.named_modules():

        def keep(_, args, name=f"input({part})"):
            inputs.pop(name, None)
            inputs[name] = args[0].clone()

        hooks.append(module.register_forward_pre_hook(keep))
    with torch.no_grad():
        features = model.eval().forward_head(
            model.forward_features(inputs_of(model, images)), pre_logits=True
        )
    for hook in hooks:
        hook.remove()
    extractor = Untrained(name, layer="all", pooling=("grid", 2), batch_size=2)
    *inner, (last, own) = extractor.transform_layers(images).items()
    assert last == "penultimate"
    close(own, features)
    order = list(inputs)
    places = [order.index(layer) for layer, _ in inner]
    assert places == sorted(places)
    for layer, pooled in inner:
        output = inputs[layer]
        if output.ndim == 4:
            if output.shape[1] == output.shape[2]:  # tokens on a grid of patches
                output = output.permute(0, 3, 1, 2)
            output = torch.nn.functional.adaptive_avg_pool2d(output, 2).flatten(1)
        elif output.ndim == 3:
            output = output.mean(1)
        close(pooled, output, atol=1e-4)
    assert len(inner) > 10


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_maps_with_channels_last_are_pooled_over_space(images, pooling):
    name = "swin_tiny_patch4_window7_224"
    kwargs = {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2)}
    extractor = Untrained(
        name, model_kwargs=kwargs, layer=["layers.*", "patch_embed"], pooling=pooling
    )
    maps = {}
    module = extractor.make_module().eval()
    for layer in ("layers.0", "layers.1", "patch_embed"):
        module.get_submodule(layer).register_forward_hook(
            lambda _, args, out, layer=layer: maps.update({layer: out})
        )
    with torch.inference_mode():
        module(inputs_of(module, images))
    for layer, features in extractor.transform_layers(images).items():
        expected = maps[layer].flatten(1, 2)
        close(features, expected.mean(1) if pooling == "mean" else expected.amax(1))


def test_image_size(images):
    for name in (CONV, VIT, "test_maxvit"):
        extractor = Untrained(name, **SMALL)
        assert extractor.preprocess(images[0]).shape == (3, 64, 64)
        assert extractor.transform(images).shape[0] == len(images)


def test_kinds_of_images(images, tmp_path):
    extractor = Untrained(CONV, **SMALL, batch_size=2)
    expected = extractor.transform(images)
    pictures = [Image.fromarray(image) for image in images]
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)
    opaque = np.concatenate([images, np.full_like(images[..., :1], 255)], axis=3)
    dataset = torch.utils.data.StackDataset(images, np.arange(len(images)))
    for X in (
        list(images),
        torch.from_numpy(images),
        pictures,
        [picture.convert("RGBA") for picture in pictures],
        files,
        [str(file) for file in files],
        np.array([str(file) for file in files]),
        opaque,
        dataset,
    ):
        close(extractor.transform(X), expected)


def test_grey_images(images):
    grey = images[..., 0]
    extractor = Untrained(CONV, **SMALL)
    expected = extractor.transform(np.repeat(grey[..., None], 3, axis=3))
    for X in (grey, grey[..., None], [Image.fromarray(image) for image in grey]):
        close(extractor.transform(X), expected)


def test_images_of_different_sizes(images):
    mixed = [images[0], images[1][:30, :20], images[2]]
    extractor = Untrained(CONV, **SMALL)
    close(
        extractor.transform(mixed), np.vstack([extractor.transform([x]) for x in mixed])
    )


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((40, 50, 3), np.float32), "type uint8 .* Got type float32 and shape"),
        (np.zeros((3, 40, 50), np.uint8), r"Got type uint8 and shape \(3, 40, 50\)"),
        (Image.new("I;16", (50, 40)), "8 bits per channel. Got one of mode 'I;16'"),
        (Image.new("F", (50, 40)), "8 bits per channel. Got one of mode 'F'"),
        ({"x": 1}, "Got type object"),
    ],
)
def test_what_is_no_image(images, image, message):
    with pytest.raises(ValueError, match=f"on sample 1.*: {message}|{message}"):
        Untrained(CONV, **SMALL).transform([images[0], image])


def test_one_bad_file_in_a_folder_is_named(images, tmp_path):
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    content = (tmp_path / "3.png").read_bytes()
    files = sorted(tmp_path.iterdir())
    for broken in (b"no image", content[: len(content) // 2]):
        (tmp_path / "3.png").write_bytes(broken)
        with pytest.raises(ValueError, match=r"sample 3 \('.*3\.png'\)"):
            Untrained(CONV, **SMALL).transform(files)


def test_unknown_name_lists_close_ones(images):
    for name, likely in [("resnet_50", "'resnet50'"), ("vit_tiny.none", "vit_")]:
        with pytest.raises(ValueError, match=rf"(?s)'network'.*{name}.*{likely}"):
            Untrained(name).transform(images)
    with pytest.raises(ValueError, match=r"'resnet50\.wrong_tag'"):
        Untrained("resnet50.wrong_tag").transform(images)


def test_network_without_classifier(images, tmp_path):
    model = save_checkpoint(tmp_path / "a.pt", num_classes=0)
    extractor = TimmFeatureExtractor(
        CONV, checkpoint_path=tmp_path / "a.pt", model_kwargs={"num_classes": 0}
    )
    with torch.inference_mode():
        close(extractor.transform(images), model(inputs_of(model, images)))
    other = {"num_classes": 3}  # the classifier of which would be random
    for headless, reason in [
        (extractor, r"'test_resnet' has none \(num_classes=0\)"),
        (TimmFeatureExtractor("vit_small_patch14_dinov2"), "has none"),
        (TimmFeatureExtractor(CONV, model_kwargs=other), "with 1000 classes, not num_"),
    ]:
        assert not hasattr(headless, "source_proba")
        with pytest.raises(ValueError, match=f"a trained classifier, but .*{reason}"):
            headless.extract(images, source_proba=True)


def test_untrained_weights_are_the_same_every_time(images):
    torch.rand(3)
    state = torch.get_rng_state()
    first = Untrained(CONV).transform(images)
    assert torch.equal(torch.get_rng_state(), state)
    close(Untrained(CONV).transform(images), first, rtol=0, atol=0)


def test_weights_stay_out_of_clones_and_pickles(images):
    extractor = Untrained(CONV, **SMALL)
    features = extractor.transform(images)
    data = pickle.dumps(extractor)
    assert len(data) < 2_000
    for copy in (clone(extractor), pickle.loads(data)):
        assert "module" not in copy._cache()
        assert copy.fingerprint() == extractor.fingerprint()
        close(copy.transform(images), features)


def test_a_new_parameter_makes_a_new_network(images):
    extractor = Untrained(CONV)
    extractor.transform(images)
    extractor.set_params(network=VIT)
    close(extractor.transform(images), Untrained(VIT).transform(images))
    extractor.set_params(image_size=64)
    close(extractor.transform(images), Untrained(VIT, **SMALL).transform(images))


def test_fingerprint_tells_what_is_computed(tmp_path):
    save_checkpoint(tmp_path / "a.pt")
    save_checkpoint(tmp_path / "b.pt", seed=4)
    a, b = (
        TimmFeatureExtractor(CONV, checkpoint_path=tmp_path / file)
        for file in ("a.pt", "b.pt")
    )
    extractors = {
        "untrained": Untrained(CONV),
        "pretrained": TimmFeatureExtractor(CONV),
        "layer": Untrained(CONV, layer="layer1"),
        "size": Untrained(CONV, **SMALL),
        "kwargs": Untrained(CONV, model_kwargs={"num_classes": 0}),
        "tag": TimmFeatureExtractor("resnet50.a1_in1k"),
        "other tag": TimmFeatureExtractor("resnet50.tv_in1k"),
        "checkpoint": a,
        "other checkpoint": b,
    }
    prints = {name: e.fingerprint() for name, e in extractors.items()}
    assert len(set(prints.values())) == len(prints)
    assert all("module" not in e._cache() for e in extractors.values())
    # The default tag spelt out, the speed, and where a file lies change nothing.
    tag = timm.get_pretrained_cfg("resnet50").tag
    for one, other in [
        (TimmFeatureExtractor("resnet50"), TimmFeatureExtractor(f"resnet50.{tag}")),
        (Untrained(CONV), Untrained(CONV, batch_size=1, device="cpu")),
        (a, clone(a).set_params(checkpoint_path=str(tmp_path / "c.pt"))),
        (a, clone(a).set_params(pretrained=False)),
    ]:
        (tmp_path / "c.pt").write_bytes((tmp_path / "a.pt").read_bytes())
        assert one.fingerprint() == other.fingerprint()


def test_ranked_layer_by_layer_with_source_probabilities(images):
    X, y = np.concatenate([images, images[:, ::-1]]), np.repeat([0, 1], 5)
    candidates = [
        ("resnet", Untrained(CONV, layer=["layer3", "penultimate"], **SMALL)),
        ("no head", Untrained(CONV, model_kwargs={"num_classes": 0}, **SMALL)),
    ]
    selector = ModelSelector(candidates, scoring=["logme", "leep"])
    with pytest.warns(CandidateFailedWarning, match="num_classes=0"):
        selector.fit(X, y)
    assert list(selector.results_["layer"]) == ["layer3", "penultimate", ""]
    assert np.isfinite(selector.results_["logme"]).all()
    np.testing.assert_array_equal(
        np.isfinite(selector.results_["leep"]), [True, True, False]
    )


def test_torchvision_network_with_its_own_transforms(images):
    models = pytest.importorskip("torchvision.models")
    transform = models.SqueezeNet1_1_Weights.DEFAULT.transforms(crop_size=64)
    with torch.random.fork_rng():
        network = models.squeezenet1_1().eval()
    pictures = [Image.fromarray(image) for image in images]
    with torch.inference_mode():
        inputs = torch.stack([transform(picture) for picture in pictures])
        features, logits = network.features(inputs).mean((2, 3)), network(inputs)
    extractor = TorchFeatureExtractor(
        network, layer="features", preprocess=transform, source_head="output"
    )
    extraction = extractor.extract(pictures, source_proba=True)
    close(extraction.features["features"], features)
    close(extraction.source_proba, torch.softmax(logits, dim=1))
