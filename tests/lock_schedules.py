"""Random schedules of locks, performed in the model and on a real Postgres in step.

A schedule is a list of lines such as `2: row t1.1 FOR UPDATE NOWAIT`: which session does what. After each line both sides stand still and are
compared: who runs, who waits for what and for whom, who got which error, and all locks held. Nothing waits for a fixed time: a session that
waits says so itself (`log_lock_waits`, sent to the client) once its deadlock check has found nothing.

    python -m tests.lock_schedules --seed 1 --count 20000

Where several sessions are woken at the same moment, the operating system decides who goes on first. The model takes any of these courses; a
difference is what no course explains.
"""

from __future__ import annotations

import argparse
import random
import re
import select
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import pq

from lockmodel.lock_manager import Advisory, Key, LockManager, Outcome, Row, RowVersion, Table, Transaction
from lockmodel.modes import KINDS, Wait

TABLES, ROWS, SESSIONS = 2, 2, 4
SETTLING_SECONDS = 20.0
COURSES_MAX = 20_000

TABLE_MODES, ROW_MODES = KINDS["table"].modes, KINDS["row"].modes
SQLSTATES = {
    "55P03": Outcome.REFUSED,
    "40P01": Outcome.DEADLOCK,
    "57014": Outcome.CANCELLED,
    "23505": Outcome.DUPLICATE,
}

_PG_TABLE_MODES = {mode: mode.title().replace(" ", "") + "Lock" for mode in TABLE_MODES}
# tupleLockExtraInfo in heapam.c
_PG_ROW_MODES = dict(
    zip(ROW_MODES, ("AccessShareLock", "RowShareLock", "ExclusiveLock", "AccessExclusiveLock"), strict=True)
)
_PG_SHARED_MODES = {"SHARED": "ShareLock", "EXCLUSIVE": "ExclusiveLock"}

_VERBS = {
    "begin": r"",
    "lock": r"(?P<table>t\d) (?P<mode>[A-Z ]+?)(?P<wait> NOWAIT)?",
    "row": r"(?P<table>t\d)\.(?P<row>\d) (?P<mode>FOR [A-Z ]+?)(?P<wait> NOWAIT| SKIP LOCKED)?",
    "update": r"(?P<table>t\d)\.(?P<row>\d)(?P<key> key)?",
    "delete": r"(?P<table>t\d)\.(?P<row>\d)",
    "insert": r"(?P<table>t\d)\.(?P<row>\d)(?P<nothing> do nothing)?",
    "advisory": r"(?P<number>\d) (?P<mode>SHARED|EXCLUSIVE)(?P<wait> TRY)?(?P<session> session)?",
    "unlock": r"(?P<number>\d) (?P<mode>SHARED|EXCLUSIVE)",
    "savepoint": r"(?P<name>\w+)",
    "rollback to": r"(?P<name>\w+)",
    "release": r"(?P<name>\w+)",
    "commit": r"",
    "rollback": r"",
    "cancel": r"",
}
_LINE = re.compile(r"(\d): (rollback to|\w+) ?(.*)")


