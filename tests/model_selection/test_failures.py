"""One failing candidate never loses the others' results."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer
from sklearn.utils import get_tags

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.feature_extraction import BaseExtractor, Extraction
from sktransfer.model_selection import ModelSelector


class Layers(BaseExtractor):
    """Gives two layers, and has no parameter to choose one."""

    def extract(self, X, *, source_proba=False):
        X = np.asarray(X, dtype=np.float32)
        return Extraction({"few": X[:, :2], "all": X})


def test_several_layers_and_no_parameter_to_choose_one(wine):
    with pytest.warns(CandidateFailedWarning):
        selector = ModelSelector([("two", Layers()), ("pca", PCA(2))]).fit(*wine)
    assert "its class needs a parameter 'layer'" in selector.results_["error"][0]
    assert "worker" not in selector.results_["error"][0]
    with pytest.raises(TypeError, match="its class needs a parameter 'layer'"):
        ModelSelector([("two", Layers())], error_score="raise").fit(*wine)


REASONS = {
    "raises": "OSError: image 3 is damaged",
    "raises in fit": "RuntimeError: the weights are gone",
    "nan": "NaN or infinity in 1 of 178 rows",
    "inf": "NaN or infinity in",
    "rows": r"shape (176, 13); expected (178, n_features)",
    "1-D": r"shape (178,); expected (178, n_features)",
    "3-D": r"shape (178, 13, 1); expected (178, n_features)",
    "nothing": r"shape (); expected (178, n_features)",
}


@pytest.mark.parametrize("how", REASONS)
@pytest.mark.parametrize("memory", [False, True])
def test_is_a_row_with_its_reason(how, memory, wine, broken, tmp_path):
    candidates = [("one", PCA(1)), ("bad", broken(how)), ("two", PCA(2))]
    memory = str(tmp_path) if memory else None
    with pytest.warns(CandidateFailedWarning, match="1 of 3 candidates failed") as seen:
        selector = ModelSelector(candidates, memory=memory).fit(*wine)
    assert seen[0].filename == __file__
    assert "bad: " in str(seen[0].message)

    results = selector.results_
    assert REASONS[how] in results["error"][1]
    assert results["error"][[0, 2]].tolist() == ["", ""]
    assert np.isnan(results["logme"]).tolist() == [False, True, False]
    assert results["rank"].tolist() == [2, 3, 1]
    assert results["n_features"].tolist() == [1, 0, 2]
    assert selector.ranking_ == ["two", "one", "bad"]

    good = ModelSelector([candidates[0], candidates[2]]).fit(*wine)
    np.testing.assert_array_equal(results["logme"][[0, 2]], good.results_["logme"])
    np.testing.assert_array_equal(
        selector.probability_better_[np.ix_([0, 2], [0, 2])], good.probability_better_
    )
    assert np.isnan(selector.probability_better_[1]).all()
    assert np.isnan(selector.probability_better_[:, 1]).all()


def test_all_failing_lists_the_reasons(wine, broken):
    candidates = [(how, broken(how)) for how in ("raises", "nan", "1-D")]
    with pytest.raises(ValueError, match="All 3 candidates failed") as error:
        ModelSelector(candidates).fit(*wine)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "raises",
        "nan",
        "1-D",
    ]


def test_raise(wine, broken):
    candidates = [("one", PCA(1)), ("bad", broken("raises"))]
    with pytest.raises(OSError, match="image 3 is damaged"):
        ModelSelector(candidates, error_score="raise").fit(*wine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ModelSelector(candidates[:1], error_score="raise").fit(*wine)


@pytest.mark.parametrize("error_score", [-100.0, 0, 100.0])
def test_number_does_not_make_a_failed_candidate_any_better(error_score, wine, broken):
    candidates = [("bad", broken("nan")), ("one", PCA(1)), ("two", PCA(2))]
    with pytest.warns(CandidateFailedWarning):
        selector = ModelSelector(candidates, error_score=error_score).fit(*wine)
    assert selector.results_["logme"][0] == error_score
    assert selector.ranking_ == ["two", "one", "bad"]
    assert selector.results_["rank"].tolist() == [3, 2, 1]
    assert selector.best_name_ == "two"


class TestOneMetricOfSeveral:
    def fit(self, wine, extractor, **params):
        candidates = [("bare", extractor()), ("headed", extractor(head=True))]
        scoring = ["logme", "leep", "h_score"]
        return ModelSelector(candidates, scoring=scoring, **params).fit(*wine)

    def test_the_others_are_kept(self, wine, logged_extractor, log):
        with pytest.warns(CandidateFailedWarning, match="at least in part"):
            selector = self.fit(wine, logged_extractor)
        results = selector.results_
        assert np.isfinite(results["logme"]).all()
        assert np.isfinite(results["h_score"]).all()
        assert np.isnan(results["leep"]).tolist() == [True, False]
        assert results["rank_leep"].tolist() == [2, 1]
        assert "leep: " in results["error"][0]
        assert "no source probabilities: this extractor was made" in results["error"][0]
        assert not results["error"][1]
        assert len(log.read()) == 2

    def test_it_decides(self, wine, logged_extractor):
        for error_score in (np.nan, 5.0):
            with pytest.warns(CandidateFailedWarning):
                selector = self.fit(
                    wine, logged_extractor, refit="leep", error_score=error_score
                )
            assert selector.best_name_ == "headed"
            assert selector.ranking_ == ["headed", "bare"]

    def test_raise(self, wine, logged_extractor):
        with pytest.raises(ValueError, match="no source probabilities"):
            self.fit(wine, logged_extractor, error_score="raise")


def test_metric_that_gives_nan(wine):
    def of_few(features, y):
        return 1.0 if features.shape[1] < 3 else float("nan")

    candidates = [("two", PCA(2)), ("five", PCA(5))]
    with pytest.warns(CandidateFailedWarning, match="five: of_few: .*the score is NaN"):
        selector = ModelSelector(candidates, scoring=of_few).fit(*wine)
    assert selector.ranking_ == ["two", "five"]


def test_candidates_that_are_no_transformers(wine):
    candidates = [
        ("two", PCA(2)),
        ("predictor", LogisticRegression()),
        ("pipeline", make_pipeline(PCA(2), LogisticRegression())),
        ("function", np.sqrt),
        (
            "sparse",
            KBinsDiscretizer(encode="onehot", quantile_method="averaged_inverted_cdf"),
        ),
    ]
    for scoring in (["logme"], ["logme", "leep"]):
        with pytest.warns(CandidateFailedWarning):
            selector = ModelSelector(candidates, scoring=scoring).fit(*wine)
        errors = selector.results_["error"]
        assert "does not have the method 'transform'" in errors[1]
        assert "does not have the method 'transform'" in errors[2]
        assert "TypeError" in errors[3]
        assert "sparse features, but metrics need dense ones" in errors[4]
        assert "TruncatedSVD" in errors[4]
        assert selector.best_name_ == "two"


def test_warnings_name_the_candidate(wine):
    def rough(features, y):
        warnings.warn("the score is rough", UserWarning, stacklevel=1)
        return 1.0

    with pytest.warns(UserWarning, match="first: the score is rough"):
        ModelSelector([("first", PCA(2))], scoring=rough).fit(*wine)


@pytest.mark.parametrize(
    ("extractors", "message"),
    [
        ([], "at least one"),
        ([("a", PCA(1)), ("a", PCA(2))], "Names provided are not unique"),
        ([PCA(1), PCA(2)], r"\(name, transformer\) tuples.*Got PCA.* at position 0"),
        ([("a", PCA(1)), (PCA(2), "b")], "Got .* at position 1"),
        (("a", PCA(1)), "Got 'a' at position 0"),
        ([("a", PCA(1), 3)], "at position 0"),
        ([("a__b", PCA(1))], "must not contain __"),
        ([("scoring", PCA(1))], "conflict with constructor arguments"),
    ],
)
def test_names(extractors, message, wine):
    with pytest.raises(ValueError, match=message):
        ModelSelector(extractors).fit(*wine)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"task": "ranking"}, "'task' parameter"),
        ({"error_score": "ignore"}, "'error_score' parameter"),
        ({"memory": 3}, "'memory' parameter"),
        ({"n_jobs": 1.5}, "'n_jobs' parameter"),
        ({"scoring": 3}, "'scoring' parameter"),
        ({"scoring": "transrte"}, "Did you mean 'transrate'"),
        ({"refit": 3.0}, "'refit' parameter"),
    ],
)
def test_parameters(params, message, wine):
    with pytest.raises(ValueError, match=message):
        ModelSelector([("a", PCA(1))], **params).fit(*wine)


def test_candidates_without_names_can_be_shown():
    selector = ModelSelector([PCA(1), PCA(2)])
    assert "PCA" in repr(selector)
    assert "ModelSelector" in selector._repr_html_()
    assert selector.get_params()["extractors"] == [*selector.extractors]
    assert not get_tags(selector).input_tags.sparse


def test_a_folder_is_no_collection_of_samples(wine, tmp_path):
    _, y = wine
    selector = ModelSelector([("a", PCA(1))])
    for folder in (str(tmp_path), tmp_path):
        with pytest.raises(TypeError, match=r"Got one (str|\w+Path)") as e:
            selector.fit(folder, y)
        assert f"pathlib.Path({str(tmp_path)!r}).glob" in str(e.value)
    for X in ("one text", b"one text", {"pixels": wine[0]}):
        with pytest.raises(TypeError, match="expects a collection of samples") as e:
            selector.fit(X, y)
        assert "folder" not in str(e.value)


@pytest.mark.parametrize(
    "tags",
    [
        [["O", "B"], ["O"], []],
        [["O", "B"], ["O", "O"], ["O", "B"]],
        [[0, 1], [0], [1, 1, 1]],
        np.array([["O", "B"], ["O"], []], dtype=object),
    ],
)
def test_labels_of_words_need_features_of_words(tags, logged_extractor, log):
    words = [["to", "be"], ["or"], []]
    with pytest.raises(ValueError, match=r"pooling='tokens'.*one label for each"):
        ModelSelector([("a", logged_extractor())]).fit(words, tags)
    assert not log.read()


def test_extract_that_returns_a_dict(wine, logged_extractor, monkeypatch):
    kind = type(logged_extractor())
    monkeypatch.setattr(kind, "extract", lambda self, X, *, source_proba=False: {"": X})
    candidates = [("a", PCA(1)), ("dict", logged_extractor())]
    with pytest.warns(
        CandidateFailedWarning, match="must return an Extraction.*a dict"
    ):
        ModelSelector(candidates).fit(*wine)
