"""One pass of raw inputs through whatever part of an estimator extracts features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sktransfer.feature_extraction._base import BaseExtractor, Extraction
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
    problem = "it has no extractor with source probabilities"
    for step in feature_steps(estimator):
        if isinstance(step, BaseExtractor):
            try:
                step.check_source_proba()
            except ValueError as error:
                problem = str(error)
            else:
                return None
    return problem


def extract(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    source_proba: bool = False,
    fit: bool = False,
) -> Extraction:
    """Features by layer, and source probabilities, of raw inputs, from one pass.

    With `fit`, each step is fitted before it is used, by ``fit_transform`` where it
    has one, as a pipeline does: to fit a pipeline beforehand would send the samples
    through all but its last step twice. Networks then have to keep the weights that
    they have now, however often they are loaded again. Source probabilities are those
    of the last extractor that has them; a ValueError says why there are none. A layer
    that does not come from an extractor is called ``""``.
    """
    if source_proba and (problem := source_proba_problem(estimator)):
        raise ValueError(
            f"{type(estimator).__name__} gives no source probabilities: {problem}"
        )
    if fit:
        _pin_weights(estimator)
    result = Extraction({"": X})
    proba = None
    for step in feature_steps(estimator):
        X = result.joined
        if isinstance(step, BaseExtractor):
            wanted = source_proba and hasattr(step, "source_proba")
            result = (step.fit(X, y) if fit else step).extract(X, source_proba=wanted)
            check_extraction(result, step, "extract must return")
            proba = result.source_proba if wanted else proba
        elif fit and hasattr(step, "fit_transform"):
            # Not what `transform` gives where a step learns from the target: the
            # features of a training sample must not know that sample's own label.
            result = Extraction({"": step.fit_transform(X, y)})
        else:
            result = Extraction({"": (step.fit(X, y) if fit else step).transform(X)})
    if fit:
        _pin_weights(estimator)  # of clones that column transformers have made
    return Extraction(result.features, proba)


def _pin_weights(estimator: Any) -> None:
    for extractor in extractors_within(estimator, frozen=True):
        extractor.pin_weights()
