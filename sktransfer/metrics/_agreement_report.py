"""Agreement of several rankers with the truth, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import check_random_state, check_scalar

from sktransfer.metrics._agreement import (
    check_models,
    kendall_tau,
    pearson,
    regret,
    spearman,
    top_k_hit,
    weighted_kendall_tau,
)
from sktransfer.utils._optional import import_optional


@dataclass(frozen=True, repr=False, eq=False)
class AgreementReport:
    """How well rankers agree with the truth, made by :func:`agreement_report`.

    Printing it shows one block of two lines a ranker: values, and intervals below.

    Attributes
    ----------
    table : dict of str to ndarray
        One row for each ranker and coefficient, in the columns `ranker`, `coefficient`,
        `value`, `low` and `high` (ends of the interval) and `n_resamples` (the
        resamples in which the coefficient is defined).
    n_models : int
        The number of models ranked.
    n_bootstrap : int
        The number of resamples drawn.
    confidence_level : float
        The level of the intervals.

    Examples
    --------
    >>> from sktransfer.metrics import agreement_report
    >>> report = agreement_report([95.0, 93.0, 90.0, 88.0], [0.4, 0.3, 0.2, 0.1])
    >>> report.n_models
    4
    """

    table: dict[str, np.ndarray]
    n_models: int
    n_bootstrap: int
    confidence_level: float

    def frame(self):
        """Give the table as a data frame; needs pandas.

        Returns
        -------
        pandas.DataFrame
            One row for each ranker and coefficient.

        Raises
        ------
        ImportError
            If pandas cannot be imported.
        """
        pandas = import_optional(
            "pandas", extra="plot", needed_by="AgreementReport.frame"
        )
        return pandas.DataFrame(self.table)

    def __str__(self) -> str:
        coefficients = list(_COEFFICIENTS)
        lines = [["", *coefficients]]
        for start in range(0, len(self.table["ranker"]), len(coefficients)):
            block = slice(start, start + len(coefficients))
            value, low, high = (
                [
                    format(x, _FORMATS.get(coefficient, ".2f"))
                    for coefficient, x in zip(
                        coefficients, self.table[column][block], strict=True
                    )
                ]
                for column in ("value", "low", "high")
            )
            lines.append([self.table["ranker"][start], *value])
            lines.append(["", *map("..".join, zip(low, high, strict=True))])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        percent = f"{100 * self.confidence_level:.4g} %"
        text = [
            f"{self.n_models} models; {percent} intervals from {self.n_bootstrap} "
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
    n_bootstrap: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> AgreementReport:
    """Measure how well rankers order the models, and how sure that is.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        True performance after fine-tuning, larger is better; negate errors.
    scores : mapping of str to array-like of shape (n_models,), or array-like of shape \
            (n_models,)
        Scores by ranker, larger is better. A static ranker (the size of the models,
        their accuracy on the source) is one more entry, and belongs in every
        comparison. A single array is called "scores".
    n_bootstrap : int, default=1000
        Resamples of the models; the same ones for all rankers.
    confidence_level : float, default=0.95
        Level of the intervals, between 0 and 1.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples. Pass an int for the same intervals every time.

    Returns
    -------
    AgreementReport
        For every ranker `tau_w` (:func:`weighted_kendall_tau`), `tau`
        (:func:`kendall_tau`), :func:`spearman`, :func:`pearson`, `top_1_hit`,
        `top_3_hit` (:func:`top_k_hit`) and :func:`regret`, each with an interval.

    Raises
    ------
    TypeError
        If `n_bootstrap` or `confidence_level` is not a number.
    ValueError
        If there is no ranker, there are fewer than two models or a NaN, or a parameter
        is out of range.

    Notes
    -----
    Percentile intervals: models are drawn with replacement as often as there are
    models, coefficients are those of the resample (where the copies of a model are tied
    and each takes a place among the top k), and the interval lies between
    percentiles. A resample in which performance or scores are constant has no
    correlation and is left out of that interval; `n_resamples` says how many remain,
    and without any the interval is NaN. Hits and regret are defined in all of them.

    The intervals answer for the choice of models, not for the target set nor for the
    noise in `performance`. With a dozen models they are wide, as they should be: on
    simulated Gaussian models correlated with 0.7, 95 % intervals held the expected
    correlation in 93 to 98 % of the sets of 12 models, and in 91 to 96 % of those of
    30. A hit is 0 or 1, and so are the ends of its interval. Regret is pulled to zero
    by resamples without the best model.

    Examples
    --------
    >>> from sktransfer.metrics import agreement_report
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
    check_scalar(n_bootstrap, "n_bootstrap", Integral, min_val=1)
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
    # How often each model is drawn is all that a coefficient depends on.
    counts = check_random_state(random_state).multinomial(
        n_models, np.full(n_models, 1 / n_models), size=n_bootstrap
    )
    tails = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]
    rows = []
    for name, (truth, values) in checked.items():
        resampled = _resampled_coefficients(truth, values, counts)
        for coefficient, function in _COEFFICIENTS.items():
            sample = resampled[coefficient]
            sample = sample[~np.isnan(sample)]
            low, high = np.quantile(sample, tails) if len(sample) else (np.nan, np.nan)
            value = float(function(truth, values))
            rows.append((name, coefficient, value, low, high, len(sample)))
    columns = ("ranker", "coefficient", "value", "low", "high", "n_resamples")
    table = {
        c: np.array(v) for c, v in zip(columns, zip(*rows, strict=True), strict=True)
    }
    return AgreementReport(table, n_models, int(n_bootstrap), float(confidence_level))


