"""The files that a command line names: specs (files, folders, patterns, standard input), and where a report goes."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockmodel.cli.common import write
from lockmodel.errors import UsageError, quote

if TYPE_CHECKING:
    from lockmodel.scenario import Scenario
    from lockmodel.spec import Spec

STDIN = "<stdin>"
"""What errors and reports call a spec that was read from standard input."""
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Found:
    """A spec file, or a word of the command line that means none and the error that this is. `-` is standard input."""

    file: str
    error: UsageError | None = None

    @property
    def name(self) -> str:
        return STDIN if self.file == "-" else self.file


def find_specs(words: Iterable[str]) -> list[Found]:
    """The files that `words` mean, each once and in their order. Raises UsageError if there is no word.

    A file in a folder counts as a spec by its name alone: one that is none is an error for the user to see, since a spec that is
    silently left out would look like one that holds. Folders whose name begins with a dot are not looked into.
    """
    words = list(words)
    if not words:
        raise UsageError("name a spec: a file, a folder, a pattern such as 'specs/*.yaml', or - for standard input")
    found: dict[str, Found] = {}
    for one in (one for word in words for one in _files(word)):
        found.setdefault(one.file if one.error or one.file == "-" else os.path.realpath(one.file), one)
    return list(found.values())


def one_spec(words: Iterable[str]) -> Found:
    """The only file that `words` mean, for commands that take one. Raises UsageError."""
    found = find_specs(words)
    if len(found) != 1:
        raise UsageError(f"this command takes one spec, not {len(found)}: {', '.join(one.name for one in found[:4])}")
    return found[0]


def _files(word: str) -> Iterator[Found]:
    if os.path.isdir(word):
        yield from _folder(word)
    elif word == "-" or os.path.lexists(word) or not glob.has_magic(word):
        yield Found(word)  # If there is no such file, reading it gives the error.
    else:
        matches = sorted(glob.glob(word, recursive=True))
        # `specs/**` names folders beside the files in them.
        files = [match for match in matches if os.path.isfile(match)]
        if not files:
            yield Found(word, UsageError(f"{word}: no file matches this pattern"))
        yield from map(Found, files)


def _folder(folder: str) -> Iterator[Found]:
    problems: list[OSError] = []
    names: list[str] = []
    for here, folders, files in os.walk(folder, onerror=problems.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        specs = sorted(name for name in files if name.endswith(_SUFFIXES) and not name.startswith("."))
        names += [os.path.normpath(os.path.join(here, name)) for name in specs]
    yield from map(Found, names)
    for problem in problems:
        yield Found(str(problem.filename), UsageError(f"{problem.filename}: {problem.strerror}"))
    if not names and not problems:
        yield Found(folder, UsageError(f"{folder}: there is no .yaml or .yml file in this folder"))


def read_any(found: Found) -> Spec | Scenario:
    """The spec or the scenario that `found` means. Raises a LockmodelError."""
    from lockmodel.parser import load_any

    return read_spec(found) if found.error is not None or found.file == "-" else load_any(found.file)


def read_spec(found: Found) -> Spec:
    """The spec that `found` means. Raises a LockmodelError."""
    from lockmodel.parser import MAX_BYTES, load, parse

    if found.error is not None:
        raise found.error
    if found.file != "-":
        return load(found.file)
    if sys.stdin is None:
        raise UsageError(f"{STDIN}: it is closed")
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{STDIN}: {error.strerror or error}") from None
    return parse(data, STDIN)


def check_output(output: str | None, inputs: Iterable[str] = (), option: str = "--output") -> None:
    """Refuse a file `output`, given by `option`, that could not be written, before the work is done; `inputs` are files it must not replace."""
    if output is None:
        return
    folder = os.path.dirname(output) or "."
    if os.path.isdir(output):
        raise UsageError(f"{option} {quote(output)}: it is a folder")
    if not os.path.isdir(folder):
        raise UsageError(f"{option} {quote(output)}: there is no folder {quote(folder)}")
    if not os.access(output if os.path.exists(output) else folder, os.W_OK):
        raise UsageError(f"{option} {quote(output)}: no permission to write it")
    if os.path.exists(output) and any(os.path.exists(path) and os.path.samefile(path, output) for path in inputs):
        raise UsageError(f"{option} {quote(output)}: it is one of the specs, which would be overwritten")


def deliver(text: str, output: str | None, option: str = "--output") -> None:
    """Write a report to standard output, or to the file `output`, given by `option`."""
    if output is None:
        write(sys.stdout, text)
        return
    try:
        with open(output, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"{option} {quote(output)}: {error.strerror or error}") from None
