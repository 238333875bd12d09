"""The console blocks of a document as sessions: each command prints what stands below it.

    $ lockmodel check specs/
    specs/jobs.yaml  DEADLOCK  between work and pause (not as expected)
    …
    $ echo $?
    1

A command that fails is followed by `$ echo $?`, so that no failure in a document goes unseen.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"(?m)^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>[a-z]*)\n(?P<body>(?:(?!```)[^\n]*\n)*)```$")
_COMMAND = re.compile(r"(?m)^\$ (?P<text>[^\n]*)\n(?P<output>(?:(?!\$ )[^\n]*\n)*)")
_EXIT_CODE = "echo $?"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line that it begins in, and the comment `<!-- mark -->` above it."""

    language: str
    body: str
    line: int
    mark: str = ""


def blocks(document: str) -> Iterator[Block]:
    """The fenced blocks of `document`, in order."""
    for match in _BLOCK.finditer(document):
        line = document.count("\n", 0, match.start("body"))
        yield Block(match["language"], match["body"], line, match["mark"] or "")


class Shell:
    """Runs command lines in `folder` as a reader would, with this checkout's `lockmodel` and a server at `dsn`."""

    def __init__(self, folder: Path, commands: Path, dsn: str) -> None:
        """`commands` is an empty folder, for what stands in for installed commands."""
        self.folder = folder
        for name in ("lockmodel", "pytest"):
            command = commands / name
            command.write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
            command.chmod(0o755)
        self._environment = os.environ | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
            "LOCKMODEL_TEST_DSN": dsn,
            **_server(dsn),
        }
        self._environment.pop("COLUMNS", None)

    def run(self, command: str, exit_code: int = 0) -> tuple[str, int]:
        """What `command` prints, and its exit code; `exit_code` is what `$?` is before it."""
        answer = subprocess.run(
            ["bash", "-c", f"(exit {exit_code})\n{command}"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        return answer.stdout, answer.returncode

    def session(self, block: str) -> str:
        """A console block with what its commands print now, and what has not changed as it stands there."""
        assert block.startswith("$ "), block
        told, code = [], 0
        commands = list(_COMMAND.finditer(block))
        for number, match in enumerate(commands):
            command = match["text"]
            printed, code = self.run(command, code)
            follows = commands[number + 1]["text"] if number + 1 < len(commands) else ""
            assert code == 0 or follows == _EXIT_CODE, f"{command}: exit code {code}\n{printed}"
            kept = match["output"] if steady(match["output"]) == steady(printed) else printed
            told.append(f"$ {command}\n{kept}")
        return "".join(told)


def _server(dsn: str) -> dict[str, str]:
    """The environment that leads libpq, and lockmodel, to the server behind `dsn`."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {names[key]: str(value) for key, value in conninfo_to_dict(dsn).items() if key in names}


def steady(output: str) -> str:
    """`output` without what differs from run to run, or from machine to machine: times, process numbers, versions, the engine."""
    output = " ".join(output.split())
    for pattern, word in (
        (r"\d+\.\d+ ?s\b", "TIME"),
        (r"[Pp]rocess \d+", "PROCESS"),
        (r"transaction \d+", "TRANSACTION"),
        (r"PostgreSQL [\d.]+", "POSTGRES"),
        (r"lockmodel_[0-9a-f]{8}", "SCHEMA"),
        (r"\(\w+ engine", "(ENGINE"),
    ):
        output = re.sub(pattern, word, output)
    return output
