"""The posterior of the weights at the maximum of the evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sktransfer.linear_model._eigenbasis import Eigenbasis
from sktransfer.linear_model._evidence import EvidenceMaximum
from sktransfer.linear_model._samples import Samples
from sktransfer.linear_model._spectrum import Spectrum
from sktransfer.utils._array_api import beside, chunks, get_namespace, to_numpy

_EPS = float(np.finfo(np.float64).eps)
# An error of LogME that is of no concern, in nats.
NEGLIGIBLE = 1e-5


def standard_error(
    influence: np.ndarray, sample_weight: np.ndarray | None = None
) -> float | np.ndarray:
    """Jackknife standard error of a mean over samples, std(psi) / sqrt(n).

    Parameters
    ----------
    influence : ndarray of shape (n_samples,) or (n_scores, n_samples)
        psi, the contribution of each sample to a score, or to the difference of two
        scores of the same samples.
    sample_weight : ndarray of shape (n_samples,), optional

    Returns
    -------
    float or ndarray of shape (n_scores,)
        In the unit of `influence`; NaN if any influence is.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.linear_model import standard_error
    >>> standard_error(np.array([1.0, -1.0, 1.0, -1.0]))
    0.5
    """
    n_samples = influence.shape[-1]
    weights = np.ones(n_samples) if sample_weight is None else sample_weight
    total = weights.sum()
    centred = influence - (influence @ weights / total)[..., None]
    std_error = np.sqrt(centred**2 @ weights) / total
    return float(std_error) if influence.ndim == 1 else std_error


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

    def influence(self, samples: Samples) -> Any:
        r"""Log density of each sample given the others, at fixed alpha and beta.

        psi_ik = 1/2 [log(beta_k (1 - h_ik) / 2 pi) - beta_k e_ik^2 / (1 - h_ik)],
        averaged over targets k, with e_ik the error and h_ik the leverage of sample i.
        As alpha, beta and the weights are stationary, this is the contribution of the
        sample to the log evidence. Both terms have limits as beta goes to infinity.

        `samples` are those of the fit. At most one copy of a weighted sample is left
        out. Samples of zero weight have a psi of zero; it is NaN for infinite evidence.
        """
        xp, weights = samples.xp, samples.weights
        spectrum, maximum = self.spectrum, self.maximum
        noiseless = np.isinf(maximum.beta)
        lost = np.isposinf(maximum.log_evidence).any()
        if weights is not None and noiseless.any():
            # Without noise a copy of a sample predicts it exactly.
            lost |= bool(xp.any((weights != 0) & (weights != 1)))
        s = spectrum.eigenvalues[:, None]
        z = spectrum.projections
        # Shrinkage q = t / (t + s); at t = 0 q is divided by t, and beta multiplied.
        with np.errstate(invalid="ignore"):
            q = np.where(noiseless, 1 / s, maximum.t / (maximum.t + s))
        q[:, np.isinf(maximum.t)] = 1.0
        factors = [self.like_features(factor) for factor in (q, z * q, z)]
        beta = np.where(noiseless, maximum.alpha, maximum.beta)
        beta = self.like_features(beta)
        total = spectrum.n_samples + (spectrum.feature_mean is not None)
        # 1 - leverage of the intercept.
        free = 1.0 if spectrum.feature_mean is None else 1.0 - 1.0 / total
        parts = []
        for rows, U in spectrum.left_blocks(samples.X):
            q, zq, z = (xp.astype(factor, U.dtype, copy=False) for factor in factors)
            squares = U**2
            w = None if weights is None else weights[rows]
            # At most one copy is left out.
            left_out = 1.0 if w is None else xp.where(w < 1, w, xp.ones_like(w))
            slack = xp.astype(squares @ q, xp.float64)  # becomes 1 - leverage
            if w is not None:
                slack = slack * left_out[:, None]
            error = xp.astype(U @ zq, xp.float64)
            if not spectrum.interpolates:
                # The parts of sample and target that the features do not span.
                spanned = xp.astype(xp.sum(squares, axis=1), xp.float64)
                outside = 1.0 - left_out * (1.0 - free + spanned)
                slack = slack + xp.where(outside > 0, outside, 0.0 * outside)[:, None]
                # At a leverage of one the error is zero.
                slack = xp.where(slack > _EPS, slack, _EPS + 0.0 * slack)
                y = samples[rows].columns
                if spectrum.target_mean is not None:
                    y = y - self.like_features(spectrum.target_mean)
                error = error + y - xp.astype(U @ z, xp.float64)
            elif w is not None:
                # The features span the sample; the error is that of its other copies.
                copies = xp.where(w > 1, w, xp.ones_like(w))
                slack = slack + (1 - 1 / copies)[:, None]
            parts.append(_log_density(beta, slack, error, left_out, xp))
        psi = xp.concat(parts)
        return psi * np.nan if lost else psi

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


def _log_density(beta: Any, slack: Any, error: Any, left_out: Any, xp: Any) -> Any:
    """Mean over targets of 1/2 [log(beta / 2 pi) + log(slack) / w - beta e^2 / slack].

    w is the weight that is left out, and slack is 1 - w h.
    """
    if isinstance(left_out, float):
        density = xp.log(beta * slack / (2 * np.pi)) - beta * error**2 / slack
        return 0.5 * xp.mean(density, axis=1)
    some = (left_out > 0)[:, None]
    w = xp.where(some, left_out[:, None], 1.0 + 0.0 * slack)
    slack = xp.where(some, slack, 1.0 + 0.0 * slack)
    density = xp.log(beta / (2 * np.pi)) + xp.log(slack) / w - beta * error**2 / slack
    return 0.5 * xp.mean(xp.where(some, density, 0.0 * density), axis=1)
