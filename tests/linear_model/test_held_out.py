"""Scores of held-out predictions: temperature, calibration, standard errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from sktransfer.linear_model import LogMEClassifier, r2_parts, standard_error
from sktransfer.linear_model._held_out import fit_temperature


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_temperature(weighted, unit, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    codes = rng.integers(0, 4, size=200)
    scores = unit * (np.eye(4)[codes] + rng.normal(size=(200, 4)))
    w = rng.integers(0, 3, size=200).astype(float) if weighted else None

    def loss(log_tau):
        log_proba = log_softmax(np.exp(log_tau) * scores, axis=1)
        return -np.average(log_proba[np.arange(200), codes], weights=w)

    start = np.log(1 / unit)
    best = minimize_scalar(loss, bounds=(start - 9, start + 9), method="bounded")
    temperature = fit_temperature(scores, codes, w)
    assert loss(-np.log(temperature)) <= best.fun + 1e-12
    assert np.log(temperature) == pytest.approx(-best.x, abs=1e-3)


def test_temperature_at_its_ends():
    codes = np.array([0, 1, 0, 1])
    right = np.eye(2)[codes]
    log_proba = log_softmax(right / fit_temperature(right, codes), axis=1)
    # No error in four samples: the mean log-likelihood is -1 / 5.
    assert log_proba[np.arange(4), codes].mean() == pytest.approx(-0.2)
    wrong = log_softmax((1 - right) / fit_temperature(1 - right, codes), axis=1)
    np.testing.assert_allclose(wrong, -np.log(2), rtol=1e-5)
    assert np.argmax(wrong, axis=1).tolist() == [1, 0, 1, 0]
    assert fit_temperature(np.ones((4, 2)), codes) == 1


def test_probabilities_are_calibrated():
    """On 200 digits for training the mean confidence was 0.99, and the accuracy 0.88.

    Log loss on the other digits is within 0.02 nats of the best temperature's.
    """
    X, y = load_digits(return_X_y=True)
    X, F, y, z = train_test_split(X, y, train_size=200, random_state=0, stratify=y)
    model = LogMEClassifier(fit_intercept=True, prior="shared", leave_one_out=True)
    model.fit(X, y)
    accuracy = (model.predict(F) == z).mean()
    assert accuracy == pytest.approx(model.loo_accuracy_, abs=0.05)
    proba = model.predict_proba(F)
    assert proba.max(axis=1).mean() == pytest.approx(accuracy, abs=0.05)
    loss = -model.log_predictive_density(F, z).mean()
    assert loss == pytest.approx(-model.loo_log_likelihood_, abs=0.1)
    means = F @ model.coef_.T + model.intercept_
    best = min(
        -log_softmax(tau * means, axis=1)[np.arange(len(z)), z].mean()
        for tau in np.geomspace(1, 100, 50)
    )
    assert loss < best + 0.02
    # The rule of thumb is not as good, but does not claim too much either.
    rough = LogMEClassifier(fit_intercept=True, prior="shared").fit(X, y)
    assert -rough.log_predictive_density(F, z).mean() < best + 0.1
    np.testing.assert_array_equal(rough.predict(F), model.predict(F))


def test_standard_errors_of_groups_and_weights(global_random_seed):
    """Copies of a sample in one group are no new information; other copies are."""
    rng = np.random.default_rng(global_random_seed)
    psi, counts = rng.normal(size=50), rng.integers(1, 4, size=50)
    copies = np.repeat(np.arange(50), counts)
    assert standard_error(psi, None, np.arange(50)) == pytest.approx(
        standard_error(psi)
    )
    assert standard_error(np.tile(psi, 3), None, np.tile(np.arange(50), 3)) == (
        pytest.approx(standard_error(psi))
    )
    assert standard_error(psi, counts.astype(float), np.arange(50)) == pytest.approx(
        standard_error(psi[copies], None, copies)
    )
    y, predictions = rng.normal(size=(2, 50, 2))
    parts = r2_parts(y, predictions, counts.astype(float))
    np.testing.assert_allclose(parts[copies], r2_parts(y[copies], predictions[copies]))
    assert np.average(parts, weights=counts) == pytest.approx(
        r2_score(y, predictions, sample_weight=counts)
    )


def test_one_group_has_no_standard_error():
    assert np.isnan(standard_error(np.array([1.0, 2.0, 4.0]), groups=np.zeros(3)))
