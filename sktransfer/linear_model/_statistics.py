"""Sufficient statistics of features and targets.

LogME, the H-score and the log-determinants of class means depend on the samples only
through sums over them, which can be streamed, merged and sent to other processes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from sktransfer.linear_model._moments import Moments, moments_of, plus
from sktransfer.linear_model._samples import Samples
from sktransfer.linear_model._spectrum import (
    Spectrum,
    spectrum_of_moments,
    spectrum_of_rows,
)
from sktransfer.utils._array_api import get_namespace, to_numpy
from sktransfer.utils._validation import check_weights

# Samples per feature up to which products are taken in float64: there the Gram matrix
# is worst conditioned, and its product costs less than its eigenvalues.
_FEW = 4


class SufficientStatistics:
    """Additive statistics of features F and targets Y.

    These are n, G = F^T F, B = F^T Y, ||y_k||^2, and the sums of features and targets.
    As long as there are fewer samples than features, the rows are kept instead of G:
    they are smaller, and their n x n Gram matrix has the same spectrum.

    Parameters
    ----------
    n_features : int
    n_classes : int, optional
        Number of classes if the targets are class codes in ``range(n_classes)``, in
        place of their one-hot columns; None for numeric targets.

    Attributes
    ----------
    n_rows : int
        Number of rows seen.
    n_samples : float
        Their total weight.
    gram : array of shape (n_features, n_features), float64
        G.
    cross : array of shape (n_features, n_targets), float64
        B; for class codes the sums of the features of every class.
    feature_mean : array of shape (n_features,), float64
    target_sums, target_norms : ndarray of shape (n_targets,)
        Sum and sum of squares of every target.

    Notes
    -----
    Sums are taken about an origin. It is the mean of the first samples for features and
    targets whose mean is more than two standard deviations from zero, and zero for the
    others. Merging moves sums to a common origin. Products are taken in the dtype of
    the features (in float64 up to four samples per feature) and accumulated in float64.
    An entry of G then has an error of a few eps of that dtype relative to the diagonal
    entries of its row and column, whatever the scales and offsets of the features.
    Directions within this error count as absent: with features scaled to unit length,
    those of eigenvalues below 8 sqrt(n_features) eps.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.linear_model import SufficientStatistics
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(60, 5)), rng.integers(3, size=60)
    >>> whole = SufficientStatistics(5, n_classes=3).update(X, y)
    >>> halves = [SufficientStatistics(5, n_classes=3) for _ in range(2)]
    >>> merged = halves[0].update(X[:20], y[:20]) + halves[1].update(X[20:], y[20:])
    >>> bool(np.allclose(merged.gram, whole.gram))
    True
    """

    def __init__(self, n_features: int, *, n_classes: int | None = None):
        self.n_features = n_features
        self.n_classes = n_classes
        self.n_rows = 0
        # Rows of positive weight.
        self._n_weighted = 0
        self._moments: Moments | None = None
        # Minima of the targets and of their negatives.
        self._extremes: np.ndarray | None = None
        self._rows: list[Samples] = []
        self._double = False
        # Relative error of the least precise product so far.
        self._eps = float(np.finfo(np.float64).eps)

    def update(self, X: Any, y: Any, sample_weight: Any = None) -> SufficientStatistics:
        """Add samples.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Finite features, float32 or float64.
        y : array of shape (n,) or (n, n_targets)
            Class codes, integers in ``range(n_classes)``, if the statistics have
            `n_classes`, else numbers.
        sample_weight : array of shape (n,), optional
            Non-negative weights; an integer weight counts as that many copies.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the arrays do not have these shapes, dtypes and values, or if the squares
            of the features overflow float64.
        """
        xp, where = get_namespace(X=X)
        y = self._check(X, y, xp, where)
        weights = check_weights(sample_weight, X, allow_all_zero=True)
        return self.add(Samples(X, y, self.n_classes, weights))

    def add(self, samples: Samples) -> SufficientStatistics:
        """Add checked samples; see :meth:`update`. All of them, or none."""
        get_namespace(X=samples.X, **{"earlier X": self._example})
        before = dict(vars(self))
        try:
            return self._take(samples)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _take(self, samples: Samples) -> SufficientStatistics:
        """Keep rows as long as they are few, then their Gram matrix."""
        n_rows = self.n_rows + len(samples)
        if self._moments is None or self._moments.gram is None:
            if n_rows < self.n_features:
                self._add(samples, keep=True)
                # The caller may reuse its buffers.
                self._rows.append(samples.copy())
                return self
            # From now on the Gram matrix is smaller than the rows.
            rows, self._rows, self._moments = self._rows, [], None
            self.n_rows = self._n_weighted = 0
            for kept in rows:
                self._add(kept)
        self._add(samples)
        return self

    @property
    def _example(self) -> Any:
        """Some array of the namespace and device of the features, if any was seen."""
        return None if self._moments is None else self._moments.origin

    def _check(self, X: Any, y: Any, xp: Any, where: Any) -> Any:
        """Validate features and targets; return the latter as columns or codes."""
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(
                f"X must have the shape (n_samples, {self.n_features}); got "
                f"{tuple(X.shape)}."
            )
        if X.dtype not in (xp.float32, xp.float64):
            raise ValueError(f"X must be float32 or float64; got {X.dtype}.")
        host = to_numpy(y)
        if host.shape[:1] != X.shape[:1]:
            raise ValueError(
                f"X and y must have the same number of samples; got {X.shape[0]} and "
                f"{host.shape[0] if host.ndim else 'a single number'}."
            )
        if self.n_classes is None:
            y = xp.astype(xp.asarray(y, device=where), xp.float64, copy=False)
            return y[:, None] if y.ndim == 1 else y
        if host.ndim != 1 or host.dtype.kind not in "iu":
            raise ValueError(
                "y must hold class codes, integers of shape (n_samples,); got "
                f"{host.dtype} of shape {host.shape}."
            )
        if len(host) and not 0 <= host.min() <= host.max() < self.n_classes:
            raise ValueError(
                f"y must hold class codes from 0 to {self.n_classes - 1}; got codes "
                f"from {host.min()} to {host.max()}."
            )
        return y

    @property
    def is_single(self) -> bool:
        """Whether products were taken in float32."""
        return self._eps > float(np.finfo(np.float64).eps)

    def in_double(self) -> SufficientStatistics:
        """Empty statistics of the same kind, whose products are taken in float64."""
        statistics = SufficientStatistics(self.n_features, n_classes=self.n_classes)
        statistics._double = True
        return statistics

    def _add(self, samples: Samples, *, keep: bool = False) -> None:
        """Add the moments of samples, without a Gram matrix if they are kept."""
        if len(samples) == 0:
            return
        X, xp = samples.X, samples.xp
        self.n_rows += len(samples)
        few = self.n_rows <= _FEW * self.n_features
        double = X.dtype == xp.float64 or few or self._double
        precision = xp.float64 if double else X.dtype
        self._eps = max(self._eps, float(xp.finfo(precision).eps))
        part = moments_of(
            samples, with_gram=not keep, double=double, near=self._moments
        )
        self._moments = plus(self._moments, part)
        seen = to_numpy(samples.targets)
        if samples.weights is not None:
            seen = seen[samples.positive]
        self._n_weighted += len(seen)
        if self.n_classes is None:
            low = seen.min(axis=0, initial=np.inf)
            self._extend(np.stack([low, (-seen).min(axis=0, initial=np.inf)]))
        # These were derived from fewer samples.
        for name in ("spectrum", "centred_spectrum"):
            self.__dict__.pop(name, None)

    def _extend(self, extremes: np.ndarray | None) -> None:
        """Take the extremes of more targets into account."""
        if self._extremes is None:
            self._extremes = extremes
        elif extremes is not None:
            self._extremes = np.minimum(self._extremes, extremes)

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        """Merge the statistics of two sets of samples."""
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        if (self.n_features, self.n_classes) != (other.n_features, other.n_classes):
            raise ValueError(
                "Merging requires statistics of the same features and classes; got "
                f"n_features={self.n_features}, n_classes={self.n_classes} and "
                f"n_features={other.n_features}, n_classes={other.n_classes}."
            )
        get_namespace(one=self._example, other=other._example)
        merged = SufficientStatistics(self.n_features, n_classes=self.n_classes)
        merged._double = self._double and other._double
        for part in (self, other):
            if not part._rows:
                merged._moments = plus(merged._moments, part._moments)
                merged._eps = max(merged._eps, part._eps)
                merged.n_rows += part.n_rows
                merged._n_weighted += part._n_weighted
                merged._extend(part._extremes)
        for rows in self._rows + other._rows:
            merged.add(rows)
        return merged

    @property
    def n_samples(self) -> float:
        """Total weight of the rows."""
        return 0.0 if self._moments is None else self._moments.weight

    @property
    def _sums(self) -> Moments:
        """Moments about zero, without the Gram matrix."""
        return replace(self._moments, gram=None).raw()

    @property
    def gram(self) -> Any:
        """G = F^T F, float64, of shape (n_features, n_features)."""
        if not self._rows:
            return self._moments.raw().gram
        return moments_of(Samples.joined(self._rows), double=True).raw().gram

    def gram_of(self, spectrum: Spectrum) -> Any:
        """Gram matrix about the origin of a spectrum, or None if rows are kept."""
        if self._rows:
            return None
        centred = spectrum.feature_mean is not None
        return (self._moments.centred() if centred else self._moments.raw()).gram

    @property
    def cross(self) -> Any:
        """B = F^T Y, float64, of shape (n_features, n_targets)."""
        return self._sums.cross

    @property
    def target_sums(self) -> np.ndarray:
        """Sum of every target."""
        return self._sums.target_sums

    @property
    def target_norms(self) -> np.ndarray:
        """Sum of the squares of every target."""
        return self._sums.target_squares

    @property
    def squared_gram_norm(self) -> float:
        """||G||_F^2 = ||F F^T||_F^2, the sum of the squared eigenvalues."""
        if self._rows:  # the n x n matrix is the smaller
            return float(np.sum(self.spectrum.eigenvalues**2))
        G = self.gram
        xp, _ = get_namespace(G=G)
        return float(xp.sum(G**2))

    @property
    def feature_mean(self) -> Any:
        """Mean of the features, float64, of shape (n_features,)."""
        return self._moments.origin + self._moments.sums / self.n_samples

    @property
    def feature_variance(self) -> Any:
        """Variance of the features, float64, of shape (n_features,)."""
        moments, n = self._moments, self.n_samples
        if moments.gram is None:
            moments = moments_of(Samples.joined(self._rows), with_gram=False)
            return moments.squares / n - (moments.sums / n) ** 2
        xp, _ = get_namespace(gram=moments.gram)
        return xp.linalg.diagonal(moments.gram) / n - (moments.sums / n) ** 2

    @property
    def constant_targets(self) -> np.ndarray:
        """Boolean mask of the targets that have one value only."""
        if self.n_classes is not None:
            sums = self.target_sums
            return (sums == 0) | (sums == self.n_samples)
        low, minus_high = self._extremes
        return low == -minus_high

    @property
    def underflowing_targets(self) -> np.ndarray:
        """Boolean mask of the targets that vary, but whose squares underflow."""
        if self.n_classes is not None:
            return np.zeros(self.n_classes, dtype=bool)
        small = self.target_norms < np.finfo(np.float64).tiny
        return small & ~self.constant_targets

    @cached_property
    def spectrum(self) -> Spectrum:
        """Spectrum of the features without centring."""
        return self._spectrum(centred=False)

    @cached_property
    def centred_spectrum(self) -> Spectrum:
        """Spectrum after the means of features and targets have been removed."""
        return self._spectrum(centred=True)

    def _spectrum(self, *, centred: bool) -> Spectrum:
        if not self._rows:
            return spectrum_of_moments(
                self._moments, self._n_weighted, self._eps, centred=centred
            )
        rows = Samples.joined(self._rows)
        return spectrum_of_rows(rows, self._moments, centred=centred)
