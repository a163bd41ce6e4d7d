"""The posterior of the weights at the maximum of the evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sktransfer.linear_model._evidence import EvidenceMaximum
from sktransfer.linear_model._statistics import Spectrum
from sktransfer.utils._array_api import chunks, device, from_numpy, get_namespace


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
            return self.like_features(np.zeros(len(self.maximum.t)))
        shift = self.coef @ self.spectrum.feature_mean
        return self.like_features(self.spectrum.target_mean) - shift

    def compact(self) -> Posterior:
        """The same posterior without what only its variance needs."""
        small = replace(self, spectrum=replace(self.spectrum, eigenbasis=None))
        # Cached properties of a frozen dataclass live in its __dict__.
        small.__dict__.update(coef=self.coef, intercept=self.intercept)
        return small

    def mean(self, X: Any) -> Any:
        """Predictive mean, of shape (n, n_targets), float64."""
        xp, _ = get_namespace(X=X, coef_=self.coef)
        coef = xp.astype(self.coef, X.dtype, copy=False)
        return xp.astype(X @ coef.T, xp.float64, copy=False) + self.intercept

    def variance(self, X: Any) -> Any:
        """Predictive variance 1/beta + f^T A^-1 f, of shape (n, n_targets)."""
        xp, _ = get_namespace(X=X, coef_=self.coef)
        alpha, beta = self.maximum.alpha, self.maximum.beta
        s = self.spectrum.eigenvalues[:, None]
        noise = 1 / beta
        if self.spectrum.feature_mean is not None:
            # The intercept is as uncertain as the mean of the contrasts' noise.
            noise = noise * (1 + 1 / (self.spectrum.n_samples + 1))
        inverse = self.like_features(1 / (alpha + beta * s))
        parts = []
        for rows in chunks(X.shape[0]):
            squares, rest = self._rotated_squares(X[rows, :], xp)
            part = self.like_features(noise) + squares @ inverse
            parts.append(part + rest[:, None] * self.like_features(1 / alpha))
        return xp.concat(parts)

    def influence(self, X: Any, targets: Any) -> Any:
        r"""Derivative of the log evidence with respect to each sample's weight.

        psi_ik = 1/2 [log(beta_k / 2 pi) - beta_k (y_ik - f_i^T m_k)^2 - h_ik],
        h_ik = sum_j (V^T f_i)_j^2 / (t_k + s_j), averaged over targets k: alpha, beta
        and m are stationary, so only the explicit dependence is left.

        Parameters
        ----------
        X : array of shape (n, n_features)
            The samples of the fit.
        targets : callable
            Slice of rows -> their targets, of shape (m, n_targets), float64.

        Returns
        -------
        array of shape (n,)
            In nats. NaN where the evidence is that of a model without noise.
        """
        xp, _ = get_namespace(X=X)
        beta, t = self.maximum.beta, self.maximum.t
        s = self.spectrum.eigenvalues[:, None]
        # The mean over targets goes into the weights: one product less by K.
        inverse = self.like_features(np.mean(1 / (t + s), axis=1))
        beta = np.where(np.isinf(beta), np.nan, beta)
        constant = float(np.mean(np.log(beta / (2 * np.pi))))
        parts = []
        for rows in chunks(X.shape[0]):
            squares, _ = self._rotated_squares(X[rows, :], xp)
            error = targets(rows) - self.mean(X[rows, :])
            misfit = xp.mean(self.like_features(beta) * error**2, axis=1)
            parts.append(0.5 * (constant - misfit - squares @ inverse))
        return xp.concat(parts)

    def _rotated_squares(self, X: Any, xp: Any) -> tuple[Any, Any]:
        """(V^T f)^2 of every row, and what is left of ||f||^2."""
        spectrum = self.spectrum
        if spectrum.eigenbasis is None:
            raise ValueError(
                "This model keeps predictive means only; fit a LogME on the features "
                "to have standard deviations."
            )
        if spectrum.feature_mean is not None:
            X = X - xp.astype(spectrum.feature_mean, X.dtype)
        squares = (X @ xp.astype(spectrum.basis, X.dtype, copy=False)) ** 2
        norms = xp.sum(X**2, axis=1)
        rest = norms - xp.sum(squares, axis=1)
        # A difference of this size is rounding, not a part outside the span.
        some = rest > 100 * float(xp.finfo(X.dtype).eps) * norms
        rest = xp.where(some, rest, xp.zeros_like(rest))
        return xp.astype(squares, xp.float64, copy=False), xp.astype(rest, xp.float64)

    def like_features(self, values: np.ndarray) -> Any:
        """Bring host values to the namespace and device of the features."""
        basis = self.spectrum.eigenbasis
        like = self.coef if basis is None else basis.example
        xp, _ = get_namespace(like=like)
        return from_numpy(values, xp, device(like))
