"""Eigenvectors of a symmetric matrix, computed only where they are needed.

LogME needs the eigenvalues and the targets in the eigenbasis. LAPACK reduces a matrix
to tridiagonal form, Q T Q^T, decomposes T = Z diag(s) Z^T, and spends a quarter of its
time on the product Q Z. A product with a few targets does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import lapack

from sktransfer.linear_model._samples import take_rows
from sktransfer.utils._array_api import (
    chunks,
    from_numpy,
    get_namespace,
    is_numpy_namespace,
    to_numpy,
)

# Size of matrix from which the product is worth saving.
_LARGE = 256
# Features that are converted to float64 at once.
_COLUMNS = 4096


class Eigenbasis:
    """Eigenvectors V as a matrix, of shape (n, rank)."""

    def __init__(self, vectors: Any):
        self.vectors = vectors
        # Some array of the namespace and device of V.
        self.example = vectors

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

    `reflectors`, of shape (n, n), and `tau`, of shape (n - 1,), are what LAPACK's sytrd
    gives for Q; `inner`, of shape (n, rank), is Z.
    """

    def __init__(self, reflectors: np.ndarray, tau: np.ndarray, inner: np.ndarray):
        self.reflectors = reflectors
        self.tau = tau
        self.inner = self.example = inner

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


@dataclass(eq=False)
class RowEigenbasis(Eigenbasis):
    """Right singular vectors V = F^T U S^-1 of few rows F, from the left ones.

    F is `X`, of shape (n, n_features), less `mean` if there is one, with rows
    multiplied by `root_weights` if there are any; `left` is U, `singular_values` is S.
    """

    X: Any
    mean: Any
    root_weights: Any
    left: Eigenbasis
    singular_values: np.ndarray

    def __post_init__(self):
        self.example = self.left.example

    @cached_property
    def vectors(self) -> Any:
        """V as a matrix."""
        return self.combine(np.eye(len(self.singular_values)))

    def left_rows(self, rows: slice | np.ndarray) -> Any:
        """Rows of U, with weights divided out."""
        U = take_rows(self.left.vectors, rows)
        if self.root_weights is None:
            return U
        xp, _ = get_namespace(X=self.X)
        root = take_rows(self.root_weights, rows)[:, None]
        return U / xp.where(root > 0, root, xp.ones_like(root))

    def combine(self, W: Any) -> Any:
        """Return V W."""
        xp, where = get_namespace(X=self.X)
        scale = from_numpy(1 / self.singular_values, xp, where)
        left = self.left.combine(scale[:, None] * xp.asarray(W, device=where))
        return xp.concat(
            [block.T @ left for block in blocks(self.X, self.mean, self.root_weights)]
        )


def blocks(X: Any, mean: Any, root_weights: Any):
    """Yield blocks of columns of X, centred and weighted, in float64."""
    xp, _ = get_namespace(X=X)
    for columns in chunks(X.shape[1], _COLUMNS):
        block = xp.astype(X[:, columns], xp.float64, copy=False)
        if mean is not None:
            block = block - mean[columns]
        if root_weights is not None:
            block = block * root_weights[:, None]
        yield block


def eigh(matrix: Any) -> tuple[np.ndarray, Eigenbasis]:
    """Eigenvalues, decreasing and on the host, and eigenvectors of a float64 matrix."""
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
