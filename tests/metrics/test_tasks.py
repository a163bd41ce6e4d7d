"""Which task a target poses: decided once, refused once, told to every metric."""

from __future__ import annotations

import inspect
import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import (
    get_metric,
    get_scorer,
    get_scorer_names,
    h_score,
    lfc_score,
    linear_probe_score,
    logme_score,
    make_transferability_scorer,
    transrate_score,
)
from sktransfer.utils._validation import describe_task

DIABETES, WHOLE = load_diabetes(return_X_y=True)
WINE, LABELS = load_wine(return_X_y=True)
WINE = StandardScaler().fit_transform(WINE)
TOLD = [
    name
    for name in get_scorer_names()
    if "task" in inspect.signature(get_metric(name).score_func).parameters
]
OF_NUMBERS = [name for name in TOLD if "regression" in get_metric(name).tasks]
AS_IT_IS = FunctionTransformer()
told = pytest.mark.parametrize("name", TOLD)


def function_of(name):
    """The score function of a metric, of one layer if it reads layers."""
    metric = get_metric(name)
    if metric.reads != "layers":
        return metric.score_func
    return lambda X, *args, **options: metric.score_func({"last": X}, *args, **options)


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "scores of all layers see the features only")
        yield


def test_those_that_take_several_tasks_are_told_which():
    several = [n for n in get_scorer_names() if len(get_metric(n).tasks) > 1]
    assert several == TOLD


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_whole_floats_are_numbers(name):
    """The 214 different values of diabetes, 151.0 among them, are no classes."""
    function = function_of(name)
    assert function(DIABETES, WHOLE) == function(DIABETES, WHOLE, task="regression")
    # A quarter more makes them fractions, and changes no score but LogME's by its mean.
    if name not in ("logme", "laplace_evidence"):
        shifted = function(DIABETES, WHOLE + 0.25)
        assert function(DIABETES, WHOLE) == pytest.approx(shifted, rel=1e-6)


@told
def test_a_typo_in_the_task_is_refused(name):
    with pytest.raises(ValueError, match=r"'task' parameter must.*Got 'clasification'"):
        function_of(name)(WINE, LABELS, task="clasification")


@told
@pytest.mark.parametrize("target", [LABELS, np.eye(3)[LABELS] + LABELS[:, None]])
def test_several_labels_must_be_indicators(name, target):
    with pytest.raises(ValueError, match="multilabel target must hold 0/1 indicators"):
        function_of(name)(WINE, target, task="multilabel")


def test_few_whole_floats_are_ambiguous():
    floats = LABELS.astype(float)
    with pytest.warns(UserWarning, match=r"3 different.*pass task='classification'"):
        score = logme_score(WINE, floats)
    assert score == logme_score(WINE, floats, task="regression")
    forced = logme_score(WINE, floats, task="classification")
    assert forced == logme_score(WINE, LABELS)
    # A metric of classes has said what they are.
    assert h_score(WINE, floats) == h_score(WINE, LABELS)


def test_many_integers_are_ambiguous():
    integers = WHOLE.astype(int)
    with pytest.warns(UserWarning, match=r"214 classes.*pass task='regression'"):
        transrate_score(DIABETES, integers)
    expected = transrate_score(DIABETES, WHOLE)
    assert transrate_score(DIABETES, integers, task="regression") == expected
    transrate_score(DIABETES, integers, task="classification")


@pytest.mark.parametrize("function", [logme_score, lfc_score])
def test_an_id_beside_the_labels_is_explained(function):
    ids = np.arange(len(LABELS))
    names = np.array(["red", "white", "pink"])[LABELS]
    for column in (names, names.astype(object)):
        both = np.column_stack([ids.astype(column.dtype), column])
        with pytest.raises(ValueError, match=r"2 columns.*holds ids.*y\[:, 1\]"):
            function(WINE, both)
    with pytest.raises(ValueError, match="Column 0 of y counts the samples"):
        function(WINE, np.column_stack([ids[::-1] + 7, LABELS]))
    assert np.isfinite(
        function(WINE, np.column_stack([ids, LABELS]), task="regression")
    )


def test_lfc_speaks_for_itself():
    with pytest.raises(ValueError) as error:
        lfc_score(WINE, np.full(len(LABELS), np.nan), task="regression")
    assert "LogME" not in str(error.value)


@pytest.mark.parametrize(
    ("y", "task", "said"),
    [
        (LABELS, "classification", "classification, 3 classes"),
        (WHOLE, "regression", "regression, 1 target"),
        (DIABETES, "regression", "regression, 10 targets"),
        (np.eye(3), "multilabel", "multilabel, 3 labels"),
    ],
)
def test_description(y, task, said):
    assert describe_task(y, task) == said


