"""Agreement of scores with the truth, against its definition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import weightedtau

from sktransfer.agreement import regret, weighted_kendall_tau

# Few different values, so that there are ties.
tables = st.integers(2, 12).flatmap(
    lambda n: st.tuples(
        *[st.lists(st.integers(0, 6).map(float), min_size=n, max_size=n)] * 2
    )
)


def places(*keys):
    """Place of each model, from 0, decreasing by the first key, then by the next."""
    order = sorted(range(len(keys[0])), key=lambda i: [-key[i] for key in keys])
    place = [0] * len(order)
    for position, i in enumerate(order):
        place[i] = position
    return place


def slow_tau(x, y):
    """Additive hyperbolic weights; the mean over the rankings by x and by y."""
    values = []
    for place in (places(x, y), places(y, x)):
        numerator = weight_x = weight_y = 0.0
        for i, j in combinations(range(len(x)), 2):
            weight = 1 / (place[i] + 1) + 1 / (place[j] + 1)
            sign_x, sign_y = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
            numerator += weight * sign_x * sign_y
            weight_x += weight * sign_x**2
            weight_y += weight * sign_y**2
        values.append(numerator / np.sqrt(weight_x * weight_y))
    return np.mean(values)


@given(tables)
def test_tau_is_its_definition_and_that_of_scipy(table):
    performance, scores = table
    if len(set(performance)) == 1 or len(set(scores)) == 1:
        assert np.isnan(weighted_kendall_tau(performance, scores))
        return
    tau = weighted_kendall_tau(performance, scores)
    assert type(tau) is float
    assert tau == pytest.approx(slow_tau(performance, scores), abs=1e-12)
    assert tau == pytest.approx(weightedtau(performance, scores).statistic, abs=1e-12)


@given(tables)
def test_regret(table):
    performance, scores = map(np.array, table)
    loss = regret(performance, scores)
    assert type(loss) is float
    picks = [p for p, s in zip(performance, scores, strict=True) if s == scores.max()]
    assert loss == performance.max() - picks[0] >= 0


def test_extremes():
    performance = [0.7, 0.8, 0.9, 0.95]
    assert weighted_kendall_tau(performance, np.log(performance)) == pytest.approx(1)
    assert weighted_kendall_tau(performance, [4, 3, 2, 1]) == pytest.approx(-1)
    assert regret(performance, performance) == 0
    assert regret(performance, [4, 3, 2, 1]) == pytest.approx(0.25)


def test_a_mistake_at_the_top_costs_more():
    performance = [4.0, 3.0, 2.0, 1.0]
    top_swapped = weighted_kendall_tau(performance, [3.0, 4.0, 2.0, 1.0])
    bottom_swapped = weighted_kendall_tau(performance, [4.0, 3.0, 1.0, 2.0])
    assert top_swapped < bottom_swapped < 1


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_scores_may_be_infinite():
    # The evidence of a target that has leaked is.
    assert weighted_kendall_tau([3.0, 2.0, 1.0], [np.inf, 2.0, -np.inf]) == 1
    assert regret([3.0, 2.0], [-np.inf, 0.0]) == 1


@pytest.mark.parametrize("function", [weighted_kendall_tau, regret])
class TestErrors:
    def test_missing_values_are_named(self, function):
        with pytest.raises(ValueError, match="Input scores contains NaN: leave failed"):
            function([1.0, 2.0], [np.nan, 1.0])
        with pytest.raises(ValueError, match="Input performance contains NaN"):
            function([1.0, np.nan], [2.0, 1.0])

    def test_lengths(self, function):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            function([1.0, 2.0, 3.0], [2.0, 1.0])

    def test_one_model(self, function):
        with pytest.raises(ValueError, match="at least two models; got 1"):
            function([1.0], [2.0])

    def test_two_dimensions(self, function):
        with pytest.raises(ValueError, match="1d array"):
            function(np.eye(3), [1, 2, 3])
