"""Scores of all layers in the selector: one pass, one row for each layer."""

from __future__ import annotations

import numpy as np
import pytest
from joblib import Memory, parallel_config
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from sktransfer.exceptions import CandidateFailedWarning  # noqa: E402
from sktransfer.feature_extraction import (  # noqa: E402
    BaseExtractor,
    Extraction,
    TorchFeatureExtractor,
)
from sktransfer.metrics import (  # noqa: E402
    LabelledData,
    deep_logme_score,
    deep_loo_accuracy_score,
    deep_loo_log_likelihood_score,
    get_scorer,
    logme_score,
    make_transferability_scorer,
    probability_better,
)
from sktransfer.model_selection import (  # noqa: E402
    BaseModelSelector,
    ModelSelector,
    _cache,
)

DEEP = {
    "deep_logme": deep_logme_score,
    "deep_loo_accuracy": deep_loo_accuracy_score,
    "deep_loo_log_likelihood": deep_loo_log_likelihood_score,
}
DIGITS, y = load_digits(n_class=4, return_X_y=True)
DIGITS, y = DIGITS[:90].reshape(-1, 1, 8, 8).astype(np.float32) / 16, y[:90]


class Net(nn.Sequential):
    """A network by its seed; it counts its passes."""

    def __init__(self, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Tanh()
            super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.add_module("fc", nn.Linear(8, 5))
        self.n_passes = 0

    def forward(self, x):
        self.n_passes += 1
        return super().forward(x)


def network(seed=0, **params):
    return TorchFeatureExtractor(
        Net(seed), **{"source_head": "fc", "device": "cpu"} | params
    )


def under(extractor, name=None, X=DIGITS):
    """All layers, with some features as the last."""
    features, _ = extractor.extract(X)
    layers = extractor.extract(X, all_layers=True).layers
    name = name or next(iter(features))
    others = {key: layer for key, layer in layers.items() if key != name}
    return {**others, name: features[name]}


def test_scores_are_those_of_the_functions():
    candidates = [(f"net{i}", network(i)) for i in range(2)]
    scoring = [*DEEP, "logme", "leep"]
    selector = ModelSelector(candidates, scoring=scoring).fit(DIGITS, y)
    alone = ModelSelector(candidates, scoring=["logme", "leep"]).fit(DIGITS, y)
    for name in ("logme", "leep"):
        np.testing.assert_array_equal(selector.results_[name], alone.results_[name])
    for name, function in DEEP.items():
        for value, (_, extractor) in zip(
            selector.results_[name], candidates, strict=True
        ):
            assert value == pytest.approx(function(under(extractor), y), abs=1e-12)
        assert (selector.results_[f"{name}_std_error"] > 0).all()
        assert (selector.results_[f"{name}_gain"] > 0).all()
        P = selector.probability_better_by_metric_[name]
        np.testing.assert_allclose(P + P.T, 1)
    best = selector.results_["deep_logme"][selector.best_index_]
    assert selector.score(DIGITS, y) == pytest.approx(best, abs=1e-12)
    assert selector.predict(DIGITS).shape == y.shape
    scores = get_scorer(scoring)(candidates[0][1], DIGITS, y)
    for name in scoring:
        assert scores[name] == pytest.approx(selector.results_[name][0], abs=1e-12)


def test_one_pass_for_all():
    extractor = network(batch_size=30)
    extractor.fit(DIGITS)
    ModelSelector([("net", extractor)], scoring=[*DEEP, "logme", "leep"]).fit(DIGITS, y)
    net = extractor.network
    get_scorer([*DEEP, "logme", "leep"])(extractor, DIGITS, y)
    assert net.n_passes == 3  # the selector runs a clone


def test_rows_of_layers():
    extractor = network(layer=["0", "2", "mean(1, 0)"])
    selector = ModelSelector([("net", extractor)], scoring="deep_logme")
    selector.fit(DIGITS, y)
    features, _ = extractor.extract(DIGITS)
    results = selector.results_
    rows = dict(zip(results["layer"], results["deep_logme"], strict=True))
    assert list(rows) == list(features)
    for name, value in rows.items():
        assert value == pytest.approx(deep_logme_score(under(extractor, name), y))
    assert len(set(rows.values())) == 3
    best = max(rows, key=rows.get)
    assert selector.best_name_ == f"net/{best}"
    assert selector.score(DIGITS, y) == pytest.approx(rows[best], abs=1e-12)


def test_mixture_of_ones_own():
    fixed = make_transferability_scorer(deep_logme_score, mixture=0.7)
    extractor = network()
    expected = deep_logme_score(under(extractor), y, mixture=0.7)
    assert fixed(extractor, DIGITS, y) == pytest.approx(expected, abs=1e-12)
    scoring = {"fixed": fixed, "deep_logme": "deep_logme"}
    results = ModelSelector([("net", extractor)], scoring=scoring).fit(DIGITS, y)
    assert results.results_["fixed"][0] == pytest.approx(expected, abs=1e-12)
    own = make_transferability_scorer(lambda layers, y: len(layers), reads="layers")
    assert own(extractor, DIGITS, y) == len(under(extractor))
    with pytest.raises(TypeError, match="deep_logme: got an unexpected keyword"):
        make_transferability_scorer(deep_logme_score, mixtur=0.7)


class TestPipelines:
    @pytest.mark.parametrize("last", [StandardScaler(), PCA(3)], ids=str)
    def test_layers_inside_with_the_output_as_the_last(self, last):
        extractor = network()
        pipeline = make_pipeline(FunctionTransformer(), extractor, last)
        selector = ModelSelector([("net", pipeline)], scoring="deep_logme")
        selector.fit(DIGITS, y)
        layers = extractor.extract(DIGITS, all_layers=True).layers
        output = pipeline.fit_transform(DIGITS)
        expected = deep_logme_score({**layers, "output of the pipeline": output}, y)
        assert selector.best_score_ == pytest.approx(expected, abs=1e-12)
        assert selector.score(DIGITS, y) == pytest.approx(expected, abs=1e-8)


class TestOneLayer:
    message = "see the features only, as one layer: "

    def test_score_is_the_ordinary_one(self):
        X = DIGITS.reshape(90, -1).astype(float)
        candidates = [("pca", PCA(5)), ("scaled", StandardScaler())]
        selector = ModelSelector(candidates, scoring=["deep_logme", "logme"])
        with pytest.warns(UserWarning, match=self.message) as caught:
            selector.fit(X, y)
        assert [str(w.message).split(":")[0] for w in caught] == ["pca", "scaled"]
        assert "no extractor that shows" in str(caught[0].message)
        for (_, candidate), value in zip(
            candidates, selector.results_["deep_logme"], strict=True
        ):
            expected = logme_score(candidate.fit_transform(X), y, fit_intercept=True)
            assert value == pytest.approx(expected, abs=1e-8)

    def test_network_beside_words(self):
        texts = [f"{'good' if k else 'bad'} film {i % 7}" for i, k in enumerate(y > 1)]
        words = make_pipeline(
            TfidfVectorizer(), FunctionTransformer(lambda X: X.toarray())
        )
        with pytest.warns(UserWarning, match="words: .*" + self.message):
            selector = ModelSelector([("words", words)], scoring="deep_logme").fit(
                texts, y % 2
            )
        assert np.isfinite(selector.best_score_)

    def test_network_with_one_layer(self):
        extractor = TorchFeatureExtractor(nn.Flatten)
        with pytest.warns(UserWarning, match="net: .*its network shows no other"):
            ModelSelector([("net", extractor)], scoring="deep_logme").fit(DIGITS, y)
        with pytest.warns(UserWarning, match=self.message):
            get_scorer("deep_logme")(extractor, DIGITS, y)

    def test_no_warning_for_ordinary_scores(self, recwarn):
        ModelSelector([("pca", PCA(5))], scoring="logme").fit(DIGITS.reshape(90, -1), y)
        assert not [w for w in recwarn if self.message in str(w.message)]


class Given(BaseExtractor):
    """Samples as features, with some layers behind them."""

    def __init__(self, kind="plain"):
        self.kind = kind

    def extract(self, X, *, source_proba=False, all_layers=False):
        X = X.reshape(len(X), -1)
        inner = X**2
        if self.kind == "nan":
            inner[3, 2] = np.nan
        layers = {"inner": inner, "last": X}
        if self.kind == "constant":
            layers = {"constant": np.full_like(X, 0.1), **layers}
        if self.kind == "short":
            layers["inner"] = inner[1:]
        return Extraction({"last": X}, None, layers if all_layers else None)

    def check_all_layers(self):
        return


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ("nan", r"layers\['inner'\] contains NaN"),
            ("short", "layer 'inner' has 89 and the last, 'last', has 90"),
        ],
    )
    def test_row_with_its_error(self, kind, message):
        candidates = [("bad", Given(kind)), ("good", Given())]
        selector = ModelSelector(candidates, scoring=["deep_logme", "logme"])
        with pytest.warns(CandidateFailedWarning, match=f"(?s)bad.*{message}"):
            selector.fit(DIGITS, y)
        results = selector.results_
        assert np.isnan(results["deep_logme"][0])
        assert "deep_logme: ValueError" in results["error"][0]
        # Ordinary scores do not see the layer.
        assert results["logme"][0] == results["logme"][1]
        assert results["error"][1] == ""

    def test_nan_in_an_inner_layer_of_a_network(self):
        class Broken(nn.Module):
            def forward(self, x):
                inner = torch.full_like(x, torch.nan)
                self.inner(inner)
                return x

        net = Broken()
        net.inner = nn.Conv2d(4, 4, 1)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), net, nn.Tanh())
        selector = ModelSelector(
            [("broken", TorchFeatureExtractor(net)), ("net", network())],
            scoring=["deep_logme", "logme"],
        )
        with pytest.warns(CandidateFailedWarning, match=r"broken.*'input\(1.inner\)'"):
            selector.fit(DIGITS, y)
        assert np.isfinite(selector.results_["logme"]).all()

    def test_constant_inner_layer_counts_for_nothing(self):
        candidates = [("constant", Given("constant")), ("plain", Given())]
        selector = ModelSelector(candidates, scoring=[*DEEP]).fit(DIGITS, y)
        for name in DEEP:
            one, other = selector.results_[name]
            assert one == pytest.approx(other, abs=1e-8)
        assert selector.probability_better_[0, 1] == 0.5


