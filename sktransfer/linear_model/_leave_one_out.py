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
from scipy.linalg import blas, cholesky, lapack

from sktransfer.linear_model._posterior import Posterior
from sktransfer.linear_model._samples import Samples
from sktransfer.linear_model._spectrum import LEFT_ROWS, Spectrum
from sktransfer.utils._array_api import chunks

_EPS = float(np.finfo(np.float64).eps)
# t of targets without noise where no limit exists, relative to the least eigenvalue.
_NEARLY_ZERO = 1e-12


def leave_one_out(
    samples: Samples, scored: Posterior | None, head: Posterior | None, gram: Any = None
) -> tuple[Any, Any, Any]:
    r"""Log density, prediction and slack of each sample given the others, in one pass.

    The density, (n_samples,), is under the posterior `scored`:

    psi_ik = 1/2 [log(beta_k (1 - h_ik) / 2 pi) - beta_k e_ik^2 / (1 - h_ik)],

    averaged over targets k, with e_ik the error and h_ik the leverage of sample i. As
    alpha, beta and the weights are stationary at the maximum of the evidence, this is
    the contribution of the sample to it. Both terms have limits as beta goes to
    infinity. It is zero for samples of zero weight, and NaN for infinite evidence.

    The prediction, (n_samples, n_targets), is that of `head`, and slack its 1 - h, with
    one column if all targets have one t. Either posterior may be None. `samples` are
    those of the fit, and at most one copy of a weighted sample is left out. `gram` is
    the Gram matrix of the spectrum, if there is one.
    """
    if scored is head is None:
        return None, None, None
    posteriors = [p for p in (scored, head if head is not scored else None) if p]
    xp, weights = samples.xp, samples.weights
    if scored is None and _whitens(head, gram):
        blocks = _whitened_blocks(samples, head, gram)
    else:
        blocks = _error_blocks(samples, posteriors)
    densities, predictions, slacks = [], [], []
    for rows, left_out, y, found in blocks:
        if scored is not None:
            beta = scored.like_features(finite_beta(scored))
            densities.append(_log_density(beta, *found[0], left_out, xp))
        if head is None:
            continue
        slack, error = found[-1]
        if not isinstance(left_out, float):
            some = (left_out > 0)[:, None]
            slack = xp.where(some, slack, xp.ones_like(slack))
        part = y - error / slack
        if not isinstance(left_out, float) and not bool(xp.all(some)):
            part = xp.where(some, part, head.mean(samples.X[rows, :]))
        predictions.append(part)
        slacks.append(slack)
    density = xp.concat(densities) if densities else None
    if density is not None and is_infinite(scored, weights, xp):
        density = density * np.nan
    if head is None:
        return density, None, None
    prediction = xp.concat(predictions)
    check_finite(prediction, xp)
    return density, prediction, xp.concat(slacks)


def check_finite(values: Any, xp: Any) -> None:
    """Refuse samples that cannot be those of the statistics."""
    if not bool(xp.all(xp.isfinite(values))):
        raise ValueError(
            "X must hold the samples of the statistics, which are finite; leaving out "
            "samples of this X gives NaN or infinity."
        )


