"""WholeDataset: the split that does not split."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import check_cv, cross_val_score

from sktransfer.model_selection import WholeDataset


@pytest.mark.parametrize(
    "X", [np.ones((5, 2)), list("abcde"), [[1], [2], [3], [4], [5]]]
)
def test_one_split_of_everything(X):
    ((train, test),) = WholeDataset().split(X)
    np.testing.assert_array_equal(train, np.arange(5))
    np.testing.assert_array_equal(test, train)


def test_scikit_learn_takes_it_for_a_splitter():
    cv = WholeDataset()
    assert check_cv(cv) is cv
    assert cv.get_n_splits() == cv.get_n_splits(np.ones((5, 2))) == 1
    assert repr(cv) == "WholeDataset()"
    X, y = np.arange(6.0)[:, None], np.arange(6.0) ** 2
    scores = cross_val_score(Ridge(), X, y, cv=cv)
    np.testing.assert_array_equal(scores, [Ridge().fit(X, y).score(X, y)])
