"""The entry to the commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from sktransfer._version import __version__
from sktransfer.cli import _demo, _rank
from sktransfer.cli._errors import UsageError
from sktransfer.utils._terminal import StreamError, printable, say, write

# Each module adds the parser of its command, whose default `run` takes the arguments.
_COMMANDS = (_demo, _rank)

_EPILOG = f"""\
examples:
{_demo.EXAMPLES}{_rank.EXAMPLES}
exit codes: 0; 1 if results could not be written; 2 for bad input; 130 after Ctrl-C
"""


def run(argv: Sequence[str] | None) -> int:
    """Run a command and return the exit code; see `sktransfer.cli.main`."""
    program = "sktransfer"
    try:
        arguments = _parser().parse_args(argv)
        program += f" {arguments.command}"
        arguments.run(arguments)
    except UsageError as error:
        say(f"{program}: error: {' '.join(str(error).split())}")
        return error.code
    except StreamError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return 141  # as in the shell: 128 plus the signal SIGPIPE
        say(f"{program}: error: cannot print: {error.__cause__}")
        return 1
    except KeyboardInterrupt:
        say(f"{program}: interrupted")
        return 130  # 128 plus the signal SIGINT
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that escapes what it prints, and notices when printing fails."""

    def __init__(self, **options):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))

    def _print_message(self, message: str, file: TextIO | None = None) -> None:
        if file is sys.stdout:
            write(message)
        else:
            super()._print_message(message, file)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sktransfer",
        description="Which pre-trained model will do best on your labelled data, "
        "before you fine-tune any of them?",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
