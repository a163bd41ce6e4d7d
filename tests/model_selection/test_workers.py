"""A candidate that its worker cannot take, survive or give back is a row, too."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from joblib import parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._warnings import (
    as_warning,
    collect_warnings,
    warnings_by_thread,
)

GOOD = [(f"pca{i}", PCA(i)) for i in (1, 2, 3, 4, 5)]


class Trouble(TransformerMixin, BaseEstimator):
    """Ends its process, or cannot be pickled before or after it is fitted."""

    def __init__(self, how, parent=None):
        self.how = how
        self.parent = parent
        if how == "unpicklable":
            self.lock = threading.Lock()

    def fit(self, X, y=None):
        if self.how in ("exits", "is killed"):
            assert os.getpid() != self.parent, "not in a worker"
            if self.how == "exits":
                os._exit(3)
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        if self.how == "unpicklable result":
            self.lock_ = threading.Lock()
        return self

    def transform(self, X):
        return np.asarray(X)[:, :2]


REASONS = {
    "exits": r"TerminatedWorkerError: .*EXIT\(3\)",
    "is killed": r"TerminatedWorkerError: .*SIGKILL",
    "unpicklable": "cannot pickle '_thread.lock' object",
    "unpicklable result": "cannot pickle '_thread.lock' object",
}


class Recorder:
    """A callback that writes down which tasks begin and end."""

    def __init__(self):
        self.events = []

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context):
        self.events.append(("end", context.task_name))

    def teardown(self, estimator, context):
        pass


def check_others(selector, wine, bad):
    """The rows of the good are what they are without the bad ones."""
    expected = ModelSelector(GOOD).fit(*wine)
    others = ~np.isin(selector.results_["name"], bad)
    np.testing.assert_array_equal(
        selector.results_["logme"][others], expected.results_["logme"]
    )
    assert selector.ranking_ == [*expected.ranking_, *bad]
    np.testing.assert_array_equal(selector.predict(wine[0]), expected.predict(wine[0]))


@pytest.mark.skipif(sys.platform == "win32", reason="names of signals are POSIX's")
def test_candidates_in_trouble_are_rows_with_their_errors(wine):
    bad = [(how, Trouble(how, os.getpid())) for how in REASONS]
    candidates = [*bad[:1], *GOOD[:2], *bad[1:3], *GOOD[2:4], *bad[3:], *GOOD[4:]]
    recorder = Recorder()
    selector = ModelSelector(candidates).set_callbacks(recorder)
    with (
        parallel_config(backend="loky", n_jobs=2),
        pytest.warns(CandidateFailedWarning, match="4 of 9 candidates failed"),
    ):
        selector.fit(*wine)
    errors = dict(
        zip(selector.results_["name"], selector.results_["error"], strict=True)
    )
    for how, reason in REASONS.items():
        assert re.search(reason, errors[how])
        assert "n_jobs=1" in errors[how]
    check_others(selector, wine, list(REASONS))
    # Some were run again, but callbacks see each of them once.
    for kind in ("begin", "end"):
        seen = [name for event, name in recorder.events if event == kind]
        assert sorted(seen) == sorted(["fit", *dict(candidates)])


def test_trouble_raises_where_failures_should(wine):
    candidates = [*GOOD, ("bad", Trouble("exits", os.getpid()))]
    selector = ModelSelector(candidates, error_score="raise")
    with (
        parallel_config(backend="loky", n_jobs=2),
        pytest.raises(TerminatedWorkerError),
    ):
        selector.fit(*wine)


def test_error_of_a_callback_is_not_one_of_the_candidate(wine):
    class Broken(Recorder):
        def on_fit_task_begin(self, estimator, context):
            if context.task_name == "pca2":
                raise OSError("no space left for the log")

    with pytest.raises(OSError, match="no space left"):
        ModelSelector(GOOD).set_callbacks(Broken()).fit(*wine)


@pytest.mark.parametrize("how", ["unpicklable", "unpicklable result"])
def test_backend_that_has_lists_only(how, wine):
    alone = ModelSelector(GOOD).fit(*wine)
    with parallel_config(backend="multiprocessing", n_jobs=2):
        together = ModelSelector(GOOD).fit(*wine)
        np.testing.assert_array_equal(together.predict(wine[0]), alone.predict(wine[0]))
        assert together.ranking_ == alone.ranking_
        candidates = [*GOOD[:2], ("bad", Trouble(how)), *GOOD[2:]]
        with pytest.warns(CandidateFailedWarning, match="cannot pickle '_thread.lock'"):
            selector = ModelSelector(candidates).fit(*wine)
    check_others(selector, wine, ["bad"])


def test_number_of_jobs_that_makes_no_sense(wine):
    with pytest.raises(ValueError, match="n_jobs == 0"):
        ModelSelector(GOOD, n_jobs=0).fit(*wine)


class Talkative(StandardScaler):
    """Warns, as soon as the other candidate is at work as well."""

    def __init__(self, barrier=None, text="so so"):
        super().__init__()
        self.barrier = barrier
        self.text = text

    def fit(self, X, y=None):
        for _ in range(3):
            if self.barrier is not None:
                self.barrier.wait(timeout=60)
            warnings.warn(self.text, RuntimeWarning, stacklevel=1)
        return super().fit(X, y)

    def __deepcopy__(self, memo):
        return self

    def __sklearn_clone__(self):
        return Talkative(self.barrier, self.text)


def rough(features, y):
    warnings.warn("rough", UserWarning, stacklevel=1)
    return 1.0


@pytest.mark.parametrize("backend", ["sequential", "threading", "loky"])
def test_warnings_name_the_candidate_in_any_worker(backend, wine):
    barrier = threading.Barrier(2) if backend == "threading" else None
    candidates = [(name, Talkative(barrier)) for name in "ab"]
    with (
        parallel_config(backend=backend, n_jobs=2),
        warnings.catch_warnings(record=True) as seen,
    ):
        warnings.simplefilter("default")
        ModelSelector(candidates, scoring=rough).fit(*wine)
    texts = [str(warning.message) for warning in seen]
    assert texts == ["a: so so", "a: rough", "b: so so", "b: rough"]
    assert [w.category for w in seen] == [RuntimeWarning, UserWarning] * 2
    assert {warning.filename for warning in seen} == {__file__}


def test_threads_leave_warnings_as_they_were(wine):
    """Nothing is silenced, shown or redirected once a threaded sweep is over."""

    def rest(features, y):
        # The last enters while others are at work, and leaves when they have left.
        time.sleep(0.003 * features.shape[1] ** 2)
        warnings.warn("hidden", RuntimeWarning, stacklevel=1)
        return 1.0

    candidates = [*GOOD, ("last", PCA(10))]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", RuntimeWarning)
        filters, show = list(warnings.filters), warnings.showwarning
        with parallel_config(backend="threading", n_jobs=3):
            ModelSelector(candidates, scoring=rest, refit=False).fit(*wine)
        warnings.warn("later", UserWarning, stacklevel=1)
        warnings.warn("hidden, too", RuntimeWarning, stacklevel=1)
        assert [str(warning.message) for warning in seen] == ["later"]
        assert list(warnings.filters) == filters
        assert warnings.showwarning is show


def test_collectors_that_overlap_in_threads():
    """The last to leave puts back what the first to enter found."""
    entered, left = threading.Event(), threading.Event()
    found = {}

    def second():
        with collect_warnings() as caught:
            entered.set()
            left.wait(timeout=60)
            warnings.warn("second", UserWarning, stacklevel=1)
        found["second"] = caught

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        show, filters = warnings.showwarning, list(warnings.filters)
        thread = threading.Thread(target=second)
        with collect_warnings() as caught:
            thread.start()
            assert entered.wait(timeout=60)
            for _ in range(2):
                warnings.warn("first", UserWarning, stacklevel=1)
        warnings.warn("of no collector", UserWarning, stacklevel=1)
        left.set()
        thread.join()
        assert warnings.showwarning is show
        assert list(warnings.filters) == filters
    assert caught == [("first", UserWarning)]
    assert found["second"] == [("second", UserWarning)]
    assert [str(warning.message) for warning in seen] == ["of no collector"]


def test_a_collector_inside_another():
    with warnings_by_thread(), collect_warnings() as outer:
        warnings.warn("before", UserWarning, stacklevel=1)
        with collect_warnings() as inner:
            warnings.warn("inside", UserWarning, stacklevel=1)
        warnings.warn("after", UserWarning, stacklevel=1)
    assert inner == [("inside", UserWarning)]
    assert [text for text, _ in outer] == ["before", "after"]


def test_category_that_is_not_made_of_a_text():
    class Exotic(FutureWarning):
        def __init__(self, *, name):
            super().__init__(name)

    warning = as_warning("text", Exotic)
    assert type(warning) is FutureWarning
    assert str(warning) == "text"
    assert type(as_warning("text", DeprecationWarning)) is DeprecationWarning
