"""One pass of raw inputs through whatever part of an estimator extracts features."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sktransfer.feature_extraction._base import (
    BaseExtractor,
    Extraction,
    takes_all_layers,
)
from sktransfer.feature_extraction._collect import check_extraction


def without_predictor(estimator: Any) -> Any:
    """The estimator without its final predictor.

    A classifier or regressor counts as a predictor even if it transforms, too; a
    fitted ModelSelector stands for its best extractor.
    """
    if isinstance(estimator, Pipeline):
        *others, (name, last) = estimator.steps
        return Pipeline([*others, (name, without_predictor(last))])
    if hasattr(estimator, "best_extractor_"):
        return estimator.best_extractor_
    if isinstance(estimator, FrozenEstimator):
        inner = without_predictor(estimator.estimator)
        return inner if inner == "passthrough" else FrozenEstimator(inner)
    if hasattr(estimator, "predict") and (
        not hasattr(estimator, "transform")
        or is_classifier(estimator)
        or is_regressor(estimator)
    ):
        return "passthrough"
    return estimator


def feature_steps(estimator: Any) -> list[Any]:
    """The steps of a transformer, in order; a TypeError if one is no transformer.

    A pipeline (nested ones too) gives its steps, "passthrough" none. The steps of a
    frozen pipeline are frozen, except extractors, which have nothing to fit.
    """
    if isinstance(estimator, Pipeline):
        return [part for _, step in estimator.steps for part in feature_steps(step)]
    if isinstance(estimator, FrozenEstimator):
        return [
            step if isinstance(step, BaseExtractor) else FrozenEstimator(step)
            for step in feature_steps(estimator.estimator)
        ]
    if estimator is None or (isinstance(estimator, str) and estimator == "passthrough"):
        return []
    if not hasattr(estimator, "transform"):
        raise TypeError(
            "An estimator to extract features with must be a transformer or a "
            f"pipeline of transformers. Got {estimator!r}, which does not have the "
            "method 'transform'."
        )
    return [estimator]


def is_stateless(estimator: Any) -> bool:
    """Whether a transformer has nothing to fit: its steps are all extractors."""
    return all(isinstance(step, BaseExtractor) for step in feature_steps(estimator))


def gives_tokens(estimator: Any) -> bool:
    """Whether the rows of the features are words of the samples, not the samples."""
    try:
        steps = feature_steps(estimator)
    except TypeError:
        return False
    return any(step.gives_tokens for step in steps if isinstance(step, BaseExtractor))


def extractors_within(estimator: Any, *, frozen: bool = False) -> Iterator[Any]:
    """Yield every extractor in an estimator, however deep it is nested.

    With `frozen`, also those in a `FrozenEstimator`, which are never cloned.
    """
    if isinstance(estimator, BaseExtractor):
        yield estimator
    elif isinstance(estimator, (list, tuple)):
        for part in estimator:
            yield from extractors_within(part, frozen=frozen)
    elif isinstance(estimator, BaseEstimator) and (
        frozen or not isinstance(estimator, FrozenEstimator)
    ):
        yield from extractors_within(list(vars(estimator).values()), frozen=frozen)


def source_proba_problem(estimator: Any) -> str | None:
    """Say why an estimator gives no source probabilities; None if it does."""
    return _problem(
        estimator, _proba_problem, "it has no extractor with source probabilities"
    )


def all_layers_problem(estimator: Any) -> str | None:
    """Say why an estimator does not show the layers of a network; None if it does."""
    return _problem(
        estimator, _layers_problem, "it has no extractor that shows those of a network"
    )


def _problem(estimator: Any, problem_of: Any, default: str) -> str | None:
    """The problem of the last extractor in an estimator, None if any has none."""
    extractors = [s for s in feature_steps(estimator) if isinstance(s, BaseExtractor)]
    problems = [problem_of(extractor) for extractor in extractors]
    return None if None in problems else (problems or [default])[-1]


def _proba_problem(extractor: BaseExtractor) -> str | None:
    return _message(extractor.check_source_proba)


def _layers_problem(extractor: BaseExtractor) -> str | None:
    if not takes_all_layers(extractor.extract):
        # Its class may have that check from one that takes the argument.
        return f"{type(extractor).__name__}.extract lacks the argument 'all_layers'"
    return _message(extractor.check_all_layers)


def _message(check: Callable[[], None]) -> str | None:
    try:
        check()
    except ValueError as error:
        return str(error)
    return None


def layers_under(extraction: Extraction, name: str | None = None) -> dict[str, Any]:
    """All layers of a network with some of its features as the last.

    `name` is that of the features, by default of all side by side. What shows no layers
    has its features alone.
    """
    if name is None and len(extraction.features) == 1:
        (name,) = extraction.features
    last = extraction.joined if name is None else extraction.features[name]
    # Their own layer is pooled in another way, but is the same layer.
    others = {k: a for k, a in (extraction.layers or {}).items() if k != name}
    return {**others, name or "the features": last}


def warn_of_one_layer(layers: dict[str, Any] | None, problem: str | None) -> None:
    """Warn if scores of all layers see one only, and say why."""
    if layers is not None and len(layers) == 1:
        reason = problem or "its network shows no other"
        warnings.warn(
            f"scores of all layers see the features only, as one layer: {reason}.",
            stacklevel=3,
        )


def extract(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    source_proba: bool = False,
    all_layers: bool = False,
    fit: bool = False,
) -> Extraction:
    """Features, source probabilities and all layers of raw inputs, from one pass.

    With `fit`, each step is fitted before it is used, by ``fit_transform`` where it
    has one, as a pipeline does: to fit a pipeline beforehand would send the samples
    through all but its last step twice. Networks then have to keep the weights that
    they have now, however often they are loaded again. Source probabilities are those
    of the last extractor that has them; a ValueError says why there are none. All
    layers are those of the last network in the same way, whatever steps come after it.
    A layer that does not come from an extractor is called ``""``.
    """
    if source_proba and (problem := source_proba_problem(estimator)):
        raise ValueError(
            f"{type(estimator).__name__} gives no source probabilities: {problem}"
        )
    if all_layers and (problem := all_layers_problem(estimator)):
        raise ValueError(f"{type(estimator).__name__} shows no layers: {problem}")
    if fit:
        _pin_weights(estimator)
    result = Extraction({"": X})
    proba = layers = None
    for step in feature_steps(estimator):
        X = result.joined
        if isinstance(step, BaseExtractor):
            wanted = {"source_proba": source_proba and hasattr(step, "source_proba")}
            if all_layers and _layers_problem(step) is None:
                wanted["all_layers"] = True  # which others need not know
            result = (step.fit(X, y) if fit else step).extract(X, **wanted)
            check_extraction(result, step, "extract must return")
            proba = result.source_proba if wanted["source_proba"] else proba
            layers = result.layers if "all_layers" in wanted else layers
        elif fit and hasattr(step, "fit_transform"):
            # Not what `transform` gives where a step learns from the target: the
            # features of a training sample must not know that sample's own label.
            result = Extraction({"": step.fit_transform(X, y)})
        else:
            result = Extraction({"": (step.fit(X, y) if fit else step).transform(X)})
    if fit:
        _pin_weights(estimator)  # of clones that column transformers have made
    return Extraction(result.features, proba, layers)


def _pin_weights(estimator: Any) -> None:
    for extractor in extractors_within(estimator, frozen=True):
        extractor.pin_weights()
