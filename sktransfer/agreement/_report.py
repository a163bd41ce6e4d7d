"""Agreement of several rankers with the truth, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import check_random_state, check_scalar

from sktransfer.agreement._coefficients import (
    check_models,
    pearsons,
    spearmans,
    taus,
    weighted_taus,
)
from sktransfer.agreement._regret import regrets, top_k_hits
from sktransfer.utils._optional import import_optional


@dataclass(frozen=True, repr=False, eq=False)
class AgreementReport:
    """How well rankers agree with the truth, made by :func:`agreement_report`.

    Printing it shows two lines per ranker: values, and their intervals below.

    Attributes
    ----------
    table : dict of str to ndarray
        One row per ranker and coefficient. The columns are `ranker`, `coefficient`,
        `value`, `low` and `high` (ends of the interval) and `n_resamples` (number of
        resamples in which the coefficient is defined).
    n_models : int
        Number of models ranked.
    n_resamples : int
        Number of resamples drawn.
    confidence_level : float
        Level of the intervals.
    """

    table: dict[str, np.ndarray]
    n_models: int
    n_resamples: int
    confidence_level: float

    def frame(self):
        """Return the table as a pandas.DataFrame."""
        needed_by = "AgreementReport.frame"
        pandas = import_optional("pandas", extra="plot", needed_by=needed_by)
        return pandas.DataFrame(self.table)

    def __str__(self) -> str:
        lines = [["", *_COEFFICIENTS]]
        value, low, high = (
            map(format, self.table[column], cycle(_FORMATS))
            for column in ("value", "low", "high")
        )
        interval = map("..".join, zip(low, high, strict=True))
        for ranker in self.table["ranker"][:: len(_COEFFICIENTS)]:
            lines.append([ranker, *islice(value, len(_COEFFICIENTS))])
            lines.append(["", *islice(interval, len(_COEFFICIENTS))])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        percent = f"{100 * self.confidence_level:.4g} %"
        text = [
            f"{self.n_models} models; {percent} intervals from {self.n_resamples} "
            "bootstrap resamples below the values"
        ]
        for first, *others in lines:
            padded = [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
            text.append(" ".join([first.ljust(widths[0]), *padded]).rstrip())
        return "\n".join(text)

    __repr__ = __str__


def agreement_report(
    performance: Any,
    scores: Any,
    *,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> AgreementReport:
    """Measure how well rankers order the models, with bootstrap intervals.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        True performance after fine-tuning, larger is better; negate errors.
    scores : mapping of str to array-like of shape (n_models,), or array-like of shape \
            (n_models,)
        Scores by ranker, larger is better. A static ranker (the size of the models,
        their accuracy on the source) is one more entry, and belongs in every
        comparison. A single array is called "scores".
    n_resamples : int, default=1000
        Number of resamples of the models; all rankers share them.
    confidence_level : float, default=0.95
        Level of the intervals, between 0 and 1.
    random_state : int, RandomState instance or None, default=None
        Controls the resampling. Pass an int for reproducible intervals.

    Returns
    -------
    AgreementReport
        For every ranker `tau_w` (:func:`weighted_kendall_tau`), `tau`
        (:func:`kendall_tau`), :func:`spearman`, :func:`pearson`, `top_1_hit`,
        `top_3_hit` (:func:`top_k_hit`) and :func:`regret`, each with an interval.

    Raises
    ------
    TypeError
        If `n_resamples` or `confidence_level` is not a number.
    ValueError
        If there is no ranker, there are fewer than two models or a NaN, or a parameter
        is out of range.

    Notes
    -----
    These are percentile intervals: each resample draws `n_models` models with
    replacement, and the interval lies between percentiles of its coefficients. Copies
    of a model are tied, and each takes a place among the top k. A resample with
    constant performance or scores has no correlation and is left out of that interval;
    the column `n_resamples` counts those that remain. If none remain, the interval is
    NaN. Hits and regret are always defined.

    The intervals cover the choice of models, not the choice of target data or the noise
    in `performance`. With a dozen models they are wide, as they should be: on simulated
    Gaussian models with correlation 0.7, 95 % intervals contained the expected
    correlation for 93 to 98 % of the sets of 12 models, and for 91 to 96 % of those of
    30. A hit is 0 or 1, and so are the ends of its interval. Resamples without the best
    model pull the regret towards zero.

    Examples
    --------
    >>> from sktransfer.agreement import agreement_report
    >>> performance = [79.9, 86.6, 85.6, 85.3, 83.2, 85.4]
    >>> logme = [0.930, 0.946, 0.948, 0.950, 0.934, 0.938]
    >>> size = [21.8, 25.6, 44.5, 60.2, 68.9, 8.0]
    >>> report = agreement_report(
    ...     performance, {"logme": logme, "size": size}, random_state=0
    ... )
    >>> print(report)
    6 models; 95 % intervals from 1000 bootstrap resamples below the values
                tau_w         tau    spearman     pearson top_1_hit top_3_hit regret
    logme        0.27        0.47        0.60        0.83         0         1    1.3
          -0.71..1.00 -0.67..1.00 -0.81..1.00 -0.17..0.99      0..1      0..1 0..1.3
    size        -0.30       -0.20       -0.14        0.02         0         0    3.4
          -1.00..0.61 -1.00..0.64 -1.00..0.80 -0.97..0.80      0..1      0..1 0..3.4
    """
    check_scalar(n_resamples, "n_resamples", Integral, min_val=1)
    check_scalar(
        confidence_level,
        "confidence_level",
        Real,
        min_val=0,
        max_val=1,
        include_boundaries="neither",
    )
    if isinstance(scores, Mapping):
        if not scores:
            raise ValueError("Input scores must have at least one ranker; it is empty.")
        checked = {
            str(name): check_models(performance, values, f"scores[{name!r}]")
            for name, values in scores.items()
        }
    else:
        checked = {"scores": check_models(performance, scores)}
    n_models = len(next(iter(checked.values()))[0])
    # Copies stand together: of equal scores the same model stays the first.
    counts = check_random_state(random_state).multinomial(
        n_models, np.full(n_models, 1 / n_models), size=n_resamples
    )
    resamples = np.array([np.repeat(np.arange(n_models), drawn) for drawn in counts])
    tails = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]
    rows = []
    for name, (truth, values) in checked.items():
        for coefficient, function in _COEFFICIENTS.items():
            sample = _resampled(function, truth, values, resamples)
            sample = sample[~np.isnan(sample)]
            low, high = np.quantile(sample, tails) if len(sample) else (np.nan, np.nan)
            value = float(function(truth, values))
            rows.append((name, coefficient, value, low, high, len(sample)))
    names = ("ranker", "coefficient", "value", "low", "high", "n_resamples")
    columns = map(np.array, zip(*rows, strict=True))
    table = dict(zip(names, columns, strict=True))
    return AgreementReport(table, n_models, int(n_resamples), float(confidence_level))


_COEFFICIENTS = {
    "tau_w": weighted_taus,
    "tau": taus,
    "spearman": spearmans,
    "pearson": pearsons,
    "top_1_hit": partial(top_k_hits, k=1),
    "top_3_hit": partial(top_k_hits, k=3),
    "regret": regrets,
}
_FORMATS = [".2f", ".2f", ".2f", ".2f", ".0f", ".0f", ".3g"]
_MAX_PAIRS = 2**24  # of models in all resamples of a batch


def _resampled(
    function: Any, performance: np.ndarray, scores: np.ndarray, resamples: np.ndarray
) -> np.ndarray:
    """A coefficient of each resample, given as rows of model numbers."""
    n_batches = 1 + resamples.size * len(scores) // _MAX_PAIRS
    batches = np.array_split(resamples, n_batches)
    values = [function(performance[rows], scores[rows]) for rows in batches]
    return np.concatenate(values).astype(np.float64)
