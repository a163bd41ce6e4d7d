"""One pass of raw inputs through the steps of a transformer."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    StandardScaler,
    TargetEncoder,
    scale,
)

from sktransfer.feature_extraction import BaseExtractor, Extraction
from sktransfer.feature_extraction._extract import (
    extract,
    feature_steps,
    source_proba_problem,
    without_predictor,
)

X = np.random.default_rng(0).normal(size=(20, 5))
y = np.arange(20) % 2


class Shifted(BaseExtractor):
    """Two layers, and source probabilities that are all at one class."""

    def __init__(self, shift=0.0, source=None):
        self.shift = shift
        self.source = source

    def extract(self, X, *, source_proba=False):
        P = np.eye(3)[[self.source] * len(X)] if source_proba else None
        return Extraction({"a": X + self.shift, "b": X - self.shift}, P)

    def check_source_proba(self):
        if self.source is None:
            raise ValueError("no source was given.")


class Duck:
    """A transformer by its methods alone."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return 2 * X


class TestSteps:
    def test_of_a_transformer(self):
        for step in (PCA(), Shifted(), Duck(), LinearDiscriminantAnalysis()):
            assert feature_steps(step) == [step]

    def test_of_pipelines(self):
        a, b, c = StandardScaler(), Shifted(), PCA()
        inner = Pipeline([("a", a), ("none", None), ("b", b)])
        outer = Pipeline([("in", inner), ("no", "passthrough"), ("c", c)])
        assert feature_steps(outer) == [a, b, c]
        assert feature_steps("passthrough") == []

    def test_of_what_is_frozen(self):
        extractor, pca = Shifted(), PCA()
        assert feature_steps(FrozenEstimator(extractor)) == [extractor]
        pipeline = make_pipeline(extractor, FrozenEstimator(pca))
        first, last = feature_steps(FrozenEstimator(pipeline))
        assert first is extractor
        assert isinstance(last, FrozenEstimator)
        with pytest.raises(TypeError, match="must be a transformer"):
            feature_steps(FrozenEstimator(LogisticRegression()))

    @pytest.mark.parametrize("what", [LogisticRegression(), object(), "drop", len])
    def test_of_no_transformer(self, what):
        with pytest.raises(TypeError, match=r"must be a transformer.*'transform'"):
            feature_steps(what)
        with pytest.raises(TypeError, match=r"must be a transformer.*'transform'"):
            extract(make_pipeline(PCA(2), what), X)


class TestWithoutPredictor:
    @pytest.mark.parametrize("estimator", [PCA(), Shifted(), Duck(), "passthrough"])
    def test_transformers_stay(self, estimator):
        assert without_predictor(estimator) is estimator

    @pytest.mark.parametrize(
        "estimator", [LogisticRegression(), LinearDiscriminantAnalysis()]
    )
    def test_predictors_go(self, estimator):
        assert without_predictor(estimator) == "passthrough"

    def test_at_the_end_only(self):
        first, last = LinearDiscriminantAnalysis(), LogisticRegression()
        pipeline = make_pipeline(first, make_pipeline(PCA(1), last))
        assert len(feature_steps(without_predictor(pipeline))) == 2
        assert pipeline[-1][-1] is last

    def test_of_what_is_frozen(self):
        predictor, transformer = LogisticRegression(), Shifted()
        assert without_predictor(FrozenEstimator(predictor)) == "passthrough"
        pipeline = FrozenEstimator(make_pipeline(transformer, predictor))
        without = without_predictor(pipeline)
        assert isinstance(without, FrozenEstimator)
        assert feature_steps(without) == [transformer]


