"""The cache of extractions: what is kept, and what makes it void."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
from joblib import Memory, parallel_config
from sklearn.decomposition import PCA
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection import ModelSelector, _cache


@pytest.fixture
def fit(tmp_path, wine):
    """Fit a selector with the test's cache, on the wines unless told."""

    def run(candidates, X=wine[0], y=wine[1], **params):
        memory = params.pop("memory", str(tmp_path / "cache"))
        return ModelSelector(candidates, memory=memory, **params).fit(X, y)

    return run


def test_second_fit_extracts_nothing(fit, logged_extractor, logged_transformer, log):
    candidates = [
        ("net", logged_extractor(layer=("power", "sign"))),
        ("learns", logged_transformer()),
    ]
    first = fit(candidates)
    assert log.read() == ["1", "fit 1.0"]
    second = fit(candidates)
    assert len(log.read()) == 2
    for name, column in first.results_.items():
        if name != "score_time":  # extract_time is that of the extraction
            np.testing.assert_array_equal(second.results_[name], column)
    X = np.ones((3, 13))
    np.testing.assert_array_equal(second.transform(X), first.transform(X))


def test_results_are_those_without_a_cache(fit, logged_extractor):
    candidates = [("net", logged_extractor()), ("pca", PCA(2))]
    without = fit(candidates, memory=None)
    for _ in range(2):
        np.testing.assert_array_equal(
            fit(candidates).results_["logme"], without.results_["logme"]
        )


def test_other_samples(fit, wine, logged_extractor, log):
    candidates = [("net", logged_extractor())]
    fit(candidates)
    changed = wine[0].copy()
    changed[5, 5] += 1e-9
    fit(candidates, X=changed)
    assert len(log.read()) == 2
    fit(candidates, X=wine[0].copy())
    assert len(log.read()) == 2