def _error_blocks(samples: Samples, posteriors: list[Posterior]) -> Iterator[tuple]:
    """Yield (rows, left_out, y, [(slack, error) of each posterior]), block by block.

    `left_out` is the weight that is left out, slack is 1 - left_out * leverage. At
    t = 0 both slack and error are divided by t.
    """
    xp, weights, spectrum = samples.xp, samples.weights, posteriors[0].spectrum
    # Where the features span all samples the error is U z q, else it is y - U z p.
    inside = spectrum.interpolates
    shrunk = [shrinkage(posterior, weights, xp) for posterior in posteriors]
    moved = [spectrum.projections * (q if inside else p) for q, p in shrunk]
    like = posteriors[0].like_features
    Q = like(np.hstack([q for q, _ in shrunk] + [np.ones_like(shrunk[0][0][:, :1])]))
    moved, free = like(np.hstack(moved)), _free_of_intercept(spectrum)
    for rows, U in spectrum.left_blocks(samples.X):
        w, left_out = _left_out(weights, rows, xp)
        y = samples[rows].columns
        leverages = xp.astype(U**2 @ xp.astype(Q, U.dtype, copy=False), xp.float64)
        products = xp.astype(U @ xp.astype(moved, U.dtype, copy=False), xp.float64)
        outside = None
        if not inside:
            # The parts of sample and target that the features do not span.
            outside = 1.0 - left_out * (1.0 - free + leverages[:, -1])
            outside = xp.where(outside > 0, outside, 0.0 * outside)[:, None]
        elif w is not None:
            # The features span the sample; the error is that of its other copies.
            copies = xp.where(w > 1, w, xp.ones_like(w))
            outside = (1 - 1 / copies)[:, None]
        found, start = [], 0
        for i, (q, _) in enumerate(shrunk):
            slack = leverages[:, start : start + q.shape[1]]
            start += q.shape[1]
            if w is not None:
                slack = slack * left_out[:, None]
            if outside is not None:
                slack = slack + outside
            if not inside:
                # At a leverage of one the error is zero.
                slack = xp.where(slack > _EPS, slack, _EPS + 0.0 * slack)
            error = products[:, i * y.shape[1] : (i + 1) * y.shape[1]]
            if not inside:
                error = centred(y, posteriors[0]) - error
            found.append((slack, error))
        yield rows, left_out, y, found


def _whitens(posterior: Posterior, gram: Any) -> bool:
    """Whether leverages follow from a Cholesky factor of the Gram matrix.

    It needs NumPy's arrays, one t, and no directions that were dropped.
    """
    t, rank = posterior.maximum.t, len(posterior.spectrum.eigenvalues)
    return (
        isinstance(gram, np.ndarray)
        and posterior.maximum.shared
        and bool(0 < t[0] < np.inf)
        and len(gram) == rank
        and not posterior.spectrum.interpolates
    )


def _whitened_blocks(samples: Samples, head: Posterior, gram: Any) -> Iterator[tuple]:
    """The same as `_error_blocks`, of one posterior, by half of the multiplications.

    With L L^T = G + t I the leverage is ||L^-1 f||^2.
    """
    spectrum = head.spectrum
    L = cholesky(gram + head.maximum.t[0] * np.eye(len(gram)), lower=True)
    inverse, _ = lapack.dtrtri(L, lower=1)
    mean, rest, dtype = spectrum.mean_for(samples.X)
    free = _free_of_intercept(spectrum)
    right, coef = inverse.astype(dtype), head.coef.T.astype(dtype)
    triangular = blas.strmm if dtype == np.float32 else blas.dtrmm
    buffer = np.empty((min(LEFT_ROWS, len(samples)), len(gram)), dtype)
    for rows in chunks(len(samples), LEFT_ROWS):
        _, left_out = _left_out(samples.weights, rows, samples.xp)
        y = samples[rows].columns
        part = buffer[: len(y)]
        np.subtract(samples.X[rows], 0 if mean is None else mean, out=part)
        fitted = part @ coef
        whitened = triangular(1.0, right, part.T, lower=1, overwrite_b=1).T
        if rest is not None:
            fitted -= (rest @ head.coef.T).astype(dtype)
            whitened -= (inverse @ rest).astype(dtype)
        leverage = np.einsum("ij,ij->i", whitened, whitened).astype(np.float64)
        slack = np.maximum(1.0 - left_out * (1.0 - free + leverage), _EPS)
        yield rows, left_out, y, [(slack[:, None], centred(y, head) - fitted)]


def _free_of_intercept(spectrum: Spectrum) -> float:
    """1 - leverage of the intercept."""
    return (
        1.0 if spectrum.feature_mean is None else 1.0 - 1.0 / (spectrum.n_samples + 1)
    )


def _left_out(weights: Any, rows: slice, xp: Any) -> tuple[Any, Any]:
    """Weights of rows, and what is left out of each: at most one copy."""
    if weights is None:
        return None, 1.0
    w = weights[rows]
    return w, xp.where(w < 1, w, xp.ones_like(w))


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


def centred(y: Any, posterior: Posterior) -> Any:
    """Targets less their means, if the spectrum is about the means."""
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
