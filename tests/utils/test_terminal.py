"""Text for terminals, closed pipes and full disks."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from sklearn.preprocessing import FunctionTransformer

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.model_selection import ModelSelector
from sktransfer.utils._terminal import StreamError, printable, say, write


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "\x9b2J", "\a", "\r", "\x7f", "\u202e", "\udce9", "\x00", "\t"]
)
def test_nothing_acts_on_the_terminal(text):
    assert printable(f"a{text}b").isprintable()
    assert printable(f"a{text}b") != f"a{text}b"


@pytest.mark.parametrize("text", ["a b", "[red]", "日本 é ±", "a\nb", "\\x1b"])
def test_words_stay_as_they_are(text):
    assert printable(text) == text


class Broken(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def flush(self):
        raise self.error


def test_streams_that_fail(monkeypatch):
    error = OSError(28, "No space left on device")
    monkeypatch.setattr(sys, "stdout", Broken(error))
    monkeypatch.setattr(sys, "stderr", Broken(error))
    say("nobody hears it")
    with pytest.raises(StreamError) as raised:
        write("nobody reads it")
    assert raised.value.__cause__ is error


def test_streams_that_are_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    write("nobody reads it")
    say("nobody hears it")


def test_ascii(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    write("é ±")
    assert stream.buffer.getvalue() == b"\\xe9 \\xb1"


def fail(X):
    raise ValueError("no \x1b[31mcolour")


def test_candidates_in_reports_and_warnings(capsys):
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    candidates = [
        ("a\x1b[2J", FunctionTransformer()),
        ("b\x1b[2J", FunctionTransformer(fail)),
    ]
    with pytest.warns(CandidateFailedWarning, match="b.x1b") as caught:
        ModelSelector(candidates, verbose=1).fit(X, y)
    messages = [str(warning.message) for warning in caught]
    assert "\x1b" not in capsys.readouterr().out + "".join(messages)
