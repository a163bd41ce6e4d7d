"""The accuracies of the fine-tuned zoo."""

import numpy as np
import pytest

from sktransfer.datasets import load_zoo_cards, load_zoo_ground_truth


@pytest.fixture(params=[100, 500])
def truth(request):
    return load_zoo_ground_truth(request.param)


def test_one_row_a_network_in_the_order_of_the_zoo(truth):
    cards = load_zoo_cards()
    assert truth["network"].tolist() == list(cards)
    for column in ("architecture", "source"):
        assert truth[column].tolist() == [card[column] for card in cards.values()]


def test_values_are_in_range(truth):
    for column in (
        "accuracy_mean",
        "validation_accuracy",
        "linear_probe_accuracy_mean",
    ):
        assert ((truth[column] > 0.5) & (truth[column] <= 1)).all(), column
    for column in ("accuracy_std", "linear_probe_accuracy_std"):
        assert ((truth[column] > 0) & (truth[column] < 0.05)).all(), column
    assert (truth["n_seeds"] >= 3).all()
    assert (truth["learning_rate"] > 0).all()
    assert (truth["weight_decay"] >= 0).all()


def test_accuracies_are_whole_numbers_of_test_images(truth):
    n_test = 1797 - truth["n_train"]
    hits = truth["accuracy_mean"] * truth["n_seeds"] * n_test
    # Five decimals are stored.
    np.testing.assert_allclose(hits, hits.round(), atol=1e-5 * 10 * 1697)


def test_more_images_are_better():
    few, many = load_zoo_ground_truth(100), load_zoo_ground_truth(500)
    assert (many["accuracy_mean"] > few["accuracy_mean"]).all()


@pytest.mark.parametrize("architecture", ["residual", "plain"])
@pytest.mark.parametrize("column", ["accuracy_mean", "linear_probe_accuracy_mean"])
def test_handwriting_helps_with_digits(truth, architecture, column):
    accuracy = dict(zip(truth["network"], truth[column], strict=True))
    control = accuracy[f"{architecture}-untrained"]
    assert accuracy[f"{architecture}-handwritten"] > control


def test_fine_tuning_beats_the_frozen_features_of_untrained_networks(truth):
    control = truth["source"] == "untrained"
    gain = truth["accuracy_mean"] - truth["linear_probe_accuracy_mean"]
    assert (gain[control] > 0).all()


def test_columns_are_fresh_copies():
    load_zoo_ground_truth()["accuracy_mean"][:] = 0
    assert load_zoo_ground_truth()["accuracy_mean"].min() > 0.5


def test_other_numbers_of_images():
    with pytest.raises(ValueError, match=r"'n_train' parameter.*\[100, 500\].*Got 200"):
        load_zoo_ground_truth(200)
