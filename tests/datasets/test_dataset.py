"""The labelled targets that come with an installation."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sktransfer.datasets import load_dataset


def test_digits_are_images_for_the_zoo():
    target = load_dataset("digits")
    assert target.data.shape == (1797, 32, 32, 3)
    assert target.data.dtype == np.uint8
    assert target.data.min() == 0
    assert target.data.max() == 255
    assert (target.data == target.data[..., :1]).all()
    assert target.target_names.tolist() == list(range(10))
    assert "UCI" in target.DESCR


def test_digits_are_those_of_scikit_learn():
    digits, target = load_digits(), load_dataset("digits")
    np.testing.assert_array_equal(target.target, digits.target)
    # Bilinear enlargement by four: the mean of each 4 x 4 block is its old pixel,
    # blurred by the neighbours, and the outermost pixels are those of the original.
    blocks = target.data[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.corrcoef(blocks.ravel(), digits.images.ravel())[0, 1] > 0.97
    np.testing.assert_array_equal(
        target.data[:, 0, 0, 0], np.rint(digits.images[:, 0, 0] * 255 / 16)
    )


def test_digits_match_an_independent_interpolation():
    from scipy.ndimage import zoom

    image = load_digits().images[7]
    expected = zoom(image, 4, order=1, grid_mode=True, mode="nearest") * 255 / 16
    np.testing.assert_allclose(load_dataset().data[7, ..., 0], expected, atol=0.501)


def test_alphabets_are_strokes_for_the_zoo():
    target = load_dataset("alphabets")
    assert target.data.shape == (600, 32, 32, 3)
    assert target.data.dtype == np.uint8
    assert (target.data == target.data[..., :1]).all()
    assert np.bincount(target.target).tolist() == [75] * 8
    assert target.target_names[5] == "Latin"
    assert "Copyright (c) 2015 Brenden Lake" in target.DESCR
    # Dark strokes on white: the corners are white, and some ink is in each image.
    assert np.median(target.data[:, 0, 0]) == 255
    assert (target.data.min(axis=(1, 2, 3)) < 128).all()
    assert len(np.unique(target.data.reshape(600, -1), axis=0)) == 600


def test_alphabets_are_those_of_omniglot(shared):
    with np.load(shared / "data/real/images/omniglot_alphabets.npz") as file:
        images, labels = file["images"], file["labels"]
        names = file["class_names"]
    target = load_dataset("alphabets")
    np.testing.assert_array_equal(target.target_names, names)
    for code in range(8):
        ours = target.data[target.target == code]
        np.testing.assert_array_equal(ours, images[labels == code][:75])


def test_return_X_y_and_independent_copies():
    X, y = load_dataset("digits", return_X_y=True)
    before = X[0].copy()
    X[0] = 99
    np.testing.assert_array_equal(load_dataset("digits").data[0], before)
    assert y.shape == (1797,)


def test_unknown_target():
    with pytest.raises(
        ValueError, match=r"'name' parameter.*\['alphabets', 'digits'\].*'digit'"
    ):
        load_dataset("digit")
