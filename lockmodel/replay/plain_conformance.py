"""Conformance of a spec whose steps are SQL: each way that a transaction can run, alone, and the locks that Postgres takes for it.

Ways that send the same statements are run once: whichever of them Postgres follows is one of the spec's. Compared are the resources that the
spec ties to the database (`stands for`); of other relations it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from lockmodel.compiler import Compilation
from lockmodel.errors import ReplayError, UsageError, one_line
from lockmodel.expressions import Value
from lockmodel.replay.comparison import Observed, Path, Run, Taken, compare, strongest
from lockmodel.replay.conformance import Conformance, Ways, is_control
from lockmodel.replay.observe import Observer, SeenLock
from lockmodel.replay.pools import Pools
from lockmodel.replay.replayer import Prepared, prepare
from lockmodel.replay.sandbox import Sandbox, connect
from lockmodel.replay.script import Command, NotRealizable, Script, from_trace
from lockmodel.replay.session import Connection, Session
from lockmodel.semantics import Action, Crew, Semantics, State
from lockmodel.spec import Spec
from lockmodel.system import ActionKind
from lockmodel.trace import Trace

MAX_WAYS = 64
"""Ways of one transaction that are run."""
MAX_PATHS = 2_000
"""Paths of one transaction that are looked at."""
MAX_STEPS = 50_000


@dataclass(frozen=True)
class Way:
    """What a transaction sends when it runs alone, from start to end, and all that the spec says may come of that."""

    script: Script
    runs: tuple[Run, ...]

    @property
    def values(self) -> dict[str, Value]:
        """The parameters that all of `runs` have in common."""
        first, *others = (_parameters(run.label) for run in self.runs)
        return {name: value for name, value in first.items() if all(one.get(name) == value for one in others)}


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
    told = prepared.bindings.told
    for role in prepared.compilation.system.roles:
        for transaction in role.transactions:
            ways, more = _ways(prepared, Crew((f"{role.name} 1",), (role.name,), ((transaction,),)))
            count = Ways(min(len(ways), MAX_WAYS), len(ways), more)
            for way in ways[:MAX_WAYS]:
                statements, version = await _observe(prepared, way, dsn)
                comparison = compare([_told(run, told) for run in way.runs], statements)
                found.append(Conformance(transaction, way.values, (comparison,), count))
    return tuple(found), version


def _told(run: Run, told: frozenset[str]) -> Run:
    return Run(run.label, tuple(taken for taken in run.taken if taken.resource in told), run.covered)


def _ways(prepared: Prepared, crew: Crew) -> tuple[list[Way], bool]:
    """The ways of the crew's one transaction, as far as they can be run by a worker that is alone; and whether there may be more."""
    scripts: dict[object, Script] = {}
    runs: dict[object, list[Run]] = {}
    semantics = Semantics(prepared.compilation.system, crew)
    more = False
    for trace, path in _paths(prepared.compilation, semantics):
        if trace is None or sum(map(len, runs.values())) >= MAX_PATHS:
            more = True
            break
        label = trace.actions[0].edge.label
        try:
            script = from_trace(prepared.compilation, prepared.statements, trace)
        except NotRealizable as error:
            raise ReplayError(f"{label}: {error}") from None
        sent = _sent(script.commands)
        scripts.setdefault(sent, script)
        runs.setdefault(sent, []).append(Run(label, path.taken, path.covered))
    return [Way(script, tuple(runs[sent])) for sent, script in scripts.items()], more


def _sent(commands: Sequence[Command]) -> object:
    """What is sent, without the end of the transaction, which takes nothing."""
    return tuple(
        (one.sql, one.pooled, one.in_block) for one in commands if one.sql.upper() not in ("COMMIT", "ROLLBACK")
    )


def _paths(compilation: Compilation, semantics: Semantics) -> Iterator[tuple[Trace | None, Path]]:
    """Every path of the one worker from idle to the end of its transaction, and what it takes; no trace where there are too many.

    Of those that differ only in the order inside a statement, one.
    """
    pending: list[tuple[tuple[State, ...], tuple[Action, ...], Path]] = [((semantics.initial,), (), Path())]
    met: set[object] = set()
    steps = 0
    while pending:
        states, actions, path = pending.pop()
        following = []
        for action in semantics.actions(states[-1]):
            edge = action.edge
            longer = ((*states, semantics.after(states[-1], action)), (*actions, action))
            if edge.action in (ActionKind.COMMIT, ActionKind.ROLLBACK):
                yield Trace(semantics.crew, *longer), path
                continue
            if edge.action is ActionKind.START:
                following.append((*longer, path.started(semantics.system, edge.requests)))
                continue
            reached = path.after(compilation, states[-1].locations[0], edge)
            key = (longer[0][-1], (reached.statements, reached.covered))
            if key not in met:
                met.add(key)
                following.append((*longer, reached))
        pending += reversed(following)
        steps += 1
        if steps >= MAX_STEPS and pending:
            yield None, path
            return


def _parameters(label: str) -> dict[str, Value]:
    """`{s: 0}` from a start's label, `claim (s=0)`."""
    inside = label.partition(" (")[2].removesuffix(")")
    pairs = (pair.partition("=") for pair in inside.split(", ")) if inside else ()
    return {name: value for name, _, value in pairs}


async def _observe(prepared: Prepared, way: Way, dsn: str) -> tuple[list[Observed], str]:
    script, label = way.script, way.runs[0].label
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
        raise ReplayError(f"{label}: {error.sqlstate} {one_line(str(error), 300)}") from None
    else:
        return observed, version
    finally:
        await sandbox.leave(dsn, [], _nothing)


async def _nothing() -> None:
    """The worker is closed by then."""


async def _statements(prepared: Prepared, script: Script, worker: Session, observer: Observer) -> list[Observed]:
    """The statements of the transaction, each with the locks that it added."""
    found: list[Observed] = []
    before: frozenset[Taken] = frozenset()
    number = 0
    for command in script.commands:
        await worker.send(command)
        number += not is_control(command.sql)
        held_by = [await observer.held(pid, prepared.bindings.row_tables) for pid in worker.pids]
        locks = frozenset[SeenLock]().union(*held_by)
        known = (prepared.bindings.taken(lock) for lock in locks)
        held = frozenset(taken for taken in known if taken is not None and taken.resource in prepared.bindings.told)
        if fresh := strongest(held) - before:
            found.append(Observed(command.shown, fresh, max(number, 1)))
        before |= held
    return found
