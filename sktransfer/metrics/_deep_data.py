"""The data of deep scores: mixtures of layers, each with its scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property, partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import check_random_state, check_scalar

from sktransfer.exceptions import RoundingWarning
from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._deep import LayerMixture
from sktransfer.metrics._leave_one_out import LOO_ACCURACY, LOO_LOG_LIKELIHOOD
from sktransfer.metrics._logme import LOGME
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import to_numpy
from sktransfer.utils._score import Score
from sktransfer.utils._threads import one_blas_thread
from sktransfer.utils._warnings import as_warning, collect_warnings

# The mixtures among which rho is chosen.
RHOS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
# An eigendecomposition for each of them costs 9 n^3 operations.
MAX_SAMPLES = 2000
# Up to so many samples, several threads take longer than one.
_SMALL = 1000
# The metric that chooses it.
_CRITERIA = {"evidence": LOGME, "likelihood": LOO_LOG_LIKELIHOOD}


class DeepData:
    """What deep scores share: the kernels of the layers, and scores of mixtures.

    Of more than `max_samples` samples, only those that are drawn count.
    """

    def __init__(
        self,
        data: LabelledData,
        *,
        max_samples: int = MAX_SAMPLES,
        random_state: Any = 0,
    ):
        check_scalar(max_samples, "max_samples", Integral, min_val=2)
        self.task, self.with_parts = data.task, data.with_parts
        layers = data.layers
        y, labels = data.host_target, None
        if self.task == "classification":
            labels = y = data.classes[y]
        w = data.host_weights
        # A sample without weight is one that is not there.
        rows = np.arange(len(y)) if w is None else np.flatnonzero(w)
        if len(rows) > max_samples:
            labels = None if labels is None else labels[rows]
            rows = rows[_draw_rows(len(rows), max_samples, labels, random_state)]
            if labels is None:
                _refuse_lost_targets(y, rows)
        self._n_given, self._rows = len(y), rows
        self.y = y[rows]
        self.groups = None if data.groups is None else data.groups[rows]
        self.host_weights = None if w is None else w[rows]
        # Not copied if all rows are there.
        own = slice(None) if len(rows) == len(y) else rows
        self._layers = {name: to_numpy(X)[own] for name, X in layers.items()}
        # Differences of scores up to this are rounding of the least precise layer.
        eps = max(np.finfo(X.dtype).eps for X in self._layers.values())
        self.resolution = float(eps) ** 0.5 / 3
        self._scores: dict[float, dict[str, tuple[Score, list]]] = {}

    @cached_property
    def mixture(self) -> LayerMixture:
        """The kernels of the layers."""
        return LayerMixture(self._layers, self.host_weights)

    def score(self, metric: Metric, mixture: str | float) -> Score:
        """Score the mixture given, or the one that the evidence or likelihood chooses.

        `metric` is that of one layer.
        """
        metric.check_task(self.task)
        if isinstance(mixture, str):
            if mixture not in _CRITERIA:
                raise ValueError(_describe_mixture(mixture))
            criterion = _CRITERIA[mixture]
            rhos = RHOS[:1] if self.mixture.is_pure else RHOS
            mixture = max(rhos, key=lambda rho: self._at(rho, criterion)[0].value)
        elif isinstance(mixture, bool) or not (
            isinstance(mixture, Real) and 0 <= mixture <= 1
        ):
            raise ValueError(_describe_mixture(mixture))
        score, messages = self._at(float(mixture), metric)
        for message in messages:
            warnings.warn(message, stacklevel=4)
        return self._of_all_samples(score._replace(resolution=self.resolution))

    def _of_all_samples(self, score: Score) -> Score:
        """The score with parts of all samples: those not drawn have no weight."""
        if len(self._rows) == self._n_given:
            return score

        def spread(values: Any) -> np.ndarray | None:
            if values is None:
                return None
            spreaded = np.zeros(self._n_given)
            spreaded[self._rows] = values
            return spreaded

        w = np.ones(len(self.y)) if self.host_weights is None else self.host_weights
        return score._replace(
            parts=spread(score.parts),
            variances=spread(score.variances),
            weights=spread(w),
        )

    def _at(self, rho: float, metric: Metric) -> tuple[Score, list[Warning]]:
        """A score of one mixture, with the warnings of its computation."""
        known = self._scores.setdefault(rho, {})
        if metric.name not in known:
            with one_blas_thread(len(self.y) <= _SMALL):
                self._fill(known, rho, metric)
        return known[metric.name]

    def _fill(self, known: dict, rho: float, metric: Metric) -> None:
        """Compute all metrics that read the head of a mixture, while it is there."""
        data = LabelledData(
            self.mixture.features(rho),
            self.y,
            task=self.task,
            groups=self.groups,
            sample_weight=self.host_weights,
            fit_intercept=True,
            with_parts=self.with_parts,
        )
        metrics = [metric, LOGME]
        if not data.has_one_group:
            metrics += [LOO_LOG_LIKELIHOOD, LOO_ACCURACY]
        _, of_fit = _record(lambda: data.head)
        for one in metrics:
            if self.task in one.tasks and one.name not in known:
                score, own = _record(partial(one.score, data))
                known[one.name] = score, of_fit + own


def _record(function: Callable[[], Any]) -> tuple[Any, list[Warning]]:
    """A result with its warnings, which count only if the mixture is chosen."""
    with collect_warnings() as caught:
        result = function()
    return result, [
        as_warning(text, kind)
        for text, kind in caught
        # Layers are functions of each other, linear ones among them.
        if not (kind is RoundingWarning and " LogME ignores" in text)
    ]


def _draw_rows(
    n_samples: int, size: int, labels: np.ndarray | None, random_state: Any
) -> np.ndarray:
    """About `size` samples, in their order, the same share of each class."""
    rng = check_random_state(random_state)
    codes = np.zeros(n_samples) if labels is None else labels
    drawn = []
    for label in np.unique(codes):
        members = np.flatnonzero(codes == label)
        share = -(-len(members) * size // n_samples)  # rounded up
        drawn.append(rng.permutation(members)[:share])
    return np.sort(np.concatenate(drawn))


def _refuse_lost_targets(y: np.ndarray, rows: np.ndarray) -> None:
    """Raise a ValueError if a target that varies does not among the samples drawn."""
    columns = y.reshape(len(y), -1)
    lost = (np.ptp(columns[rows], axis=0) == 0) & (np.ptp(columns, axis=0) > 0)
    if lost.any():
        raise ValueError(
            f"Target {np.flatnonzero(lost)[0]} is constant among the {len(rows)} of "
            f"{len(y)} samples that were drawn. Increase max_samples, or leave out the "
            "target."
        )


def _describe_mixture(given: Any) -> str:
    return (
        f"The 'mixture' parameter must be one of {list(_CRITERIA)} or a number in "
        f"[0, 1]. Got {given!r} instead."
    )
