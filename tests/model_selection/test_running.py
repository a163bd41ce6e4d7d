"""Workers and callbacks."""

from __future__ import annotations

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.callback import ProgressBar
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from sktransfer.model_selection import ModelSelector

CANDIDATES = [("one", PCA(1)), ("scaled", StandardScaler()), ("five", PCA(5))]
TIMES = ("extract_time", "score_time")


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_give_the_same(backend, wine):
    X, y = wine
    scoring = ["logme", "transrate"]
    alone = ModelSelector(CANDIDATES, scoring=scoring).fit(X, y)
    with parallel_config(backend=backend, inner_max_num_threads=None):
        together = ModelSelector(CANDIDATES, scoring=scoring, n_jobs=2).fit(X, y)
    for name, column in alone.results_.items():
        if name not in TIMES:
            np.testing.assert_array_equal(together.results_[name], column)
    np.testing.assert_array_equal(
        together.probability_better_, alone.probability_better_
    )
    assert together.ranking_ == alone.ranking_
    np.testing.assert_array_equal(together.predict(X), alone.predict(X))


class Recorder:
    """A callback that writes down what it is told."""

    def __init__(self):
        self.events = []

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name))
        if context.parent is None:
            self.max_subtasks = context.max_subtasks

    def on_fit_task_end(self, estimator, context):
        self.events.append(("end", context.task_name))

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name))


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_callbacks_see_one_task_a_candidate(n_jobs, wine):
    recorder = Recorder()
    selector = ModelSelector(CANDIDATES, n_jobs=n_jobs).set_callbacks(recorder)
    with parallel_config(backend="threading"):
        selector.fit(*wine)
    events = recorder.events
    assert events[:2] == [("setup", "fit"), ("begin", "fit")]
    assert events[-2:] == [("end", "fit"), ("teardown", "fit")]
    names = [name for name, _ in CANDIDATES]
    for event in ("begin", "end"):
        assert [name for kind, name in events[2:-2] if kind == event] == names
    for name in names:
        assert events.index(("begin", name)) < events.index(("end", name))
    assert recorder.max_subtasks == 3


def test_callbacks_of_a_fit_that_fails(wine, broken):
    recorder = Recorder()
    candidates = [("one", PCA(1)), ("bad", broken())]
    selector = ModelSelector(candidates, error_score="raise").set_callbacks(recorder)
    with pytest.raises(OSError, match="damaged"):
        selector.fit(*wine)
    assert recorder.events[-1] == ("teardown", "fit")


def test_progress_bar(wine, capsys):
    ModelSelector(CANDIDATES).set_callbacks(ProgressBar()).fit(*wine)
    output = capsys.readouterr().out
    assert "ModelSelector - fit" in output
    assert "100%" in output
