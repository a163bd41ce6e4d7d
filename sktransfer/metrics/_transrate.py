"""TransRate: a difference of coding rates."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from sktransfer.metrics._data import LabelledData
from sktransfer.metrics._metric import Metric
from sktransfer.utils._array_api import get_namespace, gram, in_range, unit_rows
from sktransfer.utils._score import Score
from sktransfer.utils._validation import check_features, check_option

# variant -> default distortion. "preprint" scales rows to unit norm and weights classes
# by size; "icml" centres the features and averages over classes.
_DISTORTION = {"preprint": 0.1, "icml": 1e-4}
_N_BINS = 10


def coding_rate(
    X: Any,
    y: Any = None,
    *,
    variant: str = "preprint",
    normalize: bool | None = None,
    distortion: float | None = None,
) -> float:
    r"""Coding rate: nats per sample to encode the features up to a distortion.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,), optional
        Class labels. If given, the result is the mean coding rate within classes.
    variant : {"preprint", "icml"}, default="preprint"
        Which of the two published definitions; see Notes.
    normalize : bool, optional
        Whether rows are scaled to unit norm; the default is True for ``"preprint"``
        and False for ``"icml"``.
    distortion : float, optional
        epsilon^2 in ``"preprint"`` (default 0.1), epsilon in ``"icml"`` (1e-4).

    Returns
    -------
    float
        In nats.

    Raises
    ------
    ValueError
        If `distortion` is not positive or `variant` is unknown.

    See Also
    --------
    transrate_score : Coding rate of all samples minus that within classes.

    Notes
    -----
    ``"preprint"``: R(Z) = 1/2 log det(I + d / (n eps^2) Z^T Z), classes weighted by n_c
    / n. ``"icml"``: features minus their mean over all samples, R(Z) = 1/2 log det(I +
    1 / (n eps) Z^T Z), classes weighted equally.

    References
    ----------
    .. [1] L.-K. Huang et al., "Frustratingly Easy Transferability Estimation",
       ICML 2022, and its preprint, arXiv:2106.09362.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.metrics import coding_rate
    >>> round(coding_rate(np.eye(4)), 3)  # 2 log(1 + 4 / (4 * 0.1))
    4.796
    """
    distortion = _check_parameters(variant, distortion)
    if y is None:
        Z = _prepared(check_features(X, min_samples=2), variant, normalize)
        return _rate(Z, variant, distortion)
    data = LabelledData(X, y, task="classification")
    Z = _prepared(_sorted_rows(data), variant, normalize)
    return _rate_within(Z, data.counts, variant, distortion)


def transrate_score(
    X: Any,
    y: Any,
    *,
    task: str = "auto",
    variant: str = "preprint",
    normalize: bool | None = None,
    distortion: float | None = None,
) -> float:
    r"""TransRate: nats about the features that the classes reveal.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,)
        Class labels, or numbers, which are cut into ten bins of equal counts.
    task : {"auto", "classification", "regression"}, default="auto"
        How to read `y`; see :class:`LabelledData`.
    variant : {"preprint", "icml"}, default="preprint"
        Which of the two published definitions; see :func:`coding_rate`.
    normalize : bool, optional
        Whether rows are scaled to unit norm; the default is True for ``"preprint"``
        and False for ``"icml"``.
    distortion : float, optional
        epsilon^2 in ``"preprint"`` (default 0.1), epsilon in ``"icml"`` (1e-4).

    Returns
    -------
    float
        ``coding_rate(X) - coding_rate(X, y)``, in nats.

    Raises
    ------
    ValueError
        If `distortion` is not positive, `variant` is unknown, or `y` is of another
        task.

    Notes
    -----
    TransRate estimates the mutual information of features and labels. It grows with the
    number of features, even for pure noise. `ModelSelector` multiplies the scores of
    the layers of one network by :func:`layer_factor`, which makes them comparable.

    References
    ----------
    .. [1] L.-K. Huang et al., "Frustratingly Easy Transferability Estimation",
       ICML 2022, and its preprint, arXiv:2106.09362.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer.metrics import transrate_score
    >>> round(transrate_score(*load_iris(return_X_y=True)), 3)
    0.464
    """
    options = {"variant": variant, "normalize": normalize, "distortion": distortion}
    return TRANSRATE(X, y, task, **options)


def _compute(
    data: LabelledData,
    *,
    variant: str = "preprint",
    normalize: bool | None = None,
    distortion: float | None = None,
) -> Score:
    distortion = _check_parameters(variant, distortion)
    if data.task == "regression":
        bins = equal_count_bins(data.host_target)
        data = LabelledData(data.features, bins, task="classification")
    Z = _prepared(_sorted_rows(data), variant, normalize)
    overall = _rate(Z, variant, distortion)
    return Score(overall - _rate_within(Z, data.counts, variant, distortion))


def layer_factor(n_features: int, n_features_last: int) -> float:
    """Factor that makes TransRate comparable over layers of one network.

    Parameters
    ----------
    n_features : int
        Width d of the layer.
    n_features_last : int
        Width of the last of the layers that are compared.

    Returns
    -------
    float
        sqrt(n_features / n_features_last), by which to multiply the TransRate of the
        layer.

    Examples
    --------
    >>> from sktransfer.metrics import layer_factor
    >>> layer_factor(16, 64)
    0.5
    """
    return float(np.sqrt(n_features / n_features_last))


def equal_count_bins(y: np.ndarray) -> np.ndarray:
    """Cut numbers into ten bins of equal counts; equal numbers share a bin."""
    if y.ndim != 1:
        raise ValueError(f"y must have shape (n_samples,); got {y.shape}.")
    ranks = rankdata(y, method="average") - 0.5
    return np.minimum((ranks * _N_BINS / len(y)).astype(int), _N_BINS - 1)


def _check_parameters(variant: str, distortion: float | None) -> float:
    check_option("variant", variant, sorted(_DISTORTION))
    distortion = _DISTORTION[variant] if distortion is None else distortion
    if not distortion > 0:
        raise ValueError(f"distortion must be positive. Got {distortion!r} instead.")
    return distortion


def _sorted_rows(data: LabelledData) -> Any:
    """Copy of the features, sorted by class, so that each class is a slice."""
    return data.xp.take(data.features, data.class_order, axis=0)


def _prepared(Z: Any, variant: str, normalize: bool | None) -> Any:
    xp, _ = get_namespace(Z=Z)
    if variant == "preprint" if normalize is None else normalize:
        Z = unit_rows(Z)
    return Z - xp.mean(Z, axis=0) if variant == "icml" else Z


def _rate_within(Z: Any, counts: np.ndarray, variant: str, distortion: float) -> float:
    """Mean coding rate of the classes, by which the rows of Z are sorted."""
    ends = np.cumsum(counts).astype(int)
    preprint = variant == "preprint"
    weights = counts / ends[-1] if preprint else np.full(len(ends), 1 / len(ends))
    rates = [
        _rate(Z[end - int(count) : end, :], variant, distortion)
        for end, count in zip(ends, counts, strict=True)
    ]
    return float(weights @ rates)


def _rate(Z: Any, variant: str, distortion: float) -> float:
    """1/2 log det(I + factor Z^T Z), from the smaller of the two Gram matrices."""
    xp, device = get_namespace(Z=Z)
    n, d = Z.shape
    factor = (d if variant == "preprint" else 1) / (n * distortion)
    Z, exponent = in_range(Z)
    G = factor * 4.0**exponent * gram(Z if d <= n else Z.T, xp)
    G = G + xp.eye(G.shape[0], dtype=G.dtype, device=device)
    pivots = xp.linalg.diagonal(xp.linalg.cholesky(G))
    return float(xp.sum(xp.log(pivots)))


TRANSRATE = Metric(
    "transrate",
    _compute,
    transrate_score,
    tasks=("classification", "regression"),
    reference="Huang et al., ICML 2022",
    cost="n D² + D³ + n D n/K",
    weakness="Grows with feature dimension, even for pure noise.",
    layer_factor=layer_factor,
)