class TestScorers:
    names = ["logme", "linear_probe", "transrate"]

    @pytest.mark.parametrize("dtype", [float, int])
    @pytest.mark.parametrize("predictor", [LogME(), Ridge()])
    def test_a_final_regressor_tells_that_whole_numbers_are_numbers(
        self, predictor, dtype
    ):
        y = WHOLE.astype(dtype)
        pipeline = make_pipeline(PCA(3), predictor).fit(DIABETES, y)
        F = pipeline[:-1].transform(DIABETES)
        scores = get_scorer(self.names)(pipeline, DIABETES, y)
        for name, score in scores.items():
            assert score == function_of(name)(F, y, task="regression")
        assert scores["linear_probe"] > 0.3

    @pytest.mark.parametrize("predictor", [LogMEClassifier(), LogisticRegression()])
    def test_a_final_classifier_tells_that_they_are_labels(self, predictor):
        floats = LABELS.astype(float)
        pipeline = make_pipeline(PCA(3), predictor).fit(WINE, floats)
        F = pipeline[:-1].transform(WINE)
        scores = get_scorer([*self.names, "h_score"])(pipeline, WINE, floats)
        for name, score in scores.items():
            assert score == pytest.approx(function_of(name)(F, LABELS))

    def test_in_cross_validation(self):
        pipeline = make_pipeline(PCA(3), Ridge())
        scoring = get_scorer("linear_probe")
        scores = cross_val_score(pipeline, DIABETES, WHOLE, scoring=scoring, cv=2)
        assert min(scores) > 0.3  # 0.01 where every number is a class

    def test_metric_of_another_task_is_refused_before_extraction(self):
        class Untouchable(PCA):
            def transform(self, X):
                raise AssertionError

        extractor = Untouchable(2).fit(DIABETES)
        message = "h_score takes classification.*this is a regression target"
        with pytest.raises(ValueError, match=message):
            get_scorer(["logme", "h_score"])(extractor, DIABETES, WHOLE)

    @pytest.mark.parametrize("name", OF_NUMBERS)
    def test_task_as_a_keyword(self, name):
        scorer = make_transferability_scorer(name, task="regression")
        function = function_of(name)
        expected = function(WINE, LABELS, task="regression")
        assert scorer(AS_IT_IS, WINE, LABELS) == expected
        several = make_transferability_scorer({"told": scorer, "not": name})
        scores = several(AS_IT_IS, WINE, LABELS)
        assert scores["told"] == expected
        assert scores["not"] == pytest.approx(function(WINE, LABELS), abs=1e-12)

    def test_metrics_of_classes_can_be_told_so(self):
        scorer = make_transferability_scorer("h_score", task="classification")
        score = scorer(AS_IT_IS, WINE, LABELS.astype(float))
        assert score == pytest.approx(h_score(WINE, LABELS))
        with pytest.raises(ValueError, match="'task' parameter"):
            make_transferability_scorer("h_score", task="classes")

    def test_functions_of_ones_own_are_told_if_they_ask(self):
        def asks(X, y, *, task):
            return {"classification": 1.0, "regression": 2.0}[task]

        def does_not(X, y):
            return 3.0

        functions = {"asks": asks, "does_not": does_not, "partial": partial(asks)}
        scorer = make_transferability_scorer(functions)
        scores = scorer(AS_IT_IS, WINE, LABELS)
        assert scores == {"asks": 1.0, "does_not": 3.0, "partial": 1.0}

    def test_a_task_bound_by_partial_stays(self):
        bound = partial(linear_probe_score, task="regression")
        scorer = make_transferability_scorer({"bound": bound})
        expected = linear_probe_score(WINE, LABELS, task="regression")
        assert scorer(AS_IT_IS, WINE, LABELS) == {"bound": expected}


@pytest.mark.parametrize("name", get_scorer_names())
def test_targets_of_other_libraries_and_dtypes(name):
    torch = pytest.importorskip("torch")
    pandas = pytest.importorskip("pandas")
    metric = get_metric(name)
    X = WINE if metric.reads != "source_proba" else np.full((len(WINE), 2), 0.5)
    binary = LABELS > 0
    expected = function_of(name)(X, binary)
    for y in (pandas.Series(binary), pandas.Series(binary).astype("Int64")):
        assert function_of(name)(X, y) == pytest.approx(expected)
    tensors = torch.tensor(X), torch.tensor(binary)
    assert function_of(name)(*tensors) == pytest.approx(expected)
    options = {"task": "classification"} if name in TOLD else {}
    bfloat16 = tensors[1].to(torch.bfloat16)
    assert function_of(name)(tensors[0], bfloat16, **options) == pytest.approx(expected)
