"""TorchFeatureExtractor: inputs, source probabilities, what it leaves as it was."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.data import Dataset, TensorDataset  # noqa: E402

import sktransfer  # noqa: E402
from sktransfer.feature_extraction import (  # noqa: E402
    Extraction,
    TorchFeatureExtractor,
)
from sktransfer.feature_extraction._fingerprint import digest  # noqa: E402
from sktransfer.linear_model import LogMEClassifier  # noqa: E402


class Net(nn.Module):
    """A small network that counts its forward passes and changes its input."""

    def __init__(self, width=6, n_classes=4):
        super().__init__()
        self.passes = 0
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x):
        self.passes += 1
        x = self.norm(self.conv(x.mul_(2))).relu()
        return self.head(self.drop(x.mean((2, 3))))


def make_net(seed=0, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(**kwargs)


def bare(net, X):
    """Penultimate features and logits of a bare forward pass."""
    modes = [m.training for m in net.modules()]
    net.eval()
    with torch.inference_mode():
        x = 2 * torch.as_tensor(X, dtype=torch.float32)
        features = net.norm(net.conv(x)).relu().mean((2, 3))
        logits = net.head(features)
    for module, mode in zip(net.modules(), modes, strict=True):
        module.training = mode
    return features.numpy(), logits.numpy()


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(10, 3, 6, 6)).astype(np.float32)


@pytest.fixture
def net():
    return make_net()


close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def test_features_and_source_proba_in_one_pass(net, X):
    extractor = TorchFeatureExtractor(net, source_head="head", batch_size=4)
    extraction = extractor.extract(X, source_proba=True)
    assert isinstance(extraction, Extraction)
    assert net.passes == 3
    features, logits = bare(net, X)
    close(extraction.features["penultimate"], features)
    odds = np.exp(logits.astype(np.float64))
    close(extraction.source_proba, odds / odds.sum(axis=1, keepdims=True))
    close(extraction.source_proba.sum(axis=1, dtype=np.float64), 1)
    assert extraction.source_proba.dtype == np.float32
    close(extractor.source_proba(X), extraction.source_proba)
    assert extractor.extract(X).source_proba is None


def test_source_proba_of_the_module_s_own_output(net, X):
    extractor = TorchFeatureExtractor(net, source_head="output", layer="norm")
    close(
        extractor.source_proba(X),
        TorchFeatureExtractor(net, source_head="head").source_proba(X),
    )


def test_source_proba_needs_a_head(net, X):
    extractor = TorchFeatureExtractor(net)
    assert not hasattr(extractor, "source_proba")
    with pytest.raises(ValueError, match="need the 'source_head' parameter of TorchF"):
        extractor.extract(X, source_proba=True)


class Images(Dataset):
    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], i


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.astype(np.float64),
        lambda X: X[::-1].copy()[::-1],
        lambda X: np.asfortranarray(X),
        lambda X: torch.from_numpy(X),
        lambda X: torch.from_numpy(X).double().requires_grad_(),
        list,
        tuple,
        lambda X: X.tolist(),
        lambda X: list(torch.from_numpy(X)),
        Images,
        lambda X: TensorDataset(torch.from_numpy(X)),
    ],
)
def test_kinds_of_input(net, X, convert):
    extractor = TorchFeatureExtractor(net, source_head="head", batch_size=3)
    close(extractor.transform(convert(X.copy())), bare(net, X)[0])


def test_input_is_left_alone_and_may_be_read_only(net, X):
    kept = X.copy()
    X.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TorchFeatureExtractor(net).transform(X)
    np.testing.assert_array_equal(X, kept)
    tensor = torch.tensor(kept)
    TorchFeatureExtractor(net).transform(tensor)
    np.testing.assert_array_equal(tensor, kept)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_integers_stay_integers(dtype):
    embedding = nn.Embedding(20, 4)
    tokens = np.arange(15, dtype=dtype).reshape(5, 3)
    weight = embedding.weight.detach().numpy()
    if dtype == np.uint8:
        with pytest.raises(ValueError, match=r"shape \(5, 3\) and type torch.uint8"):
            TorchFeatureExtractor(embedding).transform(tokens)
    else:
        close(
            TorchFeatureExtractor(embedding).transform(tokens),
            weight[tokens].mean(axis=1),
        )


def test_pil_images_and_paths(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, size=(4, 6, 6, 3), dtype=np.uint8)
    images = [Image.fromarray(array) for array in arrays]
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)

    def to_tensor(image):
        array = np.asarray(image, dtype=np.float32) / 255
        return torch.from_numpy(array).permute(2, 0, 1)

    def load(path):
        with Image.open(path) as image:
            return to_tensor(image)

    net = make_net()
    extractor = TorchFeatureExtractor(net, source_head="head", preprocess=to_tensor)
    expected = bare(net, arrays.transpose(0, 3, 1, 2) / np.float32(255))[0]
    close(extractor.transform(images), expected)
    close(extractor.transform(arrays), expected)
    extractor.set_params(preprocess=load)
    close(extractor.transform(paths), expected)
    close(extractor.transform(np.array([str(path) for path in paths])), expected)

    with pytest.raises(
        ValueError, match=r"failed on sample 1 \('.*nowhere.png'\): Fil"
    ):
        extractor.transform([paths[0], tmp_path / "nowhere.png"])
    for samples in (images, paths, [str(path) for path in paths]):
        with pytest.raises(TypeError, match="need the 'preprocess' parameter"):
            extractor.set_params(preprocess=None).transform(samples)


def test_samples_of_different_shapes(net):
    for ones in (np.ones, torch.ones):
        with pytest.raises(ValueError, match="numeric arrays or tensors of one shape"):
            TorchFeatureExtractor(net).transform([ones((3, 6, 6)), ones((3, 7, 7))])


def test_batches_of_different_widths():
    X = [np.ones(3), np.ones(4)]
    with pytest.raises(ValueError, match="'output' gave 3 at first, then 4"):
        TorchFeatureExtractor(nn.Identity, batch_size=1).transform(X)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_batch_size_does_not_matter(net, X, batch_size):
    extractor = TorchFeatureExtractor(net, source_head="head", batch_size=batch_size)
    close(extractor.transform(X), bare(net, X)[0])
    np.testing.assert_array_equal(extractor.transform(X), extractor.transform(X))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("own", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype(X, dtype, own):
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 5), nn.Tanh()).to(own)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with torch.inference_mode():
        expected = net(torch.from_numpy(X).to(own)).float()
    for module in (net, lambda: net):
        extractor = TorchFeatureExtractor(module, dtype=dtype)
        features = extractor.transform(X)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, atol=0.05)
        if module is net:
            for name, tensor in net.state_dict().items():
                assert tensor.dtype == own and torch.equal(tensor, before[name])


def test_outputs_that_are_not_finite_pass():
    X = np.array([[np.nan, np.inf]], dtype=np.float32)
    np.testing.assert_array_equal(TorchFeatureExtractor(nn.Identity).transform(X), X)


def state(net):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]
    modes = [m.training for m in net.modules()]
    weights = [(p.device, p.requires_grad, p.grad, p.is_inference(), id(p), p._version)
               for p in net.parameters()]  # fmt: skip
    return hooks, modes, weights


@pytest.mark.parametrize("good", [True, False])
def test_module_is_left_as_it_was(net, X, good):
    net.train()
    net.norm.eval()
    net.conv.weight.requires_grad_(False)
    net.register_forward_hook(lambda *args: None)
    net(torch.from_numpy(X.copy())).sum().backward()
    before = state(net)
    rng = torch.get_rng_state()
    extractor = TorchFeatureExtractor(net, layer="*", source_head="head")
    if good:
        extractor.transform(X)
    else:
        with pytest.raises(ValueError, match="Net failed on the batch"):
            extractor.transform(X[:, :2])
    assert state(net) == before
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    net(torch.from_numpy(X.copy())).sum().backward()  # it can still be trained


def test_a_given_module_is_put_back_on_its_device():
    moves = []

    class Spy(nn.Linear):
        def to(self, device):
            moves.append(device.type)
            return super().to(device)

    given = Spy(3, 2)
    TorchFeatureExtractor(given, device="cpu").transform(np.eye(3))
    assert moves == ["cpu", "cpu"]  # there and back
    moves.clear()
    TorchFeatureExtractor(partial(Spy, 3, 2), device="cpu").transform(np.eye(3))
    assert moves == ["cpu"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_cpu(net, X):
    on_cpu = TorchFeatureExtractor(net, source_head="head", device="cpu", batch_size=3)
    on_gpu = clone(on_cpu).set_params(network=net, device="cuda")
    expected, given = (e.extract(X, source_proba=True) for e in (on_cpu, on_gpu))
    np.testing.assert_allclose(
        given.features["penultimate"], expected.features["penultimate"], atol=1e-3
    )
    np.testing.assert_allclose(given.source_proba, expected.source_proba, atol=1e-3)
    assert next(net.parameters()).device.type == "cpu"


def test_bad_batch_is_named(net, X):
    samples = [*X[:5], X[5, :2]]
    with pytest.raises(
        ValueError,
        match=r"Net failed on the batch of samples 5 to 5, an input of shape "
        r"\(1, 2, 6, 6\) and type torch.float32: .*channels",
    ) as caught:
        TorchFeatureExtractor(net, batch_size=5).transform(samples)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_empty_input(net):
    with pytest.raises(
        ValueError, match=r"Found array with 0 sample\(s\).*minimum of 1"
    ):
        TorchFeatureExtractor(net).transform(np.empty((0, 3, 6, 6)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batch_size": 0}, "'batch_size' parameter of TorchFeatureExtractor must be"),
        ({"pooling": "median"}, "'pooling' parameter of TorchFeatureExtractor must be"),
        ({"preprocess": 3}, "'preprocess' parameter of TorchFeatureExtractor must be"),
        ({"dtype": "int8"}, "'dtype' parameter of TorchFeatureExtractor must be"),
        ({"layer": 3}, "'layer' parameter of TorchFeatureExtractor must be"),
        ({"network": None}, "'network' parameter of TorchFeatureExtractor must be"),
    ],
)
def test_parameters_are_validated(X, params, message):
    extractor = TorchFeatureExtractor(make_net).set_params(**params)
    for method in (extractor.fit, extractor.transform):
        with pytest.raises(ValueError, match=message):
            method(X)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_unknown_device(net, X, device):
    with pytest.raises(ValueError, match=f"'device' parameter .* Got '{device}' inst"):
        TorchFeatureExtractor(net, device=device).transform(X)
    assert net.head.weight.device.type == "cpu"


@pytest.mark.parametrize("name", ["resnet", "no.such:thing", "math:nothing", "math:"])
def test_unknown_import_name(X, name):
    with pytest.raises(ValueError, match=f"'package.module:factory'. Got '{name}'"):
        TorchFeatureExtractor(name).transform(X)


def test_factory_that_makes_no_module(X):
    with pytest.raises(TypeError, match="makes an object of type list"):
        TorchFeatureExtractor(list).transform(X)


def test_module_is_made_once_when_first_used(X):
    made = []

    def factory(width=6):
        made.append(width)
        return make_net(width=width)

    extractor = TorchFeatureExtractor(factory, layer="norm").fit(X)
    assert not made
    extractor.transform(X)
    extractor.set_params(layer="conv").transform(X)
    assert made == [6]
    extractor.set_params(network=partial(factory, 7))
    assert extractor.transform(X).shape == (10, 7)
    extractor.network = partial(factory, 8)  # as scikit-learn's own set_params does it
    assert extractor.transform(X).shape == (10, 8)
    assert made == [6, 7, 8]


def test_import_name(X):
    features = TorchFeatureExtractor("torch.nn:Identity").transform(X)
    close(features, X.mean((2, 3)))


def test_pickle_and_clone_leave_weights_out(X):
    extractor = TorchFeatureExtractor(partial(make_net, width=500), source_head="head")
    features = extractor.transform(X)
    assert len(pickle.dumps(extractor)) < 2000
    for copy in (pickle.loads(pickle.dumps(extractor)), clone(extractor)):
        close(copy.transform(X), features)


def test_pickle_keeps_the_weights_of_a_module(net, X):
    extractor = TorchFeatureExtractor(net)
    restored = pickle.loads(pickle.dumps(extractor))
    close(restored.transform(X), extractor.transform(X))
    assert clone(extractor).network is not net


def test_fingerprint_of_a_module(net):
    fingerprint = TorchFeatureExtractor(net).fingerprint()
    assert TorchFeatureExtractor(make_net()).fingerprint() == fingerprint
    assert clone(TorchFeatureExtractor(net)).fingerprint() == fingerprint
    assert TorchFeatureExtractor(make_net(seed=1)).fingerprint() != fingerprint
    assert TorchFeatureExtractor(net, layer="conv").fingerprint() != fingerprint
    assert TorchFeatureExtractor(net, batch_size=2).fingerprint() == fingerprint
    with torch.no_grad():
        net.conv.bias[0] += 1
    assert TorchFeatureExtractor(net).fingerprint() != fingerprint


def test_fingerprint_of_a_factory(X):
    # One with a name counts by its name and arguments, and is not even called.
    named = TorchFeatureExtractor(partial(Net, width=10**12))
    assert named.fingerprint() == clone(named).fingerprint()
    assert named.fingerprint() != TorchFeatureExtractor(Net).fingerprint()
    # One without counts by the weights that it makes.
    anonymous = [TorchFeatureExtractor(lambda s=s: make_net(s)) for s in (0, 0, 1)]
    first, second, other = (extractor.fingerprint() for extractor in anonymous)
    assert first == second != other
    anonymous[0].transform(X)
    assert anonymous[0].fingerprint() == first


def saved_linear(file):
    linear = nn.Linear(12, 2)
    linear.load_state_dict(torch.load(file))
    return linear


@pytest.mark.parametrize("how", ["own", "library"])
def test_fingerprint_of_a_factory_that_reads_a_file(how, tmp_path):
    file = tmp_path / "weights.pt"
    found = []
    for _ in range(2):
        linear = nn.Linear(12, 2)
        torch.save(linear.state_dict() if how == "own" else linear, file)
        own = partial(saved_linear, file)
        library = partial(torch.load, str(file), weights_only=False)
        extractor = TorchFeatureExtractor(own if how == "own" else library)
        assert extractor.fingerprint() == clone(extractor).fingerprint()
        found.append(extractor.fingerprint())
    assert found[0] != found[1]


class Tagged(torch.Tensor):
    pass


def test_attributes_of_a_tensor_of_another_class_count():
    tensors = [torch.zeros(2).as_subclass(Tagged) for _ in range(2)]
    tensors[1].scale = 3
    plain = torch.zeros(2)
    assert len({digest(tensor) for tensor in (*tensors, plain)}) == 3


def test_fingerprint_in_another_process():
    code = (
        "from functools import partial; from torch import nn\n"
        "from sktransfer.feature_extraction import TorchFeatureExtractor as Extractor\n"
        "linear = nn.Linear(2, 2); nn.init.ones_(linear.weight)\n"
        "nn.init.zeros_(linear.bias)\n"
        "modules = ['torch.nn:Identity', partial(nn.Linear, 2, 2), linear,"
        " lambda: linear]\n"
        "fingerprints = [Extractor(m, pooling=lambda x: x[:, 0]).fingerprint()"
        " for m in modules]\n"
        "print(*fingerprints, file=out)"
    )
    here = StringIO()
    exec(code, {"__name__": "__main__", "out": here})
    there = subprocess.run(
        [sys.executable, "-c", "import sys; out = sys.stdout\n" + code],
        env={"PYTHONPATH": str(Path(sktransfer.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout == here.getvalue()
    name, factory, instance, made = here.getvalue().split()
    assert instance == made and len({name, factory, instance}) == 3


def test_in_a_pipeline(X):
    pipe = make_pipeline(
        TorchFeatureExtractor(make_net, layer="norm"), StandardScaler()
    )
    scaled = pipe.fit_transform(X)
    assert scaled.shape == (10, 6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-4)
    assert pipe.get_feature_names_out()[0] == "norm_0"


def test_set_output(X):
    pytest.importorskip("pandas")
    extractor = TorchFeatureExtractor(make_net).set_output(transform="pandas")
    assert list(extractor.transform(X).columns) == [f"output_{i}" for i in range(4)]
    for step in (TorchFeatureExtractor(make_net), FrozenEstimator(extractor)):
        pipe = make_pipeline(step, StandardScaler()).set_output(transform="pandas")
        assert pipe.fit_transform(X).columns[0] == "output_0"


def test_frozen(net, X):
    extractor = TorchFeatureExtractor(net, source_head="head", layer=["conv", "norm"])
    frozen = FrozenEstimator(extractor)
    assert clone(frozen).network is net  # weights are not copied
    check_is_fitted(frozen)
    features = frozen.fit(X, None).transform(X)
    np.testing.assert_array_equal(features, extractor.transform(X))
    close(frozen.source_proba(X), extractor.source_proba(X))
    assert frozen.get_feature_names_out()[-1] == "norm_5"


@pytest.mark.parametrize("wrap", [lambda e: e, FrozenEstimator])
def test_metadata_passes_by(net, X, wrap):
    y, weights = np.arange(10) % 2, np.repeat([1.0, 0.0], [7, 3])
    extractor = TorchFeatureExtractor(net, source_head="head")
    with config_context(enable_metadata_routing=True):
        logme = LogMEClassifier().set_fit_request(sample_weight=True)
        pipe = make_pipeline(wrap(extractor), logme)
        pipe.fit(X, y, sample_weight=weights)
    expected = LogMEClassifier().fit(extractor.transform(X[:7]), y[:7])
    np.testing.assert_allclose(pipe[-1].coef_, expected.coef_, rtol=1e-4)


@parametrize_with_checks([TorchFeatureExtractor(nn.Identity)])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks(estimator, check):
    check(estimator)