class TestExtract:
    def test_layers_of_the_last_step(self):
        features = extract(make_pipeline(Duck(), Shifted(1.0)), X).features
        np.testing.assert_array_equal(features["a"], 2 * X + 1)
        np.testing.assert_array_equal(features["b"], 2 * X - 1)

    def test_layers_in_the_middle_are_put_side_by_side(self):
        features = extract(make_pipeline(Shifted(1.0), Duck()), X).features
        assert list(features) == [""]
        np.testing.assert_array_equal(features[""], 2 * np.hstack([X + 1, X - 1]))

    def test_nothing_to_do(self):
        assert extract("passthrough", X).features[""] is X

    def test_union_is_one_transformer(self):
        union = FeatureUnion([("a", Shifted(1.0)), ("b", PCA(2))]).fit(X)
        assert extract(union, X).features[""].shape == (20, 12)

    def test_fit_on_the_way(self):
        passes = []
        counting = FunctionTransformer(lambda X: passes.append(len(X)) or X)
        pipeline = make_pipeline(
            StandardScaler(), counting, LinearDiscriminantAnalysis()
        )
        features = extract(pipeline, X, y, fit=True).features[""]
        assert passes == [20]
        np.testing.assert_array_equal(pipeline.transform(X), features)
        assert pipeline.n_features_in_ == 5

    def test_fitting_gives_what_fit_transform_gives(self, global_random_seed):
        """TargetEncoder cross-fits in `fit_transform` only; so must we, at any step."""
        rng = np.random.default_rng(global_random_seed)
        categories = rng.integers(30, size=(120, 2)).astype(str)
        target = rng.normal(size=120)
        encoder = TargetEncoder(cv=KFold(3))
        expected = clone(encoder).fit_transform(categories, target)
        leaky = encoder.fit(categories, target).transform(categories)
        assert not np.allclose(expected, leaky)
        for wrap in (clone, make_pipeline, lambda e: make_pipeline(make_pipeline(e))):
            features = extract(wrap(clone(encoder)), categories, target, fit=True)
            np.testing.assert_array_equal(features.features[""], expected)
        scaled = extract(
            make_pipeline(clone(encoder), StandardScaler()),
            categories,
            target,
            fit=True,
        )
        np.testing.assert_allclose(scaled.joined, scale(expected))

    def test_one_without_fit_transform_is_fitted_all_the_same(self):
        class Centre(Duck):
            def fit(self, X, y=None):
                self.mean = X.mean(axis=0)
                return self

            def transform(self, X):
                return X - self.mean

        features = extract(Centre(), X, fit=True).joined
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-12)

    @pytest.mark.parametrize(
        ("result", "given"),
        [
            ({"a": X}, "a dict"),
            (X, "a ndarray"),
            (None, "a NoneType"),
            (Extraction({}), r"an Extraction whose features are {}"),
            (Extraction(X), "an Extraction whose features are array"),
            (Extraction({"": X}, layers=[X]), r"the layers \[array"),
        ],
    )
    def test_an_extract_that_returns_something_else(self, result, given):
        class Wrong(BaseExtractor):
            def extract(self, X, *, source_proba=False):
                return result

        expected = rf"Wrong.extract must return an Extraction.*Got {given}"
        with pytest.raises(TypeError, match=f"(?s){expected}"):
            extract(Wrong(), X, fit=True)

    def test_frozen_steps_are_not_fitted(self):
        shifted, pca = Shifted(1.0), PCA(2)
        pipeline = make_pipeline(shifted, pca).fit(X[:10])
        expected = pipeline.transform(X)
        for frozen in (
            FrozenEstimator(pipeline),
            make_pipeline(shifted, FrozenEstimator(pca)),
        ):
            features = extract(frozen, X, y, fit=True).features[""]
            np.testing.assert_array_equal(features, expected)
        with pytest.raises(NotFittedError):
            extract(FrozenEstimator(PCA(2)), X, y, fit=True)

    def test_source_probabilities_of_the_last_that_has_them(self):
        pipeline = make_pipeline(
            Shifted(source=0), Shifted(source=2), Shifted(), Duck()
        )
        extraction = extract(pipeline, X, source_proba=True)
        np.testing.assert_array_equal(extraction.source_proba[:, 2], 1)
        assert extract(pipeline, X).source_proba is None


class TestSourceProbaProblem:
    def test_none(self):
        assert source_proba_problem(Shifted(source=1)) is None
        assert source_proba_problem(make_pipeline(Shifted(source=1), PCA())) is None
        assert source_proba_problem(make_pipeline(Shifted(source=1), Shifted())) is None
        assert source_proba_problem(FrozenEstimator(Shifted(source=1))) is None

    def test_said(self):
        assert source_proba_problem(Shifted()) == "no source was given."
        assert "no extractor" in source_proba_problem(make_pipeline(PCA()))
        with pytest.raises(
            ValueError, match=r"Shifted gives no .*: no source was given"
        ):
            extract(Shifted(), X, source_proba=True)
