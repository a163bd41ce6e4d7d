"""Coefficients of agreement and their bootstrap intervals."""

from __future__ import annotations

import sys
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from sktransfer.agreement import (
    agreement_report,
    kendall_tau,
    min_max_aggregate,
    pearson,
    rank_aggregate,
    regret,
    spearman,
    top_k_hit,
    weighted_kendall_tau,
)
from sktransfer.agreement._report import _COEFFICIENTS, _resampled

CORRELATIONS = {
    "tau_w": weighted_kendall_tau,
    "tau": kendall_tau,
    "spearman": spearman,
    "pearson": pearson,
}
COEFFICIENTS = {
    **CORRELATIONS,
    "top_1_hit": top_k_hit,
    "top_3_hit": lambda performance, scores: top_k_hit(performance, scores, k=3),
    "regret": regret,
}
SCIPY = {
    kendall_tau: scipy.stats.kendalltau,
    spearman: scipy.stats.spearmanr,
    pearson: scipy.stats.pearsonr,
}


def tables(values):
    return st.integers(2, 12).flatmap(
        lambda n: st.tuples(*[st.lists(values, min_size=n, max_size=n)] * 2)
    )


# Few different values, so that there are ties.
tied_tables = tables(st.integers(0, 6).map(float))


@pytest.fixture
def models(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    performance = rng.normal(80, 5, size=20)
    return performance, {
        "good": performance + rng.normal(0, 2, size=20),
        "noise": rng.normal(size=20),
    }


class TestCoefficients:
    @pytest.mark.parametrize("function", SCIPY)
    @given(table=tied_tables)
    def test_that_of_scipy(self, function, table):
        performance, scores = table
        value = function(performance, scores)
        assert type(value) is float
        if len(set(performance)) == 1 or len(set(scores)) == 1:
            assert np.isnan(value)
        else:
            expected = SCIPY[function](performance, scores).statistic
            assert value == pytest.approx(expected, abs=1e-12)

    @given(tied_tables)
    def test_kendall_is_its_definition(self, table):
        performance, scores = map(np.array, table)
        right = wrong = untied_p = untied_s = 0
        for i, j in combinations(range(len(scores)), 2):
            product = (performance[i] - performance[j]) * (scores[i] - scores[j])
            right += product > 0
            wrong += product < 0
            untied_p += performance[i] != performance[j]
            untied_s += scores[i] != scores[j]
        if untied_p and untied_s:
            expected = (right - wrong) / np.sqrt(untied_p * untied_s)
            assert kendall_tau(performance, scores) == pytest.approx(expected)

    def test_spearman_without_ties_is_its_short_formula(self, models):
        performance, scores = models[0], models[1]["good"]
        order = [scipy.stats.rankdata(values) for values in (performance, scores)]
        n = len(scores)
        expected = 1 - 6 * np.sum((order[0] - order[1]) ** 2) / (n * (n**2 - 1))
        assert spearman(performance, scores) == pytest.approx(expected)

    @pytest.mark.parametrize("function", CORRELATIONS.values())
    def test_extremes(self, function):
        performance = np.array([0.7, 0.8, 0.9, 0.95])
        assert function(performance, 3 * performance - 1) == pytest.approx(1)
        assert function(performance, -performance) == pytest.approx(-1)

    def test_pearson_of_infinite_scores_is_undefined(self):
        assert np.isnan(pearson([3.0, 2.0, 1.0], [2.0, 1.0, -np.inf]))
        assert spearman([3.0, 2.0, 1.0], [2.0, 1.0, -np.inf]) == pytest.approx(1)

    def test_a_constant_whose_mean_rounds_is_constant(self):
        assert np.isnan(pearson([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]))


class TestTopK:
    @given(tied_tables, st.integers(1, 14))
    def test_is_its_definition(self, table, k):
        performance, scores = table
        hit = top_k_hit(performance, scores, k)
        assert type(hit) is bool
        # Python's sort is stable: of equal scores the first are picked.
        picked = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
        assert hit == any(performance[i] == max(performance) for i in picked)
        assert top_k_hit(performance, scores) == (regret(performance, scores) == 0)

    def test_grows_with_k(self):
        hits = [top_k_hit([1.0, 4.0, 3.0], [0.2, 0.1, 0.3], k) for k in (1, 2, 3, 9)]
        assert hits == [False, False, True, True]

    def test_ties(self):
        # Of equal scores the first, of equally good models any.
        assert not top_k_hit([1.0, 2.0], [0.5, 0.5])
        assert top_k_hit([2.0, 1.0], [0.5, 0.5])
        assert top_k_hit([1.0, 2.0, 2.0], [0.1, 0.2, 0.3])

    def test_wrong_k(self):
        with pytest.raises(ValueError, match="k == 0, must be >= 1"):
            top_k_hit([1.0, 2.0], [1.0, 2.0], k=0)
        with pytest.raises(TypeError, match="k must be an instance of int"):
            top_k_hit([1.0, 2.0], [1.0, 2.0], k=1.5)


@pytest.mark.parametrize("function", [kendall_tau, spearman, pearson, top_k_hit])
class TestErrors:
    def test_missing_values_are_named(self, function):
        with pytest.raises(ValueError, match="Input scores contains NaN: leave failed"):
            function([1.0, 2.0], [np.nan, 1.0])
        with pytest.raises(ValueError, match="Input performance contains NaN"):
            function([1.0, np.nan], [2.0, 1.0])

    def test_lengths(self, function):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            function([1.0, 2.0, 3.0], [2.0, 1.0])
        with pytest.raises(ValueError, match="at least two models; got 1"):
            function([1.0], [2.0])

    def test_two_dimensions(self, function):
        with pytest.raises(ValueError, match="1d array"):
            function(np.eye(3), [1, 2, 3])


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.filterwarnings("ignore:An input array is constant")
@given(table=tied_tables, seed=st.integers(0, 2**32 - 1))
def test_resampled_coefficients_are_those_of_the_resample(table, seed):
    performance, scores = map(np.array, table)
    n_models = len(scores)
    drawn = np.random.default_rng(seed).integers(n_models, size=(5, n_models))
    assert list(COEFFICIENTS) == list(_COEFFICIENTS)
    for name, function in COEFFICIENTS.items():
        fast = _resampled(_COEFFICIENTS[name], performance, scores, drawn)
        slow = [function(performance[row], scores[row]) for row in drawn]
        np.testing.assert_allclose(fast, slow, atol=1e-12, err_msg=name)


class TestReport:
    def test_values_are_those_of_the_functions(self, models):
        performance, scores = models
        table = agreement_report(performance, scores, n_resamples=20).table
        rows = zip(table["ranker"], table["coefficient"], table["value"], strict=True)
        values = {(ranker, name): value for ranker, name, value in rows}
        assert len(values) == 2 * 7
        for ranker, s in scores.items():
            for name, function in CORRELATIONS.items():
                assert values[ranker, name] == function(performance, s)
            assert values[ranker, "regret"] == regret(performance, s)
            for k in (1, 3):
                assert values[ranker, f"top_{k}_hit"] == top_k_hit(performance, s, k)

    def test_intervals_hold_the_values(self, models):
        table = agreement_report(*models, random_state=0).table
        assert (table["low"] <= table["value"]).all()
        assert (table["value"] <= table["high"]).all()
        assert (table["n_resamples"] == 1000).all()

    def test_clear_agreement_is_told_from_none(self):
        performance = np.arange(20.0)
        zigzag = np.resize([-2.0, 2.0], 20)
        table = agreement_report(
            performance,
            {"clear": performance + zigzag, "none": zigzag},
            random_state=0,
        ).table
        correlation = np.isin(table["coefficient"], list(CORRELATIONS))
        clear = table["ranker"] == "clear"
        assert (table["low"][correlation & clear] > 0.5).all()
        assert (table["low"][correlation & ~clear] < 0).all()

    def test_random_state(self, models):
        def intervals(random_state):
            report = agreement_report(
                *models, n_resamples=50, random_state=random_state
            )
            return report.table["low"]

        np.testing.assert_array_equal(intervals(3), intervals(3))
        np.testing.assert_array_equal(intervals(3), intervals(np.random.RandomState(3)))
        assert (intervals(3) != intervals(4)).any()

    def test_rankers_share_the_resamples(self, models):
        performance, scores = models
        twins = agreement_report(
            performance, {"a": scores["good"], "b": scores["good"]}, n_resamples=50
        ).table
        np.testing.assert_array_equal(twins["low"][:7], twins["low"][7:])

    def test_higher_levels_are_wider(self, models):
        narrow, wide = (
            agreement_report(*models, confidence_level=level, random_state=0).table
            for level in (0.5, 0.99)
        )
        assert (wide["low"] <= narrow["low"]).all()
        assert (narrow["high"] <= wide["high"]).all()

    def test_monotone_transforms_leave_ranks_alone(self, models):
        performance, scores = models
        reports = [
            agreement_report(performance, s, n_resamples=100, random_state=0).table
            for s in (scores["good"], np.exp(scores["good"] / 5))
        ]
        same = np.isin(reports[0]["coefficient"], ["pearson"], invert=True)
        for column in ("value", "low", "high"):
            before, after = (report[column] for report in reports)
            np.testing.assert_allclose(before[same], after[same], atol=1e-12)
            assert before[~same] != after[~same]

    def test_coverage(self, global_random_seed):
        """Of 80 intervals at 95 % fewer than 62 never hold the truth by bad luck."""
        rng = np.random.default_rng(global_random_seed)
        correlation, held = 0.7, dict.fromkeys(["tau", "spearman", "pearson"], 0)
        truth = {
            "tau": 2 / np.pi * np.arcsin(correlation),
            "spearman": 6 / np.pi * np.arcsin(correlation / 2),
            "pearson": correlation,
        }
        for _ in range(80):
            performance, noise = rng.normal(size=(2, 30))
            scores = correlation * performance + np.sqrt(1 - correlation**2) * noise
            table = agreement_report(
                performance,
                scores,
                n_resamples=300,
                random_state=int(rng.integers(2**31)),
            ).table
            for name in held:
                (row,) = np.flatnonzero(table["coefficient"] == name)
                held[name] += table["low"][row] <= truth[name] <= table["high"][row]
        assert all(count >= 62 for count in held.values()), held

    def test_constant_resamples_are_left_out(self):
        # Of the four resamples of two models, two are copies of one.
        table = agreement_report([1.0, 2.0], [0.1, 0.2], random_state=0).table
        correlation = np.isin(table["coefficient"], list(CORRELATIONS))
        assert (table["n_resamples"][correlation] < 600).all()
        assert (table["n_resamples"][~correlation] == 1000).all()
        for column in ("value", "low", "high"):
            np.testing.assert_allclose(table[column][correlation], 1)

    def test_a_constant_ranker_has_no_correlation(self):
        table = agreement_report([1.0, 2.0, 3.0], {"size": [5, 5, 5]}).table
        correlation = np.isin(table["coefficient"], list(CORRELATIONS))
        for column in ("value", "low", "high"):
            assert np.isnan(table[column][correlation]).all()
            assert np.isfinite(table[column][~correlation]).all()
        assert (table["n_resamples"][correlation] == 0).all()

    @pytest.mark.filterwarnings("ignore:invalid value encountered")
    def test_infinite_scores_only_trouble_pearson(self):
        table = agreement_report(
            [3.0, 2.0, 1.0, 0.0], [1.0, 0.5, 0.2, -np.inf], random_state=0
        ).table
        value = dict(zip(table["coefficient"], table["value"], strict=True))
        assert np.isnan(value.pop("pearson"))
        assert np.isfinite(list(value.values())).all()

    def test_inputs_are_not_changed(self, models):
        performance, scores = models
        before = performance.copy(), {k: v.copy() for k, v in scores.items()}
        agreement_report(performance, scores, n_resamples=10)
        np.testing.assert_array_equal(performance, before[0])
        for name, values in scores.items():
            np.testing.assert_array_equal(values, before[1][name])

    def test_frame(self, models):
        pytest.importorskip("pandas")
        report = agreement_report(*models, n_resamples=10)
        frame = report.frame()
        assert list(frame) == list(report.table)
        assert frame.shape == (14, 6)
        assert frame["ranker"].unique().tolist() == ["good", "noise"]

    def test_frame_without_pandas(self, models, monkeypatch):
        report = agreement_report(*models, n_resamples=10)
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ImportError, match=r"needs pandas.*sktransfer\[plot\]"):
            report.frame()

    def test_print(self, models):
        report = agreement_report(*models, n_resamples=10, confidence_level=0.9)
        lines = str(report).splitlines()
        assert lines[0].startswith("20 models; 90 % intervals from 10 bootstrap")
        assert lines[1].split() == list(_COEFFICIENTS)
        assert [lines[2].split()[0], lines[4].split()[0]] == ["good", "noise"]
        assert len(lines) == 6
        assert repr(report) == str(report)

    def test_one_array(self):
        table = agreement_report([1.0, 2.0], [1.0, 2.0], n_resamples=5).table
        assert set(table["ranker"]) == {"scores"}

    def test_wrong_scores(self):
        with pytest.raises(ValueError, match="at least one ranker"):
            agreement_report([1.0, 2.0], {})
        with pytest.raises(ValueError, match=r"scores\['leep'\] contains NaN"):
            agreement_report([1.0, 2.0], {"logme": [1, 2], "leep": [np.nan, 1]})
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            agreement_report([1.0, 2.0], {"logme": [1, 2, 3]})

    @pytest.mark.parametrize(
        "parameters",
        [{"n_resamples": 0}, {"confidence_level": 1.0}, {"confidence_level": 0.0}],
    )
    def test_wrong_parameters(self, parameters):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            agreement_report([1.0, 2.0], [1.0, 2.0], **parameters)


