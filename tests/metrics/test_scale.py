"""No metric gives another score in single precision because of the unit of features."""

from __future__ import annotations

import numpy as np
import pytest

from sktransfer.metrics import (
    LabelledData,
    coding_rate,
    gbc_score,
    get_metric,
    get_scorer_names,
    transrate_score,
)
from sktransfer.utils._array_api import in_range, unit_rows

# Squares of these leave the range of float32, in which 1e-38 and 3e38 are the ends.
FACTORS = [1e19, 1e-25]
NAMES = [n for n in get_scorer_names() if get_metric(n).reads == "features"]
# By their formulas, these depend on the unit.
IN_A_UNIT = ["energy", "ncti_ncc", "ncti_seli", "ncti_vc", "sfda"]
factors = pytest.mark.parametrize("factor", FACTORS)


@pytest.fixture
def data(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    y = np.arange(90) % 3
    X = rng.normal(size=(90, 6)) + 2 * rng.normal(size=(3, 6))[y]
    return X.astype(np.float32), y


@factors
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name", NAMES)
def test_scores_of_huge_and_tiny_features(name, task, factor, data):
    X, y = data
    metric = get_metric(name)
    if task not in metric.tasks or (task == "regression" and "laplace" in name):
        return  # its regression is LogME's
    scaled = X * np.float32(factor)
    score = metric(scaled, y, task)
    same = scaled.astype(np.float64) if name in IN_A_UNIT else X
    assert score == pytest.approx(metric(same, y, task), rel=1e-4)


@factors
def test_coding_rate_that_knows_the_unit(factor, data):
    """Where the unit counts, single precision gives what double precision does."""
    X, y = data
    scaled = X * np.float32(factor)
    exact = scaled.astype(np.float64)
    for options in ({"normalize": False}, {"variant": "icml"}):
        rate = coding_rate(scaled, **options)
        assert rate == pytest.approx(coding_rate(exact, **options), rel=1e-5)
        score = transrate_score(scaled, y, **options)
        expected = transrate_score(exact, y, **options)
        assert score == pytest.approx(expected, rel=1e-4, abs=1e-9)


@factors
def test_square_norms_that_metrics_share(factor, data):
    X, y = data
    # The statistics have their own tests: here those of double precision.
    scaled = X * np.float32(factor)
    exact = LabelledData(scaled.astype(np.float64), y)
    shared = LabelledData(scaled, y)
    shared.statistics = exact.statistics
    expected = LabelledData(X, y).centred_square_norms * factor**2
    np.testing.assert_allclose(shared.centred_square_norms, expected, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_gbc_of_equal_samples(value):
    with pytest.raises(
        ValueError, match=r"All (samples|features).*cannot be separated"
    ):
        gbc_score(np.full((12, 4), value), np.arange(12) % 3)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_rows_and_ranges(library, dtype, data):
    X = data[0].astype(dtype)
    X[3] = 0
    X[4] *= dtype(1e-30)
    if library == "torch":
        X = pytest.importorskip("torch").tensor(X)
    norms = np.linalg.norm(np.asarray(unit_rows(X)), axis=1)
    np.testing.assert_allclose(norms, np.arange(90) != 3, rtol=1e-6)
    same, exponent = in_range(X)
    assert same is X
    assert exponent == 0
    for factor in (2.0**100, 2.0**-100) if dtype == np.float32 else (2.0**900,):
        scaled, exponent = in_range(X * factor)
        assert scaled.dtype == X.dtype
        largest = float(abs(scaled).max())
        assert 0.5 <= largest < 1
        np.testing.assert_allclose(
            np.asarray(scaled, np.float64)[5],
            np.asarray(X, np.float64)[5] * factor * 2.0**-exponent,
        )


@pytest.mark.parametrize("name", ["h_score", "regularized_h_score", "gbc"])
@pytest.mark.parametrize(
    ("dtype", "offset", "tolerance"),
    [(np.float32, 500, 2e-3), (np.float64, 1e5, 1e-6), (np.float64, 1e8, 1e-4)],
)
@pytest.mark.parametrize("d", [6, 120])
def test_offsets_cost_no_digits(name, dtype, offset, tolerance, d, global_random_seed):
    """At 1e5 deviations the regularised H-score was 0."""
    rng = np.random.default_rng(global_random_seed)
    y = np.arange(90) % 3
    X = rng.normal(size=(90, d)) + 2 * rng.normal(size=(3, d))[y]
    metric = get_metric(name)
    expected = metric(X, y, "classification")
    found = metric((X + offset).astype(dtype), y, "classification")
    assert found == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("scale", [1e3, 1e5])
def test_outlier_features_cost_no_digits_of_h_score(scale, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    y = np.arange(900) % 3
    X = rng.normal(size=(900, 40)) + rng.normal(size=(3, 40))[y]
    expected = get_metric("h_score")(X, y, "classification")
    X[:, :3] *= scale
    found = get_metric("h_score")(X.astype(np.float32), y, "classification")
    assert found == pytest.approx(expected, rel=1e-5)


def test_gbc_of_features_beyond_single_precision(data):
    X, y = data
    X = X.astype(np.float64)
    assert gbc_score(X * 1e100, y) == pytest.approx(gbc_score(X, y), rel=1e-9)