@dataclass(frozen=True)
class Line:
    """One line of a schedule."""

    session: int
    verb: str
    words: dict[str, str | None] = field(hash=False)
    text: str

    @classmethod
    def parse(cls, text: str) -> Line:
        parts = _LINE.fullmatch(text.strip())
        assert parts, f"not a line of a schedule: {text!r}"
        words = re.fullmatch(_VERBS[parts[2]], parts[3])
        assert words, f"not a line of a schedule: {text!r}"
        return cls(
            int(parts[1]),
            parts[2],
            {name: word and word.strip() for name, word in words.groupdict().items()},
            text.strip(),
        )

    @property
    def wait(self) -> Wait:
        return Wait(self.words.get("wait") or "")

    @property
    def sql(self) -> str:
        """The statement; `cancel` has none."""
        word = self.words
        match self.verb:
            case "lock":
                return f"LOCK TABLE {word['table']} IN {word['mode']} MODE {self.wait}"
            case "row":
                return f"SELECT id FROM {word['table']} WHERE id = {word['row']} {word['mode']} {self.wait}"
            case "update":
                column = "k = k + 1" if word["key"] else "v = v + 1"
                return f"UPDATE {word['table']} SET {column} WHERE id = {word['row']} RETURNING id"
            case "delete":
                return f"DELETE FROM {word['table']} WHERE id = {word['row']} RETURNING id"
            case "insert":
                conflict = "ON CONFLICT DO NOTHING " if word["nothing"] else ""
                return f"INSERT INTO {word['table']} VALUES ({word['row']}) {conflict}RETURNING id"
            case "advisory":
                function = f"pg_{'try_' if self.wait else ''}advisory{'' if word['session'] else '_xact'}_lock"
                return f"SELECT {function}{'_shared' if word['mode'] == 'SHARED' else ''}(KEYS, {word['number']})"
            case "unlock":
                return (
                    f"SELECT pg_advisory_unlock{'_shared' if word['mode'] == 'SHARED' else ''}(KEYS, {word['number']})"
                )
            case "savepoint" | "rollback to" | "release":
                return f"{self.verb.upper()} {word['name']}"
        return self.verb.upper()


@dataclass(frozen=True)
class Seen:
    """One session as it stands after a line: the outcome of what it did last, what it waits for, and what it holds."""

    outcome: str
    waits_for: str = ""
    blockers: frozenset[int] = frozenset()
    held: frozenset[tuple[str, int]] = frozenset()

    def __str__(self) -> str:
        wait = f" for {self.waits_for} behind {sorted(self.blockers)}" if self.waits_for else ""
        held = ", ".join(f"{lock} x{count}" if count > 1 else lock for lock, count in sorted(self.held)) or "nothing"
        return f"{self.outcome}{wait}; holds {held}"


Picture = dict[int, Seen]


# The model's side


class Course:
    """Which session goes on at each moment where several may: those of `prefix`, then always the first."""

    def __init__(self, prefix: Sequence[int] = ()) -> None:
        self.prefix = tuple(prefix)
        self.taken: list[tuple[int, int]] = []

    def __call__(self, count: int) -> int:
        choice = self.prefix[len(self.taken)] if len(self.taken) < len(self.prefix) else 0
        self.taken.append((choice, count))
        return choice

    @property
    def choices(self) -> tuple[int, ...]:
        return tuple(choice for choice, _ in self.taken)

    def others(self) -> Iterator[Course]:
        """The courses that go another way at one moment after the prefix."""
        for moment in range(len(self.prefix), len(self.taken)):
            for choice in range(1, self.taken[moment][1]):
                yield Course((*self.choices[:moment], choice))


