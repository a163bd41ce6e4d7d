"""GBC's principal components, found without a second eigendecomposition."""

from __future__ import annotations

import numpy as np
import pytest

from sktransfer.metrics import _gbc

SPECTRA = {
    "power law": lambda rng: 1 / np.arange(1, 101.0) ** 1.5,
    "crowded": lambda rng: np.linspace(2, 1, 100),
    "signal and noise": lambda rng: np.r_[np.linspace(90, 50, 7), np.full(93, 1.0)],
    "random": lambda rng: np.sort(rng.random(100))[::-1],
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("k", [8, 60])
def test_leading_eigenvectors_less_one_rank(spectrum, k, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    s = SPECTRA[spectrum](rng)
    u = np.sqrt(s / 2) * rng.normal(size=100) / 12
    matrix = np.diag(s) - np.outer(u, u)

    values, vectors = _gbc._leading(s, u, k)

    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[-k:], atol=1e-10)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-9 * s[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-10)


def test_equal_eigenvalues_are_not_passed_over(monkeypatch):
    """An iteration that misses a copy is noticed: eigenvalues interlace."""
    s = np.r_[3.0, 2.0, 2.0, 2.0, np.linspace(1, 0.5, 60)]
    lanczos = _gbc.eigsh

    def forgetful(scatter, k, **options):
        values, vectors = lanczos(scatter, k + 1, **options)
        return np.delete(values, -2), np.delete(vectors, -2, axis=1)

    monkeypatch.setattr(_gbc, "eigsh", forgetful)
    values, _ = _gbc._leading(s, np.zeros(64), 5)
    np.testing.assert_allclose(values[-4:], [2, 2, 2, 3])
