"""A ranking of models as a dot plot."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sktransfer.inspection._base import BaseDisplay
from sktransfer.metrics import Metric
from sktransfer.utils._optional import import_optional

# P(better) from which the order of two models is clear.
CLEAR = 0.95
# Metrics that are read in per cent, unless they score numbers.
_ACCURACIES = (
    "loo_accuracy",
    "deep_loo_accuracy",
    "loo_balanced_accuracy",
    "loo_f1",
    "linear_probe",
    "knn",
)


class RankingDisplay(BaseDisplay):
    """Scores of ranked models with their standard errors, best first.

    Parameters
    ----------
    table : dict of str to array of shape (n_rows,)
        The columns `name`, `layer`, `score`, `std_error` and `rank`, best first.
        Unknown standard errors and scores of failed models are NaN.
    metric : str
        Name of the scores.
    groups : array of int of shape (n_rows,), optional
        The group of each row, from 0. Rows of one group are too close to call: the
        first is better than each of the others with a probability below 0.95. By
        default each row is a group.
    no_information : float, default=np.nan
        Score of features that say nothing about the target, if it is known.
    per_cent : bool, default=False
        Whether the scores are fractions that the figure shows in per cent.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.decomposition import PCA
    >>> from sktransfer import ModelSelector
    >>> from sktransfer.inspection import RankingDisplay
    >>> candidates = [("two", PCA(2)), ("one", PCA(1))]
    >>> selector = ModelSelector(candidates).fit(*load_wine(return_X_y=True))
    >>> RankingDisplay.from_selector(selector).frame()["name"].tolist()
    ['one', 'two']
    """

    def __init__(
        self,
        table: dict[str, Any],
        metric: str,
        *,
        groups: Any = None,
        no_information: float = np.nan,
        per_cent: bool = False,
    ):
        self.table = table
        self.metric = metric
        self.groups = np.arange(len(table["score"])) if groups is None else groups
        self.no_information = no_information
        self.per_cent = per_cent

    @classmethod
    def from_selector(cls, selector: Any, metric: str | None = None) -> RankingDisplay:
        """Create the display from a fitted ModelSelector.

        By default it shows the metric that determines the ranking. A ValueError names
        the metrics of the selector if `metric` is not among them.
        """
        check_is_fitted(selector)
        results, metrics = selector.results_, selector.scorer_.metrics
        if metric is None:
            metric = (
                selector.refit if selector.refit in metrics else next(iter(metrics))
            )
        if metric not in metrics:
            raise ValueError(
                f"'metric' must be one of {list(metrics)}. Got {metric!r}."
            )
        rank = results.get(f"rank_{metric}", results["rank"])
        order = np.argsort(rank, kind="stable")
        unknown = np.full(len(rank), np.nan)
        table = {
            "name": results["name"],
            "layer": results["layer"],
            "score": results[metric],
            "std_error": results.get(f"{metric}_std_error", unknown),
            "rank": rank,
        }
        better = getattr(selector, "probability_better_by_metric_", {}).get(metric)
        return cls(
            {column: table[column][order] for column in table},
            metric,
            groups=None if better is None else _groups(better[np.ix_(order, order)]),
            no_information=selector.no_information_.get(metric, np.nan),
            per_cent=_is_accuracy(metrics[metric], selector.task_),
        )

    def frame(self) -> Any:
        """Return a pandas.DataFrame with one row per model, or layer of a model."""
        needed_by = "RankingDisplay.frame"
        pandas = import_optional("pandas", extra="plot", needed_by=needed_by)
        return pandas.DataFrame(self.table)

    def plot(self, ax: Any = None) -> RankingDisplay:
        """Plot scores with bars of one standard error, the best on top.

        Models that are too close to call share a grey band, and a dashed line marks
        features that say nothing. New axes have room for all rows. Scores that are not
        finite are in the labels.
        """
        labels = []
        names = zip(*(self.table[c] for c in ("name", "layer", "score")), strict=True)
        for name, layer, score in names:
            label = f"{name}/{layer}" if layer else str(name)
            note = (
                "" if np.isfinite(score) else f" ({score:g})".replace("nan", "failed")
            )
            labels.append(label + note)
        places = np.arange(len(labels))
        ax = self.set_axes(ax, figsize=(6.4, 1 + 0.25 * len(labels)))
        scores = np.where(np.isfinite(self.table["score"]), self.table["score"], np.nan)
        std_error = self.table["std_error"]
        ax.errorbar(scores, places, xerr=std_error, fmt="ko", markersize=5, capsize=2)
        ax.set_yticks(places, labels, parse_math=False)
        ax.set_ylim(len(labels) - 0.5, -0.5)
        self._plot_groups(ax)
        if np.isfinite(self.no_information):
            self._plot_no_information(ax)
        bars = " ± standard error" if np.isfinite(std_error).any() else ""
        ax.set_xlabel(self.metric + bars)
        if self.per_cent:
            ax.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g} %")
        ax.set_axisbelow(True)
        ax.grid(color="0.9")
        ax.spines[["top", "right"]].set_visible(False)
        return self

    def _plot_groups(self, ax: Any) -> None:
        """Shade the groups of several rows."""
        for group in np.unique(self.groups):
            rows = np.flatnonzero(self.groups == group)
            if len(rows) > 1:
                ax.axhspan(rows[0] - 0.4, rows[-1] + 0.4, color="0.94", zorder=0)

    def _plot_no_information(self, ax: Any) -> None:
        ax.axvline(self.no_information, color="0.4", linestyle="--", linewidth=1)
        ax.annotate(
            "no information",
            (self.no_information, 1),
            (0, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            fontsize="small",
            color="0.4",
        )


def _groups(better: np.ndarray) -> np.ndarray:
    """Group of each row, best first, from P(row i better than row j)."""
    groups, first = np.zeros(len(better), dtype=int), 0
    for row in range(1, len(better)):
        # Unknown probabilities make no group.
        if not better[first, row] < CLEAR:
            first = row
        groups[row] = groups[row - 1] + (first == row)
    return groups


def _is_accuracy(metric: Metric, task: str) -> bool:
    return metric.name in _ACCURACIES and metric.check_task(task) != "regression"
