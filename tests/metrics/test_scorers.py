"""Scorers: how they are made, what they measure, and that they extract once."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer.feature_extraction import BaseExtractor, Extraction
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import (
    TransferabilityScorer,
    get_scorer,
    get_scorer_names,
    h_score,
    leep_score,
    logme_score,
    make_transferability_scorer,
    transrate_score,
)
from sktransfer.model_selection import ModelSelector

X, y = load_wine(return_X_y=True)
SCALED = StandardScaler().fit_transform(X)


class Counting(TransformerMixin, BaseEstimator):
    """Scales by a half; counts its calls in a list that clones share."""

    calls = None

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        type(self).calls.append(len(X))
        return X / 2


class Probable(BaseExtractor):
    """Gives two layers, and the same source probabilities for every sample."""

    def extract(self, X, *, source_proba=False):
        layers = {"plain": X, "squared": X**2}
        P = np.exp(X[:, :3]) / np.exp(X[:, :3]).sum(axis=1, keepdims=True)
        return Extraction(layers, P if source_proba else None)

    def check_source_proba(self):
        pass


@pytest.fixture(autouse=True)
def _fresh_calls():
    Counting.calls = []


def width(features, y):
    """A metric of one's own."""
    return features.shape[1]


class TestMaking:
    @pytest.mark.parametrize("name", get_scorer_names())
    def test_by_name(self, name):
        scorer = get_scorer(name)
        assert isinstance(scorer, TransferabilityScorer)
        assert list(scorer.metrics) == [name]
        assert name in repr(scorer)
        assert get_scorer(scorer) is scorer

    def test_by_function(self):
        by_function = make_transferability_scorer(h_score)
        assert by_function.metrics == get_scorer("h_score").metrics
        own = make_transferability_scorer(width)
        assert own(PCA(4).fit(X), X, y) == 4
        assert list(own.metrics) == ["width"]

    def test_keyword_arguments(self):
        scorer = make_transferability_scorer(transrate_score, variant="icml")
        expected = transrate_score(SCALED, y, variant="icml")
        assert scorer(StandardScaler().fit(X), X, y) == expected
        by_name = make_transferability_scorer("transrate", variant="icml")
        assert by_name(StandardScaler().fit(X), X, y) == expected
        # What the registry knows about the metric is kept.
        assert scorer.metrics["transrate"].tasks == ("classification", "regression")

    def test_several(self):
        scaler = StandardScaler().fit(X)
        expected = {"logme": logme_score(SCALED, y), "h_score": h_score(SCALED, y)}
        assert get_scorer(["logme", "h_score"])(scaler, X, y) == expected
        named = {
            "evidence": "logme",
            "h": h_score,
            "icml": partial(transrate_score, variant="icml"),
            "own": width,
            "scorer": get_scorer("transrate"),
        }
        scores = make_transferability_scorer(named)(scaler, X, y)
        assert list(scores) == list(named)
        assert scores["evidence"] == expected["logme"]
        assert scores["h"] == expected["h_score"]
        assert scores["icml"] == transrate_score(SCALED, y, variant="icml")
        assert scores["own"] == 13
        assert scores["scorer"] == transrate_score(SCALED, y)

    def test_one_name_in_a_list_gives_a_dict(self):
        assert list(get_scorer(["h_score"])(PCA(2).fit(X), X, y)) == ["h_score"]

    @pytest.mark.parametrize(
        ("score_func", "options", "message"),
        [
            ("transrte", {}, "Did you mean 'transrate'"),
            (["logme", "transrte"], {}, "Did you mean 'transrate'"),
            (
                ["logme", h_score],
                {},
                "'score_func' takes metrics and their names only.*h_score",
            ),
            ({"a": 3}, {}, "must be callable or a metric's name. Got 3"),
            ([], {}, "at least one metric"),
            ({}, {}, "at least one metric"),
            (["logme"], {"task": "auto"}, r"\['task'\] need a single score function"),
            (width, {"reads": "logits"}, r"'reads' parameter.*Got 'logits'"),
        ],
    )
    def test_errors(self, score_func, options, message):
        with pytest.raises(ValueError, match=message):
            make_transferability_scorer(score_func, **options)


