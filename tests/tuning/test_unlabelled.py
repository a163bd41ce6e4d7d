"""Samples without labels beside the labelled ones, and the penalties that use them."""

from __future__ import annotations

import os
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import skorch
import torch
from scipy.sparse import csr_array
from scipy.special import rel_entr, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer.exceptions import TransductiveScoreWarning, WeakTeachersWarning
from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.tuning import (
    BasePenalty,
    BayesianTuning,
    FeatureDistillation,
    FeatureMapDistance,
    FineTuneClassifier,
    FineTuneRegressor,
    PredictiveDistillation,
)
from sktransfer.tuning.penalties import _teachers

FAST = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}
PENALTIES = [BayesianTuning, FeatureDistillation, PredictiveDistillation]

pytestmark = pytest.mark.filterwarnings(
    "ignore::sktransfer.exceptions.WeakTeachersWarning"
)


@pytest.fixture
def unlabelled(data, global_random_seed):
    """A hundred samples around those of the classes."""
    rng = np.random.default_rng(global_random_seed + 1)
    X = data[0][rng.integers(60, size=100)]
    return (X + rng.normal(size=X.shape)).astype(np.float32)


class Spy(BasePenalty):
    """Notes the batches it sees, and the context."""

    uses_unlabelled = True

    def __init__(self, seen, weight=1e-3):
        self.seen = seen
        self.weight = weight

    def bind(self, context):
        self.seen.append(context)

        def term(batch):
            self.seen.append(batch)
            return batch.outputs.square().mean()

        return term

    def __sklearn_clone__(self):
        return self


def test_what_batches_hold(make_extractor, data, unlabelled):
    X, y = data
    seen = []
    model = FineTuneClassifier(
        make_extractor(0), penalty=Spy(seen), unlabelled_ratio=2.5, **FAST
    ).fit(X, y, unlabelled=unlabelled)
    context, *batches = seen
    assert context.unlabelled is unlabelled
    assert len(batches) == 3 * 4
    both = np.concatenate([X, unlabelled])
    for batch in batches:
        n = np.sum(batch.rows < 60)
        assert (batch.rows[:n] < 60).all()
        np.testing.assert_array_equal(batch.X, both[batch.rows])
        assert len(batch.features) == len(batch.outputs) == len(batch.rows)
    for epoch in np.split(np.arange(12), 3):
        rows = np.concatenate([batches[i].rows for i in epoch])
        np.testing.assert_array_equal(np.sort(rows[rows < 60]), np.arange(60))
        # 150 of 100: each once, half of them twice.
        assert sorted(set(np.bincount(rows[rows >= 60] - 60))) == [1, 2]
        assert np.sum(rows >= 60) == 150
    assert len(batches[0].rows) == 16 + 40
    # Only the labelled samples count for the loss.
    loss = model.history_[0, "batches", 0, "train_loss"]
    own = torch.nn.functional.cross_entropy(
        batches[0].outputs[:16], torch.from_numpy(y[batches[0].rows[:16]])
    )
    penalty = batches[0].outputs.square().mean()
    assert loss == pytest.approx((own + 1e-3 * penalty).item(), rel=1e-5)


