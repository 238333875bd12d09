"""Conformance of a spec whose steps are SQL: each way that a transaction can run, alone, and the locks that Postgres takes for it.

Compared are the resources that the spec ties to the database (`stands for`); of other relations it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from lockmodel.compiler import Compilation
from lockmodel.errors import ReplayError, UsageError, one_line
from lockmodel.expressions import Value
from lockmodel.replay.comparison import Observed, Run, Taken, add, after, compare
from lockmodel.replay.conformance import Conformance
from lockmodel.replay.observe import Observer, SeenLock
from lockmodel.replay.pools import Pools
from lockmodel.replay.replayer import Prepared, prepare
from lockmodel.replay.sandbox import Sandbox, connect
from lockmodel.replay.script import NotRealizable, Script, from_trace
from lockmodel.replay.session import Connection, Session
from lockmodel.semantics import Action, Crew, Semantics, State
from lockmodel.spec import Spec
from lockmodel.system import ActionKind
from lockmodel.trace import Trace

MAX_WAYS = 64
"""Ways of one transaction that are run."""


@dataclass(frozen=True)
class Way:
    """One way for a transaction to run alone, from start to end; `values` are its parameters."""

    transaction: str
    values: dict[str, Value]
    run: Run
    trace: Trace


async def conform_plain(spec: Spec, dsn: str) -> tuple[tuple[Conformance, ...], str]:
    """Compare every transaction of `spec` with what its SQL really locks on the server behind `dsn`; returns also that server's version.

    Raises UsageError where the spec ties nothing to the database, ReplayError for what keeps it from being done.
    """
    prepared = prepare(spec)
    if not prepared.bindings.told:
        raise UsageError(
            f"{spec.source.file}: to compare its locks with Postgres's, say what the resources are there: "
            "`stands for: {relation: …}`, or give a `replay: {target: …}`"
        )
    found, version = [], ""
    for way in _ways(prepared.compilation):
        statements, version = await _observe(prepared, way, dsn)
        planned = tuple(taken for taken in way.run.taken if taken.resource in prepared.bindings.told)
        comparison = compare((Run(way.run.label, planned),), statements)
        found.append(Conformance(way.transaction, way.values, (comparison,)))
    return tuple(found), version


def _ways(compilation: Compilation) -> Iterator[Way]:
    """The ways of each transaction, as far as they can be run by a worker that is alone."""
    for role in compilation.system.roles:
        for transaction in role.transactions:
            crew = Crew((f"{role.name} 1",), (role.name,), ((transaction,),))
            semantics = Semantics(compilation.system, crew)
            seen: set[tuple[Taken, ...]] = set()
            for trace, taken in _runs(semantics):
                if len(seen) >= MAX_WAYS:
                    break
                if taken not in seen:
                    seen.add(taken)
                    label = trace.actions[0].edge.label
                    yield Way(transaction, _parameters(label), Run(label, taken), trace)


def _runs(semantics: Semantics) -> Iterator[tuple[Trace, tuple[Taken, ...]]]:
    """Every path of the one worker from idle to the end of its transaction, and what it takes."""
    pending: list[tuple[tuple[State, ...], tuple[Action, ...], tuple[Taken, ...]]] = [((semantics.initial,), (), ())]
    while pending:
        states, actions, taken = pending.pop()
        for action in semantics.actions(states[-1]):
            edge = action.edge
            longer = ((*states, semantics.after(states[-1], action)), (*actions, action))
            if edge.action in (ActionKind.COMMIT, ActionKind.ROLLBACK):
                yield Trace(semantics.crew, *longer), taken
                continue
            more = add(taken, semantics.system, [(request.resource, request.mode) for request in edge.requests])
            if edge.action is not ActionKind.START:
                more = after(taken, semantics.system, states[-1].locations[0], edge)
            pending.append((*longer, more))


def _parameters(label: str) -> dict[str, Value]:
    """`{s: 0}` from a start's label, `claim (s=0)`."""
    inside = label.partition(" (")[2].removesuffix(")")
    pairs = (pair.partition("=") for pair in inside.split(", ")) if inside else ()
    return {name: value for name, _, value in pairs}


async def _observe(prepared: Prepared, way: Way, dsn: str) -> tuple[list[Observed], str]:
    try:
        script = from_trace(prepared.compilation, prepared.statements, way.trace)
    except NotRealizable as error:
        raise ReplayError(f"{way.run.label}: {error}") from None
    monitor = await connect(dsn, "lockmodel monitor")
    sandbox = Sandbox(monitor)
    try:
        await sandbox.check()
        await sandbox.sweep()
        schema = await sandbox.create()
        observer = Observer(monitor, schema)
        await observer.set_up()
        path = sql.SQL("SET search_path = {}").format(sql.Identifier(schema))

        async def configure(connection: Connection) -> None:
            await connection.execute(path)

        pools = Pools(dsn, script.pools, configure)
        worker = Session(0, await connect(dsn, "lockmodel worker"), pools, script)
        try:
            await configure(worker.own)
            for statement in prepared.setup:
                await worker.own.execute(statement.sql.encode())
            await pools.open()
            observed = await _statements(prepared, script, worker, observer)
        finally:
            await worker.close()
            await pools.close()
        version = (monitor.info.parameter_status("server_version") or "?").split()[0]
    except psycopg.Error as error:
        if monitor.closed or error.sqlstate is None:
            raise ReplayError(f"the server went away ({one_line(str(error), 160)})") from None
        raise ReplayError(f"{way.run.label}: {error.sqlstate} {one_line(str(error), 300)}") from None
    else:
        return observed, version
    finally:
        if not monitor.closed:
            await sandbox.drop()
        await monitor.close()


async def _statements(prepared: Prepared, script: Script, worker: Session, observer: Observer) -> list[Observed]:
    """The statements of the transaction, each with the locks that it added."""
    found: list[Observed] = []
    before: frozenset[Taken] = frozenset()
    for command in script.commands:
        await worker.send(command)
        held_by = [await observer.held(pid, prepared.bindings.row_tables) for pid in worker.pids]
        locks = frozenset[SeenLock]().union(*held_by)
        known = (prepared.bindings.taken(lock) for lock in locks)
        held = frozenset(taken for taken in known if taken is not None and taken.resource in prepared.bindings.told)
        if held - before:
            found.append(Observed(command.shown, held - before))
        before |= held
    return found
