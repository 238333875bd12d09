"""Systems, traces and graphs in the languages of other tools, so that nobody has to take our word.

One language a module. `export` writes a system for another checker: it takes a compiled system and a fixed crew of workers, and is exact,
the other checker finds the states, transitions and verdicts that our engines find. `isolation` writes a trace for Postgres's own
isolationtester, `graph_files` the graphs. The Informal Trace Format is read as well as written, in `lockmodel.report.itf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lockmodel.errors import UsageError
from lockmodel.semantics import Crew
from lockmodel.system import System

PROMELA = "promela"
TLA = "tla"
FORMATS = (PROMELA, TLA)
"""What `export` writes."""


@dataclass(frozen=True)
class Exported:
    """The text of the file that was asked for, and of those that belong beside it, by their suffixes (`.cfg`)."""

    text: str
    beside: Mapping[str, str] = field(default_factory=dict)


def export(form: str, system: System, workers: Crew, source: str, name: str | None = None) -> Exported:
    """`system` in the language `form`, one of FORMATS; `source` says in a comment where it comes from.

    `name` is what its file is called, without the suffix; None: after the system. Raises UsageError for what that language can't say.
    """
    if system.no_stall:
        raise UsageError(f"--to {form} knows no queues, so it can't ask for `no stall`; leave that out of the spec")
    if form == PROMELA:
        from lockmodel.export.promela import promela

        return Exported(promela(system, workers, source))
    from lockmodel.export.tla import tla

    module = tla(system, workers, source, name)
    return Exported(module.text, {".cfg": module.configuration})
