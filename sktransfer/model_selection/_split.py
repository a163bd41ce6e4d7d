"""The split that does not split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils.validation import _num_samples


class WholeDataset:
    """Splitter whose one split trains and tests on all samples.

    The papers' setting: a transferability metric measures all labelled data at once,
    and nothing is fitted that could overfit. For use as ``cv`` where the score is such
    a metric; an accuracy measured this way would be one on training data, and so would
    be the score of features that were learnt from the target (`TargetEncoder`), which
    :class:`ModelSelector` takes from ``fit_transform``.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import Pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktransfer.linear_model import LogMEClassifier
    >>> from sktransfer.model_selection import WholeDataset
    >>> pipeline = Pipeline([("extract", PCA(2)), ("logme", LogMEClassifier())])
    >>> search = GridSearchCV(
    ...     pipeline, {"extract": [PCA(2), StandardScaler()]}, cv=WholeDataset()
    ... )
    >>> search.fit(*load_wine(return_X_y=True)).best_params_
    {'extract': StandardScaler()}
    """

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (all, all) once.

        Parameters
        ----------
        X : array-like of n_samples samples
        y, groups : Ignored

        Yields
        ------
        train, test : ndarray of shape (n_samples,)
            Indices of all samples, twice.
        """
        indices = np.arange(_num_samples(X))
        yield indices, indices

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return 1."""
        return 1

    def __repr__(self) -> str:
        return "WholeDataset()"
