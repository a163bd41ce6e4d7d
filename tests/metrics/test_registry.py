"""The registry: one entry a metric, and what it says of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import sktransfer.metrics as metrics
from sktransfer.metrics import Metric, get_metric, get_scorer, get_scorer_names
from sktransfer.metrics._registry import METRICS
from sktransfer.utils._validation import TASKS


def function_of(name):
    """The score function of a metric, of one layer if it reads layers."""
    metric = get_metric(name)
    if metric.reads != "layers":
        return metric.score_func
    return lambda X, *args, **options: metric.score_func({"last": X}, *args, **options)


def test_every_public_score_function_is_registered():
    public = {
        getattr(metrics, name) for name in metrics.__all__ if name.endswith("_score")
    }
    assert public == {metric.score_func for metric in METRICS.values()}


def test_names_are_sorted_and_those_of_the_entries():
    names = get_scorer_names()
    assert names == sorted(names)
    assert [get_metric(name).name for name in names] == names


@pytest.mark.parametrize("name", get_scorer_names())
def test_entries_are_complete(name):
    metric = get_metric(name)
    assert metric.reads in ("features", "source_proba", "layers")
    assert metric.tasks
    assert set(metric.tasks) <= set(TASKS)
    assert metric.reference
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.name = "other"


@pytest.mark.parametrize("name", get_scorer_names())
def test_tasks_are_those_that_the_function_takes(name):
    metric = get_metric(name)
    rng = np.random.default_rng(0)
    X = rng.dirichlet(np.ones(4), size=36)
    y = np.arange(36) % 3
    targets = {
        "classification": np.array(["a", "b", "c"])[y],
        "regression": rng.normal(size=36),
        "multilabel": np.c_[y == 0, y == 1].astype(int),
    }
    for task, target in targets.items():
        if task in metric.tasks:
            metric.check_task(task)
            assert np.isfinite(function_of(name)(X, target))
        else:
            with pytest.raises(ValueError, match=task):
                metric.check_task(task)
            says = r"y should be a 1d array|Unknown label|targets"
            with pytest.raises(ValueError, match=says):
                function_of(name)(X, target)


def test_wrong_task_names_metric_task_and_alternatives():
    with pytest.raises(ValueError) as error:
        get_scorer("h_score").check_task([0.5, 1.5, 2.5])
    assert "h_score takes classification targets" in str(error.value)
    assert "this is a regression target" in str(error.value)
    assert "Metrics that take it: ['logme', 'loo_log_likelihood', 'loo_r2'," in str(
        error.value
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [("transrte", "transrate"), ("logMe", "logme"), ("hscore", "h_score")],
)
def test_unknown_name_suggests_a_close_one(given, meant):
    with pytest.raises(
        ValueError, match=f"'{given}' is not a metric. Did you mean '{meant}'"
    ):
        get_metric(given)


@pytest.mark.parametrize("given", ["", "accuracy", None, ["logme"]])
def test_unknown_name_lists_all(given):
    with pytest.raises(ValueError, match="is not a metric") as error:
        get_metric(given)
    assert str(get_scorer_names()) in str(error.value)


def test_metrics_are_equal_by_content():
    # Pickles and deep copies of an entry are still that metric.
    logme = get_metric("logme")
    assert dataclasses.replace(logme) == logme
    assert isinstance(logme, Metric)
