"""Leave-one-out scores against refits, scikit-learn's scores, and the bootstrap."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    r2_score,
)
from sklearn.model_selection import (
    LeaveOneGroupOut,
    LeaveOneOut,
    StratifiedKFold,
    cross_val_predict,
)
from sklearn.preprocessing import scale

from sktransfer import ModelSelector
from sktransfer.exceptions import EqualClassesWarning, UnboundedEvidenceWarning
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.metrics import (
    LabelledData,
    get_metric,
    get_scorer,
    get_scorer_names,
    logme_score,
    loo_accuracy_score,
    loo_balanced_accuracy_score,
    loo_f1_score,
    loo_log_likelihood_score,
    loo_r2_score,
)
from sktransfer.utils._score import probability_better

NAMES = [name for name in get_scorer_names() if name.startswith("loo_")]
OF_CLASSES = [name for name in NAMES if name != "loo_r2"]
WINE, CLASSES = load_wine(return_X_y=True)
WINE = scale(WINE)[:, :4] + 3.0
LABELS = np.c_[CLASSES == 0, CLASSES == 1, WINE[:, 0] > 3.0].astype(int)
WORDS = np.arange(len(CLASSES)) // 5  # words of sentences


def head(X, y, task="classification"):
    kind = LogMEClassifier if task == "classification" else LogME
    params = {"prior": "shared"} if task == "classification" else {}
    return kind(fit_intercept=True, leave_one_out=True, **params).fit(X, y)


def refits(X, Y, model, split=None, groups=None):
    """Predictions of ridge regressions, each fitted without what it predicts."""
    penalty = np.asarray(model.alpha_ / model.beta_)
    split = split or LeaveOneOut()
    return cross_val_predict(Ridge(alpha=penalty), X, Y, cv=split, groups=groups)


def one_hot(y):
    return np.eye(3)[y]


class TestClasses:
    predictions = refits(WINE, one_hot(CLASSES), head(WINE, CLASSES))
    predicted = predictions.argmax(axis=1)

    @pytest.mark.parametrize(
        ("score", "reference"),
        [
            (loo_accuracy_score, accuracy_score),
            (loo_balanced_accuracy_score, balanced_accuracy_score),
            (loo_f1_score, lambda y, z: f1_score(y, z, average="macro")),
        ],
    )
    def test_scores_of_refits(self, score, reference):
        assert score(WINE, CLASSES) == pytest.approx(reference(CLASSES, self.predicted))

    def test_likelihood_at_the_best_temperature(self):
        own = np.arange(len(CLASSES)), CLASSES
        grid = np.geomspace(0.01, 1, 2000)
        values = [log_softmax(self.predictions / T, axis=1)[own].mean() for T in grid]
        score = loo_log_likelihood_score(WINE, CLASSES)
        assert score == pytest.approx(max(values), abs=1e-5)

    def test_groups(self):
        model = head(WINE, CLASSES)
        predictions = refits(
            WINE, one_hot(CLASSES), model, LeaveOneGroupOut(), groups=WORDS
        )
        expected = accuracy_score(CLASSES, predictions.argmax(axis=1))
        assert loo_accuracy_score(WINE, CLASSES, groups=WORDS) == expected
        names = [f"sentence {i}" for i in WORDS]
        assert loo_accuracy_score(WINE, CLASSES, groups=names) == expected

    def test_without_intercept(self):
        model = LogMEClassifier(prior="shared", leave_one_out=True).fit(WINE, CLASSES)
        score = loo_accuracy_score(WINE, CLASSES, fit_intercept=False)
        assert score == model.loo_accuracy_
        assert score != loo_accuracy_score(WINE, CLASSES)

    def test_an_intercept_has_no_need_of_a_mean(self):
        for name in OF_CLASSES:
            score = get_metric(name).score_func
            assert score(WINE + 5.0, CLASSES) == pytest.approx(score(WINE, CLASSES))


class TestLabels:
    predictions = refits(WINE, LABELS, head(WINE, LABELS, "multilabel"))

    def test_accuracy_and_f1(self):
        predicted = self.predictions > 0.5
        expected = np.mean(predicted == LABELS)
        assert loo_accuracy_score(WINE, LABELS) == pytest.approx(expected)
        expected = f1_score(LABELS, predicted, average="macro")
        assert loo_f1_score(WINE, LABELS) == pytest.approx(expected)

    def test_likelihood_at_the_best_temperature(self):
        signed = np.where(LABELS, 1, -1) * (2 * self.predictions - 1)
        grid = np.geomspace(0.01, 2, 2000)
        values = [-np.logaddexp(0, -signed / T).mean() for T in grid]
        score = loo_log_likelihood_score(WINE, LABELS)
        assert score == pytest.approx(max(values), abs=1e-5)


class TestNumbers:
    X, y = load_diabetes(return_X_y=True)

    def test_r2_of_refits(self):
        Y = np.c_[self.y, self.X[:, 2] + self.X[:, 3] ** 2]
        predictions = refits(self.X, Y, head(self.X, Y, "regression"))
        expected = r2_score(Y, predictions)
        assert loo_r2_score(self.X, Y) == pytest.approx(expected)

    def test_ridge_at_its_best_penalty_is_hardly_better(self):
        ridge = RidgeCV(np.geomspace(1e-3, 10, 50), store_cv_results=True)
        ridge.fit(self.X, self.y)
        best = 1 - ridge.cv_results_.mean(axis=0).min() / self.y.var()
        assert best - 0.005 < loo_r2_score(self.X, self.y) <= best + 1e-12

    def test_likelihood_is_a_density(self):
        score = loo_log_likelihood_score(self.X, self.y)
        in_tens = loo_log_likelihood_score(self.X, self.y / 10)
        assert in_tens == pytest.approx(score + np.log(10))

    def test_an_exact_fit_is_infinitely_likely(self):
        y = self.X[:, 0] + 0.5
        with pytest.warns(UserWarning, match="infinite"):
            assert loo_log_likelihood_score(self.X, y) == np.inf
        with pytest.warns(UserWarning, match="infinite"):
            assert loo_r2_score(self.X, y) == pytest.approx(1.0)

    def test_whole_numbers_are_numbers_for_r2(self):
        whole = self.y.astype(int)
        expected = loo_r2_score(self.X, whole.astype(float))
        assert loo_r2_score(self.X, whole) == pytest.approx(expected)


def data(name, sample_weight=None, rows=slice(None), groups=None):
    """Some samples with a target that the metric takes."""
    y = CLASSES
    if name == "loo_r2":
        y = WINE[:, 3] + CLASSES + np.random.default_rng(0).normal(size=len(CLASSES))
    return LabelledData(
        WINE[rows, :3], y[rows], sample_weight=sample_weight, groups=groups
    )


@pytest.mark.parametrize("name", NAMES)
class TestParts:
    def test_their_mean_is_the_value(self, name):
        weights = np.random.default_rng(0).integers(1, 4, size=len(CLASSES))
        for w in (None, weights.astype(float)):
            score = get_metric(name).score(data(name, w))
            assert np.average(score.parts, weights=w) == pytest.approx(score.value)
            assert score.std_error > 0

    def test_whole_weights_are_copies_of_which_one_is_left_out(self, name):
        weights = np.random.default_rng(1).integers(1, 4, size=len(CLASSES))
        rows = np.repeat(np.arange(len(CLASSES)), weights)
        weighted = get_metric(name).score(data(name, weights.astype(float)))
        copied = get_metric(name).score(data(name, rows=rows))
        assert weighted.value == pytest.approx(copied.value, abs=1e-9)
        assert weighted.std_error == pytest.approx(copied.std_error, rel=1e-6)

    def test_samples_of_weight_zero_say_nothing(self, name):
        weights = np.ones(len(CLASSES))
        weights[::3] = 0.0
        weighted = get_metric(name).score(data(name, weights))
        fewer = get_metric(name).score(data(name, rows=weights > 0))
        assert weighted.value == pytest.approx(fewer.value, abs=1e-9)
        assert weighted.std_error == pytest.approx(fewer.std_error, rel=1e-6)

    def test_groups_of_copies_have_the_error_of_one_copy(self, name):
        single = get_metric(name).score(data(name))
        rows = np.repeat(np.arange(len(CLASSES)), 2)
        pairs = get_metric(name).score(data(name, rows=rows, groups=rows))
        # The penalty differs a little, as copies count twice in the evidence.
        assert pairs.value == pytest.approx(single.value, abs=0.03)
        assert pairs.std_error == pytest.approx(single.std_error, rel=0.15)

    def test_training_variance_does_not_shrink_with_copies(self, name):
        single = get_metric(name).score(data(name))
        rows = np.repeat(np.arange(len(CLASSES)), 4)
        copies = get_metric(name).score(data(name, rows=rows, groups=rows))
        assert copies.training_variance > 0.6 * single.training_variance


def test_groups_that_are_all_right_are_counted_once():
    y = np.repeat([0, 1], 10)
    X = np.random.default_rng(0).normal(size=(20, 5)) + 8 * y[:, None]
    rows = np.repeat(np.arange(20), 50)
    score = get_metric("loo_accuracy").score(
        LabelledData(X[rows], y[rows], groups=rows)
    )
    # One error more among 20, not among 1000.
    assert score.std_error == pytest.approx(1 / 20)


def test_two_classes_are_as_sure_as_one_label():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 12))
    y = (X[:, 0] + rng.normal(size=80) > 0).astype(int)
    metric = get_metric("loo_log_likelihood")
    classes = metric.score(LabelledData(X, y))
    label = metric.score(LabelledData(X, y[:, None], task="multilabel"))
    assert classes.value == pytest.approx(label.value)
    assert classes.std_error == pytest.approx(label.std_error)


def test_features_that_explain_numbers_exactly_are_surely_better():
    X = np.random.default_rng(0).normal(size=(50, 6))
    y = X @ np.arange(6.0)
    with pytest.warns(UnboundedEvidenceWarning):
        scores = [
            get_metric("loo_log_likelihood").score(LabelledData(F, y))
            for F in (X, X[:, :2], 2 * X)
        ]
    expected = [[0.5, 1, 0.5], [0, 0.5, 0], [0.5, 1, 0.5]]
    np.testing.assert_array_equal(probability_better(scores), expected)


@pytest.mark.parametrize("name", NAMES)
def test_standard_error_is_that_of_the_bootstrap(name):
    """Of the samples that are predicted, by the same predictions."""
    score = get_metric(name).score(data(name))
    rng = np.random.default_rng(0)
    model = data(name).head
    predictions = np.asarray(model.loo_predictions_)
    y = np.asarray(data(name).target)
    references = {
        "loo_accuracy": lambda i: np.mean(predictions[i].argmax(axis=1) == y[i]),
        "loo_balanced_accuracy": lambda i: balanced_accuracy_score(
            y[i], predictions[i].argmax(axis=1)
        ),
        "loo_f1": lambda i: f1_score(
            y[i], predictions[i].argmax(axis=1), average="macro"
        ),
        "loo_log_likelihood": lambda i: np.mean(np.asarray(model.loo_log_density_)[i]),
        "loo_r2": lambda i: r2_score(y[i], predictions[i]),
    }
    draws = [references[name](rng.integers(len(y), size=len(y))) for _ in range(400)]
    assert np.std(score.parts) / np.sqrt(len(y)) == pytest.approx(
        np.std(draws), rel=0.15
    )


class TestNoInformation:
    """What features that say nothing get."""

    def test_logme_of_balanced_classes(self):
        for n_classes in (2, 10, 77):
            y = np.arange(20 * n_classes) % n_classes
            X = np.random.default_rng(0).normal(size=(len(y), 3))
            score = get_metric("logme").score(LabelledData(X, y))
            expected = 0.5 * (np.log(n_classes) - 1 - np.log(2 * np.pi))
            assert score.no_information == pytest.approx(expected)
            # The maximum of the evidence is never below that limit.
            assert 0 <= score.gain < 0.05

    @pytest.mark.parametrize("fit_intercept", [False, True])
    def test_logme_of_constant_features(self, fit_intercept):
        y = WINE[:, 0]
        model = LogME(fit_intercept=fit_intercept).fit(np.zeros((len(y), 2)), y)
        assert model.no_information_ == pytest.approx(model.logme_)
        model = LogME(fit_intercept=fit_intercept).fit(WINE[:, 1:], y)
        assert (
            model.logme_
            > model.no_information_
            == pytest.approx(
                logme_score(np.zeros((len(y), 2)), y, fit_intercept=fit_intercept)
            )
        )

    @pytest.mark.parametrize("name", OF_CLASSES)
    def test_of_unbalanced_classes(self, name):
        y = np.repeat([0, 1, 2], [60, 25, 15])
        expected = {
            "loo_accuracy": 0.6,
            "loo_balanced_accuracy": 1 / 3,
            "loo_f1": f1_score(y, np.zeros_like(y), average="macro", zero_division=0),
            "loo_log_likelihood": np.mean(np.log(np.array([0.6, 0.25, 0.15])[y])),
        }[name]
        constant = LabelledData(np.ones((100, 2)), y)
        score = get_metric(name).score(constant)
        assert score.no_information == pytest.approx(expected)
        # Left-out samples are predicted from one sample fewer of their own class.
        assert score.value == pytest.approx(expected, abs=0.03)

    def test_of_labels_and_numbers(self):
        p = LABELS.mean(axis=0)
        expected = np.mean(p * np.log(p) + (1 - p) * np.log(1 - p))
        score = get_metric("loo_log_likelihood").score(LabelledData(WINE, LABELS))
        assert score.no_information == pytest.approx(expected)
        score = get_metric("loo_accuracy").score(LabelledData(WINE, LABELS))
        expected = np.mean(np.maximum(p, 1 - p))
        assert score.no_information == pytest.approx(expected)
        score = get_metric("loo_r2").score(LabelledData(WINE[:, 1:], WINE[:, 0]))
        assert score.no_information == 0


class TestSharing:
    def test_one_head_for_all_scores(self, monkeypatch):
        fits, fit = [], LabelledData.fit_logme
        monkeypatch.setattr(
            LabelledData,
            "fit_logme",
            lambda data, **params: fits.append(params) or fit(data, **params),
        )
        samples = LabelledData(WINE, CLASSES, with_parts=True)
        for name in ("logme", *OF_CLASSES):
            get_metric(name).score(samples)
        assert len(fits) == 2  # the papers' LogME has no intercept
        fits.clear()
        samples = LabelledData(WINE, CLASSES, fit_intercept=True, with_parts=True)
        scores = {n: get_metric(n).score(samples) for n in ("logme", *OF_CLASSES)}
        assert len(fits) == 1
        expected = LogMEClassifier(fit_intercept=True, std_error=True)
        expected.fit(WINE, CLASSES)
        assert scores["logme"].value == pytest.approx(expected.logme_)
        assert scores["logme"].std_error == pytest.approx(expected.std_error_)

    def test_scorer_of_several(self):
        from sklearn.preprocessing import FunctionTransformer

        scores = get_scorer(OF_CLASSES)(FunctionTransformer(), WINE, CLASSES)
        for name in OF_CLASSES:
            assert scores[name] == get_metric(name).score_func(WINE, CLASSES)


class TestEqualClasses:
    """As many samples of each class on purpose: the one left out is of the smallest."""

    @staticmethod
    def draw(seed, per_class):
        X, y = load_digits(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(y))
        train = np.concatenate([order[y[order] == k][:per_class] for k in range(10)])
        return X, y, train, np.setdiff1d(order, train)

    def test_groups_of_one_of_each_are_nearer(self):
        gaps = []
        for seed in range(10):
            X, y, train, test = self.draw(seed, 3)
            groups = np.empty(len(train), dtype=int)
            folds = StratifiedKFold(3).split(X[train], y[train])
            for k, (_, rows) in enumerate(folds):
                groups[rows] = k
            data = LabelledData(X[train], y[train], groups=groups)
            reached = np.mean(data.head.predict(X[test]) == y[test])
            with pytest.warns(EqualClassesWarning, match="10 classes have 3 samples"):
                alone = loo_accuracy_score(X[train], y[train])
            grouped = get_metric("loo_accuracy").score(data).value
            gaps.append([alone - reached, grouped - reached])
        too_low, nearer = np.mean(gaps, axis=0)
        assert too_low < -0.08
        assert too_low / 2 < nearer < 0.02

    def test_no_warning(self):
        X, y, train, _ = self.draw(0, 5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loo_accuracy_score(X[train[1:]], y[train[1:]])
            loo_accuracy_score(X[train], y[train], groups=np.arange(50) % 5)
            X, y, train, _ = self.draw(0, 20)
            loo_accuracy_score(X[train], y[train])

    def test_no_advice_that_fails(self):
        X, y, train, _ = self.draw(0, 1)
        with pytest.warns(EqualClassesWarning, match="have 1 sample. ") as caught:
            loo_accuracy_score(X[train], y[train])
        assert "StratifiedKFold" not in str(caught[0].message)

    def test_groups_of_one_sample_each(self):
        X, y, train, _ = self.draw(0, 5)
        with pytest.warns(EqualClassesWarning):
            loo_accuracy_score(X[train], y[train], groups=np.arange(50))

    def test_weights_are_copies(self):
        X, y, train, test = self.draw(0, 5)
        rows = np.concatenate([train, test[:7]])
        weights = np.repeat([1.0, 0.0], [50, 7])
        with pytest.warns(EqualClassesWarning, match="10 classes have 5 samples"):
            loo_accuracy_score(X[rows], y[rows], sample_weight=weights)
        weights = np.r_[np.full(49, 1.0), 3.0]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loo_accuracy_score(X[train], y[train], sample_weight=weights)

    def test_one_warning_of_a_selection(self):
        X, y, train, _ = self.draw(0, 5)
        candidates = [("five", PCA(5)), ("ten", PCA(10))]
        selector = ModelSelector(candidates, scoring=["loo_accuracy", "loo_f1"])
        with pytest.warns(EqualClassesWarning) as caught:
            selector.fit(X[train], y[train])
        assert len(caught) == 1
        assert Path(caught[0].filename) == Path(__file__)


class TestBadInput:
    def test_a_group_that_is_everything(self):
        for name in NAMES:
            y = CLASSES if name in OF_CLASSES else WINE[:, 0]
            with pytest.raises(ValueError, match="at least 2 groups"):
                get_metric(name).score_func(WINE, y, groups=np.zeros(len(y), dtype=int))

    def test_too_few_groups_named(self):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            loo_accuracy_score(WINE, CLASSES, groups=[1, 2, 3])

    def test_the_only_sample_of_a_class_is_wrong(self):
        y = CLASSES.copy()
        y[0] = 3
        score = get_metric("loo_accuracy").score(LabelledData(WINE, y))
        assert score.parts[0] == 0
        assert np.isfinite(loo_log_likelihood_score(WINE, y))

    def test_samples_that_are_all_equal(self):
        X, y = np.ones((30, 3)), np.repeat([0, 1, 2], [15, 10, 5])
        assert loo_accuracy_score(X, y) == 0.5
        assert loo_r2_score(X, np.arange(30.0)) < 0

    def test_weights(self):
        with pytest.raises(ValueError, match="zero"):
            loo_accuracy_score(WINE, CLASSES, sample_weight=np.zeros(len(CLASSES)))

    def test_single_precision(self):
        X, y = load_digits(return_X_y=True)
        rng = np.random.default_rng(0)
        X = X @ rng.normal(size=(64, 80)) + 100.0
        for name in OF_CLASSES:
            score = get_metric(name).score_func
            single = score(X.astype(np.float32), y)
            assert single == pytest.approx(score(X, y), abs=1e-3)
