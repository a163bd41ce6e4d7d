"""The posterior of the weights at the maximum of the evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sktransfer.linear_model._eigenbasis import Eigenbasis
from sktransfer.linear_model._evidence import EvidenceMaximum
from sktransfer.linear_model._spectrum import Spectrum
from sktransfer.utils._array_api import beside, chunks, get_namespace, to_numpy

_EPS = float(np.finfo(np.float64).eps)
# An error of LogME that is of no concern, in nats.
NEGLIGIBLE = 1e-5


@dataclass(frozen=True)
class Posterior:
    """Gaussian posterior w_k ~ N(m_k, A_k^-1), A_k = alpha_k I + beta_k F^T F."""

    spectrum: Spectrum
    maximum: EvidenceMaximum

    @cached_property
    def coef(self) -> Any:
        """Posterior means m, of shape (n_targets, n_features)."""
        s = self.spectrum.eigenvalues[:, None]
        shrunk = np.sqrt(s) * self.spectrum.projections / (s + self.maximum.t)
        return self.spectrum.eigenbasis.combine(self.like_features(shrunk)).T

    @cached_property
    def intercept(self) -> Any:
        """Intercepts, of shape (n_targets,); zero if no means were removed."""
        if self.spectrum.feature_mean is None:
            return self.like_features(np.zeros(len(self.maximum.beta)))
        shift = self.coef @ self.spectrum.feature_mean
        return self.like_features(self.spectrum.target_mean) - shift

    @property
    def _basis(self) -> Any:
        """Eigenvectors as an array, unless a compact model has dropped them."""
        if self.spectrum.eigenbasis is None:
            raise ValueError(
                "This model keeps predictive means only. For standard deviations and "
                "classes, fit a model on the features, and make it compact with "
                "keep_std=True."
            )
        return self.spectrum.basis

    def compact(self, *, keep_std: bool) -> Posterior:
        """The same posterior, with eigenvectors as precise as they are, or without."""
        basis = None
        if keep_std:
            xp, _ = get_namespace(V=self._basis)
            dtype = xp.float64 if self.spectrum.eps == _EPS else xp.float32
            basis = Eigenbasis(xp.astype(self._basis, dtype))
        small = replace(self, spectrum=replace(self.spectrum, eigenbasis=basis))
        # Cached properties of a frozen dataclass live in its __dict__.
        small.__dict__.update(coef=self.coef, intercept=self.intercept)
        return small

    def mean(self, X: Any) -> Any:
        """Predictive mean, of shape (n, n_targets), float64."""
        xp, _ = get_namespace(X=X, coef_=self.coef)
        if not float(xp.max(xp.abs(self.coef))) < float(xp.finfo(X.dtype).max):
            # Weights of features that are denormal in float32 are out of its range.
            X = xp.astype(X, xp.float64, copy=False)
        coef = xp.astype(self.coef, X.dtype, copy=False)
        return xp.astype(X @ coef.T, xp.float64, copy=False) + self.intercept

    def variance(self, X: Any) -> Any:
        """Predictive variance 1/beta + f^T A^-1 f, of shape (n, n_targets)."""
        xp, _ = get_namespace(X=X, coef_=self.coef)
        alpha, beta = self.maximum.alpha, self.maximum.beta
        s = self.spectrum.eigenvalues[:, None]
        noise = 1 / beta
        if self.spectrum.feature_mean is not None:
            # The variance of the intercept is that of the mean of the noise.
            noise = noise * (1 + 1 / (self.spectrum.n_samples + 1))
        inverse = self.like_features(1 / (alpha + beta * s))
        parts = []
        for rows in chunks(X.shape[0]):
            squares, rest = self._rotated_squares(X[rows, :], xp)
            part = self.like_features(noise) + squares @ inverse
            parts.append(part + rest[:, None] * self.like_features(1 / alpha))
        return xp.concat(parts)

    def expected_error(self) -> np.ndarray:
        """Mean squared error to expect of new samples, one per target.

        This is generalised cross-validation: leave-one-out errors with the mean of all
        leverages in place of each.
        """
        spectrum, t = self.spectrum, self.maximum.t
        s, n = spectrum.eigenvalues[:, None], spectrum.n_samples
        n_all = n + (spectrum.feature_mean is not None)
        free = max(n - len(s), 0.0)
        # At t = 0 without a residual both shrinkages are divided by t.
        limit = (t == 0) & (free == 0)
        with np.errstate(invalid="ignore"):
            q = np.where(limit, 1 / s, t / (t + s))
        q[:, np.isinf(t)] = 1.0
        error = np.sum((spectrum.projections * q) ** 2, axis=0) + spectrum.residual
        return n_all * error / (free + np.sum(q, axis=0)) ** 2

    def rounding_error(self) -> float:
        """Expected error of LogME by the rounding of products, in nats.

        To first order it is tr(dL/dG dG) + tr(dL/dB dB), with independent errors of the
        sizes that `Spectrum` gives.
        """
        spectrum, maximum = self.spectrum, self.maximum
        lengths2, s = spectrum.squared_lengths, spectrum.eigenvalues
        settled = np.isfinite(maximum.beta) & np.isfinite(maximum.t)
        if lengths2 is None or not len(s) or not settled.any():
            return 0.0
        t, beta = maximum.t[settled], maximum.beta[settled]
        norms = np.sqrt(spectrum.target_norms[settled])
        eps = spectrum.eps

        def error(scaled2: np.ndarray, along: np.ndarray) -> float:
            misfit = beta * (2 * np.sqrt(scaled2) * norms + scaled2)
            spread = np.sqrt(np.sum((along / (s[:, None] + t)) ** 2, axis=0))
            total = misfit + spread
            return 0.5 * eps * float(np.mean(total)) / spectrum.n_samples

        shrunk = np.sqrt(s)[:, None] * spectrum.projections / (s[:, None] + maximum.t)
        weights2 = np.sum(shrunk[:, settled] ** 2, axis=0)
        bound = error(lengths2.max() * weights2, np.mean(lengths2))
        if bound < NEGLIGIBLE:
            return bound
        # A closer estimate for features of different scales.
        scaled2 = lengths2 @ to_numpy(self.coef).T[:, settled] ** 2
        return error(scaled2, (lengths2 @ to_numpy(spectrum.basis) ** 2)[:, None])

    def _rotated_squares(self, X: Any, xp: Any) -> tuple[Any, Any]:
        """(V^T f)^2 of every row, and the rest of ||f||^2."""
        basis, mean = self._basis, self.spectrum.feature_mean
        if mean is not None:
            X = X - xp.astype(mean, X.dtype)
        squares = (X @ xp.astype(basis, X.dtype, copy=False)) ** 2
        norms = xp.sum(X**2, axis=1)
        rest = norms - xp.sum(squares, axis=1)
        # A smaller difference is rounding.
        some = rest > 100 * float(xp.finfo(X.dtype).eps) * norms
        rest = xp.where(some, rest, xp.zeros_like(rest))
        return xp.astype(squares, xp.float64, copy=False), xp.astype(rest, xp.float64)

    def like_features(self, values: np.ndarray) -> Any:
        """Bring host values to the namespace and device of the features."""
        basis = self.spectrum.eigenbasis
        return beside(values, self.coef if basis is None else basis.example)
