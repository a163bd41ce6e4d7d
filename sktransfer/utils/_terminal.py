"""Text for streams that cannot express it, or cannot be written."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


class StreamError(Exception):
    """Standard output cannot be written; its cause tells why."""


def printable(text: object) -> str:
    """Escape the characters that control a terminal, except line breaks."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def encodable(text: str, stream: TextIO | None) -> bool:
    """Whether the stream can express the text."""
    return escaped(text, stream) == text


def write(text: str) -> None:
    """Write to standard output, escaping what its encoding cannot express.

    On failure the stream is redirected to nowhere, because Python would fail again when
    it exits, and StreamError is raised.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(escaped(text, sys.stdout))
        sys.stdout.flush()
    except OSError as error:
        _silence(sys.stdout)
        raise StreamError from error


def say(text: str) -> None:
    """Write a line to standard error, if possible."""
    if sys.stderr is None:
        return
    try:
        print(escaped(printable(text), sys.stderr), file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream exists and is a terminal."""
    return stream is not None and stream.isatty()


def escaped(text: str, stream: TextIO | None) -> str:
    """Escape the characters that the stream cannot express."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _silence(stream: TextIO) -> None:
    with suppress(OSError, ValueError):  # a stream without a descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
