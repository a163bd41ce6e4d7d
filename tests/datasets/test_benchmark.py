"""The benchmark that comes with the package, against its own rules."""

import numpy as np
import pytest

from sktransfer.agreement import weighted_kendall_tau
from sktransfer.datasets import load_benchmark, load_zoo_cards
from sktransfer.metrics import get_scorer_names

KEYS = ("start", "target", "n_train", "seed")


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark()


def cells(benchmark):
    """(target, n_train, accuracies (n_seeds, n_starts), names) of what counts."""
    truth, targets = benchmark.truth, benchmark.targets
    for target, n_train in np.transpose([targets["target"], targets["n_train"]]):
        rows = (truth["target"] == target) & (truth["n_train"] == int(n_train))
        if rows.any():
            names = truth["start"][rows].reshape(3, -1)
            yield target, int(n_train), truth["fine_tuned"][rows].reshape(3, -1), names


def test_every_row_is_complete(benchmark):
    truth, scores = benchmark.truth, benchmark.scores
    for key in KEYS:
        np.testing.assert_array_equal(truth[key], scores[key])
    keys = list(zip(*(truth[key] for key in KEYS), strict=True))
    assert len(set(keys)) == len(keys)
    for kind in ("fine_tuned", "linear_probe"):
        assert ((truth[kind] > 0) & (truth[kind] < 1)).all()
    assert set(np.unique(truth["learning_rate"])) == {0.03, 0.1, 0.3}
    of_classes = {"loo_r2"}  # of numbers
    assert set(get_scorer_names()) - of_classes <= set(scores)


def test_starts_are_the_zoo_and_more_of_the_same_size(benchmark):
    starts = benchmark.starts
    assert len(starts["start"]) == 33
    assert set(load_zoo_cards()) <= set(starts["start"])
    assert set(starts["architecture"]) == {"plain", "residual"}
    untrained = starts["source"] == "untrained"
    np.testing.assert_array_equal(np.isnan(starts["source_accuracy"]), untrained)


def test_no_start_has_seen_the_images_of_its_target(benchmark):
    images = dict(
        zip(benchmark.starts["start"], benchmark.starts["images"], strict=True)
    )
    for target, _, _, names in cells(benchmark):
        assert (names == names[0]).all()
        own = "alphabets" if target == "characters" else target
        left_out = {name for name, of in images.items() if of == own}
        assert left_out
        assert set(names[0]) == set(images) - left_out


def test_targets_count_where_halves_of_the_seeds_agree(benchmark):
    targets = benchmark.targets
    np.testing.assert_array_equal(targets["chosen"], targets["ceiling"] >= 0.75)
    found = list(cells(benchmark))
    assert len(found) == targets["chosen"].sum() == 10
    assert len({target for target, *_ in found}) == 5
    for target, n_train, accuracies, _ in found:
        taus = [
            weighted_kendall_tau(accuracies[[i]].mean(0), accuracies[others].mean(0))
            for i, others in ((0, [1, 2]), (1, [0, 2]), (2, [0, 1]))
        ]
        row = (targets["target"] == target) & (targets["n_train"] == n_train)
        np.testing.assert_allclose(targets["ceiling"][row], np.mean(taus), atol=1e-3)


def test_deep_scores_order_the_starts_better_than_their_last_layer(benchmark):
    truth, scores = benchmark.truth, benchmark.scores
    taus = {"logme": [], "deep_logme": [], "energy": []}
    for target, n_train, accuracies, _ in cells(benchmark):
        rows = (truth["target"] == target) & (truth["n_train"] == n_train)
        for name, found in taus.items():
            found += [
                weighted_kendall_tau(accuracies.mean(axis=0), of_seed)
                for of_seed in scores[name][rows].reshape(3, -1)
            ]
    means = {name: np.mean(found) for name, found in taus.items()}
    assert means["deep_logme"] == pytest.approx(0.65, abs=0.005)
    assert means["logme"] == pytest.approx(0.53, abs=0.005)
    assert means["energy"] < 0


def test_scores_can_be_computed_again(benchmark):
    """Those of one start on 300 images of the target that comes with the package."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from sktransfer.datasets import load_dataset, load_zoo
    from sktransfer.metrics import get_scorer

    X, y = load_dataset("alphabets", return_X_y=True)
    names = ["plain-objects", "residual-untrained"]
    found = [
        get_scorer("deep_logme")(extractor, X[:300], y[:300])
        for _, extractor in load_zoo(names, device="cpu")
    ]
    truth = benchmark.truth
    rows = (truth["target"] == "alphabets") & (truth["n_train"] == 300)
    recorded = [
        benchmark.scores["deep_logme"][rows & (truth["start"] == name)].mean()
        for name in names
    ]
    np.testing.assert_allclose(found, recorded, atol=0.03)
