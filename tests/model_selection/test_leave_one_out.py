"""Leave-one-out scores in a selection, groups, and the head that keeps the promise."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import KFold, cross_val_predict, train_test_split
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import shuffle

from sktransfer import ModelSelector
from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import (
    LabelledData,
    Metric,
    Score,
    get_metric,
    logme_score,
    loo_accuracy_score,
    loo_f1_score,
    loo_r2_score,
)
from sktransfer.model_selection import BaseModelSelector

LOO = ["loo_accuracy", "loo_log_likelihood", "loo_balanced_accuracy", "loo_f1"]
CANDIDATES = [("five", PCA(5)), ("ten", PCA(10)), ("all", FunctionTransformer())]


@pytest.fixture(scope="module")
def digits():
    # In random order: the first digits are by other writers than the last.
    X, y = shuffle(*load_digits(return_X_y=True), random_state=0)
    return X[:400], y[:400], X[400:], y[400:]


@pytest.fixture(scope="module")
def diabetes():
    return train_test_split(*load_diabetes(return_X_y=True), random_state=0)


class TestColumns:
    def test_scores_with_their_errors(self, digits):
        X, y, *_ = digits
        selector = ModelSelector(CANDIDATES, scoring=[*LOO, "logme"]).fit(X, y)
        results = selector.results_
        for i, (_, extractor) in enumerate(CANDIDATES):
            F = extractor.fit_transform(X)
            for name in LOO:
                score = get_metric(name).score(LabelledData(F, y))
                assert results[name][i] == pytest.approx(score.value)
                assert results[f"{name}_std_error"][i] == pytest.approx(score.std_error)
                assert results[f"{name}_gain"][i] == pytest.approx(score.gain)
            assert results["logme"][i] == pytest.approx(logme_score(F, y))
        assert selector.ranking_[0] == "all"

    def test_probability_better_follows_the_metric_that_decides(self, digits):
        X, y, *_ = digits
        scoring, close = ["logme", "loo_accuracy"], [("a", PCA(20)), ("b", PCA(25))]
        by_logme = ModelSelector(close, scoring=scoring).fit(X, y)
        by_accuracy = ModelSelector(close, scoring=scoring, refit="loo_accuracy")
        by_accuracy.fit(X, y)
        P, of_logme = by_accuracy.probability_better_, by_logme.probability_better_
        assert abs(P - of_logme).max() > 1e-2
        difference = np.subtract.outer(*[by_accuracy.results_["loo_accuracy"]] * 2)
        assert ((P > 0.5) == (difference > 0)).all()

    def test_wrong_task(self, digits):
        X, y, *_ = digits
        with pytest.raises(ValueError, match="loo_r2 takes regression targets"):
            ModelSelector(CANDIDATES, scoring="loo_r2").fit(X, y)


class TestGroups:
    def test_reach_scores_and_errors(self, digits):
        X, y, *_ = digits
        groups = np.repeat(np.arange(100), 4)
        for given in (groups, groups.tolist(), [f"patient {g}" for g in groups]):
            selector = ModelSelector(CANDIDATES[:1], scoring=["loo_accuracy", "logme"])
            selector.fit(X, y, groups=given)
            F = PCA(5).fit_transform(X)
            expected = loo_accuracy_score(F, y, groups=groups)
            assert selector.best_score_ == pytest.approx(expected)
            assert selector.score(X, y, groups=groups) == pytest.approx(expected)
            # The standard error of LogME counts groups as well.
            influence = LogMEClassifier(std_error=True).fit(F, y).influence_
            sums = np.bincount(groups, influence - influence.mean())
            error = np.linalg.norm(sums) / len(y)
            assert selector.results_["logme_std_error"][0] == pytest.approx(error)

    def test_those_of_the_samples_that_are_read(self, digits):
        X, y, *_ = digits
        groups = np.repeat(np.arange(100), 4)

        class Half(BaseModelSelector):
            def _run_selection(self, evaluate):
                evaluate(samples=np.arange(0, 400, 2))

        selector = Half(CANDIDATES[2:], scoring="loo_accuracy")
        selector.fit(X, y, groups=groups)
        expected = loo_accuracy_score(X[::2], y[::2], groups=groups[::2])
        assert selector.best_score_ == pytest.approx(expected)

    def test_wrong_length(self, digits):
        X, y, *_ = digits
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            ModelSelector(CANDIDATES).fit(X, y, groups=[1, 2, 3])

    @pytest.mark.parametrize("fit_intercept", ["auto", True, False])
    @pytest.mark.parametrize("of_numbers", [False, True])
    def test_one_group_has_a_logme_without_an_error_and_a_head(
        self, digits, fit_intercept, of_numbers
    ):
        X, y, *_ = digits
        y = np.sqrt(y) if of_numbers else y
        selector = ModelSelector(
            CANDIDATES, scoring="logme", fit_intercept=fit_intercept
        )
        with pytest.warns(UserWarning, match="probability_better_ is unknown"):
            selector.fit(X, y, groups=np.zeros(400))
        alone = clone(selector).fit(X, y)
        np.testing.assert_allclose(selector.results_["logme"], alone.results_["logme"])
        assert np.isnan(selector.results_["logme_std_error"]).all()
        off_diagonal = selector.probability_better_[~np.eye(3, dtype=bool)]
        assert np.isnan(off_diagonal).all()
        np.testing.assert_allclose(selector.predict(X), alone.predict(X))
        assert not any(selector.results_["error"])

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            (np.where(np.arange(400) < 9, np.nan, 1.0), "contains NaN"),
            (np.array([None, "a"] * 200, dtype=object), "cannot be sorted"),
        ],
    )
    def test_missing_ones(self, digits, groups, message):
        X, y, *_ = digits
        with pytest.raises(ValueError, match=message):
            ModelSelector(CANDIDATES).fit(X, y, groups=groups)

    def test_one_group_fails_the_scores_that_need_two(self, digits):
        X, y, *_ = digits
        selector = ModelSelector(CANDIDATES, scoring="loo_accuracy")
        with pytest.raises(ValueError, match="at least 2 groups"):
            selector.fit(X, y, groups=np.zeros(400))


class TestHead:
    def test_numbers_have_an_intercept(self, diabetes):
        X, X_test, y, y_test = diabetes
        scoring = ["logme", "loo_r2"]
        selector = ModelSelector([("as is", FunctionTransformer())], scoring=scoring)
        selector.fit(X, y)
        head = selector.best_estimator_[-1]
        assert head.fit_intercept
        error = np.mean((y_test - selector.predict(X_test)) ** 2)
        baseline = np.mean((y_test - y_test.mean()) ** 2)
        assert 1 - error / baseline > 0.3  # 0.36 on this split, as a ridge has
        results = selector.results_
        # The score, its error and the head are of one model.
        model = LogME(fit_intercept=True, std_error=True).fit(X, y)
        assert results["logme"][0] == model.logme_ == head.logme_
        assert results["logme_std_error"][0] == model.std_error_
        assert results["loo_r2"][0] == pytest.approx(loo_r2_score(X, y))
        assert results["loo_r2"][0] == pytest.approx(head.loo_r2_)

    def test_diabetes(self):
        X, y = load_diabetes(return_X_y=True)
        selector = ModelSelector([("as is", FunctionTransformer())])
        folds = KFold(10, shuffle=True, random_state=0)
        predictions = cross_val_predict(selector, X, y, cv=folds)
        assert r2_score(y, predictions) > 0.45  # 0.495; without an intercept negative

    @pytest.mark.parametrize("fit_intercept", ["auto", True, False])
    def test_intercept_of_classes(self, fit_intercept, digits):
        X, y, *_ = digits
        scoring = ["logme", "loo_accuracy"]
        selector = ModelSelector(
            CANDIDATES[2:], scoring=scoring, fit_intercept=fit_intercept
        ).fit(X, y)
        in_logme = fit_intercept is True
        expected = logme_score(X, y, fit_intercept=in_logme)
        assert selector.best_score_ == pytest.approx(expected)
        assert selector.score(X, y) == pytest.approx(expected)
        ((_, teacher),) = selector.teachers()
        assert teacher.logme_ == pytest.approx(expected)
        head = selector.best_estimator_[-1]
        assert head.fit_intercept == (fit_intercept is not False)
        announced = loo_accuracy_score(X, y, fit_intercept=head.fit_intercept)
        assert selector.results_["loo_accuracy"][0] == pytest.approx(announced)
        assert head.loo_accuracy_ == pytest.approx(announced)

    def test_wrong_value(self, digits):
        with pytest.raises(ValueError, match="'fit_intercept' parameter"):
            ModelSelector(CANDIDATES, fit_intercept="yes").fit(*digits[:2])

    def test_accuracy_is_the_one_announced_and_probabilities_are_calibrated(
        self, digits
    ):
        X, y, X_test, y_test = digits
        selector = ModelSelector(CANDIDATES, scoring="loo_accuracy").fit(X, y)
        reached = np.mean(selector.predict(X_test) == y_test)
        std_error = selector.results_["loo_accuracy_std_error"][selector.best_index_]
        assert abs(reached - selector.best_score_) < 4 * std_error
        proba = selector.predict_proba(X_test)
        head = selector.best_estimator_[-1]
        assert log_loss(y_test, proba) == pytest.approx(
            -head.loo_log_likelihood_, abs=0.1
        )
        assert proba.max(axis=1).mean() == pytest.approx(reached, abs=0.04)

    def test_pickle(self, digits):
        X, y, X_test, _ = digits
        selector = ModelSelector(CANDIDATES, n_jobs=2).fit(X, y)
        again = pickle.loads(pickle.dumps(selector))
        np.testing.assert_array_equal(
            selector.predict_proba(X_test), again.predict_proba(X_test)
        )
        head = again.best_estimator_[-1]
        assert head.loo_accuracy_ == loo_accuracy_score(X, y)

    @pytest.mark.parametrize("n_jobs", [None, 2])
    def test_of_the_best_alone(self, n_jobs, digits):
        X, y, *_ = digits
        selector = ModelSelector(CANDIDATES[::-1], n_jobs=n_jobs).fit(X, y)
        heads = [result.head is not None for result in selector._results]
        assert heads == [name == selector.best_name_ for name, _ in CANDIDATES[::-1]]
        for extractor, teacher in selector.teachers():
            assert len(teacher.predict(extractor.transform(X))) == len(X)

    def test_of_the_best_layer_after_scaling(self, logged_extractor):
        """TransRate's factor may change which layer is the best."""
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(60, 6)), np.arange(60) % 3
        X[:, 0] += 2 * y
        net = logged_extractor(layer=("power", "sign", "narrow"))
        selector = ModelSelector([("net", net)], scoring="transrate").fit(X, y)
        best = selector.best_estimator_[-1]
        assert (
            best.n_features_in_ == selector.results_["n_features"][selector.best_index_]
        )

    def test_without_refit(self, digits):
        X, y, *_ = digits
        selector = ModelSelector(CANDIDATES, refit=False, scoring=["logme", *LOO])
        selector.fit(X, y)
        assert all(result.head is None for result in selector._results)
        assert len(selector.teachers()) == 3


