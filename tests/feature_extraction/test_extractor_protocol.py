"""The extractor protocol, the helpers for samples, and what an import costs."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import sktransfer.feature_extraction as feature_extraction
from sktransfer.feature_extraction import BaseExtractor, Extraction
from sktransfer.feature_extraction._samples import check_samples, read_samples
from sktransfer.utils._optional import import_optional


class Powers(BaseExtractor):
    """Powers of the input as layers; counts its passes in a class attribute."""

    passes = 0

    def __init__(self, layer=("one", "two"), batch_size=8):
        self.layer = layer
        self.batch_size = batch_size

    def extract(self, X, *, source_proba=False):
        if source_proba:
            self.check_source_proba()
        type(self).passes += 1
        X = np.asarray(X, dtype=np.float32)
        layer = [self.layer] if isinstance(self.layer, str) else self.layer
        powers = {"one": X, "two": X**2}
        return Extraction({name: powers[name] for name in layer})


class ProbablePowers(Powers):
    def extract(self, X, *, source_proba=False):
        features = super().extract(X).features
        return Extraction(features, np.full((len(X), 4), 0.25, dtype=np.float32))

    def check_source_proba(self):
        pass


class Dataset:
    """As torch's: a length, items, no slices."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.fixture
def X():
    return np.arange(6, dtype=np.float32).reshape(3, 2)


def test_layers_are_side_by_side_in_order(X):
    extractor = Powers()
    before = Powers.passes
    layers = extractor.transform_layers(X)
    assert Powers.passes == before + 1
    assert list(layers) == ["one", "two"]
    np.testing.assert_array_equal(extractor.transform(X), np.hstack([X, X**2]))
    np.testing.assert_array_equal(Powers("two").transform(X), X**2)


def test_stateless(X):
    extractor = Powers()
    check_is_fitted(extractor)
    assert extractor.fit() is extractor
    assert not extractor.__sklearn_tags__().requires_fit
    np.testing.assert_array_equal(clone(extractor).transform(X), extractor.transform(X))


def test_in_a_pipeline_and_a_union(X):
    pipe = make_pipeline(Powers(), StandardScaler()).fit(X)
    assert pipe.transform(X).mean() == pytest.approx(0, abs=1e-6)
    assert list(pipe.get_feature_names_out()) == ["one_0", "one_1", "two_0", "two_1"]
    union = FeatureUnion([("a", Powers("one")), ("b", Powers("two"))]).fit(X)
    np.testing.assert_array_equal(union.transform(X), np.hstack([X, X**2]))


def test_feature_names_follow_the_parameters(X):
    extractor = Powers()
    with pytest.raises(NotFittedError, match="Call 'transform' before"):
        extractor.get_feature_names_out()
    extractor.transform(X)
    restored = pickle.loads(pickle.dumps(extractor))
    assert restored.get_feature_names_out()[-1] == "two_1"
    with pytest.raises(NotFittedError):
        extractor.set_params(layer="one").get_feature_names_out()


def test_set_output(X):
    pytest.importorskip("pandas")
    frame = Powers().set_output(transform="pandas").transform(X)
    assert list(frame.columns) == ["one_0", "one_1", "two_0", "two_1"]


def test_source_proba_is_there_only_where_offered(X):
    assert not hasattr(Powers(), "source_proba")
    with pytest.raises(ValueError, match="Powers has no source probabilities"):
        Powers().extract(X, source_proba=True)
    np.testing.assert_array_equal(
        ProbablePowers().source_proba(X), np.full((3, 4), 0.25)
    )


def test_select_layer(X):
    extractor = Powers()
    one = extractor.select_layer("one")
    np.testing.assert_array_equal(one.transform(X), X)
    assert extractor.layer == ("one", "two")


def test_fingerprint_reads_the_parameters_that_matter():
    assert Powers().fingerprint() == Powers(batch_size=2).fingerprint()
    assert Powers().fingerprint() == clone(Powers()).fingerprint()
    assert Powers().fingerprint() != Powers("one").fingerprint()
    assert Powers().fingerprint() != ProbablePowers().fingerprint()


def test_fit_refuses_what_is_no_collection_of_samples():
    for single in ["a.png", b"bytes", Path("a.png"), {"x": [1]}]:
        with pytest.raises(TypeError, match="Powers expects a collection of samples"):
            Powers().fit(single)
    with pytest.raises(TypeError, match="Sparse data was passed for X"):
        Powers().fit(csr_array(np.eye(2)))
    with pytest.raises(
        ValueError, match=r"0 sample\(s\) \(shape=\(0, 3\)\).*minimum of"
    ):
        Powers().fit(np.empty((0, 3)))
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        Powers().fit([])
    with pytest.raises(TypeError, match="Expected sequence or array-like"):
        Powers().fit(iter([1, 2]))


def test_check_samples_counts_all_kinds(X):
    assert check_samples(X, None) == (X, 3) or check_samples(X, None)[0] is X
    for samples in [X, list(X), Dataset(list(X))]:
        assert check_samples(samples, None)[1] == 3
    paths, n = check_samples(np.array(["a", "b"]), None)
    assert (paths, n) == (["a", "b"], 2)


def test_check_samples_of_data_frames(X):
    pd = pytest.importorskip("pandas")
    np.testing.assert_array_equal(check_samples(pd.DataFrame(X), None)[0], X)
    assert check_samples(pd.Series(["a", "b"]), None) == (["a", "b"], 2)


def test_read_samples():
    assert read_samples(Dataset([(1, "y"), (2, "y")]), 0, 2) == [1, 2]
    assert read_samples([(1, 2), (3, 4)], 1, 2) == [(3, 4)]  # a list is taken as it is
    assert read_samples(np.arange(5), 1, 3, preprocess=lambda x: -x) == [-1, -2]


def test_read_samples_names_the_culprit():
    def broken(sample):
        raise OSError("no such file")

    with pytest.raises(
        ValueError,
        match=r"`preprocess` failed on sample 1 \('b.png'\): OSError: no such",
    ) as caught:
        read_samples(["a.png", "b.png"], 1, 2, preprocess=broken)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(ValueError, match="`preprocess` failed on sample 0: OSError"):
        read_samples([1.0], 0, 1, preprocess=broken)
    with pytest.raises(ValueError, match="Sample 3 could not be read from X: IndexErr"):
        read_samples(Dataset([1, 2]), 3, 4)


def test_import_optional_says_what_to_install():
    with pytest.raises(ImportError) as caught:
        import_optional("no_such_package", extra="torch", needed_by="An extractor")
    message = str(caught.value)
    assert message.startswith("An extractor needs no_such_package")
    assert 'pip install "sktransfer[torch]"' in message
    assert caught.value.name == "no_such_package"


def run_python(code, **kwargs):
    root = Path(feature_extraction.__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        **kwargs,
    )


def test_import_leaves_torch_alone():
    done = run_python(
        "import sys, sktransfer.feature_extraction as f;"
        "assert 'TorchFeatureExtractor' in dir(f);"
        "assert not {'torch', 'PIL'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_torch_is_asked_for_by_name():
    done = run_python(
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            raise ModuleNotFoundError('No module named torch')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from sktransfer.feature_extraction import TorchFeatureExtractor"
    )
    assert "TorchFeatureExtractor needs torch" in done.stderr
    assert 'pip install "sktransfer[torch]"' in done.stderr


def test_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        feature_extraction.Nothing  # noqa: B018
