"""`lockmodel explore`: steps a system by hand in the terminal. Its commands come from standard input, a line each."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lockmodel.cli.common import ExitCode, SetOption, SpecArguments, WorkersOption, whole_number, write
from lockmodel.cli.files import check_output, deliver, one_spec, read_spec
from lockmodel.cli.startup import importing
from lockmodel.errors import LockmodelError, UsageError, one_line, quote, suggestion
from lockmodel.report.page import Page

if TYPE_CHECKING:
    from lockmodel.ahead import Ahead
    from lockmodel.overrides import Overrides
    from lockmodel.stepping import NamedAction, Schedule

_PROMPT = "> "
_COMMANDS = "<commands>"
"""What errors call standard input."""


def register(app: typer.Typer) -> None:
    app.command("explore")(explore)


def explore(specs: SpecArguments = None, settings: SetOption = None, workers: WorkersOption = None) -> int:
    """Step a spec by hand: choose what happens next, see who holds and waits, find the deadlocks ahead.

    Also takes the JSON report of a check, and begins at the end of its trace. ? lists the commands.
    """
    with importing():
        import lockmodel.graphs
        import lockmodel.report.stepping
        import lockmodel.report.trace_file  # noqa: F401
        from lockmodel.overrides import parse_overrides
    file = one_spec(specs or ())
    if file.file == "-":
        raise UsageError("explore reads its commands from standard input, so the spec must be a file")
    overrides = parse_overrides(settings or (), workers or ())
    session = _Session(_opened(file.file, overrides) if file.file.endswith(".json") else _begun(file.file, overrides))
    return _Dialogue(session).run()


def _begun(file: str, overrides: Overrides) -> Schedule:
    """The spec in `file`, before the first step."""
    from lockmodel.cli.files import Found
    from lockmodel.stepping import Schedule, model_of

    model = model_of(read_spec(Found(file)), overrides)
    return Schedule(model, (), (model.initial,))


def _opened(file: str, overrides: Overrides | None = None, spec: str | None = None) -> Schedule:
    """The trace in the report `file`, at its end; `spec` says which, if there are several."""
    from lockmodel.report.trace_file import read_trace
    from lockmodel.stepping import Model, schedule_of

    if overrides is not None and (overrides.sets or overrides.workers != ""):
        raise UsageError(f"{file}: a report has its sets and workers in it; --set and --workers are for specs")
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    loaded = read_trace(text, file, spec=spec)
    if loaded.lifted is not None:
        raise UsageError(f"{file}: its spec is too large to be stepped; make a set smaller, and write the report again")
    return schedule_of(Model(loaded.spec, loaded.overrides, loaded.system, loaded.trace.crew), loaded.trace)


class _Leave(Exception):
    """The user has seen enough."""


class _Dialogue:
    """Reads commands and writes what `session` answers.

    At a terminal a wrong command is told and forgotten. In a script nothing after it would mean what its author meant, so there it is
    the end: exit code 2.
    """

    def __init__(self, session: _Session) -> None:
        self.session = session
        self.terminal = sys.stdin is not None and sys.stdin.isatty()
        self.editing = self.terminal and sys.stdout is not None and sys.stdout.isatty()
        self.number = 0

    def run(self) -> int:
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="backslashreplace")
        if self.editing:
            _edit_lines()
        write(sys.stdout, self.session.welcome())
        try:
            while (line := self._line()) is not None:
                self.number += 1
                self._do(line)
        except _Leave:
            pass
        except KeyboardInterrupt:
            write(sys.stdout, "\n")  # What comes next must not stand behind the prompt.
            raise
        return ExitCode.EXPECTED

    def _do(self, line: str) -> None:
        try:
            write(sys.stdout, self.session.do(line))
        except LockmodelError as error:
            if not self.terminal:
                raise UsageError(f"{_COMMANDS}:{self.number}: {error}") from None
            write(sys.stdout, f"  {self.session.page.fit(str(error))}\n")

    def _line(self) -> str | None:
        """The next command; None at the end of the input."""
        if self.editing:
            try:
                return input(_PROMPT)
            except EOFError:
                write(sys.stdout, "\n")
                return None
        write(sys.stdout, _PROMPT if self.terminal else "")
        line = sys.stdin.readline() if sys.stdin is not None else ""
        if not line:
            write(sys.stdout, "\n" if self.terminal else "")
            return None
        if not self.terminal:
            # So that a recorded session reads like one at a terminal.
            write(sys.stdout, f"{_PROMPT}{self.session.page.fit(one_line(line))}\n")
        return line


def _edit_lines() -> None:
    """Let `input` know the arrow keys, where Python was built with that."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401


