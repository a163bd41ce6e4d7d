"""``python -m sktransfer``: the command line."""

import sys

from sktransfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
