"""A ranking of models as a dot plot."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sktransfer.inspection._base import BaseDisplay
from sktransfer.utils._optional import import_optional


class RankingDisplay(BaseDisplay):
    """Scores of ranked models with their standard errors, best first.

    Parameters
    ----------
    table : dict of str to array of shape (n_rows,)
        The columns `name`, `layer`, `score`, `std_error` and `rank`, best first.
        Unknown standard errors and scores of failed models are NaN.
    metric : str
        Name of the scores.

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

    def __init__(self, table: dict[str, Any], metric: str):
        self.table = table
        self.metric = metric

    @classmethod
    def from_selector(cls, selector: Any, metric: str | None = None) -> RankingDisplay:
        """Create the display from a fitted ModelSelector.

        By default it shows the metric that determines the ranking. A ValueError names
        the metrics of the selector if `metric` is not among them.
        """
        check_is_fitted(selector)
        results, metrics = selector.results_, list(selector.scorer_.metrics)
        if metric is None:
            metric = selector.refit if selector.refit in metrics else metrics[0]
        if metric not in metrics:
            raise ValueError(f"'metric' must be one of {metrics}. Got {metric!r}.")
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
        return cls({column: table[column][order] for column in table}, metric)

    def frame(self) -> Any:
        """Return a pandas.DataFrame with one row per model, or layer of a model."""
        needed_by = "RankingDisplay.frame"
        pandas = import_optional("pandas", extra="plot", needed_by=needed_by)
        return pandas.DataFrame(self.table)

    def plot(self, ax: Any = None) -> RankingDisplay:
        """Plot scores with bars of one standard error, the best on top.

        New axes have room for all rows. Scores that are not finite are in the labels.
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
        bars = " ± standard error" if np.isfinite(std_error).any() else ""
        ax.set_xlabel(self.metric + bars)
        ax.set_axisbelow(True)
        ax.grid(color="0.9")
        ax.spines[["top", "right"]].set_visible(False)
        return self