def extracted(monkeypatch):
    """Numbers of samples that are extracted, rather than found in memory."""
    numbers = []
    extract = _cache._extract

    def counted(fitted, X, *args):
        numbers.append(len(X))
        return extract(fitted, X, *args)

    monkeypatch.setattr(_cache, "_extract", counted)
    return numbers


class TestMemory:
    def test_ordinary_extractions_are_not_deep_ones(self, tmp_path, monkeypatch):
        passes = extracted(monkeypatch)
        candidates = [("net", network())]

        def fit(scoring, n=90):
            passes.clear()
            selector = ModelSelector(candidates, scoring=scoring, memory=str(tmp_path))
            return selector.fit(DIGITS[:n], y[:n]), sum(passes)

        assert fit("logme")[1] == 90
        deep, n_samples = fit([*DEEP, "logme"])
        assert n_samples == 90
        again, n_samples = fit([*DEEP, "logme"])
        assert n_samples == 0
        for name in [*DEEP, "logme"]:
            np.testing.assert_array_equal(again.results_[name], deep.results_[name])
        assert fit("logme")[1] == 0
        assert fit("deep_logme", 50)[1] == 0

    def test_resumption(self, tmp_path, monkeypatch):
        """Larger samples extract what is new, with their layers."""

        class Growing(BaseModelSelector):
            def _run_selection(self, evaluate):
                evaluate(samples=range(40))
                evaluate()

        sizes = extracted(monkeypatch)
        memory = Memory(tmp_path, verbose=0)
        selector = Growing([("net", network())], scoring="deep_logme", memory=memory)
        selector.fit(DIGITS, y)
        assert sizes == [40, 50]
        alone = ModelSelector([("net", network())], scoring="deep_logme")
        alone.fit(DIGITS, y)
        assert selector.best_score_ == pytest.approx(alone.best_score_, abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*see the features only")
class TestTargets:
    def test_regression_and_labels(self):
        numbers = DIGITS.mean((1, 2, 3)).astype(float) + y
        labels = np.c_[y > 1, y % 2].astype(int)
        extractor = network()
        for target in (numbers, labels):
            selector = ModelSelector(
                [("net", extractor), ("other", network(1))],
                scoring=["deep_logme", "deep_loo_log_likelihood"],
            ).fit(DIGITS, target)
            for name in ("deep_logme", "deep_loo_log_likelihood"):
                expected = DEEP[name](under(extractor), target)
                assert selector.results_[name][0] == pytest.approx(expected, abs=1e-9)
                assert (selector.results_[f"{name}_std_error"] > 0).all()

    def test_groups(self):
        groups = np.arange(90) // 3
        extractor = network()
        selector = ModelSelector([("net", extractor)], scoring=[*DEEP])
        selector.fit(DIGITS, y, groups=groups)
        for name, function in DEEP.items():
            expected = function(under(extractor), y, groups=groups)
            assert selector.results_[name][0] == pytest.approx(expected, abs=1e-12)

    def test_subsample(self):
        """Parts are of the samples drawn, the same for all candidates."""
        drawn = make_transferability_scorer(deep_logme_score, max_samples=60)
        candidates = [("a", network(0)), ("b", network(1)), ("c", network(2))]
        seen = {}

        class Keep(ModelSelector):
            def _run_selection(self, evaluate):
                seen.update({r.name: r.scores["deep_logme"] for r in evaluate()})

        selector = Keep(candidates, scoring=drawn).fit(DIGITS, y)
        rows = np.flatnonzero(seen["a"].weights)
        assert 60 <= len(rows) <= 64
        few = Keep(candidates, scoring="deep_logme").fit(DIGITS[rows], y[rows])
        for name in ("deep_logme", "deep_logme_std_error"):
            np.testing.assert_allclose(
                selector.results_[name], few.results_[name], atol=1e-9
            )
        np.testing.assert_allclose(
            selector.probability_better_, few.probability_better_, atol=1e-6
        )

    def test_scores_of_other_samples_are_not_compared(self):
        layers = under(network())
        one, other = (
            make_transferability_scorer(
                deep_logme_score, max_samples=60, random_state=i
            ).metrics["deep_logme"]
            for i in range(2)
        )
        data = LabelledData(None, y, layers=layers, with_parts=True)
        P = probability_better([one.score(data), other.score(data)])
        assert np.isnan(P[0, 1])
        assert P[0, 0] == 0.5


def test_in_parallel():
    candidates = [(f"net{i}", network(i)) for i in range(3)] + [("pca", pixels())]
    expected = ModelSelector(candidates, scoring="deep_logme")
    with pytest.warns(UserWarning, match="pca"):
        expected.fit(DIGITS, y)
    for backend in ("threading", "loky"):
        selector = ModelSelector(candidates, scoring="deep_logme", n_jobs=2)
        with parallel_config(backend=backend), pytest.warns(UserWarning, match="pca"):
            selector.fit(DIGITS, y)
        np.testing.assert_allclose(
            selector.results_["deep_logme"], expected.results_["deep_logme"], atol=1e-6
        )


def pixels():
    return make_pipeline(FunctionTransformer(flat), PCA(4))


def flat(X):
    return X.reshape(len(X), -1)
