"""Metrics of class sums and Gram matrix, against their definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA

from sktransfer.metrics import (
    LabelledData,
    gbc_score,
    get_metric,
    get_scorer,
    layer_factor,
    lfc_score,
    regularized_h_score,
    transrate_score,
)

SHAPES = [(24, 40), (60, 7), (90, 80)]
each_shape = pytest.mark.parametrize("shape", SHAPES)


def draw(seed, shape, n_classes=3):
    rng = np.random.default_rng(seed)
    n, d = shape
    y = np.r_[np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)]
    return rng.normal(size=shape) + rng.normal(size=(n_classes, d))[y] + 0.5, y


@each_shape
def test_regularized_h_score(shape, global_random_seed):
    X, y = draw(global_random_seed, shape)
    covariance, shrinkage = ledoit_wolf(X)
    means = np.stack([X[y == c].mean(axis=0) for c in range(3)])[y]
    between = (1 - shrinkage) * np.cov(means, rowvar=False)
    expected = np.trace(np.linalg.solve(covariance, between))
    assert regularized_h_score(X, y) == pytest.approx(expected, rel=1e-8)


@each_shape
def test_lfc_of_labels(shape, global_random_seed):
    X, y = draw(global_random_seed, shape)
    labels = np.where(y[:, None] == y, 1.0, -1.0)
    assert lfc_score(X, y) == pytest.approx(correlation(X, labels), abs=1e-10)


@each_shape
def test_lfc_of_numbers_and_several_labels(shape, global_random_seed):
    X, y = draw(global_random_seed, shape)
    for Y in (X[:, :2] ** 2, np.eye(3, dtype=int)[y][:, :2]):
        standard = (Y - Y.mean(axis=0)) / Y.std(axis=0)
        expected = correlation(X, standard @ standard.T)
        assert lfc_score(X, Y) == pytest.approx(expected, abs=1e-10)


def correlation(X, similarity):
    features = X @ X.T - (X @ X.T).mean()
    similarity = similarity - similarity.mean()
    norms = np.linalg.norm(features) * np.linalg.norm(similarity)
    return np.sum(features * similarity) / norms


@each_shape
@pytest.mark.parametrize("covariance", ["diagonal", "spherical"])
def test_gbc(shape, covariance, global_random_seed):
    X, y = draw(global_random_seed, shape)
    n_components = 5
    Z = PCA(n_components, svd_solver="full").fit_transform(X)
    mean = [Z[y == c].mean(axis=0) for c in range(3)]
    variance = [Z[y == c].var(axis=0) for c in range(3)]
    if covariance == "spherical":
        variance = [np.full(n_components, v.mean()) for v in variance]
    expected = 0.0
    for a in range(3):
        for b in range(a + 1, 3):
            pooled = np.diag(variance[a] + variance[b]) / 2
            gap = mean[a] - mean[b]
            distance = gap @ np.linalg.solve(pooled, gap) / 8
            determinants = np.prod(variance[a]) * np.prod(variance[b])
            ratio = np.linalg.det(pooled) / np.sqrt(determinants)
            expected -= np.exp(-distance - 0.5 * np.log(ratio))
    score = gbc_score(X, y, covariance=covariance, n_components=n_components)
    assert score == pytest.approx(expected, rel=1e-7)


def test_gbc_of_classes_with_one_sample():
    X = np.random.default_rng(0).normal(size=(6, 4))
    assert -15 <= gbc_score(X, np.arange(6)) <= 0


@pytest.mark.parametrize("name", ["regularized_h_score", "gbc", "lfc"])
def test_equal_features_say_why(name):
    with pytest.raises(ValueError, match=r"same features|equally similar"):
        get_metric(name).score_func(np.ones((12, 3)), np.arange(12) % 3)


def test_transrate_of_numbers_uses_ten_equal_bins(global_random_seed):
    X, _ = draw(global_random_seed, (60, 7))
    numbers = np.exp(3 * X[:, 0])  # only ranks count
    bins = np.argsort(np.argsort(numbers)) * 10 // 60
    assert transrate_score(X, numbers) == transrate_score(X, bins)


def test_layer_factor():
    assert layer_factor(32, 128) == 0.5


@each_shape
def test_shared_work_changes_no_score(shape, global_random_seed):
    X, y = draw(global_random_seed, shape)
    names = ["logme", "h_score", "regularized_h_score", "lfc", "gbc", "transrate"]
    together = get_scorer(names)(IDENTITY, X, y)
    for name in names:
        alone = get_metric(name).score_func(X, y)
        assert together[name] == pytest.approx(alone, rel=1e-9)


class Identity:
    def transform(self, X):
        return X


IDENTITY = Identity()


@pytest.mark.parametrize(
    ("name", "stored", "tolerance"),
    [
        ("regularized_h_score", "regularized_h_score", {"rel": 1e-6}),
        ("lfc", "lfc_mean_centred_frobenius", {"abs": 1e-9}),
    ],
)
def test_reference_values(name, stored, tolerance, shared):
    cases = json.loads((shared / "golden" / "measures.json").read_text())
    arrays = np.load(shared / "golden" / "measures.npz")
    for case, values in cases.items():
        if values["task"] == "classification":
            X, y = arrays[f"{case}__features"], arrays[f"{case}__target"]
            score = get_metric(name).score_func(X, y)
            assert score == pytest.approx(values[stored], **tolerance)


def test_weights_survive_products_in_float64(global_random_seed):
    X, y = draw(global_random_seed, (90, 6))
    X[:, -1] = X[:, 0] + 1e-4 * X[:, 1]  # too nearly collinear for float32
    weights = np.random.default_rng(0).integers(4, size=90).astype(float)
    data = LabelledData(X.astype(np.float32), y, sample_weight=weights)
    assert data.statistics.is_single
    assert data.spectrum.n_samples == weights.sum()
    assert not data.statistics.is_single


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_about_mean_keeps_the_samples(task, global_random_seed):
    X, y = draw(global_random_seed, (60, 7))
    weights = np.linspace(1, 2, 60)
    data = LabelledData(X + 1e3, y, task=task, sample_weight=weights, groups=y)
    middle = data.about_mean
    assert middle is not data
    assert middle.task == task
    np.testing.assert_array_equal(middle.sample_weight, weights)
    np.testing.assert_array_equal(middle.groups, y)


def test_metrics_that_read_the_target_alike_share(global_random_seed):
    data = LabelledData(*draw(global_random_seed, (60, 7)))
    numbers = data.read_as("regression")
    assert data.read_as("regression") is numbers
    assert data.read_as("classification") is data
