"""The same numbers from other array libraries."""

from __future__ import annotations

import numpy as np
import pytest

from sktransfer.metrics import coding_rate, get_metric, get_scorer_names, nce_score

torch = pytest.importorskip("torch")
OF_CLASSES = [
    name for name in get_scorer_names() if "classification" in get_metric(name).tasks
]


def function_of(name):
    """The score function of a metric, of one layer if it reads layers."""
    metric = get_metric(name)
    if metric.reads != "layers":
        return metric.score_func
    return lambda X, *args, **options: metric.score_func({"last": X}, *args, **options)


def draw(name, shape, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(shape[0]) % 3)
    logits = rng.normal(size=shape) + rng.normal(size=(3, shape[1]))[y]
    if get_metric(name).reads != "source_proba":
        return logits, y
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), y


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("shape", [(40, 6), (15, 25)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_torch_gives_the_floats_of_numpy(name, shape, dtype, tolerance):
    function = function_of(name)
    X, y = draw(name, shape)
    expected = function(X, y)
    tensor = torch.tensor(X, dtype=getattr(torch, dtype))
    texts = np.array(["a", "b", "c"])[y]
    for labels in (torch.tensor(y), y.tolist(), texts):
        score = function(tensor, labels)
        assert type(score) is float
        assert score == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", get_scorer_names())
def test_torch_in_unusual_states(name):
    function = function_of(name)
    X, y = draw(name, (30, 6))
    tensor = torch.tensor(X, requires_grad=True)
    assert function(tensor, y.tolist()) == pytest.approx(function(X, y), rel=1e-9)
    strided = torch.tensor(X.T.copy()).T
    assert function(strided, y.tolist()) == pytest.approx(function(X, y), rel=1e-9)
    assert tensor.grad is None


@pytest.mark.parametrize("variant", ["preprint", "icml"])
@pytest.mark.parametrize("shape", [(40, 6), (15, 25)])
def test_coding_rate_of_torch(variant, shape):
    X, y = draw("transrate", shape)
    tensor = torch.tensor(X)
    for labels in (None, torch.tensor(y)):
        expected = coding_rate(X, None if labels is None else y, variant=variant)
        rate = coding_rate(tensor, labels, variant=variant)
        assert type(rate) is float
        assert rate == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", get_scorer_names())
def test_two_libraries_at_once_are_refused(name):
    function = function_of(name)
    X, y = draw(name, (30, 6))
    with pytest.raises(ValueError, match=r"one library.*(torch.*numpy|numpy.*torch)"):
        function(torch.tensor(X), y)
    with pytest.raises(ValueError, match="one library"):
        function(X, torch.tensor(y))


def test_source_labels_as_a_tensor():
    z, y = [0, 0, 1, 1, 2], [1, 1, 1, 0, 0]
    expected = nce_score(z, y)
    assert nce_score(torch.tensor(z), torch.tensor(y)) == expected
    with pytest.raises(ValueError, match="one library"):
        nce_score(torch.tensor(z), np.array(y))


@pytest.mark.parametrize("name", get_scorer_names())
def test_missing_values_in_a_tensor(name):
    X, y = draw(name, (30, 6))
    X[0, 0] = np.nan
    with pytest.raises(ValueError, match="contains NaN or infinity"):
        function_of(name)(torch.tensor(X), torch.tensor(y))
