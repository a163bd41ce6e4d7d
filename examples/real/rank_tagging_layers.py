"""Rank the layers of a sentence encoder for tagging words: names, and parts of speech.

    python examples/real/rank_tagging_layers.py --data FOLDER --output FOLDER

One call ranks the layers of MiniLM (and their mean) by the features of each word in its
sentence. The baseline uses the letters of the word alone. The leave-one-out scores of
LogME's head, which leave out one sentence at a time, and LogME are compared with the F1
of a tuned logistic head on other sentences. The script prints a table for each target
and saves a figure in ``--output``. It takes a few minutes.
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
SCORES = {
    "loo_log_likelihood": "leave-one-out log-likelihood",
    "loo_accuracy": "leave-one-out accuracy",
    "loo_f1": "leave-one-out macro-F1",
    "logme": "LogME",
}
N_VALIDATION = 400


def all_words(sentences: list[list[str]]) -> list[str]:
    return list(chain.from_iterable(sentences))


def micro_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    """F1 per word over all tags but "O"; the accuracy if there is no "O"."""
    tags = [tag for tag in np.unique(true) if tag != "O"]
    return f1_score(true, predicted, labels=tags, average="micro")


def head_score(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """F1 of a logistic head on the last part; C is tuned on the part between."""
    (X, y), (X_tune, y_tune), (X_test, y_test) = parts
    scaler = StandardScaler().fit(X)
    best, head = -1.0, None
    for C in (1, 10, 100, 1000):
        tried = LogisticRegression(C=C / X.shape[1], max_iter=1000)
        tried.fit(scaler.transform(X), y)
        f1 = micro_f1(y_tune, tried.predict(scaler.transform(X_tune)))
        if f1 < best:
            break
        best, head = f1, tried
    return micro_f1(y_test, head.predict(scaler.transform(X_test)))


def print_table(title: str, rows: list[dict]) -> None:
    table = Table(title=title)
    table.add_column("candidate")
    for header in ("log-likelihood", "accuracy (%)", "macro-F1 (%)", "LogME", "F1 (%)"):
        table.add_column(header, justify="right")
    for row in sorted(rows, key=lambda row: -row["loo_log_likelihood"]):
        table.add_row(
            row["label"],
            f"{row['loo_log_likelihood']:.3f}",
            *(
                f"{100 * row[metric]:.1f} ± {100 * row[f'{metric}_std_error']:.1f}"
                for metric in ("loo_accuracy", "loo_f1")
            ),
            f"{row['logme']:.4f}",
            f"{100 * row['f1']:.1f}",
        )
    console.print(table)
    f1 = [row["f1"] for row in rows]
    for metric, name in SCORES.items():
        scores = [row[metric] for row in rows]
        console.print(
            f"{name}: pick {rows[np.argmax(scores)]['label']}, loss "
            f"{100 * regret(f1, scores):.1f} points, "
            f"tau_w {weighted_kendall_tau(f1, scores):.2f}"
        )


def plot(all_rows: dict[str, list[dict]], file: Path) -> None:
    """Plot F1, leave-one-out scores and LogME by layer, one column per target."""
    import matplotlib.pyplot as plt

    titles = {
        "f1": "F1 on other\nsentences (%)",
        "loo_accuracy": "leave-one-out\naccuracy (%)",
        "loo_log_likelihood": "leave-one-out\nlog-likelihood (nats)",
        "logme": "LogME (nats)",
    }
    figure, axes = plt.subplots(
        len(titles),
        len(all_rows),
        figsize=(8, 2.2 * len(titles) + 0.8),
        sharex=True,
        layout="constrained",
    )
    for column, (target, rows) in zip(axes.T, all_rows.items(), strict=True):
        column[0].set_title(target)
        column[-1].set_xlabel("layer of MiniLM")
        depth = [row for row in rows if row["layer"].isdigit()]
        others = [row for row in rows if not row["layer"].isdigit()]
        for axis, metric in zip(column, titles, strict=True):
            unit = 100 if titles[metric].endswith("(%)") else 1
            values = [unit * row[metric] for row in depth]
            axis.plot(values, "o-", label="MiniLM")
            axis.plot(np.argmax(values), max(values), "*", color="k", ms=12, zorder=3)
            for row, style in zip(others, ("--", ":"), strict=True):
                colour = "C0" if row["layer"] else "C1"
                label = "mean of layers" if row["layer"] else row["label"]
                axis.axhline(unit * row[metric], color=colour, ls=style, label=label)
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
        n = arguments.sentences
        known, new = (read_tagged(arguments.data / "text" / file) for file in files)
        both = sample(n + N_VALIDATION, *known)
        train, tune = (
            tuple(column[part] for column in both)
            for part in (slice(n), slice(n, None))
        )
        test = sample(n, *new)
        selector = ModelSelector(
            [("letters", spelling), ("MiniLM", encoder)], scoring=list(SCORES)
        ).fit(*train)
        predicted = selector.predict(test[0])
        seconds = time.perf_counter() - start

        letters = clone(spelling).fit(train[0])
        parts = []
        for X, y in (train, tune, test):
            features = {"": letters.transform(X), **encoder.extract(X).features}
            parts.append((features, np.array(all_words(y))))
        results = selector.results_
        rows = all_rows[target] = [
            {
                **{key: values[i] for key, values in results.items()},
                "label": f"{results['name'][i]} {layer}".strip(),
                "f1": head_score([(features[layer], y) for features, y in parts]),
            }
            for i, layer in enumerate(results["layer"])
        ]
        y, y_new = parts[0][1], parts[-1][1]
        own = micro_f1(y_new, np.concatenate(predicted))
        print_table(f"{target}: {len(y)} words of {len(train[0])} sentences", rows)
        console.print(
            f"Ranking and tagging of other sentences: {seconds:.0f} s. LogME's own "
            f"head on {selector.best_name_}: F1 {100 * own:.1f} %.\n"
        )
    if arguments.output is not None:
        plot(all_rows, arguments.output / "rank_tagging_layers.png")


console = Console(width=100)
if __name__ == "__main__":
    main()
