"""The whole paradigm in one call."""

from __future__ import annotations

import pickle
import tempfile

import numpy as np
import pytest
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer.exceptions import WeakTeachersWarning
from sktransfer.feature_extraction import TorchFeatureExtractor
from sktransfer.model_selection import BaseModelSelector, ModelSelector
from sktransfer.tuning import (
    L2SP,
    BayesianTuning,
    FeatureDistillation,
    FineTuneClassifier,
    FineTuneRegressor,
    PredictiveDistillation,
    ZooTuning,
    rank_and_tune,
)

FAST = {
    "max_epochs": 2,
    "batch_size": 16,
    "lr": 0.01,
    "random_state": 0,
    "device": "cpu",
}
ALONE = {"search": None, **FAST}


@pytest.fixture
def candidates(make_extractor):
    wide = {f"wide{seed}": make_extractor(seed, 7) for seed in range(4)}
    narrow = {f"narrow{seed}": make_extractor(seed, 4) for seed in range(2)}
    return [*wide.items(), *narrow.items(), ("scaled", StandardScaler())]


@pytest.mark.parametrize(
    ("method", "penalty"),
    [
        ("b-tuning", BayesianTuning),
        ("distillation", FeatureDistillation),
        ("predictive-distillation", PredictiveDistillation),
        ("plain", type(None)),
    ],
)
def test_equals_the_steps_one_by_one(candidates, data, method, penalty):
    X, y = data
    selector = ModelSelector(candidates)
    report = rank_and_tune(selector, "narrow0", X, y, k=2, method=method, **ALONE)
    model = report.estimator
    assert not hasattr(selector, "results_")
    selector.fit(X, y)
    assert report.ranking == selector.ranking_
    assert report.teachers == ([] if method == "plain" else selector.ranking_[:2])
    assert type(model.penalty) is penalty
    network = dict(candidates)["narrow0"]
    by_hand = FineTuneClassifier(
        network,
        penalty=None if method == "plain" else penalty(selector.teachers(2)),
        **FAST,
    ).fit(X, y)
    np.testing.assert_allclose(
        model.predict_proba(X), by_hand.predict_proba(X), atol=1e-6
    )


def test_fitted_selector_is_not_fitted_again(candidates, data):
    X, y = data
    selector = ModelSelector(candidates).fit(X, y)
    teachers = selector.teachers(3)
    report = rank_and_tune(selector, "wide1", X, y, penalty__weight=0.5, **FAST)
    model = report.estimator
    assert report.settings == []  # nothing is left to choose
    assert model.penalty.weight == 0.5
    for pair, expected in zip(model.penalty.teachers, teachers, strict=True):
        # What has learnt from samples is kept from being cloned.
        assert getattr(pair[0], "estimator", pair[0]) is expected[0]
        assert pair[1] is expected[1]
    for other in ((X[:50], y[:50]), (np.r_[X, X], np.r_[y, y]), (X, y + 1)):
        with pytest.raises(ValueError, match="selector was fitted to 60"):
            rank_and_tune(selector, "wide1", *other, **ALONE)


def test_zoo_tuning_takes_the_best_of_the_networks_structure(candidates, data):
    X, y = data
    selector = ModelSelector(candidates).fit(X, y)
    report = rank_and_tune(
        selector,
        "wide1",
        X,
        y,
        k=2,
        method="zoo-tuning",
        network__initial_weight=0.7,
        **FAST,
    )
    model = report.estimator
    assert isinstance(model.network, ZooTuning)
    assert model.network.initial_weight == 0.7
    named = dict(candidates)
    best = [name for name in report.ranking if name in ("wide0", "wide2", "wide3")][:2]
    prints = [extractor.fingerprint() for extractor, _ in model.network.teachers]
    assert prints == [named[name].fingerprint() for name in best]
    assert report.teachers == best
    assert 0 < report.network_score <= 1
    assert "wide1 before" in str(report)
    with pytest.raises(ValueError, match="no other candidate has it"):
        rank_and_tune(
            ModelSelector(candidates[-2:]), "narrow1", X, y, method="zoo-tuning"
        )


