"""A display that is added by the contract alone."""

from __future__ import annotations

import numpy as np
import pytest

from sktransfer.agreement import regret
from sktransfer.inspection import BaseDisplay


class RegretDisplay(BaseDisplay):
    """Accuracy points lost by each ranker's pick."""

    def __init__(self, regrets):
        self.regrets = regrets

    def frame(self):
        import pandas

        return pandas.DataFrame(self.regrets.items(), columns=["ranker", "regret"])

    def plot(self, ax=None):
        ax = self.set_axes(ax)
        ax.bar(list(self.regrets), list(self.regrets.values()), color="0.4")
        ax.set_ylabel("regret")
        return self


def test_a_display_by_the_contract():
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("Agg")
    rankers = {"logme": [0.3, 0.4, 0.1], "size": [3, 2, 1]}
    display = RegretDisplay({k: regret([95, 93, 90], v) for k, v in rankers.items()})
    assert display.frame()["regret"].tolist() == [2, 0]
    assert display.plot() is display
    heights = [bar.get_height() for bar in display.ax_.patches]
    np.testing.assert_array_equal(heights, display.frame()["regret"])
    assert display.figure_ is display.ax_.figure


def test_both_methods_are_needed():
    class Half(BaseDisplay):
        def frame(self):
            return None

    with pytest.raises(TypeError, match="plot"):
        Half()
