"""Data and candidates that the tests of the selector share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale

from sktransfer.feature_extraction import BaseExtractor, Extraction


class LoggedExtractor(BaseExtractor):
    """Gives powers of the input as layers; writes a line to a file at each pass."""

    def __init__(self, log=None, power=1, layer=("power",), head=False):
        self.log = log
        self.power = power
        self.layer = layer
        self.head = head

    def extract(self, X, *, source_proba=False):
        if source_proba:
            self.check_source_proba()
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(f"{self.power}\n")
        X = np.asarray(X, dtype=np.float32)
        layers = {"power": X**self.power, "sign": np.sign(X), "narrow": X[:, :2]}
        wanted = [self.layer] if isinstance(self.layer, str) else self.layer
        P = np.exp(X[:, :4]) / np.exp(X[:, :4]).sum(axis=1, keepdims=True)
        return Extraction(
            {name: layers[name] for name in wanted}, P if source_proba else None
        )

    def check_source_proba(self):
        if not self.head:
            raise ValueError("this extractor was made without a head.")


class LoggedTransformer(TransformerMixin, BaseEstimator):
    """Adds the mean of the target; writes a line to a file at each fit."""

    def __init__(self, log=None, factor=1.0):
        self.log = log
        self.factor = factor

    def fit(self, X, y):
        with Path(self.log).open("a") as file:
            file.write(f"fit {self.factor}\n")
        self.shift_ = np.mean(y)
        return self

    def transform(self, X):
        return self.factor * X + self.shift_


class Broken(TransformerMixin, BaseEstimator):
    """Fails in one of several ways."""

    def __init__(self, how="raises"):
        self.how = how

    def fit(self, X, y=None):
        if self.how == "raises in fit":
            raise RuntimeError("the weights are gone")
        self.fitted_ = True
        return self

    def transform(self, X):
        if self.how == "raises":
            raise OSError("image 3 is damaged")
        outcomes = {
            "nan": np.where(np.arange(len(X))[:, None] == 7, np.nan, X),
            "inf": np.where(X == X[0, 0], np.inf, X),
            "rows": X[:-2],
            "1-D": X[:, 0],
            "3-D": X[:, :, None],
            "nothing": None,
        }
        return outcomes[self.how]


class Log:
    """A file that candidates write lines to."""

    def __init__(self, path):
        self.path = path

    def read(self):
        return self.path.read_text().splitlines() if self.path.exists() else []


@pytest.fixture
def wine():
    """178 samples, 13 features of unit variance, three classes."""
    X, y = load_wine(return_X_y=True)
    return scale(X), y


@pytest.fixture
def log(tmp_path):
    """What the logged candidates of the test have done, in order."""
    return Log(tmp_path / "log.txt")


@pytest.fixture
def logged_extractor(log):
    """Make an extractor that counts its passes in `log`."""
    return lambda **params: LoggedExtractor(str(log.path), **params)


@pytest.fixture
def logged_transformer(log):
    """Make a transformer that counts its fits in `log` and learns from the target."""
    return lambda **params: LoggedTransformer(str(log.path), **params)


@pytest.fixture
def broken():
    """Make a transformer that fails."""
    return Broken
