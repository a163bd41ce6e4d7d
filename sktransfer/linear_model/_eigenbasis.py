"""Eigenvectors of a symmetric matrix, made explicit only where they are needed.

LogME needs the eigenvalues and the targets in the eigenbasis. LAPACK reduces a matrix
to tridiagonal form, Q T Q^T, finds T = Z diag(s) Z^T, and spends a quarter of its time
on the product Q Z, which a few columns can do without.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import lapack

from sktransfer.utils._array_api import is_numpy_namespace, to_numpy

# Below, the eigenvectors cost nothing worth saving.
_LARGE = 256


class Eigenbasis:
    """Eigenvectors V as a matrix.

    Parameters
    ----------
    vectors : array of shape (n, rank)
    """

    def __init__(self, vectors: Any):
        self.vectors = vectors

    @property
    def example(self) -> Any:
        """Some array of the namespace and device of V."""
        return self.vectors

    def project(self, B: Any) -> Any:
        """Return V^T B."""
        return self.vectors.T @ B

    def combine(self, W: Any) -> Any:
        """Return V W."""
        return self.vectors @ W


class FactoredEigenbasis(Eigenbasis):
    """Eigenvectors V = Q Z as Householder reflectors and a smaller matrix.

    Parameters
    ----------
    reflectors : ndarray of shape (n, n)
        What LAPACK's sytrd leaves below the diagonal.
    tau : ndarray of shape (n - 1,)
    inner : ndarray of shape (n, rank)
        Z.
    """

    def __init__(self, reflectors: np.ndarray, tau: np.ndarray, inner: np.ndarray):
        self.reflectors = reflectors
        self.tau = tau
        self.inner = inner

    @property
    def example(self) -> np.ndarray:
        """Some array of the namespace and device of V."""
        return self.inner

    @cached_property
    def vectors(self) -> np.ndarray:
        """V as a matrix."""
        return self._rotate(self.inner, "N")

    def project(self, B: np.ndarray) -> np.ndarray:
        """Return V^T B."""
        return self.inner.T @ self._rotate(B, "T")

    def combine(self, W: np.ndarray) -> np.ndarray:
        """Return V W."""
        return self._rotate(self.inner @ W, "N")

    def _rotate(self, A: np.ndarray, trans: str) -> np.ndarray:
        """Q A, or Q^T A; the first reflector leaves the first row alone."""
        rest = np.asfortranarray(A[1:])
        arguments = ("L", trans, self.reflectors[1:, :-1], self.tau, rest)
        work = lapack.dormqr(*arguments, -1)[1]
        rotated = lapack.dormqr(*arguments, int(work[0]))[0]
        return np.concatenate([A[:1], rotated])


def eigh(matrix: Any, floor: float, xp: Any) -> tuple[np.ndarray, Eigenbasis]:
    """Eigenvalues above a share of the largest, and their eigenvectors.

    Parameters
    ----------
    matrix : array of shape (n, n), float64, symmetric
    floor : float
        Eigenvalues up to this share of the largest count as zero.

    Returns
    -------
    values : ndarray of shape (rank,)
        Decreasing, on the host.
    basis : Eigenbasis
    """
    if is_numpy_namespace(xp) and matrix.shape[0] >= _LARGE:
        work = lapack.dsytrd_lwork(matrix.shape[0], lower=1)[0]
        reflectors, diagonal, off_diagonal, tau, _ = lapack.dsytrd(
            matrix, lower=1, lwork=int(work)
        )
        values, inner, info = lapack.dstevd(diagonal, off_diagonal)
        if info == 0:
            kept = _kept(values, floor)
            basis = FactoredEigenbasis(reflectors, tau, inner[:, kept])
            return values[kept].copy(), basis
    values, vectors = xp.linalg.eigh(matrix)
    values = to_numpy(values)
    kept = _kept(values, floor)
    rank = len(values[kept])
    return values[kept].copy(), Eigenbasis(
        xp.flip(vectors[:, len(values) - rank :], axis=1)
    )


def _kept(values: np.ndarray, floor: float) -> slice:
    """Slice of the eigenvalues above the floor, largest first."""
    rank = int(np.sum(values > floor * max(values[-1], 0.0)))
    first = len(values) - rank
    return slice(None, first - 1 if first else None, -1) if rank else slice(0, 0)
