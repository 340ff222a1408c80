"""The ``whimbrel`` command, as the wheel installs it. Also ``python -m whimbrel``."""

import os
import signal
import sys

from ._native import command


def main() -> None:
    """Runs the command of ``sys.argv``, and exits with its code."""
    # Of a script that names no interpreter, the interpreter is this one, which has the package.
    os.environ.setdefault("WHIMBREL_PYTHON", sys.executable)
    # The command handles Ctrl-C itself. Python's handler would wait for the command to return.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(command(["whimbrel", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
