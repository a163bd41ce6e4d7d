"""Text on its way to a terminal, a pipe or a file that may take only part of it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


class StreamError(Exception):
    """Standard output cannot be written; the reason is its cause."""


def printable(text: object) -> str:
    r"""Text in which nothing acts on a terminal: such characters are escaped.

    Parameters
    ----------
    text : object
        Turned into a str. Line breaks stay.

    Returns
    -------
    str

    Examples
    --------
    >>> from sktransfer.utils._terminal import printable
    >>> printable("net\x1b[2J")
    'net\\x1b[2J'
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def encodable(text: str, stream: TextIO | None) -> bool:
    """Whether a stream can express a text."""
    return _escaped(text, stream) == text


def write(text: str) -> None:
    """Write to standard output, escaping what its encoding cannot express.

    Parameters
    ----------
    text : str

    Raises
    ------
    StreamError
        If the other end is closed, the disk is full, or the like. The stream then goes
        nowhere, for Python would fail once more at its end.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(_escaped(text, sys.stdout))
        sys.stdout.flush()
    except OSError as error:
        _silence(sys.stdout)
        raise StreamError from error


def say(text: str) -> None:
    """Write a line to standard error, if that is possible."""
    if sys.stderr is None:
        return
    try:
        print(_escaped(printable(text), sys.stderr), file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is there, and somebody looks at it."""
    return stream is not None and stream.isatty()


def _escaped(text: str, stream: TextIO | None) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _silence(stream: TextIO) -> None:
    with suppress(OSError, ValueError):  # it has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
