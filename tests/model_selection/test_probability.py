"""probability_better_: how sure the order of two candidates is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.preprocessing import FunctionTransformer

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.linear_model import LogMEClassifier
from sktransfer.metrics import logme_score
from sktransfer.model_selection import ModelSelector

CANDIDATES = [("two", PCA(2)), ("three", PCA(3)), ("again", PCA(2)), ("five", PCA(5))]


def test_formula(wine):
    X, y = wine
    selector = ModelSelector(CANDIDATES, scoring=["h_score", "logme"]).fit(X, y)
    P = selector.probability_better_
    assert P.shape == (4, 4)
    models = [
        LogMEClassifier(std_error=True).fit(extractor.fit_transform(X), y)
        for _, extractor in CANDIDATES
    ]
    for i, a in enumerate(models):
        for j, b in enumerate(models):
            if i == j or {i, j} == {0, 2}:  # the same candidate
                assert P[i, j] == 0.5
                continue
            paired = a.influence_ - b.influence_
            std_error = paired.std() / np.sqrt(len(X))
            expected = norm.cdf((a.logme_ - b.logme_) / std_error)
            assert P[i, j] == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(P + P.T, 1, atol=1e-12)


@pytest.mark.parametrize("scoring", ["logme", "frozen"])
def test_copies_that_differ_by_rounding(wine, scoring):
    X, y = wine
    candidates = [
        ("as it is", FunctionTransformer()),
        ("backwards", FunctionTransformer(lambda X: X[:, ::-1])),
        ("twice", FunctionTransformer(lambda X: np.hstack([X, X]))),
        ("padded", FunctionTransformer(lambda X: np.hstack([X, 0 * X]))),
        ("single", FunctionTransformer(lambda X: X.astype(np.float32))),
    ]
    P = ModelSelector(candidates, scoring=scoring).fit(X, y).probability_better_
    np.testing.assert_array_equal(P[:4, :4], 0.5)
    assert (P > 0).all()
    assert (P < 1).all()


@pytest.mark.parametrize("scoring", ["logme", "frozen"])
def test_copies_in_single_precision_are_tied(scoring):
    """Features against three times the same had P = 2e-6."""
    pixels, y = load_digits(return_X_y=True)
    weights = np.random.default_rng(0).normal(size=(64, 100)) / 16
    X = np.maximum(pixels @ weights, 0).astype(np.float32)
    candidates = [
        ("as it is", FunctionTransformer()),
        ("three times", FunctionTransformer(lambda X: 3 * X)),
        ("double", FunctionTransformer(lambda X: X.astype(np.float64) / 7)),
        (
            "rotated",
            FunctionTransformer(lambda X: X @ np.linalg.qr(weights.T @ weights)[0]),
        ),
        ("another", FunctionTransformer(lambda X: X[:, :50])),
    ]
    P = ModelSelector(candidates, scoring=scoring).fit(X, y).probability_better_
    np.testing.assert_array_equal(P[:4, :4], 0.5)
    assert (P[:4, 4] > 0.99).all()


@pytest.mark.parametrize("scoring", ["logme", "frozen"])
@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_of_other_tasks(task, scoring, wine):
    X, y = wine
    target = (
        X[:, 0] + 0.1 if task == "regression" else np.c_[y == 0, y == 1].astype(int)
    )
    selector = ModelSelector(CANDIDATES, scoring=scoring).fit(X, target)
    P = selector.probability_better_
    assert np.isfinite(P).all()
    np.testing.assert_allclose(P + P.T, 1, atol=1e-12)


@pytest.mark.parametrize("scoring", ["logme", "frozen"])
@pytest.mark.filterwarnings("ignore:.*without any error")
def test_of_a_leak(wine, scoring):
    # Features that hold the target itself have infinite evidence.
    X, _ = wine
    target = X[:, 0] * 2
    candidates = [("leak", FunctionTransformer()), ("two", PCA(2))]
    candidates.append(("leak again", candidates[0][1]))
    selector = ModelSelector(candidates, scoring=scoring).fit(X, target)
    assert selector.best_score_ > 5
    P = selector.probability_better_
    assert P[0, 1] == P[2, 1] == 1 - P[1, 0] == 1
    assert P[0, 2] == 0.5


def test_pairs_without_a_standard_error_are_named_once(wine, broken, monkeypatch):
    X, y = wine
    candidates = [("bad", broken()), *CANDIDATES]
    selector = ModelSelector(candidates, scoring="logme")
    with pytest.warns(CandidateFailedWarning):
        expected = selector.fit(X, y).probability_better_
    original = LogMEClassifier.influence_.fget

    def influence(model):
        values = original(model)
        if values is not None and model.coef_.shape[1] == 3:
            values[7] = np.nan
        return values

    monkeypatch.setattr(LogMEClassifier, "influence_", property(influence))
    with pytest.warns() as seen:
        P = selector.fit(X, y).probability_better_
    texts = [str(w.message) for w in seen if "probability_better_" in str(w.message)]
    assert len(texts) == 1
    assert "pairs with 'three': the standard error" in texts[0]
    # All others are what they are without that candidate.
    known = [1, 3, 4]
    np.testing.assert_array_equal(
        P[np.ix_(known, known)], expected[np.ix_(known, known)]
    )
    assert np.isnan(P[2, known]).all()
    assert np.isnan(P[known, 2]).all()
    assert P[2, 2] == 0.5
    assert np.isnan(P[0]).all()


def test_says_how_often_the_order_holds_up(global_random_seed):
    # The share of bootstrap samples in which one of two maps of the digits is ahead.
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(global_random_seed)
    for n_components in (9, 10, 12):
        rows = rng.choice(len(labels), size=300, replace=False)
        X, y = images[rows], labels[rows]
        maps = [
            PCA(10).fit_transform(X),
            PCA(n_components, whiten=True).fit_transform(X),
        ]
        candidates = [
            (str(i), FunctionTransformer(lambda index, Z=Z: Z[index[:, 0]]))
            for i, Z in enumerate(maps)
        ]
        selector = ModelSelector(candidates, scoring="logme")
        selector.fit(np.arange(len(y))[:, None], y)
        differences = []
        for _ in range(200):
            draw = rng.integers(len(y), size=len(y))
            a, b = (logme_score(Z[draw], y[draw]) for Z in maps)
            differences.append(a - b)
        # LogME of a bootstrap sample is higher than that of as many different samples;
        # of the difference the spread alone is comparable.
        observed = selector.results_["logme"][0] - selector.results_["logme"][1]
        moved = np.array(differences) - np.mean(differences) + observed
        ahead = np.mean(moved > 0)
        assert selector.probability_better_[0, 1] == pytest.approx(ahead, abs=0.1)


def test_of_every_metric(wine):
    X, y = wine
    metrics = ["h_score", "logme", "loo_accuracy"]
    selector = ModelSelector(CANDIDATES, scoring=metrics).fit(X, y)
    by_metric = selector.probability_better_by_metric_
    assert list(by_metric) == ["logme", "loo_accuracy"]
    assert selector.probability_better_ is by_metric["logme"]
    for metric in by_metric:
        alone = ModelSelector(CANDIDATES, scoring=metric).fit(X, y)
        np.testing.assert_array_equal(alone.probability_better_, by_metric[metric])
    selector.set_params(scoring="h_score").fit(X, y)
    assert not hasattr(selector, "probability_better_by_metric_")