class Model:
    """The lock manager performing a schedule. `alert`: the sessions whose deadlock_timeout passes at once; never for the others."""

    def __init__(
        self,
        sessions: Sequence[int],
        alert: frozenset[int],
        course: Course,
        server_version: int = 18,
        standby: bool = False,
    ) -> None:
        self.sessions = sessions
        self.course = course
        self.manager = LockManager(server_version, standby, course, alert)
        self.outcomes: dict[int, str] = dict.fromkeys(sessions, "nothing yet")
        self.in_transaction: set[int] = set()
        self.failed: set[int] = set()
        self.savepoints: dict[int, list[str]] = {session: [] for session in sessions}

    def perform(self, line: Line) -> Picture:
        session, manager = line.session, self.manager
        word = line.words
        table = Table(word["table"] or "") if "table" in word else Table("")
        answer: str | None = None
        match line.verb:
            case "begin":
                manager.begin(session)
                self.in_transaction.add(session)
                answer = "done"
            case "lock":
                manager.request(session, table, word["mode"] or "", line.wait)
            case "row":
                manager.request(session, self._row(line), word["mode"] or "", line.wait)
            case "update":
                manager.update(session, self._row(line), key=bool(word["key"]))
            case "delete":
                manager.delete(session, self._row(line))
            case "insert":
                unique = Key(word["row"] or "", table)
                manager.insert(session, unique, do_nothing=bool(word["nothing"]))
            case "advisory":
                key = Advisory(int(word["number"] or 0))
                manager.request(session, key, word["mode"] or "", line.wait, session_scope=bool(word["session"]))
            case "unlock":
                answer = str(manager.unlock(session, Advisory(int(word["number"] or 0)), word["mode"] or "")).lower()
            case "savepoint":
                manager.savepoint(session, word["name"] or "")
                self.savepoints[session].append(word["name"] or "")
                answer = "done"
            case "rollback to":
                manager.rollback_to(session, word["name"] or "")
                self._forget_after(session, word["name"] or "", keep=1)
                self.failed.discard(session)
                answer = "done"
            case "release":
                manager.release_savepoint(session, word["name"] or "")
                self._forget_after(session, word["name"] or "", keep=0)
                answer = "done"
            case "commit" | "rollback":
                manager.end(session, commit=line.verb == "commit")
                self.in_transaction.discard(session)
                self.failed.discard(session)
                self.savepoints[session].clear()
                answer = "done"
            case "cancel":
                manager.give_up(session)
        if answer is None:
            self.outcomes.pop(session, None)
        else:
            self.outcomes[session] = answer
        self.failed |= {s for s in self.in_transaction if s not in self.outcomes and manager.outcome(s).failed}
        return {each: self._seen(each) for each in self.sessions}

    def _row(self, line: Line) -> Row:
        return Row(line.words["row"] or "", Table(line.words["table"] or ""))

    def _forget_after(self, session: int, name: str, keep: int) -> None:
        names = self.savepoints[session]
        del names[len(names) - 1 - names[::-1].index(name) + keep :]

    def _seen(self, session: int) -> Seen:
        held = Counter(
            "transactionid" if isinstance(obj, Transaction) else _name(obj, mode)
            for obj, mode in self.manager.held(session)
        )
        waiter = self.manager.awaited(session)
        return Seen(
            self.outcomes.get(session) or self.manager.outcome(session),
            "" if waiter is None else _name(waiter.object, waiter.mode),
            frozenset(self.manager.blockers(session)),
            frozenset(held.items()),
        )


def _name(obj: object, mode: str) -> str:
    """A lock as pg_locks has it."""
    match obj:
        case Table(name):
            return f"relation {name} {_PG_TABLE_MODES[mode]}"
        case Advisory(key):
            return f"advisory {key} {_PG_SHARED_MODES[mode]}"
        case RowVersion(row, _):
            assert row.table is not None
            return f"tuple {row.table.name} {_PG_ROW_MODES[mode]}"
        case _:
            return f"transactionid {_PG_SHARED_MODES[mode]}"


# The server's side


class Strange(Exception):
    """The server did what no schedule here can lead to, such as an error of another kind."""


