"""The loop: candidates on samples, in workers, one result for each."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.parallel import delayed
from sklearn.utils.validation import _num_samples

from sktransfer.feature_extraction import take_samples
from sktransfer.feature_extraction._tokens import flatten_labels, group_words
from sktransfer.model_selection._cache import SampleDigests
from sktransfer.model_selection._candidate import (
    CandidateResult,
    EvaluationSpec,
    best_result,
    evaluate_candidate,
    not_run,
)
from sktransfer.model_selection._jobs import run_jobs
from sktransfer.model_selection._report import print_results


class Evaluate:
    """Evaluates candidates on samples, as the contract of `BaseModelSelector` says."""

    def __init__(
        self,
        selector: BaseEstimator,
        X: Any,
        y: Any,
        groups: np.ndarray | None,
        spec: EvaluationSpec,
        root: Any,
    ):
        self.n_samples = _num_samples(X)
        self.y = y
        self.decides = spec.decides
        self.warnings: dict[tuple[str, type[Warning]], None] = {}
        self._selector, self._X, self._groups = selector, X, groups
        self._spec, self._root = spec, root
        self._digests = SampleDigests(X, self.n_samples, spec.memory)
        self._sizes: dict[int, np.ndarray] = {}  # number of samples -> samples
        self._found: dict[str, list[CandidateResult]] = {}
        self._best: CandidateResult | None = None

    @property
    def names(self) -> list[str]:
        """Names of all candidates; a new list each time, which a policy may change."""
        return [name for name, _ in self._selector.extractors]

    def __call__(
        self, names: Iterable[str] | None = None, samples: Any = None
    ) -> list[CandidateResult]:
        """Results of the named candidates on the samples with these indices."""
        chosen = set(self.names if names is None else names)
        if unknown := chosen.difference(self.names):
            found = sorted(unknown, key=str)
            raise ValueError(f"names must be among {self.names}. Got {found}.")
        candidates = [pair for pair in self._selector.extractors if pair[0] in chosen]
        X, y, groups, samples = self._take(samples)
        selector, spec = self._selector, self._spec
        digests = self._digests.of(samples, y)
        contexts = [self._root.subcontext(task_name=name) for name, _ in candidates]
        begun: set[int] = set()

        def call(i: int) -> tuple:
            if i not in begun:
                begun.add(i)
                contexts[i].call_on_fit_task_begin(estimator=selector, X=X, y=y)
            return delayed(evaluate_candidate)(
                *candidates[i],
                X,
                y,
                groups,
                spec,
                digests,
                self._to_beat(len(samples)),
            )

        def substitute(i: int, error: Exception) -> list[CandidateResult]:
            return [not_run(candidates[i][0], error)]

        jobs = [partial(call, i) for i in range(len(candidates))]
        raises = spec.error_score == "raise"
        batches = run_jobs(jobs, selector.n_jobs, None if raises else substitute)
        found = []
        for results, context in zip(batches, contexts, strict=True):
            context.call_on_fit_task_end(estimator=selector, X=X, y=y)
            self._collect(results, len(samples))
            if selector.verbose:
                print_results(results)
            found += results
        return found

    def _take(self, samples: Any) -> tuple[Any, Any, np.ndarray | None, np.ndarray]:
        everything = np.arange(self.n_samples)
        given = everything if samples is None else np.asarray(samples)
        # In the order of the data, so that the parts of scores are of the same samples.
        whole = given.dtype.kind in "iu"
        samples = np.intersect1d(given.astype(np.intp), everything) if whole else []
        if given.shape != np.shape(samples) or len(samples) == 0 < self.n_samples:
            raise ValueError(
                f"samples must be indices from 0 to {self.n_samples - 1}, at least one "
                f"and each at most once. Got {given}."
            )
        for other in self._sizes.values():
            small, large = sorted((samples, other), key=len)
            if not np.isin(small, large).all():
                raise ValueError(
                    "samples must be nested: those of an evaluation must be among "
                    "those of every larger one. Take them from one order of all. Got "
                    f"{len(samples)} samples after {len(other)}."
                )
        self._sizes[len(samples)] = samples
        X, y, groups = self._X, self.y, self._groups
        if not np.array_equal(samples, everything):
            X, y = take_samples(X, samples), take_samples(y, samples)
            groups = None if groups is None else groups[samples]
        if self._selector._of_tokens:
            y, groups = flatten_labels(X, y), group_words(X, groups)
        return X, y, groups, samples

    def _to_beat(self, n_samples: int) -> float | None:
        """What a result on as many samples has to exceed to be the best so far."""
        best = self._best
        if best is None or best.n_samples < n_samples:
            return None
        return best.value(self.decides) if best.n_samples == n_samples else np.inf

    def _collect(self, results: list[CandidateResult], n_samples: int) -> None:
        """Keep results, all but the best one light."""
        name, before = results[0].name, self._best
        for result in results:
            result.n_samples = n_samples
        earlier = self._found.get(name)
        if earlier is None or earlier[0].n_samples < n_samples:
            self._found[name] = results
        self._best = best_result(self._all_found(), self.decides)
        for result in filter(None, [before, *results]):
            if result is not self._best:
                result.lighten()
        for result in results:
            self.warnings.update(dict.fromkeys(result.warnings))

    def _all_found(self) -> list[CandidateResult]:
        return [r for name in self.names for r in self._found.get(name, [])]

    def results(self) -> list[CandidateResult]:
        """Those of the largest evaluation of each candidate."""
        if not self._all_found():
            raise ValueError("_run_selection has evaluated no candidate.")
        # The best was lightened before a better candidate failed on more samples. If
        # its extractor draws anew, another may be the best thereafter.
        while (best := self._best) and best.is_light and self._spec.fit_head:
            extractor = dict(self._selector.extractors)[best.name]
            X, y, groups, samples = self._take(self._sizes[best.n_samples])
            digests = self._digests.of(samples, y)
            again = evaluate_candidate(
                best.name, extractor, X, y, groups, self._spec, digests
            )
            for result in again:
                result.n_samples = len(samples)
                self.warnings.update(dict.fromkeys(result.warnings))
            # None becomes light again on the way, or this might not end.
            self._found[best.name] = again
            self._best = best_result(self._all_found(), self.decides)
        for result in self._all_found():
            if result is not self._best:
                result.lighten()
        return self._all_found()
