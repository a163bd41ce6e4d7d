"""The posterior of the weights at the maximum of the evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sktransfer.linear_model._eigenbasis import RowEigenbasis
from sktransfer.linear_model._evidence import EvidenceMaximum
from sktransfer.linear_model._spectrum import Spectrum
from sktransfer.utils._array_api import (
    chunks,
    device,
    from_numpy,
    get_namespace,
    to_numpy,
)

_EPS = float(np.finfo(np.float64).eps)
# An error of LogME that is of no concern, in nats.
NEGLIGIBLE = 1e-5
# Samples whose errors are in memory at once, for every target.
_ROWS = 4096


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

    def rounding_error(self) -> float:
        """Error of LogME to be expected from the rounding of products, in nats.

        To first order the evidence moves by tr(dL/dG dG) + tr(dL/dB dB), with errors of
        independent signs whose sizes are those that `Spectrum` states.
        """
        spectrum, maximum = self.spectrum, self.maximum
        lengths2, s = spectrum.lengths2, spectrum.eigenvalues
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
        # Features of their own scales: the largest err in directions of their own.
        scaled2 = lengths2 @ to_numpy(self.coef).T[:, settled] ** 2
        return error(scaled2, (lengths2 @ to_numpy(spectrum.basis) ** 2)[:, None])

    def influence(self, X: Any, targets: Any, weights: Any = None) -> Any:
        r"""Log density of each sample given the others, at alpha and beta as they are.

        psi_ik = 1/2 [log(beta_k (1 - h_ik) / 2 pi) - beta_k e_ik^2 / (1 - h_ik)] with
        e_ik the error and h_ik the leverage of sample i, averaged over targets k.
        alpha, beta and the weights are stationary, so it is what the sample adds to the
        log evidence. Both terms keep their limits as beta goes to infinity.

        Parameters
        ----------
        X : array of shape (n, n_features)
            The samples of the fit, in their order.
        targets : callable
            Slice of rows -> their targets, of shape (m, n_targets), float64.
        weights : array of shape (n,), float64, optional
            Those of the fit. Of a sample that stands for several one copy is left out.

        Returns
        -------
        array of shape (n,)
            In nats. NaN where the evidence is infinite; zero for samples of no weight.
        """
        xp, _ = get_namespace(X=X)
        spectrum, maximum = self.spectrum, self.maximum
        noiseless = np.isinf(maximum.beta)
        lost = np.isposinf(maximum.log_evidence).any()
        if weights is not None and noiseless.any():
            # Without noise one of several copies is predicted by the rest, exactly.
            lost |= bool(xp.any((weights != 0) & (weights != 1)))
        s = spectrum.eigenvalues[:, None]
        z = spectrum.projections
        # q = t / (t + s); where t = 0 it is taken in units of t, and beta with it.
        with np.errstate(invalid="ignore"):
            q = np.where(noiseless, 1 / s, maximum.t / (maximum.t + s))
        q[:, np.isinf(maximum.t)] = 1.0
        beta = np.where(noiseless, maximum.alpha, maximum.beta)
        dtype = xp.float64 if spectrum.eps == _EPS else X.dtype
        basis = self._left_basis(dtype)
        q_, zq, z_ = (xp.astype(self.like_features(a), dtype) for a in (q, z * q, z))
        beta = self.like_features(beta)
        total = spectrum.n_samples + (spectrum.feature_mean is not None)
        free = 1.0 if spectrum.feature_mean is None else 1.0 - 1.0 / total
        parts = []
        for rows in chunks(X.shape[0], _ROWS):
            U = self._left(X, rows, dtype, basis)
            squares = U**2
            w = None if weights is None else weights[rows]
            # At most one copy is left out.
            left_out = 1.0 if w is None else xp.where(w < 1, w, xp.ones_like(w))
            slack = xp.astype(squares @ q_, xp.float64)
            if w is not None:
                slack = slack * left_out[:, None]
            error = xp.astype(U @ zq, xp.float64)
            if not spectrum.complete:
                # What the features cannot reach of the sample, and of its target.
                reached = xp.astype(xp.sum(squares, axis=1), xp.float64)
                outside = 1.0 - left_out * (1.0 - free + reached)
                slack = slack + xp.where(outside > 0, outside, 0.0 * outside)[:, None]
                # A leverage of one leaves nothing to err.
                slack = xp.where(slack > _EPS, slack, _EPS + 0.0 * slack)
                y = targets(rows)
                if spectrum.target_mean is not None:
                    y = y - self.like_features(spectrum.target_mean)
                error = error + y - xp.astype(U @ z_, xp.float64)
            elif w is not None:
                # The features reach all of a sample; what errs is its other copies.
                copies = xp.where(w > 1, w, xp.ones_like(w))
                slack = slack + (1 - 1 / copies)[:, None]
            parts.append(_log_density(beta, slack, error, left_out, xp))
        psi = xp.concat(parts)
        return psi * np.nan if lost else psi

    def _left_basis(self, dtype: Any) -> Any:
        """V S^-1, with which rows become left singular vectors; None with few rows."""
        basis = self.spectrum.eigenbasis
        if isinstance(basis, RowEigenbasis):
            return None
        xp, where = get_namespace(V=basis.vectors)
        scale = from_numpy(1 / np.sqrt(self.spectrum.eigenvalues), xp, where)
        return xp.astype(basis.vectors * scale, dtype, copy=False)

    def _left(self, X: Any, rows: slice, dtype: Any, basis: Any) -> Any:
        """Rows of U, of samples with weight one."""
        spectrum = self.spectrum
        xp, _ = get_namespace(X=X)
        if basis is None:
            known = spectrum.eigenbasis
            U = known.left.vectors[rows, :]
            if known.root_weights is None:
                return U
            root = known.root_weights[rows, None]
            return U / xp.where(root > 0, root, xp.ones_like(root))
        part = xp.astype(X[rows, :], dtype, copy=False)
        if spectrum.feature_mean is not None:
            part = part - xp.astype(spectrum.feature_mean, dtype)
        return part @ basis

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


def _log_density(beta: Any, slack: Any, error: Any, left_out: Any, xp: Any) -> Any:
    """1/2 [log(beta / 2 pi) + log(1 - w h) / w - beta e^2 / (1 - w h)].

    Mean over targets; w is the weight that is left out, at most one copy.
    """
    if isinstance(left_out, float):
        density = xp.log(beta * slack / (2 * np.pi)) - beta * error**2 / slack
        return 0.5 * xp.mean(density, axis=1)
    some = (left_out > 0)[:, None]
    w = xp.where(some, left_out[:, None], 1.0 + 0.0 * slack)
    slack = xp.where(some, slack, 1.0 + 0.0 * slack)
    density = xp.log(beta / (2 * np.pi)) + xp.log(slack) / w - beta * error**2 / slack
    return 0.5 * xp.mean(xp.where(some, density, 0.0 * density), axis=1)
