"""What ranking and tuning in one call have found."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from sktransfer.utils._optional import import_optional


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningReport:
    """The tuned network, and what was expected and found on the way to it.

    Scores are fractions: accuracies, or R^2 for numbers.

    Attributes
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted to all labelled samples.
    selector : BaseModelSelector
        Fitted: the ranking.
    ranking : list of str
        The candidates, best first.
    network : str
        What was tuned.
    teachers : list of str
        The teachers, best first; empty without any.
    teacher_weights : list of float
        Their weights in the mixture; empty where the method has none.
    teacher_scores : list of float
        Expected score of a linear head on the frozen features of each teacher, from
        leave-one-out predictions of the labelled samples.
    mixture_score : float
        The same of the mixed teachers; NaN without any.
    network_score : float
        The same of the network before tuning.
    settings : list of dict
        One entry per setting that was tried: its parameters under ``"params"``,
        ``"valid_loss"``, ``"valid_score"``, ``"expected"`` and ``"error"``, empty if
        there was none. Loss and score are those of the samples that were set apart, and
        ``"expected"`` is the `mixture_score` on the others, NaN without teachers.
    best_params : dict
        Parameters of the setting with the least ``valid_loss``, among those without
        teachers if these are expected to be worse than the network without them.
    n_samples, n_unlabelled, n_validation : int
        Numbers of labelled samples, of unlabelled ones that were used, and of those
        that were set apart to choose among the settings.
    score_name : {"accuracy", "R^2"}

    See Also
    --------
    rank_and_tune : Makes it.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.tuning import rank_and_tune
    >>> X, y = load_dataset(return_X_y=True)
    >>> zoo = load_zoo(["plain-emoji", "plain-handwritten"])
    >>> report = rank_and_tune(
    ...     zoo, "plain-emoji", X[:100], y[:100], k=1, search=None, max_epochs=2
    ... )
    >>> print(report)
    Ranked 2 candidates on 100 samples: plain-handwritten is best.
    Tuned plain-emoji on 100 labelled samples, with teachers.
    <BLANKLINE>
                                     accuracy   weight
    teacher plain-handwritten          96.0 %     1.00
    plain-emoji before                 83.0 %
    """

    estimator: Any
    selector: Any
    ranking: list[str]
    network: str
    teachers: list[str]
    teacher_weights: list[float]
    teacher_scores: list[float]
    mixture_score: float
    network_score: float
    settings: list[dict] = field(repr=False)
    best_params: dict
    n_samples: int
    n_unlabelled: int
    n_validation: int
    score_name: str

    @property
    def valid_score(self) -> float:
        """Score of the chosen setting on the samples that were set apart.

        NaN if there was no choice. It is a little too high, as the best of several.
        """
        for entry in self.settings:
            if entry["params"] == self.best_params:
                return entry["valid_score"]
        return np.nan

    @property
    def plain_score(self) -> float:
        """The same of the best setting without teachers, NaN if none was tried."""
        return self._best_score(with_teachers=False)

    @property
    def taught_score(self) -> float:
        """The same of the best setting with teachers, NaN if none was tried."""
        return self._best_score(with_teachers=True)

    def _best_score(self, *, with_teachers: bool) -> float:
        entries = [
            entry
            for entry in self.settings
            if not entry["error"]
            and (entry["params"].get("penalty__weight", 0) > 0) == with_teachers
        ]
        if not entries:
            return np.nan
        return min(entries, key=lambda entry: entry["valid_loss"])["valid_score"]

    def _std_error(self, score: float) -> float:
        if self.score_name != "accuracy":
            return np.nan
        return float(np.sqrt(score * (1 - score) / self.n_validation))

    def _rows(self) -> list[dict]:
        def row(model, measured_on, score, std_error=np.nan, weight=np.nan):
            return {
                "model": model,
                "measured_on": measured_on,
                self.score_name: score,
                "std_error": std_error,
                "weight": weight,
            }

        before = "linear head, leave-one-out"
        weights = self.teacher_weights or [np.nan] * len(self.teachers)
        trio = zip(self.teachers, self.teacher_scores, weights, strict=True)
        rows = [
            row(f"teacher {name}", before, score, weight=weight)
            for name, score, weight in trio
        ]
        if len(self.teachers) > 1 and self.teacher_weights:
            rows.append(row("teachers mixed", before, self.mixture_score))
        rows.append(row(f"{self.network} before", before, self.network_score))
        after = f"{self.n_validation} samples set apart"
        scores = {"tuned": self.valid_score}
        if "penalty__weight" in self.best_params:
            scores = {
                "tuned without teachers": self.plain_score,
                "tuned with teachers": self.taught_score,
            }
        for what, score in scores.items():
            if np.isfinite(score):
                error = self._std_error(score)
                rows.append(row(f"{self.network} {what}", after, score, error))
        return rows

    def to_frame(self) -> Any:
        """What was expected and found, one row per teacher and state of the network.

        Returns
        -------
        pandas.DataFrame
            Columns: ``measured_on``, the score, ``std_error`` and ``weight``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = import_optional("pandas", extra="plot", needed_by="to_frame")
        return pandas.DataFrame(self._rows()).set_index("model")

    def __str__(self) -> str:
        samples = f"{self.n_samples} labelled"
        if self.n_unlabelled:
            samples += f" and {self.n_unlabelled} unlabelled"
        taught = bool(self.teachers) and self.best_params.get("penalty__weight") != 0
        n_failed = sum(bool(entry["error"]) for entry in self.settings)
        lines = [
            f"Ranked {len(self.ranking)} candidates on {self.n_samples} samples: "
            f"{self.ranking[0]} is best.",
            f"Tuned {self.network} on {samples} samples, "
            f"{'with' if taught else 'without'} teachers.",
        ]
        if len(self.settings) > 1:
            chosen = ", ".join(
                f"{k}={v:g}" if isinstance(v, Real) else f"{k}={v}"
                for k, v in self.best_params.items()
            )
            failed = f", of which {n_failed} failed" if n_failed else ""
            lines.append(
                f"Chose {chosen} among {len(self.settings)} settings{failed}, on "
                f"{self.n_validation} samples set apart."
            )
        width = max(len(row["model"]) for row in self._rows()) + 1
        lines += ["", f"{'':{width}}{self.score_name:>16}   weight"]
        for row in self._rows():
            error, weight = row["std_error"], row["weight"]
            shown = f"{row[self.score_name]:.3f}"
            if self.score_name == "accuracy":
                plus_minus = f" +- {100 * error:.1f}" if np.isfinite(error) else ""
                shown = f"{100 * row[self.score_name]:.1f}{plus_minus} %"
            share = f"{weight:9.2f}" if np.isfinite(weight) else ""
            lines.append(f"{row['model']:{width}}{shown:>16}{share}")
        return "\n".join(lines)
