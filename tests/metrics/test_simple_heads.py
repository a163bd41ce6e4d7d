"""LDA, linear probe and neighbours; and what every metric that fits has in common."""

from __future__ import annotations

import csv
import inspect
import itertools

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.datasets import make_blobs
from sklearn.decomposition import TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import StandardScaler

from sktransfer.metrics import (
    _linear_probe,
    get_metric,
    get_scorer_names,
    knn_score,
    laplace_evidence_score,
    lda_score,
    linear_probe_score,
    nleep_score,
    parc_score,
)
from sktransfer.utils._validation import TASKS

# Metrics that fit models of scikit-learn.
ENTRIES = [
    get_metric(name)
    for name in get_scorer_names()
    if "\nfrom sklearn"
    in inspect.getsource(inspect.getmodule(get_metric(name).compute))
]
METRICS = [entry.function for entry in ENTRIES]
ALL_TASKS = [entry.function for entry in ENTRIES if entry.tasks == TASKS]
LABEL_METRICS = [entry.function for entry in ENTRIES if len(entry.tasks) == 1]
# The folds of the probe depend on the order of the samples.
ORDER_FREE = [metric for metric in METRICS if metric is not linear_probe_score]
EXACT_UNDER_DUPLICATION = [e.function for e in ENTRIES if e.exact_under_duplication]
NAMES = {
    "strings": np.array(["zebra", "ant", "mole"]),
    "objects": np.array(["zebra", "ant", "mole"], dtype=object),
    "gaps": np.array([9, 0, 2]),
    "floats": np.array([2.0, 0.0, 1.0]),
}
metrics = pytest.mark.parametrize("metric", METRICS)


def blobs(seed, n_samples=90, n_features=5, n_classes=3):
    X, y = make_blobs(
        n_samples, n_features, centers=n_classes, cluster_std=6.0, random_state=seed
    )
    return X, y


@pytest.fixture
def data(global_random_seed):
    return blobs(global_random_seed)


@metrics
def test_result_is_a_finite_float_and_repeats(metric, data):
    score = metric(*data)
    assert type(score) is float
    assert np.isfinite(score)
    assert metric(*data) == score


@metrics
@pytest.mark.parametrize("names", NAMES)
def test_names_of_labels_mean_nothing(metric, names, data):
    X, y = data
    # Floats are numbers, unless the task says that they are labels.
    options = {"task": "classification"} if metric in ALL_TASKS else {}
    score = metric(X, NAMES[names][y], **options)
    assert score == pytest.approx(metric(X, y), rel=1e-6)


@metrics
def test_boolean_labels(metric, data):
    X, y = data
    assert metric(X, y > 0) == pytest.approx(metric(X, (y > 0).astype(int)), rel=1e-6)


@metrics
def test_lists_are_arrays(metric, data):
    X, y = data
    assert metric(X.tolist(), y.tolist()) == pytest.approx(metric(X, y))


@pytest.mark.parametrize("metric", ORDER_FREE)
def test_order_of_samples_means_nothing(metric, data, global_random_seed):
    X, y = data
    order = np.random.default_rng(global_random_seed).permutation(len(y))
    assert metric(X[order], y[order]) == pytest.approx(metric(X, y), abs=1e-5)


@metrics
@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_scale_means_nothing(metric, factor, data):
    X, y = data
    assert metric(factor * X, y) == pytest.approx(metric(X, y), abs=1e-5)


@pytest.mark.parametrize("metric", [*EXACT_UNDER_DUPLICATION, linear_probe_score])
def test_copies_of_features_mean_nothing(metric, data):
    X, y = data
    # An accuracy may move by the one sample that the solver leaves on the border.
    tolerance = 1.5 / len(y) if metric is linear_probe_score else 1e-4
    assert metric(np.hstack([X, X]), y) == pytest.approx(metric(X, y), abs=tolerance)


@metrics
def test_float32_is_as_good_as_float64(metric, data):
    X, y = data
    X = X.astype(np.float32)
    exact = metric(X.astype(np.float64), y)
    assert metric(X, y) == pytest.approx(exact, abs=1e-4)


