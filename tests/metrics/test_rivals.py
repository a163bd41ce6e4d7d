"""SFDA, NCTI, the energy of ETran and KITE, against dense evaluations by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from sktransfer.agreement import min_max_aggregate
from sktransfer.metrics import (
    energy_score,
    get_metric,
    kite_score,
    ncti_ncc_score,
    ncti_seli_score,
    ncti_vc_score,
    sfda_score,
)

# More samples than features, fewer, and two classes; features of several units.
SHAPES = [(60, 7, 3), (90, 30, 4), (24, 40, 3), (40, 90, 2), (150, 80, 5)]
UNITS = [0.05, 0.3, 1.0, 10.0]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
units = pytest.mark.parametrize("unit", UNITS)


def draw(seed, shape, unit=1.0):
    """Correlated features that separate the classes to some degree, and labels."""
    n, d, n_classes = shape
    rng = np.random.default_rng(seed)
    y = np.r_[np.tile(np.arange(n_classes), 2), rng.integers(n_classes, size=n)][:n]
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)
    return unit * (X + 0.5 * rng.normal(size=(n_classes, d))[y] + 3), y


# -------------------------------------------------------------------------- SFDA


def posterior(X, y, inverse):
    """Posterior of Gaussian classes, one sample and one class at a time."""
    out = np.empty((len(X), y.max() + 1))
    for c in range(y.max() + 1):
        mean, prior = X[y == c].mean(axis=0), np.mean(y == c)
        for i, x in enumerate(X):
            distance = (x - mean) @ inverse @ (x - mean)
            out[i, c] = np.log(prior) - distance / 2
    return softmax(out, axis=1)


def covariance_within(X, y):
    d = X.shape[1]
    weights = np.bincount(y) / len(y)
    covariances = [
        np.cov(X[y == c], rowvar=False, bias=True) for c in range(len(weights))
    ]
    return np.tensordot(weights, np.reshape(covariances, (-1, d, d)), 1)


def shrunk(covariance, amount):
    d = len(covariance)
    return (1 - amount) * covariance + amount * np.trace(covariance) / d * np.eye(d)


def fisher_posterior(X, y, strength):
    """Explicit soft-max in the directions of a generalised eigenvalue problem."""
    classes, counts = np.unique(y, return_counts=True)
    means = np.stack([X[y == c].mean(axis=0) for c in classes])
    between = np.cov(means, rowvar=False, fweights=counts, bias=True)
    within = covariance_within(X, y)
    amount = np.exp(-strength * np.linalg.norm(within, 2))
    within = (1 - amount) * within + amount * np.eye(len(within))
    _, U = eigh(between, within)
    U = U[:, -min(len(classes) - 1, X.shape[1]) :]
    np.testing.assert_allclose(U.T @ within @ U, np.eye(U.shape[1]), atol=1e-7)
    out = np.empty((len(X), len(classes)))
    for i, x in enumerate(X):
        for c, mean in enumerate(means):
            out[i, c] = x @ U @ U.T @ mean - mean @ U @ U.T @ mean / 2
            out[i, c] += np.log(counts[c] / len(X))
        out[i] = np.exp(out[i] - out[i].max())
        out[i] /= out[i].sum()
    return out


def slow_sfda(X, y, strength=1.0):
    p = fisher_posterior(X, y, strength)
    mixed = np.empty_like(X)
    for i, x in enumerate(X):
        mixed[i] = p[i, y[i]] * x + (1 - p[i, y[i]]) * X[y != y[i]].mean(axis=0)
    return np.log(fisher_posterior(mixed, y, strength)[np.arange(len(y)), y]).mean()


@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("unit", [0.05, 0.3, 1.0])
@shapes
def test_sfda(shape, unit, strength, global_random_seed):
    X, y = draw(global_random_seed, shape, unit)
    expected = slow_sfda(X, y, strength)
    assert sfda_score(X, y, strength=strength) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(60, 7, 3), (150, 40, 5)], ids=str)
def test_sfda_without_shrinkage(shape, global_random_seed):
    X, y = draw(global_random_seed, shape, 100)
    score = sfda_score(X, y)
    assert score == pytest.approx(slow_sfda(X, y), rel=1e-6)
    # Then the unit of each feature cancels, however far they are apart.
    units = 10.0 ** np.arange(shape[1])[::-1] / 10 ** (shape[1] // 2)
    units = np.clip(units, 1, 1e12)
    assert sfda_score(X * units, y) == pytest.approx(score, rel=1e-6)


def test_discriminant_of_sfda_is_that_of_scikit_learn(global_random_seed):
    """The posterior above is that of an ordinary LDA, shrunk to the unit matrix."""
    X, y = draw(global_random_seed, (90, 30, 4), 0.3)
    within = covariance_within(X, y)
    amount = np.exp(-np.linalg.eigvalsh(within)[-1])
    scale = np.trace(within) / 30  # the target of the shrinkage in scikit-learn
    shrinkage = amount / (amount + (1 - amount) * scale)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(X, y)
    # Its shrunk covariance is ours, but for this factor.
    factor = (1 - shrinkage) / (1 - amount)
    covariance = (1 - amount) * within + amount * np.eye(30)
    np.testing.assert_allclose(oracle.covariance_, factor * covariance)
    found = posterior(X, y, np.linalg.inv(covariance))
    np.testing.assert_allclose(fisher_posterior(X, y, 1.0), found, atol=1e-10)


def test_sfda_of_fewer_samples_than_features_says_nothing(global_random_seed):
    """In a large unit it is perfect for shuffled labels; in a small one a guess."""
    X, y = draw(global_random_seed, (40, 90, 2))
    noise = np.random.default_rng(global_random_seed).permutation(y)
    for labels in (y, noise):
        assert sfda_score(100 * X, labels) == pytest.approx(0, abs=1e-9)
        prior = np.bincount(labels) / 40
        guess = np.sum(prior * np.log(prior))
        assert sfda_score(1e-4 * X, labels) == pytest.approx(guess, abs=1e-5)
    assert sfda_score(0.3 * X, y) > sfda_score(0.3 * X, noise)


def test_unit_alone_reorders_candidates_of_sfda(global_random_seed):
    X, y = draw(global_random_seed, (90, 30, 4))
    weaker = X + np.random.default_rng(global_random_seed).normal(size=X.shape)
    assert sfda_score(X, y) > sfda_score(weaker, y)
    assert sfda_score(0.1 * X, y) < sfda_score(10 * weaker, y)


def test_sfda_of_classes_without_variance(global_random_seed):
    """Then lambda is 1, and the covariance is the unit matrix."""
    y = np.arange(30) % 3
    means = np.random.default_rng(global_random_seed).normal(size=(3, 6))
    expected = slow_sfda(means[y], y)
    assert sfda_score(means[y], y) == pytest.approx(expected, rel=1e-9)
    assert sfda_score(np.ones((30, 6)), y) == pytest.approx(np.log(1 / 3))


@pytest.mark.parametrize("strength", [0, -1.0, np.inf, np.nan])
def test_strength_of_sfda_that_is_none(strength):
    with pytest.raises(ValueError, match="strength must be positive and finite"):
        sfda_score(*draw(0, (60, 7, 3)), strength=strength)


# -------------------------------------------------------------------------- NCTI


def slow_ncti(X, y):
    """The three scores from the principal components and dense matrices."""
    Z = PCA(min(64, len(X) - 1, X.shape[1]), svd_solver="full").fit_transform(X)
    within = covariance_within(Z, y)
    amount = np.exp(-np.sort(Z.var(axis=0, ddof=1))[::-1][:32].sum())
    if amount > 1e-10:
        within = shrunk(within, amount)
        inverse = np.linalg.inv(within)
    else:
        scales = np.sqrt(np.outer(np.diag(within), np.diag(within)))
        inverse = np.linalg.pinv(within / scales, rcond=1e-10) / scales
    P = posterior(Z, y, inverse)
    ncc = P[np.arange(len(y)), y].mean()
    vc = -np.log(sum(np.linalg.svd(P[y == c])[1].sum() for c in range(y.max() + 1)))
    # Directions of the largest variance of the class means over that within classes.
    means = np.stack([Z[y == c].mean(axis=0) for c in range(y.max() + 1)])[y]
    values, vectors = np.linalg.eig(inverse @ means.T @ means)
    first = vectors[:, np.argsort(-values.real)[: y.max()]].real
    first /= np.sqrt(np.sum(first * (within @ first), axis=0))
    return ncc, np.linalg.svd(Z @ first)[1].sum(), vc


@units
@shapes
def test_ncti(shape, unit, global_random_seed):
    X, y = draw(global_random_seed, shape, unit)
    ncc, seli, vc = slow_ncti(X, y)
    assert ncti_ncc_score(X, y) == pytest.approx(ncc, abs=1e-6)
    assert ncti_seli_score(X, y) == pytest.approx(seli, rel=1e-6)
    assert ncti_vc_score(X, y) == pytest.approx(vc, abs=1e-6)


def test_ncti_is_the_discriminant_analysis_of_scikit_learn(global_random_seed):
    X, y = draw(global_random_seed, (90, 30, 4), 0.6)
    Z = PCA().fit_transform(X)
    amount = np.exp(-Z.var(axis=0, ddof=1).sum())
    assert 1e-10 < amount < 1e-4
    oracle = LinearDiscriminantAnalysis(solver="eigen", shrinkage=amount).fit(Z, y)
    P = oracle.predict_proba(Z)
    assert ncti_ncc_score(X, y) == pytest.approx(P[np.arange(90), y].mean())
    # Its directions depend on the shrinkage slightly.
    expected = np.linalg.norm(oracle.transform(Z), "nuc")
    assert ncti_seli_score(X, y) == pytest.approx(expected, rel=1e-3)


def test_variability_prefers_features_that_say_nothing(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    y = np.arange(300) % 3
    noise = rng.normal(size=(300, 5))
    informative = noise + 2 * np.eye(3, 5)[y]
    assert ncti_vc_score(noise, y) > ncti_vc_score(informative, y)
    assert ncti_seli_score(noise, y) < ncti_seli_score(informative, y)
    assert ncti_ncc_score(noise, y) < ncti_ncc_score(informative, y)


def test_ncti_of_few_samples_is_overfitted(global_random_seed):
    """With fewer samples than components, the unit alone decides."""
    rng = np.random.default_rng(global_random_seed)
    noise, y = rng.normal(size=(600, 60)), np.arange(600) % 3
    perfect = noise + 5 * np.eye(3, 60)[y]
    assert ncti_ncc_score(noise, y) < 0.5
    assert ncti_ncc_score(noise[:70], y[:70]) > 0.9
    assert ncti_ncc_score(0.5 * noise[:45], y[:45]) > 0.99
    assert ncti_ncc_score(noise[:45], y[:45]) < 0.5
    assert ncti_seli_score(0.5 * noise[:45], y[:45]) > 10 * ncti_seli_score(perfect, y)


def test_seli_grows_with_copies_of_the_samples(global_random_seed):
    X, y = draw(global_random_seed, (90, 30, 4), 10)
    twice = ncti_seli_score(np.vstack([X, X]), np.r_[y, y])
    assert twice == pytest.approx(np.sqrt(2) * ncti_seli_score(X, y), rel=1e-6)


def test_perfect_feature_helps_ncti_less_in_a_large_unit(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X, y = rng.normal(size=(300, 5)), np.arange(300) % 3
    perfect = np.c_[X, y]
    assert ncti_ncc_score(perfect, y) > 0.99
    assert ncti_ncc_score(100 * perfect, y) < 0.95


def test_order_of_two_candidates_depends_on_a_third(global_random_seed):
    """NCTI exists for a set of candidates only."""
    rng = np.random.default_rng(global_random_seed)
    noise, y = rng.normal(size=(300, 5)), np.arange(300) % 3
    informative, perfect = (noise + s * np.eye(3, 5)[y] for s in (2, 40))

    def ncti(*candidates):
        functions = ncti_ncc_score, ncti_seli_score, ncti_vc_score
        return min_max_aggregate([[f(X, y) for f in functions] for X in candidates])

    np.testing.assert_allclose(ncti(noise, informative), [1 / 3, 2 / 3])
    scores = ncti(noise, informative, perfect)
    assert scores[2] > scores[0] > scores[1]


@pytest.mark.parametrize("name", ["ncti_ncc", "ncti_seli", "ncti_vc"])
def test_classes_without_variance_are_refused(name):
    y = np.arange(30) % 3
    with pytest.raises(ValueError, match="classes with some variance"):
        get_metric(name)(np.eye(3, 6)[y], y)


# ------------------------------------------------------------------------ energy


@shapes
def test_energy(shape, global_random_seed):
    X, y = draw(global_random_seed, shape)
    energies = [-math.log(math.fsum(math.exp(value) for value in x)) for x in X]
    assert energy_score(X, y) == pytest.approx(-math.fsum(energies) / len(y), rel=1e-12)


def test_energy_ignores_the_target_and_grows_with_the_width(global_random_seed):
    X, y = draw(global_random_seed, (60, 7, 3))
    score = energy_score(X, y)
    assert energy_score(X, y[::-1] > 0) == score
    assert energy_score(X, X @ np.ones(7)) == score
    assert energy_score(X + 2, y) == pytest.approx(score + 2)
    assert energy_score(np.tile(X, 5), y) == pytest.approx(score + np.log(5))
    assert np.isfinite(energy_score(1e4 * X, y))


def test_energy_prefers_noise_in_a_larger_unit(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    y = np.arange(90) % 3
    perfect = np.eye(3, 8)[y]
    noise = 10 * rng.normal(size=(90, 8))
    assert energy_score(noise, y) > energy_score(perfect, y) + 5


# -------------------------------------------------------------------------- KITE


def slow_cka(K, L):
    """Centred kernel alignment of two kernels of all pairs of samples."""
    H = np.eye(len(K)) - 1 / len(K)
    K, L = H @ K @ H, H @ L @ H
    return np.sum(K * L) / np.sqrt(np.sum(K**2) * np.sum(L**2))


@shapes
@pytest.mark.parametrize("n_random", [3, 200])
def test_kite(shape, n_random, global_random_seed):
    X, y = draw(global_random_seed, shape)
    R = np.random.default_rng(global_random_seed).normal(size=(len(y), n_random)) + 1
    Y = np.eye(y.max() + 1)[y]
    aligned = slow_cka(X @ X.T, Y @ Y.T)
    assert kite_score(X, y) == pytest.approx(aligned, rel=1e-9)
    expected = aligned / slow_cka(X @ X.T, R @ R.T)
    assert kite_score(X, y, random_features=R) == pytest.approx(expected, rel=1e-8)


@shapes
def test_kite_ignores_units_offsets_and_rotations(shape, global_random_seed):
    X, y = draw(global_random_seed, shape)
    rng = np.random.default_rng(global_random_seed)
    R = X @ rng.normal(size=(X.shape[1], 12))
    rotation, _ = np.linalg.qr(rng.normal(size=(X.shape[1],) * 2))
    for options, other in (({}, {}), ({"random_features": R},) * 2):
        if other:
            other = {"random_features": 1e-6 * R - 9}
        score = kite_score(X, y, **options)
        moved = kite_score(1e4 * X @ rotation + 7, y, **other)
        assert moved == pytest.approx(score, rel=1e-6)
    assert kite_score(np.eye(3)[y % 3], y % 3) == pytest.approx(1)


@pytest.mark.parametrize("unit", [1e-100, 1e90, 1e150])
def test_kite_of_extreme_features(unit, global_random_seed):
    """The squares of eigenvalues leave the range of float64."""
    X, y = draw(global_random_seed, (60, 7, 3))
    R, _ = draw(global_random_seed + 1, (60, 7, 3))
    assert kite_score(unit * X, y) == pytest.approx(kite_score(X, y), rel=1e-9)
    score = kite_score(unit * X, y, random_features=unit * R)
    expected = kite_score(X, y, random_features=R)
    assert score == pytest.approx(expected, rel=1e-9)


def test_strong_direction_hides_informative_ones_from_kite(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    y = np.arange(90) % 3
    X = np.eye(3)[y] + 0.01 * rng.normal(size=(90, 3))
    hidden = np.c_[X, 10 * rng.normal(size=90)]
    assert kite_score(X, y) > 0.99
    assert kite_score(hidden, y) < 0.2
    assert get_metric("lda")(hidden, y) > 0.99


def test_kite_of_float32_with_a_large_offset(global_random_seed):
    X, y = draw(global_random_seed, (90, 30, 4))
    R = X[:, ::-1] ** 2
    far = (X + 300).astype(np.float32)
    assert kite_score(far, y) == pytest.approx(kite_score(X, y), rel=1e-3)
    score = kite_score(far, y, random_features=R.astype(np.float32))
    assert score == pytest.approx(kite_score(X, y, random_features=R), rel=1e-3)


def test_random_features_that_do_not_fit():
    X, y = draw(0, (60, 7, 3))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        kite_score(X, y, random_features=X[1:])
    with pytest.raises(ValueError, match="random_features contains NaN"):
        kite_score(X, y, random_features=np.full_like(X, np.nan))
    with pytest.raises(ValueError, match="not aligned at all"):
        kite_score(X, y, random_features=np.ones_like(X))


# --------------------------------------------------------------------------- all


@pytest.mark.parametrize("name", ["sfda", "ncti_ncc", "ncti_seli", "ncti_vc"])
@shapes
def test_offsets_and_rotations_do_not_matter(name, shape, global_random_seed):
    X, y = draw(global_random_seed, shape, 0.3)
    rng = np.random.default_rng(global_random_seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(X.shape[1],) * 2))
    score = get_metric(name)(X, y)
    assert get_metric(name)(X @ rotation + 50, y) == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("unit", [0.3, 100.0])
@pytest.mark.parametrize("name", ["sfda", "ncti_ncc", "ncti_seli", "ncti_vc", "kite"])
def test_constant_features_count_for_nothing(name, unit, global_random_seed):
    X, y = draw(global_random_seed, (90, 30, 4), unit)
    constant = np.c_[X, np.full((90, 2), [0.0, 3.7e3])]
    score = get_metric(name)(X, y)
    assert get_metric(name)(constant, y) == pytest.approx(score, rel=1e-6)


@pytest.mark.parametrize("name", ["sfda", "ncti_ncc", "energy", "kite"])
def test_copies_of_the_samples_change_nothing(name, global_random_seed):
    X, y = draw(global_random_seed, (90, 30, 4), 0.3)
    score = get_metric(name)(X, y)
    twice = get_metric(name)(np.vstack([X, X]), np.r_[y, y])
    assert twice == pytest.approx(score, rel=1e-6)


def test_class_of_one_sample(global_random_seed):
    X, y = draw(global_random_seed, (90, 30, 4), 0.3)
    X, y = np.vstack([X, X[:1] + 1]), np.r_[y, 4]
    assert sfda_score(X, y) == pytest.approx(slow_sfda(X, y), rel=1e-6)
    found = ncti_ncc_score(X, y), ncti_seli_score(X, y), ncti_vc_score(X, y)
    assert found == pytest.approx(slow_ncti(X, y), rel=1e-6)


@pytest.mark.parametrize("name", ["sfda", "ncti_ncc", "ncti_seli", "ncti_vc"])
def test_copies_of_small_features_change_the_shrinkage(name, global_random_seed):
    X, y = draw(global_random_seed, (90, 30, 4), 0.1)
    metric = get_metric(name)
    assert metric(np.hstack([X, X]), y) != pytest.approx(metric(X, y), rel=1e-4)
    assert not metric.exact_under_duplication


@pytest.mark.parametrize("name", ["sfda", "ncti_ncc", "ncti_seli", "kite"])
def test_informative_features_score_higher(name):
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    X = X[:500] / X.std()
    y = y[:500]
    weaker = X + rng.normal(size=X.shape)
    assert get_metric(name)(X, y) > get_metric(name)(weaker, y)
