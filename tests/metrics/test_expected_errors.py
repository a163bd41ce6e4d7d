"""Standard errors of leave-one-out scores, against what training sets reach."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    r2_score,
)

from sktransfer.metrics import (
    LabelledData,
    get_metric,
    get_scorer_names,
)
from sktransfer.utils._score import probability_better

NAMES = [name for name in get_scorer_names() if name.startswith("loo_")]


def world(rng, n, kind, d=12):
    """Samples of a population, of three overlapping classes or of a number."""
    X = rng.normal(size=(n, d))
    signal = X[:, :4] @ np.array([[1.0, 0, -1], [0.5, -1, 0], [0, 1, -0.5], [1, 0, 0]])
    noisy = signal + 1.5 * rng.normal(size=(n, 3))
    return X, noisy[:, 0] if kind == "regression" else noisy.argmax(axis=1)


REACHED = {
    "loo_accuracy": lambda model, X, y: np.mean(model.predict(X) == y),
    "loo_balanced_accuracy": lambda model, X, y: balanced_accuracy_score(
        y, model.predict(X)
    ),
    "loo_f1": lambda model, X, y: f1_score(y, model.predict(X), average="macro"),
    "loo_log_likelihood": lambda m, X, y: m.log_predictive_density(X, y).mean(),
    "loo_r2": lambda model, X, y: r2_score(y, model.predict(X)),
}


@pytest.mark.parametrize("n", [60, 200])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_standard_errors_hold_over_training_sets(n, kind):
    """What is announced, against what the head reaches on the population."""
    rng = np.random.default_rng(0)
    X_all, y_all = world(rng, 4000, kind)
    names = [n for n in NAMES if kind in get_metric(n).tasks]
    z, plain = {name: [] for name in names}, {name: [] for name in names}
    for _ in range(150):
        samples = LabelledData(*world(rng, n, kind), task=kind)
        for name in names:
            score = get_metric(name).score(samples)
            gap = score.value - REACHED[name](samples.head, X_all, y_all)
            z[name].append(gap / score.std_error)
            plain[name].append(gap / score._replace(variances=None).std_error)
    for name in names:
        spread = np.sqrt(np.mean(np.square(z[name])))
        assert 0.75 < spread < 1.3, name
        # Without the variance over training sets they are too sure.
        assert np.sqrt(np.mean(np.square(plain[name]))) > spread


def test_probability_better_is_right_as_often_as_it_says():
    """Of pairs of heads, one of which sees one feature more or less."""
    rng = np.random.default_rng(0)
    X_all, y_all = world(rng, 4000, "classification")
    subsets = [np.r_[0:4], np.r_[0:3], np.r_[1:4], np.r_[0:12], np.r_[1:12], np.r_[0:8]]
    said, right = [], []
    for _ in range(120):
        X, y = world(rng, 80, "classification")
        data = [LabelledData(X[:, columns], y) for columns in subsets]
        for name in ("loo_accuracy", "loo_log_likelihood"):
            P = probability_better([get_metric(name).score(d) for d in data])
            reached = [
                REACHED[name](d.head, X_all[:, columns], y_all)
                for d, columns in zip(data, subsets, strict=True)
            ]
            for i, j in zip(*np.triu_indices(len(subsets), 1), strict=True):
                sure = max(P[i, j], P[j, i])
                said.append(sure)
                better = (reached[i] > reached[j]) == (P[i, j] > 0.5)
                right.append(0.5 if sure == 0.5 else float(better))
    said, right = np.array(said), np.array(right)
    bins = np.digitize(said, np.linspace(0.5, 1, 6)[1:-1])
    for k in range(5):
        some = bins == k
        if some.sum() >= 50:
            assert right[some].mean() == pytest.approx(said[some].mean(), abs=0.08)