@metrics
def test_memory_layout_means_nothing_and_inputs_stay(metric, data):
    X, y = data
    expected = metric(X, y)
    wide = np.zeros((2 * X.shape[0], 2 * X.shape[1]))
    wide[::2, ::2] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    frozen_y = y.copy()
    frozen_y.flags.writeable = False
    for given in (np.asfortranarray(X), wide[::2, ::2], frozen):
        before = given.copy()
        assert metric(given, frozen_y) == pytest.approx(expected, abs=1e-6)
        np.testing.assert_array_equal(given, before)


@metrics
def test_torch_tensors(metric, data):
    torch = pytest.importorskip("torch")
    X, y = data
    tensors = torch.tensor(X, requires_grad=True), torch.tensor(y)
    assert metric(*tensors) == pytest.approx(metric(X, y))
    with pytest.raises(ValueError, match="one library"):
        metric(tensors[0], y)


@metrics
@pytest.mark.parametrize(
    "shape", [{"n_classes": 2}, {"n_samples": 24, "n_features": 60}], ids=str
)
def test_two_classes_and_fewer_samples_than_features(metric, shape, global_random_seed):
    assert np.isfinite(metric(*blobs(global_random_seed, **shape)))


@metrics
def test_constant_feature(metric, data):
    X, y = data
    X = np.column_stack([X, np.full(len(X), 3.0)])
    assert np.isfinite(metric(X, y))


@metrics
def test_class_of_one_sample(metric, data):
    X, y = data
    y = y.copy()
    y[0] = 3
    assert np.isfinite(metric(X, y))


@metrics
def test_classes_of_one_sample_only(metric, data):
    X, _ = data
    y = np.arange(12)
    if metric in (parc_score, nleep_score, lda_score, linear_probe_score):
        message = "equally dissimilar|components|variance|2 samples"
        with pytest.raises(ValueError, match=message):
            metric(X[:12], y)
    else:
        assert np.isfinite(metric(X[:12], y))


@metrics
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_equal_samples(metric, value, data):
    _, y = data
    X = np.full((len(y), 4), value)
    if metric is linear_probe_score:
        assert metric(X, y) == pytest.approx(1 / 3, abs=0.05)
    elif metric is laplace_evidence_score and value:
        assert metric(X, y) == pytest.approx(-np.log(3))
    else:
        with pytest.raises(ValueError, match=r"[Aa]ll (samples|pairs|features)"):
            metric(X, y)


@metrics
def test_refused_inputs(metric, data):
    X, y = data
    broken = X.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        metric(broken, y)
    with pytest.raises(ValueError, match="inconsistent"):
        metric(X, y[1:])
    with pytest.raises(ValueError, match=r"at least 2 classes|equally|constant"):
        metric(X, np.zeros_like(y))


@pytest.mark.parametrize("metric", LABEL_METRICS)
@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_labels_only(metric, task, data):
    X, y = data
    target = y + 0.5 if task == "regression" else np.eye(3)[y]
    with pytest.raises(ValueError, match=rf"{metric.__name__[:-6]} takes.*{task}"):
        metric(X, target)


@pytest.mark.parametrize("metric", ALL_TASKS)
def test_tasks(metric, data):
    X, y = data
    numbers = X @ np.arange(1.0, 6.0) + y
    assert np.isfinite(metric(X, numbers))
    assert np.isfinite(metric(X, np.column_stack([numbers, X[:, 0] ** 2])))
    assert np.isfinite(metric(X, np.eye(3, dtype=int)[y]))
    assert metric(X, y / 10, task="regression") == metric(X, y / 10)
    assert metric(X, y, task="regression") != metric(X, y)
    with pytest.raises(ValueError, match="sorting"):
        metric(X, y, task="sorting")
    with pytest.raises(ValueError, match="indicators"):
        metric(X, y, task="multilabel")
    with pytest.raises(ValueError, match=r"constant|equally"):
        metric(X, np.full(len(y), 0.5))


# ------------------------------------------------------------------------- LDA


