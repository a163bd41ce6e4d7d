"""What a selector reports: columns, ranks, the best."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    PolynomialFeatures,
    TargetEncoder,
)

from sktransfer.linear_model import LogMEClassifier
from sktransfer.metrics import (
    LabelledData,
    get_scorer,
    h_score,
    logme_score,
    make_transferability_scorer,
    transrate_score,
)
from sktransfer.model_selection import BaseModelSelector, ModelSelector
from sktransfer.model_selection._results import ranks

CANDIDATES = [
    ("two", PCA(2)),
    ("five", PCA(5)),
    ("poly", make_pipeline(PCA(3), PolynomialFeatures())),
]


def test_columns_by_hand(wine):
    X, y = wine
    results = ModelSelector(CANDIDATES, scoring="logme").fit(X, y).results_
    assert list(results) == [
        "name",
        "layer",
        "logme",
        "logme_std_error",
        "logme_gain",
        "rank",
        "n_samples",
        "n_features",
        "extract_time",
        "score_time",
        "error",
    ]
    assert results["name"].tolist() == ["two", "five", "poly"]
    assert results["layer"].tolist() == results["error"].tolist() == ["", "", ""]
    assert results["n_features"].tolist() == [2, 5, 10]
    assert results["n_samples"].tolist() == [178, 178, 178]
    for i, (_, extractor) in enumerate(CANDIDATES):
        Z = extractor.fit_transform(X)
        assert results["logme"][i] == pytest.approx(logme_score(Z, y), abs=1e-12)
        std_error = LogMEClassifier(std_error=True).fit(Z, y).std_error_
        assert results["logme_std_error"][i] == pytest.approx(std_error, rel=1e-9)
    assert (results["extract_time"] > 0).all()
    assert (results["score_time"] > 0).all()


def test_best_and_ranking(wine):
    X, y = wine
    selector = ModelSelector(CANDIDATES, scoring="logme").fit(X, y)
    scores = selector.results_["logme"]
    order = np.argsort(-scores)
    assert selector.ranking_ == [CANDIDATES[i][0] for i in order]
    assert selector.results_["rank"].tolist() == (np.argsort(order) + 1).tolist()
    assert selector.best_index_ == order[0]
    assert selector.best_name_ == selector.ranking_[0]
    assert selector.best_score_ == scores.max()
    assert selector.task_ == "classification"
    np.testing.assert_array_equal(selector.classes_, [0, 1, 2])


def test_several_metrics(wine):
    X, y = wine
    names = ["h_score", "logme", "transrate"]
    functions = {"h_score": h_score, "logme": logme_score, "transrate": transrate_score}
    selector = ModelSelector(CANDIDATES, scoring=names).fit(X, y)
    results = selector.results_
    for name in names:
        for i, (_, extractor) in enumerate(CANDIDATES):
            Z = extractor.fit_transform(X)
            assert results[name][i] == pytest.approx(functions[name](Z, y), rel=1e-9)
        np.testing.assert_array_equal(results[f"rank_{name}"], ranks(results[name]))
    # The first decides.
    np.testing.assert_array_equal(results["rank"], results["rank_h_score"])
    assert selector.best_score_ == results["h_score"].max()


@pytest.mark.parametrize("refit", [False, True, "transrate", "logme"])
def test_the_metric_that_decides(wine, refit):
    selector = ModelSelector(CANDIDATES, scoring=["logme", "transrate"], refit=refit)
    selector.fit(*wine)
    decides = refit if isinstance(refit, str) else "logme"
    results = selector.results_
    np.testing.assert_array_equal(results["rank"], results[f"rank_{decides}"])
    assert selector.best_score_ == results[decides].max()
    assert hasattr(selector, "best_estimator_") == bool(refit)
    assert hasattr(selector, "best_extractor_") == bool(refit)


def test_refit_by_a_metric_that_is_not_measured(wine):
    selector = ModelSelector(CANDIDATES, scoring="logme", refit="transrate")
    with pytest.raises(ValueError, match=r"'refit'.*\['logme'\].*'transrate'"):
        selector.fit(*wine)


@pytest.mark.parametrize(
    "scoring",
    [
        get_scorer("h_score"),
        ["h_score"],
        {"h_score": "h_score"},
        h_score,
        make_transferability_scorer(h_score),
    ],
)
def test_forms_of_scoring(wine, scoring):
    selector = ModelSelector(CANDIDATES, scoring=scoring).fit(*wine)
    expected = ModelSelector(CANDIDATES, scoring="h_score").fit(*wine)
    np.testing.assert_array_equal(
        selector.results_["h_score"], expected.results_["h_score"]
    )
    assert selector.ranking_ == expected.ranking_
    assert not hasattr(selector, "probability_better_")


@pytest.mark.parametrize("refit", [False, True])
def test_logme_by_another_name(wine, refit):
    scoring = {"evidence": "logme", "h": "h_score"}
    selector = ModelSelector(CANDIDATES, scoring=scoring, refit=refit).fit(*wine)
    expected = ModelSelector(CANDIDATES, scoring="logme").fit(*wine)
    results = selector.results_
    np.testing.assert_array_equal(results["evidence"], expected.results_["logme"])
    np.testing.assert_array_equal(
        results["evidence_std_error"], expected.results_["logme_std_error"]
    )
    np.testing.assert_array_equal(
        selector.probability_better_, expected.probability_better_
    )


def test_logme_of_a_scorer_that_has_been_copied(wine, monkeypatch):
    # As in workers and clones: the metric and the teacher share one fit. Only the best
    # so far also has a head.
    scorer = pickle.loads(pickle.dumps(get_scorer("logme")))
    fits, fit = [], LabelledData.fit_logme
    monkeypatch.setattr(
        LabelledData,
        "fit_logme",
        lambda data, **params: fits.append(params) or fit(data, **params),
    )
    selector = ModelSelector(CANDIDATES, scoring=scorer, error_score="raise").fit(*wine)
    scores = np.r_[-np.inf, selector.results_["logme"]]
    heads = np.sum(scores[1:] > np.maximum.accumulate(scores)[:-1])
    assert fits.count({}) == len(CANDIDATES) == len(fits) - heads
    expected = ModelSelector(CANDIDATES, scoring="logme").fit(*wine)
    np.testing.assert_array_equal(
        selector.probability_better_, expected.probability_better_
    )


def test_another_metric_by_the_name_of_logme(wine):
    # With an intercept it is another model, with a standard error of its own.
    scoring = make_transferability_scorer(logme_score, fit_intercept=True)
    selector = ModelSelector(CANDIDATES, scoring=scoring).fit(*wine)
    X, y = wine
    expected = logme_score(PCA(2).fit_transform(X), y, fit_intercept=True)
    assert selector.results_["logme"][0] == pytest.approx(expected, abs=1e-12)
    model = LogMEClassifier(fit_intercept=True, std_error=True)
    std_error = model.fit(PCA(2).fit_transform(X), y).std_error_
    assert selector.results_["logme_std_error"][0] == pytest.approx(std_error)
    own = ModelSelector(CANDIDATES, scoring="logme").fit(X, y).probability_better_
    assert abs(selector.probability_better_ - own).max() > 1e-3


def test_copies_share_a_rank(wine):
    candidates = [("a", PCA(2)), ("b", PCA(5)), ("c", PCA(5)), ("d", PCA(1))]
    selector = ModelSelector(candidates, scoring="h_score").fit(*wine)
    assert selector.results_["rank"].tolist() == [3, 1, 1, 4]
    assert selector.ranking_ == ["b", "c", "a", "d"]
    assert selector.best_name_ == "b"


def test_ranks_with_ties_and_missing_scores():
    scores = np.array([0.5, np.nan, -np.inf, 0.5, np.inf, np.nan])
    assert ranks(scores).tolist() == [2, 5, 4, 2, 1, 5]


def test_predictor_that_transforms_is_a_transformer_here(wine):
    X, y = wine
    discriminant = LinearDiscriminantAnalysis(n_components=1)
    for candidate in (discriminant, make_pipeline(PCA(5), discriminant)):
        selector = ModelSelector([("lda", candidate)], scoring="logme").fit(X, y)
        Z = candidate.fit(X, y).transform(X)
        assert selector.best_score_ == pytest.approx(logme_score(Z, y), abs=1e-9)
        np.testing.assert_allclose(selector.transform(X), Z)
        assert selector.predict(X).shape == y.shape


def test_samples_go_through_a_pipeline_once(wine):
    passes = []
    counting = FunctionTransformer(lambda X: passes.append(len(X)) or X)
    ModelSelector([("a", make_pipeline(counting, PCA(2)))]).fit(*wine)
    assert passes == [len(wine[0])]


@pytest.mark.parametrize("wrap", [clone, make_pipeline])
def test_noise_that_learns_from_the_target_does_not_win(wrap, global_random_seed):
    """Features of the training samples are those of `fit_transform`, cross-fitted."""
    rng = np.random.default_rng(global_random_seed)
    X = rng.integers(150, size=(400, 1))
    y = rng.integers(3, size=400)
    X = np.hstack([X, (y + 2 * rng.normal(size=400) > 1)[:, None]])
    noise = ColumnTransformer([("noise", TargetEncoder(cv=KFold(5)), [0])])
    informative = ColumnTransformer([("one", OneHotEncoder(), [1])])
    candidates = [("noise", wrap(noise)), ("informative", wrap(informative))]
    selector = ModelSelector(candidates, scoring="logme").fit(X, y)
    assert selector.ranking_ == ["informative", "noise"]
    expected = logme_score(clone(noise).fit_transform(X, y), y)
    assert selector.results_["logme"][0] == pytest.approx(expected, abs=1e-9)


def test_data_frame(wine):
    pytest.importorskip("pandas")
    frame = ModelSelector(CANDIDATES).fit(*wine).to_frame()
    selector = ModelSelector(CANDIDATES).fit(*wine)
    assert frame.index.tolist() == selector.ranking_
    assert list(frame.columns) == list(selector.results_)
    assert frame["rank"].tolist() == [1, 2, 3]
    assert frame.loc["two", "logme"] == selector.results_["logme"][0]


def test_lines_for_each_candidate(wine, capsys):
    ModelSelector(CANDIDATES, scoring=["logme", "h_score"], verbose=1).fit(*wine)
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(0) == "classification, 3 classes"
    assert [line.split(":")[0] for line in lines] == ["two", "five", "poly"]
    assert all(": logme " in line and ", h_score " in line for line in lines)
    ModelSelector(CANDIDATES).fit(*wine)
    assert not capsys.readouterr().out


def test_verbose_escapes_what_standard_output_cannot_express(wine, monkeypatch):
    page = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", page)
    selector = ModelSelector([("r\u00e9sidu", PCA(1))], scoring="logme", verbose=1)
    selector.fit(*wine)
    page.flush()
    assert rb"r\xe9sidu: logme" in page.buffer.getvalue()


def test_no_information(wine):
    X, y = wine
    metrics = ["logme", "h_score", "loo_accuracy"]
    selector = ModelSelector(CANDIDATES, scoring=metrics).fit(X, y)
    shares = np.bincount(y) / len(y)
    logme = -0.5 * np.mean(1 + np.log(2 * np.pi * shares))
    expected = {"logme": logme, "loo_accuracy": shares.max()}
    assert selector.no_information_ == pytest.approx(expected, abs=1e-12)
    for metric, value in expected.items():
        gain = selector.results_[f"{metric}_gain"]
        np.testing.assert_allclose(gain, selector.results_[metric] - value, atol=1e-9)


def test_no_information_is_that_of_the_most_samples(wine):
    X, y = wine

    class Uneven(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(samples=np.flatnonzero(y < 2))
            evaluate(names=["five"])

    selector = Uneven(CANDIDATES, scoring="loo_accuracy").fit(X, y)
    share = np.bincount(y).max() / len(y)
    assert selector.no_information_ == pytest.approx({"loo_accuracy": share})
