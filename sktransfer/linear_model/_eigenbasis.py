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

from sktransfer.utils._array_api import (
    chunks,
    from_numpy,
    get_namespace,
    is_numpy_namespace,
    to_numpy,
)

# Below, the eigenvectors cost nothing worth saving.
_LARGE = 256
# Features that are converted to float64 at once.
_COLUMNS = 4096


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

    def leading(self, rank: int) -> Eigenbasis:
        """The first `rank` eigenvectors."""
        xp, _ = get_namespace(vectors=self.vectors)
        return Eigenbasis(xp.asarray(self.vectors[:, :rank], copy=True))


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

    def leading(self, rank: int) -> FactoredEigenbasis:
        """The first `rank` eigenvectors."""
        return FactoredEigenbasis(self.reflectors, self.tau, self.inner[:, :rank])

    def _rotate(self, A: np.ndarray, trans: str) -> np.ndarray:
        """Q A, or Q^T A; the first reflector leaves the first row alone."""
        rest = np.asfortranarray(A[1:])
        arguments = ("L", trans, self.reflectors[1:, :-1], self.tau, rest)
        work = lapack.dormqr(*arguments, -1)[1]
        rotated = lapack.dormqr(*arguments, int(work[0]))[0]
        return np.concatenate([A[:1], rotated])


class RowEigenbasis(Eigenbasis):
    """Right singular vectors V = F^T U S^-1 of few rows F, from the left ones.

    Parameters
    ----------
    X : array of shape (n, n_features)
        Rows, float32 or float64.
    mean : array of shape (n_features,), float64, or None
        What is taken from every row.
    root_weights : array of shape (n,), float64, or None
        What every row is then multiplied by.
    left : Eigenbasis
        U, of shape (n, rank).
    singular_values : ndarray of shape (rank,)
        S.
    """

    def __init__(
        self,
        X: Any,
        mean: Any,
        root_weights: Any,
        left: Eigenbasis,
        singular_values: np.ndarray,
    ):
        self.X = X
        self.mean = mean
        self.root_weights = root_weights
        self.left = left
        self.singular_values = singular_values

    @property
    def example(self) -> Any:
        """Some array of the namespace and device of V."""
        return self.left.example

    @cached_property
    def vectors(self) -> Any:
        """V as a matrix."""
        return self.combine(np.eye(len(self.singular_values)))

    def combine(self, W: Any) -> Any:
        """Return V W."""
        xp, where = get_namespace(X=self.X)
        scale = from_numpy(1 / self.singular_values, xp, where)
        left = self.left.combine(scale[:, None] * xp.asarray(W, device=where))
        return xp.concat(
            [block.T @ left for block in blocks(self.X, self.mean, self.root_weights)]
        )


def blocks(X: Any, mean: Any, root_weights: Any):
    """Yield columns of rows less their mean, weighted, in float64."""
    xp, _ = get_namespace(X=X)
    for columns in chunks(X.shape[1], _COLUMNS):
        block = xp.astype(X[:, columns], xp.float64, copy=False)
        if mean is not None:
            block = block - mean[columns]
        if root_weights is not None:
            block = block * root_weights[:, None]
        yield block


def eigh(matrix: Any) -> tuple[np.ndarray, Eigenbasis]:
    """Eigenvalues, decreasing, and eigenvectors of a symmetric float64 matrix.

    Parameters
    ----------
    matrix : array of shape (n, n)

    Returns
    -------
    values : ndarray of shape (n,)
        On the host.
    basis : Eigenbasis
    """
    xp, _ = get_namespace(matrix=matrix)
    if is_numpy_namespace(xp) and matrix.shape[0] >= _LARGE:
        work = lapack.dsytrd_lwork(matrix.shape[0], lower=1)[0]
        reflectors, diagonal, off_diagonal, tau, _ = lapack.dsytrd(
            matrix, lower=1, lwork=int(work)
        )
        values, inner, info = lapack.dstevd(diagonal, off_diagonal)
        if info == 0:
            basis = FactoredEigenbasis(reflectors, tau, inner[:, ::-1])
            return values[::-1].copy(), basis
    values, vectors = xp.linalg.eigh(matrix)
    return to_numpy(values)[::-1].copy(), Eigenbasis(xp.flip(vectors, axis=1))
