"""What a user hands in is checked once, with a message for each mistake."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from sktransfer.utils._validation import (
    check_features,
    check_labels,
    check_numeric_target,
    check_source_proba,
    check_weights,
    encode_labels,
    infer_task,
)


@pytest.fixture(params=["numpy", "torch", "array_api_strict"])
def xp(request):
    return pytest.importorskip(request.param)


def test_features_keep_their_precision(xp):
    for dtype in (xp.float32, xp.float64):
        X = xp.ones((3, 2), dtype=dtype)
        assert check_features(X).dtype == dtype
    assert check_features(xp.ones((3, 2), dtype=xp.int64)).dtype == xp.float64


def test_features_of_other_kinds():
    pd = pytest.importorskip("pandas")
    for X in ([[1, 2], [3, 4]], pd.DataFrame({"a": [1, 3], "b": [2, 4]})):
        checked = check_features(X)
        assert checked.dtype == np.float64
        np.testing.assert_array_equal(checked, [[1, 2], [3, 4]])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_must_be_finite(xp, value):
    with pytest.raises(ValueError, match=r"Input P contains (NaN|infinity)"):
        check_features(xp.asarray([[1.0, value]]), name="P")


def test_features_must_be_2d(xp):
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        check_features(xp.ones(3))


def test_features_must_be_enough(xp):
    with pytest.raises(ValueError, match=r"1 sample\(s\).* minimum of 2"):
        check_features(xp.ones((1, 3)), min_samples=2)
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        check_features(xp.ones((3, 0)))


def test_number_of_features(xp):
    estimator = BaseEstimator()
    check_features(xp.ones((3, 2)), estimator=estimator)
    assert estimator.n_features_in_ == 2
    with pytest.raises(ValueError, match=r"X has 4 features, but .* expecting 2"):
        check_features(xp.ones((3, 4)), estimator=estimator, reset=False)


def test_numeric_target(xp):
    X = xp.ones((3, 2))
    for y in (xp.asarray([1, 2, 3]), [1, 2, 3]):
        checked = check_numeric_target(y, X)
        assert checked.dtype == xp.float64
        assert type(checked) is type(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        check_numeric_target(xp.ones(4), X)
    with pytest.raises(ValueError, match=r"y contains (NaN|infinity)"):
        check_numeric_target(xp.asarray([1.0, 2.0, float("nan")]), X)
    with pytest.raises(ValueError, match=r"(one or two dimensions|dim 3)"):
        check_numeric_target(xp.ones((3, 1, 1)), X)


def test_labels(xp):
    X = xp.ones((4, 2))
    for y, classes in (
        (["b", "a", "b", "c"], ["a", "b", "c"]),
        (xp.asarray([7, 3, 7, 9]), [3, 7, 9]),
        ([True, False, True, True], [False, True]),
    ):
        found, codes = encode_labels(y, X)
        assert found.tolist() == classes
        assert type(codes) is type(X)
        codes = np.asarray(codes)
        np.testing.assert_array_equal(found[codes], check_labels(y, X))


def test_bad_labels():
    X = np.ones((3, 2))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        check_labels([0.5, 1.5, 2.5], X)
    with pytest.raises(ValueError, match="should be a 1d array"):
        check_labels(np.eye(3, 2), X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        check_labels([0, 1], X)
    with pytest.raises(ValueError, match="at least 2 classes; got 1 class: 5"):
        encode_labels([5, 5, 5], X)


def test_source_proba(xp):
    P = xp.asarray([[0.25, 0.75], [1.0, 0.0]])
    same, read = check_source_proba(P)
    assert np.asarray(same).tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert np.asarray(read(slice(1, 2))).tolist() == [[1.0, 0.0]]
    for bad, message in (
        (1.5 * P, r"must sum to one .* rows 0 to 1 deviate by up to 0.5"),
        (xp.asarray([[1.5, -0.5]] * 2), "must not have negative entries"),
        (xp.asarray([[0.5, float("nan")]] * 2), "contains NaN or infinity"),
        (xp.asarray([[float("inf"), -float("inf")]] * 2), "contains NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            check_source_proba(bad)[1](slice(0, 2))


def test_source_proba_of_float32():
    """A soft-max in single precision is off by more than one in double may be."""
    off = np.array([[0.5, 0.5 + 1e-4]])
    check_source_proba(off.astype(np.float32))[1](slice(0, 1))
    with pytest.raises(ValueError, match="must sum to one"):
        check_source_proba(off)[1](slice(0, 1))


def test_weights(xp):
    X = xp.ones((3, 2))
    assert check_weights(None, X) is None
    weights = check_weights(xp.asarray([1, 0, 2]), X)
    assert weights.dtype == xp.float64
    assert type(weights) is type(X)
    with pytest.raises(ValueError, match="Negative values in data"):
        check_weights(xp.asarray([1.0, -1.0, 1.0]), X)
    with pytest.raises(ValueError, match=r"sample_weight.shape == \(2,\)"):
        check_weights(xp.ones(2), X)
    with pytest.raises(ValueError, match="contains NaN"):
        check_weights(xp.asarray([1.0, float("nan"), 1.0]), X)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        ([0, 1, 1], "classification"),
        (["a", "b", "c"], "classification"),
        ([True, False, True], "classification"),
        ([3, 1, 2], "classification"),
        ([0.5, 1.5, 2.25], "regression"),
        (np.arange(151.0, 191.0).repeat(2), "regression"),
        (np.float32([[0, 1], [1, 1]]), "multilabel"),
        ([[True, False], [True, True]], "multilabel"),
        ([[0.5, 1.0], [1.5, 2.0]], "regression"),
        ([[1, 2], [3, 4]], "regression"),
        ([[0, 1], [1, 1]], "multilabel"),
    ],
)
def test_infer_task(y, task):
    assert infer_task(np.array(y)) == task
    assert infer_task(y, "regression") == "regression"


@pytest.mark.parametrize("missing", [None, float("nan"), np.float64("nan")])
def test_missing_labels_are_named(missing):
    y = np.array(["a", "b", missing, "a"], dtype=object)
    for check in (lambda: infer_task(y), lambda: check_labels(y, np.ones((4, 2)))):
        with pytest.raises(ValueError, match=r"None or NaN in 1 place.* row 2. Leave"):
            check()


def test_missing_labels_of_pandas_are_named():
    pandas = pytest.importorskip("pandas")
    y = pandas.Series(["a", pandas.NA, "b", None], dtype=object)
    with pytest.raises(ValueError, match=r"None or NaN in 2 place.* row 1. Leave"):
        infer_task(y)


def test_several_columns_are_no_classes():
    with pytest.raises(ValueError, match=r"one label per sample; .*\(3, 2\)"):
        infer_task(np.ones((3, 2)), "classification")
    assert infer_task(np.ones((3, 1)), "classification") == "classification"


def test_no_task():
    with pytest.raises(ValueError, match="Unknown label type: unknown"):
        infer_task(np.ones((2, 2, 2)))
