"""NLEEP."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris, make_blobs
from sklearn.mixture import GaussianMixture

from sktransfer.metrics._nleep import nleep_score


def test_by_definition(global_random_seed):
    X, y = load_iris(return_X_y=True)
    C = X - X.mean(axis=0)
    _, s, Vt = np.linalg.svd(C, full_matrices=False)
    share = np.cumsum(s**2) / np.sum(s**2)
    Z = C @ Vt[: np.argmax(share > 0.95) + 1].T
    assert Z.shape[1] == 2
    # The sign of a component is free; scikit-learn's has its largest loading positive.
    Z *= np.sign(Vt[:2][[0, 1], np.argmax(np.abs(Vt[:2]), axis=1)])
    Z /= np.sqrt(np.mean(Z**2))
    order = np.argsort(Z[:, 0])
    Z, y = Z[order], y[order]
    fitted = GaussianMixture(9, random_state=global_random_seed).fit(Z)
    densities = np.column_stack(
        [
            weight * multivariate_normal(mean, covariance).pdf(Z)
            for weight, mean, covariance in zip(
                fitted.weights_, fitted.means_, fitted.covariances_, strict=True
            )
        ]
    )
    R = densities / densities.sum(axis=1, keepdims=True)
    total = 0.0
    for i in range(len(y)):
        expected = sum(
            R[i, v] * R[y == y[i], v].sum() / R[:, v].sum() for v in range(9)
        )
        total += np.log(expected)
    score = nleep_score(
        load_iris().data,
        load_iris().target,
        n_components_per_class=3,
        explained_variance=0.95,
        random_state=global_random_seed,
    )
    assert score == pytest.approx(total / len(y), abs=1e-6)


def test_clusters_that_are_classes_score_zero(global_random_seed):
    X, y = make_blobs(300, centers=20 * np.eye(4), random_state=global_random_seed)
    assert nleep_score(X, y, n_components_per_class=1) == pytest.approx(0, abs=1e-6)


def test_labels_without_a_cluster_score_minus_their_entropy(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    y = rng.choice(3, size=3000, p=[0.6, 0.3, 0.1])
    share = np.bincount(y) / len(y)
    score = nleep_score(rng.normal(size=(3000, 2)), y, n_components_per_class=2)
    assert score == pytest.approx(np.sum(xlogy(share, share)), abs=0.02)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_regularisation_follows_the_scale(scale):
    X, y = load_iris(return_X_y=True)
    assert nleep_score(scale * X, y) == pytest.approx(nleep_score(X, y), abs=1e-6)


def test_duplicated_samples_stay_finite():
    X, y = load_iris(return_X_y=True)
    X, y = np.tile(X[::10], (10, 1)), np.tile(y[::10], 10)
    assert nleep_score(X, y, n_components_per_class=3) <= 1e-12


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components_per_class": 0}, "n_components_per_class must"),
        ({"n_components_per_class": 51}, "153 components"),
        ({"explained_variance": 1.0}, "explained_variance"),
        ({"explained_variance": 0.0}, "explained_variance"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        nleep_score(*load_iris(return_X_y=True), **parameters)
