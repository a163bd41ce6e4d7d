"""Mixtures of the kernels of a network's layers, as features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.linalg.lapack import dpstrf

from sktransfer.utils._array_api import in_range, to_numpy
from sktransfer.utils._validation import check_features

# Two layers are copies if their kernels share this part of the digits of their dtype.
_SAME = 2 / 3
# A feature that varies by no more than this many units in its last place is constant.
_ROUNDED = 8


def check_layers(layers: Any) -> dict[Any, Any]:
    """Validate layers: finite arrays of shape (n_samples, n_features), n the same."""
    if not isinstance(layers, Mapping) or not layers:
        raise ValueError(
            "layers must map the name of each layer, in the order of depth, to its "
            f"features; got {layers!r:.60}."
        )
    checked = {}
    for name, X in layers.items():
        shape = np.shape(X)
        if len(shape) != 2:
            raise ValueError(
                f"Layer {name!r} must have the shape (n_samples, n_features); got "
                f"{tuple(shape)}. Pool its outputs."
            )
        if shape[1] == 0:
            raise ValueError(
                f"Layer {name!r} has 0 features while a minimum of 1 is required. Leave"
                " it out."
            )
        checked[name] = check_features(X, min_samples=2, name=f"layers[{name!r}]")
    *_, last = checked
    n_samples = checked[last].shape[0]
    for name, X in checked.items():
        if X.shape[0] != n_samples:
            raise ValueError(
                f"All layers must have the same samples; layer {name!r} has "
                f"{X.shape[0]} and the last, {last!r}, has {n_samples}."
            )
    return checked


class LayerMixture:
    """Features whose kernel is K(rho) = (1 - rho) K_last + rho mean_l K_l.

    K_l is the linear kernel of layer l about its (weighted) mean, divided by its trace.
    Layers with the same kernel count once in the mean, and constant layers not at all.

    Two n x n matrices are kept, unless all layers together have fewer than n features.
    Then it is the features that are scaled and joined. Weights must be positive.
    """

    def __init__(self, layers: Mapping[Any, Any], sample_weight: Any = None):
        *others, last = map(to_numpy, layers.values())
        n = len(last)
        in_dual = sum(X.shape[1] for X in (*others, last)) >= n
        # K_l r tells whether two kernels are the same.
        probe = np.random.default_rng(0).normal(size=n)
        # Layers of two precisions may be copies of each other.
        eps = max(float(np.finfo(X.dtype).eps) for X in (*others, last))
        self._last = _unit_trace(last, sample_weight)
        marks = [self._last @ (self._last.T @ probe)] if self._last.any() else []
        self._others: list[np.ndarray] = []  # scaled features
        self._kernels: list[np.ndarray] = []  # K_last, and the sum of the others
        for given in others:
            X = _unit_trace(given, sample_weight)
            mark = X @ (X.T @ probe)
            near = eps**_SAME * np.linalg.norm(mark)
            if any(np.linalg.norm(mark - m) <= near for m in marks) or not X.any():
                continue
            marks.append(mark)
            if not in_dual:
                self._others.append(X)
            elif not self._kernels:
                self._kernels = [self._last @ self._last.T, X @ X.T]
            else:
                self._kernels[1] += X @ X.T
        self.n_distinct = len(marks)

    @property
    def is_pure(self) -> bool:
        """Whether there is nothing to mix with the last layer."""
        return not self._others and not self._kernels

    def features(self, rho: float) -> np.ndarray:
        """F with F F^T = K(rho), float64, of shape (n_samples, n_features)."""
        if self.is_pure or rho == 0:
            return self._last
        # A constant last layer is zero, whatever its factor.
        share = rho / self.n_distinct
        of_last = 1 - rho + share
        if self._kernels:
            K = of_last * self._kernels[0] + share * self._kernels[1]
            return _factor(K)
        scaled = [np.sqrt(share) * X for X in self._others]
        return np.concatenate([np.sqrt(of_last) * self._last, *scaled], axis=1)


def _unit_trace(X: np.ndarray, sample_weight: Any = None) -> np.ndarray:
    """Features about their mean whose kernel has unit trace; zeros if constant."""
    w = np.ones(len(X)) if sample_weight is None else sample_weight
    largest = np.maximum(X.max(axis=0), -X.min(axis=0)) / 2
    unit = _ROUNDED * float(np.finfo(X.dtype).eps) * largest
    # Differences to a sample first: those of a constant feature are exactly zero.
    X = X.astype(np.float64)
    X *= 0.5
    X -= X[0].copy()
    # Batches of other sizes round the same number in other ways.
    X[:, np.ptp(X, axis=0) <= unit] = 0.0
    X = in_range(X)[0]
    X -= w @ X / w.sum()
    trace = w @ np.einsum("ij,ij->i", X, X)
    return X / np.sqrt(trace) if trace > 0 else np.zeros_like(X)


def _factor(K: np.ndarray) -> np.ndarray:
    """F with F F^T = K, by a pivoted Cholesky decomposition.

    It is padded by zeros to more features than samples, so that the spectrum is taken
    from products of samples, as that of any wide features.
    """
    n = len(K)
    # Above the rounding of K: its root would look like features.
    tolerance = 10 * n * np.finfo(np.float64).eps * np.trace(K)
    L, pivots, rank, _ = dpstrf(K, lower=1, tol=tolerance)
    F = np.zeros((n, n + 1))
    F[pivots - 1, :rank] = np.tril(L)[:, :rank]
    return F