@dataclass(frozen=True)
class _Command:
    """What can be typed: a word, what may follow it, what it does."""

    word: str
    argument: str
    help: str
    run: Callable[[str], str]

    @property
    def needs_argument(self) -> bool:
        return self.argument != "" and not self.argument.startswith("[")


class _Session:
    """Where one is, and what each command makes of it. `do` returns what to show, or raises a LockmodelError."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.page = Page.of(sys.stdout)
        self.ahead: Ahead | None = None
        """What the last search found, as long as one is where it began."""
        self.commands = (
            _Command("actions", "[WORDS]", "what can happen here; those with WORDS in them", self._actions),
            _Command("state", "", "where we are (an empty line, too)", lambda _: self.show()),
            _Command("undo", "[N]", "take back a step, or N", self._undo),
            _Command("redo", "[N]", "take again what was undone", self._redo),
            _Command("jump", "STEP", "go to a step of the schedule; 0 is the beginning", self._jump),
            _Command("waits", "", "the waits-for graph: who waits for whom", self._waits),
            _Command("order", "[resources]", "the lock-order graph: what is wanted while what is held", self._order),
            _Command("deadlocks", "[STATES]", "search for the deadlocks that can be reached from here", self._deadlocks),
            _Command("follow", "N", "go to deadlock N of that search", self._follow),
            _Command("schedule", "", "the steps so far", self._schedule),
            _Command("save", "FILE.json", "write the steps so far as a trace for lockmodel replay", self._save),
            _Command("load", "FILE.json [SPEC]", "read a trace, and go to its end", self._load),
            _Command("help", "", "this list (also ?)", self._help),
            _Command("quit", "", "leave (also Ctrl-D)", self._quit),
        )  # fmt: skip

    def welcome(self) -> str:
        from lockmodel.report.grammar import plural
        from lockmodel.report.stepping import say

        model = self.schedule.model
        workers = plural(len(model.crew), "worker")
        return say(f"{model.spec.source.file}, {workers}. ? lists the commands.", self.page) + "\n" + self.show()

    def show(self) -> str:
        """The state, and what can happen in it."""
        from lockmodel.report.stepping import SHOWN_ACTIONS, actions_page, state_page

        state = state_page(self.schedule, self.page)
        try:
            actions = self._numbered()
        except LockmodelError as error:
            # The step here has no meaning for these values. One can still go back.
            return state + self.page.fit(f"  {error}\n")
        return state + "\n" + actions_page(self.schedule.model, actions, self.page, SHOWN_ACTIONS)

    def do(self, line: str) -> str:
        """Carry out one line."""
        word, _, argument = line.strip().partition(" ")
        argument = argument.strip()
        if word == "":
            return self.show()
        if word.isascii() and word.isdigit() and not argument:
            return self._take(word)
        command = self._command(word)
        if command.needs_argument and not argument:
            raise UsageError(f"{command.word} needs {command.argument}: {command.help}")
        if command.argument == "" and argument:
            raise UsageError(f"{command.word} takes nothing after it, not {quote(argument)}")
        return command.run(argument)

    def _command(self, word: str) -> _Command:
        """The command that `word` is, or the first that begins with it."""
        wanted = "help" if word == "?" else word.lower()
        for command in self.commands:
            if command.word.startswith(wanted):
                return command
        raise UsageError(f"no command {quote(word)}; {suggestion(word, [one.word for one in self.commands], show=20)}")

    def _numbered(self) -> list[tuple[int, NamedAction]]:
        return list(enumerate(self.schedule.model.actions(self.schedule.state), start=1))

    def _move(self, schedule: Schedule) -> str:
        self.schedule, self.ahead = schedule, None
        return self.show()

    def _take(self, number: str) -> str:
        actions = dict(self._numbered())
        chosen = actions.get(int(number[:9]))
        if chosen is None:
            there = f"there are 1 to {len(actions):,}" if actions else "nothing can happen here"
            raise UsageError(f"no action {quote(number)}; {there}")
        return self._move(self.schedule.take(chosen))

    def _actions(self, filter_words: str) -> str:
        from lockmodel.report.stepping import actions_page, said

        model = self.schedule.model
        wanted = filter_words.lower()
        actions = [(number, action) for number, action in self._numbered() if wanted in said(model, action).lower()]
        if wanted and not actions:
            raise UsageError(f"no action has {quote(filter_words)} in it; actions lists all")
        return actions_page(model, actions, self.page)

    def _undo(self, count: str) -> str:
        steps = _number("undo", count)
        if steps > self.schedule.at:
            raise UsageError("there is nothing to undo" if not self.schedule.at else f"only {self.schedule.at} to undo")
        return self._move(self.schedule.jump(self.schedule.at - steps))

    def _redo(self, count: str) -> str:
        steps = _number("redo", count)
        undone = len(self.schedule.actions) - self.schedule.at
        if steps > undone:
            raise UsageError("there is nothing to redo" if not undone else f"only {undone} to redo")
        return self._move(self.schedule.jump(self.schedule.at + steps))

    def _jump(self, step: str) -> str:
        return self._move(self.schedule.jump(0 if step == "0" else whole_number("jump", step, 0)))

    def _waits(self, _: str) -> str:
        from lockmodel.report.stepping import waits_page

        return waits_page(self.schedule.model, self.schedule.state, self.page)

    def _order(self, by: str) -> str:
        from lockmodel.graphs import lock_order_graph
        from lockmodel.report.stepping import order_page

        if by and not "resources".startswith(by.lower()):
            raise UsageError(f"order {quote(by)}: nothing for families, or resources")
        resources = lock_order_graph(self.schedule.model)
        shown = resources if by else lock_order_graph(self.schedule.model, "family")
        return order_page(shown, resources, self.page)

    def _deadlocks(self, limit: str) -> str:
        from lockmodel.ahead import DEFAULT_MAX_STATES, deadlocks_ahead
        from lockmodel.exploration import DEFAULT_MAX_STATES as MOST
        from lockmodel.report.stepping import ahead_page

        states = whole_number("deadlocks", limit or None, DEFAULT_MAX_STATES)
        if states > MOST:
            raise UsageError(f"deadlocks {quote(limit)}: it looks at {MOST:,} states at the most")
        self.ahead = deadlocks_ahead(self.schedule.model, self.schedule.state, max_states=states)
        return ahead_page(self.ahead, self.page)

    def _follow(self, number: str) -> str:
        if self.ahead is None:
            raise UsageError("search first: deadlocks lists what can be followed")
        found = self.ahead.deadlocks
        index = whole_number("follow", number, 1)
        if index > len(found):
            raise UsageError(f"no deadlock {quote(number)}; the search found {len(found)}")
        schedule = self.schedule
        for action in found[index - 1].actions:
            schedule = schedule.take(action)
        return self._move(schedule)

    def _schedule(self, _: str) -> str:
        from lockmodel.report.stepping import schedule_page

        return schedule_page(self.schedule, self.page)

    def _save(self, file: str) -> str:
        from lockmodel.report.grammar import plural
        from lockmodel.report.stepping import say
        from lockmodel.report.trace_file import write_trace

        if not file.endswith(".json"):
            raise UsageError(f"{file}: replay knows a trace by its name, which must end with .json")
        if Path(file).exists():
            raise UsageError(f"{file}: there is such a file already; choose another name")
        check_output(file)
        deliver(write_trace(self.schedule.model, self.schedule.trace), file)
        return say(f"{plural(self.schedule.at, 'step')} in {file}", self.page)

    def _load(self, words: str) -> str:
        file, json, spec = words.rpartition(".json ")
        name = f"{file}.json" if json else words
        return self._move(_opened(name, spec=spec.strip() if json else None))

    def _help(self, _: str) -> str:
        from lockmodel.report.stepping import lines_page

        lines = [("NUMBER", "do the action of this number")]
        lines += [(f"{one.word} {one.argument}".rstrip(), one.help) for one in self.commands]
        return lines_page(lines, self.page) + "  The first letters of a command do.\n"

    def _quit(self, _: str) -> str:
        raise _Leave


def _number(command: str, count: str) -> int:
    return whole_number(command, count or None, 1)
