"""Rank the layers of a sentence encoder and word counts on six text targets.

    python examples/real/rank_text_candidates.py --data FOLDER --output FOLDER

The candidates are the layers of MiniLM (and their mean), TF-IDF, and hashed character
n-grams; the last two are followed by a singular value decomposition. The leave-one-out
scores of LogME's head, and LogME as in the paper and with an intercept, are compared
with the cross-validated accuracy or R² of a tuned linear head. The script prints tables
and saves a figure in ``--output``. It takes a few minutes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.pipeline import make_pipeline
from texts import finish, make_parser, parse, read_table, sample

from sktransfer import ModelSelector
from sktransfer.agreement import regret, weighted_kendall_tau
from sktransfer.feature_extraction import (
    BaseExtractor,
    Extraction,
    TransformersFeatureExtractor,
)
from sktransfer.metrics import logme_score, make_transferability_scorer

FILES = {
    "sentiment": ("sentence_polarity.csv", "label"),
    "150 intents": ("clinc150.csv", "intent"),
    "10 domains": ("clinc150.csv", "domain"),
    "77 intents": ("banking77.csv", "label"),
    "acceptability": ("blimp_acceptability.csv", "label"),
    "similarity": ("stsb_images.csv", "score"),
}
TRUTH = "linear_probe"
SCORING = {
    "loo_log_likelihood": "loo_log_likelihood",
    "logme": make_transferability_scorer(logme_score, fit_intercept=False),
    "with_intercept": make_transferability_scorer(logme_score, fit_intercept=True),
    TRUTH: TRUTH,
}


class OfPairs(BaseExtractor):
    """Features of pairs of texts: |u - v| and u * v of the features of the two."""

    def __init__(self, extractor: Any, layer: str | None = None):
        self.extractor = extractor
        self.layer = layer

    def fit(self, X: Any, y: Any = None) -> OfPairs:
        both = [text for pair in X for text in pair]
        self.extractor_ = clone(self.extractor).fit(both)
        return self

    def extract(self, X: Any, *, source_proba: bool = False) -> Extraction:
        first, second = (self._layers(list(side)) for side in zip(*X, strict=True))
        return Extraction(
            {
                name: np.hstack([np.abs(u - second[name]), u * second[name]])
                for name, u in first.items()
                if self.layer in (None, name)
            }
        )

    def _layers(self, texts: list[str]) -> dict[str, np.ndarray]:
        if isinstance(self.extractor_, BaseExtractor):
            return self.extractor_.transform_layers(texts)
        return {"": self.extractor_.transform(texts)}


def load(folder: Path, target: str, n: int) -> tuple[list, np.ndarray]:
    """Load texts, or pairs of texts, and the target."""
    file, column = FILES[target]
    rows = read_table(folder / file)
    if target == "acceptability":
        # Take one sentence of each pair; the good and the bad one are almost equal.
        odd = np.random.default_rng(0).random(len(rows)) < 0.5
        pairs = dict.fromkeys((row["uid"], row["pair_id"]) for row in rows)
        wanted = {pair: str(int(o)) for pair, o in zip(pairs, odd, strict=False)}
        rows = [r for r in rows if r["label"] == wanted[r["uid"], r["pair_id"]]]
    (rows,) = sample(n, rows)
    if target == "similarity":
        X = [(row["sentence1"], row["sentence2"]) for row in rows]
        return X, np.array([float(row[column]) for row in rows])
    return [row["text"] for row in rows], np.array([row[column] for row in rows])


def candidates(model: str, *, of_pairs: bool) -> list[tuple[str, Any]]:
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    letters = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), n_features=2**14
    )
    found = [
        ("TF-IDF", make_pipeline(words, TruncatedSVD(384, random_state=0))),
        ("hashing", make_pipeline(letters, TruncatedSVD(384, random_state=0))),
        ("MiniLM", TransformersFeatureExtractor(model, layer=["*", "mean"])),
    ]
    if of_pairs:
        found = [(name, OfPairs(extractor)) for name, extractor in found]
    return found


def print_table(target: str, labels: list[str], results: dict, expected: str) -> None:
    table = Table(title=target)
    table.add_column("candidate")
    for header in (
        "leave-one-out log-likelihood",
        "R² expected (%)" if expected == "loo_r2" else "accuracy expected (%)",
        "± s.e.",
        "linear head (%)",
        "LogME",
        "with intercept",
        "width",
    ):
        table.add_column(header, justify="right")
    for i in np.argsort(-results["loo_log_likelihood"]):
        table.add_row(
            labels[i],
            f"{results['loo_log_likelihood'][i]:.3f}",
            f"{100 * results[expected][i]:.1f}",
            f"{100 * results[f'{expected}_std_error'][i]:.1f}",
            f"{100 * results[TRUTH][i]:.1f}",
            f"{results['logme'][i]:.4f}",
            f"{results['with_intercept'][i]:.4f}",
            str(results["n_features"][i]),
        )
    console.print(table)
    for metric in ("loo_log_likelihood", expected, "logme", "with_intercept"):
        tau = weighted_kendall_tau(results[TRUTH], results[metric])
        loss = regret(results[TRUTH], results[metric])
        pick = labels[results[metric].argmax()]
        console.print(
            f"{metric}: pick {pick}, loss {100 * loss:.1f} points, tau_w {tau:.2f}"
        )
    console.print()


def plot(all_results: dict[str, dict], file: Path) -> None:
    """Plot the linear head, the expectation and the scores by layer."""
    import matplotlib.pyplot as plt

    rows = {
        TRUTH: "linear head, held out\n(accuracy or R², %)",
        "expected": "leave-one-out\n(accuracy or R², %)",
        "loo_log_likelihood": "leave-one-out\nlog-likelihood (nats)",
        "logme": "LogME (nats)",
    }
    figure, axes = plt.subplots(
        len(rows),
        len(all_results),
        figsize=(2.7 * len(all_results), 2.2 * len(rows) + 0.8),
        sharex=True,
        layout="constrained",
    )
    for column, (target, results) in zip(axes.T, all_results.items(), strict=True):
        column[0].set_title(target)
        column[-1].set_xlabel("layer of MiniLM")
        column[1].sharey(column[0])
        layers = results["layer"].astype(str)
        depth = np.flatnonzero(np.char.isdigit(layers))
        (mean,) = np.flatnonzero(layers == "mean")
        expected = "loo_r2" if "loo_r2" in results else "loo_accuracy"
        for axis, row in zip(column, rows, strict=True):
            metric = expected if row == "expected" else row
            values = results[metric] * (100 if row in (TRUTH, "expected") else 1)
            best = depth[values[depth].argmax()]
            axis.plot(layers[depth].astype(int), values[depth], "o-", label="MiniLM")
            axis.plot(int(layers[best]), values[best], "*", color="k", ms=12, zorder=3)
            axis.axhline(values[mean], color="C0", ls=":", label="mean of layers")
            for i, name in enumerate(("TF-IDF", "hashing")):
                (other,) = np.flatnonzero(results["name"] == name)
                axis.axhline(values[other], color=f"C{i + 1}", ls="--", label=name)
    finish(figure, axes, list(rows.values()), file)


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1500, help="number per target")
    arguments = parse(parser, sorted({file for file, _ in FILES.values()}))
    all_results = {}
    for target in FILES:
        start = time.perf_counter()
        X, y = load(arguments.data / "text", target, arguments.samples)
        of_pairs = target == "similarity"
        expected = "loo_r2" if of_pairs else "loo_accuracy"
        selector = ModelSelector(
            candidates(arguments.model, of_pairs=of_pairs),
            scoring={**SCORING, expected: expected},
            refit=False,
        ).fit(X, y)
        results = all_results[target] = selector.results_
        labels = [
            f"{name} {layer}".strip()
            for name, layer in zip(results["name"], results["layer"], strict=True)
        ]
        seconds = time.perf_counter() - start
        title = f"{target}: {len(X)} samples, {seconds:.0f} s"
        print_table(title, labels, results, expected)
    if arguments.output is not None:
        plot(all_results, arguments.output / "rank_text_candidates.png")


console = Console(width=100)
if __name__ == "__main__":
    main()
