"""The Laplace evidence of a soft-max head."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from scipy.stats import norm
from sklearn.datasets import load_diabetes, load_digits, load_iris

from sktransfer.metrics._laplace_evidence import (
    _hessian,
    _principal_coordinates,
    laplace_evidence_score,
    log_evidence,
)
from sktransfer.metrics._logme import logme_score


def problem(seed, n_samples=120, n_features=3, n_classes=3, signal=1.0):
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n_samples, n_features))
    W = signal * rng.normal(size=(n_classes, n_features))
    draws = rng.gumbel(size=(n_samples, n_classes))
    codes = np.argmax(Z @ W.T + draws, axis=1)
    codes[:n_classes] = np.arange(n_classes)  # no class without a sample
    return Z, codes


def objective(w, Z, codes, precision, n_classes):
    """Negative log joint density of soft-max weights, up to a constant."""
    logits = Z @ w.reshape(n_classes, -1).T
    log_proba = log_softmax(logits, axis=1)
    return -log_proba[np.arange(len(Z)), codes].sum() + precision / 2 * w @ w


def slow_evidence(Z, codes, precision):
    """Newton's method and the full Hessian of all columns, sample by sample."""
    r = Z.shape[1]
    k = codes.max() + 1
    w = np.zeros(k * r)
    for _ in range(100):
        P = softmax(Z @ w.reshape(k, r).T, axis=1)
        gradient = ((P - np.eye(k)[codes]).T @ Z).ravel() + precision * w
        H = precision * np.eye(k * r)
        for z, p in zip(Z, P, strict=True):
            H += np.kron(np.diag(p) - np.outer(p, p), np.outer(z, z))
        step, length = np.linalg.solve(H, gradient), 1.0
        value = objective(w, Z, codes, precision, k)
        while objective(w - length * step, Z, codes, precision, k) > value + 1e-9:
            length /= 2
        w = w - length * step
        if np.abs(step).max() < 1e-9:
            break
    log_det = np.linalg.slogdet(H)[1]
    log_joint = -objective(w, Z, codes, precision, k)
    return log_joint + k * r / 2 * np.log(precision) - log_det / 2


@pytest.mark.parametrize("n_classes", [2, 3])
def test_score_is_the_maximum_of_the_slow_evidence(n_classes, global_random_seed):
    """With two classes, too: two columns count as one of half the precision."""
    Z, codes = problem(global_random_seed, n_samples=60, n_classes=n_classes, signal=2)
    found = minimize_scalar(
        lambda u: -slow_evidence(Z, codes, np.exp(u)), bounds=(-6, 8), method="bounded"
    )
    maximum = max(-found.fun / len(Z), -np.log(n_classes))
    assert laplace_evidence_score(Z, codes) == pytest.approx(maximum, abs=1e-5)


@pytest.mark.parametrize("precision", [0.1, 1.0, 10.0])
def test_binary_evidence_by_integration(precision, global_random_seed):
    Z, codes = problem(global_random_seed, n_samples=400, n_features=1, n_classes=2)
    z, sign = Z[:, 0], 2.0 * codes - 1

    def log_joint(w):
        prior = norm.logpdf(w, scale=precision**-0.5)
        return np.sum(log_expit(sign * z * w)) + prior

    w = 0.0
    for _ in range(50):
        p = expit(z * w)
        w += (z @ (codes - p) - precision * w) / (z**2 @ (p * (1 - p)) + precision)
    top = log_joint(w)
    integral = quad(lambda v: np.exp(log_joint(v) - top), w - 3, w + 3)[0]
    value, _ = log_evidence(Z, codes, np.array([[w]]), precision, "exact")
    assert value == pytest.approx(top + np.log(integral), abs=0.02)


def test_laplace_becomes_exact_with_more_samples():
    """Two weights: the error falls as 1 / n."""
    errors = []
    for n in (30, 1000):
        Z, codes = problem(0, n_samples=n, n_features=2, n_classes=2, signal=0.5)
        w = np.zeros(2)
        for _ in range(50):
            p = expit(Z @ w)
            H = (Z.T * (p * (1 - p))) @ Z + np.eye(2)
            w += np.linalg.solve(H, Z.T @ (codes - p) - w)
        L = np.linalg.cholesky(np.linalg.inv(H))
        axis = np.linspace(-6, 6, 61)
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) @ L.T + w
        sign = 2.0 * codes - 1
        density = log_expit(sign * (grid @ Z.T)).sum(axis=1)
        density -= np.sum(grid**2, axis=1) / 2 + np.log(2 * np.pi)
        cell = (axis[1] - axis[0]) ** 2 * np.linalg.det(L)
        truth = density.max() + np.log(np.exp(density - density.max()).sum() * cell)
        value, _ = log_evidence(Z, codes, w[None], 1.0, "exact")
        errors.append(abs(value - truth))
    assert errors[1] < 0.1 * errors[0]
    assert errors[1] < 5e-3


