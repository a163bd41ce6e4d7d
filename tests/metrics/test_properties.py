"""What holds for every metric whatever the data."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sktransfer.metrics import get_metric, get_scorer_names, transrate_score

OF_CLASSES = [
    name for name in get_scorer_names() if "classification" in get_metric(name).tasks
]
seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(8, 40), st.integers(2, 30))
# Metrics that fit models: fewer examples, and as many samples as a mixture needs.
SLOW = [
    name
    for name in get_scorer_names()
    if "\nfrom sklearn"
    in inspect.getsource(inspect.getmodule(get_metric(name).function))
]
N_SLOW = 10


def of_every_metric(check):
    """Make a test of a property, on drawn seeds and shapes, for each metric."""

    @pytest.mark.parametrize("name", OF_CLASSES)
    def test(name):
        @given(seed=seeds, shape=shapes)
        def run(seed, shape):
            n, d = shape
            check(name, seed, (n + 16, min(d, 12)) if name in SLOW else shape)

        (settings(max_examples=N_SLOW)(run) if name in SLOW else run)()

    test.__doc__ = check.__doc__
    return test


def function_of(name):
    """The score function of a metric, of one layer if it reads layers."""
    metric = get_metric(name)
    if metric.reads != "layers":
        return metric.score_func
    return lambda X, *args, **options: metric.score_func({"last": X}, *args, **options)


def draw(name, seed, shape, n_classes=3):
    """What a metric reads, and labels of which each is there at least twice."""
    rng = np.random.default_rng(seed)
    n, d = shape
    y = np.r_[np.tile(np.arange(n_classes), 2), rng.integers(n_classes, size=n)][:n]
    logits = rng.normal(size=(n, d)) + rng.normal(size=(n_classes, d))[y]
    if get_metric(name).reads != "source_proba":
        return logits, y, function_of(name)
    P = np.exp(2 * logits)
    return P / P.sum(axis=1, keepdims=True), y, function_of(name)


@of_every_metric
def test_the_names_of_the_labels_do_not_matter(name, seed, shape):
    X, y, function = draw(name, seed, shape)
    score = function(X, y)
    assert type(score) is float
    assert np.isfinite(score)
    for labels in ([0, 2, 9], ["a", "b", "c"], ["zebra", "ant", "bee"], [-1, 7, 3]):
        renamed = np.array(labels)[y]
        assert function(X, renamed) == pytest.approx(score, rel=1e-9, abs=1e-9)
        assert function(X, renamed.tolist()) == function(X, renamed)


@of_every_metric
def test_two_classes_in_any_dtype(name, seed, shape):
    X, y, function = draw(name, seed, shape, n_classes=2)
    score = function(X, y)
    texts = np.array(["no", "yes"])[y]
    for labels in (y == 1, y.astype(np.uint8), texts, texts.astype(object)):
        assert function(X, labels) == pytest.approx(score, rel=1e-12)


@of_every_metric
def test_the_order_of_the_samples_does_not_matter(name, seed, shape):
    if name == "linear_probe":
        return  # its folds go by the order, as documented
    X, y, function = draw(name, seed, shape)
    order = np.random.default_rng(seed).permutation(len(y))
    score = function(X, y)
    assert function(X[order], y[order]) == pytest.approx(score, rel=1e-8, abs=1e-9)


@of_every_metric
def test_the_layout_of_the_input_does_not_matter(name, seed, shape):
    X, y, function = draw(name, seed, shape)
    score = function(X, y)
    read_only = X.copy()
    read_only.setflags(write=False)
    spaced = np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)[::2, ::2]
    assert not spaced.flags.c_contiguous
    backwards = X[::-1].copy()[::-1]
    for same in (read_only, np.asfortranarray(X), spaced, backwards, X.tolist()):
        assert function(same, y) == pytest.approx(score, rel=1e-9, abs=1e-9)


@of_every_metric
def test_single_precision_is_close_to_double(name, seed, shape):
    if name == "nleep":
        # With few samples a component, rounding chooses the optimum the fit ends in.
        shape = 8 * shape[0], min(shape[1], 3)
    X, y, function = draw(name, seed, shape)
    if get_metric(name).reads != "source_proba":
        # Where samples are about as many as features, the smallest direction, or what
        # no direction explains, may be no larger than the rounding.
        assume(abs(len(y) - shape[1]) > 3)
    single = function(X.astype(np.float32), y)
    assert single == pytest.approx(function(X, y), rel=1e-4, abs=1e-4)


@of_every_metric
def test_inputs_are_left_as_they_were(name, seed, shape):
    X, y, function = draw(name, seed, shape)
    X_before, y_before = X.copy(), y.copy()
    function(X, y)
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(y, y_before)


@of_every_metric
def test_duplicated_features_as_the_registry_says(name, seed, shape):
    if name == "linear_probe":
        return  # an iterative solver: one sample on the border makes a step of 1 / n
    if name == "sfda" or name.startswith("ncti"):
        return  # copies change the shrinkage alone, which is nothing for large features
    X, y, function = draw(name, seed, shape)
    twice = np.hstack([X, X])
    if get_metric(name).reads == "source_proba":
        twice = twice / 2
    same = function(twice, y) == pytest.approx(function(X, y), rel=1e-6, abs=1e-7)
    assert same == get_metric(name).exact_under_duplication


@given(seed=seeds, shape=shapes)
def test_metrics_of_source_probabilities_are_at_most_zero(seed, shape):
    for name in ("leep", "nce"):
        P, y, function = draw(name, seed, shape)
        assert function(P, y) <= 1e-12


@given(seed=seeds, shape=shapes)
def test_h_score_is_bounded_and_blind_to_linear_maps(seed, shape):
    X, y, h_score = draw("h_score", seed, shape)
    score = h_score(X, y)
    assert 0 <= score <= 2 + 1e-9
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))
    assert h_score(3 * X @ rotation + 5, y) == pytest.approx(score, rel=1e-5, abs=1e-7)


@given(seed=seeds, shape=shapes)
def test_logme_and_transrate_are_blind_to_rotation_and_unit(seed, shape):
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))
    for name in ("logme", "transrate"):
        X, y, function = draw(name, seed, shape)
        score = function(1e3 * X @ rotation, y)
        assert score == pytest.approx(function(X, y), rel=1e-5, abs=1e-5)


@given(seed=seeds, shape=shapes, shift=st.floats(-10, 10))
def test_transrate_of_icml_does_not_see_a_shift(seed, shape, shift):
    X, y, _ = draw("transrate", seed, shape)
    score = transrate_score(X, y, variant="icml")
    shifted = transrate_score(X + shift, y, variant="icml")
    assert shifted == pytest.approx(score, rel=1e-6, abs=1e-7)


def test_many_samples_in_single_precision(global_random_seed):
    # More rows than are multiplied at once, so that partial sums are accumulated.
    rng = np.random.default_rng(global_random_seed)
    y = rng.integers(3, size=40_000)
    logits = rng.normal(size=(len(y), 6)) + np.eye(3, 6)[y] + 1
    P = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for name in set(get_scorer_names()).difference(SLOW):
        metric = get_metric(name)
        X = logits if metric.reads != "source_proba" else P
        single = function_of(name)(X.astype(np.float32), y)
        assert single == pytest.approx(function_of(name)(X, y), rel=1e-4, abs=1e-5)