class _Session:
    """One connection. `checked`: whether it has said that it waits, and that its deadlock check found nothing to abort it for."""

    def __init__(self, dsn: str, number: int, schema: str) -> None:
        self.number = number
        self.connection = psycopg.connect(dsn, autocommit=True, application_name=schema)
        self.pgconn = self.connection.pgconn
        self.pid = self.pgconn.backend_pid
        self.pgconn.notice_handler = self._notice
        self.running = self.checked = False
        self.outcome = "nothing yet"
        self.line: Line | None = None
        # Advisory keys are the database's: the first half of ours is our schema's number.
        self.keys = schema.rpartition("_")[2]
        for setting in (
            f"search_path = {schema}",
            "log_lock_waits = on",
            "log_min_messages = panic",
            "lc_messages = 'C'",
            "client_min_messages = log",
        ):
            self.connection.execute(f"SET {setting}")

    def _notice(self, result: pq.abc.PGresult) -> None:
        text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode()
        if "still waiting for" in text:
            self.checked = True
        elif " acquired " in text:
            self.checked = False

    def send(self, line: Line) -> None:
        self.line = line
        self.running, self.checked = True, False
        self.pgconn.send_query(line.sql.replace("KEYS", self.keys).encode())

    def read(self) -> bool:
        """Take what the server has sent; whether it was anything."""
        before = (self.running, self.checked)
        self.pgconn.consume_input()
        while self.running and not self.pgconn.is_busy():
            result = self.pgconn.get_result()
            if result is None:
                self.running = self.checked = False
            else:
                self.outcome = self._outcome(result)
        return before != (self.running, self.checked)

    def _outcome(self, result: pq.abc.PGresult) -> str:
        assert self.line is not None
        if result.status == pq.ExecStatus.FATAL_ERROR:
            state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            if state not in SQLSTATES:
                raise Strange(f"{self.line.text}: {result.error_message.decode()}")
            return SQLSTATES[state]
        value = (result.get_value(0, 0) or b"").decode() if result.ntuples else None
        if self.line.verb == "unlock":
            return {"t": "true", "f": "false"}[value or ""]
        if self.line.verb in ("row", "update", "delete", "insert", "lock", "advisory"):
            got = self.line.verb == "lock" or (value is not None and value != "f")
            return Outcome.GRANTED if got else Outcome.SKIPPED
        return "done"