def test_lda_is_shrunk_discriminant_analysis(data):
    X, y = data
    Z = StandardScaler().fit_transform(X)
    residuals = Z - np.stack([Z[y == c].mean(axis=0) for c in range(3)])[y]
    shrinkage = ledoit_wolf_shrinkage(residuals, assume_centered=True)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(Z, y)
    expected = oracle.predict_proba(Z)[np.arange(len(y)), y].mean()
    assert lda_score(X, y) == pytest.approx(expected, abs=1e-5)


def test_lda_ignores_the_scale_of_single_features(data):
    X, y = data
    assert lda_score(X * np.logspace(-3, 3, 5), y) == pytest.approx(lda_score(X, y))


def test_lda_of_noise_and_of_separate_classes(global_random_seed):
    X, y = blobs(global_random_seed, n_samples=900)
    noise = np.random.default_rng(global_random_seed).normal(size=X.shape)
    assert lda_score(noise, y) == pytest.approx(1 / 3, abs=0.02)
    assert lda_score(noise + 50 * np.eye(3, 5)[y], y) == pytest.approx(1)


# ------------------------------------------------------------------------- probe


def dealt(codes, cv, seed):
    """Deal samples to folds, class after class, one by one."""
    order = np.random.RandomState(seed).permutation(len(codes))
    fold, turn = {}, 0
    for c in sorted(set(codes)):
        for i in order:
            if codes[i] == c:
                fold[i] = turn % cv
                turn += 1
    return np.array([fold[i] for i in range(len(codes))])


def scaled(X, train, each):
    """Centred on the training folds; in one unit for all features, or each in its own.

    The one unit is that of all samples.
    """
    unit = X[train].std(axis=0) if each else np.sqrt(np.mean(X.var(axis=0)))
    return (X - X[train].mean(axis=0)) / unit


def best_elsewhere(gains, fold, k):
    """Which setting gains most over all folds but k; of equal ones the first."""
    totals = [np.sum(gain[fold != k]) for gain in gains]
    return totals.index(max(totals))


def test_probe_by_hand(data, global_random_seed):
    X, y = data
    X = X * [1, 2, 4, 8, 16]
    first = list(dict.fromkeys(y))
    codes = np.array([first.index(label) for label in y])
    fold, hits = dealt(codes, 5, global_random_seed), []
    for each in (False, True):
        for C in (5e-5, 0.5, 5.0, 50.0):
            hit = np.empty(len(y))
            for k in range(5):
                train = fold != k
                Z = scaled(X, train, each)
                head = LogisticRegression(C=C / 5, max_iter=1000)
                head.fit(Z[train], codes[train])
                hit[~train] = head.predict(Z[~train]) == codes[~train]
            most = max((sum(h) for e, h in hits if e == each), default=0)
            hits.append((each, hit))
            if sum(hit) < most - np.sqrt(len(y) * hit.mean() * (1 - hit.mean())):
                break
    hits = [hit for _, hit in hits]
    expected = [hits[best_elsewhere(hits, fold, k)][fold == k] for k in range(5)]
    Cs = [50.0, 0.5, 5e-5, 5.0]
    score = linear_probe_score(X, y, Cs=Cs, random_state=global_random_seed)
    assert score == pytest.approx(np.mean(np.concatenate(expected)))


def test_ridge_probe_by_hand(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(30, 3)) * [1.0, 3.0, 9.0]
    Y = np.column_stack([X @ [1.0, 0.5, 0.0], X @ [0.0, 0.1, 1.0]])
    Y += rng.normal(size=(30, 2))
    fold, held_out = dealt(np.zeros(30), 5, 0), np.empty((2, 30, 2))

    def ridge(A, b, alpha, A_new):
        shift = A.mean(axis=0)
        C = A - shift
        w = np.linalg.solve(C.T @ C + alpha * np.eye(3), C.T @ (b - b.mean()))
        return (A_new - shift) @ w + b.mean()

    for each, k, target in itertools.product((0, 1), range(5), (0, 1)):
        train, y = fold != k, Y[:, target]
        Z = scaled(X, train, each)
        A, b = Z[train], y[train]

        def left_out(alpha, A=A, b=b):
            keep = ~np.eye(len(b), dtype=bool)
            parts = [ridge(A[m], b[m], alpha, A[i : i + 1]) for i, m in enumerate(keep)]
            return np.mean((np.concatenate(parts) - b) ** 2)

        alpha = min(10.0 ** np.arange(-1, 7), key=left_out)
        held_out[each, ~train, target] = ridge(A, b, alpha, Z[~train])
    gains, chosen = -((held_out - Y) ** 2), np.empty((30, 2))
    for k, target in itertools.product(range(5), (0, 1)):
        best = best_elsewhere(gains[:, :, target], fold, k)
        chosen[fold == k, target] = held_out[best, fold == k, target]
    assert linear_probe_score(X, Y) == pytest.approx(r2_score(Y, chosen))


