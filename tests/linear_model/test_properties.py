"""What must hold for any data: invariances, and an estimator that knows better."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import BayesianRidge

from sktransfer.linear_model import LogME, LogMEClassifier

SHAPES = {  # n_samples, n_features, rank
    "n < D": (12, 30, 12),
    "n = D": (18, 18, 18),
    "n > D": (40, 9, 9),
    "rank deficient": (35, 20, 6),
    "rank deficient, n < D": (16, 24, 7),
}


class Data(NamedTuple):
    X: np.ndarray
    y: np.ndarray  # (n_samples, 3), numbers
    labels: np.ndarray  # 0, 1, 2
    rng: np.random.Generator
    origin: tuple

    def __repr__(self):
        return f"Data{self.origin}"


@st.composite
def data_sets(draw, shapes=tuple(SHAPES)):
    """Features of any shape, whose strong directions mean more than its weak ones."""
    origin = draw(st.sampled_from(shapes)), draw(st.integers(0, 2**32 - 1))
    (n, d, rank), rng = SHAPES[origin[0]], np.random.default_rng(origin[1])
    left = np.linalg.qr(rng.normal(size=(n, rank)))[0]
    right = np.linalg.qr(rng.normal(size=(d, rank)))[0]
    X = (left * np.exp(rng.uniform(-3, 0, size=rank))) @ right.T
    noise = rng.choice([0.1, 0.5, 2.0])
    y = X @ rng.normal(size=(d, 3)) + noise * rng.normal(size=(n, 3))
    labels = np.argmax(
        X @ rng.normal(size=(d, 3)) / 2 + rng.normal(size=(n, 3)), axis=1
    )
    labels[:3] = 0, 1, 2
    return Data(X, y, labels, rng, origin)


def scores(X, data, **kwargs):
    """LogME of each numeric target, and of the labels."""
    n = len(X)
    numbers = LogME(**kwargs).fit(X, data.y)
    classes = LogMEClassifier(**kwargs).fit(X, data.labels)
    return np.r_[numbers.log_evidence_ / n, classes.log_evidence_ / n, classes.logme_]


def assert_unchanged(X, data, **kwargs):
    np.testing.assert_allclose(
        scores(X, data, **kwargs), scores(data.X, data, **kwargs), rtol=0, atol=1e-6
    )


with_or_without_intercept = st.booleans()


@given(data_sets(), st.integers(2, 4), with_or_without_intercept)
def test_duplicated_features(data, copies, fit_intercept):
    """Corollary 3, for any n and D."""
    X = np.tile(data.X, copies)
    assert_unchanged(X, data, fit_intercept=fit_intercept)


@given(data_sets(), st.integers(1, 50), with_or_without_intercept)
def test_zero_padding(data, width, fit_intercept):
    """Corollary 4, for any n and D."""
    X = np.hstack([data.X, np.zeros((len(data.X), width))])
    assert_unchanged(X, data, fit_intercept=fit_intercept)


@given(data_sets(), with_or_without_intercept)
def test_rotation(data, fit_intercept):
    d = data.X.shape[1]
    rotation = np.linalg.qr(data.rng.normal(size=(d, d)))[0]
    assert_unchanged(data.X @ rotation, data, fit_intercept=fit_intercept)


@given(data_sets(), st.floats(-6, 6), with_or_without_intercept)
def test_scale_of_features(data, exponent, fit_intercept):
    assert_unchanged(10**exponent * data.X, data, fit_intercept=fit_intercept)


@given(data_sets(), with_or_without_intercept)
def test_order_of_samples(data, fit_intercept):
    order = data.rng.permutation(len(data.X))
    moved = data._replace(X=data.X[order], y=data.y[order], labels=data.labels[order])
    np.testing.assert_allclose(
        scores(moved.X, moved, fit_intercept=fit_intercept),
        scores(data.X, data, fit_intercept=fit_intercept),
        rtol=0,
        atol=1e-6,
    )


@given(data_sets(), st.permutations([0, 1, 2]))
def test_names_of_labels(data, order):
    expected = LogMEClassifier().fit(data.X, data.labels)
    position = np.asarray(order)
    for names in ([-3, 0, 40], [0, 2, 4], ["ant", "bee", "cat"], [0.0, 1.0, 2.0]):
        # Class k takes the name at place position[k]; the names are sorted.
        y = np.array(names)[position[data.labels]]
        model = LogMEClassifier().fit(data.X, y)
        assert model.logme_ == pytest.approx(expected.logme_, abs=1e-9)
        np.testing.assert_allclose(
            np.asarray(model.log_evidence_)[position], expected.log_evidence_
        )
        assert model.classes_.tolist() == names


@given(data_sets())
def test_names_of_two_labels(data):
    is_two = data.labels == 2
    expected = LogMEClassifier().fit(data.X, is_two.astype(int)).logme_
    for y in (is_two, ~is_two, np.where(is_two, "yes", "no"), np.where(is_two, 1, -1)):
        assert LogMEClassifier().fit(data.X, y).logme_ == pytest.approx(expected)


@given(data_sets(), st.floats(-6, 6), with_or_without_intercept)
def test_scale_of_target(data, exponent, fit_intercept):
    """A density: c times the target costs log c a sample."""
    c = 10**exponent
    one = LogME(fit_intercept=fit_intercept).fit(data.X, data.y)
    other = LogME(fit_intercept=fit_intercept).fit(data.X, c * data.y)
    assert other.logme_ == pytest.approx(one.logme_ - np.log(c), abs=1e-6)


@given(data_sets(("n > D", "rank deficient")), with_or_without_intercept)
def test_integer_weights_are_copies(data, fit_intercept):
    """And a weight of zero is no sample."""
    weights = data.rng.integers(0, 4, size=len(data.X))
    weights[:3] = 1
    rows = np.repeat(np.arange(len(data.X)), weights)
    for model, y in ((LogME(), data.y), (LogMEClassifier(), data.labels)):
        model.set_params(fit_intercept=fit_intercept)
        weighted = model.fit(data.X, y, weights).logme_
        assert weighted == pytest.approx(model.fit(data.X[rows], y[rows]).logme_)


@given(
    data_sets(("n < D", "n = D", "rank deficient, n < D")), with_or_without_intercept
)
def test_zero_weights_remove(data, fit_intercept):
    weights = np.ones(len(data.X))
    weights[3:7] = 0
    keep = weights > 0
    for model, y in ((LogME(), data.y), (LogMEClassifier(), data.labels)):
        model.set_params(fit_intercept=fit_intercept)
        weighted = model.fit(data.X, y, weights).logme_
        assert weighted == pytest.approx(model.fit(data.X[keep], y[keep]).logme_)


@given(data_sets())
def test_multi_target_is_target_by_target(data):
    together = LogME().fit(data.X, data.y)
    for k in range(3):
        alone = LogME().fit(data.X, data.y[:, k])
        np.testing.assert_allclose(together.log_evidence_[k], alone.log_evidence_[0])
        np.testing.assert_allclose(together.coef_[k], alone.coef_, rtol=1e-4, atol=1e-7)
    assert together.logme_ == pytest.approx(together.log_evidence_.mean() / len(data.X))


@given(data_sets())
def test_classes_are_one_hot_targets(data):
    classes = LogMEClassifier().fit(data.X, data.labels)
    one_hot = LogME().fit(data.X, np.eye(3)[data.labels])
    assert classes.logme_ == pytest.approx(one_hot.logme_, abs=1e-9)
    np.testing.assert_allclose(classes.coef_, one_hot.coef_, rtol=1e-4, atol=1e-7)


ORACLE = BayesianRidge(
    fit_intercept=False,
    alpha_1=0,
    alpha_2=0,
    lambda_1=0,
    lambda_2=0,
    alpha_init=1,
    lambda_init=1,
    compute_score=True,
    max_iter=3000,
    tol=1e-10,
)


def check_bayesian_ridge(X, y, curve):
    """Compare with a local iteration: never above us, and equal on a single hill.

    Whether the evidence rises to one hill and falls from there is read from its values
    on a dense grid of log t, which come from the n x n covariance. Elsewhere a local
    iteration may end on a lower hill, or run to the limit of no noise or no weights.
    """
    model = LogME().fit(X, y)
    oracle = ORACLE.fit(X, y)
    local = oracle.scores_[-1] / len(y)
    assert local <= model.logme_ + 1e-6
    top = curve.argmax()
    steps = np.diff(curve)
    one_hill = (
        0 < top < len(steps) and (steps[:top] > 0).all() and (steps[top:] < 0).all()
    )
    settled = oracle.n_iter_ < oracle.max_iter - 1
    if not (one_hill and settled):
        return False
    assert local == pytest.approx(model.logme_, abs=1e-6)
    # Its alpha is the noise's precision, its lambda that of the weights.
    assert oracle.alpha_ == pytest.approx(model.beta_[0], rel=1e-3)
    assert oracle.lambda_ == pytest.approx(model.alpha_[0], rel=1e-3)
    return True


GRID = np.arange(-25, 15, 0.05)


@given(data=data_sets())
def test_bayesian_ridge(data, evidence_curve):
    compared = 0
    for y in data.y.T:
        curve = evidence_curve(data.X, y, GRID)
        with warnings.catch_warnings():
            # Where it runs to a limit its noise or its weights vanish.
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)
            compared += check_bayesian_ridge(data.X, y, curve)
    assume(compared)


@given(data_sets(), st.floats(-100, 100))
def test_intercept_absorbs_shifts(data, shift):
    offset = data.rng.normal(size=data.X.shape[1]) * shift / 10
    expected = LogME(fit_intercept=True).fit(data.X, data.y)
    moved = LogME(fit_intercept=True).fit(data.X + offset, data.y + shift)
    # A mean 1e4 times the spread costs 1e8 of the 1e16 of double precision.
    np.testing.assert_allclose(moved.logme_, expected.logme_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        moved.predict(data.X + offset),
        expected.predict(data.X) + shift,
        rtol=1e-3,
        atol=1e-3,
    )


@given(data_sets())
def test_intercept_is_evidence_of_contrasts(data):
    """Of the data on any orthonormal basis of what is orthogonal to a constant."""
    n = len(data.X)
    start = np.column_stack([np.ones(n), data.rng.normal(size=(n, n - 1))])
    contrasts = np.linalg.qr(start)[0][:, 1:].T
    X = data.X + 2
    model = LogME(fit_intercept=True).fit(X, data.y)
    explicit = LogME().fit(contrasts @ X, contrasts @ data.y)
    assert model.logme_ == pytest.approx(explicit.logme_, abs=1e-6)
    np.testing.assert_allclose(model.coef_, explicit.coef_, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(
        model.intercept_,
        data.y.mean(axis=0) - X.mean(axis=0) @ model.coef_.T,
        atol=1e-8,
    )
