"""For the tests of those who use lockmodel: assertions about specs, controlled schedules, and strategies for hypothesis.

    from lockmodel.testing import assert_no_deadlock

    def test_the_queue_is_safe():
        assert_no_deadlock("specs/queue.yaml", sets={"stripe": 8})

Nothing here needs pytest. `lockmodel.testing.strategies` needs hypothesis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockmodel.exploration import Limits
    from lockmodel.overrides import Overrides
    from lockmodel.replay.controlled import ControlledSchedule
    from lockmodel.spec import Spec
    from lockmodel.verdict import CheckResult

__all__ = ["assert_as_expected", "assert_no_deadlock", "controlled_schedule"]

Setting = int | str | Sequence[int | str]
Workers = int | str | Mapping[str, int | str]

_TEXT = "<spec>"
"""What a report calls a spec that has no file."""


def assert_no_deadlock(
    spec: Spec | str | PathLike[str],
    *,
    workers: Workers | None = None,
    sets: Mapping[str, Setting] | None = None,
    limits: Limits | None = None,
) -> CheckResult:
    """Check `spec`, and fail unless it is decided that no deadlock is possible and all its other properties hold.

    `spec` is a file, YAML text (which has more than one line) or a Spec; what it expects does not matter. `workers` is a number or "any", or
    one for each role; `sets` replaces sets (by a size or a list of elements) and initial values of variables. Both are as on the command line.
    Raises AssertionError whose text is the report for people, and LockmodelError for what is wrong with the spec or the arguments.
    """
    __tracebackhide__ = True
    result = _checked(_spec(spec).model_copy(update={"expect": "no deadlock"}), workers, sets, limits)
    if result.exit_code != 0:
        raise AssertionError(_report(result))
    return result


def assert_as_expected(
    spec: Spec | str | PathLike[str],
    *,
    workers: Workers | None = None,
    sets: Mapping[str, Setting] | None = None,
    limits: Limits | None = None,
) -> CheckResult:
    """As `assert_no_deadlock`, but for what the spec's own `expect` says: a deadlock that must be found is one that must not get lost."""
    __tracebackhide__ = True
    result = _checked(_spec(spec), workers, sets, limits)
    if result.exit_code != 0:
        raise AssertionError(_report(result))
    return result


@contextmanager
def controlled_schedule(dsn: str | None = None) -> Iterator[ControlledSchedule]:
    """A schedule on the server behind `dsn` (None: an embedded one of its own). Raises ReplayError if there is none to be had.

    In pytest, the fixture `lockmodel_schedule` does the same on one server for the whole run.
    """
    from lockmodel.replay.controlled import ControlledSchedule
    from lockmodel.replay.replayer import server

    with server(dsn) as address, ControlledSchedule(address) as schedule:
        yield schedule


def _spec(spec: Spec | str | PathLike[str]) -> Spec:
    from lockmodel.parser import load, parse
    from lockmodel.spec import Spec

    if isinstance(spec, Spec):
        return spec
    if isinstance(spec, str) and "\n" in spec:
        return parse(spec, _TEXT)
    return load(fspath(spec))


def _checked(
    spec: Spec, workers: Workers | None, sets: Mapping[str, Setting] | None, limits: Limits | None
) -> CheckResult:
    from lockmodel.checker import check

    return check(spec, _overrides(workers, sets), limits)


def _overrides(workers: Workers | None, sets: Mapping[str, Setting] | None) -> Overrides:
    """As the words of a command line, so that both mean the same and complain alike."""
    from lockmodel.overrides import parse_overrides

    counts: list[str] = []
    if isinstance(workers, Mapping):
        counts = [f"{role}={count}" for role, count in workers.items()]
    elif workers is not None:
        counts = [str(workers)]
    return parse_overrides([f"{name}={_word(value)}" for name, value in (sets or {}).items()], counts)


def _word(value: Setting) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | str):
        return str(value)
    return f"[{','.join(_word(element) for element in value)}]"


def _report(result: CheckResult) -> str:
    from lockmodel.report.page import Page
    from lockmodel.report.terminal import full

    lines = full(result, Page()).rstrip("\n").splitlines()
    if result.spec.source.file == _TEXT and result.trace is not None:
        lines.pop()  # The command that replays it would need a file.
    return "\n".join(lines)
