"""Conformance: every transaction of a spec run alone against real code, and the locks that both take compared.

The code runs on a connection that pauses before each statement. After each, the locks of its backend are read; what is new is what the
statement took. When all locks are gone the transaction is over, and it is compared with all ways in which the spec's can run.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from lockmodel.compiler import Compilation
from lockmodel.errors import ReplayError, SpecError, UsageError, one_line
from lockmodel.replay.comparison import Comparison, Observed, Taken, compare, runs, strongest
from lockmodel.replay.observe import Observer
from lockmodel.replay.pausing import Blocked, CodeWorker, Ended, Paused
from lockmodel.replay.sandbox import Sandbox, connect
from lockmodel.replay.target import Bindings, Connect, load_target, operation
from lockmodel.resolver import resolve
from lockmodel.spec import Spec, Transaction
from lockmodel.templates import template_names

MAX_CALLS = 64
"""Calls of one transaction with different arguments."""

Value = int | str | bool
_CONTROL = re.compile(r"\s*(BEGIN|START\s+TRANSACTION|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE)\b|\s*$", re.IGNORECASE)


def is_control(sql: str) -> bool:
    """Whether `sql` begins or ends a transaction or a savepoint (or is nothing), and so is not counted as one of its statements."""
    return _CONTROL.match(sql) is not None


@dataclass(frozen=True)
class Ways:
    """How many ways of a transaction there are, and were run. `more`: there may be more still."""

    run: int
    found: int
    more: bool = False

    @property
    def all(self) -> bool:
        return self.run == self.found and not self.more


@dataclass(frozen=True)
class Conformance:
    """One call of one transaction of the spec, and each database transaction that it was."""

    transaction: str
    arguments: Mapping[str, Value]
    comparisons: tuple[Comparison, ...]
    ways: Ways | None = None
    """Of the whole transaction, where its SQL is run; None: each call was made."""

    @property
    def conforms(self) -> bool:
        """Whether it locked something, and all of it as planned."""
        return bool(self.comparisons) and all(comparison.conforms for comparison in self.comparisons)


async def conform(spec: Spec, dsn: str) -> tuple[tuple[Conformance, ...], str]:
    """Compare every transaction of `spec` that has a `call` with what it really locks on the server behind `dsn`.

    Returns also that server's version.

    Raises SpecError, UsageError or ReplayError for what keeps it from being done.
    """
    if spec.replay is None:
        raise UsageError(
            f"{spec.source.file}: to compare it with real code, the spec needs `replay: {{target: package.module:name}}`"
        )
    compilation = Compilation(resolve(spec))
    bindings = Bindings(spec, compilation.program, compilation.system.resources)
    called = [(name, transaction) for name, transaction in spec.transactions.items() if transaction.call]
    if not called:
        raise UsageError(f"{spec.source.file}: no transaction has a `call: {{operation: …}}` to compare it with")
    found, version = [], ""
    for name, transaction in called:
        for values in _instances(compilation, transaction):
            possible = tuple(runs(compilation, name, values))
            async with stage(spec, dsn) as scene:
                transactions = await _observe(scene, transaction, values, bindings)
                version = scene.version
            comparisons = tuple(compare(possible, statements) for statements in transactions)
            found.append(Conformance(name, values, comparisons))
    return tuple(found), version


def _instances(compilation: Compilation, transaction: Transaction) -> Sequence[dict[str, Value]]:
    """The values of the parameters that the call's arguments mention, in every combination."""
    assert transaction.call is not None
    texts = [value for value in transaction.call.arguments.values() if isinstance(value, str)]
    try:
        mentioned = {name for text in texts for name in template_names(text)}
    except ValueError as error:
        raise SpecError(transaction.call.at("arguments"), f"{error} in an argument; write {{{{ and }}}}") from None
    for name in sorted(mentioned - set(transaction.choose)):
        raise SpecError(transaction.call.at("arguments"), f"{name!r} is no parameter of `choose`")
    names = [name for name in transaction.choose if name in mentioned]
    combinations = list(itertools.product(*(compilation.program.sets[transaction.choose[name]] for name in names)))
    if len(combinations) > MAX_CALLS:
        raise UsageError(
            f"{transaction.call.at()}: {len(combinations):,} calls are too many; make the sets smaller with --set"
        )
    return [dict(zip(names, values, strict=True)) for values in combinations]


