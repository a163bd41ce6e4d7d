"""Digests of functions, classes and networks: all that changes results counts."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
import sklearn

from sktransfer.feature_extraction import BaseExtractor, Extraction
from sktransfer.feature_extraction._code import library_version
from sktransfer.feature_extraction._fingerprint import (
    UndigestibleError,
    digest,
    digest_samples,
)

FACTOR = 2


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module of the user's own and import it, anew if need be."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = []

    def run(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        written.append(name)
        if name in sys.modules:
            return importlib.reload(sys.modules[name])
        return importlib.import_module(name)

    yield run
    for name in written:
        sys.modules.pop(name, None)


def test_an_importable_function_counts_by_its_code(write):
    first = digest(write("own_code", "def f(x):\n    return x + 1\n").f)
    assert digest(write("own_code", "\n\ndef f(x):\n    return x + 1\n").f) == first
    assert digest(write("own_code", "def f(x):\n    return x + 2\n").f) != first


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return helper(x)\n",
        "def f(x):\n    return [helper(y) for y in x]\n",
        "def f(x):\n    def inner():\n        return helper(x)\n    return inner()\n",
        "def f(x):\n    class Local:\n        y = helper(x)\n    return Local.y\n",
        "def f(x):\n    import own_helper\n    return own_helper.helper(x)\n",
        "import own_helper\ndef f(x):\n    return own_helper.helper(x)\n",
        "import own_helper as h\nf = lambda x: h.helper(x)\n",
        "import own_helper\nclass f:\n    call = own_helper.helper\n",
        "import own_helper\nclass f(own_helper.Base):\n    pass\n",
        "import own_helper\ndef f(x, g=own_helper.helper):\n    return g(x)\n",
        "import own_helper, functools\nf = functools.lru_cache(own_helper.helper)\n",
        "import own_helper\nf = own_helper\n",
    ],
)
def test_what_code_refers_to_counts(write, source):
    helper = "def helper(x):\n    return {} * x\nclass Base:\n    y = {}\n"
    if "own_helper" not in source:
        source = "from own_helper import helper\n" + source
    found = []
    for factor in (1, 1, 2):
        write("own_helper", helper.format(factor, factor))
        found.append(digest(write("own_code", source).f))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: np.mean(x), lambda x: np.median(x)),
        (lambda x: np.mean(x), lambda y: np.mean(y)),  # as a keyword
        (lambda x: x[0], lambda x: x[1]),
        (lambda x, *, k=1: x, lambda x, *, k=2: x),
        (lambda x: lambda: x + 1, lambda x: lambda: x + 2),
        (property(lambda self: 1), property(lambda self: 2)),
        (staticmethod(lambda: 1), staticmethod(lambda: 2)),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
        (np.ma.array([1, 2]), np.array([1, 2])),
        (np.zeros(2, dtype=[("a", "f8")]), np.zeros(2, dtype=[("b", "f8")])),
        (np.zeros(2, "<f8"), np.zeros(2, ">f8")),
        (np.arange(4.0).reshape(2, 2), np.arange(4.0).reshape(2, 2).T),
        (["ab", "c"], ["a", "bc"]),
        ([b"a", [b"b"]], [[b"a"], b"b"]),
    ],
)
def test_small_differences_count(one, other):
    assert digest(one) != digest(other)
    if not isinstance(one, staticmethod):
        assert digest(one) == digest(copy.deepcopy(one))


def with_attribute(factor):
    def function(x):
        return x * function.factor

    function.factor = factor
    return function


def of_a_metaclass(factor):
    class Kind(type):
        def __call__(cls):
            return factor

    return Kind("Made", (), {})


def with_a_factor(array, factor):
    array = array.view(type("Scaled", (np.ndarray,), {}))
    array.factor = factor
    return array


def test_own_module_of_the_name_of_a_standard_one(write, monkeypatch):
    library_version.cache_clear()
    monkeypatch.delitem(sys.modules, "sched", raising=False)
    found = [digest(write("sched", f"def f(x): return {k} * x").f) for k in (1, 1, 2)]
    library_version.cache_clear()
    assert found[0] == found[1] != found[2]
    assert library_version("json") is not None


@pytest.mark.parametrize("make", [with_attribute, of_a_metaclass])
def test_what_hangs_on_functions_and_classes_counts(make):
    assert digest(make(1)) == digest(make(1)) != digest(make(2))


def test_attributes_of_an_array_of_another_class_count():
    one, again, two = (with_a_factor(np.zeros(2), factor) for factor in (1, 1, 2))
    assert digest(one) == digest(again) != digest(two)


class Named:
    """Is pickled by a name at which it is not found."""

    def __reduce__(self):
        return "FACTOR"


@pytest.mark.parametrize("value", [np.frompyfunc(lambda x: x + 1, 1, 1), Named()])
def test_what_is_not_found_by_its_name_is_refused(value):
    with pytest.raises(UndigestibleError, match="not found by its name"):
        digest(value)
    assert digest(np.log) != digest(np.exp)


def test_a_global_that_nested_code_reads(monkeypatch):
    def function(x):
        def inner():
            return [x * FACTOR for _ in range(2)]

        return inner()

    before = digest(function)
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert digest(function) != before


class Scaled(BaseExtractor):
    factor = 2

    def extract(self, X, *, source_proba=False):
        return Extraction({"": self.factor * X})


def test_an_edited_extractor(monkeypatch):
    before = Scaled().fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr(Scaled, "factor", 3)
        assert Scaled().fingerprint() != before
    with monkeypatch.context() as patch:
        patch.setattr(Scaled, "extract", lambda self, X, source_proba=False: X)
        assert Scaled().fingerprint() != before
    assert Scaled().fingerprint() == before


def test_code_in_circles_and_in_long_chains(write):
    lines = [f"def f{i}(x):\n    return f{i + 1}(x) + f{i // 2}(x)" for i in range(600)]
    source = "\n".join([*lines, "def f600(x):\n    return {}", ""])
    first = digest(write("own_code", source.format(1)).f0)
    assert digest(write("own_code", source.format(1)).f0) == first
    assert digest(write("own_code", source.format(2)).f0) != first


def test_two_functions_that_change_places():
    def make(n):
        return lambda x: x + n

    one, two = make(1), make(2)
    assert digest([one, two, one]) != digest([one, two, two])
    assert digest({"a": one, "b": two}) != digest({"a": two, "b": one})
    assert digest({"a": one, "b": two}) == digest({"b": two, "a": one})


def test_libraries_count_by_their_version(tmp_path):
    assert library_version("sklearn.svm") == sklearn.__version__
    assert library_version("json") == library_version("builtins") is not None
    assert library_version(__name__) is None
    assert digest(sklearn.svm) == digest(sklearn.svm)


def test_nested_too_deeply_is_refused():
    value = []
    for _ in range(10_000):
        value = [value]
    with pytest.raises(UndigestibleError, match="nested too deeply"):
        digest(value)


@pytest.mark.parametrize("kind", [bytes, np.array, "image"])
def test_samples_are_taken_in_one_by_one(kind):
    if kind == "image":
        kind = pytest.importorskip("PIL.Image").fromarray
    rows = np.random.default_rng(0).integers(256, size=(30, 500, 500), dtype=np.uint8)
    samples = [kind(row) for row in rows]
    tracemalloc.start()
    try:
        digest_samples(samples)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2e6  # all have 7.5e6 bytes


class TestSamples:
    def test_paths_deep_inside(self, tmp_path):
        file = tmp_path / "a"
        file.write_bytes(b"1")
        for X in ([(str(file), 1)], [{"image": file}], [[[str(file)]]]):
            before = digest_samples(X)
            file.write_bytes(file.read_bytes() + b"1")
            assert digest_samples(X) != before
            assert digest_samples(X) == digest_samples(copy.deepcopy(X))

    def test_folders_that_are_paths(self, tmp_path):
        folder = tmp_path / "slices"
        folder.mkdir()
        (folder / "1").write_bytes(b"1")
        before = digest_samples([folder])
        (folder / "1").write_bytes(b"12")
        assert digest_samples([folder]) != before

    def test_words_that_are_folders(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        words = [["good", "."], ["/", ".."]]
        before = digest_samples(words)
        (tmp_path / "cache").mkdir()
        assert digest_samples(words) == before == digest(words)

    def test_a_file_that_vanishes(self, tmp_path):
        files = [tmp_path / "a", tmp_path / "b"]
        found = []
        for missing in (None, files[0], files[1]):
            for file in files:
                file.write_bytes(b"1")
            if missing is not None:
                missing.unlink()
            found.append(digest_samples(files))
        assert len(set(found)) == 3

    def test_data_sets_are_read(self):
        class Reads:
            def __init__(self, samples):
                self.samples = samples

            def __len__(self):
                return len(self.samples)

            def __getitem__(self, i):
                return self.samples[i], "label"

        data = Reads([np.zeros(2), np.ones(2)])
        before = digest_samples(data)
        assert digest_samples(Reads([np.zeros(2), np.ones(2)])) == before
        data.samples[1][0] = 5
        assert digest_samples(data) != before
        with pytest.raises(UndigestibleError, match="Sample 0 of Reads .*KeyError"):
            digest_samples(Reads({"a": 1}))

    def test_iterators_are_not_used_up(self):
        samples = iter([1, 2, 3])
        digest_samples(samples)
        assert list(samples) == [1, 2, 3]
        with pytest.raises(UndigestibleError, match="cannot be pickled"):
            digest_samples(i for i in range(3))


class TestNetworks:
    @pytest.fixture
    def nn(self):
        return pytest.importorskip("torch").nn

    @pytest.mark.parametrize(
        "change",
        [
            lambda net: setattr(net[0], "scale", 2.0),
            lambda net: setattr(net[0], "mask", np.ma.array([1.0], mask=[True])),
            lambda net: setattr(net[1], "p", 0.25),
            lambda net: setattr(net[2], "negative_slope", 0.5),
            lambda net: net[0].once.fill_(7.0),
            lambda net: net[0].weight.data.fill_(7.0),
            lambda net: net[0].register_forward_hook(lambda m, a, out: 2 * out),
            lambda net: net[0].register_forward_pre_hook(lambda m, args: args),
            lambda net: setattr(net[0], "forward", lambda x: x),
            lambda net: net.append(net[2]),
            lambda net: setattr(net[0], "bias", None),
        ],
    )
    def test_all_that_the_forward_pass_reads_counts(self, nn, change):
        import torch

        net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.LeakyReLU())
        net[0].register_buffer("once", torch.zeros(2), persistent=False)
        before = digest(net)
        assert digest(copy.deepcopy(net)) == before
        assert digest(pickle.loads(pickle.dumps(net))) == before
        assert digest(net.train()) == digest(net.eval()) == before
        changed = copy.deepcopy(net)
        change(changed)
        assert digest(changed) != before
        assert digest(net) == before

    def test_the_order_of_parts_counts(self, nn):
        a, b = nn.Linear(2, 2), nn.Tanh()
        one, other = nn.Sequential(), nn.Sequential()
        for net, names in ((one, "ab"), (other, "ba")):
            for name in names:
                net.add_module(name, {"a": a, "b": b}[name])
        assert digest(one) != digest(other)

    def test_heads_of_attention(self, nn):
        nets = [nn.TransformerEncoderLayer(8, heads, 16) for heads in (2, 4)]
        nets[1].load_state_dict(nets[0].state_dict())
        assert repr(nets[0]) == repr(nets[1])
        assert digest(nets[0]) != digest(nets[1])

    @pytest.mark.parametrize(
        "make",
        [
            lambda nn: nn.LSTM(3, 4),
            lambda nn: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
            lambda nn: nn.MultiheadAttention(4, 2),
            lambda nn: sys.modules["torch"].fx.symbolic_trace(nn.Sequential(nn.Tanh())),
        ],
    )
    def test_kinds_of_networks(self, nn, make):
        import torch

        with torch.random.fork_rng():
            nets = []
            for seed in (0, 0, 1):
                torch.manual_seed(seed)
                nets.append(make(nn))
        one, same, other = map(digest, nets)
        assert one == same == digest(copy.deepcopy(nets[0]))
        assert one != other or not list(nets[0].parameters())

    def test_a_hook_counts_once_it_is_there_again(self, nn):
        def hook(module, args, output):
            return output + 1

        net = nn.Linear(2, 2)
        before = digest(net)
        handle = net.register_forward_hook(hook)
        hooked = digest(net)
        handle.remove()
        assert digest(net) == before != hooked
        net.register_forward_hook(hook)
        assert digest(net) == hooked

    @pytest.mark.filterwarnings("ignore")
    def test_what_hides_its_content_is_refused(self, nn):
        import torch

        with torch.device("meta"):
            on_meta = nn.Linear(2, 2)
        hidden = {"TorchScript": torch.jit.script(nn.Tanh()), "meta": on_meta}
        hidden["ninitialized"] = nn.LazyLinear(2)
        for match, net in hidden.items():
            with pytest.raises(UndigestibleError, match=match):
                digest(net)