class Server:
    """Connections to a real Postgres that perform one schedule after another."""

    def __init__(self, dsn: str) -> None:
        self.monitor = psycopg.connect(dsn, autocommit=True)
        self.version = self.monitor.info.server_version // 10_000
        wal_level = self.monitor.execute("SHOW wal_level").fetchone()
        self.standby = wal_level != ("minimal",)
        self.name = f"agreement_{self.monitor.info.backend_pid}"
        self.monitor.execute(f"CREATE SCHEMA {self.name}")
        self.monitor.execute(f"SET search_path = {self.name}")
        for number in range(TABLES):
            self.monitor.execute(
                f"CREATE TABLE t{number} (id int PRIMARY KEY, k bigint UNIQUE, v int)"
                " WITH (fillfactor = 50, autovacuum_enabled = off)"
            )
        self.refill()
        names = [f"t{number}" for number in range(TABLES)]
        self.tables: dict[str, str] = dict(
            self.monitor.execute(
                "SELECT name::regclass::oid::text, name FROM unnest(%s::text[]) AS name", (names,)
            ).fetchall()
        )
        self.sessions = [_Session(dsn, number, self.name) for number in range(SESSIONS)]
        self.by_pid = {session.pid: session.number for session in self.sessions}
        self._poll = select.poll()
        for session in self.sessions:
            self._poll.register(session.pgconn.socket, select.POLLIN)
        self._alert: frozenset[int] = frozenset()
        pids = ", ".join(str(session.pid) for session in self.sessions)
        self._query = (
            f"SELECT pid, pg_blocking_pids(pid)::text, '', '', '', '', '' FROM unnest(ARRAY[{pids}]) AS pid UNION ALL"
            " SELECT pid, '', locktype, relation::text, objid::text, mode, granted::text FROM pg_locks"
            f" WHERE pid IN ({pids}) AND (locktype IN ('advisory', 'transactionid') OR relation IN ({', '.join(self.tables)}))"
        ).encode()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        for session in self.sessions:
            self.monitor.execute("SELECT pg_terminate_backend(%s)", (session.pid,))
            session.connection.close()
        self.monitor.execute(f"SET client_min_messages = warning; DROP SCHEMA {self.name} CASCADE")
        self.monitor.close()

    def refill(self) -> None:
        """Bring back the rows that were deleted, and remove those that were inserted."""
        for number in range(TABLES):
            self.monitor.execute(f"DELETE FROM t{number} WHERE id > {ROWS}")
            self.monitor.execute(
                f"INSERT INTO t{number} SELECT i, i * 1000000000, 0 FROM generate_series(1, {ROWS}) i"
                f" WHERE i NOT IN (SELECT id FROM t{number})"
            )

    def start(self, alert: frozenset[int]) -> None:
        """Make everything as new for a schedule."""
        for session in self.sessions:
            timeout = "1ms" if session.number in alert else "1h"
            session.connection.execute(f"ROLLBACK; SELECT pg_advisory_unlock_all(); SET deadlock_timeout = '{timeout}'")
            session.running = session.checked = False
            session.outcome = "nothing yet"
        self._alert = alert

    def finish(self) -> None:
        """End whatever still runs, and all transactions."""
        while True:
            for session in self.sessions:
                if not session.running and session.connection.info.transaction_status != pq.TransactionStatus.IDLE:
                    session.connection.execute("ROLLBACK")
            running = [session for session in self.sessions if session.running]
            if not running:
                return
            for session in running:
                self.monitor.execute("SELECT pg_cancel_backend(%s)", (session.pid,))
            self._read(0.01)

    def perform(self, line: Line, sessions: Sequence[int], expected: Picture) -> Picture:
        """Do what the line says, and wait until nobody runs: a picture of all sessions then.

        If that is `expected` there is no need to look twice.
        """
        session = self.sessions[line.session]
        if line.verb == "cancel":
            self.monitor.execute("SELECT pg_cancel_backend(%s)", (session.pid,))
        else:
            session.send(line)
        deadline = time.monotonic() + SETTLING_SECONDS
        last: Picture | None = None
        self._read(0.001)
        while line.verb == "cancel" and session.running:
            # Until the signal arrives it looks as before.
            self._in_time(deadline)
            self._read(0.05)
        while True:
            while any(s.running and not s.checked for s in self.sessions if s.number in self._alert):
                self._in_time(deadline)
                if not self._read(0.05):
                    break
            picture = self._look(sessions)
            if self._read(0 if picture else 0.001) or picture is None:
                last = None
                self._in_time(deadline)
                continue
            if picture in (expected, last):
                return picture
            last = picture
            self._read(0.02)

    def _in_time(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise Strange(f"somebody neither runs nor waits: {self._look(range(SESSIONS))}")

    def _read(self, seconds: float) -> bool:
        changed = False
        for descriptor, _ in self._poll.poll(seconds * 1000):
            session = next(s for s in self.sessions if s.pgconn.socket == descriptor)
            changed |= session.read()
        return changed

    def _look(self, sessions: Sequence[int]) -> Picture | None:
        """All sessions; None while one of them runs, or its deadlock check is still to come."""
        blockers: dict[int, frozenset[int]] = {}
        waits: dict[int, str] = {}
        held: dict[int, Counter[str]] = {number: Counter() for number in sessions}
        result = self.monitor.pgconn.exec_(self._query)
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise Strange(result.error_message.decode())
        for index in range(result.ntuples):
            pid, blocking, kind, relation, objid, mode, granted = (
                (result.get_value(index, column) or b"").decode() for column in range(7)
            )
            number = self.by_pid[int(pid)]
            if number not in held:
                continue
            if not kind:
                pids = [int(word) for word in blocking.strip("{}").split(",") if word]
                blockers[number] = frozenset(self.by_pid.get(p, -p) for p in pids)
                continue
            name = f"{kind} {self.tables.get(relation, objid)} {mode}" if kind != "transactionid" else f"{kind} {mode}"
            if granted == "false":
                waits[number] = name
            elif name == "transactionid ExclusiveLock":
                held[number]["transactionid"] += 1
            elif kind != "transactionid":
                held[number][name] += 1
        picture = {}
        for number in sessions:
            session = self.sessions[number]
            if session.running and not (blockers[number] and (session.checked or number not in self._alert)):
                return None
            outcome = "waits" if session.running else session.outcome
            picture[number] = Seen(outcome, waits.get(number, ""), blockers[number], frozenset(held[number].items()))
        return picture


# Both in step


@dataclass(frozen=True)
class Difference:
    """Where the server did what no course of events in the model leads to."""

    seed: int | None
    alert: frozenset[int]
    lines: tuple[Line, ...]
    model: Picture
    server: Picture

    def __str__(self) -> str:
        text = [
            f"seed {self.seed}" if self.seed is not None else "a schedule written out",
            f"alert: {' '.join(map(str, sorted(self.alert)))}",
            *(line.text for line in self.lines),
        ]
        for session, model in self.model.items():
            if self.server[session] != model:
                text += [
                    f"  session {session} in the model: {model}",
                    f"  session {session} on the server: {self.server[session]}",
                ]
        return "\n".join(text)


@dataclass
class Tally:
    """What was seen in all schedules together. `reordered`: schedules in which another course than the usual one explained it."""

    schedules: int = 0
    lines: int = 0
    waits: int = 0
    reordered: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count:,} {name}" for name, count in sorted(self.outcomes.items()))
        findings = ", ".join(f"{count:,} {name}s" for name, count in sorted(self.findings.items())) or "nothing"
        return (
            f"{self.schedules:,} schedules, {self.lines:,} statements: {outcomes}; the deadlock check found {findings};"
            f" {self.reordered:,} schedules with another order of woken sessions"
        )


