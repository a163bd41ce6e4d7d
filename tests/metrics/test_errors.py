"""Input that no metric can score is refused with a message of its own."""

from __future__ import annotations

import numpy as np
import pytest

from sktransfer.metrics import (
    LabelledData,
    coding_rate,
    get_metric,
    get_scorer_names,
    leep_score,
    logme_score,
    nce_score,
    transrate_score,
)

each_metric = pytest.mark.parametrize("name", get_scorer_names())
OF_CLASSES = [
    name for name in get_scorer_names() if "classification" in get_metric(name).tasks
]


def function_of(name):
    """The score function of a metric, of one layer if it reads layers."""
    metric = get_metric(name)
    if metric.reads != "layers":
        return metric.score_func
    return lambda X, *args, **options: metric.score_func({"last": X}, *args, **options)


@pytest.fixture
def given(name):
    """A metric's function, and something that it accepts."""
    metric = get_metric(name)
    rng = np.random.default_rng(0)
    y = np.arange(36) % 3
    features = metric.reads != "source_proba"
    X = rng.normal(size=(36, 4)) if features else rng.dirichlet(np.ones(4), size=36)
    assert np.isfinite(function_of(name)(X, y))
    return function_of(name), X, y


@each_metric
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_and_infinite_values(name, value, given):
    function, X, y = given
    X[3, 1] = value
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        function(X, y)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_one_class(name, given):
    function, X, y = given
    with pytest.raises(ValueError, match=r"at least 2 classes; got 1 class: 7"):
        function(X, np.full_like(y, 7))


@each_metric
def test_lengths(name, given):
    function, X, y = given
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        function(X, y[:-1])


@each_metric
@pytest.mark.parametrize("shape", [(0, 4), (12, 0)])
def test_nothing_to_measure(name, shape, given):
    function, _, y = given
    with pytest.raises(ValueError, match="minimum of"):
        function(np.empty(shape), y[: shape[0]])


@pytest.mark.parametrize("name", ["h_score", "gbc", "leep", "nce"])
def test_numbers_where_labels_are_needed(name, given):
    function, X, y = given
    with pytest.raises(
        ValueError, match=f"{name} takes .* this is a regression target"
    ):
        function(X, y + 0.5)


@each_metric
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_labels_with_a_missing_value(name, given):
    function, X, y = given
    y = y.astype(float)
    y[0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        function(X, y)


@pytest.mark.parametrize("function", [coding_rate, transrate_score])
def test_options_of_transrate(function):
    X, y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3
    with pytest.raises(ValueError, match=r"'variant'.*\['icml', 'preprint'\].*'jmlr'"):
        function(X, y, variant="jmlr")
    for distortion in (0, -1.0, np.nan):
        with pytest.raises(ValueError, match="distortion must be positive"):
            function(X, y, distortion=distortion)


def test_constant_number_has_no_evidence_to_speak_of():
    X = np.random.default_rng(0).normal(size=(12, 4))
    with pytest.raises(ValueError, match="constant"):
        logme_score(X, np.full(12, 0.5))


@pytest.mark.parametrize("function", [leep_score, nce_score])
class TestSourceProbabilities:
    y = np.arange(12) % 3

    def test_rows_that_do_not_sum_to_one(self, function):
        P = np.full((12, 4), 0.25)
        P[5] = 0.26
        with pytest.raises(ValueError, match=r"sum to one.*deviate by up to 0\.04"):
            function(P, self.y)

    def test_logits(self, function):
        logits = np.random.default_rng(0).normal(size=(12, 4))
        with pytest.raises(ValueError, match="negative entries"):
            function(logits, self.y)

    @pytest.mark.parametrize("n_classes", [4, 50, 1000])
    def test_rounding_of_bfloat16_is_no_error(self, function, n_classes):
        """Eight bits: rows of its soft-max sum to one within 2 ** -8 only."""
        torch = pytest.importorskip("torch")
        logits = np.random.default_rng(0).normal(size=(200, n_classes))
        exact = torch.softmax(torch.tensor(logits), dim=1)
        y = np.arange(200) % 3
        expected = function(exact.numpy(), y)
        rounded = exact.bfloat16()
        assert float(abs(rounded.double().sum(1) - 1).max()) > 1e-4
        tolerance = 0.02 if function is nce_score else 1e-3  # ties of the first choice
        score = function(rounded, torch.tensor(y))
        assert score == pytest.approx(expected, rel=tolerance)
        assert function(rounded.float().numpy(), y) == pytest.approx(score, rel=1e-5)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_rounding_of_a_low_precision_is_no_error(self, function, dtype):
        # Rounded to half precision, rows sum to one within 1e-4 only.
        P = np.random.default_rng(0).dirichlet(np.ones(50), size=12)
        score = function(P.astype(dtype), self.y)
        assert score == pytest.approx(function(P, self.y), rel=2e-3)

    def test_the_same_rounding_in_double_precision_is(self, function):
        P = np.random.default_rng(0).dirichlet(np.ones(50), size=12)
        with pytest.raises(ValueError, match="sum to one"):
            function(P.astype(np.float16).astype(np.float64), self.y)


def test_nce_of_source_labels_of_another_length():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        nce_score(["a", "b"], [0, 1, 1])


def test_source_probabilities_of_other_samples():
    P, y = np.full((36, 2), 0.5), np.arange(36) % 3
    for n in (30, 40):
        data = LabelledData(np.ones((n, 2)), np.arange(n) % 3, source_proba=P)
        for name in ("leep", "nce"):
            with pytest.raises(ValueError, match="inconsistent numbers of samples"):
                get_metric(name).score(data)
    data = LabelledData(None, y, source_proba=P, task="regression")
    assert data.target.dtype == np.float64
    assert 0 < data.resolution < 1e-8
    with pytest.raises(ValueError, match="logme reads features; there are none"):
        get_metric("logme").score(data)
