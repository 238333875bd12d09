"""A schedule that a test writes down: named sessions, their statements in a fixed order, and who must wait for whom.

    with ControlledSchedule(dsn) as schedule:
        schedule.setup("CREATE TABLE account (id integer PRIMARY KEY, …); …")
        alice, bob = schedule.sessions("alice", "bob")
        alice.run("BEGIN")
        …
        alice.waits_for(bob, "UPDATE account … WHERE id = 2")
        bob.deadlocks("UPDATE account … WHERE id = 1")

These are plain functions for a plain test. There is no thread: all connections belong to one event loop, which runs only while a step is
under way. What is done in it is in `backends`.

What Postgres does otherwise than the test says is an AssertionError that tells the schedule so far. The error of a statement is raised as
psycopg raised it. Whatever keeps the schedule from being carried out is a ReplayError.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any, Self, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lockmodel.errors import ReplayError, quote
from lockmodel.replay.backends import Backend, Backends, Otherwise, Parameters, Row

Result = TypeVar("Result")


class ControlledSchedule:
    """Sessions in a schema of their own in the database behind `dsn`; a context manager.

    However it is left, no connection, schema, lock or waiting statement remains. Not for use inside a running event loop.
    """

    def __init__(self, dsn: str) -> None:
        self._server = dsn
        self._backends = Backends(dsn)
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        try:
            self._wait(self._backends.open())
        except BaseException:
            self._runner.close()
            self._runner = None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._runner is not None
        try:
            self._wait(self._backends.close())
        finally:
            self._runner.close()
            self._runner = None

    @property
    def schema(self) -> str:
        """The schema that the sessions work in."""
        return self._backends.schema

    @property
    def dsn(self) -> str:
        """A conninfo for other connections to the same schema, such as the application's own. They are ended with the schedule."""
        known = conninfo_to_dict(self._server)
        options = f"{known.get('options') or ''} -csearch_path={self.schema}".strip()
        return make_conninfo(self._server, options=options, application_name=self.schema)

    def setup(self, statements: str) -> None:
        """Run SQL in the schema: make the tables, insert the rows. Raises psycopg's error."""
        __tracebackhide__ = True
        try:
            self._wait(self._backends.set_up(statements))
        except psycopg.Error as error:
            raise error.with_traceback(None) from None

    def session(self, name: str) -> Session:
        """Open a session; it has a connection of its own, in autocommit mode, so a transaction begins with BEGIN."""
        if not name or name in self._backends.members:
            what = f"there is a session {quote(name)} already" if name else "a session needs a name"
            raise ReplayError(f"{what}; give each its own name")
        return Session(self, self._wait(self._backends.connect(name)))

    def sessions(self, *names: str) -> tuple[Session, ...]:
        """Open several, in this order."""
        return tuple(self.session(name) for name in names)

    def waiting(self) -> dict[str, tuple[str, ...]]:
        """Who waits for whom now, by name, as pg_blocking_pids says. Who does not wait is left out."""
        return self._wait(self._backends.waiting())

    def story(self) -> str:
        """The schedule so far: a line for each statement, with what became of it."""
        who = max((len(line.session) for line in self._backends.story), default=0)
        what = max((len(line.statement) for line in self._backends.story), default=0)
        return "\n".join(
            f"  {number:>2}  {line.session:<{who}}  {line.statement:<{what}}  {line.outcome}"
            for number, line in enumerate(self._backends.story, start=1)
        )

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run the event loop until `work` is done."""
        __tracebackhide__ = True
        problem = ""
        if self._runner is None:
            problem = "the schedule is closed; use it inside its `with` block"
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            problem = "a controlled schedule can't be used inside a running event loop; make the test a plain function"
        if self._runner is None or problem:
            work.close()
            raise ReplayError(problem)
        return self._runner.run(work)


class Session:
    """One named session of a schedule. `pid` is its process in Postgres."""

    def __init__(self, schedule: ControlledSchedule, backend: Backend) -> None:
        """Not for callers, who use `ControlledSchedule.session`."""
        self.name = backend.name
        self.pid = backend.pid
        self._schedule = schedule
        self._backend = backend

    def __repr__(self) -> str:
        return f"<session {self.name}>"

    def run(self, statement: str, parameters: Parameters = None) -> list[Row]:
        """Run a statement that nobody is in the way of; its rows. Raises AssertionError if it waits, psycopg's error if it fails."""
        __tracebackhide__ = True
        return self._do(self._backend.completes(statement, parameters))

    def waits_for(self, others: Session | Sequence[Session], statement: str, parameters: Parameters = None) -> None:
        """Send a statement, and return when it waits for exactly these. Raises AssertionError if it does anything else."""
        __tracebackhide__ = True
        wanted = (others,) if isinstance(others, Session) else tuple(others)
        self._do(self._backend.blocks(tuple(other.name for other in wanted), statement, parameters))

    def finishes(self) -> list[Row]:
        """The rows of the statement that waited, which must go on by now. Raises as `run` does."""
        __tracebackhide__ = True
        return self._do(self._backend.goes_on())

    def deadlocks(self, statement: str, parameters: Parameters = None) -> frozenset[str]:
        """Run a statement that closes a circle of waits, for which Postgres must abort this session with 40P01.

        Returns the names of the circle's members, as Postgres reports it. Raises AssertionError if it does anything else.
        """
        __tracebackhide__ = True
        return self._do(self._backend.closes_circle(statement, parameters))

    def fails(self, sqlstate: str, statement: str | None = None, parameters: Parameters = None) -> psycopg.Error:
        """Run a statement (None: the one that waits) that must fail with this SQLSTATE, such as 55P03; the error."""
        __tracebackhide__ = True
        return self._do(self._backend.is_refused(sqlstate, statement, parameters))

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a step. Its errors come without the frames of the event loop, which tell a reader nothing."""
        __tracebackhide__ = True
        told = ""
        failure: psycopg.Error | None = None
        try:
            return self._schedule._wait(work)
        except Otherwise as other:
            told = f"{self.name} {other}\n\n{self._schedule.story()}"
        except psycopg.Error as error:
            failure = error
        if failure is not None:
            raise failure.with_traceback(None) from None
        raise AssertionError(told)
