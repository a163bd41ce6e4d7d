"""NLEEP: LEEP on clusters of the features instead of source classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._leep import LEEP
from sktransfer.metrics._metric import Metric
from sktransfer.utils._score import Score


def nleep_score(
    X: Any,
    y: Any,
    *,
    n_components_per_class: int = 5,
    explained_variance: float = 0.8,
    random_state: Any = 0,
) -> float:
    r"""NLEEP: LEEP on the responsibilities of a Gaussian mixture of the features.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features; those on a GPU are brought to the host.
    y : array-like of shape (n_samples,)
        Class labels.
    n_components_per_class : int, default=5
        Number of mixture components per class.
    explained_variance : float, default=0.8
        Share of the variance of the features that the principal components keep,
        between 0 and 1.
    random_state : int or RandomState, default=0
        Controls the initialisation of the mixture.

    Returns
    -------
    float
        At most 0, in nats.

    Raises
    ------
    ValueError
        If `y` holds no class labels, there are fewer samples than components of the
        mixture, or all samples have the same features.

    See Also
    --------
    leep_score : Reads source probabilities instead of fitting a mixture.

    Notes
    -----
    Principal components that keep 80 % of the variance, a mixture with full covariances
    (as in published implementations), and :math:`\frac1n \sum_i \log \sum_v \hat P(y_i
    | v) p(v | x_i)`, where v runs over the components of the mixture. Neither the scale
    of the features nor the order of the samples matters. The fit ends in a local
    optimum: two seeds differ by about 0.05. With few samples per component the mixture
    isolates single samples, and the score goes to 0 for any features.

    References
    ----------
    .. [1] Y. Li et al., "Ranking Neural Checkpoints", CVPR 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import nleep_score
    >>> round(nleep_score(*load_iris(return_X_y=True)), 2)
    -0.13
    """
    return NLEEP(
        X,
        y,
        n_components_per_class=n_components_per_class,
        explained_variance=explained_variance,
        random_state=random_state,
    )


def _compute(
    data: LabelledData,
    *,
    n_components_per_class: int = 5,
    explained_variance: float = 0.8,
    random_state: Any = 0,
) -> Score:
    if n_components_per_class < 1:
        raise ValueError(
            "n_components_per_class must be at least 1. "
            f"Got {n_components_per_class!r} instead."
        )
    if not 0 < explained_variance < 1:
        raise ValueError(
            "explained_variance must lie between 0 and 1. "
            f"Got {explained_variance!r} instead."
        )
    X, codes, n_classes = data.host_features, data.host_target, len(data.classes)
    n_components = n_components_per_class * n_classes
    if n_components > len(X):
        raise ValueError(
            f"nleep_score fits {n_components} components ({n_components_per_class} to "
            f"each of {n_classes} classes) and needs as many samples; got {len(X)}. "
            "Lower n_components_per_class."
        )
    if np.all(X == X[0]):
        raise ValueError(
            "All samples have the same features: classes cannot be separated."
        )
    solver = "full" if X.shape[1] > len(X) else "covariance_eigh"
    # In double precision, because the fit amplifies small differences.
    Z = PCA(explained_variance, svd_solver=solver).fit_transform(X.astype(np.float64))
    # In units of their spread, as GaussianMixture adds 1e-6 to every variance.
    # Rounded, because the last digits would decide between local optima.
    Z = np.round(Z / np.sqrt(np.mean(Z**2)), 6)
    # The initialisation draws samples by position, so the position must not matter.
    order = np.argsort(Z[:, 0], kind="stable")
    mixture = GaussianMixture(n_components, random_state=random_state).fit(Z[order])
    responsibilities = mixture.predict_proba(Z)
    return LEEP.score(LabelledData(None, codes, source_proba=responsibilities))


NLEEP = Metric(
    "nleep",
    _compute,
    nleep_score,
    exact_under_duplication=True,
    reference="Li et al., CVPR 2021",
    cost="n D² + D³ + iterations · 5 n K D'²",
    weakness="Fits a mixture to a local optimum; close to 0 with few samples per "
    "component.",
)
