"""``sktransfer demo``: rank the embedded zoo for fine-tuning on alphabets."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from rich.table import Table

from sktransfer.agreement import regret, weighted_kendall_tau
from sktransfer.cli._errors import UsageError
from sktransfer.cli._notes import doubt, legend, paragraph
from sktransfer.cli._progress import fit_with_progress
from sktransfer.cli._tables import new_table, ranking_table, show
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._terminal import write
from sktransfer.utils._validation import describe_task

EXAMPLES = """\
  sktransfer demo
      rank twelve small pre-trained networks by what they show of 300 characters
"""

_N_SAMPLES = 300
# Those of scoring="fine_tuning", and the one for frozen features.
_METRICS = ["deep_logme", "loo_accuracy", "logme", "loo_log_likelihood"]

_FOOTNOTE = (
    "tau_w: weighted Kendall correlation with the accuracy. regret: accuracy points "
    "lost by choosing the top pick. Source accuracy and parameters are static: they do "
    "not depend on the data. Two networks of the zoo are left out, because they were "
    "trained on these characters."
)


def add_parser(commands: Any) -> None:
    """Add the parser of the command."""
    parser = commands.add_parser(
        "demo",
        help="rank the embedded zoo of pre-trained networks for fine-tuning",
        description="Rank small pre-trained networks for fine-tuning on handwritten "
        "characters of eight alphabets, state the accuracy to expect of a linear head, "
        "and compare several rankings with the accuracies recorded after fine-tuning.",
        epilog=f"example:\n{EXAMPLES}",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from sktransfer.datasets import load_dataset, load_zoo, load_zoo_cards

    cards = load_zoo_cards()
    names = [name for name, card in cards.items() if card["source"] != "alphabets"]
    try:
        zoo = load_zoo(names)
    except ImportError as error:
        raise UsageError(str(error)) from error
    target = load_dataset("alphabets")
    X, y = target.data[:_N_SAMPLES], target.target[:_N_SAMPLES]
    selector = ModelSelector(zoo, scoring=_METRICS)
    fit_with_progress(selector, X, y)
    title = f"{len(zoo)} networks for fine-tuning on {len(y)} characters"
    title += f": {describe_task(y, selector.task_)}"
    ranking = ranking_table(selector, title, metrics=_METRICS[:2], model="network")
    show(ranking)
    write("\n")
    show(_agreement_table(selector, cards))
    write("\n" + paragraph(f"{legend(ranking)} {_FOOTNOTE}"))
    if note := doubt(selector):
        write("\n" + paragraph(f"Note: {note}"))


def _agreement_table(selector: ModelSelector, cards: dict[str, dict]) -> Table:
    """How well metrics and static baselines order the recorded accuracies."""
    from sktransfer.datasets import load_benchmark

    names = [str(name) for name in selector.results_["name"]]
    source = [cards[name]["validation_accuracy"] for name in names]
    rankers = {metric: selector.results_[metric] for metric in _METRICS} | {
        # An untrained network has none: a static ranking puts it last.
        "source accuracy": np.array([value or 0.0 for value in source]),
        "parameters": np.array([cards[name]["n_parameters"] for name in names]),
    }
    table = new_table("Agreement with the accuracy after fine-tuning on n characters")
    table.add_column("order by", no_wrap=True)
    table.add_column("top pick", no_wrap=True)
    truth = load_benchmark().truth
    accuracies = []
    for n_train in (100, 300):
        chosen = (truth["target"] == "alphabets") & (truth["n_train"] == n_train)
        starts, tuned = truth["start"][chosen], 100 * truth["fine_tuned"][chosen]
        accuracies.append([tuned[starts == name].mean() for name in names])
        table.add_column(f"tau_w n={n_train}", justify="right")
        table.add_column("regret", justify="right", no_wrap=True)
    for ranker, scores in rankers.items():
        cells = [ranker, names[int(np.argmax(scores))]]
        for accuracy in accuracies:
            cells.append(f"{weighted_kendall_tau(accuracy, scores):.2f}")
            cells.append(f"{regret(accuracy, scores):.2f}")
        table.add_row(*cells)
    return table