def test_hessian_by_finite_differences(global_random_seed):
    Z, codes = problem(global_random_seed, n_samples=40)
    w = np.random.default_rng(global_random_seed).normal(size=9)
    step = 1e-4 * np.eye(9)

    def f(v):
        return objective(v, Z, codes, 0.0, 3)

    numeric = [
        [f(w + a + b) - f(w + a - b) - f(w - a + b) + f(w - a - b) for b in step]
        for a in step
    ]
    P = softmax(Z @ w.reshape(3, 3).T, axis=1)
    np.testing.assert_allclose(_hessian(Z, P), np.array(numeric) / 4e-8, atol=1e-3)


def test_kronecker_factors_by_definition(global_random_seed):
    Z, codes = problem(global_random_seed)
    Z = np.linalg.qr(Z)[0] * [3.0, 2.0, 1.0]  # uncorrelated
    W = np.random.default_rng(global_random_seed).normal(size=(3, 3))
    P = softmax(Z @ W.T, axis=1)
    mean = np.mean([np.diag(p) - np.outer(p, p) for p in P], axis=0)
    H = np.kron(mean, Z.T @ Z)
    _, occam = log_evidence(Z, codes, W, 0.3, "kronecker")
    expected = -np.linalg.slogdet(np.eye(9) + H / 0.3)[1] / 2
    assert occam == pytest.approx(expected)


def test_kronecker_is_exact_where_probabilities_are_equal(global_random_seed):
    Z, codes = problem(global_random_seed)
    Z = _principal_coordinates(Z)
    W = np.zeros((3, 3))
    exact = log_evidence(Z, codes, W, 2.0, "exact")
    assert log_evidence(Z, codes, W, 2.0, "kronecker") == pytest.approx(exact)


def test_kronecker_is_close_to_exact():
    X, y = load_iris(return_X_y=True)
    exact = laplace_evidence_score(X, y, curvature="exact")
    assert laplace_evidence_score(X, y) == exact
    kronecker = laplace_evidence_score(X, y, curvature="kronecker")
    assert kronecker == pytest.approx(exact, abs=0.03)
    assert kronecker != exact


def test_wide_features_take_kronecker_factors():
    X, y = load_digits(return_X_y=True)
    X, y = X[:200] + np.random.default_rng(0).normal(size=(200, 64)), y[:200]
    X = np.maximum(X @ np.random.default_rng(0).normal(size=(64, 300)), 0)
    kronecker = laplace_evidence_score(X, y, curvature="kronecker")
    assert laplace_evidence_score(X, y) == kronecker


def test_rotation_and_empty_features_mean_nothing(global_random_seed):
    Z, codes = problem(global_random_seed, n_features=4)
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    expected = laplace_evidence_score(Z, codes)
    turned = np.column_stack([Z @ Q, np.zeros((len(Z), 2))])
    assert laplace_evidence_score(turned, codes) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n_features", [5, 200])
def test_noise_scores_no_better_than_chance(n_features, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X, y = rng.normal(size=(100, n_features)), rng.integers(4, size=100)
    score = laplace_evidence_score(X, y, curvature="kronecker")
    assert -np.log(4) <= score < -np.log(4) + 0.05


def test_rounding_does_not_move_the_maximum():
    # Features for which the search along the precision once took another path.
    rng = np.random.default_rng(595972)
    y = np.r_[np.tile(np.arange(3), 2), rng.integers(3, size=31)][:31]
    X = rng.normal(size=(31, 12)) + rng.normal(size=(3, 12))[y]
    twice = laplace_evidence_score(np.hstack([X, X]), y)
    assert twice == pytest.approx(laplace_evidence_score(X, y), rel=1e-7)


def test_regression_is_logme():
    X, y = load_diabetes(return_X_y=True)
    assert laplace_evidence_score(X, y, task="regression") == logme_score(
        X, y, task="regression"
    )


def test_several_labels_are_the_mean(global_random_seed):
    Z, codes = problem(global_random_seed)
    Y = np.column_stack([codes == 0, Z[:, 0] > 0, codes > 1]).astype(int)
    single = [laplace_evidence_score(Z, column) for column in Y.T]
    assert laplace_evidence_score(Z, Y) == pytest.approx(np.mean(single), abs=1e-5)


def test_refused():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="curvature"):
        laplace_evidence_score(X, y, curvature="diagonal")
    with pytest.raises(ValueError, match="Label 1 is constant"):
        laplace_evidence_score(X, np.column_stack([y == 0, y >= 0]).astype(int))


@pytest.mark.parametrize(
    ("curvature", "structure"), [("exact", "full"), ("kronecker", "kron")]
)
def test_laplace_torch_agrees(curvature, structure, global_random_seed):
    torch = pytest.importorskip("torch")
    laplace = pytest.importorskip("laplace")
    Z, codes = problem(global_random_seed)
    Z = _principal_coordinates(Z)
    W = np.random.default_rng(global_random_seed).normal(size=(3, 3))
    model = torch.nn.Linear(3, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(W))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(Z), torch.tensor(codes)),
        batch_size=len(Z),
    )
    oracle = laplace.Laplace(
        model, "classification", subset_of_weights="all", hessian_structure=structure
    )
    oracle.fit(loader)
    expected = oracle.log_marginal_likelihood(
        prior_precision=torch.tensor([0.7], dtype=torch.float64)
    )
    value, _ = log_evidence(Z, codes, W, 0.7, curvature)
    assert value == pytest.approx(float(expected), rel=1e-5)
