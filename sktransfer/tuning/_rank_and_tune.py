"""From a zoo and labelled data to a tuned network, in one call."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from sklearn.base import clone
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from sktransfer import feature_extraction
from sktransfer.feature_extraction import BaseExtractor
from sktransfer.model_selection import BaseModelSelector
from sktransfer.tuning._backbone import as_extractor
from sktransfer.tuning._base import BaseFineTune
from sktransfer.tuning._fine_tune import FineTuneClassifier, FineTuneRegressor
from sktransfer.tuning._zoo_tuning import ZooTuning, structural_difference
from sktransfer.tuning.penalties._bayesian_tuning import BayesianTuning
from sktransfer.tuning.penalties._feature_distillation import FeatureDistillation

_PENALTIES = {"b-tuning": BayesianTuning, "distillation": FeatureDistillation}


@validate_params(
    {
        "selector": [BaseModelSelector],
        "k": [Interval(Integral, 1, None, closed="left")],
        "method": [StrOptions({*_PENALTIES, "zoo-tuning", "plain"})],
    },
    prefer_skip_nested_validation=False,
)
def rank_and_tune(
    selector: BaseModelSelector,
    network: Any,
    X: Any,
    y: Any,
    *,
    k: int = 3,
    method: str = "b-tuning",
    **params: Any,
) -> tuple[BaseFineTune, list[str]]:
    """Rank pre-trained models, then tune a network with the best as teachers.

    Parameters
    ----------
    selector : ModelSelector, or another BaseModelSelector
        The candidates. The ranking of a fitted selector, which must have been fitted to
        the same data, is used as it is. Otherwise a clone is fitted.
    network : str, TorchFeatureExtractor, torch.nn.Module or callable
        The network to deploy: the name of a candidate, or any other network.
    X : raw samples
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or numbers.
    k : int, default=3
        Number of teachers: the best candidates or, for ``"zoo-tuning"``, the best with
        the structure of the network.
    method : {"b-tuning", "distillation", "zoo-tuning", "plain"}, default="b-tuning"
        How they teach; ``"plain"`` is fine-tuning without teachers.
    **params : dict
        Parameters of the estimator, such as ``max_epochs=50``, ``penalty__weight=0.1``
        or, for ``"zoo-tuning"``, ``network__initial_weight=0.5``.

    Returns
    -------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted.
    ranking : list of str
        The candidates, best first.

    Raises
    ------
    ValueError
        If no candidate has the given name, or none can teach the network.

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
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.model_selection import ModelSelector
    >>> from sktransfer.tuning import rank_and_tune
    >>> X, y = load_dataset(return_X_y=True)
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
            "rank_and_tune takes one label per sample, or numbers. Got a y that holds "
            "several labels per sample."
        )
    if isinstance(network, str):
        candidates = dict(selector.extractors)
        if network not in candidates:
            raise ValueError(
                "The 'network' parameter of rank_and_tune must be a str among "
                f"{sorted(candidates)}, or a network. Got {network!r} instead."
            )
        network = candidates[network]
    if method in _PENALTIES:
        params["penalty"] = _PENALTIES[method](selector.teachers(k))
    elif method == "zoo-tuning":
        network = ZooTuning(network, _alike(selector, as_extractor(network), k))
    is_regression = selector.task_ == "regression"
    estimator = (FineTuneRegressor if is_regression else FineTuneClassifier)(network)
    return estimator.set_params(**params).fit(X, y), list(selector.ranking_)


def _alike(
    selector: BaseModelSelector, network: BaseExtractor, k: int
) -> list[tuple[Any, Any]]:
    """The k best teachers that have the structure of the network, except itself."""
    module, head = network.load_module(), network.source_head
    alike = [
        (extractor, logme)
        for extractor, logme in selector.teachers(len(selector.ranking_))
        if isinstance(extractor, feature_extraction.BaseNetworkExtractor)
        and extractor.fingerprint() != network.fingerprint()
        and structural_difference(module, extractor.load_module(), head) is None
    ]
    if not alike:
        raise ValueError(
            "method='zoo-tuning' needs candidates of the network's structure, but no "
            "other candidate has it. Use method='b-tuning', which accepts any."
        )
    return alike[:k]