def test_few_unlabelled_samples_come_again(make_extractor, data, unlabelled):
    seen = []
    FineTuneClassifier(make_extractor(0), penalty=Spy(seen), **FAST).fit(
        *data, unlabelled=unlabelled[:1]
    )
    for batch in seen[1:]:
        n = np.sum(batch.rows < 60)
        assert len(batch.rows) == 3 * n


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("regression", [False, True])
def test_targets_of_unlabelled_samples(
    make_extractor, data, unlabelled, penalty, regression, monkeypatch
):
    X, y = data
    y = X[:, 0] * 7 + 100 if regression else y
    kind = LogME if regression else LogMEClassifier
    teachers = [(make_extractor(1, 4), kind()), (make_extractor(2, 7), kind())]
    terms = []
    bind = penalty.bind
    monkeypatch.setattr(
        penalty, "bind", lambda *args: terms.append(bind(*args)) or terms[-1]
    )
    monkeypatch.setattr(_teachers, "_BLOCK", 33)
    tuner = FineTuneRegressor if regression else FineTuneClassifier
    model = tuner(make_extractor(0), penalty=penalty(teachers), **FAST)
    whole = clone(model).fit(X, y, unlabelled=unlabelled)
    (term,) = terms
    known = term.teacher_targets
    np.testing.assert_allclose(known[60:], term.teach(unlabelled), rtol=1e-5, atol=1e-5)
    # What is too large for the memory is the same from a file.
    monkeypatch.setattr(_teachers, "_MAX_BYTES", 0)
    streamed = clone(model).fit(X, y, unlabelled=unlabelled)
    assert isinstance(terms[1].teacher_targets, np.memmap)
    np.testing.assert_array_equal(streamed.predict(X), whole.predict(X))


def test_predictive_distillation_by_hand(make_extractor, data, unlabelled):
    X, y = data
    extractors = [make_extractor(1, 4), make_extractor(2, 7)]
    penalty = PredictiveDistillation([(e, LogMEClassifier()) for e in extractors])
    seen = []
    bind = penalty.bind

    def spy(context):
        term = bind(context)
        seen.append((context, term))
        return term

    penalty.bind = spy
    penalty.__sklearn_clone__ = lambda: penalty
    FineTuneClassifier(make_extractor(0), penalty=penalty, **FAST).fit(
        X, y, unlabelled=unlabelled
    )
    (_, term), *_ = seen
    scores, on_labelled, on_unlabelled, left_out = [], [], [], []
    for extractor in extractors:
        F = extractor.transform(X)
        head = LogMEClassifier(prior="shared", fit_intercept=True, leave_one_out=True)
        head.fit(F, y)
        scores.append(head.loo_log_likelihood_ / 0.1)
        # One fit without each sample says what its labels are.
        for i in (0, 7, 31):
            rest = np.delete(np.arange(60), i)
            again = clone(head).fit(F[rest], y[rest])
            mean = again.decision_function(F[i : i + 1]) * again.temperature_
            # alpha / beta is chosen anew here.
            np.testing.assert_allclose(mean[0], head.loo_predictions_[i], atol=0.1)
        left_out.append(head.loo_predictions_)
        on_labelled.append(softmax(head.loo_predictions_ / head.temperature_, axis=1))
        on_unlabelled.append(head.predict_proba(extractor.transform(unlabelled)))
    pi = softmax(scores)
    expected = np.tensordot(pi, np.concatenate([on_labelled, on_unlabelled], 1), 1)
    np.testing.assert_allclose(term.mixture_weights, pi, rtol=1e-5)
    np.testing.assert_allclose(term.teacher_targets, expected, atol=1e-5)
    rng = np.random.default_rng(0)
    rows, outputs = rng.integers(160, size=9), rng.normal(size=(9, 3))

    class Batch:
        features = torch.zeros(9, 5)

    Batch.outputs, Batch.rows = torch.from_numpy(outputs).float(), rows
    divergence = rel_entr(expected[rows], softmax(outputs, axis=1)).sum(axis=1).mean()
    assert term(Batch).item() == pytest.approx(divergence, rel=1e-4)
    accuracy = np.mean(np.tensordot(pi, on_labelled, 1).argmax(axis=1) == y)
    assert term.expectations.mixture == pytest.approx(accuracy)
    assert term.expectations.teachers == pytest.approx(
        [np.mean(p.argmax(axis=1) == y) for p in left_out]
    )