def test_regression_and_a_network_from_elsewhere(candidates, make_extractor, data):
    X, _ = data
    y = np.tanh(X[:, 0])
    network = TorchFeatureExtractor(make_extractor(9).network, device="cpu")
    report = rank_and_tune(candidates, network, X, y, max_epochs=5, device="cpu")
    assert isinstance(report.estimator, FineTuneRegressor)
    assert len(report.ranking) == len(candidates)
    assert report.network == "Sequential"
    assert report.score_name == "R^2"
    (best,) = [e for e in report.settings if e["params"] == report.best_params]
    assert report.valid_score == best["valid_score"] == 1 - best["valid_loss"]
    assert "R^2" in str(report)
    assert len(report.to_frame()) == 3 + 1 + 1 + 2


def test_with_another_policy(candidates, data):
    class Half(BaseModelSelector):
        def _run_selection(self, evaluate):
            evaluate(evaluate.names[:3], np.arange(evaluate.n_samples))

    X, y = data
    report = rank_and_tune(Half(candidates), "narrow0", X, y, k=2, **ALONE)
    assert sorted(report.ranking) == ["wide0", "wide1", "wide2"]
    assert len(report.estimator.penalty.teachers) == 2


def test_errors(candidates, data):
    X, y = data
    selector = ModelSelector(candidates)
    with pytest.raises(ValueError, match="'network' parameter.*'narrow0'.*Got 'huge'"):
        rank_and_tune(selector, "huge", X, y)
    with pytest.raises(ValueError, match="'method' parameter of rank_and_tune"):
        rank_and_tune(selector, "wide0", X, y, method="magic")
    with pytest.raises(ValueError, match="'k' parameter of rank_and_tune"):
        rank_and_tune(selector, "wide0", X, y, k=0)
    with pytest.raises(ValueError, match="a y that holds several labels per sample"):
        rank_and_tune(selector, "wide0", X, np.eye(3, dtype=int)[y][:, :2])
    with pytest.raises(ValueError, match="No candidate can be tuned"):
        rank_and_tune([("scaled", StandardScaler())], None, X, y)
    with pytest.raises(ValueError, match="failed in all 2 settings.*loss was nan"):
        rank_and_tune(candidates, "wide0", X, y, search={"lr": [1e30, 1e35]})


