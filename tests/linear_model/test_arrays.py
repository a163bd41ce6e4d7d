"""The same results from every array library, in the library that was given."""

from __future__ import annotations

import numpy as np
import pytest

from sktransfer.linear_model import LogME, LogMEClassifier

SHAPES = {"n < D": (30, 45), "n > D": (90, 12)}


@pytest.fixture(params=["torch", "array_api_strict"])
def xp(request):
    return pytest.importorskip(request.param)


@pytest.fixture
def data(global_random_seed):
    def draw(task, shape, dtype):
        n, d = SHAPES[shape]
        rng = np.random.default_rng(global_random_seed)
        X = (rng.normal(size=(n, d)) + 0.5).astype(dtype)
        if task == "classification":
            y = np.arange(n) % 3
            X[:, 0] += y
        else:
            y = X[:, :2] + 3 * rng.normal(size=(n, 2))
        return X, y, rng.uniform(0.5, 0.9, size=n)

    return draw


def host(array):
    return array.numpy() if hasattr(array, "numpy") else np.asarray(array)


def assert_close(value, expected, rtol):
    """To `rtol` of the largest finite entry."""
    size = np.max(np.abs(expected), where=np.isfinite(expected), initial=0)
    np.testing.assert_allclose(host(value), expected, rtol=rtol, atol=rtol * size)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_agrees_with_numpy(xp, data, task, shape, dtype, weighted, fit_intercept):
    X, y, w = data(task, shape, dtype)
    cls = LogMEClassifier if task == "classification" else LogME
    ours = cls(fit_intercept=fit_intercept, std_error=True)
    theirs = cls(fit_intercept=fit_intercept, std_error=True)
    ours.fit(X, y, w if weighted else None)
    Xt, yt, wt = (xp.asarray(array) for array in (X, y, w))
    theirs.fit(Xt, yt, wt if weighted else None)

    # Two libraries add float32 numbers up in different orders.
    rtol = 1e-3 if dtype == "float32" else 1e-6
    assert type(theirs.logme_) is type(theirs.std_error_) is float
    assert theirs.logme_ == pytest.approx(ours.logme_, abs=1e-3 * rtol)
    assert theirs.std_error_ == pytest.approx(ours.std_error_, rel=rtol)
    for name in ("log_evidence_", "alpha_", "beta_", "coef_", "intercept_",
                 "effective_dof_", "singular_values_", "influence_"):  # fmt: skip
        value, expected = getattr(theirs, name), getattr(ours, name)
        assert type(value) is type(Xt)
        assert value.dtype == xp.float64
        assert_close(value, expected, rtol)

    methods = ["predict_proba", "decision_function"]
    for method in methods if task == "classification" else ["predict"]:
        value = getattr(theirs, method)(Xt)
        assert type(value) is type(Xt)
        assert_close(value, getattr(ours, method)(X), rtol)
    density = theirs.log_predictive_density(Xt, yt)
    assert type(density) is type(Xt)
    np.testing.assert_allclose(
        host(density), ours.log_predictive_density(X, y), rtol=rtol, atol=rtol
    )
    assert theirs.score(Xt, yt) == pytest.approx(ours.score(X, y), abs=1e-3 * rtol)


def test_stream(xp, data):
    X, y, _ = data("classification", "n > D", "float64")
    model = LogMEClassifier()
    for start in range(0, 90, 10):
        rows = slice(start, start + 10)
        model.partial_fit(xp.asarray(X[rows]), xp.asarray(y[rows]), classes=[0, 1, 2])
    assert model.logme_ == pytest.approx(LogMEClassifier().fit(X, y).logme_)


def test_labels_need_not_be_arrays(xp, data):
    """Strings have no place in other libraries."""
    X, y, _ = data("classification", "n > D", "float64")
    names = np.array(["ant", "bee", "cat"])[y]
    model = LogMEClassifier().fit(xp.asarray(X), names)
    assert model.logme_ == pytest.approx(LogMEClassifier().fit(X, y).logme_)
    np.testing.assert_array_equal(
        model.predict(xp.asarray(X)), LogMEClassifier().fit(X, names).predict(X)
    )


def test_targets_need_not_be_arrays(xp, data):
    pd = pytest.importorskip("pandas")
    X, y, _ = data("regression", "n > D", "float64")
    expected = LogME().fit(X, y[:, 0]).logme_
    for target in (y[:, 0].tolist(), pd.Series(y[:, 0])):
        assert LogME().fit(xp.asarray(X), target).logme_ == pytest.approx(expected)


@pytest.mark.parametrize("cls", [LogME, LogMEClassifier])
def test_mixed_libraries(xp, data, cls):
    X, y, w = data("classification", "n > D", "float64")
    Xt, yt = xp.asarray(X), xp.asarray(y)
    message = r"one library and live on one device; got .*numpy on cpu"
    for arguments in ((Xt, y), (X, yt), (Xt, yt, w)):
        with pytest.raises(ValueError, match=message):
            cls().fit(*arguments)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cls", [LogME, LogMEClassifier])
def test_library_changed_between_calls(xp, data, shape, cls):
    X, y, _ = data("classification", shape, "float64")
    Xt, yt = xp.asarray(X), xp.asarray(y)
    for first, second in (((X, y), (Xt, yt)), ((Xt, yt), (X, y))):
        model = cls().fit(*first)
        with pytest.raises(ValueError, match=r"one library .* got X: .*coef_: "):
            model.predict(second[0])
        with pytest.raises(ValueError, match=r"one library .* got X: .*earlier X: "):
            model.partial_fit(*second)


def test_numpy_fallback_for_frames(data):
    pd = pytest.importorskip("pandas")
    X, y, _ = data("regression", "n > D", "float64")
    model = LogME().fit(pd.DataFrame(X).add_prefix("f"), pd.DataFrame(y))
    assert isinstance(model.coef_, np.ndarray)
    assert model.logme_ == pytest.approx(LogME().fit(X, y).logme_)


def test_gradients_stay_out(data):
    torch = pytest.importorskip("torch")
    X, y, _ = data("regression", "n > D", "float64")
    Xt = torch.asarray(X).requires_grad_()
    model = LogME(std_error=True).fit(Xt, torch.asarray(y).requires_grad_())
    assert not model.coef_.requires_grad
    assert not model.predict(Xt).requires_grad
    assert Xt.grad is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_raised(data, dtype):
    torch = pytest.importorskip("torch")
    X, y, _ = data("classification", "n > D", "float64")
    half = torch.asarray(X).to(getattr(torch, dtype))
    model = LogMEClassifier().fit(half, torch.asarray(y))
    expected = LogMEClassifier().fit(half.to(torch.float32), torch.asarray(y))
    assert model.logme_ == expected.logme_


def test_bad_tensors(xp):
    y = xp.asarray([0, 1, 0])
    with pytest.raises(ValueError, match="Input X contains NaN or infinity"):
        LogME().fit(xp.asarray([[1.0], [float("nan")], [2.0]]), y)
    with pytest.raises(ValueError, match="Input y contains NaN or infinity"):
        LogME().fit(xp.asarray([[1.0], [3.0], [2.0]]), xp.asarray([1.0, 2.0, np.inf]))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        LogME().fit(xp.asarray([1.0, 2.0, 3.0]), y)
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        LogME().fit(xp.zeros((3, 0)), y)
    with pytest.raises(ValueError, match="X has 2 features, but LogME is expecting 1"):
        model = LogME().fit(xp.asarray([[1.0], [3.0], [2.0]]), y)
        model.predict(xp.ones((3, 2)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LogME().fit(xp.asarray([[1.0], [3.0]]), y)
