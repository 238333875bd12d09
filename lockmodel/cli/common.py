"""What the commands share: how they are found and run, their exit codes, common options, and how errors and reports are written.

A command is a function that returns its exit code. It may raise a LockmodelError, which becomes one line on standard error and exit
code 2, as does whatever is wrong with the command line. Ctrl-C raises KeyboardInterrupt in it.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum
from importlib import import_module
from importlib.util import find_spec
from io import TextIOWrapper
from typing import Annotated, TextIO, overload

import typer

from lockmodel.cli.startup import interruptible
from lockmodel.errors import LockmodelError, UsageError, one_line, quote, suggestion
from lockmodel.report.page import Page

COMMANDS = ("check", "locks", "replay", "simulate", "conform", "explore", "export", "init", "schema")
"""The modules of `lockmodel.cli` that are commands, in the order of the help. One that does not exist is left out."""


COMPLETE = "_LOCKMODEL_COMPLETE"
"""Set by a shell that asks how a word of the command line may go on (`lockmodel --install-completion`)."""


class ExitCode(IntEnum):
    """See DESIGN: a CI job can tell a finding from a typing error and from an unfinished search."""

    EXPECTED = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    UNDECIDED = 3
    DEFECT = 70  # EX_SOFTWARE: a crash is never a verdict.
    PIPE_CLOSED = 141  # 128 and the number of SIGPIPE.


def worst(codes: Iterable[int]) -> int:
    """The exit code of several specs: bad input before a finding before undecided."""
    order = (ExitCode.EXPECTED, ExitCode.UNDECIDED, ExitCode.UNEXPECTED, ExitCode.BAD_INPUT)
    return max(codes, key=lambda code: order.index(ExitCode(code)), default=ExitCode.EXPECTED)


# Options that several commands have

SpecArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="SPECS", help="Spec files, folders (all *.yaml and *.yml in them), globs, or - (stdin)."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Replace a set (a size or a,b,c) or a variable's initial value."),
]
WorkersOption = Annotated[
    list[str] | None,
    typer.Option("--workers", metavar="N|ROLE=N", help="How many workers: a number or any, for all or for a role."),
]
OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the report to FILE instead.")
]
MaxStatesOption = Annotated[
    str | None,
    typer.Option("--max-states", metavar="N", help="Give up a search after N states."),
]
TimeoutOption = Annotated[
    str | None, typer.Option("--timeout", metavar="SECONDS", help="Give up a spec after this many seconds.")
]


@overload
def whole_number(option: str, text: str | None, default: int) -> int: ...
@overload
def whole_number(option: str, text: str | None, default: None = None) -> int | None: ...
def whole_number(option: str, text: str | None, default: int | None = None) -> int | None:
    """The value of an option that takes a number from 1 on. Raises UsageError."""
    if text is None:
        return default
    digits = text.replace("_", "").replace(",", "")
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits[:19]) < 2**62):
        raise UsageError(f"{option} {quote(text)}: it must be a whole number from 1 on")
    return int(digits)


def seconds(option: str, text: str | None) -> float | None:
    """The value of an option that takes a time. Raises UsageError."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        value = float(text.removesuffix("s"))
        if value > 0 and math.isfinite(value):
            return value
    raise UsageError(f"{option} {quote(text)}: it must be a number of seconds, more than 0")


def size(option: str, text: str | None) -> int | None:
    """The bytes that an option such as `4GiB`, `500M` or `0.5 g` means; None if it is not given. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)\s*([kmgt]?)(?:i?b)?", text.strip().lower(), re.ASCII)
    if match:
        unit = 1 << (10 * " kmgt".index(match[2] or " "))
        value = int(float(match[1]) * unit)
        if value > 0:
            return value
    raise UsageError(f"{option} {quote(text)}: it must be a size such as 4GiB or 500MiB")


def one_of(option: str, text: str, available: Sequence[str]) -> str:
    """The value of an option that takes one of a few words. Raises UsageError."""
    if text not in available:
        raise UsageError(f"{option} {quote(text)}: {suggestion(text, available)}")
    return text


# Writing


class PipeClosed(Exception):
    """Whoever read our output has gone (`lockmodel check … | head`)."""


def write(stream: TextIO | None, text: str) -> None:
    """Write and flush. Raises PipeClosed, and UsageError if the stream can't take it (a full disk)."""
    if stream is None:  # The shell closed it (`>&-`).
        return
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise PipeClosed from None
    except OSError as error:
        raise UsageError(f"can't write {stream.name}: {error.strerror or error}") from None


def complain(error: LockmodelError | str) -> None:
    """One line on standard error."""
    write(sys.stderr, Page.of(sys.stderr).fit(one_line(str(error), limit=2_000)) + "\n")


# Running


def run(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name that the terminal has no character for must not end the program.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _invoke(arguments)
    except PipeClosed:
        _drop_output()
        return ExitCode.PIPE_CLOSED


def _invoke(arguments: Sequence[str]) -> int:
    try:
        command = typer.main.get_command(application())
        if COMPLETE in os.environ:
            command.main(list(arguments), "lockmodel")  # Answers the shell, and ends.
        # Not `command.main`, which would print errors in a frame of several lines.
        with command.make_context("lockmodel", list(arguments)) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as end:
        return end.exit_code
    except (PipeClosed, BrokenPipeError):  # The latter from typer's own help.
        raise PipeClosed from None
    except LockmodelError as error:
        complain(error)
    except MemoryError:
        complain("out of memory; --max-states makes a search stop earlier")
        return ExitCode.UNDECIDED
    except Exception as error:
        if not hasattr(error, "format_message"):  # What typer raises for a wrong command line has it.
            import traceback

            write(sys.stderr, traceback.format_exc())
            complain("lockmodel: this is a defect of lockmodel, not of the spec; please report it with the lines above")
            return ExitCode.DEFECT
        complain(_usage(error))
    return ExitCode.BAD_INPUT


def _usage(error: Exception) -> str:
    """A wrong command line in one line. Typer's exceptions have other homes in other versions, so they are known by their attributes."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "lockmodel"
    message = str(error.format_message())  # type: ignore[attr-defined]  # Of those exceptions, not of all.
    option = getattr(error, "option_name", None)
    if option is not None and "such option" in message:
        options = [name for parameter in context.command.params for name in parameter.opts] if context else []
        options = [name for name in options if name.startswith("-")]
        return f"{path}: no option {quote(option)}; {suggestion(option, [*options, '--help'])}"
    if "No such command" in message and context is not None:
        word = message.split("'")[1] if "'" in message else ""
        return f"{path}: no command {quote(word)}; {suggestion(word, context.command.commands)}"
    return f"{path}: {message[:1].lower()}{message[1:].rstrip('.')} (see {path} --help)"


def _drop_output() -> None:
    """Let the interpreter's last flush go nowhere, as the reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            os.dup2(nowhere, descriptor)


def application() -> typer.Typer:
    """The app with all commands that exist."""
    app = typer.Typer(
        help="Can these Postgres transactions deadlock? A lock-order model checker that replays what it finds.",
        epilog="Exit codes: 0 as expected, 1 not as expected, 2 bad input, 3 undecided.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(_root)
    for name in COMMANDS:
        if find_spec(f"lockmodel.cli.{name}"):
            import_module(f"lockmodel.cli.{name}").register(app)
    for command in app.registered_commands:
        assert command.callback is not None
        command.callback = interruptible(command.callback)
    return app


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from lockmodel import __version__

        write(sys.stdout, f"lockmodel {__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        write(sys.stderr, context.get_help() + "\n")
        raise typer.Exit(ExitCode.BAD_INPUT)