def test_other_target_counts_where_it_is_read(
    fit, wine, logged_extractor, logged_transformer, log
):
    candidates = [("net", logged_extractor()), ("learns", logged_transformer())]
    first = fit(candidates)
    second = fit(candidates, y=2 - wine[1])
    assert log.read() == ["1", "fit 1.0", "fit 1.0"]
    # The score is that of the new target, all the same.
    third = fit(candidates, y=wine[1] // 2)
    assert third.results_["logme"][0] != first.results_["logme"][0]
    assert second.results_["logme"][0] == pytest.approx(first.results_["logme"][0])


def test_other_parameters_extract_what_has_changed(
    fit, logged_extractor, logged_transformer, log
):
    fit([("a", logged_extractor()), ("b", logged_transformer())])
    fit([("a", logged_extractor(power=2)), ("b", logged_transformer())])
    assert log.read() == ["1", "fit 1.0", "2"]
    fit([("a", logged_extractor(power=2)), ("b", logged_transformer(factor=3.0))])
    assert log.read() == ["1", "fit 1.0", "2", "fit 3.0"]


def test_other_metrics_extract_nothing(fit, logged_extractor, log):
    candidates = [("net", logged_extractor())]
    fit(candidates)
    fit(candidates, scoring=["h_score", "transrate"], error_score="raise")
    assert len(log.read()) == 1


def test_source_probabilities_are_fetched_where_they_are_missing(
    fit, logged_extractor, log
):
    candidates = [("net", logged_extractor(head=True))]
    fit(candidates)
    fit(candidates, scoring=["logme", "leep"])
    assert len(log.read()) == 2
    fit(candidates, scoring="nce")
    assert len(log.read()) == 2


def test_name_does_not_count(fit, logged_extractor, log):
    fit([("net", logged_extractor())])
    fit([("other", logged_extractor()), ("same", logged_extractor())])
    assert len(log.read()) == 1


def test_memory_object(fit, tmp_path, logged_extractor, log):
    memory = Memory(str(tmp_path / "elsewhere"), verbose=0)
    fit([("net", logged_extractor())], memory=memory)
    fit([("net", logged_extractor())], memory=str(tmp_path / "elsewhere"))
    assert len(log.read()) == 1
    memory.clear(warn=False)
    fit([("net", logged_extractor())], memory=memory)
    assert len(log.read()) == 2


def test_failures_are_tried_again(fit, broken, monkeypatch):
    with pytest.warns(CandidateFailedWarning, match="1 of 2 candidates failed"):
        fit([("a", broken("raises")), ("scaled", StandardScaler())])
    monkeypatch.setattr(broken, "transform", lambda self, X: 2 * X)
    selector = fit([("a", broken("raises")), ("scaled", StandardScaler())])
    assert selector.results_["error"].tolist() == ["", ""]


def test_workers_share_it(fit, logged_extractor, tmp_path):
    candidates = [("one", PCA(1)), ("two", PCA(2))]
    first = fit(candidates, n_jobs=2)
    second = fit(candidates)
    for column in ("logme", "extract_time"):  # the times tell that nothing was done
        np.testing.assert_array_equal(second.results_[column], first.results_[column])


def size(folder):
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def outputs(folder):
    return sorted(folder.rglob("output.pkl"))


def nothing_new(fit, candidates, tmp_path, **params):
    """Fit again; whether everything came from the cache."""
    before = {file: file.stat().st_mtime_ns for file in outputs(tmp_path)}
    assert before
    selector = fit(candidates, **params)
    after = {file: file.stat().st_mtime_ns for file in outputs(tmp_path)}
    return selector, after == before


class Files:
    """A data set that reads a file a sample, from a folder."""

    def __init__(self, folder, n):
        self.folder = folder
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return np.load(Path(self.folder) / f"{i}.npy"), i


class Stacks(PCA):
    """Takes a data set."""

    def fit(self, X, y=None):
        return super().fit(np.stack([X[i][0] for i in range(len(X))]))

    def transform(self, X):
        return super().transform(np.stack([X[i][0] for i in range(len(X))]))

    def fit_transform(self, X, y=None):
        return self.fit(X).transform(X)


def test_data_set_whose_files_change(fit, wine, tmp_path):
    X, _ = wine
    folder = tmp_path / "samples"
    folder.mkdir()
    for i, row in enumerate(X):
        np.save(folder / f"{i}.npy", row)
    data, candidates = Files(str(folder), len(X)), [("pca", Stacks(2))]
    first = fit(candidates, X=data)
    assert nothing_new(fit, candidates, tmp_path, X=data)[1]
    for i, row in enumerate(np.random.default_rng(0).permutation(X)):
        np.save(folder / f"{i}.npy", row)
    second = fit(candidates, X=data)
    assert second.best_score_ < first.best_score_ - 0.2


class Augmented(Files):
    def __getitem__(self, i):
        return self.folder[i] + np.random.default_rng().normal(), i


def test_data_set_with_random_augmentation_is_not_kept(fit, wine, tmp_path):
    data = Augmented(wine[0], 178)
    with pytest.warns(UserWarning, match="different sample 0 at each read") as caught:
        fit([("pca", Stacks(2)), ("other", Stacks(3))], X=data)
    assert len(caught) == 1
    assert not outputs(tmp_path)


def test_edited_code_of_a_user_s_own_extractor(fit, logged_extractor, log, monkeypatch):
    candidates = [("net", logged_extractor())]
    fit(candidates)
    kind = type(candidates[0][1])
    original = kind.extract

    def extract(self, X, *, source_proba=False):
        return original(self, 2 * X, source_proba=source_proba)

    monkeypatch.setattr(kind, "extract", extract)
    fit(candidates)
    assert len(log.read()) == 2
    monkeypatch.undo()
    fit(candidates)
    assert len(log.read()) == 2


def make_local_class():
    class Local(StandardScaler):
        pass

    return Local()


def test_lambdas_closures_and_local_classes_are_kept(fit, tmp_path):
    power = 2
    candidates = [
        ("lambda", FunctionTransformer(lambda X: 2 * X)),
        ("closure", FunctionTransformer(lambda X: X**power)),
        ("local", make_local_class()),
        ("pipeline", make_pipeline(FunctionTransformer(lambda X: -X), PCA(2))),
    ]
    first = fit(candidates)
    assert len(outputs(tmp_path)) == 4
    second, is_kept = nothing_new(fit, candidates, tmp_path)
    assert is_kept
    X = np.eye(13)
    np.testing.assert_array_equal(second.transform(X), first.transform(X))
    power = 3
    candidates[1] = ("closure", FunctionTransformer(lambda X: X**power))
    assert not nothing_new(fit, candidates, tmp_path)[1]


def test_what_cannot_be_told_by_content_is_not_kept_and_said_once(fit, tmp_path):
    factors = (i for i in (1, 2))
    candidates = [
        ("two", PCA(2)),
        ("generator", FunctionTransformer(lambda X: X * next(factors))),
    ]
    match = "^generator: features are not kept in memory. Cannot make a fingerprint of"
    with pytest.warns(UserWarning, match=match) as caught:
        selector = fit(candidates)
    assert len(caught) == 1
    assert selector.results_["error"].tolist() == ["", ""]
    assert len(outputs(tmp_path)) == 1


class Opaque(StandardScaler):
    """Cannot be pickled once it is fitted."""

    def fit(self, X, y=None):
        self.lock_ = threading.Lock()
        return super().fit(X)


def test_what_cannot_be_pickled_when_fitted_is_used_but_not_kept(fit, tmp_path):
    match = "opaque: features are not kept in memory. .*pickle"
    with pytest.warns(UserWarning, match=match):
        selector = fit([("opaque", Opaque())])
    assert selector.results_["error"].tolist() == [""]
    assert not outputs(tmp_path)


@pytest.mark.parametrize("damage", ["cut short", "zeros", "empty"])
def test_damaged_entries_are_extracted_again(
    fit, logged_extractor, log, tmp_path, damage
):
    candidates = [("net", logged_extractor())]
    first = fit(candidates)
    (file,) = outputs(tmp_path)
    data = bytearray(file.read_bytes())
    if damage == "zeros":  # as after a loss of power: the right size, no content
        middle = len(data) // 2
        data[middle : middle + 512] = bytes(512)
    else:
        data = data[: len(data) // 2 if damage == "cut short" else 0]
    file.write_bytes(data)
    if damage == "zeros":
        with pytest.warns(UserWarning, match="net: the features in memory are damaged"):
            second = fit(candidates)
    else:
        second = fit(candidates)
    assert len(log.read()) == 2
    assert second.best_score_ == first.best_score_
    fit(candidates)
    assert len(log.read()) == 2


def test_entries_of_others_are_extracted_again(fit, logged_extractor, tmp_path):
    candidates = [(str(k), logged_extractor(power=k)) for k in (1, 2)]
    first = fit(candidates)
    one, other = outputs(tmp_path)
    other.write_bytes(one.read_bytes())
    with pytest.warns(UserWarning, match="the features in memory are damaged"):
        second = fit(candidates)
    np.testing.assert_array_equal(second.results_["logme"], first.results_["logme"])


@pytest.mark.parametrize("content", [None, {"a": 1}, (1, 2, 3, 4, 5)])
def test_entries_that_hold_something_else_are_extracted_again(fit, tmp_path, content):
    first = fit([("pca", PCA(2))])
    (file,) = outputs(tmp_path)
    joblib.dump(content, file)
    with pytest.warns(UserWarning, match="pca: the features in memory are damaged"):
        second = fit([("pca", PCA(2))])
    assert second.best_score_ == first.best_score_


def test_what_was_fitted_cannot_be_read_back(fit, monkeypatch):
    first = fit([("scaled", StandardScaler())])
    monkeypatch.setattr(_cache, "_unpack", lambda *_: pickle.loads(b"cno\nsuch\n."))
    with pytest.warns(UserWarning, match="scaled: the features in memory are damaged"):
        second = fit([("scaled", StandardScaler())])
    assert second.best_score_ == first.best_score_


def test_a_folder_that_takes_no_files_costs_no_candidate(fit, monkeypatch, wine):
    def full(*_):
        raise OSError(28, "No space left on device")

    folder = "joblib._store_backends.FileSystemStoreBackend.create_location"
    monkeypatch.setattr(folder, full)
    with pytest.warns(UserWarning, match="not kept in memory. .*No space left"):
        selector = fit([("pca", PCA(2))])
    assert selector.best_score_ == fit([("pca", PCA(2))], memory=None).best_score_


def test_a_memory_without_a_location(fit):
    class Plain:
        def cache(self, function, **_):
            return function

    assert fit([("pca", PCA(2))], memory=Plain()).ranking_ == ["pca"]


def test_writers_at_the_same_time(fit, logged_extractor, tmp_path):
    candidates = [(f"net{i}", logged_extractor(power=i)) for i in (1, 2)]
    expected = fit(candidates, memory=None).results_["logme"]
    together = threading.Barrier(4)

    def run(_):
        together.wait(timeout=60)
        return fit(candidates).results_["logme"]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(run, range(4)):
            np.testing.assert_array_equal(found, expected)
    selector, is_kept = nothing_new(fit, candidates, tmp_path)
    assert is_kept
    np.testing.assert_array_equal(selector.results_["logme"], expected)


class TestNetworks:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.fixture
    def make(self, torch):
        from sktransfer.feature_extraction import TorchFeatureExtractor

        return TorchFeatureExtractor

    def test_features_are_kept_and_no_weights(self, fit, torch, make, tmp_path):
        X, y = np.random.default_rng(0).normal(size=(60, 1000)), np.arange(60) % 3
        net = torch.nn.Sequential(torch.nn.Linear(1000, 1000), torch.nn.Linear(1000, 4))
        union = FeatureUnion([("a", make(net)), ("scaled", StandardScaler())])
        candidates = [
            ("module", make(net)),
            ("lambda", make(lambda: net)),
            ("pipeline", make_pipeline(make(net), StandardScaler())),
            ("union", make_pipeline(union, PCA(4))),
        ]
        first = fit(candidates, X=X, y=y)
        assert size(tmp_path) < 200_000  # one network has four megabytes
        second, is_kept = nothing_new(fit, candidates, tmp_path, X=X, y=y)
        assert is_kept
        for one, other in zip(first.teachers(4), second.teachers(4), strict=True):
            np.testing.assert_allclose(
                one[0].transform(X), other[0].transform(X), rtol=1e-5, atol=1e-8
            )

    def test_speed_is_up_to_this_run_not_to_the_first(self, fit, torch, make, tmp_path):
        net = torch.nn.Linear(13, 3)
        fit([("net", make(net, batch_size=16, device="cpu"))])
        candidates = [("net", make(net, batch_size=32, device="auto"))]
        selector, is_kept = nothing_new(fit, candidates, tmp_path)
        assert is_kept
        assert selector.best_extractor_.batch_size == 32
        assert selector.best_extractor_.device == "auto"

    def test_networks_that_differ_in_a_number_only(self, fit, torch, make):
        nets = [torch.nn.TransformerEncoderLayer(12, heads, 24) for heads in (2, 4)]
        nets[1].load_state_dict(nets[0].state_dict())
        X = np.random.default_rng(0).normal(size=(60, 5, 12))
        y = np.arange(60) % 3
        cached = [fit([("net", make(net))], X=X, y=y).best_score_ for net in nets]
        plain = [
            fit([("net", make(net))], X=X, y=y, memory=None).best_score_ for net in nets
        ]
        assert cached == plain
        assert plain[0] != plain[1]

    def test_a_factory_that_makes_another_network_each_time(
        self, fit, torch, make, wine
    ):
        selector = fit([("random", make(lambda: torch.nn.Linear(13, 3)))])
        features = selector.best_extractor_.transform(wine[0])
        fresh = fit(
            [("given", make(selector.best_extractor_.load_module()))], memory=None
        )
        np.testing.assert_array_equal(
            fresh.best_extractor_.transform(wine[0]), features
        )
        assert selector.best_score_ == fresh.best_score_

    def test_threads_that_share_a_network(self, fit, torch, make, tmp_path):
        net = torch.nn.Sequential(
            torch.nn.Linear(13, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3)
        )
        candidates = [(layer, make(net, layer=layer)) for layer in "012"]
        expected = fit(candidates, memory=None).results_["logme"]
        with parallel_config(backend="threading", n_jobs=3):
            for _ in range(2):
                found = fit(candidates).results_["logme"]
                np.testing.assert_array_equal(found, expected)
        assert len(outputs(tmp_path)) == 3
