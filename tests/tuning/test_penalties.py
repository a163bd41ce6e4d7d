"""Penalties: the formulas, what is fixed beforehand, and what is refused."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer.linear_model import LogME, LogMEClassifier
from sktransfer.tuning import (
    BasePenalty,
    BayesianTuning,
    FeatureDistillation,
    FineTuneClassifier,
    FineTuneRegressor,
    PenaltyBatch,
    PenaltyContext,
)

FAST = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}


def target_of(X, y, regression):
    return np.stack([X[:, 0], X[:, 1] * X[:, 2] / 9], axis=1) / 9 if regression else y


def context_of(X, y, features, *, precompute=True):
    """What a penalty is bound to; those with teachers read nothing of the module."""
    regression = y.dtype.kind == "f"
    return PenaltyContext(
        module=torch.nn.Identity(),
        start={},
        X=X,
        y=y,
        train=np.arange(len(y)),
        unlabelled=None,
        classes=None if regression else np.unique(y),
        center=y.mean(axis=0) if regression else None,
        scale=y.std(axis=0) if regression else None,
        features=features,
        precompute=precompute,
    )


def batch_of(features, X=None, rows=None):
    rows = np.arange(len(features)) if rows is None else rows
    return PenaltyBatch(features=features, outputs=None, X=X, rows=rows)


def tuner(regression):
    return FineTuneRegressor if regression else FineTuneClassifier


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_equation_5(make_extractor, data, regression, fit_intercept, normalize):
    X, y = data
    y = target_of(X, y, regression)
    kind = LogME if regression else LogMEClassifier
    extractors = [make_extractor(seed, width) for seed, width in [(1, 4), (2, 7)]]
    teachers = [
        (e, kind(fit_intercept=fit_intercept).fit(e.transform(X), y))
        for e in extractors
    ]
    own = make_extractor(0)
    temperature = 0.3
    penalty = BayesianTuning(
        teachers, prior="per_target", temperature=temperature, normalize=normalize
    )
    term = penalty.bind(context_of(X, y, own.transform))

    def mean(features, logme):
        return features @ logme.coef_.T + logme.intercept_

    pi = softmax([logme.logme_ / temperature for _, logme in teachers])
    taught = sum(
        p * mean(e.transform(X), logme)
        for p, (e, logme) in zip(pi, teachers, strict=True)
    )
    own_logme = kind(fit_intercept=fit_intercept).fit(own.transform(X), y)
    # The features move on; all else stays where it was.
    moved = own.transform(X) + np.random.default_rng(0).normal(size=(60, 5)) / 3
    # Numbers are learnt in units of their variance, as the loss is.
    variances = np.var(y if regression else np.eye(3)[y], axis=0)
    if not regression:
        variances = np.full(3, variances.mean()) if normalize else np.ones(3)
    expected = 0.0
    for i in range(60):
        for c in range(taught.shape[1]):
            m, shift = own_logme.coef_[c], own_logme.intercept_[c]
            difference = taught[i, c] - moved[i] @ m - shift
            expected += difference**2 / variances[c]
    expected /= taught.size
    value = term(batch_of(torch.from_numpy(moved).float()))
    assert expected > 0.01
    assert value.item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(term.teach(X[:7]), term.teacher_targets[:7], atol=1e-6)


def test_one_prior_for_all_classes(make_extractor, data, fitted_teachers):
    X, y = data
    own, teachers = make_extractor(0), fitted_teachers(X, y)
    term = BayesianTuning(teachers).bind(context_of(X, y, own.transform))

    def means(extractor):
        F = extractor.transform(X)
        head = LogMEClassifier(prior="shared", fit_intercept=True).fit(F, y)
        return F @ head.coef_.T + head.intercept_

    pi = softmax([logme.logme_ / 0.1 for _, logme in teachers])
    taught = np.tensordot(pi, [means(e) for e, _ in teachers], axes=1)
    misfit = (taught - means(own)) ** 2 / np.var(np.eye(3)[y], axis=0).mean()
    value = term(batch_of(torch.from_numpy(own.transform(X))))
    assert value.item() == pytest.approx(misfit.mean(), rel=1e-4)


def test_gradient_of_equation_5(make_extractor, data, fitted_teachers):
    X, y = data
    context = context_of(X, y, make_extractor(0).transform)
    term = BayesianTuning(fitted_teachers(X, y)).bind(context).double()
    features = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    term(batch_of(features)).backward()
    step = 1e-5
    for i in range(6):
        for j in range(5):
            moved = torch.zeros_like(features)
            moved[i, j] = step
            with torch.no_grad():
                up, down = (term(batch_of(features + m)) for m in (moved, -moved))
            slope = (up - down).item() / (2 * step)
            assert abs(slope - features.grad[i, j].item()) < 1e-8


def test_formula_of_distillation(make_extractor, data, fitted_teachers):
    X, y = data
    teachers = fitted_teachers(X, y)
    own = make_extractor(0)
    term = FeatureDistillation(teachers).bind(context_of(X, y, own.transform))
    matrices = np.split(term.project.weight.detach().numpy(), [4, 11])
    phi = own.transform(X)
    expected = np.mean(
        [
            ((e.transform(X) - phi @ W.T) ** 2).sum(axis=1)
            for (e, _), W in zip(teachers, matrices, strict=True)
        ]
    )
    value = term(batch_of(torch.from_numpy(phi)))
    assert abs(value.item() - expected) < 1e-6 * max(1, expected)


def test_mixture_weights(make_extractor, data, fitted_teachers):
    X, y = data
    teachers = fitted_teachers(X, y)
    model = FineTuneClassifier(
        make_extractor(0), penalty=BayesianTuning(teachers), **FAST
    ).fit(X, y)
    scores = np.array([logme.logme_ for _, logme in teachers])
    expected = np.exp(scores / 0.1) / np.exp(scores / 0.1).sum()
    np.testing.assert_allclose(model.penalty_.mixture_weights, expected, rtol=1e-5)


# The features of the last teacher are the targets.
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.UnboundedEvidenceWarning")
def test_mixture_weights_where_evidence_is_infinite(make_extractor, data):
    _, y = data
    X = np.eye(3, dtype=np.float32)[y]
    y = 2 * X
    extractors = [FunctionTransformer(np.tanh), FunctionTransformer(np.cos)]
    X[0] += 0.1
    extractors.append(FunctionTransformer(lambda X: np.round(X)))
    penalty = BayesianTuning([(e, LogME()) for e in extractors])
    term = penalty.bind(context_of(X, y, extractors[0].transform))
    np.testing.assert_array_equal(term.mixture_weights, [0, 0, 1])


def test_ones_own_lesson_is_known(make_extractor, data):
    X, y = data
    own = make_extractor(0)
    penalty = BayesianTuning([(own, LogMEClassifier())])
    term = penalty.bind(context_of(X, y, own.transform))
    value = term(batch_of(torch.from_numpy(own.transform(X))))
    assert value.item() < 1e-12
    model = FineTuneClassifier(
        own, penalty=penalty, **{**FAST, "batch_size": 60, "max_epochs": 2}
    ).fit(X, y)
    first, second = model.history_[:, "train_penalty"]
    assert first < 1e-12 < second


@pytest.mark.parametrize("penalty", [BayesianTuning, FeatureDistillation])
@pytest.mark.parametrize("regression", [False, True])
def test_weight_0_is_plain_fine_tuning_step_by_step(
    make_extractor, data, fitted_teachers, weights, penalty, regression
):
    X, y = data
    y = target_of(X, y, regression)
    teachers = fitted_teachers(X, y, regression=regression)
    fits = [
        tuner(regression)(make_extractor(0), penalty=p, **FAST).fit(X, y)
        for p in (None, penalty(teachers, weight=0), penalty(teachers, weight=1))
    ]
    batches = [fit.history_[:, "batches", :, "train_loss"] for fit in fits]
    assert batches[0] == batches[1] != batches[2]
    np.testing.assert_array_equal(weights(fits[0]), weights(fits[1]))
    assert fits[1].history_[0, "train_penalty"] > 0


@pytest.mark.parametrize("penalty", [BayesianTuning, FeatureDistillation])
def test_looked_up_is_what_is_computed_batch_by_batch(
    make_extractor, data, fitted_teachers, weights, penalty
):
    X, y = data
    penalty = penalty(fitted_teachers(X, y))
    kept = FineTuneClassifier(make_extractor(0), penalty=penalty, **FAST).fit(X, y)
    again = clone(kept).set_params(augment=lambda batch: batch).fit(X, y)
    np.testing.assert_allclose(weights(again), weights(kept), atol=1e-5)


def test_teachers_run_once_unless_samples_are_augmented(
    make_extractor, data, fitted_teachers
):
    X, y = data
    teachers = fitted_teachers(X, y)
    calls = []
    for extractor, _ in teachers:
        extractor.network.register_forward_hook(
            lambda *args: calls.append(len(args[2]))
        )
    own = make_extractor(0)
    FineTuneClassifier(own, penalty=BayesianTuning(teachers), **FAST).fit(X, y)
    assert sum(calls) == 3 * 60
    seen = []

    def double(batch):
        seen.append(2 * batch)
        return seen[-1]

    calls.clear()
    FineTuneClassifier(
        own, penalty=BayesianTuning(teachers), augment=double, **FAST
    ).fit(X, y)
    # Once more before training, to compare them with the network.
    assert sum(calls) == 3 * 60 * (1 + FAST["max_epochs"])


def test_a_clone_fits_its_teachers_to_its_own_data(
    make_extractor, data, fitted_teachers, weights
):
    X, y = data
    fitted = FineTuneClassifier(
        make_extractor(0), penalty=BayesianTuning(fitted_teachers(X, y)), **FAST
    ).fit(X, y)
    unfitted = clone(fitted)
    assert not unfitted.penalty.teachers[0][1].__sklearn_is_fitted__()
    np.testing.assert_allclose(weights(unfitted.fit(X, y)), weights(fitted), atol=1e-6)
    assert not unfitted.penalty.teachers[0][1].__sklearn_is_fitted__()
    search = GridSearchCV(fitted, {"penalty__weight": [0.0, 0.1]}, cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 2


@pytest.mark.parametrize("penalty", [BayesianTuning, FeatureDistillation])
def test_the_net_holds_neither_data_nor_teachers(
    make_extractor, data, fitted_teachers, penalty
):
    X, y = data
    model = FineTuneClassifier(
        make_extractor(0), penalty=penalty(fitted_teachers(X, y)), **FAST
    ).fit(X, y)
    for net in (model.net_, pickle.loads(pickle.dumps(model.net_))):
        assert not {"teach", "teacher_targets"} & vars(net.module_.penalty).keys()
        assert net.train_split is None
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_any_transformer_can_teach(make_extractor, data):
    X, y = data
    teacher = make_pipeline(StandardScaler().fit(X))
    for penalty in (BayesianTuning, FeatureDistillation):
        model = FineTuneClassifier(
            make_extractor(0), penalty=penalty([(teacher, LogMEClassifier())]), **FAST
        ).fit(X, y)
        assert np.isfinite(model.history_[:, "train_penalty"]).all()


def test_what_is_handed_in_is_left_as_it_was(make_extractor, data, fitted_teachers):
    X, y = data
    teachers = fitted_teachers(X, y)
    before = [copy.deepcopy(e.network.state_dict()) for e, _ in teachers]
    for penalty in (BayesianTuning(teachers), FeatureDistillation(teachers)):
        FineTuneClassifier(make_extractor(0), penalty=penalty, **FAST).fit(X, y)
    for (extractor, _), state in zip(teachers, before, strict=True):
        for name, value in extractor.network.state_dict().items():
            assert torch.equal(value, state[name])


def refuses(make_extractor, penalty, X, y, regression=False):
    """Whether a penalty is refused before any network runs."""

    def never(batch):
        raise AssertionError("training has begun")

    extractor = make_extractor(0)
    extractor.network.register_forward_hook(never)
    return tuner(regression)(extractor, penalty=penalty, augment=never, **FAST)


def test_teachers_fitted_on_other_classes(make_extractor, data, fitted_teachers):
    X, y = data
    penalty = BayesianTuning(fitted_teachers(X, y))
    model = refuses(make_extractor, penalty, X, y)
    with pytest.raises(ValueError, match=r"not seen \[7\].*not have \[2\]"):
        model.fit(X, np.where(y == 2, 7, y))


def test_teachers_that_saw_another_number_of_samples(
    make_extractor, data, fitted_teachers
):
    X, y = data
    penalty = BayesianTuning(fitted_teachers(X, y))
    model = refuses(make_extractor, penalty, X, y)
    with pytest.raises(ValueError, match="fitted on 60 samples.*has 57"):
        model.fit(X[:57], y[:57])
    extractor = make_extractor(1)
    logme = LogMEClassifier(fit_intercept=True).fit(extractor.transform(X), y)
    BayesianTuning([(extractor, logme)]).check(y, np.unique(y))


def test_teachers_that_do_not_fit_the_task(make_extractor, data, fitted_teachers):
    X, y = data
    numbers = target_of(X, y, True)
    for_labels = BayesianTuning(fitted_teachers(X, y))
    with pytest.raises(TypeError, match=r"LogME for regression.*in teachers\[0\]"):
        refuses(make_extractor, for_labels, X, y, True).fit(X, numbers)
    for_numbers = BayesianTuning(fitted_teachers(X, numbers, regression=True))
    with pytest.raises(TypeError, match="LogMEClassifier for classification"):
        refuses(make_extractor, for_numbers, X, y).fit(X, y)
    with pytest.raises(ValueError, match=r"fitted on 2 target\(s\), but y has 1"):
        refuses(make_extractor, for_numbers, X, y, True).fit(X, numbers[:, 0])


@pytest.mark.parametrize("penalty", [BayesianTuning, FeatureDistillation])
def test_teachers_that_are_none(make_extractor, data, penalty):
    X, y = data
    with pytest.raises(ValueError, match="must hold at least one"):
        refuses(make_extractor, penalty([]), X, y).fit(X, y)
    with pytest.raises(TypeError, match=r"as teachers\[0\]"):
        refuses(make_extractor, penalty([make_extractor(1)]), X, y).fit(X, y)
    some = [(make_extractor(1), LogMEClassifier())]
    with pytest.raises(ValueError, match="'weight' parameter"):
        refuses(make_extractor, penalty(some, weight=-1), X, y).fit(X, y)


def test_a_penalty_of_ones_own(make_extractor, data):
    class Norm(BasePenalty):
        def check(self, y, classes):
            assert len(y) == 60

        def bind(self, context):
            assert context.features(context.X).shape == (60, 5)
            return lambda batch: batch.features.square().mean() + 1

    model = FineTuneClassifier(make_extractor(0), penalty=Norm(), **FAST).fit(*data)
    assert min(model.history_[:, "train_penalty"]) > 1
    assert model.penalty_ is None
    pickle.loads(pickle.dumps(model.net_))


def test_b_tuning_of_numbers_with_a_large_mean(make_extractor, data):
    X, _ = data
    y = np.round(X @ np.arange(6.0))
    teachers = [(make_extractor(2), LogME(fit_intercept=True))]

    def first_penalty(y):
        model = FineTuneRegressor(
            make_extractor(1),
            penalty=BayesianTuning(teachers),
            max_epochs=1,
            random_state=0,
        )
        return model.fit(X, y, unlabelled=X[:20]).history_[0, "train_penalty"]

    assert_allclose(first_penalty(y + 2.0**36), first_penalty(y), rtol=1e-3)


@pytest.mark.parametrize("penalty", [BayesianTuning, FeatureDistillation])
def test_another_default_type_of_tensors(make_extractor, data, penalty):
    X, y = data
    teachers = [(make_extractor(2), LogMEClassifier())]
    model = FineTuneClassifier(make_extractor(1), penalty=penalty(teachers), **FAST)
    torch.set_default_dtype(torch.float64)
    try:
        model.fit(X, y)
    finally:
        torch.set_default_dtype(torch.float32)
    assert model.head_.weight.dtype == torch.float32
