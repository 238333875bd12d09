"""lockmodel: can these Postgres transactions deadlock?

    import lockmodel
    result = lockmodel.check(lockmodel.load("specs/striped.yaml"))
    assert result.verdict.outcome is lockmodel.Outcome.HOLDS, result.unmet

Every name is imported when it is first used, so that `import lockmodel` alone loads no library.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # Known to type checkers by its name; `typing` itself would take longer to import than the rest.
if TYPE_CHECKING:
    from lockmodel.ahead import deadlocks_ahead as deadlocks_ahead
    from lockmodel.checker import check as check
    from lockmodel.compiler import compile_spec as compile_spec
    from lockmodel.errors import LockmodelError as LockmodelError
    from lockmodel.errors import SpecError as SpecError
    from lockmodel.exploration import Limits as Limits
    from lockmodel.graphs import lock_order_graph as lock_order_graph
    from lockmodel.graphs import may_wait_graph as may_wait_graph
    from lockmodel.graphs import state_graph as state_graph
    from lockmodel.graphs import waits_for_graph as waits_for_graph
    from lockmodel.overrides import Overrides as Overrides
    from lockmodel.parser import load as load
    from lockmodel.parser import parse as parse
    from lockmodel.reference import explore as explore
    from lockmodel.report.trace_file import read_trace as read_trace
    from lockmodel.report.trace_file import write_trace as write_trace
    from lockmodel.semantics import crew as crew
    from lockmodel.spec import Spec as Spec
    from lockmodel.stepping import Model as Model
    from lockmodel.stepping import model as model
    from lockmodel.system import System as System
    from lockmodel.trace import Trace as Trace
    from lockmodel.verdict import CheckResult as CheckResult
    from lockmodel.verdict import Outcome as Outcome
    from lockmodel.verdict import Verdict as Verdict

    __version__: str

_HOMES = {
    "CheckResult": "verdict", "Limits": "exploration", "LockmodelError": "errors", "Model": "stepping", "Outcome": "verdict",
    "Overrides": "overrides", "Spec": "spec", "SpecError": "errors", "System": "system", "Trace": "trace",
    "Verdict": "verdict", "check": "checker", "compile_spec": "compiler", "crew": "semantics", "deadlocks_ahead": "ahead",
    "explore": "reference", "load": "parser", "lock_order_graph": "graphs", "may_wait_graph": "graphs", "model": "stepping",
    "parse": "parser", "read_trace": "report.trace_file", "state_graph": "graphs", "waits_for_graph": "graphs",
    "write_trace": "report.trace_file",
}  # fmt: skip
"""The module that each public name lives in."""

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value: object = version("lockmodel")
        except PackageNotFoundError:  # A checkout that is not installed.
            value = "0+unknown"
    elif name in _HOMES:
        value = getattr(import_module(f"lockmodel.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'lockmodel' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
