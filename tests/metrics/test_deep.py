"""Scores of all layers against dense evaluations, refits, and ordinary scores."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from scipy.stats import multivariate_normal
from sklearn.datasets import load_diabetes, load_wine
from sklearn.preprocessing import scale

from sktransfer.exceptions import EqualClassesWarning
from sktransfer.metrics import (
    LabelledData,
    deep_logme_score,
    deep_loo_accuracy_score,
    deep_loo_log_likelihood_score,
    logme_score,
    loo_accuracy_score,
    loo_log_likelihood_score,
)
from sktransfer.metrics._deep import LayerMixture
from sktransfer.metrics._deep_data import RHOS, DeepData, _draw_rows
from sktransfer.metrics._deep_scores import DEEP_LOGME
from sktransfer.metrics._leave_one_out import LOO_ACCURACY, LOO_LOG_LIKELIHOOD
from sktransfer.metrics._logme import LOGME

WINE, CLASSES = load_wine(return_X_y=True)
WINE, CLASSES = scale(WINE)[::3], CLASSES[::3]
N = len(CLASSES)


def with_intercept(X, y, **options):
    return logme_score(X, y, fit_intercept=True, **options)


# Each deep score with the ordinary one.
SCORES = [
    (deep_logme_score, with_intercept),
    (deep_loo_accuracy_score, loo_accuracy_score),
    (deep_loo_log_likelihood_score, loo_log_likelihood_score),
]
DEEP = [deep for deep, _ in SCORES]


def wide(X, n_features=80, seed=0):
    """Random features of the given ones, more than samples, and of full rank."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(X.shape[1], n_features))
    return np.tanh(X @ W / 3) + 0.1 * rng.normal(size=(len(X), n_features))


# All layers together have fewer features than samples, or more.
FEW = {"first": WINE[:, :3] + 5, "middle": WINE[:, 3:6] * 7, "last": WINE[:, 6:8] - 2}
MANY = {"first": FEW["first"], "middle": wide(WINE[:, 3:6]), "last": FEW["last"]}
WIDE_LAST = {"first": FEW["first"], "last": wide(WINE[:, 4:9])}
NETWORKS = [FEW, MANY, WIDE_LAST]
IDS = ["n > D", "n < D", "wide last"]


def dense_kernel(layers, rho):
    """K(rho), from its definition."""
    kernels = []
    for X in layers.values():
        H = np.eye(len(X)) - 1 / len(X)
        K = H @ X @ X.T @ H
        kernels.append(K / np.trace(K))
    return (1 - rho) * kernels[-1] + rho * sum(kernels) / len(kernels)


def dense_evidence(K, y):
    """Log density of the contrasts of y, maximised over both variances; a mean."""
    C = null_space(np.ones((1, len(y))))
    contrasts, K = C.T @ y, C.T @ K @ C

    def minus(logs):
        of_kernel, of_noise = np.exp(logs)
        covariance = of_kernel * K + of_noise * np.eye(len(K))
        return -multivariate_normal.logpdf(contrasts, cov=covariance) / len(K)

    starts = [(0, -3), (3, -2), (5, -5)]
    options = {"xatol": 1e-7, "fatol": 1e-13, "maxiter": 2000}
    return -min(
        minimize(minus, start, method="Nelder-Mead", options=options).fun
        for start in starts
    )


