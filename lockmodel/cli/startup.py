"""How the process starts and ends: imports that are quick and can be interrupted, and Ctrl-C.

Ctrl-C is an exception where something must be cleaned up, and the end of the process where nothing is. While modules are
imported an exception may be swallowed (in a callback) or show where it was; nothing needs cleaning up then, so the
process ends at once. The functions of commands run with Python's own handler, which raises KeyboardInterrupt.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTED = 130
"""128 and the number of SIGINT, as a shell says it."""


def say_interrupted() -> None:
    # Not through `sys.stderr`, which may be just in use.
    with contextlib.suppress(OSError):
        os.write(2, b"lockmodel: interrupted\n")


def _leave(_number: int, _frame: FrameType | None) -> None:
    say_interrupted()
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Inside, Ctrl-C ends the process there and then, and no garbage is collected: modules leave none.

    The collector would look again and again at all that was imported, a sixth of the time of a small check.
    """
    gc.disable()
    try:
        # If not Python's own, whoever started us ignores the signal (`nohup`), or we are inside another `importing`.
        with _handler(signal.default_int_handler, _leave):
            yield
    finally:
        gc.freeze()
        gc.enable()


def interruptible(function: Callable[..., object]) -> Callable[..., object]:
    """`function`, in which Ctrl-C raises KeyboardInterrupt though it is called inside `importing`."""

    @functools.wraps(function)
    def called(*args: object, **kwargs: object) -> object:
        gc.enable()
        with _handler(_leave, signal.default_int_handler):
            return function(*args, **kwargs)

    return called


@contextlib.contextmanager
def _handler(expected: Callable[..., object], wanted: Callable[..., object]) -> Iterator[None]:
    """Inside, `wanted` handles Ctrl-C, if it was `expected` that did."""
    if signal.getsignal(signal.SIGINT) is not expected:
        yield
        return
    signal.signal(signal.SIGINT, wanted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, expected)


def ignore_from_now_on() -> None:
    """When the answer is given: an interpreter that is interrupted while it ends prints a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