def test_expectations_of_numbers(make_extractor, data, unlabelled):
    X, _ = data
    y = 1e3 * X[:, :2] - 1e5
    extractors = [make_extractor(1, 4), make_extractor(2, 7)]
    for penalty in (BayesianTuning, PredictiveDistillation):
        teachers = [(e, LogME()) for e in extractors]
        model = FineTuneRegressor(make_extractor(0), penalty=penalty(teachers), **FAST)
        found = model.fit(X, y, unlabelled=unlabelled).penalty_.expectations
        for e, value in zip(extractors, found.teachers, strict=True):
            head = LogME(fit_intercept=True, leave_one_out=True).fit(e.transform(X), y)
            assert value == pytest.approx(r2_score(y, head.loo_predictions_))
        assert min(found.teachers) - 0.1 < found.mixture < 1


@pytest.mark.parametrize("penalty", [BayesianTuning, PredictiveDistillation])
def test_teachers_of_numbers_far_from_0(make_extractor, data, unlabelled, penalty):
    X, _ = data
    y = X[:, 0].astype(float)
    teachers = [(make_extractor(1, 7), LogME())]  # without an intercept
    model = FineTuneRegressor(make_extractor(0), penalty=penalty(teachers), **FAST)
    near = clone(model).fit(X, y, unlabelled=unlabelled).predict(X)
    far = clone(model).fit(X, y + 2000, unlabelled=unlabelled).predict(X)
    np.testing.assert_allclose(far - 2000, near, atol=1e-3)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_heads_of_teachers_do_not_see_validation_samples(
    make_extractor, data, unlabelled, weights, penalty
):
    X, y = data
    teachers = [(make_extractor(1, 4), LogMEClassifier())]
    fitted = [(e, clone(m).fit(e.transform(X), y)) for e, m in teachers]
    for pairs in (teachers, fitted):
        model = FineTuneClassifier(
            make_extractor(0),
            penalty=penalty(pairs),
            validation_fraction=0.3,
            **FAST,
        ).fit(X, y, unlabelled=unlabelled)
        seen = []
        FineTuneClassifier(
            make_extractor(0), penalty=Spy(seen), validation_fraction=0.3, **FAST
        ).fit(X, y, unlabelled=unlabelled)
        train = seen[0].train
        assert len(train) == 42
        for batch in seen[1:]:
            assert np.isin(batch.rows[batch.rows < 60], train).all()
        # Other labels of validation samples change nothing that is learnt.
        held_out = np.setdiff1d(np.arange(60), train)
        other = y.copy()
        a, b = (held_out[y[held_out] == k][0] for k in (0, 1))
        other[[a, b]] = other[[b, a]]
        if pairs is teachers:
            again = clone(model)
            # The same split, which is stratified, needs the same counts in place.
            again._split = _split_as(train, held_out)
            model = clone(model)
            model._split = _split_as(train, held_out)
            model.fit(X, y, unlabelled=unlabelled)
            again.fit(X, other, unlabelled=unlabelled)
            np.testing.assert_array_equal(weights(again), weights(model))


def _split_as(train, held_out):
    from dataclasses import replace

    return lambda samples, seed: (
        replace(samples, rows=train),
        replace(samples, rows=held_out),
    )


@pytest.mark.parametrize("penalty", PENALTIES)
def test_weight_0_is_plain_fine_tuning(
    make_extractor, data, unlabelled, weights, penalty
):
    X, y = data
    teachers = [(make_extractor(1, 4), LogMEClassifier())]
    plain = FineTuneClassifier(make_extractor(0), **FAST).fit(X, y)
    off = FineTuneClassifier(
        make_extractor(0), penalty=penalty(teachers, weight=0), **FAST
    ).fit(X, y, unlabelled=unlabelled)
    np.testing.assert_array_equal(weights(off), weights(plain))
    on = clone(off).set_params(penalty__weight=1.0).fit(X, y, unlabelled=unlabelled)
    assert not np.allclose(weights(on), weights(plain))