def test_a_ranking_by_f1_of_a_rare_class():
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 10 == 0).astype(int)
    X = rng.normal(size=(300, 4))
    X[:, 0] += 4 * y
    candidates = [
        ("noise", FunctionTransformer(lambda X: X[:, 1:])),
        ("scaled", StandardScaler()),
    ]
    selector = ModelSelector(candidates, scoring="loo_f1").fit(X, y)
    assert selector.ranking_ == ["scaled", "noise"]
    expected = loo_f1_score(StandardScaler().fit_transform(X), y)
    assert selector.best_score_ == pytest.approx(expected)
    assert selector.probability_better_[1, 0] > 0.97


def test_a_head_for_a_score_of_minus_infinity(digits):
    X, y, *_ = digits
    metric = Metric("minus", lambda data: Score(-np.inf))
    selector = ModelSelector(CANDIDATES, scoring=metric).fit(X, y)
    assert selector.predict(X).shape == y.shape


def test_a_head_of_candidates_that_draw_anew(digits):
    """A better one on more samples fails, so that the best is evaluated again."""
    X, y, *_ = digits
    rng = np.random.default_rng(0)

    def noisy(X):
        return X[:, :20] + rng.normal(size=(len(X), 20)) * X.std()

    def of_few(X):
        if len(X) > 300:
            raise RuntimeError("too many")
        return X

    class Halves(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(samples=np.arange(0, 400, 2))
            evaluate(names=["few"])

    candidates = [(f"noisy{i}", FunctionTransformer(noisy)) for i in range(5)]
    candidates.append(("few", FunctionTransformer(of_few)))
    for _ in range(5):
        selector = Halves(candidates, scoring="loo_accuracy")
        with pytest.warns(CandidateFailedWarning):
            selector.fit(X, y)
        assert selector.best_estimator_[-1].loo_accuracy_ == selector.best_score_


def test_a_head_of_candidates_that_get_worse(digits):
    """Each evaluation gives less than any before, so that the order always changes."""
    X, y, *_ = digits
    calls = []

    def worse(data):
        if len(data.features[0]) == X.shape[1]:
            return Score(1.0)
        calls.append(data)
        assert len(calls) <= 6
        return Score(-float(len(calls)))

    def of_few(X):
        if len(X) > 300:
            raise RuntimeError("too many")
        return X

    class Halves(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(samples=np.arange(0, 400, 2))
            evaluate(names=["few"])

    candidates = [(f"pca{i}", PCA(i)) for i in (2, 3, 4)]
    candidates.append(("few", FunctionTransformer(of_few)))
    selector = Halves(candidates, scoring=Metric("worse", worse))
    with pytest.warns(CandidateFailedWarning):
        selector.fit(X, y)
    assert len(calls) == 6
    assert selector.best_score_ == -4
    assert selector.predict(X).shape == y.shape
    heavy = [result.label for result in selector._results if not result.is_light]
    assert heavy == [selector.best_name_]
