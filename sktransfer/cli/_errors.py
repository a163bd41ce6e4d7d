"""Errors that the command line reports in one sentence."""

from __future__ import annotations

import re

# Parameters of the library, and the options that set them.
_OPTIONS = {"task": "--task", "scoring": "--metric", "n_jobs": "--jobs"}


class UsageError(Exception):
    """What the user can correct; exit code 2."""

    code = 2


class OutputError(UsageError):
    """Results that could not be written; exit code 1."""

    code = 1


def as_typed(message: object) -> str:
    """Put options where a message of the library names its parameters."""
    return re.sub(
        rf"\b({'|'.join(_OPTIONS)})=(?:'(\w+)')?",
        lambda found: " ".join(filter(None, [_OPTIONS[found[1]], found[2]])),
        str(message),
    )