def test_what_nothing_learns_from_is_left_out_with_a_word(
    make_extractor, data, unlabelled, weights
):
    class Zero(BasePenalty):
        def bind(self, context):
            assert context.unlabelled is None
            return lambda batch: batch.features.sum() * 0

    plain = FineTuneClassifier(make_extractor(0), **FAST).fit(*data)
    for penalty, who in ((None, "no penalty learns"), (Zero(), "no Zero learns")):
        model = FineTuneClassifier(make_extractor(0), penalty=penalty, **FAST)
        with pytest.warns(UserWarning, match=f"100 unlabelled .* left out.*{who}"):
            model.fit(*data, unlabelled=unlabelled)
        np.testing.assert_array_equal(weights(model), weights(plain))


def test_a_teacher_that_knows_more_helps(global_random_seed):
    # The classes differ in the sign of a product, which the teacher computes.
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(1_500, 6)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    with torch.random.fork_rng():
        torch.manual_seed(global_random_seed)
        network = torch.nn.Sequential(
            torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8)
        )
    product = FunctionTransformer(lambda X: np.c_[np.tanh(5 * X[:, 0] * X[:, 1]), X])
    teachers = [(product, LogMEClassifier())]
    scores = {}
    for penalty in (None, PredictiveDistillation):
        model = FineTuneClassifier(
            network,
            penalty=penalty and penalty(teachers, weight=3.0),
            max_epochs=100,
            batch_size=10,
            lr=0.01,
            random_state=0,
            device="cpu",
        )
        unlabelled = None if penalty is None else X[30:1_000]
        model.fit(X[:30], y[:30], unlabelled=unlabelled)
        scores[penalty] = model.score(X[1_000:], y[1_000:])
    assert scores[PredictiveDistillation] > scores[None] + 0.1


