"""The benchmark of transferability: what scores said, and what fine-tuning gave."""

from __future__ import annotations

import csv
from importlib import resources

import numpy as np
from sklearn.utils import Bunch

# Columns that are not floats.
_TEXT = {"start", "architecture", "source", "images", "target"}
_INTEGERS = {"n_train", "n_starts", "seed", "epochs"}


def _read(name: str) -> dict[str, np.ndarray]:
    folder = resources.files("sktransfer.datasets") / "data" / "benchmark"
    header, *rows = csv.reader((folder / f"{name}.csv").read_text("utf-8").splitlines())
    return {
        column: _typed(column, cells)
        for column, cells in zip(header, zip(*rows, strict=True), strict=True)
    }


def _typed(column: str, cells: tuple[str, ...]) -> np.ndarray:
    if column in _TEXT:
        return np.array(cells)
    if column in _INTEGERS:
        return np.array(cells, dtype=np.int64)
    if column == "chosen":
        return np.array(cells) == "1"
    return np.array([float(cell) if cell else np.nan for cell in cells])


def load_benchmark() -> Bunch:
    """Load what scores said of small networks, and what fine-tuning them gave.

    The starts are networks of two architectures of equal size: the zoo, and others that
    were trained on other images, for a shorter time, on a tenth of the data, on
    shuffled labels or adversarially, or of which only the first layers were kept. Each
    was fine-tuned whole on every target whose images it had not seen, with a learning
    rate chosen on validation images. The scores read the training images only.

    Returns
    -------
    benchmark : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes

        starts : dict of str to ndarray of shape (n_starts,)
            `start` (its name), `architecture`, `source`, `images` (the source that its
            images come from, empty if there is none), `epochs` (of pre-training) and
            `source_accuracy` (on held-out images of the source; NaN if untrained).
        targets : dict of str to ndarray of shape (n_cells,)
            `target`, `n_train`, `n_starts`; `ceiling`, how well the mean accuracies
            over halves of the seeds agree on the order of the starts (weighted tau),
            `linear_probe_ceiling` the same for the probe; `std_over_starts` and
            `std_over_seeds`, the spread of the fine-tuned accuracies; `chosen`, whether
            the ceiling is at least 0.75. The others cannot tell scores apart.
        truth : dict of str to ndarray of shape (n_rows,)
            One row for each start, target, number of training images and seed. `start`,
            `target`, `n_train`, `seed`; `fine_tuned` and `linear_probe`, the test
            accuracies after fine-tuning and of a logistic regression on the frozen
            features; `learning_rate`, the one chosen.
        scores : dict of str to ndarray of shape (n_rows,)
            The same rows: one column for each score, larger is better. NaN where a
            score does not exist.
        DESCR : str
            A short description.

    See Also
    --------
    load_zoo : The fourteen starts that come with the package.
    sktransfer.agreement.weighted_kendall_tau : Agreement of scores with the truth.

    Examples
    --------
    How well LogME orders the starts by their accuracy on 100 photos of clothes:

    >>> from sktransfer.agreement import weighted_kendall_tau
    >>> from sktransfer.datasets import load_benchmark
    >>> benchmark = load_benchmark()
    >>> truth = benchmark.truth
    >>> rows = (truth["target"] == "clothes") & (truth["n_train"] == 100)
    >>> rows &= truth["seed"] == 0
    >>> tuned, scores = truth["fine_tuned"][rows], benchmark.scores
    >>> for name in ("logme", "deep_logme"):
    ...     print(name, f"{weighted_kendall_tau(tuned, scores[name][rows]):.2f}")
    logme 0.39
    deep_logme 0.71
    """
    return Bunch(
        starts=_read("starts"),
        targets=_read("targets"),
        truth=_read("truth"),
        scores=_read("scores"),
        DESCR=load_benchmark.__doc__.split("\n\n    Returns")[0],
    )
