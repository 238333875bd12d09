"""`lockmodel init`: a first spec with comments, to change into one's own. The specs are the files in `shapes/`."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from lockmodel.cli.common import one_of, write
from lockmodel.errors import UsageError, one_line, quote

SHAPES = {
    "transfer": "two transactions that change the same two rows",
    "queue": "a job queue in one table, claimed with FOR UPDATE SKIP LOCKED LIMIT 1",
}
"""The specs there are to begin with, each with what it is about."""
_DEFAULT = "transfer"

FolderArgument = Annotated[
    str, typer.Argument(metavar="FOLDER", help="Where to write it; the folder is made if it is not there.")
]
LikeOption = Annotated[
    str,
    typer.Option(
        "--like",
        metavar="|".join(SHAPES),
        help="; ".join(f"{name}: {what}" for name, what in SHAPES.items()) + ".",
        autocompletion=lambda: list(SHAPES),
    ),
]


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(folder: FolderArgument = "specs", like: LikeOption = _DEFAULT) -> int:
    """Write a first spec, with comments, to change into your own. An existing file is never overwritten."""
    one_of("--like", like, tuple(SHAPES))
    path = Path(folder, f"{like}.yaml")
    text = files("lockmodel.cli").joinpath("shapes", f"{like}.yaml").read_text("utf-8")
    shown = one_line(shlex.quote(str(path)), 1_000)  # It stands in comments, too.
    _create(path, text.replace("THIS-FILE", shown))
    write(
        sys.stdout,
        f"Wrote {one_line(str(path), 1_000)}: {SHAPES[like]}.\n"
        f"Check it:                   lockmodel check {shown}\n"
        f"Run it on a real Postgres:  lockmodel replay {shown}\n",
    )
    return 0


def _create(path: Path, text: str) -> None:
    """Write the new file `path`. Raises UsageError if it exists or can't be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # `x` fails for whatever is there, a dangling link too, also if it comes to be there just now.
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        if os.path.lexists(path):
            raise UsageError(f"{path}: it exists, and is not overwritten; name another folder, or remove it") from None
        raise UsageError(f"{quote(path.parent)}: it is no folder; name one for the new spec") from None
    except NotADirectoryError:
        raise UsageError(f"{quote(path.parent)}: it is no folder; name one for the new spec") from None
    except (OSError, ValueError) as error:  # The latter for a name with a zero byte.
        reason = error.strerror if isinstance(error, OSError) else None
        raise UsageError(f"{path}: {reason or error}") from None
