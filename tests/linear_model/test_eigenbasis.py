"""Eigenvectors that are multiplied with before they exist."""

from __future__ import annotations

import numpy as np
import pytest

from sktransfer.linear_model import (
    LogMEClassifier,
    SufficientStatistics,
    _eigenbasis,
)
from sktransfer.linear_model._eigenbasis import FactoredEigenbasis, RowEigenbasis, eigh


@pytest.mark.parametrize("rank", [1, 40, 299, 300])
def test_factored_like_numpy(rank, global_random_seed):
    rng = np.random.default_rng([global_random_seed, rank])
    F = rng.normal(size=(rank, 300))
    G = F.T @ F
    before = G.copy()
    values, basis = eigh(G)
    values, basis = values[:rank], basis.leading(rank)
    assert isinstance(basis, FactoredEigenbasis)
    np.testing.assert_array_equal(G, before)
    expected = np.linalg.eigvalsh(G)[::-1][:rank]
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9 * expected[0])
    V = basis.vectors
    np.testing.assert_allclose(V.T @ V, np.eye(rank), atol=1e-11)
    np.testing.assert_allclose((V * values) @ V.T, G, atol=1e-10 * expected[0])
    B, W = rng.normal(size=(300, 3)), rng.normal(size=(rank, 2))
    np.testing.assert_allclose(basis.project(B), V.T @ B, atol=1e-11)
    np.testing.assert_allclose(basis.combine(W), V @ W, atol=1e-11)


@pytest.mark.parametrize("size", [3, 300])
def test_no_eigenvectors(size):
    values, basis = eigh(np.zeros((size, size)))
    np.testing.assert_array_equal(values, 0)
    basis = basis.leading(0)
    assert basis.project(np.ones((size, 2))).shape == (0, 2)
    assert basis.combine(np.ones((0, 2))).shape == (size, 2)


def test_large_and_small_agree(monkeypatch, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    y = rng.integers(3, size=400)
    X = rng.normal(size=(400, 280)) + rng.normal(size=(3, 280))[y] / 4
    fits = []
    for large in (_eigenbasis._LARGE, 10**6):
        monkeypatch.setattr(_eigenbasis, "_LARGE", large)
        fits.append(LogMEClassifier(std_error=True).fit(X, y))
    factored, explicit = fits
    assert factored.logme_ == pytest.approx(explicit.logme_, abs=1e-10)
    assert factored.std_error_ == pytest.approx(explicit.std_error_, rel=1e-8)
    np.testing.assert_allclose(factored.coef_, explicit.coef_, atol=1e-9)
    np.testing.assert_allclose(
        factored.predict_proba(X), explicit.predict_proba(X), atol=1e-8
    )


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_samples_make_no_eigenvectors(fit_intercept, dtype, global_random_seed):
    """N < D: the right singular vectors, as large as the features, are not formed."""
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(30, 80)).astype(dtype) + dtype(3)
    y = np.arange(30) % 3
    weights = rng.uniform(0.5, 1.5, size=30)
    model = LogMEClassifier(fit_intercept=fit_intercept, std_error=True)
    model.fit(X, y, weights)
    basis = model._solve().spectrum.eigenbasis
    assert isinstance(basis, RowEigenbasis)
    np.testing.assert_array_equal(np.isfinite(model.coef_), True)
    assert "vectors" not in vars(basis)
    V = basis.vectors
    np.testing.assert_allclose(V.T @ V, np.eye(V.shape[1]), atol=1e-9)
    B, W = rng.normal(size=(80, 3)), rng.normal(size=(V.shape[1], 2))
    np.testing.assert_allclose(basis.project(B), V.T @ B, atol=1e-9)
    np.testing.assert_allclose(basis.combine(W), V @ W, atol=1e-9)


@pytest.mark.parametrize("shape", [(5000, 6), (20, 50)])
@pytest.mark.parametrize("centred", [False, True])
def test_left_blocks(shape, centred, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X, y = rng.normal(size=shape) + 3, rng.normal(size=shape[0])
    weights = rng.uniform(0.5, 1.5, size=shape[0])
    statistics = SufficientStatistics(shape[1]).update(X, y, weights)
    spectrum = statistics.centred_spectrum if centred else statistics.spectrum
    rows, blocks = zip(*spectrum.left_blocks(X), strict=True)
    np.testing.assert_array_equal(
        np.concatenate([np.arange(shape[0])[i] for i in rows]), np.arange(shape[0])
    )
    U = np.sqrt(weights)[:, None] * np.concatenate(blocks)
    F = np.sqrt(weights)[:, None] * (X - centred * np.average(X, 0, weights))
    V, singular = spectrum.basis, np.sqrt(spectrum.eigenvalues)
    np.testing.assert_allclose(U.T @ U, np.eye(len(singular)), atol=1e-9)
    np.testing.assert_allclose((U * singular) @ V.T, F, atol=1e-9)