class Comparison:
    """One schedule, line by line in both."""

    def __init__(self, server: Server, sessions: Sequence[int], alert: frozenset[int]) -> None:
        self.server = server
        self.sessions = tuple(sessions)
        self.alert = alert
        self.lines: list[Line] = []
        self.pictures: list[Picture] = []
        self.reordered = False
        self.model = self._new_model(Course())
        server.start(alert)

    def _new_model(self, course: Course) -> Model:
        return Model(self.sessions, self.alert, course, self.server.version, self.server.standby)

    def perform(self, line: Line) -> tuple[Picture, Picture] | None:
        """Both pictures if they differ, whatever the course of events."""
        known = self.model.course.choices
        self.lines.append(line)
        expected = self.model.perform(line)
        seen = self.server.perform(line, self.sessions, expected)
        self.pictures.append(seen)
        if seen == expected or self._find_course(known) or (known and self._find_course(())):
            return None
        return expected, seen

    def _find_course(self, known: tuple[int, ...]) -> bool:
        """Look for a course of events, beginning as `known`, in which the model goes through all that was seen so far.

        Those with the fewest unusual choices come first.
        """
        self.reordered = True
        courses = deque([Course(known)])
        for _ in range(COURSES_MAX):
            if not courses:
                return False
            model = self._new_model(courses.popleft())
            if all(model.perform(line) == seen for line, seen in zip(self.lines, self.pictures, strict=True)):
                self.model = model
                return True
            courses.extend(model.course.others())
        return False


def compare_written(
    server: Server, text: str, alert: Sequence[int] | None = None
) -> tuple[list[Picture], Difference | None]:
    """Perform a schedule that is written out, one line each; all sessions are alert unless `alert` says otherwise."""
    lines = [Line.parse(line) for line in text.strip().splitlines()]
    sessions = sorted({line.session for line in lines})
    comparison = Comparison(server, sessions, frozenset(sessions if alert is None else alert))
    try:
        for line in lines:
            if (difference := comparison.perform(line)) is not None:
                return comparison.pictures, Difference(None, comparison.alert, tuple(comparison.lines), *difference)
    finally:
        server.finish()
        server.refill()
    return comparison.pictures, None


def compare_random(server: Server, seed: int, tally: Tally) -> Difference | None:
    """Make up a schedule and perform it."""
    maker = Maker(random.Random(seed))
    comparison = Comparison(server, maker.sessions, maker.alert)
    try:
        while (line := maker.next_line(comparison.model)) is not None:
            difference = comparison.perform(line)
            tally.lines += 1
            tally.outcomes[comparison.pictures[-1][line.session].outcome] += 1
            if difference is not None:
                return Difference(seed, comparison.alert, tuple(comparison.lines), *difference)
    finally:
        server.finish()
        if any(line.verb in ("delete", "insert") for line in comparison.lines):
            server.refill()
    tally.schedules += 1
    tally.findings += Counter(type(finding).__name__.lower() for finding in comparison.model.manager.findings)
    tally.reordered += comparison.reordered
    return None


