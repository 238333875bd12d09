"""The command line. Each command is a module here with `register(app)`; what they share is in `common` and `files`.

This module imports next to nothing, so that whatever takes time is imported where Ctrl-C is already seen to.
"""

from __future__ import annotations

import sys

from lockmodel.cli.startup import INTERRUPTED, ignore_from_now_on, importing, say_interrupted


def main() -> int:
    """The process: runs the command that `sys.argv` names and returns its exit code."""
    try:
        with importing():
            from lockmodel.cli.common import run

            code = run(sys.argv[1:])
    except KeyboardInterrupt:
        say_interrupted()
        code = INTERRUPTED
    ignore_from_now_on()
    return code