def shared_penalty(K, Y):
    """The lambda that maximises the sum of evidences, each with its own noise."""
    C = null_space(np.ones((1, len(Y))))
    Y, K = C.T @ Y, C.T @ K @ C

    def minus(log_penalty):
        covariance = K * np.exp(-log_penalty) + np.eye(len(K))
        energy = np.sum(Y * np.linalg.solve(covariance, Y), axis=0)
        half_determinant = np.linalg.slogdet(covariance)[1] / 2
        return np.sum(len(K) / 2 * np.log(energy) + half_determinant)

    grid = np.linspace(-15, 5, 81)
    best = grid[np.argmin([minus(u) for u in grid])]
    found = minimize_scalar(
        minus,
        bounds=(best - 0.3, best + 0.3),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return np.exp(found.x)


def refitted(K, Y, penalty, parts):
    """Predictions of kernel ridge regressions with intercept, without each part."""
    predictions = np.empty_like(Y)
    for part in parts:
        rest = np.setdiff1d(np.arange(len(Y)), part)
        n = len(rest)
        system = np.ones((n + 1, n + 1))
        system[:n, :n] = K[np.ix_(rest, rest)] + penalty * np.eye(n)
        system[n, n] = 0
        weights = np.linalg.solve(system, np.vstack([Y[rest], np.zeros(Y.shape[1])]))
        predictions[part] = K[np.ix_(part, rest)] @ weights[:n] + weights[n]
    return predictions


def likelihood_of(predictions, codes):
    """Mean log soft-max at the likeliest temperature."""

    def minus(log_slope):
        log_proba = log_softmax(np.exp(log_slope) * predictions, axis=1)
        return -np.mean(log_proba[np.arange(len(codes)), codes])

    return -minimize_scalar(
        minus, bounds=(-5, 8), method="bounded", options={"xatol": 1e-10}
    ).fun


ONE_HOT = np.eye(3)[CLASSES]


class TestDense:
    """Direct evaluation with the n x n kernel."""

    @pytest.mark.parametrize("layers", NETWORKS, ids=IDS)
    @pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
    def test_logme_is_the_evidence(self, layers, rho):
        K = dense_kernel(layers, rho)
        expected = np.mean([dense_evidence(K, column) for column in ONE_HOT.T])
        score = deep_logme_score(layers, CLASSES, mixture=rho)
        assert score == pytest.approx(expected, abs=1e-8)

    def test_logme_of_numbers_and_labels(self):
        Y = WINE[:, 9:11]
        K = dense_kernel(MANY, 0.3)
        expected = np.mean([dense_evidence(K, column) for column in Y.T])
        assert deep_logme_score(MANY, Y, mixture=0.3) == pytest.approx(expected)
        labels = (Y > 0).astype(int)
        expected = np.mean([dense_evidence(K, column) for column in labels.T])
        assert deep_logme_score(MANY, labels, mixture=0.3) == pytest.approx(expected)

    @pytest.mark.parametrize("layers", NETWORKS, ids=IDS)
    @pytest.mark.parametrize("grouped", [False, True])
    def test_leave_one_out_is_refitting(self, layers, grouped):
        groups = np.arange(N) % 13 if grouped else np.arange(N)
        parts = [np.flatnonzero(groups == g) for g in np.unique(groups)]
        K = dense_kernel(layers, 0.6)
        predictions = refitted(K, ONE_HOT, shared_penalty(K, ONE_HOT), parts)
        options = {"mixture": 0.6, "groups": groups if grouped else None}
        accuracy = deep_loo_accuracy_score(layers, CLASSES, **options)
        assert accuracy == np.mean(predictions.argmax(axis=1) == CLASSES)
        likelihood = deep_loo_log_likelihood_score(layers, CLASSES, **options)
        # The penalty is found to about 1e-6, by a solver of its own.
        expected = likelihood_of(predictions, CLASSES)
        assert likelihood == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("layers", NETWORKS, ids=IDS)
    def test_mixture_is_the_best_of_the_grid(self, layers):
        evidence = {r: deep_logme_score(layers, CLASSES, mixture=r) for r in RHOS}
        assert deep_logme_score(layers, CLASSES) == max(evidence.values())
        likelihood = {
            r: deep_loo_log_likelihood_score(layers, CLASSES, mixture=r) for r in RHOS
        }
        assert deep_loo_log_likelihood_score(layers, CLASSES) == max(
            likelihood.values()
        )
        by_evidence = max(evidence, key=evidence.get)
        by_likelihood = max(likelihood, key=likelihood.get)
        for mixture, rho in (("evidence", by_evidence), ("likelihood", by_likelihood)):
            for score in DEEP:
                chosen = score(layers, CLASSES, mixture=mixture)
                assert chosen == score(layers, CLASSES, mixture=rho)

    @pytest.mark.parametrize("layers", NETWORKS, ids=IDS)
    @pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
    def test_features_have_the_kernel(self, layers, rho):
        F = LayerMixture(layers).features(rho)
        np.testing.assert_allclose(F @ F.T, dense_kernel(layers, rho), atol=1e-15)


class TestOneLayer:
    """With one layer deep scores are the ordinary ones."""

    @pytest.mark.parametrize(("deep", "ordinary"), SCORES)
    @pytest.mark.parametrize("X", [WINE[:, :4], wide(WINE[:, :4])], ids=IDS[:2])
    @pytest.mark.parametrize("mixture", ["evidence", "likelihood", 0.5])
    def test_classes(self, deep, ordinary, X, mixture):
        score = deep({"last": X + 3}, CLASSES, mixture=mixture)
        assert score == pytest.approx(ordinary(X - X.mean(axis=0), CLASSES), abs=1e-8)

    @pytest.mark.parametrize(("deep", "ordinary"), SCORES[::2])
    def test_numbers(self, deep, ordinary):
        X, y = load_diabetes(return_X_y=True)
        for Z in (X, wide(30 * X, 500)):
            assert deep({"last": Z}, y / 50) == pytest.approx(
                ordinary(Z, y / 50), abs=1e-8
            )

    @pytest.mark.parametrize(("deep", "ordinary"), SCORES)
    @pytest.mark.parametrize("X", [WINE[:, :4], wide(WINE[:, :4])], ids=IDS[:2])
    def test_labels(self, deep, ordinary, X):
        labels = np.c_[CLASSES == 0, WINE[:, 0] > 0].astype(int)
        assert deep({"last": X}, labels) == pytest.approx(ordinary(X, labels), abs=1e-8)

    @pytest.mark.parametrize(("deep", "ordinary"), SCORES[1:])
    def test_groups_and_weights(self, deep, ordinary):
        X = wide(WINE[:, :4])
        given = {
            "groups": np.arange(N) // 4,
            "sample_weight": np.random.default_rng(0).uniform(0.5, 2, N),
        }
        score = deep({"last": X}, CLASSES, **given)
        assert score == pytest.approx(ordinary(X, CLASSES, **given), abs=1e-8)

    def test_text_labels_and_lists(self):
        names = np.array(["red", "white", "rose"])[CLASSES].tolist()
        layers = {name: X.tolist() for name, X in FEW.items()}
        for score in DEEP:
            assert score(layers, names) == pytest.approx(score(FEW, CLASSES), abs=1e-12)


@pytest.mark.parametrize("score", DEEP)
def test_tensors_and_data_frames(score):
    torch = pytest.importorskip("torch")
    pandas = pytest.importorskip("pandas")
    tensors = {name: torch.asarray(X) for name, X in MANY.items()}
    frames = {name: pandas.DataFrame(X) for name, X in MANY.items()}
    expected = score(MANY, CLASSES, max_samples=50)
    for layers, y in ((tensors, torch.asarray(CLASSES)), (frames, CLASSES)):
        assert score(layers, y, max_samples=50) == pytest.approx(expected, abs=1e-12)
    half = {name: X.bfloat16() for name, X in tensors.items()}
    labels = torch.asarray(CLASSES)
    assert score(half, labels) == pytest.approx(score(MANY, CLASSES), abs=0.05)


@pytest.mark.parametrize("score", DEEP)
@pytest.mark.parametrize("layers", NETWORKS, ids=IDS)
class TestInvariance:
    def check(self, score, layers, others, tolerance=1e-8):
        for rho in (0.0, 0.5, 1.0):
            expected = score(layers, CLASSES, mixture=rho)
            assert score(others, CLASSES, mixture=rho) == pytest.approx(
                expected, abs=tolerance
            )
        best = score(layers, CLASSES)
        assert score(others, CLASSES) == pytest.approx(best, abs=tolerance)

    def test_duplicated_layers(self, score, layers):
        others = {}
        for name, X in layers.items():
            others[name + " again"] = others[name] = X
        self.check(score, layers, others)

    def test_copies_of_other_precision(self, score, layers):
        single = {f"{k} (single)": X.astype("float32") for k, X in layers.items()}
        self.check(score, layers, {**single, **layers}, 1e-4)

    def test_one_duplicated_layer(self, score, layers):
        first, last = layers["first"], layers["last"]
        rescaled = 4.0 * first[:, ::-1] + 7
        self.check(score, layers, {"again": rescaled, **layers})
        self.check(score, layers, {"copy of the last": last, **layers})

    def test_rescaled_layers(self, score, layers):
        scales = dict(zip(layers, (1e-9, 3.0, 1e12), strict=False))
        self.check(score, layers, {k: scales[k] * X for k, X in layers.items()})

    def test_permuted_channels(self, score, layers):
        rng = np.random.default_rng(0)
        self.check(
            score, layers, {k: rng.permutation(X, axis=1) for k, X in layers.items()}
        )

    def test_shifted_and_duplicated_channels(self, score, layers):
        self.check(score, layers, {k: np.c_[X, X] + 9 for k, X in layers.items()})

    def test_order_of_inner_layers(self, score, layers):
        *inner, last = layers
        order = [*inner[::-1], last]
        self.check(score, layers, {name: layers[name] for name in order})

    def test_constant_inner_layer(self, score, layers):
        constant = np.full((N, 3), 0.1)
        self.check(score, layers, {"constant": constant, **layers})

    def test_single_precision(self, score, layers):
        single = {name: X.astype(np.float32) for name, X in layers.items()}
        self.check(score, layers, single, 1e-4)
        again = {"again": single["first"] * np.float32(3), **single}
        self.check(score, layers, again, 1e-4)


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.UnboundedEvidenceWarning")
class TestWeights:
    @pytest.mark.parametrize("layers", NETWORKS, ids=IDS)
    def test_whole_weights_are_copies(self, layers):
        weights = np.random.default_rng(1).integers(1, 4, N)
        rows = np.repeat(np.arange(N), weights)
        copies = {name: X[rows] for name, X in layers.items()}
        for rho in (0.0, 0.5):
            options = {"mixture": rho, "task": "classification"}
            assert deep_logme_score(
                layers, CLASSES, sample_weight=weights, **options
            ) == pytest.approx(
                deep_logme_score(copies, CLASSES[rows], **options), abs=1e-8
            )

    @pytest.mark.parametrize("score", DEEP)
    def test_zero_weight_is_absence(self, score):
        weights = np.ones(N)
        weights[[0, 5, 9]] = 0
        kept = weights > 0
        layers = {"constant but there": np.where(kept, 1.0, 7.0)[:, None], **MANY}
        with_weights = score(layers, CLASSES, sample_weight=weights)
        without = score({k: X[kept] for k, X in MANY.items()}, CLASSES[kept])
        assert with_weights == pytest.approx(without, abs=1e-8)

    @pytest.mark.parametrize("score", DEEP)
    @pytest.mark.parametrize("layers", NETWORKS, ids=IDS)
    def test_values_of_zero_weight_do_not_matter(self, score, layers):
        weights = np.ones(N)
        weights[[0, 5, 9]] = 0
        others = {name: X.copy() for name, X in layers.items()}
        for X in others.values():
            X[[0, 5, 9]] *= 1e4
        for rho in (0.0, 0.5):
            given = {"sample_weight": weights, "mixture": rho}
            expected = score(layers, CLASSES, **given)
            assert score(others, CLASSES, **given) == pytest.approx(expected, abs=1e-8)
        for X in others.values():
            X[[0, 5, 9]] = 1e200
        assert score(others, CLASSES, **given) == pytest.approx(expected, abs=1e-8)

    @pytest.mark.filterwarnings("ignore::sktransfer.exceptions.EqualClassesWarning")
    @pytest.mark.parametrize("score", DEEP)
    @pytest.mark.parametrize("max_samples", [12, 30, 50])
    def test_samples_without_weight_are_not_drawn(self, score, max_samples):
        kept = np.arange(N) % 3 == 0
        with_weights = score(
            MANY,
            CLASSES,
            sample_weight=kept.astype(float),
            max_samples=max_samples,
        )
        layers = {name: X[kept] for name, X in MANY.items()}
        without = score(layers, CLASSES[kept], max_samples=max_samples)
        assert with_weights == pytest.approx(without, abs=1e-8)

    def test_parts_of_samples_without_weight(self):
        kept = np.arange(N) % 3 > 0
        weights = kept.astype(float)
        for max_samples in (20, 50):
            data = LabelledData(
                None, CLASSES, layers=MANY, sample_weight=weights, with_parts=True
            )
            score = DEEP_LOGME.score(data, max_samples=max_samples)
            layers = {name: X[kept] for name, X in MANY.items()}
            data = LabelledData(None, CLASSES[kept], layers=layers, with_parts=True)
            alone = DEEP_LOGME.score(data, max_samples=max_samples)
            assert score.parts.shape == score.weights.shape == (N,)
            assert not score.weights[~kept].any()
            assert score.std_error == pytest.approx(alone.std_error, abs=1e-8)
            assert score.gain == pytest.approx(alone.gain, abs=1e-8)


@pytest.mark.parametrize(("deep", "ordinary"), SCORES)
@pytest.mark.parametrize("unit", [1e3, 1e5, 1e7])
def test_order_of_the_samples(deep, ordinary, unit):
    """One feature in another unit: the others are far below the largest direction."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 90)) + 3 * np.eye(3, 90)[CLASSES]
    X[:, -1] *= unit
    expected = ordinary(X, CLASSES)
    for _ in range(3):
        rows = rng.permutation(N)
        assert ordinary(X[rows], CLASSES[rows]) == pytest.approx(expected, abs=1e-8)
        score = deep({"last": X[rows]}, CLASSES[rows])
        assert score == pytest.approx(expected, abs=1e-8)


class TestConstantLayers:
    constant = np.full((N, 3), 0.1)

    def test_last_layer_says_nothing(self):
        layers = {"first": WINE[:, :3], "last": self.constant}
        nothing = with_intercept(np.zeros((N, 1)), CLASSES)
        assert deep_logme_score(layers, CLASSES, mixture=0) == pytest.approx(nothing)
        first = with_intercept(WINE[:, :3], CLASSES)
        for rho in (0.1, 1.0, "evidence"):
            score = deep_logme_score(layers, CLASSES, mixture=rho)
            assert score == pytest.approx(first, abs=1e-8)

    @pytest.mark.parametrize(("deep", "ordinary"), SCORES)
    def test_all_layers_say_nothing(self, deep, ordinary):
        layers = {"first": self.constant, "last": self.constant[:, :1]}
        nothing = ordinary(np.zeros((N, 1)), CLASSES)
        assert deep(layers, CLASSES) == pytest.approx(nothing, abs=1e-12)

    @pytest.mark.parametrize(("deep", "ordinary"), SCORES)
    @pytest.mark.parametrize("layers", NETWORKS, ids=IDS)
    def test_constant_up_to_rounding(self, deep, ordinary, layers):
        """Batches of other sizes round the same number in other ways."""
        rounded = np.full((N, 3), 0.1, dtype=np.float32)
        rounded[N // 2 :] = np.nextafter(rounded[0, 0], np.float32(1))
        first = deep({"rounded": rounded, **layers}, CLASSES)
        assert first == pytest.approx(deep(layers, CLASSES), abs=1e-8)
        last = deep({"last": rounded}, CLASSES)
        assert last == pytest.approx(ordinary(np.zeros((N, 1)), CLASSES), abs=1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-4)])
def test_layers_that_are_linear_functions_of_others(dtype, tolerance):
    """A batch norm after a convolution, or a linear layer: no warnings, same kernel."""
    rng = np.random.default_rng(0)
    first = wide(WINE, 12)
    layers = {
        "first": first,
        "batch norm": first * rng.uniform(0.1, 3, 12) + 1,
        "last": first @ rng.normal(size=(12, 4)),
    }
    assert sum(X.shape[1] for X in layers.values()) < N
    K = dense_kernel(layers, 0.5)
    expected = np.mean([dense_evidence(K, column) for column in ONE_HOT.T])
    layers = {name: X.astype(dtype) for name, X in layers.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score = deep_logme_score(layers, CLASSES, mixture=0.5)
    assert score == pytest.approx(expected, abs=tolerance)


def deep_data(layers, **given):
    return DeepData(LabelledData(None, CLASSES, layers=layers, **given))


class TestParts:
    def test_standard_errors_are_those_of_the_mixture(self):
        groups = np.arange(N) // 3
        data = deep_data(MANY, groups=groups, with_parts=True)
        for metric in (LOGME, LOO_LOG_LIKELIHOOD, LOO_ACCURACY):
            score = data.score(metric, "evidence")
            assert score.parts.shape == (N,)
            assert score.std_error > 0
            assert score.value > score.no_information
            assert score.resolution < 1e-8
        single = {**MANY, "first": MANY["first"].astype(np.float32)}
        score = deep_data(single).score(LOGME, 0.5)
        assert score.resolution == pytest.approx(1e-4, rel=0.2)

    def test_warnings_are_those_of_the_chosen_mixture(self):
        rows = np.r_[0:5, 25:30, 45:50]
        layers = {name: X[rows] for name, X in FEW.items()}
        with pytest.warns(EqualClassesWarning) as caught:
            deep_loo_accuracy_score(layers, CLASSES[rows])
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            deep_logme_score(layers, CLASSES[rows])


@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.UnboundedEvidenceWarning")
class TestSubsample:
    def test_rows_are_stratified(self):
        labels = np.repeat([0, 1, 2], [900, 95, 5])
        rows = _draw_rows(1000, 100, labels, 0)
        assert np.bincount(labels[rows]).tolist() == [90, 10, 1]
        assert (np.diff(rows) > 0).all()
        assert len(_draw_rows(1000, 100, None, 0)) == 100

    @pytest.mark.parametrize("score", DEEP)
    def test_score_is_that_of_the_rows(self, score):
        weights, groups = np.linspace(1, 2, N), np.arange(N) // 2
        rows = _draw_rows(N, 40, CLASSES, 3)
        drawn = score(
            MANY,
            CLASSES,
            sample_weight=weights,
            groups=groups,
            max_samples=40,
            random_state=3,
        )
        given = score(
            {name: X[rows] for name, X in MANY.items()},
            CLASSES[rows],
            sample_weight=weights[rows],
            groups=groups[rows],
        )
        assert drawn == given

    @pytest.mark.parametrize("score", DEEP)
    def test_rare_target_that_is_not_drawn(self, score):
        labels = np.c_[CLASSES == 0, np.arange(N) == 5].astype(int)
        with pytest.raises(ValueError, match="Target 1 is constant among the 20 of 60"):
            score(FEW, labels, max_samples=20)
        if score is not deep_loo_accuracy_score:
            with pytest.raises(ValueError, match="Target 0 .* Increase max_samples"):
                score(FEW, 1.5 * labels[:, 1], max_samples=20)


class TestErrors:
    @pytest.mark.parametrize("score", DEEP)
    @pytest.mark.parametrize(
        ("layers", "message"),
        [
            ({}, "layers must map"),
            (WINE, "layers must map"),
            (
                {"conv": WINE[:, :, None], "last": WINE},
                r"Layer 'conv' .* got \(60, 13,",
            ),
            ({"conv": WINE[:, :0], "last": WINE}, "Layer 'conv' has 0 features"),
            ({"conv": WINE[1:], "last": WINE}, "layer 'conv' has 59 .* 'last', has 60"),
            (
                {"conv": np.where(WINE > 2, np.nan, WINE), "last": WINE},
                r"(?s)layers\['conv'\] contains NaN",
            ),
            (
                {"conv": np.where(WINE > 2, np.inf, WINE), "last": WINE},
                r"(?s)layers\['conv'\] contains inf",
            ),
        ],
    )
    def test_layers(self, score, layers, message):
        with pytest.raises(ValueError, match=message):
            score(layers, CLASSES)

    def test_any_name_is_a_name(self):
        names = dict(zip(FEW, ("y", "X", 3), strict=True))
        layers = {names[name]: X for name, X in FEW.items()}
        assert deep_logme_score(layers, CLASSES) == deep_logme_score(FEW, CLASSES)

    @pytest.mark.parametrize("mixture", ["best", 1.2, -0.1, np.nan, None, True])
    def test_mixture(self, mixture):
        with pytest.raises(ValueError, match="'mixture' parameter must be one of"):
            deep_logme_score(FEW, CLASSES, mixture=mixture)

    def test_targets(self):
        with pytest.raises(ValueError, match="takes classification and multilabel"):
            deep_loo_accuracy_score(FEW, WINE[:, 0])
        with pytest.raises(ValueError, match="at least 2 classes"):
            deep_logme_score(FEW, np.zeros(N, dtype=int))
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            deep_logme_score(FEW, CLASSES[1:])
        with pytest.raises(ValueError, match="max_samples"):
            deep_logme_score(FEW, CLASSES, max_samples=1)

    def test_one_group(self):
        groups = np.zeros(N)
        assert deep_logme_score(FEW, CLASSES, groups=groups) == deep_logme_score(
            FEW, CLASSES
        )
        for options in ({}, {"mixture": "likelihood"}, {"mixture": 0.5}):
            with pytest.raises(ValueError, match="group"):
                deep_loo_accuracy_score(FEW, CLASSES, groups=groups, **options)
