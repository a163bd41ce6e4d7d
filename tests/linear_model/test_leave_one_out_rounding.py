"""Leave-one-out predictions keep their digits, whichever way they are computed."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sktransfer.linear_model import (
    LogME,
    LogMEClassifier,
)


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("n", [40, 300, 1500])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_float32(n, groups, fit_intercept):
    X, y = load_digits(return_X_y=True)
    X, y = np.maximum(X[:n] / 16 @ np.random.default_rng(0).normal(size=(64, 99)), 0), y
    g = np.arange(n) // 4 if groups else None
    X = X.astype(np.float32)
    single, double = (
        LogMEClassifier(leave_one_out=True, fit_intercept=fit_intercept).fit(
            F, y[:n], groups=g
        )
        for F in (X, X.astype(np.float64))
    )
    np.testing.assert_allclose(
        single.loo_predictions_, double.loo_predictions_, atol=1e-4
    )
    for name in ("accuracy_", "log_likelihood_", "log_likelihood_std_error_"):
        found, expected = (getattr(m, f"loo_{name}") for m in (single, double))
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("n", [30, 400])
def test_influence_shares_the_pass(fit_intercept, n, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(n, 60))
    y = X[:, 0] + 2 * rng.normal(size=n)
    both = LogME(fit_intercept=fit_intercept, std_error=True, leave_one_out=True)
    both.fit(X, y)
    alone = LogME(fit_intercept=fit_intercept, std_error=True).fit(X, y)
    np.testing.assert_array_equal(both.influence_, alone.influence_)
    np.testing.assert_array_equal(both.loo_log_density_, alone.influence_)
    # That of LogME is about as many samples; this one is about new ones as well.
    assert both.loo_log_likelihood_std_error_ > alone.std_error_
    assert both.loo_predictions_.shape == (n,)
    grouped = LogME(fit_intercept=fit_intercept, leave_one_out=True)
    grouped.fit(X, y, groups=np.arange(n))
    for name in ("loo_predictions_", "loo_log_density_"):
        np.testing.assert_allclose(
            getattr(grouped, name), getattr(both, name), rtol=1e-6, atol=1e-8
        )


def test_cholesky_factor_gives_the_same(global_random_seed):
    """Without the standard error no left singular vectors are formed."""
    rng = np.random.default_rng(global_random_seed)
    for dtype, n, weighted in (
        (np.float64, 60, False),
        (np.float64, 60, True),
        (np.float32, 600, False),
        (np.float32, 600, True),
    ):
        X = rng.normal(size=(n, 9)).astype(dtype) + dtype(0.5)
        y = np.argmax(X[:, :3] + 2 * rng.normal(size=(n, 3)), axis=1)
        w = rng.integers(0, 3, size=n).astype(float) if weighted else None
        for fit_intercept in (False, True):
            factored, decomposed = (
                LogMEClassifier(
                    prior="shared",
                    leave_one_out=True,
                    std_error=std_error,
                    fit_intercept=fit_intercept,
                ).fit(X, y, w)
                for std_error in (False, True)
            )
            atol = 1e-12 if dtype == np.float64 else 2e-6
            np.testing.assert_allclose(
                factored.loo_predictions_, decomposed.loo_predictions_, atol=atol
            )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("std_error", [False, True])
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_float32_far_from_zero(offset, groups, std_error, order):
    """A mean in float32 is wrong by more than the least direction is long.

    Predictions were wrong by 7e-4.
    """
    X, y = load_digits(return_X_y=True)
    X, y = np.maximum(X[:1500] @ np.random.default_rng(0).normal(size=(64, 99)), 0), y
    X = np.asarray(X / 16 + offset, dtype=np.float32, order=order)
    g = np.arange(1500) // 4 if groups else None
    single, double = (
        LogMEClassifier(leave_one_out=True, fit_intercept=True, std_error=std_error)
        .fit(F, y[:1500], groups=g)
        .loo_predictions_
        for F in (X, X.astype(np.float64))
    )
    np.testing.assert_allclose(single, double, atol=1e-4)


@pytest.mark.parametrize("unit", [1e-40, 1e-30, 1e30])
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("std_error", [False, True])
def test_float32_of_any_size(unit, groups, std_error, global_random_seed):
    """Singular vectors of denormal features left the range of float32."""
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(400, 10)) + 0.3
    y = np.argmax(X[:, :3] + rng.normal(size=(400, 3)), axis=1)
    X, g = (unit * X).astype(np.float32), np.arange(400) // 5 if groups else None
    for fit_intercept in (False, True):
        single, double = (
            LogMEClassifier(
                leave_one_out=True,
                std_error=std_error,
                fit_intercept=fit_intercept,
                prior="shared",
            ).fit(F, y, groups=g)
            for F in (X, X.astype(np.float64))
        )
        np.testing.assert_allclose(
            single.loo_predictions_, double.loo_predictions_, atol=1e-4
        )
        np.testing.assert_allclose(
            single.predict_proba(X), double.predict_proba(X), atol=1e-4
        )
