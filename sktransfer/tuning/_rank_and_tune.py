"""From a hub and labelled data to a tuned network and a report, in one call."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from rich.progress import Progress
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import ParameterGrid
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from sktransfer import feature_extraction
from sktransfer.feature_extraction import BaseExtractor
from sktransfer.feature_extraction._extract import is_stateless
from sktransfer.model_selection import BaseModelSelector, ModelSelector
from sktransfer.tuning._backbone import as_extractor
from sktransfer.tuning._base import BaseFineTune
from sktransfer.tuning._fine_tune import FineTuneClassifier, FineTuneRegressor
from sktransfer.tuning._net import DivergenceError
from sktransfer.tuning._tuning_report import TuningReport
from sktransfer.tuning._zoo_tuning import ZooTuning, structural_difference
from sktransfer.tuning.penalties._bayesian_tuning import BayesianTuning
from sktransfer.tuning.penalties._feature_distillation import FeatureDistillation
from sktransfer.tuning.penalties._predictive_distillation import PredictiveDistillation
from sktransfer.tuning.penalties._teachers import TeacherPenalty
from sktransfer.utils._progress import ProgressCallback, make_progress

_PENALTIES = {
    "predictive-distillation": PredictiveDistillation,
    "b-tuning": BayesianTuning,
    "distillation": FeatureDistillation,
}
_LEARNING_RATES = (0.01, 0.03, 0.1)
_VALIDATION = 0.3


@validate_params(
    {
        "selector": [BaseModelSelector, list, tuple],
        "k": [Interval(Integral, 1, None, closed="left")],
        "method": [StrOptions({*_PENALTIES, "zoo-tuning", "plain"})],
        "search": [StrOptions({"auto"}), Mapping, None],
        "progress": ["boolean", None],
    },
    prefer_skip_nested_validation=False,
)
def rank_and_tune(
    selector: BaseModelSelector | Sequence[tuple[str, Any]],
    network: Any,
    X: Any,
    y: Any,
    *,
    unlabelled: Any = None,
    k: int = 3,
    method: str = "predictive-distillation",
    search: Mapping[str, Sequence[Any]] | str | None = "auto",
    progress: bool | None = None,
    **params: Any,
) -> TuningReport:
    """Rank pre-trained models, then tune a network with the best as teachers.

    Parameters
    ----------
    selector : ModelSelector, another BaseModelSelector, or list of (name, extractor)
        The candidates. The ranking of a fitted selector, which must have been fitted to
        the same data, is used as it is. Otherwise a clone is fitted.
    network : str, TorchFeatureExtractor, torch.nn.Module, callable or None
        The network to deploy: the name of a candidate, or any other network. None is
        the best candidate that can be tuned.
    X : raw samples
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or numbers.
    unlabelled : raw samples, default=None
        More samples without labels, for the teachers to label. They are what makes
        teachers worth their cost.
    k : int, default=3
        Number of teachers: the best candidates or, for ``"zoo-tuning"``, the best with
        the structure of the network.
    method : {"predictive-distillation", "b-tuning", "distillation", "zoo-tuning", \
"plain"}, default="predictive-distillation"
        How they teach; ``"plain"`` is fine-tuning without teachers.
    search : dict, "auto" or None, default="auto"
        Settings to choose from: lists of values by parameter of the estimator. Each is
        trained on 70 % of the samples (or as ``validation_fraction`` says), and that
        with the least loss on the others is trained on all. Teachers are left out if
        their expected score is below that of the network without them. ``"auto"`` tries
        the learning rates 0.01, 0.03 and 0.1, each with and without teachers.
        Parameters that are given are not searched. None takes them as they are.
    progress : bool, default=None
        Whether to show progress bars on standard error; None if it is a terminal.
    **params : dict
        Parameters of the estimator, such as ``max_epochs=50``, ``penalty__weight=0.1``
        or, for ``"zoo-tuning"``, ``network__initial_weight=0.5``.

    Returns
    -------
    TuningReport
        With the fitted `estimator`. ``print`` shows it as a table.

    Raises
    ------
    ValueError
        If no candidate has the given name, none can be tuned, none can teach the
        network, or training fails in every setting.

    Warns
    -----
    WeakTeachersWarning
        If the teachers are not expected to help.

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
    >>> from sktransfer.tuning import rank_and_tune
    >>> X, y = load_dataset(return_X_y=True)
    >>> zoo = load_zoo(["plain-emoji", "plain-handwritten", "residual-clothes"])
    >>> report = rank_and_tune(
    ...     zoo, "plain-emoji", X[:100], y[:100], unlabelled=X[100:500], k=2,
    ...     search=None, max_epochs=2,
    ... )
    >>> report.teachers
    ['plain-handwritten', 'residual-clothes']
    >>> report.estimator.predict(X[500:]).shape
    (1297,)
    """
    with make_progress(shown=progress) as bars:
        if not isinstance(selector, BaseModelSelector):
            selector = ModelSelector(list(selector))
        if selector.__sklearn_is_fitted__():
            _check_same_data(selector, y)
        else:
            selector = clone(selector)
            selector.set_callbacks(ProgressCallback(bars)).fit(X, y)
            selector.set_callbacks()  # the bars cannot be pickled
        if selector.task_ == "multilabel":
            raise ValueError(
                "rank_and_tune takes one label per sample, or numbers. Got a y that "
                "holds several labels per sample."
            )
        name, network = _find_network(selector, network)
        ranked = selector._teachers
        teachers = [] if method == "plain" else ranked[:k]
        if method == "zoo-tuning":
            teachers = _alike(ranked, as_extractor(network), k)
        with tempfile.TemporaryDirectory(prefix="sktransfer-") as folder:
            # Teachers see every sample once, whatever the number of fits.
            memory = folder if selector.memory is None else selector.memory
            estimator = _make_estimator(selector, network, method, teachers, memory)
            estimator.set_params(**params)
            settings, n_validation = _try_settings(
                estimator, search, params, X, y, unlabelled, bars
            )
            best = _best_params(settings)
            if settings:  # a clone would have the teachers' LogME fitted again
                estimator = clone(estimator).set_params(**best)
            bar = ProgressCallback(bars, "Tuning on all samples")
            estimator.set_callbacks(bar).fit(X, y, unlabelled=unlabelled)
            estimator.set_callbacks()
            if isinstance(estimator.penalty, TeacherPenalty):
                estimator.penalty.set_params(memory=params.get("penalty__memory"))
    return TuningReport(
        estimator=estimator,
        selector=selector,
        ranking=list(selector.ranking_),
        network=name,
        **_expectations(selector, estimator, teachers, network, X, y),
        settings=settings,
        best_params=best,
        n_samples=len(y),
        n_unlabelled=estimator.n_unlabelled_,
        n_validation=n_validation,
        score_name="R^2" if selector.task_ == "regression" else "accuracy",
    )


def _find_network(selector: BaseModelSelector, network: Any) -> tuple[str, Any]:
    """The name of what is tuned, and the network."""
    if network is None:
        for result in selector._teachers:
            extractor = result.extractor
            is_network = isinstance(extractor, feature_extraction.BaseNetworkExtractor)
            if is_network and not extractor.gives_tokens:
                return result.label, extractor
        raise ValueError(
            "No candidate can be tuned: none is a torch network. Pass a 'network'."
        )
    if not isinstance(network, str):
        return type(as_extractor(network).load_module()).__name__, network
    candidates = dict(selector.extractors)
    if network not in candidates:
        raise ValueError(
            "The 'network' parameter of rank_and_tune must be a str among "
            f"{sorted(candidates)}, or a network. Got {network!r} instead."
        )
    return network, candidates[network]


def _make_estimator(
    selector: BaseModelSelector,
    network: Any,
    method: str,
    teachers: Sequence[Any],
    memory: Any,
) -> BaseFineTune:
    """The estimator with its teachers, and a seed that all settings share."""
    pairs = [
        # Clones of the estimator are to keep what a transformer has learnt.
        (e if is_stateless(e) else FrozenEstimator(e), logme)
        for e, logme in ((result.extractor, result.logme) for result in teachers)
    ]
    penalty = None
    if method in _PENALTIES:
        penalty = _PENALTIES[method](pairs, memory=memory)
    elif method == "zoo-tuning":
        network = ZooTuning(network, pairs)
    kind = FineTuneRegressor if selector.task_ == "regression" else FineTuneClassifier
    seed = check_random_state(None).randint(2**31 - 1)
    return kind(network, penalty=penalty, random_state=int(seed))


def _try_settings(
    estimator: BaseFineTune,
    search: Mapping[str, Sequence[Any]] | str | None,
    params: Mapping[str, Any],
    X: Any,
    y: Any,
    unlabelled: Any,
    bars: Progress,
) -> tuple[list[dict], int]:
    """Train with each setting, and note the loss on samples that were set apart.

    The number of these samples comes with the settings; 0 if there is no choice.
    """
    if search is None:
        return [], 0
    if search == "auto":
        search = {"lr": _LEARNING_RATES}
        if estimator.penalty is not None:
            search["penalty__weight"] = (0.0, estimator.penalty.weight)
        search = {name: v for name, v in search.items() if name not in params}
    grid = list(ParameterGrid(search))
    if len(grid) == 1:
        estimator.set_params(**grid[0])
        return [], 0
    fraction = estimator.validation_fraction
    if fraction is None:
        _check_final_fit(estimator)
        fraction = _find_fraction(estimator, y)
    settings = []
    for i, setting in enumerate(grid, start=1):
        model = clone(estimator)
        model.set_params(**{"validation_fraction": fraction, **setting})
        shown = ", ".join(f"{name}={value}" for name, value in setting.items())
        model.set_callbacks(ProgressCallback(bars, f"Trying {i}/{len(grid)}: {shown}"))
        entry = {"params": setting, "valid_loss": np.nan, "valid_score": np.nan}
        entry["error"], entry["expected"] = "", np.nan
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they come again at the end
                model.fit(X, y, unlabelled=unlabelled)
        except DivergenceError as error:
            entry["error"] = str(error)
        else:
            losses = model.history_[:, "valid_loss"]
            # With early stopping the weights are those of the best epoch.
            kept = int(np.argmin(losses)) if model.n_iter_no_change else -1
            entry["valid_loss"] = losses[kept]
            is_regression = isinstance(model, FineTuneRegressor)
            entry["valid_score"] = (
                1 - losses[kept] if is_regression else model.history_[kept, "valid_acc"]
            )
            known = getattr(model.penalty_, "expectations", None)
            if known is not None and model.penalty.weight:
                entry["expected"] = known.mixture
        settings.append(entry)
    return settings, math.ceil(fraction * len(y))


def _check_same_data(selector: BaseModelSelector, y: Any) -> None:
    """Refuse a selector that was fitted to other samples, as far as y can tell."""
    n_seen = int(max(selector.results_["n_samples"]))
    labels = getattr(selector, "classes_", None)
    is_other = n_seen > len(y) or (
        isinstance(selector, ModelSelector) and n_seen < len(y)
    )
    if is_other or (labels is not None and not np.array_equal(np.unique(y), labels)):
        of = "" if labels is None else f" of the classes {labels.tolist()}"
        raise ValueError(
            f"The selector was fitted to {n_seen} samples{of}, which are not those of "
            f"y, of {len(y)} samples. Pass an unfitted selector, or the data it knows."
        )


def _check_final_fit(estimator: BaseFineTune) -> None:
    """Refuse before all the training what would fail in the fit after it."""
    if estimator.n_iter_no_change is not None:
        raise ValueError(
            "The 'n_iter_no_change' parameter needs a 'validation_fraction', for the "
            "last fit, too. Got none."
        )


def _find_fraction(estimator: BaseFineTune, y: Any) -> float:
    """30 %, or more if one sample of each class would not fit."""
    if isinstance(estimator, FineTuneRegressor):
        return _VALIDATION
    labels, counts = np.unique(np.asarray(y), return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            "To choose among settings, samples are set apart, so that every label "
            "needs at least two. Got one sample of "
            f"{labels[counts < 2].tolist()}. Pass search=None to train with one "
            "setting."
        )
    return max(_VALIDATION, len(labels) / len(y))


def _best_params(settings: Sequence[Mapping[str, Any]]) -> dict:
    """The setting with the least loss on the samples set apart.

    Teachers that are not expected to be as good as the network without them are left
    out: a few samples set apart cannot tell how much they would harm.
    """
    if not settings:
        return {}
    done = [entry for entry in settings if not entry["error"]]
    if not done:
        raise ValueError(
            f"Training failed in all {len(settings)} settings. The first error was: "
            f"{settings[0]['error']}"
        )

    def best(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        return min(entries, key=lambda entry: entry["valid_loss"])

    plain = [e for e in done if e["params"].get("penalty__weight") == 0]
    if plain:
        to_reach = best(plain)["valid_score"]
        done = [e for e in done if not e["expected"] < to_reach]
    return best(done)["params"]


def _expectations(
    selector: BaseModelSelector,
    estimator: BaseFineTune,
    teachers: Sequence[Any],
    network: Any,
    X: Any,
    y: Any,
) -> dict[str, Any]:
    """Expected scores of teachers and network on their frozen features."""
    metric = "loo_r2" if selector.task_ == "regression" else "loo_accuracy"
    found = {
        "teachers": [result.label for result in teachers],
        "teacher_weights": [],
        "mixture_score": np.nan,
    }
    known = getattr(estimator.penalty_, "expectations", None)
    if known is not None:
        weights = estimator.penalty_.mixture_weights.tolist()
        found.update(teacher_weights=weights, mixture_score=known.mixture)
        found.update(teacher_scores=known.teachers, network_score=known.network)
        return found
    alone = ModelSelector([("network", as_extractor(network))], scoring=metric)
    found["network_score"] = alone.fit(X, y).best_score_
    found["teacher_scores"] = [
        result.scores[metric].value if metric in result.scores else np.nan
        for result in teachers
    ]
    return found


def _alike(ranked: Sequence[Any], network: BaseExtractor, k: int) -> list[Any]:
    """The k best that have the structure of the network, except itself."""
    module, head = network.load_module(), network.source_head
    alike = [
        result
        for result in ranked
        if isinstance(result.extractor, feature_extraction.BaseNetworkExtractor)
        and result.extractor.fingerprint() != network.fingerprint()
        and structural_difference(module, result.extractor.load_module(), head) is None
    ]
    if not alike:
        raise ValueError(
            "method='zoo-tuning' needs candidates of the network's structure, but no "
            "other candidate has it. Use method='b-tuning', which accepts any."
        )
    return alike[:k]