class TestRankAggregate:
    def test_is_the_mean_share_of_models_beaten(self, global_random_seed):
        rng = np.random.default_rng(global_random_seed)
        scores = rng.integers(0, 5, size=(9, 4)).astype(float)
        expected = [
            np.mean(
                [
                    ((s[i] > s).sum() + ((s[i] == s).sum() - 1) / 2) / (len(s) - 1)
                    for s in scores.T
                ]
            )
            for i in range(len(scores))
        ]
        np.testing.assert_allclose(rank_aggregate(scores), expected)

    def test_mapping_and_array_are_the_same(self, models):
        scores = models[1]
        np.testing.assert_array_equal(
            rank_aggregate(scores), rank_aggregate(np.transpose(list(scores.values())))
        )

    def test_extremes(self):
        score = rank_aggregate({"a": [3, 2, 1], "b": [0.3, 0.1, -np.inf]})
        np.testing.assert_allclose(score, [1, 0.5, 0])

    def test_one_metric_keeps_its_order(self, models):
        performance, scores = models
        alone = rank_aggregate({"good": scores["good"]})
        assert weighted_kendall_tau(performance, alone) == weighted_kendall_tau(
            performance, scores["good"]
        )

    def test_failures_come_last(self):
        score = rank_aggregate({"a": [np.nan, -np.inf, 0.5, np.nan]})
        np.testing.assert_allclose(score, [1 / 6, 2 / 3, 1, 1 / 6])

    def test_units_do_not_matter(self, models):
        scores = models[1]
        scaled = {name: 1e6 * s - 3 for name, s in scores.items()}
        np.testing.assert_array_equal(rank_aggregate(scores), rank_aggregate(scaled))

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            rank_aggregate({"a": [1.0, 2.0], "b": [1.0]})
        with pytest.raises(ValueError, match="minimum of 2"):
            rank_aggregate([[1.0, 2.0]])
        with pytest.raises(ValueError, match="Expected 2D array, got 1D"):
            rank_aggregate([1.0, 2.0])
        with pytest.raises(ValueError, match="at least one metric"):
            rank_aggregate({})