def test_probe_leaves_the_path_where_it_overfits(global_random_seed, monkeypatch):
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(200, 150)) * np.r_[5, np.ones(149)]
    y = (X[:, 0] > 0) ^ (rng.random(200) < 0.1)
    tried = []

    class Recording(LogisticRegression):
        def fit(self, X, y):
            tried.append(self.C)
            return super().fit(X, y)

    monkeypatch.setattr(
        "sktransfer.metrics._linear_probe.LogisticRegression", Recording
    )
    Cs = np.logspace(-3, 12, 6)
    score = linear_probe_score(X, y, Cs=Cs)
    assert max(tried) < Cs[-1] / 100
    assert score == linear_probe_score(X, y, Cs=Cs[:3])


def test_probe_does_not_blow_weak_features_up(global_random_seed):
    """As in TF-IDF: standardised, 195 weak directions of noise hide 5 strong ones."""
    rng = np.random.default_rng(global_random_seed)
    strong = rng.normal(size=(300, 5))
    X = np.hstack([strong, 0.05 * rng.normal(size=(300, 195))])
    y = strong @ np.ones(5)
    assert linear_probe_score(X, y > 0) > 0.92  # 0.75 standardised
    assert linear_probe_score(X, y) > 0.99  # 0.98 standardised


def test_probe_of_tf_idf_is_as_good_as_a_tuned_head(shared):
    """400 components of TF-IDF: 0.61 with one C on standardised features, not 0.81."""
    path = shared / "data" / "real" / "text" / "clinc150.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:600]]
    y = np.array([row["domain"] for row in rows])
    counts = TfidfVectorizer().fit_transform([row["text"] for row in rows])
    X = TruncatedSVD(400, random_state=0).fit_transform(counts)
    search = GridSearchCV(
        LogisticRegression(max_iter=1000), {"C": [1, 10, 100, 1000]}, cv=3
    )
    tuned = cross_val_score(search, X, y, cv=3).mean()
    assert linear_probe_score(X, y, cv=3) == pytest.approx(tuned, abs=0.03)


def test_probe_finds_a_weak_feature(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X = rng.normal(size=(300, 21)) * np.r_[0.02, np.ones(20)]
    assert linear_probe_score(X, X[:, 0] > 0) > 0.9


def test_probe_tunes_its_regularisation(global_random_seed):
    """Classes along a circle need larger weights than C = 10 gives (0.64-0.80)."""
    rng = np.random.default_rng(global_random_seed)
    y = rng.integers(24, size=480)
    angle = 2 * np.pi * (y + rng.uniform(-0.3, 0.3, size=480)) / 24
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    assert linear_probe_score(X, y) > 0.97
    assert linear_probe_score(X, y, Cs=[10.0]) < 0.9


def test_probe_of_several_labels_is_the_mean(data):
    X, y = data
    Y = np.column_stack([np.eye(3)[y], X[:, 0] > np.median(X[:, 0])]).astype(int)
    single = [linear_probe_score(X, column) for column in Y.T]
    assert linear_probe_score(X, Y) == pytest.approx(np.mean(single), abs=0.02)


def test_folds_are_even_and_hold_every_class():
    codes = np.repeat([0, 1, 2], [11, 2, 30])
    fold = _linear_probe._folds(codes, 5, 0).test_fold
    assert np.ptp(np.bincount(fold)) <= 1
    for c in range(3):
        assert np.ptp(np.bincount(fold[codes == c], minlength=5)) <= 1


def test_probe_with_more_folds_than_samples(global_random_seed):
    X, y = blobs(global_random_seed, n_samples=12)
    assert linear_probe_score(X, y, cv=50) == linear_probe_score(X, y, cv=12)


def test_probe_parameters(data):
    with pytest.raises(ValueError, match="cv"):
        linear_probe_score(*data, cv=1)
    for Cs in ([], [1.0, 0.0], [-1.0]):
        with pytest.raises(ValueError, match="Cs must hold positive numbers"):
            linear_probe_score(*data, Cs=Cs)


# ------------------------------------------------------------------------- neighbours


def neighbours(X, k, metric):
    """Indices of the k nearest other samples, sample by sample."""
    lists = []
    for i, x in enumerate(X):
        if metric == "cosine":
            norms = np.linalg.norm(X, axis=1) * np.linalg.norm(x)
            distance = 1 - X @ x / norms
        else:
            distance = np.linalg.norm(X - x, axis=1)
        distance[i] = np.inf
        lists.append(np.argsort(distance, kind="stable")[:k])
    return lists


def elected(labels):
    counts = {label: list(labels).count(label) for label in labels}
    return next(x for x in labels if counts[x] == max(counts.values()))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 4, 5])