_COEFFICIENTS = {
    "tau_w": weighted_kendall_tau,
    "tau": kendall_tau,
    "spearman": spearman,
    "pearson": pearson,
    "top_1_hit": top_k_hit,
    "top_3_hit": lambda performance, scores: top_k_hit(performance, scores, k=3),
    "regret": regret,
}
_FORMATS = {"top_1_hit": ".0f", "top_3_hit": ".0f", "regret": ".3g"}


def _resampled_coefficients(
    performance: np.ndarray, scores: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """All coefficients of many resamples at once.

    Parameters
    ----------
    performance, scores : ndarray of shape (n_models,)
    counts : ndarray of int, shape (n_resamples, n_models)
        How often each model is in each resample. Copies are tied in both arguments,
        and sums over pairs of the resample become sums over pairs of models.

    Returns
    -------
    dict of str to ndarray of shape (n_resamples,)
        NaN where the resample has constant performance or scores.
    """
    n_drawn = counts.sum(axis=1, keepdims=True)
    signs_p, signs_s = _pair_signs(performance), _pair_signs(scores)
    # Row sums over the second model of each pair.
    right = counts @ (signs_p * signs_s)
    untied_p, untied_s = counts @ np.abs(signs_p), counts @ np.abs(signs_s)

    def ratio(weights, xy, xx, yy):
        xy, xx, yy = (np.sum(weights * a, axis=1) for a in (xy, xx, yy))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.clip(xy / (np.sqrt(xx) * np.sqrt(yy)), -1, 1)

    def product_moment(x, y):
        return ratio(counts, x * y, x * x, y * y)

    def centred(x):
        with np.errstate(invalid="ignore"):
            return x - (counts @ x)[:, np.newaxis] / n_drawn

    tau_w = [
        ratio(_hyperbolic_weights(counts, order), right, untied_p, untied_s)
        for order in (
            np.lexsort((scores, performance))[::-1],
            np.lexsort((performance, scores))[::-1],
        )
    ]
    correlations = {
        "tau_w": np.mean(tau_w, axis=0),
        "tau": ratio(counts, right, untied_p, untied_s),
        # Twice the centred mid-ranks.
        "spearman": product_moment(counts @ signs_p.T, counts @ signs_s.T),
        "pearson": product_moment(centred(performance), centred(scores)),
    }
    # Rounding in a mean can make a constant seem to vary.
    constant = ~np.any(counts * untied_p, axis=1) | ~np.any(counts * untied_s, axis=1)
    for values in correlations.values():
        values[constant] = np.nan

    drawn = counts > 0
    best = np.where(drawn, performance, -np.inf).max(axis=1)
    order = np.argsort(-scores, kind="stable")
    ahead = np.cumsum(counts[:, order], axis=1) - counts[:, order]
    among_best = drawn[:, order] & (performance[order] == best[:, np.newaxis])
    picked = order[np.argmax(drawn[:, order], axis=1)]
    return correlations | {
        "top_1_hit": np.any(among_best & (ahead < 1), axis=1).astype(np.float64),
        "top_3_hit": np.any(among_best & (ahead < 3), axis=1).astype(np.float64),
        "regret": best - performance[picked],
    }


def _hyperbolic_weights(counts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Sum of 1 / place over the copies of each model, where `order` has the places."""
    last = np.cumsum(counts[:, order], axis=1)
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, last.max() + 1)))
    weights = np.empty(counts.shape)
    weights[:, order] = harmonic[last] - harmonic[last - counts[:, order]]
    return weights


def _pair_signs(values: np.ndarray) -> np.ndarray:
    """Sign of the difference of each pair; a difference of infinities would be NaN."""
    larger = values[:, np.newaxis] > values
    return larger.astype(np.float64) - larger.T
