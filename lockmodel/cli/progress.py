"""How far a long search is: one line on standard error that comes after a second and goes when the search ends."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lockmodel.errors import one_line
from lockmodel.report.page import Page

if TYPE_CHECKING:
    from rich.live import Live

    from lockmodel.exploration import Progress

PATIENCE_SECONDS = 1.0
_EVERY_SECONDS = 0.1


class Ticker:
    """A context manager to be called with each Progress. Silent unless standard error is a terminal."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._live: Live | None = None
        self._started = self._shown = time.monotonic()
        self._silent = sys.stderr is None or not sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._silent or now - self._started < PATIENCE_SECONDS or now - self._shown < _EVERY_SECONDS:
            return
        self._shown = now
        if self._live is None:
            self._live = self._start()
        rate = progress.states / progress.seconds if progress.seconds else 0.0
        from rich.text import Text

        from lockmodel.budget import in_units, resident_bytes

        # The file comes last: a narrow terminal cuts it first.
        line = (
            f"{progress.states:,} states, {rate:,.0f} a second; {progress.frontier:,} to expand; "
            f"depth {progress.depth}; {in_units(resident_bytes())}; {now - self._started:.0f} s; {self._file}"
        )
        shown = Text(one_line(Page.of(sys.stderr).fit(line)), "dim")
        shown.truncate(self._live.console.width - 1)
        self._live.update(shown, refresh=True)

    def _start(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        page = Page.of(sys.stderr)
        console = Console(file=sys.stderr, width=page.width, no_color=not page.colour, highlight=False, emoji=False)
        # Refreshed by the search itself: a second thread would have to be stopped when Ctrl-C comes.
        live = Live(console=console, auto_refresh=False, transient=True)
        live.start()
        return live
