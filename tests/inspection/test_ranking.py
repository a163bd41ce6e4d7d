"""The ranking as a table and as a dot plot."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import FunctionTransformer

from sktransfer import ModelSelector
from sktransfer.inspection import RankingDisplay

X, y = load_wine(return_X_y=True)


def fail(X):
    raise ValueError("on purpose")


@pytest.fixture
def selector():
    candidates = [("one", PCA(1)), ("$all$", PCA()), ("two", PCA(2))]
    return ModelSelector(candidates, scoring=["logme", "h_score"]).fit(X, y)


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    yield pyplot
    pyplot.close("all")


def test_frame_is_tidy(selector):
    pytest.importorskip("pandas")
    frame = RankingDisplay.from_selector(selector).frame()
    assert list(frame) == ["name", "layer", "score", "std_error", "rank"]
    assert frame["name"].tolist() == selector.ranking_
    assert frame["rank"].tolist() == [1, 2, 3]
    results = selector.results_
    row = results["name"].tolist().index(frame["name"][0])
    assert frame["score"][0] == results["logme"][row]
    assert frame["std_error"][0] == results["logme_std_error"][row]


def test_metrics(selector):
    display = RankingDisplay.from_selector(selector, "h_score")
    assert (np.diff(display.table["score"]) <= 0).all()
    assert np.isnan(display.table["std_error"]).all()
    decides = selector.set_params(refit="h_score").fit(X, y)
    assert RankingDisplay.from_selector(decides).metric == "h_score"
    with pytest.raises(ValueError, match=r"one of \['logme', 'h_score'\]. Got 'gbc'"):
        RankingDisplay.from_selector(selector, "gbc")
    with pytest.raises(NotFittedError):
        RankingDisplay.from_selector(ModelSelector([("one", PCA(1))]))


def test_plot_is_best_on_top(selector, pyplot):
    display = RankingDisplay.from_selector(selector)
    assert display.plot() is display
    assert display.figure_ is display.ax_.figure
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == selector.ranking_
    assert display.ax_.yaxis_inverted()
    (dots, *_), *_ = display.ax_.containers
    np.testing.assert_array_equal(dots.get_xdata(), display.table["score"])
    assert display.ax_.get_xlabel() == "logme ± standard error"
    display.figure_.canvas.draw()  # dollars are no mathematics


def test_plot_on_given_axes(selector, pyplot):
    settings = dict(pyplot.rcParams)
    _, ax = pyplot.subplots()
    display = RankingDisplay.from_selector(selector, "h_score").plot(ax)
    assert display.ax_ is ax
    assert ax.get_xlabel() == "h_score"
    assert dict(pyplot.rcParams) == settings


def test_rows_have_room(pyplot):
    heights = []
    for n in (3, 40):
        values = np.linspace(0, 1, n)
        table = dict.fromkeys(["score", "std_error", "rank"], values)
        names = {"name": values.astype(str), "layer": ["last"] * n}
        display = RankingDisplay(table | names, "logme").plot()
        heights.append(display.figure_.get_size_inches()[1])
        assert display.ax_.get_yticklabels()[0].get_text() == "0.0/last"
    assert heights == [1.75, 11]


@pytest.mark.filterwarnings("ignore:1 of 2 candidates failed")
def test_failures_are_labelled(pyplot):
    candidates = [("bad", FunctionTransformer(fail)), ("good", PCA(2))]
    display = RankingDisplay.from_selector(ModelSelector(candidates).fit(X, y)).plot()
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["good", "bad (failed)"]
    assert np.isnan(display.table["score"][1])


def test_groups_are_too_close_to_call():
    metrics = ["logme", "loo_accuracy"]
    selector = ModelSelector([("a", PCA(1))], scoring=metrics, refit=False).fit(X, y)
    # As if five candidates had these scores and probabilities.
    selector.results_ = {
        "name": np.array(["c", "a", "b", "d", "e"]),
        "layer": np.full(5, ""),
        "logme": np.array([0.3, 0.5, 0.4, 0.2, np.nan]),
        "loo_accuracy": np.array([0.9, 0.8, 0.7, 0.6, 0.5]),
        "rank": np.array([3, 1, 2, 4, 5]),
        "rank_loo_accuracy": np.arange(1, 6),
    }
    P = np.full((5, 5), np.nan)
    P[1, 2], P[1, 0], P[1, 3] = 0.7, 0.94, 0.99  # a against b, c and d
    P[2, 0], P[2, 3], P[0, 3] = 0.96, 0.97, 0.6  # which decide nothing
    selector.probability_better_by_metric_ = {"logme": P}
    selector.no_information_ = {"logme": -1.0}

    display = RankingDisplay.from_selector(selector)
    assert display.table["name"].tolist() == ["a", "b", "c", "d", "e"]
    assert display.groups.tolist() == [0, 0, 0, 1, 2]
    assert display.no_information == -1
    assert not display.per_cent
    display = RankingDisplay.from_selector(selector, "loo_accuracy")
    assert display.groups.tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(display.no_information)
    assert display.per_cent


def test_only_accuracies_are_in_per_cent():
    y_numbers = X[:, 0] + 0.1
    for target, per_cent in ((y, True), (y_numbers, False)):
        selector = ModelSelector(
            [("two", PCA(2))], scoring=["logme", "knn"], task="auto"
        )
        selector.fit(X, target)
        assert RankingDisplay.from_selector(selector, "knn").per_cent is per_cent
        assert not RankingDisplay.from_selector(selector).per_cent


def test_plot_has_groups_and_no_information(pyplot):
    values = np.array([0.9, 0.8, 0.7, 0.6])
    table = dict.fromkeys(["score", "std_error", "rank"], values)
    table |= {"name": list("abcd"), "layer": [""] * 4}
    display = RankingDisplay(
        table,
        "loo_accuracy",
        groups=np.array([0, 1, 1, 2]),
        no_information=0.25,
        per_cent=True,
    ).plot()
    (band,) = display.ax_.patches
    np.testing.assert_allclose(band.get_bbox().intervaly, [0.6, 2.4])
    (line,) = (line for line in display.ax_.lines if line.get_linestyle() == "--")
    assert set(line.get_xdata()) == {0.25}
    assert [text.get_text() for text in display.ax_.texts] == ["no information"]
    assert display.ax_.xaxis.get_major_formatter()(0.25) == "25 %"
    assert display.ax_.yaxis_inverted()
    plain = RankingDisplay(table, "loo_accuracy").plot()
    assert not plain.ax_.patches
    assert not plain.ax_.texts


def test_without_optional_packages(selector, monkeypatch):
    display = RankingDisplay.from_selector(selector)
    for package, method in [("pandas", "frame"), ("matplotlib.pyplot", "plot")]:
        monkeypatch.setitem(sys.modules, package, None)
        says = rf"RankingDisplay.{method} needs {package}.*sktransfer\[plot\]"
        with pytest.raises(ImportError, match=says):
            getattr(display, method)()