async def _observe(
    scene: Stage, transaction: Transaction, values: Mapping[str, Value], bindings: Bindings
) -> list[list[Observed]]:
    """The database transactions of one call, each as its statements and what they took."""
    assert transaction.call is not None
    worker = await scene.worker("worker")
    worker.start(operation(scene.target, transaction.call, values, connecting(worker.connection)))
    finished: list[list[Observed]] = []
    current: list[Observed] = []
    before: frozenset[Taken] = frozenset()
    number = 0
    standing = await worker.settle(scene.observer.blocking_pids)
    while isinstance(standing, Paused):
        statement = standing.statement
        number += not is_control(statement)
        standing = await worker.step(scene.observer.blocking_pids)
        held = await scene.held(worker, bindings)
        if fresh := strongest(held) - before:
            current.append(Observed(statement, fresh, max(number, 1)))
        if not held and current:
            finished.append(current)
            current = []
        if not held and worker.connection.info.transaction_status is TransactionStatus.IDLE:
            number = 0
        before = held
    if isinstance(standing, Blocked):
        blocker = f"process {standing.blockers[0]}"
        raise ReplayError(f"{transaction.at('call')}: run alone, a statement waits for {blocker}: {worker.sent[-1]}")
    if isinstance(standing, Ended) and standing.error is not None:
        raise ReplayError(f"{transaction.at('call')}: the operation fails: {one_line(repr(standing.error), 300)}")
    return [*finished, current] if current else finished


class Stage:
    """A schema with the target's tables in it, an observer, and workers."""

    def __init__(self, dsn: str, target: Any, observer: Observer) -> None:
        self.dsn = dsn
        self.target = target
        self.observer = observer
        self.workers: list[CodeWorker] = []

    @property
    def version(self) -> str:
        """The server's version, such as 18.6."""
        # Debian's goes on with its own number in parentheses.
        return (self.observer.monitor.info.parameter_status("server_version") or "?").split()[0]

    def short(self, statement: str) -> str:
        """`statement` without the name of the stage's schema, which is no news."""
        return statement.replace(f'"{self.observer.schema}".', "")

    async def worker(self, name: str) -> CodeWorker:
        """A new worker, whose connection pauses once it has been started."""
        self.workers.append(await CodeWorker.open(name, self.dsn))
        return self.workers[-1]

    async def held(self, worker: CodeWorker, bindings: Bindings) -> frozenset[Taken]:
        """What `worker` holds now, in the words of the spec."""
        locks = await self.observer.held(worker.pid, bindings.row_tables)
        return frozenset(taken for lock in locks if (taken := bindings.taken(lock)) is not None)


@asynccontextmanager
async def stage(spec: Spec, dsn: str) -> AsyncIterator[Stage]:
    """Set the target up in a schema of its own; whatever happens, nothing of it remains.

    Raises ReplayError if the database or the target does not let it.
    """
    monitor = await connect(dsn, "lockmodel monitor")
    sandbox = Sandbox(monitor)
    scene: Stage | None = None
    try:
        await sandbox.check()
        await sandbox.sweep()
        schema = await sandbox.create()
        observer = Observer(monitor, schema)
        await observer.set_up()
        scene = Stage(dsn, load_target(spec, schema), observer)
        await _set_up_target(scene)
        yield scene
    except psycopg.OperationalError as error:
        raise ReplayError(f"the server went away ({one_line(str(error), 160)})") from None
    finally:
        workers = scene.workers if scene else []

        async def close() -> None:
            for worker in workers:
                await worker.close()

        await sandbox.leave(dsn, [worker.pid for worker in workers], close)


async def _set_up_target(scene: Stage) -> None:
    connection = await connect(scene.dsn, "lockmodel set-up")
    try:
        await scene.target.set_up(connecting(connection))
    except Exception as error:  # The user's own code.
        raise ReplayError(f"the target's set_up fails: {one_line(repr(error), 300)}") from None
    finally:
        await connection.close()


def connecting(connection: AsyncConnection[Any]) -> Connect:
    """What an operation calls to get its connection: always this one, which stays open."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[AsyncConnection[Any]]:
        yield connection

    return connect
