"""Independent ways to the evidence: the n x n covariance, without any spectrum of ours.

y ~ N(0, I / beta + X X^T / alpha) is all that is used.
"""

from __future__ import annotations

import numpy as np
import pytest


def evidence_curve(X, y, log_t):
    """Log evidence of one target at every log t, beta at its best value.

    With C = I + X X^T / t: beta = n / (y^T C^-1 y), in the eigenbasis of C.
    """
    n = len(y)
    values, vectors = np.linalg.eigh(X @ X.T)
    values = np.maximum(values, 0.0)
    squares = (vectors.T @ y) ** 2
    C = 1 + values * np.exp(-np.asarray(log_t))[:, None]
    beta = n / (squares / C).sum(axis=1)
    return 0.5 * (n * (np.log(beta / (2 * np.pi)) - 1) - np.log(C).sum(axis=1))


def local_maxima(curve):
    """Positions of the inner local maxima of values on a grid."""
    rise = np.diff(curve) > 0
    return np.flatnonzero(rise[:-1] & ~rise[1:]) + 1


def with_spectrum(rng, n, d, singular_values):
    """Random features with the given singular values."""
    rank = len(singular_values)
    U, _ = np.linalg.qr(rng.normal(size=(n, rank)))
    V, _ = np.linalg.qr(rng.normal(size=(d, rank)))
    return (U * singular_values) @ V.T


@pytest.fixture(scope="session", name="evidence_curve")
def evidence_curve_():
    return evidence_curve


@pytest.fixture(scope="session", name="local_maxima")
def local_maxima_():
    return local_maxima


@pytest.fixture(scope="session", name="with_spectrum")
def with_spectrum_():
    return with_spectrum
