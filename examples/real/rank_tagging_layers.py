"""Rank the layers of a sentence encoder for tagging words: names, and parts of speech.

    python examples/real/rank_tagging_layers.py --data FOLDER --output FOLDER

One call ranks the layers of MiniLM (and their mean) by the features of each word in its
sentence. The baseline uses the letters of the word alone. LogME is compared with the F1
of a linear head on other sentences. The script prints a table for each target and saves
a figure in ``--output``. It takes a few minutes.
"""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from texts import finish, make_parser, parse, read_tagged, sample

from sktransfer import ModelSelector
from sktransfer.agreement import regret, weighted_kendall_tau
from sktransfer.feature_extraction import TransformersFeatureExtractor

TARGETS = {
    "names (WNUT 17)": ("wnut17_train.txt", "wnut17_dev.txt"),
    "parts of speech (UD EWT)": ("ud_ewt_upos_dev.txt", "ud_ewt_upos_test.txt"),
}


def all_words(sentences: list[list[str]]) -> list[str]:
    return list(chain.from_iterable(sentences))


def micro_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    """F1 per word over all tags but "O"; the accuracy if there is no "O"."""
    tags = [tag for tag in np.unique(true) if tag != "O"]
    return f1_score(true, predicted, labels=tags, average="micro")


def head_score(X: np.ndarray, y: np.ndarray, X_new: np.ndarray, y_new: np.ndarray):
    """F1 of a logistic head on the words of held-out sentences."""
    head = make_pipeline(StandardScaler(), LogisticRegression(C=10 / X.shape[1]))
    return micro_f1(y_new, head.fit(X, y).predict(X_new))


def print_table(title: str, rows: list[dict]) -> None:
    table = Table(title=title)
    table.add_column("candidate")
    for header in ("LogME", "F1 of a logistic head"):
        table.add_column(header, justify="right")
    for row in sorted(rows, key=lambda row: -row["logme"]):
        table.add_row(row["label"], f"{row['logme']:.4f}", f"{row['f1']:.3f}")
    logme, f1 = ([row[key] for row in rows] for key in ("logme", "f1"))
    console.print(table)
    console.print(
        f"tau_w {weighted_kendall_tau(f1, logme):.2f}, loss of LogME's pick "
        f"{regret(f1, logme):.3f}."
    )


def plot(all_rows: dict[str, list[dict]], file: Path) -> None:
    """Plot LogME and F1 by layer, one column per target."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(all_rows), figsize=(8, 5.6), sharex=True, layout="constrained"
    )
    titles = {"logme": "LogME (nats)", "f1": "F1 on other sentences"}
    for column, (target, rows) in zip(axes.T, all_rows.items(), strict=True):
        column[0].set_title(target)
        column[-1].set_xlabel("layer of MiniLM")
        depth = [row for row in rows if row["layer"].isdigit()]
        others = [row for row in rows if not row["layer"].isdigit()]
        for axis, metric in zip(column, titles, strict=True):
            values = [row[metric] for row in depth]
            axis.plot(values, "o-", label="MiniLM")
            axis.plot(np.argmax(values), max(values), "*", color="k", ms=12, zorder=3)
            for row, style in zip(others, ("--", ":"), strict=True):
                colour = "C0" if row["layer"] else "C1"
                label = "mean of layers" if row["layer"] else row["label"]
                axis.axhline(row[metric], color=colour, ls=style, label=label)
    finish(figure, axes, list(titles.values()), file)


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=800, help="number per target")
    arguments = parse(parser, list(chain.from_iterable(TARGETS.values())))
    spelling = make_pipeline(
        FunctionTransformer(all_words),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True),
        TruncatedSVD(384, random_state=0),
    )
    encoder = TransformersFeatureExtractor(
        arguments.model, layer=["*", "mean"], pooling="tokens"
    )
    all_rows = {}
    for target, files in TARGETS.items():
        start = time.perf_counter()
        train, test = (
            sample(arguments.sentences, *read_tagged(arguments.data / "text" / file))
            for file in files
        )
        selector = ModelSelector([("letters", spelling), ("MiniLM", encoder)])
        selector.fit(*train)
        predicted = selector.predict(test[0])
        seconds = time.perf_counter() - start

        (X, y), (X_new, y_new) = train, test
        y, y_new = np.array(all_words(y)), np.array(all_words(y_new))
        letters = clone(spelling).fit(X)
        known = {"": letters.transform(X), **encoder.extract(X).features}
        new = {"": letters.transform(X_new), **encoder.extract(X_new).features}
        results = selector.results_
        rows = all_rows[target] = [
            {
                "label": f"{name} {layer}".strip(),
                "layer": layer,
                "logme": score,
                "f1": head_score(known[layer], y, new[layer], y_new),
            }
            for name, layer, score in zip(
                results["name"], results["layer"], results["logme"], strict=True
            )
        ]
        own = micro_f1(y_new, np.concatenate(predicted))
        print_table(f"{target}: {len(y)} words of {len(X)} sentences", rows)
        console.print(
            f"Ranking and tagging of other sentences: {seconds:.0f} s. LogME's own "
            f"head on {selector.best_name_}: F1 {own:.3f}.\n"
        )
    if arguments.output is not None:
        plot(all_rows, arguments.output / "rank_tagging_layers.png")


console = Console()
if __name__ == "__main__":
    main()
