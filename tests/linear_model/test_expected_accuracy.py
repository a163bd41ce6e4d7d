"""The accuracy that leave-one-out announces, and what heads on the zoo reach."""

import numpy as np
import pytest

from sktransfer.datasets import load_dataset, load_zoo
from sktransfer.linear_model import LogMEClassifier

N_IMAGES, N_TRAIN, N_DRAWS = 1000, 300, 8


@pytest.fixture(scope="module")
def gaps():
    """Announced less reached accuracy, its variance, and that of the test images."""
    pytest.importorskip("torch")
    X, y = load_dataset(return_X_y=True)
    X, y = X[:N_IMAGES], y[:N_IMAGES]
    features = [extractor.fit(X).transform(X) for _, extractor in load_zoo()]
    found = []
    for seed in range(N_DRAWS):
        rows = np.random.default_rng(seed).permutation(N_IMAGES)
        train, test = rows[:N_TRAIN], rows[N_TRAIN:]
        for F in features:
            head = LogMEClassifier(
                prior="shared", fit_intercept=True, leave_one_out=True
            )
            head.fit(F[train], y[train])
            right = head.predict(F[test]) == y[test]
            found.append(
                (
                    head.loo_accuracy_ - right.mean(),
                    head.loo_accuracy_std_error_**2,
                    right.var() / len(test),
                )
            )
    return np.array(found).T


def test_heads_reach_the_accuracy_that_is_announced(gaps):
    gap = gaps[0]
    assert np.abs(gap).mean() <= 0.025
    assert abs(gap.mean()) <= 0.01


def test_the_standard_error_is_the_size_of_the_error(gaps):
    gap, announced, tested = gaps
    z = gap / np.sqrt(announced + tested)
    assert 0.8 <= np.sqrt(np.mean(z**2)) <= 1.2
