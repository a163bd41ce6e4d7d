"""Mixtures of the kernels of a network's layers, as features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.linalg.lapack import dpstrf

from sktransfer.utils._array_api import in_range, to_numpy
from sktransfer.utils._validation import check_features


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
    Then it is the features that are scaled and joined.
    """

    def __init__(self, layers: Mapping[Any, Any], sample_weight: Any = None):
        *others, last = map(to_numpy, layers.values())
        self.n_samples = n = len(last)
        self._in_dual = sum(X.shape[1] for X in (*others, last)) >= n
        # K_l r tells whether two kernels are the same.
        probe = np.random.default_rng(0).normal(size=n)
        marks: list[np.ndarray] = []
        self._parts: list[np.ndarray] = []
        for X in (last, *others):
            tolerance = float(np.finfo(X.dtype).eps) ** (2 / 3)
            X = _unit_trace(X, sample_weight)
            mark = X @ (X.T @ probe)
            near = tolerance * np.linalg.norm(mark)
            counts = X.any() and all(np.linalg.norm(mark - m) > near for m in marks)
            if counts:
                marks.append(mark)
            if counts or not self._parts:  # the last layer, even if it is constant
                self._add(X)
        self.n_distinct = len(marks)

    def _add(self, X: np.ndarray) -> None:
        """Keep a layer: the first as K_last, and the sum of the others."""
        if not self._in_dual:
            self._parts.append(X)
        elif len(self._parts) < 2:
            self._parts.append(X @ X.T)
        else:
            self._parts[1] += X @ X.T

    @property
    def is_pure(self) -> bool:
        """Whether there is nothing to mix with the last layer."""
        return len(self._parts) == 1

    def features(self, rho: float) -> np.ndarray:
        """F with F F^T = K(rho), float64, of shape (n_samples, n_features)."""
        share = rho / max(self.n_distinct, 1)
        last, *others = self._parts
        # A constant last layer is zero, whatever its factor.
        if not self._in_dual:
            scaled = [np.sqrt(share) * X for X in others]
            return np.concatenate([np.sqrt(1 - rho + share) * last, *scaled], axis=1)
        K = (1 - rho + share) * last
        for total in others:
            K += share * total
        return _factor(K)


def _unit_trace(X: np.ndarray, sample_weight: Any = None) -> np.ndarray:
    """Features about their mean whose kernel has unit trace; zeros if constant."""
    w = np.ones(len(X)) if sample_weight is None else sample_weight
    X = X.astype(np.float64)
    # Differences to a sample first: those of a constant feature are exactly zero.
    X = in_range(X / 2 - X[np.argmax(w > 0)] / 2)[0]
    X -= w @ X / w.sum()
    trace = w @ np.einsum("ij,ij->i", X, X)
    return X / np.sqrt(trace) if trace > 0 else np.zeros_like(X)


def _factor(K: np.ndarray) -> np.ndarray:
    """F with F F^T = K, by a pivoted Cholesky decomposition.

    It is padded by zeros to more features than samples, so that the spectrum is taken
    from products of samples, as that of any wide features.
    """
    L, pivots, rank, _ = dpstrf(K, lower=1)
    F = np.zeros((len(K), len(K) + 1))
    F[pivots - 1, :rank] = np.tril(L)[:, :rank]
    return F
