"""A Postgres server for the tests that need one, and a hypothesis profile that finds the same examples every time."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

from lockmodel.replay.server import EmbeddedServer

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.load_profile("repeatable")

for _name in [name for name in os.environ if name.startswith("PG")]:
    # A developer's own PGHOST must not send the tests to a server of theirs; LOCKMODEL_TEST_DSN is how to ask for one.
    del os.environ[_name]


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    """The server behind LOCKMODEL_TEST_DSN, or an embedded one that lives as long as the test run.

    LOCKMODEL_POSTGRES_BIN chooses the binaries of the embedded one, such as /usr/lib/postgresql/15/bin.
    """
    if given := os.environ.get("LOCKMODEL_TEST_DSN"):
        yield given
        return
    with EmbeddedServer.start() as server:
        yield server.dsn