@pytest.mark.parametrize("penalty", PENALTIES)
def test_teachers_worse_than_the_network_are_named(make_extractor, data, penalty):
    X, y = data
    noise = FunctionTransformer(lambda X: np.sin(1e4 * X))
    model = FineTuneClassifier(
        make_extractor(0), penalty=penalty([(noise, LogMEClassifier())]), **FAST
    )
    if penalty is FeatureDistillation:  # features promise nothing
        model.fit(X, y)
        return
    with pytest.warns(WeakTeachersWarning, match=r"of linear heads on 60 samples") as w:
        model.fit(X, y)
    assert w[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", WeakTeachersWarning)
        good = FunctionTransformer(lambda X: np.eye(3)[y[: len(X)]] + 1e-3 * X[:, :3])
        clone(model).set_params(penalty__teachers=[(good, LogMEClassifier())]).fit(X, y)


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.UnboundedEvidenceWarning")
def test_b_tuning_names_what_it_cannot_teach(make_extractor, data):
    X, y = data
    knows = FunctionTransformer(lambda X: np.eye(3)[y])
    teachers = [(knows, LogMEClassifier(fit_intercept=True))]
    model = FineTuneClassifier(
        make_extractor(0), penalty=BayesianTuning(teachers), **FAST
    )
    # Features that are all the same explain nothing.
    with pytest.warns(WeakTeachersWarning, match=r"of the classes \[0, 1, 2\]") as w:
        model.fit(np.zeros_like(X), y)
    (found,) = [one for one in w if one.category is WeakTeachersWarning]
    assert found.filename == __file__


class Stop(skorch.callbacks.Callback):
    """Fails once, in the third epoch."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3 and os.environ.pop("STOP_UNLABELLED", ""):
            raise RuntimeError("pulled the plug")


@pytest.mark.parametrize("penalty", PENALTIES)
def test_killed_and_resumed(
    make_extractor, data, unlabelled, weights, tmp_path, monkeypatch, penalty
):
    teachers = [(make_extractor(1, 4), LogMEClassifier())]
    extractor = make_extractor(0)
    extractor.network.append(torch.nn.Dropout(0.2))
    model = FineTuneClassifier(
        extractor,
        penalty=penalty(teachers),
        callbacks=[Stop()],
        **{**FAST, "max_epochs": 5},
    )
    expected = weights(clone(model).fit(*data, unlabelled=unlabelled))
    model.set_params(checkpoint_dir=tmp_path)
    monkeypatch.setenv("STOP_UNLABELLED", "once")
    with pytest.raises(RuntimeError, match="pulled the plug"):
        clone(model).fit(*data, unlabelled=unlabelled)
    (file,) = tmp_path.iterdir()
    resumed = clone(model).fit(*data, unlabelled=unlabelled)
    np.testing.assert_array_equal(weights(resumed), expected)
    assert list(tmp_path.iterdir()) == [file]
    # Other unlabelled samples, or none, are another training.
    clone(model).fit(*data, unlabelled=unlabelled[:-1])
    clone(model).fit(*data)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "convert", [torch.from_numpy, list, pd.DataFrame, lambda U: [*map(list, U)]]
)
def test_kinds_of_samples(make_extractor, data, unlabelled, weights, convert):
    X, y = data
    model = FineTuneClassifier(
        make_extractor(0),
        penalty=PredictiveDistillation([(make_extractor(1), LogMEClassifier())]),
        **FAST,
    )
    expected = clone(model).fit(X, y, unlabelled=unlabelled)
    same = clone(model).fit(convert(X), y, unlabelled=convert(unlabelled))
    np.testing.assert_allclose(weights(same), weights(expected), atol=1e-5)


class Rows(torch.utils.data.Dataset):
    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], 0


def test_data_sets(make_extractor, data, unlabelled, weights):
    X, y = data
    model = FineTuneClassifier(
        make_extractor(0),
        penalty=BayesianTuning([(make_extractor(1), LogMEClassifier())]),
        **FAST,
    )
    expected = clone(model).fit(X, y, unlabelled=unlabelled)
    same = clone(model).fit(Rows(X), y, unlabelled=Rows(unlabelled))
    np.testing.assert_allclose(weights(same), weights(expected), atol=1e-5)


@pytest.fixture
def model(make_extractor):
    teachers = [(make_extractor(1, 7), LogMEClassifier())]
    return FineTuneClassifier(
        make_extractor(0), penalty=PredictiveDistillation(teachers), **FAST
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.empty((0, 6), np.float32), "'unlabelled' samples given to .* are empty"),
        ([], "'unlabelled' samples given to .* are empty"),
        (np.ones((5, 7), np.float32), r"shape \(7,\).*where X holds .*shape \(6,\)"),
        (np.ones((5, 6, 1), np.float32), r"shape \(6, 1\).*where X holds"),
        (np.ones((5, 6), np.uint8), "whole numbers.*where X holds .*floating-point"),
        (["a.png", "b.png"], "str objects where X holds arrays"),
        (np.full((5, 6), np.nan, np.float32), "5 of the 5 unlabelled .* hold NaN"),
    ],
)
def test_refused(model, data, wrong, message):
    with pytest.raises(ValueError, match=message):
        model.fit(*data, unlabelled=wrong)


@pytest.mark.parametrize("wrong", ["a.png", 5, {"a": 1}])
def test_what_is_no_collection_is_refused(model, data, wrong):
    with pytest.raises(TypeError, match="unlabelled"):
        model.fit(*data, unlabelled=wrong)


def test_nan_that_only_the_teachers_see(model, data, unlabelled):
    X, y = data
    unlabelled[[3, 60]] = np.nan
    with pytest.raises(ValueError, match=r"teacher are NaN.* unlabelled \[3, 60\]"):
        model.fit(list(X), y, unlabelled=list(unlabelled))


def test_the_labelled_samples_as_unlabelled_ones(model, data):
    X, y = data
    with pytest.warns(UserWarning, match="'unlabelled' samples are X itself"):
        model.fit(X, y, unlabelled=X)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, list])
def test_samples_to_score_that_training_has_seen(model, data, unlabelled, convert):
    X, y = data
    model.fit(convert(X[:50]), y[:50], unlabelled=convert(np.r_[unlabelled, X[50:55]]))
    again = pickle.loads(pickle.dumps(model))
    for fitted in (model, again):
        with pytest.warns(TransductiveScoreWarning, match="5 of the 10 samples") as w:
            fitted.score(convert(X[50:]), y[50:])
        assert w[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted.score(convert(X[55:]), y[55:])
            fitted.predict(convert(X[50:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clone(model).fit(X, y).score(X, y)


def test_cross_validation_with_all_samples_as_unlabelled(model, data):
    X, y = data
    both = np.r_[X, X]  # of another length, or it would be split like X
    with pytest.warns(TransductiveScoreWarning):
        cross_validate(model, X, y, cv=2, params={"unlabelled": both})


def test_it_is_routed(model, data, unlabelled, weights):
    X, y = data
    expected = weights(clone(model).fit(X, y, unlabelled=unlabelled))
    plain = weights(clone(model).fit(X, y))
    assert not np.allclose(expected, plain)
    pipeline = Pipeline([("as_is", FunctionTransformer()), ("tune", clone(model))])
    pipeline.fit(X, y, tune__unlabelled=unlabelled)
    np.testing.assert_array_equal(weights(pipeline[-1]), expected)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline.fit(X, y, unlabelled=unlabelled)
        np.testing.assert_array_equal(weights(pipeline[-1]), expected)
        grid = {"tune__penalty__weight": [0.0, 1.0]}
        search = GridSearchCV(pipeline, grid, cv=2).fit(X, y, unlabelled=unlabelled)
        assert search.best_estimator_[-1]._unlabelled_seen or (
            search.best_params_["tune__penalty__weight"] == 0
        )
        found = cross_validate(
            pipeline,
            X,
            y,
            cv=2,
            params={"unlabelled": unlabelled},
            return_estimator=True,
        )
        for estimator in found["estimator"]:
            assert len(estimator[-1]._unlabelled_seen) == len(
                np.unique(unlabelled, axis=0)
            )
        # The steps before transform the unlabelled samples, too.
        scaled = Pipeline(
            [("scale", StandardScaler()), ("tune", clone(model))],
            transform_input=["unlabelled"],
        ).fit(X, y, unlabelled=unlabelled)
    scaler = StandardScaler().fit(X)
    by_hand = clone(model).fit(
        scaler.transform(X), y, unlabelled=scaler.transform(unlabelled)
    )
    np.testing.assert_array_equal(weights(scaled[-1]), weights(by_hand))


def test_teachers_run_once_for_a_whole_search(
    make_extractor, data, unlabelled, tmp_path, monkeypatch
):
    X, y = data
    teacher, calls = make_extractor(1, 7), []

    def search(memory):
        calls.clear()
        penalty = PredictiveDistillation([(teacher, LogMEClassifier())], memory=memory)
        model = FineTuneClassifier(make_extractor(0), penalty=penalty, **FAST)
        GridSearchCV(model, {"penalty__weight": [0.1, 1.0]}, cv=2).fit(
            X, y, unlabelled=unlabelled
        )
        return sum(calls)

    forward = torch.nn.Sequential.forward

    def counting(module, x):
        if module[-2].out_features == 7:
            calls.append(len(x))
        return forward(module, x)

    monkeypatch.setattr(torch.nn.Sequential, "forward", counting)
    assert search(None) == 4 * (30 + 100) + 60 + 100
    assert search(str(tmp_path)) <= 2 * 30 + 100 + 60
    assert search(str(tmp_path)) == 0


@pytest.mark.parametrize("kinds", [(torch.tensor, np.array), (np.array, torch.tensor)])
def test_a_tensor_beside_an_array(model, data, unlabelled, weights, kinds):
    X, y = data
    first, second = kinds
    same = clone(model).fit(first(X), y, unlabelled=second(unlabelled.astype(float)))
    expected = clone(model).fit(X, y, unlabelled=unlabelled)
    assert np.array_equal(weights(same), weights(expected))


def test_sparse_samples_are_refused(model, data, unlabelled):
    with pytest.raises(TypeError, match="'unlabelled' samples: Sparse data"):
        model.fit(*data, unlabelled=csr_array(unlabelled))


def test_samples_seen_in_another_precision(model, data, unlabelled):
    model.fit(*data, unlabelled=unlabelled)
    with pytest.warns(TransductiveScoreWarning, match="3 of the 3"):
        model.score(unlabelled[:3].astype(float), [0, 1, 2])


class _Teacher:
    """Any function as a teacher."""

    def __init__(self, transform):
        self.transform = transform


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda X: X[:, 0], "Expected 2D array"),
        (lambda X: X[:-1], "59 rows of features for 60 samples"),
        (csr_array, "Sparse data was passed"),
    ],
)
@pytest.mark.parametrize(
    "penalty", [BayesianTuning, PredictiveDistillation, FeatureDistillation]
)
def test_features_of_teachers_are_checked(
    make_extractor, data, penalty, transform, message
):
    teachers = [(_Teacher(transform), LogMEClassifier())]
    model = FineTuneClassifier(
        make_extractor(1), penalty=penalty(teachers), max_epochs=1, device="cpu"
    )
    with pytest.raises((TypeError, ValueError), match=message):
        model.fit(*data)


def test_a_teacher_that_a_clone_has_made_forget(make_extractor, data):
    X, y = data
    teachers = [(StandardScaler().fit(X), LogMEClassifier())]
    model = FineTuneClassifier(
        make_extractor(1), penalty=PredictiveDistillation(teachers), max_epochs=1
    )
    with pytest.raises(NotFittedError) as caught:
        clone(model).fit(X, y)
    assert "FrozenEstimator" in caught.value.__notes__[0]


@pytest.mark.parametrize("n_samples", [17, 18])
def test_batch_normalisation_sees_a_batch_as_a_whole(data, n_samples):
    X, y = data
    sizes = []

    class Norm(torch.nn.BatchNorm1d):
        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return super().forward(x)

    network = torch.nn.Sequential(torch.nn.Linear(6, 5), Norm(5))
    model = FineTuneClassifier(
        network, penalty=FeatureMapDistance(), unlabelled_ratio=3, **FAST
    )
    model.fit(X[:n_samples], y[:n_samples], unlabelled=X[n_samples:])
    assert sum(sizes) == 2 * 4 * n_samples * FAST["max_epochs"]  # beside its start
    assert len(sizes) == 2 * FAST["max_epochs"] * (1 if n_samples == 17 else 2)


class _Failing(torch.utils.data.Dataset):
    """Rows, one of which cannot be read."""

    def __init__(self, X, bad):
        self.X, self.bad = X, bad

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        if i == self.bad:
            raise OSError("gone")
        return self.X[i]


@pytest.mark.parametrize(
    ("penalty", "note"),
    [
        (FeatureMapDistance(), "X is here that of the unlabelled samples."),
        (None, "X starts here at the unlabelled sample 0."),
    ],
)
def test_unlabelled_samples_that_cannot_be_read(model, data, unlabelled, penalty, note):
    X, y = data
    model.set_params(penalty=penalty or model.penalty)
    with pytest.raises(ValueError, match="Sample 7 could not be read") as caught:
        model.fit(_Failing(X, None), y, unlabelled=_Failing(unlabelled, 7))
    assert note in caught.value.__notes__


@pytest.mark.parametrize("penalty", PENALTIES)
def test_augmented_samples_are_not_kept(
    make_extractor, data, unlabelled, tmp_path, penalty
):
    X, y = data
    pairs = [(make_extractor(1, 7), LogMEClassifier())]
    sizes = []
    for n_epochs in (1, 3):
        memory = tmp_path / str(n_epochs)
        model = FineTuneClassifier(
            make_extractor(0),
            penalty=penalty(pairs, memory=str(memory)),
            augment=lambda batch: batch + torch.randn(batch.shape).numpy(),
            **{**FAST, "max_epochs": n_epochs},
        )
        model.fit(X, y, unlabelled=unlabelled)
        sizes.append(len(list(memory.rglob("output.pkl"))))
    assert sizes[0] == sizes[1]