@pytest.fixture
def unlabelled(data, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    return (data[0] + rng.normal(size=data[0].shape)).astype(np.float32)[:50]


def test_settings_are_chosen_on_samples_set_apart(candidates, data, unlabelled):
    X, y = data
    params = {"max_epochs": 4, "random_state": 0, "device": "cpu"}
    report = rank_and_tune(
        candidates, "narrow0", X, y, unlabelled=unlabelled, k=2, **params
    )
    tried = [entry["params"] for entry in report.settings]
    assert len(tried) == 6
    assert {entry["lr"] for entry in tried} == {0.01, 0.03, 0.1}
    assert {entry["penalty__weight"] for entry in tried} == {0, 3.0}
    assert report.n_validation == 18
    for entry in report.settings[:2]:
        model = FineTuneClassifier(
            dict(candidates)["narrow0"],
            penalty=PredictiveDistillation(report.selector.teachers(2)),
            validation_fraction=0.3,
            **params,
        ).set_params(**entry["params"])
        model.fit(X, y, unlabelled=unlabelled)
        assert model.history_[-1, "valid_loss"] == pytest.approx(
            entry["valid_loss"], abs=1e-4
        )
    plain, taught = report.settings[::2], report.settings[1::2]
    to_reach = min(plain, key=lambda entry: entry["valid_loss"])["valid_score"]
    assert all(np.isnan(entry["expected"]) for entry in plain)
    allowed = [*plain, *(entry for entry in taught if entry["expected"] >= to_reach)]
    best = min(allowed, key=lambda entry: entry["valid_loss"])
    assert report.best_params == best["params"]
    assert report.valid_score == best["valid_score"]
    assert report.estimator.lr == best["params"]["lr"]
    assert report.estimator.penalty.weight == best["params"]["penalty__weight"]
    # The teachers' temporary memory is gone.
    assert report.estimator.penalty.memory is None
    frame = report.to_frame()
    assert frame.index.tolist() == [
        *(f"teacher {name}" for name in report.teachers),
        "teachers mixed",
        "narrow0 before",
        "narrow0 tuned without teachers",
        "narrow0 tuned with teachers",
    ]
    assert frame["weight"][:2].sum() == pytest.approx(1)
    assert all(line in str(report) for line in frame.index)
    used = report.best_params["penalty__weight"] > 0
    assert report.n_unlabelled == (50 if used else 0)


def test_a_setting_that_diverges_is_noted(candidates, data):
    report = rank_and_tune(
        candidates,
        None,
        *data,
        method="plain",
        search={"lr": [0.01, 1e30]},
        **{name: value for name, value in FAST.items() if name != "lr"},
    )
    assert report.best_params == {"lr": 0.01}
    assert "loss was nan" in report.settings[1]["error"]
    assert "2 settings, of which 1 failed" in str(report)
    assert report.network == next(n for n in report.ranking if n != "scaled")
    assert report.teachers == []


def test_teachers_run_once_and_leave_no_files(
    candidates, data, unlabelled, monkeypatch, tmp_path
):
    calls = []
    extract = TorchFeatureExtractor.extract

    def counting(self, X, **options):
        calls.append(len(X))
        return extract(self, X, **options)

    monkeypatch.setattr(TorchFeatureExtractor, "extract", counting)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    networks = [(name, e) for name, e in candidates if name != "scaled"]
    X, y = data
    selector = ModelSelector(networks).fit(X, y)
    calls.clear()
    rank_and_tune(selector, "wide0", X, y, unlabelled=unlabelled, k=2, max_epochs=1)
    assert sorted(calls) == [50, 50, 60, 60]
    assert list(tmp_path.iterdir()) == []


def test_the_bars_are_seen(candidates, data, capsys):
    rank_and_tune(candidates, "wide0", *data, max_epochs=1, progress=True)
    bars = capsys.readouterr().err
    assert "Trying 1/6: lr=0.01, penalty__weight=0.0" in bars
    assert "Tuning on all samples" in bars
    rank_and_tune(candidates, "wide0", *data, **ALONE)
    assert capsys.readouterr().err == ""


def test_a_report_can_be_pickled(candidates, data):
    X, y = data
    report = rank_and_tune(candidates, "narrow0", X, y, **ALONE)
    again = pickle.loads(pickle.dumps(report))
    assert str(again) == str(report)
    assert np.array_equal(again.estimator.predict(X), report.estimator.predict(X))


def test_a_single_setting_is_used(candidates, data):
    X, y = data
    params = {k: v for k, v in FAST.items() if k != "lr"}
    report = rank_and_tune(candidates, "narrow0", X, y, search={"lr": [0.7]}, **params)
    assert report.estimator.lr == 0.7
    assert report.settings == []


def test_settings_that_are_not_numbers(candidates, data):
    X, y = data
    search = {"penalty": [None, L2SP()], "optimizer": ["sgd"]}
    report = rank_and_tune(candidates, "narrow0", X, y, search=search, **FAST)
    assert "optimizer=sgd" in str(report)


def test_a_method_whose_penalty_is_replaced(candidates, data):
    X, y = data
    report = rank_and_tune(candidates, "narrow0", X, y, penalty=None, **ALONE)
    assert report.estimator.penalty_ is None


def test_every_label_once(candidates, data):
    X, _ = data
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="one sample of"):
        rank_and_tune(candidates, "narrow0", X[:9], np.arange(9), **FAST)


def test_what_the_last_fit_would_refuse_is_refused_first(candidates, data):
    X, y = data
    with pytest.raises(ValueError, match="'n_iter_no_change' parameter needs"):
        rank_and_tune(candidates, "wide0", X, y, n_iter_no_change=1)
    rare = np.where(np.arange(60) == 5, 7, y)
    with pytest.raises(ValueError, match=r"one sample of \[7\]. Pass search=None"):
        rank_and_tune(candidates, "wide0", X, rare)
    assert rank_and_tune(candidates, "wide0", X, rare, **ALONE).settings == []
    search = {"validation_fraction": [0.2, 0.4]}
    report = rank_and_tune(
        candidates, "wide0", X, y, method="plain", search=search, **FAST
    )
    assert len(report.settings) == 2


def test_teachers_worse_than_the_network_are_left_out(candidates, data, unlabelled):
    X, y = data
    noise = FunctionTransformer(lambda X: np.sin(1e4 * X))
    # Their soft labels are nearly uniform, which may even lower the loss.
    with pytest.warns(WeakTeachersWarning):
        report = rank_and_tune(
            [("noise", noise)],
            dict(candidates)["wide0"],
            X,
            y,
            unlabelled=unlabelled,
            max_epochs=20,
            random_state=0,
            device="cpu",
        )
    assert report.best_params["penalty__weight"] == 0
    assert report.mixture_score < report.plain_score
    assert "without teachers" in str(report)
