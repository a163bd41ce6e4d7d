"""What several metrics compute of the same features and labels, computed once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from sktransfer.linear_model import LogMEClassifier, SufficientStatistics
from sktransfer.linear_model._statistics import Spectrum
from sktransfer.utils._array_api import (
    chunks,
    from_numpy,
    get_namespace,
    to_numpy,
)
from sktransfer.utils._validation import check_features, encode_labels

# Squared ratio of mean to deviation from which a mean is taken out.
_DOMINANT = 100.0
# Relative error of a metric that sums over all directions alike.
_PRECISE = 1e-4


class LabelledFeatures:
    """Features with class labels: validated, encoded, and measured on demand.

    A score function makes one of its own; the scorers and the selector make one for
    all metrics of a candidate, so that none pays for another's Gram matrix.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
        Class labels.
    statistics : SufficientStatistics, optional
        Those of `X` and `y`, where somebody has them already.

    Attributes
    ----------
    X : array of shape (n_samples, n_features), float32 or float64
    classes : ndarray of shape (n_classes,)
    codes : integer array of shape (n_samples,), beside `X`
    counts : ndarray of shape (n_classes,), float64
    """

    def __init__(self, X: Any, y: Any, statistics: SufficientStatistics | None = None):
        self.X = check_features(X, min_samples=2)
        self.xp, self.device = get_namespace(X=self.X)
        self.classes, self.codes = encode_labels(y, self.X)
        self.counts = np.bincount(to_numpy(self.codes)).astype(np.float64)
        if statistics is not None:
            # Shadows the cached property of the same name.
            self.statistics = statistics

    @cached_property
    def statistics(self) -> SufficientStatistics:
        """Class sums, Gram matrix and the spectrum that it keeps."""
        statistics = SufficientStatistics(self.X.shape[1], n_classes=len(self.classes))
        return statistics.update(self.X, self.codes)

    @property
    def spectrum(self) -> Spectrum:
        """Spectrum of the features as they are, with all directions that they have."""
        spectrum = self.statistics.spectrum
        if self.statistics.is_single:
            explained = spectrum.target_norms - spectrum.residual
            error = spectrum.residual_error / self.counts
            if (
                spectrum.truncated
                or error.sum() > _PRECISE * (explained / self.counts).sum()
            ):
                # Features too nearly collinear for float32.
                statistics = self.statistics.in_double()
                self.statistics = statistics.update(self.X, self.codes)
        return self.statistics.spectrum

    @cached_property
    def about_mean(self) -> LabelledFeatures:
        """The same samples, about their mean if it dominates all that varies.

        For metrics that a shift leaves alone, but for the digits that it covers.
        """
        variance = float(self.xp.sum(self.statistics.feature_variance))
        if float(self.mean @ self.mean) <= _DOMINANT * variance:
            return self
        mean = self.xp.astype(self.mean, self.X.dtype)
        return LabelledFeatures(self.X - mean, to_numpy(self.codes))

    @cached_property
    def logme(self) -> LogMEClassifier:
        """LogME without intercept, fitted to the statistics that are shared."""
        model = LogMEClassifier().fit_statistics(self.statistics, self.X, self.codes)
        self.statistics = model.statistics_
        return model

    @cached_property
    def mean(self) -> Any:
        """Mean of the features, float64, of shape (n_features,)."""
        return self.statistics.feature_mean

    @cached_property
    def centred_square_norms(self) -> np.ndarray:
        """||x_i - mean||^2 of every sample, on the host, of shape (n_samples,)."""
        xp = self.xp
        # In double precision, where squares stay in range.
        parts = [
            xp.sum((xp.astype(self.X[rows, :], xp.float64) - self.mean) ** 2, axis=1)
            for rows in chunks(self.X.shape[0], 1024)
        ]
        return to_numpy(xp.concat(parts))

    @cached_property
    def class_order(self) -> Any:
        """Indices of the samples, class after class, beside `X`."""
        order = np.argsort(to_numpy(self.codes), kind="stable")
        return from_numpy(order, self.xp, self.device)
