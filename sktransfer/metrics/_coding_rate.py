"""TransRate and the coding rate that it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sktransfer.utils._array_api import (
    get_namespace,
    gram,
    is_numpy_namespace,
    to_numpy,
)
from sktransfer.utils._validation import check_features, encode_labels

# variant -> distortion, and whether rows are scaled to unit norm and classes weighted
# by their size (preprint), or features centred and classes averaged (icml).
_DISTORTION = {"preprint": 0.1, "icml": 1e-4}


def coding_rate(
    X: Any,
    y: Any = None,
    *,
    variant: str = "preprint",
    normalize: bool | None = None,
    distortion: float | None = None,
) -> float:
    r"""Nats per sample that coding the features up to a distortion takes.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,), optional
        Class labels; given, the mean coding rate within the classes is measured.
    variant : {"preprint", "icml"}, default="preprint"
        Which of the two published definitions; see Notes.
    normalize : bool, optional
        Whether rows are scaled to unit norm; by default in ``"preprint"`` only.
    distortion : float, optional
        epsilon^2 in ``"preprint"`` (default 0.1), epsilon in ``"icml"`` (1e-4).

    Returns
    -------
    float
        In nats.

    Raises
    ------
    ValueError
        If `distortion` is not positive or `variant` unknown.

    See Also
    --------
    transrate_score : Coding rate of all samples less that within the classes.

    Notes
    -----
    ``"preprint"``: R(Z) = 1/2 log det(I + d / (n eps^2) Z^T Z), classes weighted by
    n_c / n. ``"icml"``: features less their mean over all samples, R(Z) = 1/2 log det(I
    + 1 / (n eps) Z^T Z), classes weighted equally.

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
    X, centred_by = _prepare(X, variant, normalize)
    distortion = _check_distortion(distortion, variant)
    xp, _ = get_namespace(X=X)
    if y is None:
        return _rate(_centred(X, centred_by), variant, distortion)
    total = 0.0
    for rows, share in _classes(X, y, variant, xp):
        total += share * _rate(_centred(rows, centred_by), variant, distortion)
    return total


def transrate_score(
    X: Any,
    y: Any,
    *,
    variant: str = "preprint",
    normalize: bool | None = None,
    distortion: float | None = None,
) -> float:
    r"""TransRate: how many nats about the features the classes give away.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,)
        Class labels.
    variant : {"preprint", "icml"}, default="preprint"
        Which of the two published definitions; see :func:`coding_rate`.
    normalize : bool, optional
        Whether rows are scaled to unit norm; by default in ``"preprint"`` only.
    distortion : float, optional
        epsilon^2 in ``"preprint"`` (default 0.1), epsilon in ``"icml"`` (1e-4).

    Returns
    -------
    float
        ``coding_rate(X) - coding_rate(X, y)``, in nats.

    Notes
    -----
    An estimate of the mutual information of features and labels. It grows with the
    number of features, those of noise included.

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
    return coding_rate(X, **options) - coding_rate(X, y, **options)


def _prepare(X: Any, variant: str, normalize: bool | None) -> tuple[Any, Any]:
    if variant not in _DISTORTION:
        raise ValueError(
            f"The 'variant' parameter must be one of {sorted(_DISTORTION)}. "
            f"Got {variant!r} instead."
        )
    X = check_features(X, min_samples=2)
    xp, _ = get_namespace(X=X)
    if variant == "preprint" if normalize is None else normalize:
        norms = xp.sqrt(xp.sum(X**2, axis=1))
        X = X / xp.where(norms > 0, norms, xp.ones_like(norms))[:, None]
    mean = None if variant == "preprint" else xp.mean(X, axis=0)
    return X, mean


def _check_distortion(distortion: float | None, variant: str) -> float:
    distortion = _DISTORTION[variant] if distortion is None else distortion
    if not distortion > 0:
        raise ValueError(f"distortion must be positive. Got {distortion!r} instead.")
    return distortion


def _classes(X: Any, y: Any, variant: str, xp: Any) -> Iterator[tuple[Any, float]]:
    """The rows of every class, and the weight of their coding rate."""
    classes, codes = encode_labels(y, X)
    codes = to_numpy(codes)
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    for members in np.split(order, np.cumsum(counts)[:-1]):
        rows = X[members] if is_numpy_namespace(xp) else X[xp.asarray(members), :]
        preprint = variant == "preprint"
        yield rows, len(members) / len(codes) if preprint else 1 / len(classes)


def _centred(X: Any, mean: Any) -> Any:
    return X if mean is None else X - mean


def _rate(Z: Any, variant: str, distortion: float) -> float:
    """1/2 log det(I + factor Z^T Z), from the smaller of the two Gram matrices."""
    xp, _ = get_namespace(Z=Z)
    n, d = Z.shape
    factor = (d if variant == "preprint" else 1) / (n * distortion)
    G = factor * gram(Z if d <= n else Z.T, xp)
    G = G + xp.eye(G.shape[0], dtype=G.dtype, device=get_namespace(Z=Z)[1])
    pivots = xp.linalg.diagonal(xp.linalg.cholesky(G))
    return float(xp.sum(xp.log(pivots)))
