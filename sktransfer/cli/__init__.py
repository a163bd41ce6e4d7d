"""The command line: rank the embedded zoo, or features from the user's files."""

from __future__ import annotations

from collections.abc import Sequence

from sktransfer.utils._terminal import say


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0 for success, 1 if the results could not be written, 2 for bad
        input, 130 after Ctrl-C, 141 if the output was closed before its end.
    """
    try:
        from sktransfer.cli._main import run
    except KeyboardInterrupt:  # imports take seconds
        say("sktransfer: interrupted")
        return 130
    return run(argv)
