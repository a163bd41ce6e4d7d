"""The data that every metric reads: features, source probabilities and a target."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_feature_names, check_consistent_length

from sktransfer.linear_model import LogME, LogMEClassifier, SufficientStatistics
from sktransfer.metrics._deep import check_layers
from sktransfer.utils._array_api import (
    beside,
    cached_rows,
    chunks,
    from_numpy,
    get_namespace,
    in_range,
    to_numpy,
)
from sktransfer.utils._validation import (
    check_features,
    check_numeric_target,
    check_source_proba,
    check_weights,
    encode_labels,
    infer_task,
)

# Squared ratio of mean to deviation from which a mean is taken out.
_DOMINANT = 100.0
# Relative error of a metric that sums over all directions alike.
_PRECISE = 1e-4


class LabelledData:
    """Samples as metrics read them: validated once, computed on demand, shared.

    A score function makes one for itself. Scorers and the selector make one for all
    metrics of a candidate, so that none pays for another's Gram matrix.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features) or None
        None where only source probabilities or layers are read.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels, numbers, or 0/1 indicators of several labels, of any array library: the
        target is moved to where the features are.
    source_proba : array-like of shape (n_samples, n_source_classes), optional
        Each row sums to one.
    layers : dict of str to array-like of shape (n_samples, n_features), optional
        Features of every layer of a network, in the order of depth, the last of them
        those that are scored.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read `y`; ``"auto"`` takes integers and text for labels, floats for
        numbers.
    groups : array-like of shape (n_samples,), optional
        Samples of one group belong together, such as the words of a sentence.
    sample_weight : array-like of shape (n_samples,), optional
        An integer weight counts as that many copies of the sample.
    fit_intercept : bool, optional
        Whether LogME and the head have an intercept. By default the head has one and
        LogME, as in the papers, has none.
    with_parts : bool, default=False
        Whether the parts of scores are wanted where they cost extra.

    Attributes
    ----------
    xp, device
        Array namespace and device of the features.
    n_samples : int

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import LabelledData
    >>> data = LabelledData(*load_iris(return_X_y=True))
    >>> data.task, data.counts
    ('classification', array([50., 50., 50.]))
    >>> round(data.logme.logme_, 3)
    -0.16
    """

    def __init__(
        self,
        features: Any,
        y: Any,
        *,
        source_proba: Any = None,
        layers: Any = None,
        task: str = "auto",
        groups: Any = None,
        sample_weight: Any = None,
        fit_intercept: bool | None = None,
        with_parts: bool = False,
    ):
        self._features = features
        self._source_proba = source_proba
        self._layers = layers
        self.task = infer_task(y, task)
        self.fit_intercept = fit_intercept
        self.with_parts = with_parts
        if features is not None:
            self._first = self.features
        elif source_proba is not None:
            self._first = self.unchecked_proba
        else:
            *_, self._first = self.layers.values()
        self.xp, self.device = get_namespace(X=self._first)
        self.n_samples = int(self._first.shape[0])
        self.y = beside(y, self._first)
        self.groups = None if groups is None else to_numpy(groups)
        check_consistent_length(self._first, self.groups)
        weights = beside(sample_weight, self._first)
        self.sample_weight = check_weights(weights, self._first)
        self._readings: dict[str, LabelledData] = {}
        self._shared: dict[Any, Any] = {}

    def _with(self, **changes: Any) -> LabelledData:
        """The same samples, but for some arguments."""
        given = {
            "features": self._features,
            "y": self.y,
            "source_proba": self._source_proba,
            "layers": self._layers,
            "task": self.task,
            "groups": self.groups,
            "sample_weight": self.sample_weight,
            "fit_intercept": self.fit_intercept,
            "with_parts": self.with_parts,
        }
        return LabelledData(**{**given, **changes})

    def read_as(self, task: str) -> LabelledData:
        """The same samples with the target read as another task."""
        if task in ("auto", self.task):
            return self
        if task not in self._readings:
            self._readings[task] = self._with(task=task)
        return self._readings[task]

    def share(self, key: Any, make: Callable[[LabelledData], Any]) -> Any:
        """What several metrics compute, ``make(data)``, made once for each key."""
        if key not in self._shared:
            self._shared[key] = make(self)
        return self._shared[key]

    # What is read.

    @cached_property
    def features(self) -> Any:
        """Features, float32 or float64, of shape (n_samples, n_features)."""
        return check_features(self._features, min_samples=2)

    @property
    def has_features(self) -> bool:
        """Whether there are features."""
        return self._features is not None

    @property
    def has_source_proba(self) -> bool:
        """Whether there are source probabilities."""
        return self._source_proba is not None

    @cached_property
    def _source(self) -> tuple[Any, Any]:
        source = check_source_proba(self._source_proba)
        if self.has_features:
            check_consistent_length(self.features, source[0])
        return source

    @cached_property
    def source_proba(self) -> Any:
        """Source probabilities, of shape (n_samples, n_source_classes)."""
        for rows in cached_rows(self.unchecked_proba):
            self.read_source_proba(rows)
        return self.unchecked_proba

    def read_source_proba(self, rows: slice) -> Any:
        """Some rows of the source probabilities, checked as they are read."""
        return self._source[1](rows)

    @property
    def unchecked_proba(self) -> Any:
        """Source probabilities for metrics that check them as they read them."""
        return self._source[0]

    @property
    def has_layers(self) -> bool:
        """Whether there are layers."""
        return self._layers is not None

    @cached_property
    def layers(self) -> dict[Any, Any]:
        """Features of every layer, each of shape (n_samples, n_features)."""
        layers = check_layers(self._layers)
        if self.has_features:
            check_consistent_length(self.features, next(iter(layers.values())))
        return layers

    @property
    def resolution(self) -> float:
        """Differences of scores up to this are rounding of the features: sqrt(eps) / 3.

        It is 1e-4 for float32, 5e-9 for float64 and 0 for integers. Without features
        it is that of the source probabilities or the last layer.
        """
        given = self._features if self.has_features else self._source_proba
        given = self._first if given is None else given
        given = given.to_numpy() if hasattr(given, "to_numpy") else given
        xp, _ = get_namespace(X=given)
        dtype = getattr(given, "dtype", None)
        if dtype is None or not xp.isdtype(dtype, "real floating"):
            return 0.0
        return float(xp.finfo(dtype).eps) ** 0.5 / 3

    @cached_property
    def _classes_and_codes(self) -> tuple[np.ndarray, Any]:
        return encode_labels(self.y, self._first)

    @property
    def classes(self) -> np.ndarray:
        """Sorted labels, of shape (n_classes,)."""
        return self._classes_and_codes[0]

    @property
    def codes(self) -> Any:
        """Class of every sample, in ``range(n_classes)``, beside the features."""
        return self._classes_and_codes[1]

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of samples of each class, float64."""
        return np.bincount(to_numpy(self.codes)).astype(np.float64)

    @cached_property
    def target(self) -> Any:
        """Class codes for classification, otherwise numbers in float64."""
        if self.task == "classification":
            return self.codes
        return check_numeric_target(self.y, self._first)

    @cached_property
    def host_features(self) -> np.ndarray:
        """Features on the host, in another unit if their squares leave the range."""
        return in_range(to_numpy(self.features))[0]

    @cached_property
    def host_weights(self) -> np.ndarray | None:
        """Weights of the samples on the host, if they have any."""
        return None if self.sample_weight is None else to_numpy(self.sample_weight)

    @property
    def host_target(self) -> np.ndarray:
        """The target on the host."""
        return to_numpy(self.target)

    @cached_property
    def label_columns(self) -> list[np.ndarray]:
        """Class codes of every label: one column for classes, several for indicators.

        Classes are numbered in the order of their first samples: names mean nothing.
        """
        if self.task != "classification":
            return list(self.host_target.T.astype(int))
        codes = to_numpy(self.codes)
        _, first = np.unique(codes, return_index=True)
        return [np.argsort(np.argsort(first))[codes]]

    def refuse_constant_targets(self) -> None:
        """Raise a ValueError if a number or indicator has one value only."""
        if self.task == "classification":
            return
        columns = self.host_target.reshape(self.n_samples, -1)
        if len(constant := np.flatnonzero(np.ptp(columns, axis=0) == 0)):
            what = "Label" if self.task == "multilabel" else "Target"
            raise ValueError(f"{what} {constant[0]} is constant: leave it out.")

    # What several metrics compute.

    @cached_property
    def statistics(self) -> SufficientStatistics:
        """Gram matrix, class sums and the spectrum that they keep."""
        n_classes = len(self.classes) if self.task == "classification" else None
        empty = SufficientStatistics(self.features.shape[1], n_classes=n_classes)
        return self._sum(empty)

    def _sum(self, empty: SufficientStatistics) -> SufficientStatistics:
        return empty.update(self.features, self.target, self.sample_weight)

    @property
    def spectrum(self) -> Any:
        """Spectrum of the features as they are, with all directions that they have."""
        spectrum = self.statistics.spectrum
        if self.task == "classification" and self.statistics.is_single:
            explained = spectrum.target_norms - spectrum.residual
            error = spectrum.residual_error / self.counts
            if (
                spectrum.truncated
                or error.sum() > _PRECISE * (explained / self.counts).sum()
            ):
                # Features too nearly collinear for float32.
                self.statistics = self._sum(self.statistics.in_double())
        return self.statistics.spectrum

    @cached_property
    def about_mean(self) -> LabelledData:
        """The same samples, about their mean if it dominates all that varies.

        For metrics that a shift leaves alone, but for the digits that it covers.
        """
        variance = float(self.xp.sum(self.statistics.feature_variance))
        if float(self.mean @ self.mean) <= _DOMINANT * variance:
            return self
        mean = self.xp.astype(self.mean, self.features.dtype)
        return self._with(features=self.features - mean)

    def fit_logme(self, **params: Any) -> LogME | LogMEClassifier:
        """Fit LogME, from the statistics that all metrics share.

        Parameters
        ----------
        **params : dict
            Those of :class:`~sktransfer.linear_model.LogME`.

        Returns
        -------
        LogME or LogMEClassifier
            With its standard error if parts are wanted.
        """
        params = {"std_error": self.with_parts, **params}
        of_classes = self.task == "classification"
        model = (LogMEClassifier if of_classes else LogME)(**params)
        model.fit_statistics(
            self.statistics,
            self.features,
            self.y if of_classes else self.target,
            self.sample_weight,
            groups=self.groups if model.leave_one_out else None,
            **({"classes": self.classes} if of_classes else {}),
        )
        self.statistics = model.statistics_
        _check_feature_names(model, self._features, reset=True)
        return model

    @cached_property
    def logme(self) -> LogME | LogMEClassifier:
        """The model whose evidence is LogME."""
        if self.fit_intercept is None:
            return self.fit_logme()
        return self.head

    @cached_property
    def head(self) -> LogME | LogMEClassifier:
        """The linear head that predicts, with what it says of left-out samples.

        Without that if there is one group, which cannot be left out.
        """
        return self.fit_head(
            self.head_has_intercept, leave_one_out=not self.has_one_group
        )

    @cached_property
    def has_one_group(self) -> bool:
        """Whether all samples are in one group."""
        return self.groups is not None and len(np.unique(self.groups)) == 1

    @property
    def head_has_intercept(self) -> bool:
        """Whether the head has an intercept."""
        return self.fit_intercept is not False

    def fit_head(
        self, fit_intercept: bool, *, leave_one_out: bool = True
    ) -> LogME | LogMEClassifier:
        """Fit the head, with one prior for all classes, and leave out each sample.

        Parameters
        ----------
        fit_intercept : bool
        leave_one_out : bool, default=True

        Returns
        -------
        LogME or LogMEClassifier
        """
        params = {"fit_intercept": fit_intercept, "leave_one_out": leave_one_out}
        if self.task == "classification":
            params["prior"] = "shared"
        # The standard error of a LogME is wanted with the LogME alone.
        if fit_intercept is not self.fit_intercept:
            params["std_error"] = False
        return self.fit_logme(**params)

    @cached_property
    def mean(self) -> Any:
        """Mean of the features, float64, of shape (n_features,)."""
        return self.statistics.feature_mean

    @cached_property
    def centred_square_norms(self) -> np.ndarray:
        """||x_i - mean||^2 of every sample, on the host, of shape (n_samples,)."""
        xp = self.xp
        parts = []
        for rows in chunks(self.n_samples, 1024):
            # In double precision, where squares stay in range.
            part = xp.astype(self.features[rows, :], xp.float64) - self.mean
            parts.append(xp.vecdot(part, part))
        return to_numpy(xp.concat(parts))

    @cached_property
    def class_order(self) -> Any:
        """Indices of the samples, class after class, beside the features."""
        order = np.argsort(to_numpy(self.codes), kind="stable")
        return from_numpy(order, self.xp, self.device)