def test_knn_by_hand(metric, k, data):
    X, y = data
    lists = neighbours(X, k, metric)
    hits = [elected(y[near]) == label for near, label in zip(lists, y, strict=True)]
    assert knn_score(X, y, n_neighbors=k, metric=metric) == pytest.approx(np.mean(hits))
    numbers = X[:, 0] + X[:, 1] ** 2
    expected = r2_score(numbers, [numbers[near].mean() for near in lists])
    score = knn_score(X, numbers, n_neighbors=k, metric=metric)
    assert score == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_knn_counts_duplicates_but_not_the_sample_itself(metric, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    X = np.repeat(rng.normal(size=(20, 3)), 2, axis=0)
    pairs = np.repeat(np.arange(20), 2)
    assert knn_score(X, pairs, n_neighbors=1, metric=metric) == 1.0
    alternating = np.tile([0, 1], 20)
    assert knn_score(X, alternating, n_neighbors=1, metric=metric) == 0.0


def test_knn_when_duplicates_fill_the_neighbourhood():
    X = np.repeat([[1.0, 0.0], [0.0, 1.0]], 30, axis=0)
    assert knn_score(X, np.repeat([0, 1], 30)) == 1.0


def test_knn_of_several_labels_is_the_mean(data):
    X, y = data
    Y = np.eye(3, dtype=int)[y]
    single = [knn_score(X, column, n_neighbors=4) for column in Y.T]
    assert knn_score(X, Y, n_neighbors=4) == pytest.approx(np.mean(single))


def test_knn_puts_samples_without_direction_at_right_angles(global_random_seed):
    """At distance 1 from all that have one (not at 0.5), at 0 from each other."""
    rng = np.random.default_rng(global_random_seed)
    angle = 2 * np.pi * (np.arange(5) / 5 + rng.uniform())
    star = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(1, 9, (5, 1))
    X = np.vstack([star, np.zeros((4, 2))])
    numbers = np.r_[rng.normal(size=5), np.full(4, 7.0)]
    # The neighbours at 72 degrees, and zeros before those at 144.
    near = [numbers[[(i - 1) % 5, (i + 1) % 5, 5]].mean() for i in range(5)]
    expected = r2_score(numbers, near + [7.0] * 4)
    assert knn_score(X, numbers, n_neighbors=3) == pytest.approx(expected)


def test_knn_sees_the_direction_of_small_samples(data):
    """float32 rows of norm below 1e-6 were left as they were."""
    X, y = data
    sizes = np.logspace(-30, 3, len(X))[:, None]
    small = (X * sizes).astype(np.float32)
    assert knn_score(small, y) == pytest.approx(knn_score(X, y))


@pytest.mark.parametrize(
    "parameters", [{"n_neighbors": 0}, {"n_neighbors": 90}, {"metric": "angle"}]
)
def test_knn_parameters(parameters, data):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        knn_score(*data, **parameters)
