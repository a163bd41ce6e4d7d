"""Policies of one's own: who is evaluated on which samples."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.feature_extraction import BaseExtractor, Extraction, flatten_tokens
from sktransfer.metrics import logme_score
from sktransfer.model_selection import BaseModelSelector, ModelSelector

CANDIDATES = [(f"pca{i}", PCA(i)) for i in (1, 2, 3, 5)]


class Halving(BaseModelSelector):
    """Double the samples in each round, and keep the better half of the candidates."""

    def _run_selection(self, evaluate):
        names, n = evaluate.names, evaluate.n_samples
        order = np.random.default_rng(0).permutation(n)
        for size in (n // 4, n // 2, n):
            results = evaluate(names, np.sort(order[:size]))
            results = [r for r in results if evaluate.decides in r.scores]
            results.sort(key=lambda r: r.scores[evaluate.decides].value, reverse=True)
            names = [r.name for r in results[: (len(results) + 1) // 2]]


class Counting(BaseExtractor):
    """Scales samples, and notes which of them it reads."""

    def __init__(self, seen=None, factor=1.0, layer=("all", "few")):
        self.seen = seen
        self.factor = factor
        self.layer = layer

    def extract(self, X, *, source_proba=False):
        X = np.asarray(X, dtype=np.float32)
        self.seen.append(X[:, 0].tolist())
        layers = {"all": self.factor * X, "few": X[:, :2] ** 2}
        wanted = [self.layer] if isinstance(self.layer, str) else self.layer
        return Extraction({name: layers[name] for name in wanted})

    def fingerprint(self):
        return f"counting {self.factor} {self.layer}"

    def __sklearn_clone__(self):
        return Counting(self.seen, self.factor, self.layer)


def test_a_policy_by_the_contract_alone(wine):
    X, y = wine
    selector = Halving(CANDIDATES, scoring="logme").fit(X, y)
    results = selector.results_
    n_samples = dict(zip(results["name"], results["n_samples"], strict=True))
    assert sorted(n_samples.values()) == [44, 44, 89, 178]
    # The best is that of the largest evaluation; those of fewer samples come after.
    assert n_samples[selector.best_name_] == 178
    assert [n_samples[name] for name in selector.ranking_] == [178, 89, 44, 44]
    assert results["rank"].tolist() == [
        selector.ranking_.index(name) + 1 for name in results["name"]
    ]
    Z = dict(CANDIDATES)[selector.best_name_].fit_transform(X)
    assert selector.best_score_ == pytest.approx(logme_score(Z, y), abs=1e-12)
    assert selector.score(X, y) == pytest.approx(selector.best_score_, abs=1e-9)
    assert selector.predict(X).shape == y.shape
    order = np.sort(np.random.default_rng(0).permutation(178)[:44])
    for name, extractor in CANDIDATES:
        if n_samples[name] == 44:
            Z = clone(extractor).fit_transform(X[order])
            i = results["name"].tolist().index(name)
            expected = logme_score(Z, y[order])
            assert results["logme"][i] == pytest.approx(expected, abs=1e-9)


def test_scores_of_other_numbers_of_samples_are_not_compared(wine):
    selector = Halving(CANDIDATES).fit(*wine)
    n = selector.results_["n_samples"]
    P = selector.probability_better_
    np.testing.assert_array_equal(np.isfinite(P), n[:, None] == n)
    np.testing.assert_allclose((P + P.T)[np.isfinite(P)], 1)


def test_a_policy_that_does_as_the_selector_does(wine):
    class Everything(BaseModelSelector):
        def _run_selection(self, evaluate):
            for name in reversed(evaluate.names):
                evaluate(names=[name], samples=np.arange(evaluate.n_samples))

    expected = ModelSelector(CANDIDATES).fit(*wine)
    selector = Everything(CANDIDATES).fit(*wine)
    for name, column in expected.results_.items():
        if not name.endswith("_time"):
            np.testing.assert_array_equal(selector.results_[name], column)
    np.testing.assert_array_equal(
        selector.probability_better_, expected.probability_better_
    )


def test_failures_of_any_round_come_last(wine, broken):
    class Twice(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(samples=range(0, 178, 2))
            evaluate(names=["bad", "pca1"])

    candidates = [("bad", broken()), *CANDIDATES]
    with pytest.warns(CandidateFailedWarning, match="1 of 5 candidates failed"):
        selector = Twice(candidates).fit(*wine)
    assert selector.best_name_ == "pca1"
    assert selector.ranking_[0] == "pca1"
    assert selector.ranking_[-1] == "bad"
    assert selector.results_["n_samples"].tolist() == [178, 178, 89, 89, 89]


def test_policies_that_ask_for_what_is_not_there(wine):
    class Asks(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(names=["pca1", "pca9"])

    class Nothing(BaseModelSelector):
        def _run_selection(self, evaluate):
            pass

    class Outside(BaseModelSelector):
        samples = None

        def _run_selection(self, evaluate):
            evaluate(samples=self.samples)

    for samples in ([0, 178], [-1, 5], np.arange(178) < 90, [0.5, 1.5]):
        Outside.samples = samples
        with pytest.raises(ValueError, match="must be indices from 0 to 177"):
            Outside(CANDIDATES).fit(*wine)
    with pytest.raises(ValueError, match=r"must be among .*'pca5'\]. Got \['pca9'\]"):
        Asks(CANDIDATES).fit(*wine)
    with pytest.raises(ValueError, match="_run_selection has evaluated no candidate"):
        Nothing(CANDIDATES).fit(*wine)
    with pytest.raises(TypeError, match="abstract"):
        BaseModelSelector(CANDIDATES)


def test_the_order_of_the_samples_does_not_matter(wine):
    class Shuffled(BaseModelSelector):
        def _run_selection(self, evaluate):
            rng = np.random.default_rng(0)
            for name in evaluate.names:
                evaluate([name], rng.permutation(evaluate.n_samples))

    P = Shuffled(CANDIDATES).fit(*wine).probability_better_
    expected = ModelSelector(CANDIDATES).fit(*wine).probability_better_
    np.testing.assert_array_equal(P, expected)


def test_samples_that_are_not_nested_are_refused(wine):
    class Asks(BaseModelSelector):
        rounds = ()

        def _run_selection(self, evaluate):
            for samples in self.rounds:
                evaluate(samples=samples)

    odd, even = range(1, 178, 2), range(0, 178, 2)
    for Asks.rounds in ((odd, even), (odd, range(178), range(100)), (range(100), odd)):
        with pytest.raises(ValueError, match="samples must be nested"):
            Asks(CANDIDATES).fit(*wine)
    for wrong in ([], [0, 1, 2, 2], [[0, 60], [90, 150]], 5):
        Asks.rounds = (wrong,)
        with pytest.raises(ValueError, match="at least one and each at most once"):
            Asks(CANDIDATES).fit(*wine)
    Asks.rounds = (range(178), even)  # a larger evaluation may come first
    assert Asks(CANDIDATES).fit(*wine).results_["n_samples"].tolist() == [178] * 4


def test_small_integers_are_no_mask(wine):
    torch = pytest.importorskip("torch")

    class Some(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(samples=np.arange(0, 178, 2, dtype=np.uint8))

    X, y = wine
    selector = Some(CANDIDATES).fit(torch.tensor(X), y)
    expected = ModelSelector(CANDIDATES).fit(X[::2], y[::2])
    np.testing.assert_allclose(
        selector.results_["logme"], expected.results_["logme"], atol=1e-9
    )


def test_a_policy_may_change_the_lists_that_it_gets(wine):
    class Changes(BaseModelSelector):
        def _run_selection(self, evaluate):
            names = evaluate.names
            evaluate().clear()
            names.clear()

    assert len(Changes(CANDIDATES).fit(*wine).ranking_) == 4


def test_a_policy_may_keep_its_results(wine):
    class Keeps(BaseModelSelector):
        def _run_selection(self, evaluate):
            self.history_ = evaluate()

    selector = Keeps(CANDIDATES).fit(*wine)
    values = [result.value("logme") for result in selector.history_]
    np.testing.assert_array_equal(values, selector.results_["logme"])


def test_a_subclass_of_the_selector_may_evaluate_more_often(wine):
    class Twice(ModelSelector):
        def _run_selection(self, evaluate):
            evaluate(samples=range(0, 178, 2))
            super()._run_selection(evaluate)

    expected = ModelSelector(CANDIDATES).fit(*wine)
    assert Twice(CANDIDATES).fit(*wine).ranking_ == expected.ranking_


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_the_best_gives_standard_deviations_after_a_better_one_fails(n_jobs, wine):
    class Rounds(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(samples=range(0, 178, 2))
            evaluate(names=["fails"])

    def small(X):
        if len(X) > 100:
            raise MemoryError("too many")
        return X

    X, y = wine[0], wine[0] @ np.arange(13.0) + wine[1]
    candidates = [*CANDIDATES, ("fails", FunctionTransformer(small))]
    with pytest.warns(CandidateFailedWarning, match="too many"):
        selector = Rounds(candidates, n_jobs=n_jobs).fit(X, y)
    expected = ModelSelector(CANDIDATES).fit(X[::2], y[::2])
    assert selector.best_name_ == expected.best_name_
    for mine, other in zip(
        selector.best_estimator_.predict(X, return_std=True),
        expected.best_estimator_.predict(X, return_std=True),
        strict=True,
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-9)


def test_the_best_model_of_some_of_the_samples(wine):
    class Half(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(samples=range(100))

    X, y = wine  # sorted: no sample of the last class is read
    selector = Half(CANDIDATES)
    Z = selector.fit_transform(X, y)
    np.testing.assert_array_equal(Z, selector.transform(X))
    assert selector.classes_.tolist() == [0, 1]
    assert selector.predict_proba(X).shape == (178, len(selector.classes_))


@pytest.mark.parametrize(
    "container", ["list", "frame", "sparse", "coo", "torch", "dataset"]
)
def test_samples_of_any_kind(container, wine):
    X, y = wine

    class Dataset:
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i], y[i]

    if container in ("frame", "torch"):
        library = pytest.importorskip("pandas" if container == "frame" else "torch")
    given = {
        "list": lambda: (list(X), list(y)),
        "frame": lambda: (library.DataFrame(X), library.Series(y, index=y)),
        "sparse": lambda: (pytest.importorskip("scipy.sparse").csr_matrix(X), y),
        "coo": lambda: (pytest.importorskip("scipy.sparse").coo_matrix(X), y),
        "torch": lambda: (library.tensor(X), library.tensor(y)),
        "dataset": lambda: (Dataset(), y),
    }[container]()

    def read(samples):
        if container in ("sparse", "coo"):
            return samples.toarray()
        if container == "dataset" and not isinstance(samples, list):
            samples = [samples[i][0] for i in range(len(samples))]
        return np.asarray(samples)

    candidates = [
        (name, make_pipeline(FunctionTransformer(read), extractor))
        for name, extractor in CANDIDATES
    ]
    expected = Halving(CANDIDATES).fit(X, y)
    selector = Halving(candidates).fit(*given)
    assert selector.ranking_ == expected.ranking_
    np.testing.assert_allclose(
        selector.results_["logme"], expected.results_["logme"], atol=1e-9
    )


class TestGrowingSamples:
    def fit(self, kind, wine, seen, tmp_path, **params):
        X, y = np.c_[np.arange(178), wine[0]], wine[1]
        candidates = [(f"net{f}", Counting(seen, f)) for f in (1.0, 2.0)]
        return kind(candidates, memory=str(tmp_path), **params).fit(X, y)

    def test_only_new_samples_are_extracted(self, wine, tmp_path):
        class Grows(BaseModelSelector):
            def _run_selection(self, evaluate):
                for step in (4, 2, 1):
                    evaluate(samples=range(0, evaluate.n_samples, step))

        seen = []
        selector = self.fit(Grows, wine, seen, tmp_path)
        assert [len(rows) for rows in seen] == [45, 45, 44, 44, 89, 89]
        for own in (seen[::2], seen[1::2]):
            assert sorted(np.concatenate(own)) == list(range(178))
        # What was extracted is put together in the order of the samples.
        expected = self.fit(ModelSelector, wine, [], tmp_path / "other")
        for name, column in expected.results_.items():
            if not name.endswith("_time"):
                np.testing.assert_array_equal(selector.results_[name], column)
        # A full run, or another policy, finds all of it.
        for kind in (ModelSelector, Halving, Grows):
            self.fit(kind, wine, seen, tmp_path)
        assert len(seen) == 6

    def test_a_full_run_extracts_what_a_partial_one_has_left(self, wine, tmp_path):
        seen = []
        X, y = np.c_[np.arange(178), wine[0]], wine[1]
        candidates = [("net", Counting(seen))]
        ModelSelector(candidates, memory=str(tmp_path)).fit(X[:100], y[:100])
        ModelSelector(candidates, memory=str(tmp_path)).fit(X, y)
        assert [len(rows) for rows in seen] == [100, 78]
        ModelSelector(candidates, memory=str(tmp_path)).fit(X[:60], y[:60])
        assert len(seen) == 2

    def test_features_that_do_not_fit_those_kept_replace_them(self, wine, tmp_path):
        class Wider(Counting):
            def extract(self, X, *, source_proba=False):
                few, n = super().extract(X).features["few"], len(X)
                layers = {"few": few, "more": X[:, : n // 40]}
                return Extraction(layers if n > 100 else {"few": few})

            def __sklearn_clone__(self):
                return Wider(self.seen)

        class Half(BaseModelSelector):
            def _run_selection(self, evaluate):
                evaluate(samples=range(0, evaluate.n_samples, 4))
                evaluate()

        expected = Half([("net", Wider([]))]).fit(*wine)
        selector = Half([("net", Wider([]))], memory=str(tmp_path)).fit(*wine)
        assert selector.ranking_ == expected.ranking_
        assert selector.best_score_ == expected.best_score_

    def test_what_learns_is_kept_as_a_whole(
        self, wine, tmp_path, logged_transformer, log
    ):
        class Half(BaseModelSelector):
            def _run_selection(self, evaluate):
                evaluate(samples=range(0, evaluate.n_samples, 2))
                evaluate()

        candidates = [("learns", logged_transformer())]
        for _ in range(2):
            selector = Half(candidates, memory=str(tmp_path)).fit(*wine)
            assert log.read() == ["fit 1.0"] * 2
        expected = ModelSelector(candidates).fit(*wine)
        assert selector.best_score_ == expected.best_score_

    def test_a_data_set_is_read_where_it_is_asked_for(self, wine, tmp_path):
        X, y = wine
        read = set()

        class Dataset:
            def __len__(self):
                return len(X)

            def __getitem__(self, i):
                read.add(int(i))
                return X[i]

        class Tenth(BaseModelSelector):
            def _run_selection(self, evaluate):
                evaluate(samples=range(5, 178, 10))

        scaled = make_pipeline(FunctionTransformer(np.stack), StandardScaler())
        Tenth([("scaled", scaled)], memory=str(tmp_path)).fit(Dataset(), y)
        assert read == {0, *range(5, 178, 10)}  # the first names the data

    def test_words_of_sentences(self, tmp_path):
        class Lengths(BaseExtractor):
            gives_tokens = True

            def __init__(self, seen):
                self.seen = seen

            def extract(self, X, *, source_proba=False):
                self.seen.append(len(X))
                words = [word for sentence in X for word in sentence]
                rows = [[len(w), w.count("a"), 1] for w in words]
                return Extraction({"": np.array(rows, dtype=np.float32)})

            def fingerprint(self):
                return "lengths"

            def __sklearn_clone__(self):
                return Lengths(self.seen)

        class Half(BaseModelSelector):
            def _run_selection(self, evaluate):
                evaluate(samples=range(1, evaluate.n_samples, 2))
                evaluate()

        rng = np.random.default_rng(0)
        X = [rng.choice(["a", "bb", "aca"], n).tolist() for n in rng.integers(0, 5, 50)]
        X = [[*words, str(i)] for i, words in enumerate(X)]
        y = [[rng.integers(3) for _ in words] for words in X]
        seen = []
        selector = Half([("words", Lengths(seen))], memory=str(tmp_path)).fit(X, y)
        assert seen == [25, 25]
        expected = ModelSelector([("words", Lengths([]))]).fit(X, y)
        assert selector.best_score_ == expected.best_score_
        assert selector.results_["n_samples"].tolist() == [50]
        assert len(flatten_tokens(expected.transform(X))) > 50


def test_a_fitted_selector_is_smaller_than_its_features():
    def features(X, seed):
        rng = np.random.default_rng(seed)
        return rng.normal(size=(len(X), 512)).astype(np.float32) + np.float32(X[:, :1])

    X, y = np.random.default_rng(0).normal(size=(400, 4)), np.arange(400) % 5
    candidates = [
        (str(seed), FunctionTransformer(features, kw_args={"seed": seed}))
        for seed in range(5)
    ]
    selector = ModelSelector(candidates, scoring=["logme", "h_score", "knn"]).fit(X, y)
    selector.extractors = []  # functions of a test cannot be pickled
    for result in selector._results:
        result.extractor = None
    del selector.best_extractor_, selector.best_estimator_
    n_bytes = 5 * 400 * 512 * 4
    assert len(pickle.dumps(selector)) < n_bytes