class TestWhatIsMeasured:
    scorer = get_scorer("logme")

    def test_transformer(self):
        pca = PCA(3).fit(X)
        assert self.scorer(pca, X, y) == logme_score(pca.transform(X), y)

    @pytest.mark.parametrize("predictor", [LogMEClassifier(), LogisticRegression()])
    def test_pipeline_with_a_final_predictor(self, predictor):
        pipeline = make_pipeline(StandardScaler(), PCA(3), predictor).fit(X, y)
        expected = logme_score(pipeline[:-1].transform(X), y)
        assert self.scorer(pipeline, X, y) == expected
        assert self.scorer(pipeline[:-1], X, y) == expected

    def test_pipeline_with_a_final_regressor(self):
        pipeline = make_pipeline(PCA(3), LogME()).fit(X, X[:, 0])
        expected = logme_score(pipeline[:-1].transform(X), X[:, 0])
        assert self.scorer(pipeline, X, X[:, 0]) == expected

    @pytest.mark.parametrize("predictor", [LogMEClassifier(), LogisticRegression()])
    def test_predictor_alone(self, predictor):
        predictor.set_params(max_iter=3000).fit(SCALED, y)
        assert self.scorer(predictor, SCALED, y) == logme_score(SCALED, y)

    def test_final_predictor_that_transforms_too(self):
        # What it gives as a transformer are its predictions.
        stack = StackingClassifier([("logme", LogMEClassifier())])
        pipeline = make_pipeline(StandardScaler(), stack).fit(X, y)
        assert self.scorer(pipeline, X, y) == logme_score(SCALED, y)

    def test_predictor_that_transforms_in_the_middle(self):
        discriminant = LinearDiscriminantAnalysis()
        pipeline = make_pipeline(discriminant, LogMEClassifier()).fit(X, y)
        expected = logme_score(discriminant.fit(X, y).transform(X), y)
        assert self.scorer(pipeline, X, y) == pytest.approx(expected, abs=1e-12)

    def test_nested_pipelines(self):
        inner = make_pipeline(StandardScaler(), PCA(3))
        outer = make_pipeline(inner, make_pipeline(PCA(2), LogMEClassifier()))
        outer.fit(X, y)
        expected = logme_score(outer[-1][:-1].transform(inner.transform(X)), y)
        assert self.scorer(outer, X, y) == expected

    @pytest.mark.parametrize("nothing", ["passthrough", None])
    def test_passthrough(self, nothing):
        steps = [("scale", StandardScaler()), ("no", nothing), ("end", nothing)]
        pipeline = Pipeline(steps).fit(X, y)
        assert self.scorer(pipeline, X, y) == pytest.approx(
            logme_score(SCALED, y), abs=1e-12
        )

    def test_selector(self):
        selector = ModelSelector([("scale", StandardScaler())]).fit(X, y)
        assert self.scorer(selector, X, y) == logme_score(SCALED, y)

    def test_data_frames(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
        scaler = StandardScaler().set_output(transform="pandas").fit(frame)
        score = self.scorer(scaler, frame, pandas.Series(y))
        assert score == pytest.approx(logme_score(SCALED, y), abs=1e-12)

    def test_several_layers_are_put_side_by_side(self):
        expected = logme_score(np.hstack([SCALED, SCALED**2]), y)
        assert self.scorer(Probable(), SCALED, y) == expected

    def test_neither_transforms_nor_predicts(self):
        with pytest.raises(TypeError, match="does not have the method 'transform'"):
            self.scorer(object(), X, y)

    def test_unfitted(self):
        with pytest.raises(ValueError, match="not fitted"):
            self.scorer(PCA(2), X, y)


class TestExtraction:
    def test_happens_once_for_several_metrics(self):
        pipeline = make_pipeline(Counting(), LogMEClassifier()).fit(X, y)
        Counting.calls.clear()
        scores = get_scorer(["logme", "h_score", "transrate"])(pipeline, X, y)
        assert Counting.calls == [len(X)]
        assert scores["h_score"] == pytest.approx(h_score(X, y))

    def test_source_probabilities_come_from_the_same_pass(self, monkeypatch):
        passes = []
        original = Probable.extract
        monkeypatch.setattr(
            Probable,
            "extract",
            lambda self, X, source_proba=False: (
                passes.append(source_proba)
                or original(self, X, source_proba=source_proba)
            ),
        )
        scores = get_scorer(["logme", "leep", "nce"])(Probable(), SCALED, y)
        assert passes == [True]
        P = Probable().source_proba(SCALED)
        assert scores["leep"] == leep_score(P, y)

    def test_source_probabilities_from_the_middle_of_a_pipeline(self):
        pipeline = make_pipeline(StandardScaler(), Probable(), PCA(2)).fit(X, y)
        expected = leep_score(Probable().source_proba(SCALED), y)
        assert get_scorer("leep")(pipeline, X, y) == expected
        own = make_transferability_scorer(width, reads="source_proba")
        assert own(pipeline, X, y) == 3

    def test_no_source_probabilities(self):
        with pytest.raises(ValueError, match="Pipeline gives no source probabilities"):
            get_scorer("leep")(make_pipeline(PCA(2)).fit(X), X, y)


def test_pickles_and_clones_score_the_same():
    scaler = StandardScaler().fit(X)
    scorers = [
        *map(get_scorer, get_scorer_names()),
        get_scorer(["logme", "transrate"]),
        make_transferability_scorer(transrate_score, variant="icml"),
        make_transferability_scorer({"a": "h_score", "b": width}),
    ]
    for scorer in scorers:
        for copy in (pickle.loads(pickle.dumps(scorer)), clone(scorer, safe=False)):
            assert repr(copy) == repr(scorer)
            takes = all("classification" in m.tasks for m in scorer.metrics.values())
            if takes and not scorer.reads("source_proba"):
                assert copy(scaler, X, y) == scorer(scaler, X, y)
