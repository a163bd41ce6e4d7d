"""The contract of displays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from sktransfer.utils._optional import import_optional


class BaseDisplay(ABC):
    """Base class of displays: a result as a table, and as a figure.

    A subclass defines :meth:`frame` and :meth:`plot`, which calls :meth:`set_axes`.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the plot, after :meth:`plot`.
    figure_ : matplotlib.figure.Figure
        Figure of these axes.
    """

    @abstractmethod
    def frame(self) -> Any:
        """Return the data as a tidy pandas.DataFrame, one observation per row."""

    @abstractmethod
    def plot(self, ax: Any = None) -> BaseDisplay:
        """Plot the data, on new axes by default, and return the display."""

    def set_axes(self, ax: Any = None, *, figsize: tuple | None = None) -> Any:
        """Set `ax_` and `figure_`, and return the axes.

        Without `ax`, create a figure of this width and height in inches. That needs
        matplotlib, and raises an ImportError without it.
        """
        if ax is None:
            name = f"{type(self).__name__}.plot"
            pyplot = import_optional("matplotlib.pyplot", extra="plot", needed_by=name)
            _, ax = pyplot.subplots(figsize=figsize, layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        return ax