class TestMinMaxAggregate:
    def test_is_the_mean_of_scaled_scores(self, global_random_seed):
        rng = np.random.default_rng(global_random_seed)
        scores = rng.normal(size=(9, 3))
        scaled = np.empty((9, 3))
        for m, metric in enumerate(scores.T):
            for i in range(9):
                scaled[i, m] = (metric[i] - min(metric)) / (max(metric) - min(metric))
        found = min_max_aggregate(scores)
        np.testing.assert_allclose(found, scaled.mean(axis=1))
        # The sum, as in NCTI, has the same order.
        np.testing.assert_array_equal(np.argsort(found), np.argsort(scaled.sum(axis=1)))
        found = min_max_aggregate(dict(enumerate(scores.T[:2])), [0.3, 0.7])
        np.testing.assert_allclose(found, scaled[:, :2] @ [0.3, 0.7])

    def test_units_do_not_matter(self, models):
        scores = models[1]
        scaled = {name: 1e6 * s - 3 for name, s in scores.items()}
        np.testing.assert_allclose(min_max_aggregate(scores), min_max_aggregate(scaled))

    def test_failures_are_the_lowest_and_constants_add_nothing(self):
        found = min_max_aggregate({"a": [np.nan, 1.0, 3.0], "b": [2.0, 2.0, 2.0]})
        np.testing.assert_allclose(found, [0, 0, 0.5])
        np.testing.assert_array_equal(min_max_aggregate({"a": [np.nan] * 2}), [0, 0])

    def test_what_cannot_be_scaled(self):
        with pytest.raises(ValueError, match="must not be infinite"):
            min_max_aggregate([[0.0], [-np.inf]])
        with pytest.raises(ValueError, match="minimum of 2"):
            min_max_aggregate([[1.0, 2.0]])
        with pytest.raises(ValueError, match=r"[Ll]ength|shape"):
            min_max_aggregate([[1.0, 2.0], [3.0, 4.0]], weights=[1.0])
