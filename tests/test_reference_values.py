"""Reference values: found by others, or by direct optimisation here."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from sklearn.preprocessing import scale

from sktransfer import metrics
from sktransfer.linear_model import LogME, LogMEClassifier

CLASSIFICATION = [
    "relu_digits",
    "wide_digits",
    "rank_deficient_digits",
    "wine_standardised",
    "imbalanced_gaussian",
    "breast_cancer_raw",
]
REGRESSION = ["diabetes", "linnerud_multioutput", "multilabel", "no_signal"]
SOLVERS = {
    "newton": {},
    "fixed_point": {"max_iter": 200_000, "tol": 1e-9},
    "mackay": {"max_iter": 200_000, "tol": 1e-9},
}


@pytest.fixture(scope="module")
def golden(shared):
    """Name -> (arrays, expected values)."""
    folder = shared / "golden"
    expected = json.loads((folder / "measures.json").read_text())
    with np.load(folder / "measures.npz") as file:
        arrays = dict(file)
    return {
        name: (
            {
                key.removeprefix(f"{name}__"): value
                for key, value in arrays.items()
                if key.startswith(f"{name}__")
            },
            values,
        )
        for name, values in expected.items()
    }


def check_logme(model, expected, n_samples):
    assert model.logme_ == pytest.approx(expected["logme"], abs=1e-6)
    np.testing.assert_allclose(
        model.log_evidence_ / n_samples,
        expected["logme_per_target"],
        rtol=0,
        atol=1e-6,
    )
    # The optimiser that found the values stopped somewhere on the way to infinity.
    alpha = np.array(expected["alpha"])
    alpha[alpha > 1e10] = np.inf
    np.testing.assert_allclose(model.alpha_, alpha, rtol=1e-3)
    np.testing.assert_allclose(model.beta_, expected["beta"], rtol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classifier(golden, name, solver):
    data, expected = golden[name]
    X, y = data["features"], data["target"]
    model = LogMEClassifier(solver=solver, **SOLVERS[solver]).fit(X, y)
    check_logme(model, expected, len(X))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", CLASSIFICATION + REGRESSION)
def test_regressor(golden, name, solver):
    data, expected = golden[name]
    X, y = data["features"], data["target"]
    if name in CLASSIFICATION:
        y = np.equal.outer(y, np.unique(y)).astype(float)
    model = LogME(solver=solver, **SOLVERS[solver]).fit(X, y)
    check_logme(model, expected, len(X))


def test_fewer_samples_than_features(golden):
    """Published code leaves (D - n) log alpha out and prints 4.1965 here."""
    data, _ = golden["wide_digits"]
    model = LogMEClassifier().fit(data["features"], data["target"])
    assert model.logme_ == pytest.approx(0.0783, abs=5e-5)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_h_score(golden, name):
    data, expected = golden[name]
    score = metrics.h_score(data["features"], data["target"])
    assert score == pytest.approx(expected["h_score"], abs=1e-6)


@pytest.mark.parametrize(
    ("variant", "key"),
    [
        ("preprint", "transrate_preprint_eps2_0.1"),
        ("icml", "transrate_icml_eps1e-4"),
    ],
)
@pytest.mark.parametrize("name", CLASSIFICATION)
def test_transrate(golden, name, variant, key):
    data, expected = golden[name]
    score = metrics.transrate_score(data["features"], data["target"], variant=variant)
    assert score == pytest.approx(expected[key], rel=1e-6)


@pytest.mark.parametrize(
    ("metric", "key"), [("leep_score", "leep"), ("nce_score", "nce")]
)
@pytest.mark.parametrize("name", CLASSIFICATION)
def test_source_measures(golden, name, metric, key):
    data, expected = golden[name]
    score = getattr(metrics, metric)(data["source_proba"], data["target"])
    assert score == pytest.approx(expected[key], abs=1e-9)


def optimised_evidence(X, y):
    """Maximum over (alpha, beta) of log N(y; 0, I / beta + X X^T / alpha) / n.

    Several starts of a general optimiser; the spectrum of X X^T only makes the density
    cheap, and the maximum is confirmed on the dense covariance.
    """
    values, vectors = np.linalg.eigh(X @ X.T)
    values = np.maximum(values, 0)
    squares = (vectors.T @ y) ** 2

    def loss(log_precision):
        alpha, beta = np.exp(log_precision)
        variance = 1 / beta + values / alpha
        slope = (1 - squares / variance) / variance / len(y) / 2
        value = np.mean(np.log(2 * math.pi * variance) + squares / variance) / 2
        return value, [-slope @ values / alpha, -slope.sum() / beta]

    unit = np.log(values.sum() / (y @ y)), np.log(len(y) / (y @ y))
    found = [
        minimize(
            loss,
            np.add(unit, start),
            jac=True,
            method="L-BFGS-B",
            bounds=[(u - 30, u + 30) for u in unit],
            options={"ftol": 1e-13, "gtol": 1e-9},
        )
        for start in [(0, 0), (3, 3), (6, 0), (-6, 3)]
    ]
    best = min(found, key=lambda result: result.fun)
    alpha, beta = np.exp(best.x)
    covariance = np.eye(len(y)) / beta + X @ X.T / alpha
    density = multivariate_normal(cov=covariance).logpdf(y) / len(y)
    assert density == pytest.approx(-best.fun, abs=1e-9)
    return density


def _random_features(X, width):
    rng = np.random.default_rng(3)
    projection = rng.normal(size=(X.shape[1], width)) / math.sqrt(X.shape[1])
    return np.maximum(X @ projection, 0)


OWN_CASES = {
    "iris": lambda: load_iris(return_X_y=True),
    "iris, few": lambda: tuple(part[::8] for part in load_iris(return_X_y=True)),
    "wine": lambda: (scale(load_wine().data), load_wine().target),
    "digits, n < D": lambda: tuple(
        part[:35] for part in load_digits(n_class=4, return_X_y=True)
    ),
    "digits, random features, n < D": lambda: (
        _random_features(load_digits(n_class=3).data[:60] / 16, 150),
        load_digits(n_class=3).target[:60],
    ),
}


@pytest.mark.parametrize("case", OWN_CASES)
def test_against_optimiser(case):
    X, y = OWN_CASES[case]()
    one_hot = np.equal.outer(y, np.unique(y)).astype(float)
    expected = [optimised_evidence(X, column) for column in one_hot.T]
    model = LogMEClassifier().fit(X, y)
    np.testing.assert_allclose(
        model.log_evidence_ / len(y), expected, rtol=0, atol=1e-6
    )
    assert model.logme_ == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("n_samples", [442, 100, 8])
def test_regression_against_optimiser(n_samples):
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:n_samples], y[:n_samples]
    expected = optimised_evidence(X, y)
    assert LogME().fit(X, y).logme_ == pytest.approx(expected, abs=1e-6)
