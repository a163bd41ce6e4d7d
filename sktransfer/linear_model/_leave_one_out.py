"""What the model that is fitted to all other samples says of each sample.

With e the errors of the fit and H the matrix that takes targets to fitted values, the
errors of left-out samples g are (I - H_gg)^-1 e_g, at fixed t = alpha / beta. Both e
and I - H vanish as t -> 0 where the features reproduce any target, so they are formed
without subtraction from U diag(t / (t + s)) U^T and what U does not span.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sktransfer.linear_model._posterior import Posterior
from sktransfer.linear_model._samples import Samples

_EPS = float(np.finfo(np.float64).eps)
# t of targets without noise where no limit exists, relative to the least eigenvalue.
_NEARLY_ZERO = 1e-12


def leave_one_out(
    samples: Samples, scored: Posterior | None, head: Posterior | None
) -> tuple[Any, Any]:
    r"""Log density and prediction of each sample given the others, in one pass.

    The density, (n_samples,), is under the posterior `scored`:

    psi_ik = 1/2 [log(beta_k (1 - h_ik) / 2 pi) - beta_k e_ik^2 / (1 - h_ik)],

    averaged over targets k, with e_ik the error and h_ik the leverage of sample i. As
    alpha, beta and the weights are stationary at the maximum of the evidence, this is
    the contribution of the sample to it. Both terms have limits as beta goes to
    infinity. It is zero for samples of zero weight, and NaN for infinite evidence.

    The prediction, (n_samples, n_targets), is that of `head`. Either posterior may be
    None. `samples` are those of the fit, and at most one copy of a weighted sample is
    left out.
    """
    if scored is head is None:
        return None, None
    posteriors = [p for p in (scored, head if head is not scored else None) if p]
    xp, weights = samples.xp, samples.weights
    densities, predictions = [], []
    for rows, left_out, found in _error_blocks(samples, posteriors):
        if scored is not None:
            beta = scored.like_features(finite_beta(scored))
            densities.append(_log_density(beta, *found[0], left_out, xp))
        if head is None:
            continue
        slack, error = found[-1]
        if isinstance(left_out, float):
            predictions.append(samples[rows].columns - error / slack)
            continue
        some = (left_out > 0)[:, None]
        slack = xp.where(some, slack, xp.ones_like(slack))
        part = samples[rows].columns - error / slack
        if not bool(xp.all(some)):
            part = xp.where(some, part, head.mean(samples.X[rows, :]))
        predictions.append(part)
    density = xp.concat(densities) if densities else None
    if density is not None and is_infinite(scored, weights, xp):
        density = density * np.nan
    return density, xp.concat(predictions) if predictions else None


def _error_blocks(samples: Samples, posteriors: list[Posterior]) -> Iterator[tuple]:
    """Yield (rows, left_out, [(slack, error) of each posterior]), block by block.

    `left_out` is the weight that is left out, slack is 1 - left_out * leverage. At
    t = 0 both slack and error are divided by t.
    """
    xp, weights, spectrum = samples.xp, samples.weights, posteriors[0].spectrum
    like = posteriors[0].like_features
    z = spectrum.projections
    factors = []
    for posterior in posteriors:
        q, _ = shrinkage(posterior, weights, xp)
        factors.append((like(q), like(z * q)))
    z = like(z)
    total = spectrum.n_samples + (spectrum.feature_mean is not None)
    # 1 - leverage of the intercept.
    free = 1.0 if spectrum.feature_mean is None else 1.0 - 1.0 / total
    for rows, U in spectrum.left_blocks(samples.X):
        squares = U**2
        w = None if weights is None else weights[rows]
        # At most one copy is left out.
        left_out = 1.0 if w is None else xp.where(w < 1, w, xp.ones_like(w))
        outside = None
        if not spectrum.interpolates:
            # The parts of sample and target that the features do not span.
            spanned = xp.astype(xp.sum(squares, axis=1), xp.float64)
            outside = 1.0 - left_out * (1.0 - free + spanned)
            outside = xp.where(outside > 0, outside, 0.0 * outside)[:, None]
            y = centred_columns(samples[rows], posteriors[0])
            fitted = xp.astype(U @ xp.astype(z, U.dtype, copy=False), xp.float64)
        elif w is not None:
            # The features span the sample; the error is that of its other copies.
            copies = xp.where(w > 1, w, xp.ones_like(w))
            outside = (1 - 1 / copies)[:, None]
        found = []
        for pair in factors:
            q, zq = (xp.astype(factor, U.dtype, copy=False) for factor in pair)
            slack = xp.astype(squares @ q, xp.float64)
            if w is not None:
                slack = slack * left_out[:, None]
            error = xp.astype(U @ zq, xp.float64)
            if outside is not None:
                slack = slack + outside
            if not spectrum.interpolates:
                # At a leverage of one the error is zero.
                slack = xp.where(slack > _EPS, slack, _EPS + 0.0 * slack)
                error = error + y - fitted
            found.append((slack, error))
        yield rows, left_out, found


def shrinkage(
    posterior: Posterior, weights: Any, xp: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Shrinkage q = t / (t + s), and 1 - q, (rank, n_targets), or (rank, 1) for one t.

    At t = 0 q is divided by t.
    """
    spectrum, maximum = posterior.spectrum, posterior.maximum
    s = spectrum.eigenvalues[:, None]
    t, noiseless = maximum.t, np.isinf(maximum.beta)
    if maximum.shared:
        t, noiseless = t[:1], t[:1] == 0
    if noiseless.any() and not (
        spectrum.interpolates and not _has_parts_or_copies(weights, xp)
    ):
        # Other samples determine a sample: there is nothing to take a limit of.
        t = np.where(noiseless, _NEARLY_ZERO * s[-1], t)
        noiseless = np.zeros_like(noiseless)
    with np.errstate(invalid="ignore"):
        q = np.where(noiseless, 1 / s, t / (t + s))
        p = np.where(noiseless, 1.0, s / (t + s))
    q[:, np.isinf(t)] = 1.0
    return q, p


def _has_parts_or_copies(weights: Any, xp: Any) -> bool:
    """Whether some weights are neither zero nor one."""
    return weights is not None and bool(xp.any((weights != 0) & (weights != 1)))


def is_infinite(posterior: Posterior, weights: Any, xp: Any) -> bool:
    """Whether the evidence, or the density of a left-out sample, is infinite."""
    noiseless = np.isinf(posterior.maximum.beta)
    lost = bool(np.isposinf(posterior.maximum.log_evidence).any())
    # Without noise a copy of a sample predicts it exactly.
    return lost or (bool(noiseless.any()) and _has_parts_or_copies(weights, xp))


def finite_beta(posterior: Posterior) -> np.ndarray:
    """Beta, or its product with t where it is infinite."""
    maximum = posterior.maximum
    return np.where(np.isinf(maximum.beta), maximum.alpha, maximum.beta)


def centred_columns(samples: Samples, posterior: Posterior) -> Any:
    y = samples.columns
    if posterior.spectrum.target_mean is None:
        return y
    return y - posterior.like_features(posterior.spectrum.target_mean)


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
