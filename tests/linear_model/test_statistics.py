"""Statistics that add: merged, streamed or at once, the result is the same."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sktransfer.linear_model import LogME, LogMEClassifier, SufficientStatistics

N_FEATURES = 12


def draw(rng, task, n, d=N_FEATURES, weighted=False):
    X = rng.normal(size=(n, d)) + 0.5
    if task == "classification":
        y = np.arange(n) % 3
        X[:, 0] += y
    else:
        y = X[:, :2] + rng.normal(size=(n, 2))
    # A total weight above the number of rows, fewer than features, has no bound.
    return X, y, rng.uniform(0.5, 1, size=n) if weighted else None


def empty(task, d=N_FEATURES):
    return SufficientStatistics(d, n_classes=3 if task == "classification" else None)


def take(rows, *arrays):
    return [None if array is None else array[rows] for array in arrays]


def assert_same(one, other):
    for name in ("n_rows", "n_samples", "target_sums", "target_norms"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name))
    for name in ("gram", "cross", "feature_mean"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12)
    np.testing.assert_array_equal(one.constant_targets, other.constant_targets)
    for name in ("spectrum", "centred_spectrum"):
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(a.eigenvalues, b.eigenvalues, rtol=1e-9)
        np.testing.assert_allclose(
            a.projections**2, b.projections**2, rtol=1e-6, atol=1e-9
        )
        np.testing.assert_allclose(a.residual, b.residual, atol=1e-9)
        np.testing.assert_allclose(a.target_norms, b.target_norms)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [9, N_FEATURES, 40])
def test_definition(task, weighted, n, global_random_seed):
    X, y, w = draw(
        np.random.default_rng(global_random_seed), task, n, weighted=weighted
    )
    statistics = empty(task).update(X, y, w)
    Y = np.eye(3)[y] if task == "classification" else y
    w = np.ones(n) if w is None else w
    assert statistics.n_rows == n
    assert statistics.n_samples == pytest.approx(w.sum())
    np.testing.assert_allclose(statistics.gram, (X.T * w) @ X)
    np.testing.assert_allclose(statistics.cross, (X.T * w) @ Y, atol=1e-12)
    np.testing.assert_allclose(statistics.target_sums, w @ Y)
    np.testing.assert_allclose(statistics.target_norms, w @ Y**2)
    np.testing.assert_allclose(statistics.feature_mean, w @ X / w.sum())
    # The spectrum is that of the rows scaled by the roots of the weights.
    root = np.sqrt(w)[:, None]
    U, singular, _ = np.linalg.svd(root * X, full_matrices=False)
    spectrum = statistics.spectrum
    np.testing.assert_allclose(spectrum.eigenvalues, singular**2)
    np.testing.assert_allclose(
        spectrum.projections**2, (U.T @ (root * Y)) ** 2, rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(
        spectrum.basis.T @ spectrum.basis, np.eye(len(singular)), atol=1e-9
    )


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("n_first", "n_second"),
    [(5, 6), (7, 8), (5, 30), (30, 5), (30, 30), (0, 5), (30, 0)],
    ids=lambda n: f"{n} rows",
)
def test_merging(task, weighted, n_first, n_second, global_random_seed):
    """Rows are kept below 12 samples, the Gram matrix from there on."""
    rng = np.random.default_rng(global_random_seed)
    data = draw(rng, task, n_first + n_second, weighted=weighted)
    parts = []
    for rows in (slice(n_first), slice(n_first, None)):
        part = empty(task)
        if len(data[0][rows]):
            part.update(*take(rows, *data))
        parts.append(part)
    before = [pickle.dumps(part) for part in parts]
    merged = parts[0] + parts[1]
    assert_same(merged, empty(task).update(*data))
    assert [pickle.dumps(part) for part in parts] == before
    # The sum is a new object that can go on growing.
    more = draw(rng, task, 21, weighted=weighted)
    all_data = [
        None if old is None else np.concatenate([old, new])
        for old, new in zip(data, more, strict=True)
    ]
    assert_same(merged.update(*more), empty(task).update(*all_data))


def test_merging_weighted_with_unweighted(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X, y, w = draw(rng, "regression", 10, weighted=True)
    merged = empty("regression").update(X[:4], y[:4]) + empty("regression").update(
        X[4:], y[4:], w[4:]
    )
    w[:4] = 1
    assert_same(merged, empty("regression").update(X, y, w))


def test_merging_strangers():
    ours = SufficientStatistics(3)
    with pytest.raises(ValueError, match=r"same features and classes; .* n_features=4"):
        ours + SufficientStatistics(4)
    with pytest.raises(ValueError, match=r"n_classes=None and .* n_classes=2"):
        ours + SufficientStatistics(3, n_classes=2)
    with pytest.raises(TypeError):
        ours + 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("sizes", [[7, 2, 8, 13], [20, 10], [4, 4], [1] * 30])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_streaming_equals_fit(task, weighted, sizes, fit_intercept, global_random_seed):
    """From n < D to n > D in the middle, usable after every chunk."""
    rng = np.random.default_rng(global_random_seed)
    data = draw(rng, task, sum(sizes), weighted=weighted)
    kwargs, cls = {}, LogME
    if task == "classification":
        kwargs, cls = {"classes": [0, 1, 2]}, LogMEClassifier
    streamed = cls(fit_intercept=fit_intercept)
    start = 0
    for size in sizes:
        X, y, w = take(slice(start, start + size), *data)
        streamed.partial_fit(X, y, sample_weight=w, **kwargs)
        start += size
        if start >= 7:
            X, y, w = take(slice(start), *data)
            whole = cls(fit_intercept=fit_intercept).fit(X, y, w)
            assert streamed.logme_ == pytest.approx(whole.logme_, abs=1e-8)
            np.testing.assert_allclose(
                streamed.coef_, whole.coef_, rtol=1e-5, atol=1e-7
            )
            np.testing.assert_allclose(
                streamed.intercept_, whole.intercept_, rtol=1e-5, atol=1e-7
            )


def test_order_of_chunks(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X, y, w = draw(rng, "classification", 33, weighted=True)
    chunks = np.split(np.arange(33), [5, 9, 24])
    scores = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        model = LogMEClassifier()
        for i in order:
            rows = chunks[i]
            model.partial_fit(X[rows], y[rows], [0, 1, 2], w[rows])
        scores.append(model.logme_)
    np.testing.assert_allclose(scores, scores[0], rtol=0, atol=1e-10)


def test_reused_buffers(global_random_seed):
    """Rows that are kept must not follow what the caller does to his arrays."""
    rng = np.random.default_rng(global_random_seed)
    X, y, w = draw(rng, "regression", 9, weighted=True)
    statistics = empty("regression")
    buffers = [np.empty((3, N_FEATURES)), np.empty((3, 2)), np.empty(3)]
    for start in range(0, 9, 3):
        for buffer, array in zip(buffers, (X, y, w), strict=True):
            buffer[:] = array[start : start + 3]
        statistics.update(*buffers)
    assert_same(statistics, empty("regression").update(X, y, w))


def test_inputs_are_left_alone(global_random_seed):
    X, y, w = draw(
        np.random.default_rng(global_random_seed), "regression", 9, weighted=True
    )
    copies = [array.copy() for array in (X, y, w)]
    for fit_intercept in (False, True):
        LogME(fit_intercept=fit_intercept, std_error=True).fit(X, y, w).predict(X)
    for array, copy in zip((X, y, w), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_memory_does_not_grow(global_random_seed):
    """From n = D on a stream leaves nothing but the D x D statistics."""
    rng = np.random.default_rng(global_random_seed)
    statistics = empty("classification", d=30)
    sizes = []
    for _ in range(10):
        X, y, _ = draw(rng, "classification", 20, d=30)
        statistics.update(X, y)
        sizes.append(len(pickle.dumps(statistics)))
    assert statistics._rows == []
    assert len(set(sizes[1:])) == 1
    assert sizes[-1] < 8 * (30 * 30 + 30 * 3) + 4000


@pytest.mark.parametrize("n", [25, 3000])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_float32_is_close(task, n, global_random_seed):
    """Products in float32, sums and spectrum in float64."""
    rng = np.random.default_rng(global_random_seed)
    X, y, _ = draw(rng, task, n, d=40)
    X = np.maximum(X @ rng.normal(size=(40, 40)) + 5, 0)
    cls = LogMEClassifier if task == "classification" else LogME
    single = cls(std_error=True).fit(X.astype(np.float32), y)
    double = cls(std_error=True).fit(X, y)
    assert single.statistics_.gram.dtype == np.float64
    assert single.logme_ == pytest.approx(double.logme_, abs=1e-5)
    assert single.std_error_ == pytest.approx(double.std_error_, rel=1e-3, nan_ok=True)
    np.testing.assert_allclose(
        single.predict(X.astype(np.float32)), double.predict(X), rtol=1e-3, atol=1e-3
    )


def test_square_features_leave_nothing(global_random_seed):
    """N = D goes by the Gram matrix, whose rounding must not pass for noise."""
    for offset in range(20):
        rng = np.random.default_rng([global_random_seed, offset])
        X, y, _ = draw(rng, "regression", N_FEATURES)
        X *= np.geomspace(1, 1e-3, N_FEATURES)
        square = empty("regression").update(X, y).spectrum
        padded = np.hstack([X, np.zeros((N_FEATURES, 1))])
        wide = empty("regression", N_FEATURES + 1).update(padded, y).spectrum
        np.testing.assert_array_equal(square.residual, 0)
        np.testing.assert_array_equal(wide.residual, 0)


def test_constant_targets():
    X = np.arange(8.0).reshape(4, 2)
    y = np.array([[1.0, 2.0], [1.0, 3.0]])
    first = SufficientStatistics(2).update(X[:2], y)
    np.testing.assert_array_equal(first.constant_targets, [True, False])
    second = SufficientStatistics(2).update(X[2:], y + 1)
    assert not (first + second).constant_targets.any()
    # A sample without weight is no sample.
    first.update(X[2:3], np.array([[7.0, 7.0]]), np.zeros(1))
    np.testing.assert_array_equal(first.constant_targets, [True, False])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"y": np.array([1, 2, 3, 4, 5, 5])},
            r"codes from 0 to 4; got codes from 1 to 5",
        ),
        ({"y": np.array([0, -1, 2, 3, 4, 0])}, r"got codes from -1 to 4"),
        ({"y": np.arange(6.0)}, r"integers of shape \(n_samples,\); got float64"),
        ({"y": np.zeros((6, 1), dtype=int)}, r"of shape \(6, 1\)"),
        ({"y": np.zeros(5, dtype=int)}, r"same number of samples; got 6 and 5"),
        ({"X": np.ones((6, 29))}, r"shape \(n_samples, 30\); got \(6, 29\)"),
        ({"X": np.ones(30)}, r"shape \(n_samples, 30\); got \(30,\)"),
        ({"X": np.ones((6, 30), dtype=int)}, r"float32 or float64; got int64"),
        ({"sample_weight": np.ones(5)}, r"== \(5,\), expected \(6,\)"),
        ({"sample_weight": -np.ones(6)}, r"Negative values in .*sample_weight"),
        ({"sample_weight": np.full(6, np.nan)}, r"sample_weight contains NaN"),
    ],
)
def test_update_checks_what_it_is_given(change, message):
    """Class codes 1 to 5 of 5 classes wrote past the end of an array."""
    given = {"X": np.ones((6, 30)), "y": np.arange(6) % 5, **change}
    with pytest.raises(ValueError, match=message):
        SufficientStatistics(30, n_classes=5).update(**given)


@pytest.mark.parametrize("n", [5, 40])
def test_update_without_samples(n):
    X, y = np.random.default_rng(0).normal(size=(n, 12)), np.arange(n) % 3
    statistics = empty("classification").update(X[:0], y[:0]).update(X, y)
    assert_same(statistics, empty("classification").update(X, y))


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("start", [0, 20])
def test_chunk_of_a_stream_without_weight(start, fit_intercept):
    """It changes nothing; only if no chunk has any is there nothing to solve."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), rng.normal(size=60)
    weights = np.ones(60)
    weights[start : start + 20] = 0
    whole = LogME(fit_intercept=fit_intercept).fit(X, y, weights)
    stream = LogME(fit_intercept=fit_intercept)
    for rows in (slice(0, 20), slice(20, 40), slice(40, 60)):
        stream.partial_fit(X[rows], y[rows], weights[rows])
    assert stream.logme_ == pytest.approx(whole.logme_, abs=1e-9)
    empty = LogME(fit_intercept=fit_intercept).partial_fit(X, y, np.zeros(60))
    with pytest.raises(ValueError, match="samples of positive weight"):
        _ = empty.logme_


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("n", [5, 11, 40])
def test_refused_samples_leave_no_trace(task, n, global_random_seed):
    X, y, _ = draw(np.random.default_rng(global_random_seed), task, n)
    statistics = empty(task).update(X, y)
    with pytest.raises(ValueError, match="squares of the features overflow"):
        statistics.update(X * 1e200, y)
    assert_same(statistics, empty(task).update(X, y))
    assert_same(statistics.update(X, y), empty(task).update(X, y).update(X, y))


@pytest.mark.parametrize("n", [5, 40])
def test_merging_refuses_another_library(n):
    torch = pytest.importorskip("torch")
    X, y, _ = draw(np.random.default_rng(0), "classification", n)
    there = empty("classification").update(torch.asarray(X), torch.asarray(y))
    with pytest.raises(ValueError, match="must come from one library"):
        empty("classification").update(X, y) + there


@pytest.mark.parametrize("what", ["features", "targets"])
def test_sums_that_overflow_are_refused(what):
    X, y, _ = draw(np.random.default_rng(0), "regression", 40)
    large = (np.abs(X) * 1e153, y) if what == "features" else (X, np.abs(y) * 1e153)
    statistics = empty("regression").update(*large)
    with pytest.raises(ValueError, match=f"squares of the {what} overflow"):
        for _ in range(10):
            statistics += statistics
