"""Scores that are means over samples: parts, standard errors and P(better)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import r2_score

from sktransfer.linear_model import LogME, LogMEClassifier, r2_parts, standard_error
from sktransfer.metrics import LabelledData, Score, get_metric, get_scorer_names
from sktransfer.metrics._evaluate import evaluate
from sktransfer.utils._score import probability_better

N = 120


def draw(rng, n=N):
    """Features, source probabilities and a target for every task."""
    y = np.r_[np.arange(3), rng.integers(3, size=n - 3)]
    X = rng.normal(size=(n, 8)) + rng.normal(size=(3, 8))[y]
    P = np.exp(X) / np.exp(X).sum(axis=1, keepdims=True)
    numbers = X @ rng.normal(size=8) + rng.normal(size=n)
    return (
        X,
        P,
        {
            "classification": y,
            "regression": numbers,
            "multilabel": np.c_[y == 0, y > 1, numbers > 0].astype(int),
        },
    )


def score_of(name, task, rng):
    X, P, targets = draw(rng)
    reads = {"source_proba": P, "layers": {"first": X[:, :2], "last": X}}
    data = LabelledData(X, targets[task], **reads, task=task, with_parts=True)
    return get_metric(name).score(data), data


CASES = [(n, task) for n in get_scorer_names() for task in get_metric(n).tasks]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_parts_are_those_of_the_value(name, task, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    score, data = score_of(name, task, rng)
    metric = get_metric(name)
    alone = metric(getattr(data, metric.reads), data.y, task)
    assert score.value == pytest.approx(alone, rel=1e-9)
    if score.parts is None:
        assert np.isnan(score.std_error)
        return
    assert score.parts.shape == (N,)
    assert (score.variances is not None) == ("loo_" in name)
    of_training = 0 if score.variances is None else score.variances.mean() / N
    error = np.sqrt(score.parts.var() / N + of_training)
    assert score.std_error == pytest.approx(error)
    if "logme" not in name and not (
        name == "laplace_evidence" and task == "regression"
    ):
        assert score.parts.mean() == pytest.approx(score.value, abs=1e-12)


def test_means_over_samples_have_parts(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    having = {
        name for name, task in CASES if score_of(name, task, rng)[0].parts is not None
    }
    assert {"logme", "leep", "nce", "nleep", "lda", "linear_probe", "knn"} <= having
    assert having.isdisjoint({"h_score", "transrate", "gbc", "lfc", "parc"})


def test_logme_has_the_standard_error_of_the_estimator():
    X, y = load_diabetes(return_X_y=True)
    for fit_intercept in (False, True):
        model = LogME(fit_intercept=fit_intercept, std_error=True).fit(X, y)
        data = LabelledData(X, y, task="regression", with_parts=True)
        score = get_metric("logme").score(data, fit_intercept=fit_intercept)
        assert score.value == model.logme_
        assert score.std_error == pytest.approx(model.std_error_)


def test_standard_error_of_r2_is_that_of_the_bootstrap(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    y = rng.normal(size=(400, 2)) ** 3
    predictions = y + rng.normal(size=y.shape) * [1.0, 3.0]
    score = Score.of_parts(r2_parts(y, predictions))
    assert score.value == pytest.approx(r2_score(y, predictions))
    draws = [rng.integers(400, size=400) for _ in range(2000)]
    deviation = np.std([r2_score(y[rows], predictions[rows]) for rows in draws])
    # Heavy tails: far from what the squared errors alone would say.
    assert score.std_error == pytest.approx(deviation, rel=0.35)


class TestProbabilityBetter:
    def test_is_the_normal_probability_of_the_paired_difference(self):
        a, b = Score.of_parts([1.0, 0, 1, 1]), Score.of_parts([0.0, 0, 1, 1])
        probability = probability_better([a, b])
        z = 0.25 / (np.std([1, 0, 0, 0]) / 2)
        np.testing.assert_allclose(probability, [[0.5, norm.cdf(z)], [norm.sf(z), 0.5]])

    def test_scores_without_parts_are_unknown(self):
        known = Score.of_parts([0.0, 1.0])
        probability = probability_better([Score(1.0), known, None])
        assert probability[1, 1] == 0.5
        assert np.isnan(np.delete(probability.ravel(), 4)).all()

    def test_differences_within_the_resolution_are_ties(self):
        rng = np.random.default_rng(0)
        parts = rng.normal(size=50)
        one, other = Score.of_parts(parts), Score.of_parts(parts + 1e-6)
        assert probability_better([one, other])[1, 0] == 1.0
        one, other = (s._replace(resolution=1e-4) for s in (one, other))
        assert probability_better([one, other])[1, 0] == 0.5

    def test_infinite_scores(self):
        parts = np.full(3, np.nan)
        perfect, worse = Score(np.inf, parts), Score.of_parts([0.0, 1.0, 2.0])
        probability = probability_better([perfect, worse, perfect])
        np.testing.assert_array_equal(probability[0], [0.5, 1.0, 0.5])

    def test_rounding_errors_do_not_correlate(self):
        # Parts that are all equal, or that sum to the same in each group.
        variances = np.full(30, 0.1)
        for groups in None, np.arange(30) // 3:
            zero, third, two = (
                Score.of_parts(parts, groups=groups, variances=variances)
                for parts in (np.zeros(30), np.full(30, 1 / 3), np.full(30, 2 / 3))
            )
            P = probability_better([zero, third, two])
            assert P[2, 1] == pytest.approx(P[1, 0])
        low, high = (
            Score.of_parts(np.tile(parts, 10), groups=groups, variances=variances)
            for parts in ([1.0, 0.0, 0.0], [1.0, 1.0, 0.0])
        )
        variance = low.training_variance + high.training_variance
        expected = norm.cdf(1 / 3 / np.sqrt(variance))
        assert probability_better([high, low])[0, 1] == pytest.approx(expected)

    def test_no_scores(self):
        assert probability_better([]).shape == (0, 0)


def test_scaling_keeps_the_probability():
    one, other = Score.of_parts([1.0, 2.0, 4.0]), Score.of_parts([1.0, 1.0, 5.0])
    before = probability_better([one, other])
    after = probability_better([one.scaled(0.5), other.scaled(0.5)])
    np.testing.assert_allclose(after, before)
    assert one.scaled(0.5).std_error == pytest.approx(one.std_error / 2)


class TestEvaluation:
    X, y = load_digits(return_X_y=True)
    X, y = X[:200] + 0.0, y[:200]

    def test_metrics_share_one_gram_matrix(self, monkeypatch):
        from sktransfer.linear_model import SufficientStatistics

        updates, update = [], SufficientStatistics.update
        monkeypatch.setattr(
            SufficientStatistics,
            "update",
            lambda *args, **kw: updates.append(1) or update(*args, **kw),
        )
        names = ["logme", "h_score", "regularized_h_score", "lfc"]
        data = LabelledData(self.X, self.y)
        evaluate({name: get_metric(name) for name in names}, data)
        assert len(updates) == 1

    def test_failures_are_told_and_do_not_stop_the_others(self):
        metrics = {name: get_metric(name) for name in ("leep", "logme")}
        failed = {}
        scores = evaluate(
            metrics, LabelledData(self.X, self.y), on_error=failed.__setitem__
        )
        assert list(scores) == ["logme"]
        assert "reads source probabilities" in str(failed["leep"])
        with pytest.raises(ValueError, match="leep reads source probabilities"):
            evaluate(metrics, LabelledData(self.X, self.y))

    def test_weights_are_refused_where_they_would_be_ignored(self):
        weights = np.arange(200) % 3
        data = LabelledData(self.X, self.y, sample_weight=weights)
        repeated = LabelledData(
            np.repeat(self.X, weights, axis=0), np.repeat(self.y, weights)
        )
        logme = get_metric("logme")
        expected = logme.score(repeated).value
        assert logme.score(data).value == pytest.approx(expected, abs=1e-6)
        with pytest.raises(ValueError, match="h_score takes no sample weights"):
            get_metric("h_score").score(data)

    def test_groups_have_the_length_of_the_samples(self):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            LabelledData(self.X, self.y, groups=[0, 1])
        data = LabelledData(self.X, self.y, groups=self.y)
        np.testing.assert_array_equal(data.groups, self.y)

    def test_score_of_nan_is_an_error(self):
        from sktransfer.metrics import Metric

        metric = Metric("broken", lambda data: Score(np.nan))
        with pytest.raises(ValueError, match="the score is NaN"):
            metric.score(LabelledData(self.X, self.y))

    def test_weights_count_in_standard_errors(self):
        rng = np.random.default_rng(0)
        X, _, targets = draw(rng)
        y, weights = targets["classification"], rng.integers(4, size=N).astype(float)
        scores = []
        for features in (X, X[:, :4]):
            model = LogMEClassifier(std_error=True).fit(features, y, weights)
            data = LabelledData(features, y, sample_weight=weights, with_parts=True)
            scores.append(get_metric("logme").score(data))
            assert scores[-1].std_error == pytest.approx(model.std_error_)
        one, other = scores
        gap = standard_error(one.parts - other.parts, weights)
        expected = norm.cdf((one.value - other.value) / gap)
        assert probability_better(scores)[0, 1] == pytest.approx(expected)
