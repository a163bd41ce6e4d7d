"""Scorers inside scikit-learn's cross-validation and searches."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import (
    get_scorer,
    h_score,
    logme_score,
    transrate_score,
)
from sktransfer.model_selection import ModelSelector, WholeDataset

X, y = load_wine(return_X_y=True)
CANDIDATES = [
    ("pca", PCA(2)),
    ("scaled", StandardScaler()),
    ("both", make_pipeline(MinMaxScaler(), PCA(3))),
]


def test_cross_val_score_measures_each_test_fold():
    pipeline = make_pipeline(StandardScaler(), PCA(3), LogMEClassifier())
    cv = StratifiedKFold(4)
    scores = cross_val_score(pipeline, X, y, scoring=get_scorer("transrate"), cv=cv)
    expected = []
    for train, test in cv.split(X, y):
        extract = make_pipeline(StandardScaler(), PCA(3)).fit(X[train], y[train])
        expected.append(transrate_score(extract.transform(X[test]), y[test]))
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_cross_validate_by_several_metrics():
    pipeline = make_pipeline(StandardScaler(), LogMEClassifier())
    cv = StratifiedKFold(3)
    several = get_scorer(["logme", "h_score"])
    results = cross_validate(
        pipeline, X, y, scoring=several, cv=cv, return_train_score=True
    )
    for fold, (train, test) in enumerate(cv.split(X, y)):
        Z = StandardScaler().fit(X[train]).transform(X)
        for name, function in (("logme", logme_score), ("h_score", h_score)):
            on_test, on_train = (function(Z[rows], y[rows]) for rows in (test, train))
            assert results[f"test_{name}"][fold] == pytest.approx(on_test, abs=1e-12)
            assert results[f"train_{name}"][fold] == pytest.approx(on_train, abs=1e-12)


def test_the_names_of_the_metrics_are_keys_of_a_grid_search():
    search = GridSearchCV(
        Pipeline([("extract", PCA()), ("logme", LogMEClassifier())]),
        {"extract": [PCA(1), PCA(2)]},
        scoring=get_scorer(["transrate", "h_score"]),
        refit="h_score",
        cv=WholeDataset(),
    ).fit(X, y)
    selector = ModelSelector(
        [("one", PCA(1)), ("two", PCA(2))], scoring=["transrate", "h_score"]
    ).fit(X, y)
    for name in ("transrate", "h_score"):
        np.testing.assert_allclose(
            search.cv_results_[f"mean_test_{name}"],
            selector.results_[name],
            rtol=1e-12,
        )


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("scoring", [None, "logme"])
def test_grid_search_over_the_whole_data_agrees_with_the_selector(task, scoring):
    # The score of the LogME estimators is LogME, so that no scorer is needed.
    head = LogMEClassifier() if task == "classification" else LogME()
    target = y if task == "classification" else X[:, 0] + np.sin(y)
    search = GridSearchCV(
        Pipeline([("extract", "passthrough"), ("logme", head)]),
        {"extract": [extractor for _, extractor in CANDIDATES]},
        scoring=scoring and get_scorer(scoring),
        cv=WholeDataset(),
        error_score="raise",
    ).fit(X, target)
    # For numbers the selector's LogME has an intercept, unless it is told otherwise.
    fit_intercept = "auto" if task == "classification" else False
    selector = ModelSelector(
        CANDIDATES, scoring="logme", fit_intercept=fit_intercept
    ).fit(X, target)
    assert selector.task_ == task
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], selector.results_["logme"], atol=1e-12
    )
    assert search.best_index_ == selector.best_index_
    assert search.best_score_ == pytest.approx(selector.best_score_, abs=1e-12)
    best = search.best_estimator_
    if task == "classification":
        # The selector's head predicts with one prior for all classes.
        best.set_params(logme__prior="shared", logme__fit_intercept=True)
        best.fit(X, target)
    np.testing.assert_array_equal(best.predict(X), selector.predict(X))


def test_selector_itself_is_searched():
    search = GridSearchCV(
        ModelSelector([("pca", PCA(1)), ("scaled", StandardScaler())]),
        {"pca__n_components": [1, 2], "scoring": ["logme", "h_score"]},
        cv=WholeDataset(),
        error_score="raise",
    ).fit(X, y)
    assert search.best_estimator_.best_name_ == "scaled"
    functions = {"logme": logme_score, "h_score": h_score}
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"],
        [
            functions[params["scoring"]](StandardScaler().fit_transform(X), y)
            for params in search.cv_results_["params"]
        ],
    )


def test_zoo_in_scikit_learns_searches():
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from sktransfer.datasets import load_dataset, load_zoo

    images, labels = load_dataset("digits", return_X_y=True)
    images, labels = images[:200], labels[:200]
    zoo = load_zoo(
        ["plain-handwritten", "residual-objects", "plain-untrained"], device="cpu"
    )
    selector = ModelSelector(zoo, scoring=["logme", "transrate", "leep"])
    selector.fit(images, labels)

    pipeline = Pipeline([("extract", zoo[0][1]), ("logme", LogMEClassifier())])
    search = GridSearchCV(
        pipeline,
        {"extract": [extractor for _, extractor in zoo]},
        scoring=get_scorer(["logme", "transrate", "leep"]),
        refit="logme",
        cv=WholeDataset(),
        error_score="raise",
    ).fit(images, labels)
    for name in ("logme", "transrate", "leep"):
        np.testing.assert_allclose(
            search.cv_results_[f"mean_test_{name}"],
            selector.results_[name],
            atol=1e-12,
        )
    assert search.best_index_ == selector.best_index_

    # Extractors learn nothing, so a fold is scored as if it were all the data.
    cv = StratifiedKFold(2)
    scores = cross_val_score(
        pipeline, images, labels, scoring=get_scorer("transrate"), cv=cv
    )
    expected = [
        ModelSelector(zoo[:1], scoring="transrate")
        .fit(images[test], labels[test])
        .best_score_
        for _, test in cv.split(images, labels)
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_leep_of_a_module_agrees_with_the_selector():
    torch = pytest.importorskip("torch")
    from sktransfer.feature_extraction import TorchFeatureExtractor

    def make(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return torch.nn.Sequential(
                torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5)
            )

    digits, labels = load_digits(return_X_y=True)
    digits, labels = digits[:150].astype(np.float32) / 16, labels[:150]
    modules = [make(seed) for seed in range(3)]
    extractors = [
        (f"net{i}", TorchFeatureExtractor(module, source_head="2", device="cpu"))
        for i, module in enumerate(modules)
    ]
    scorer = get_scorer(["leep", "nce", "h_score"])
    selector = ModelSelector(extractors, scoring=scorer).fit(digits, labels)
    for i, (_, extractor) in enumerate(extractors):
        scores = scorer(make_pipeline(extractor, LogMEClassifier()), digits, labels)
        for name, score in scores.items():
            assert selector.results_[name][i] == pytest.approx(score, abs=1e-12)

    headless = TorchFeatureExtractor(modules[0], device="cpu")
    with pytest.raises(ValueError, match=r"no source probabilities.*'source_head'"):
        get_scorer("leep")(headless, digits, labels)