class Maker:
    """Makes up a schedule line by line, knowing from the model who can do something."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.sessions = tuple(range(chance.choice((2, 3, 3, 4, 4))))
        self.left = chance.randint(6, 24)
        self.tables = [f"t{number}" for number in range(chance.choice((1, 1, 2)))]
        self.rows = list(range(1, chance.choice((1, 1, 2)) + 1))
        self.keys = list(range(1, chance.choice((1, 2)) + 1))
        self.modes: tuple[str, ...] = TABLE_MODES
        # A schedule is about few things, so that its sessions meet.
        self.theme = chance.choices(("table", "row", "queues", "savepoints", "all"), (3, 3, 3, 3, 6))[0]
        if self.theme == "table":
            # Several requests for one table, most of them weak ones, so that there is something to go past.
            self.sessions = tuple(range(4))
            self.tables = ["t0"]
            self.modes = (*TABLE_MODES, *TABLE_MODES[:5], *TABLE_MODES[:5])
            self.weights = {"lock": 12, "savepoint": 0.3, "rollback to": 1, "commit": 1}
        elif self.theme == "row":
            # Several who share a row, and want it alone; the second row lets their ids have another order than their locks.
            self.sessions = tuple(range(4))
            self.tables, self.rows = ["t0"], [1, 1, 1, 2]
            self.weights = {
                "row": 12,
                "update": chance.choice((0, 1)),
                "savepoint": 1,
                "rollback to": 1,
                "release": 0.5,
                "commit": 1,
            }
        elif self.theme == "savepoints":
            # Much in parts of transactions that are rolled back or released while others wait for them.
            self.sessions = tuple(range(chance.choice((2, 3, 4))))
            self.tables, self.rows, self.keys, self.left = ["t0"], [1], [1], chance.randint(15, 35)
            self.weights = {
                "row": 4,
                "update": 2,
                "advisory": 1,
                "savepoint": 4,
                "rollback to": 3,
                "release": 3,
                "commit": 0.5,
            }
        elif self.theme == "queues":
            # Several keys and tables, which lead to circles that a deadlock check can undo.
            self.sessions = tuple(range(chance.choice((3, 4))))
            self.modes = (*chance.sample(TABLE_MODES[3:], 2), chance.choice(TABLE_MODES[:3]))
            self.keys = [1, 2, 3]
            self.weights = {
                "lock": chance.choice((0, 2, 4)),
                "advisory": 6,
                "savepoint": 0.3,
                "rollback to": 1,
                "commit": 0.3,
            }
        else:
            self.weights = {
                "lock": chance.choice((0, 1, 6)),
                "row": chance.choice((0, 4, 8)),
                "update": chance.choice((0, 0, 2, 4)),
                "delete": chance.choice((0, 0, 0, 1)),
                "insert": chance.choice((0, 0, 2)),
                "advisory": chance.choice((0, 1, 6)),
                "unlock": chance.choice((0, 1)),
                "savepoint": chance.choice((0, 0, 2)),
                "rollback to": 2,
                "release": 1,
                "commit": chance.choice((1, 2)),
                "rollback": chance.choice((0, 1)),
            }
            if not any(self.weights[verb] for verb in ("lock", "row", "update", "advisory")):
                self.weights["row"] = 4

        self.alert = frozenset(s for s in self.sessions if chance.random() < 0.75)

    def next_line(self, model: Model) -> Line | None:
        """The next line; None when all sessions are at rest."""
        idle = [session for session in self.sessions if not model.manager.waits(session)]
        waiting = [session for session in self.sessions if model.manager.waits(session)]
        self.left -= 1
        if self.left >= 0 and idle:
            if waiting and self.chance.random() < 0.01:
                return Line.parse(f"{self.chance.choice(waiting)}: cancel")
            session = self.chance.choice(idle)
            return Line.parse(f"{session}: {self._verb(session, model)}")
        # The end: whoever can ends; if nobody can, one gives up.
        open_ = [session for session in idle if session in model.in_transaction]
        if open_:
            return Line.parse(f"{self.chance.choice(open_)}: {self.chance.choice(('commit', 'commit', 'rollback'))}")
        if waiting:
            return Line.parse(f"{self.chance.choice(waiting)}: cancel")
        return None

    def _verb(self, session: int, model: Model) -> str:
        chance, names = self.chance, model.savepoints[session]
        if session not in model.in_transaction:
            if self.theme != "all" or chance.random() < 0.85:
                return "begin"
            verbs = ["row", "update", "delete", "insert", "advisory", "unlock"]
        elif session in model.failed:
            verbs = ["commit", "rollback", *(["rollback to"] * 2 if names else [])]
            return self._words(chance.choice(verbs), names)
        else:
            verbs = [verb for verb in self.weights if names or verb not in ("rollback to", "release")]
        weights = [self.weights.get(verb, 0) for verb in verbs]
        return self._words(chance.choices(verbs, weights)[0] if any(weights) else "row", names)

    def _words(self, verb: str, names: list[str]) -> str:
        chance = self.chance
        row = f"{chance.choice(self.tables)}.{chance.choice(self.rows)}"
        match verb:
            case "lock":
                wait = chance.choice(("", "", "", " NOWAIT"))
                return f"lock {chance.choice(self.tables)} {chance.choice(self.modes)}{wait}"
            case "row":
                return (
                    f"row {row} {chance.choice(ROW_MODES)}{chance.choice(('', '', '', '', ' NOWAIT', ' SKIP LOCKED'))}"
                )
            case "update":
                return f"update {row}{chance.choice(('', ' key'))}"
            case "delete":
                return f"delete {row}"
            case "insert":
                # Above the rows that others lock.
                return f"insert {chance.choice(self.tables)}.{chance.choice((8, 9))}{chance.choice(('', '', ' do nothing'))}"
            case "advisory":
                mode = chance.choice(("SHARED", "EXCLUSIVE"))
                if self.theme == "queues":
                    return f"advisory {chance.choice(self.keys)} {mode}"
                ways = f"{chance.choice(('', '', '', ' TRY'))}{chance.choice(('', '', ' session'))}"
                return f"advisory {chance.choice(self.keys)} {mode}{ways}"
            case "unlock":
                return f"unlock {chance.choice(self.keys)} {chance.choice(('SHARED', 'EXCLUSIVE'))}"
            case "savepoint":
                return f"savepoint {chance.choice('ab')}"
            case "rollback to" | "release":
                return f"{verb} {chance.choice(names)}"
        return verb


def compare_many(server: Server, first_seed: int, count: int, tally: Tally) -> Iterator[Difference]:
    """The differences in `count` random schedules, whose seeds begin at `first_seed`."""
    for seed in range(first_seed, first_seed + count):
        difference = compare_random(server, seed, tally)
        if difference is not None:
            yield difference


def main() -> int:
    """Compare as many schedules as one likes. Exit code 1 if there is a difference."""
    from lockmodel.replay.server import EmbeddedServer

    parser = argparse.ArgumentParser(description="Random schedules in the model and on a real Postgres.")
    parser.add_argument("--seed", type=int, default=1, help="the first schedule's seed")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--differences", type=int, default=3, help="stop after so many")
    options = parser.parse_args()
    tally, started, found = Tally(), time.monotonic(), 0
    with EmbeddedServer.start() as embedded, Server(embedded.dsn) as server:
        for difference in compare_many(server, options.seed, options.count, tally):
            print(difference, "", sep="\n", flush=True)
            found += 1
            if found == options.differences:
                break
    print(
        f"PostgreSQL {embedded.version}, seeds from {options.seed}: {tally}; {found} differences, {time.monotonic() - started:.0f} s"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
