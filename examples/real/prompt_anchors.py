"""Ten labelled sentences: words as anchors, virtual anchors and a logistic head.

    python examples/real/prompt_anchors.py --data FOLDER --output FOLDER

The script classifies the sentiment of film reviews from MiniLM embeddings, following
section 6.6 of "Ranking and Tuning Pre-trained Models" (JMLR 23, 2022). The classifiers:

- manual anchors: a sentence is positive if its inner product with a positive word is
  larger than that with a negative word. Of the 5 x 5 pairs of words, the script reports
  the best on the test set, which is unknown in practice, and the best on the training
  set;
- manual anchors with all ten words, without a choice;
- a logistic head with regularisation tuned on 100 more labelled sentences;
- `LogMEClassifier`, whose coefficients are virtual anchors, without tuning, and its
  leave-one-out accuracy on the training set.

The script prints tables and saves a figure in ``--output``. It takes a few minutes.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from texts import make_parser, parse, read_table

from sktransfer.anchors import AnchorClassifier, nearest_words, word_embeddings
from sktransfer.feature_extraction import TransformersFeatureExtractor
from sktransfer.linear_model import LogMEClassifier

POSITIVE = ["positive", "good", "fine", "great", "nice"]
NEGATIVE = ["negative", "bad", "ill", "evil", "poor"]
N_DRAWS = 20
N_VALIDATION = 100
SIZES = (10, 30, 100, 300, 1000)
BEST = "manual anchors, best pair on the test set"
CHOSEN = "manual anchors, pair chosen on the training set"
ALL = "manual anchors, all ten words"
LOGISTIC = "logistic head, tuned on 100 more"
LOGME = "LogMEClassifier"
EXPECTED = "LogMEClassifier, leave-one-out accuracy"


def make_anchors(extractor) -> tuple[list[AnchorClassifier], AnchorClassifier]:
    """Make classifiers of the 25 pairs of words, and one of all ten words."""
    words, embeddings = word_embeddings(extractor, POSITIVE + NEGATIVE)
    embedding = dict(zip(words, embeddings, strict=True))
    pairs = [
        AnchorClassifier({1: embedding[good], 0: embedding[bad]}).fit()
        for good, bad in product(POSITIVE, NEGATIVE)
    ]
    # Normalised; otherwise the words with the longest embeddings dominate.
    together = {1: embeddings[: len(POSITIVE)], 0: embeddings[len(POSITIVE) :]}
    return pairs, AnchorClassifier(together, normalize=True).fit()


def tuned_logistic(X, y, X_validation, y_validation) -> LogisticRegression:
    heads = [
        LogisticRegression(C=C, max_iter=5000).fit(X, y) for C in np.logspace(-3, 4, 8)
    ]
    return max(heads, key=lambda head: head.score(X_validation, y_validation))


def accuracies(X, y, n_train: int, seed: int, pairs, together) -> dict[str, float]:
    """Test accuracy of each classifier, for one draw of sentences."""
    labelled, test = train_test_split(
        range(len(y)), train_size=n_train + N_VALIDATION, stratify=y, random_state=seed
    )
    train, validation = train_test_split(
        labelled, train_size=n_train, stratify=y[labelled], random_state=seed
    )
    # Many pairs tie on ten sentences. Shuffle, so that the first does not always win.
    shuffled = np.random.default_rng(seed).permutation(len(pairs))
    chosen = max(
        (pairs[i] for i in shuffled), key=lambda model: model.score(X[train], y[train])
    )
    head = tuned_logistic(X[train], y[train], X[validation], y[validation])
    logme = LogMEClassifier(leave_one_out=True).fit(X[train], y[train])
    return {
        BEST: max(model.score(X[test], y[test]) for model in pairs),
        CHOSEN: chosen.score(X[test], y[test]),
        ALL: together.score(X[test], y[test]),
        LOGISTIC: head.score(X[test], y[test]),
        LOGME: np.mean(logme.predict(X[test]) == y[test]),
        EXPECTED: logme.loo_accuracy_,
    }


def print_words(X, y, n_train: int, words, embeddings) -> None:
    """Print the words nearest to the virtual anchors of one draw."""
    train, _ = train_test_split(
        range(len(y)), train_size=n_train, stratify=y, random_state=0
    )
    model = LogMEClassifier().fit(X[train], y[train])
    contrast = model.coef_ - model.coef_.mean(axis=0)
    print(f"\nWords nearest to the virtual anchors of {n_train} sentences")
    for what, coef in {"anchors": model.coef_, "minus their mean": contrast}.items():
        nearest, similarities = nearest_words(coef, embeddings, words, k=8)
        for label, row, cosine in zip(
            model.classes_, nearest, similarities, strict=True
        ):
            sign = "positive" if label else "negative"
            print(f"{what:>16}, {sign} ({cosine[0]:.2f}): {', '.join(row)}")


def draw_figure(curves: dict[str, np.ndarray], file: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5.4), layout="constrained")
    for name, values in curves.items():
        mean, spread = values.mean(axis=1), values.std(axis=1)
        if name == EXPECTED:
            axes.plot(SIZES, mean, "k:", marker=".", label=name)
            continue
        (line,) = axes.plot(SIZES, mean, marker="o", label=name)
        axes.fill_between(
            SIZES, mean - spread, mean + spread, color=line.get_color(), alpha=0.15
        )
    axes.set(
        xscale="log",
        xticks=SIZES,
        xticklabels=SIZES,
        xlabel="training sentences",
        ylabel="test accuracy (%)",
        ylim=(52, 76),
        title="Sentiment from sentence embeddings: mean and deviation of 20 draws",
    )
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    print(f"\nThe figure is in {file}")


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0])
    arguments = parse(parser, ["sentence_polarity.csv"])
    rows = read_table(arguments.data / "text" / "sentence_polarity.csv")
    y = np.array([int(row["label"]) for row in rows])
    extractor = TransformersFeatureExtractor(arguments.model)
    X = extractor.transform([row["text"] for row in rows])
    pairs, together = make_anchors(extractor)

    grid = np.reshape([100 * model.score(X, y) for model in pairs], (5, 5))
    print(f"Accuracy (%) of pairs of words on all {len(y)} sentences")
    print(" " * 10 + "".join(f"{word:>10}" for word in NEGATIVE))
    for word, row in zip(POSITIVE, grid, strict=True):
        print(f"{word:>10}" + "".join(f"{value:10.1f}" for value in row))

    draws = {
        size: [accuracies(X, y, size, s, pairs, together) for s in range(N_DRAWS)]
        for size in SIZES
    }
    names = list(draws[SIZES[0]][0])
    curves = {
        name: 100 * np.array([[draw[name] for draw in draws[size]] for size in SIZES])
        for name in names
    }
    print(f"\nTest accuracy (%) over {N_DRAWS} draws, by number of training sentences")
    print(" " * 48 + "".join(f"{size:>13}" for size in SIZES))
    for name, values in curves.items():
        cells = [f"{row.mean():7.1f} ± {row.std():3.1f}" for row in values]
        print(f"{name:>48}" + "".join(f"{cell:>13}" for cell in cells))

    words, embeddings = word_embeddings(extractor)
    for size in (SIZES[0], SIZES[-1]):
        print_words(X, y, size, words, embeddings)
    if arguments.output is not None:
        draw_figure(curves, arguments.output / "prompt_anchors.png")


if __name__ == "__main__":
    main()
