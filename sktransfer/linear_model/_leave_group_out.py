"""What the model that is fitted to all other groups says of each sample.

A group g is left out by one system, (I - H_gg) e' = e_g, of its size or, where that is
larger, of the rank of the features. Here U has a column more for an intercept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sktransfer.linear_model._eigenbasis import RowEigenbasis
from sktransfer.linear_model._leave_one_out import (
    centred,
    check_finite,
    finite_beta,
    is_infinite,
    shrinkage,
)
from sktransfer.linear_model._posterior import Posterior
from sktransfer.linear_model._samples import Samples, take_rows
from sktransfer.linear_model._spectrum import LEFT_ROWS
from sktransfer.utils._array_api import chunks, from_numpy, to_numpy
from sktransfer.utils._validation import check_group_names

_EPS = float(np.finfo(np.float64).eps)


def encode_groups(groups: Any, samples: Samples) -> np.ndarray:
    """Number the groups, and refuse one that holds all samples of positive weight."""
    groups = to_numpy(groups)
    if groups.shape != (len(samples),):
        raise ValueError(
            f"groups must have the shape ({len(samples)},), one group for each sample; "
            f"got {groups.shape}."
        )
    names, codes = check_group_names(groups)
    seen = np.unique(codes[samples.positive])
    if len(seen) == 1:
        raise ValueError(
            "groups must hold at least 2 groups among samples of positive weight; all "
            f"of them are in group {names[seen[0]]!s}, so that none are left to "
            "predict it from."
        )
    return codes


def leave_group_out(
    samples: Samples, posterior: Posterior, codes: np.ndarray
) -> tuple[Any, Any, Any]:
    """Log density, prediction and slack of each sample given all other groups.

    The density, averaged over targets, is that of each sample alone. At most one copy
    of a weighted sample is left out.
    """
    xp = samples.xp
    problem = _LeaveGroupOut(samples, posterior)
    errors, variances, order = [], [], []
    largest = problem.n_directions
    if posterior.spectrum.interpolates:
        largest = len(samples)
    for rows, size in _blocks_of_groups(codes, largest):
        order.append(rows)
        small = size <= largest
        for part in problem.by_samples(rows, size) if small else problem.by_rank(rows):
            errors.append(part[0])
            variances.append(part[1])
    back = np.argsort(np.concatenate(order))
    error = take_rows(xp.concat(errors), back)
    variance = take_rows(xp.concat(variances), back)
    beta = posterior.like_features(finite_beta(posterior))
    density = xp.log(beta / (2 * np.pi * variance)) - beta * error**2 / variance
    density = 0.5 * xp.mean(density, axis=1)
    if samples.weights is not None:
        density = xp.where(samples.weights > 0, density, xp.zeros_like(density))
    if is_infinite(posterior, samples.weights, xp):
        density = density * np.nan
    return density, samples.columns - error, 1 / variance


def _blocks_of_groups(
    codes: np.ndarray, largest: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (rows, size): the samples of groups of one size.

    Several groups come at once, but for those of more than `largest` samples.
    """
    sizes = np.bincount(codes)
    order = np.lexsort((codes, sizes[codes]))
    start = 0
    for size, n_groups in zip(*np.unique(sizes, return_counts=True), strict=True):
        at_once = size * max(1, LEFT_ROWS // size if size <= largest else 1)
        for rows in chunks(size * n_groups, at_once):
            yield order[start:][rows], int(size)
        start += size * n_groups


@dataclass
class _LeaveGroupOut:
    samples: Samples
    posterior: Posterior

    def __post_init__(self):
        spectrum, xp = self.posterior.spectrum, self.samples.xp
        q, p = shrinkage(self.posterior, self.samples.weights, xp)
        # The errors as in `leave_one_out`, and fitted values of zero weight.
        z, like = spectrum.projections, self.posterior.like_features
        self.zq, self.zp, self.z = like(z * q), like(z * p), like(z)
        self.constant = None
        if spectrum.feature_mean is not None:
            self.constant = (spectrum.n_samples + 1) ** -0.5
            q = np.concatenate([q, np.zeros((1, q.shape[1]))])
            p = np.concatenate([p, np.ones((1, p.shape[1]))])
        self.q, self.p = like(q), like(p)
        self.n_directions = len(q)
        self.xp = xp

    @cached_property
    def _right(self) -> Any:
        """V / sqrt(s)."""
        spectrum = self.posterior.spectrum
        return spectrum.basis * self.posterior.like_features(
            1 / np.sqrt(spectrum.eigenvalues)
        )

    def _read(self, rows: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """U, the weight that is left out, 1 - it / weight, and the errors."""
        xp, spectrum = self.xp, self.posterior.spectrum
        part = self.samples[rows]
        _, U = next(iter(spectrum.left_blocks(self.samples.X, [rows])))
        U = xp.astype(U, xp.float64, copy=False)
        ones = xp.ones_like(self.samples.X[: len(rows), 0])
        ones = xp.astype(ones, xp.float64)
        w = ones if part.weights is None else part.weights
        some = w > 0
        all_some = bool(xp.all(some))
        if not all_some and isinstance(spectrum.eigenbasis, RowEigenbasis):
            X = xp.astype(part.X, xp.float64)
            if spectrum.feature_mean is not None:
                X = X - spectrum.feature_mean
            U = xp.where(some[:, None], U, X @ self._right)
        error = U @ self.zq
        if not spectrum.interpolates:
            y = centred(part.columns, self.posterior)
            error = error + y - U @ self.z
        elif not all_some:
            y = centred(part.columns, self.posterior)
            error = xp.where(some[:, None], error, y - U @ self.zp)
        left_out = xp.where(w < 1, w, ones)
        rest = ones - left_out / xp.where(some, w, ones)
        if self.constant is not None:
            U = xp.concat([U, self.constant * ones[:, None]], axis=1)
        return U, left_out, rest, error

    def _per_t(self, error: Any) -> Iterator[tuple[Any, Any, slice]]:
        """Each t, as (q, p, its targets)."""
        shared = self.q.shape[1] == 1
        for k in range(self.q.shape[1]):
            columns = slice(None) if shared else slice(k, k + 1)
            yield self.q[:, k], self.p[:, k], columns

    def by_samples(self, rows: np.ndarray, size: int) -> Iterator[tuple[Any, Any]]:
        """Errors and variances (in units of 1 / beta) of groups, by I - H_gg."""
        xp = self.xp
        U, left_out, rest, error = self._read(rows)
        shape = (len(rows) // size, size)
        n_targets = error.shape[1]
        U = xp.reshape(U, (*shape, self.n_directions))
        error = xp.reshape(error, (*shape, n_targets))
        o = xp.reshape(left_out, (*shape, 1))
        some = o > 0
        all_some = bool(xp.all(some))
        root = xp.sqrt(o)
        A = root * U
        outside = from_numpy(np.eye(size), xp, self.samples.device)
        if self.posterior.spectrum.interpolates:
            outside = xp.reshape(rest, (*shape, 1)) * outside
        else:
            outside = outside - A @ xp.matrix_transpose(A)
        safe = xp.where(some, o, xp.ones_like(o))
        errors, variances = [], []
        for q, p, columns in self._per_t(error):
            M = (A * q) @ xp.matrix_transpose(A) + outside
            values, vectors = _positive_eigh(M, xp)
            x = xp.matrix_transpose(vectors) @ (root * error[:, :, columns])
            x = vectors @ (x / values)
            if all_some:
                errors.append(x / root)
            else:
                shift = U @ (p[:, None] * (xp.matrix_transpose(A) @ x))
                others = error[:, :, columns] + shift
                errors.append(xp.where(some, x / xp.sqrt(safe), others))
            inverse = vectors**2 @ (1 / values)
            variances.append(xp.where(o == 1, inverse, 1 + (inverse - 1) / safe))
        yield tuple(
            xp.reshape(xp.concat(parts, axis=2), (len(rows), -1))
            for parts in (errors, variances)
        )

    def by_rank(self, rows: np.ndarray) -> Iterator[tuple[Any, Any]]:
        """The same of one large group, by a matrix of the size of the rank."""
        xp = self.xp
        parts = [rows[part] for part in chunks(len(rows), LEFT_ROWS)]
        G = moved = 0.0
        for part in parts:
            U, left_out, _, error = self._read(part)
            weighted = left_out[:, None] * U
            G = G + U.T @ weighted
            moved = moved + weighted.T @ error
        identity = from_numpy(np.eye(self.n_directions), xp, self.samples.device)
        inverses = []
        for q, p, columns in self._per_t(error):
            root = xp.sqrt(p)[:, None]
            C = root * (identity - G) * root.T + q[:, None] * identity
            values, vectors = _positive_eigh(C, xp)
            scaled = root * vectors
            shift = scaled @ ((scaled.T @ moved[:, columns]) / values)
            inverses.append((scaled, values, shift))
        for part in parts:
            U, _, _, error = self._read(part)
            shift = xp.concat([inverse[2] for inverse in inverses], axis=1)
            variances = [
                1 + (U @ scaled) ** 2 @ (1 / values) for scaled, values, _ in inverses
            ]
            yield error + U @ shift, xp.concat(variances, axis=1)


def _positive_eigh(matrix: Any, xp: Any) -> tuple[Any, Any]:
    """Eigenvalues, as a column, and eigenvectors; none is below rounding.

    Where it is zero, so is the error.
    """
    check_finite(matrix, xp)
    values, vectors = xp.linalg.eigh(matrix)
    floor = _EPS * values[..., -1:]
    return xp.where(values > floor, values, floor)[..., None], vectors
