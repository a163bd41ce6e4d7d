"""From a zoo and labelled data to a tuned network, in one call."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from sklearn.base import clone
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from sktransfer.feature_extraction import BaseExtractor
from sktransfer.model_selection import ModelSelector
from sktransfer.tuning._backbone import as_extractor
from sktransfer.tuning._base import BaseFineTune
from sktransfer.tuning._fine_tune import FineTuneClassifier, FineTuneRegressor
from sktransfer.tuning._penalties import BayesianTuning, FeatureDistillation
from sktransfer.tuning._zoo_tuning import ZooTuning, structural_difference

_PENALTIES = {"b-tuning": BayesianTuning, "distillation": FeatureDistillation}


@validate_params(
    {
        "selector": [ModelSelector],
        "k": [Interval(Integral, 1, None, closed="left")],
        "method": [StrOptions({*_PENALTIES, "zoo-tuning", "plain"})],
    },
    prefer_skip_nested_validation=False,
)
def rank_and_tune(
    selector: ModelSelector,
    target: Any,
    X: Any,
    y: Any,
    *,
    k: int = 3,
    method: str = "b-tuning",
    **params: Any,
) -> tuple[BaseFineTune, list[str]]:
    """Rank pre-trained models, then tune one with the knowledge of the best.

    Parameters
    ----------
    selector : ModelSelector
        The candidates. If fitted, to these very data, its ranking is taken as it is;
        if not, a clone is fitted.
    target : str, TorchFeatureExtractor, torch.nn.Module or callable
        The network that has to be deployed: one of the candidates by name, or any.
    X : raw samples
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or numbers.
    k : int, default=3
        How many of the best candidates teach. For ``"zoo-tuning"`` the best of those
        count that have the structure of the target.
    method : {"b-tuning", "distillation", "zoo-tuning", "plain"}, default="b-tuning"
        How they teach; ``"plain"`` is fine-tuning without teachers.
    **params : dict
        Parameters of the estimator, such as ``max_epochs=50``, ``penalty__weight=0.1``
        or, for ``"zoo-tuning"``, ``module__share=0.5``.

    Returns
    -------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted.
    ranking : list of str
        The candidates, best first.

    Raises
    ------
    ValueError
        If the target is not there, or no candidate can teach it.

    See Also
    --------
    sktransfer.model_selection.ModelSelector : The ranking alone.
    FineTuneClassifier : The tuning alone.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.

    Examples
    --------
    >>> from sktransfer.datasets import load_target, load_zoo
    >>> from sktransfer.model_selection import ModelSelector
    >>> from sktransfer.tuning import rank_and_tune
    >>> X, y = load_target(return_X_y=True)
    >>> zoo = load_zoo(["plain-emoji", "plain-handwritten", "residual-clothes"])
    >>> model, ranking = rank_and_tune(
    ...     ModelSelector(zoo), "plain-emoji", X[:100], y[:100], k=2, max_epochs=2
    ... )
    >>> ranking[0]
    'plain-handwritten'
    >>> model.predict(X[100:]).shape
    (1697,)
    """
    if not selector.__sklearn_is_fitted__():
        selector = clone(selector).fit(X, y)
    if selector.task_ == "multilabel":
        raise ValueError(
            "rank_and_tune takes labels or numbers; y holds several labels a sample."
        )
    module = _find(selector, target)
    if method in _PENALTIES:
        params["penalty"] = _PENALTIES[method](selector.teachers(k))
    elif method == "zoo-tuning":
        module = ZooTuning(module, _alike(selector, as_extractor(module), k))
    is_regression = selector.task_ == "regression"
    estimator = (FineTuneRegressor if is_regression else FineTuneClassifier)(module)
    return estimator.set_params(**params).fit(X, y), list(selector.ranking_)


def _find(selector: ModelSelector, target: Any) -> Any:
    """The candidate that is named, or the target itself."""
    if not isinstance(target, str):
        return target
    candidates = dict(selector.extractors)
    if target not in candidates:
        raise ValueError(
            f"The 'target' parameter of rank_and_tune must be a str among "
            f"{sorted(candidates)}, or a network. Got {target!r} instead."
        )
    return candidates[target]


def _alike(
    selector: ModelSelector, target: BaseExtractor, k: int
) -> list[tuple[Any, Any]]:
    """The k best teachers that have the structure of the target, itself excepted."""
    from sktransfer.feature_extraction import BaseNetworkExtractor

    module, head = target.load_module(), target.source_head
    alike = [
        (extractor, logme)
        for extractor, logme in selector.teachers(len(selector.ranking_))
        if isinstance(extractor, BaseNetworkExtractor)
        and extractor.fingerprint() != target.fingerprint()
        and structural_difference(module, extractor.load_module(), head) is None
    ]
    if not alike:
        raise ValueError(
            "method='zoo-tuning' needs candidates of the target's structure, but no "
            "other candidate has it; method='b-tuning' takes candidates of any."
        )
    return alike[:k]
