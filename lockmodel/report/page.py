"""What a report is written on: how wide it is, whether it has colours, and which characters it knows.

A report is laid out by rich and comes back as one text, so that it can go to a terminal, a pipe or a file, and be compared in a
test. Nothing here looks at the environment but `Page.of`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, TextIO

from lockmodel.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

WIDTH = 80
"""Of a page that is no terminal."""
_WIDTH_MIN = 40

_KEPT_SPACE = "\ue000"
"""A space where a line must not end, as in `lane[0, 1]`. (rich ends lines at the usual no-break space.)"""

PLAIN = str.maketrans({
    "─": "-", "╶": "-", "╴": "-", "│": "|", "┼": "+", "→": ">", "…": "...", "–": "-", "“": '"', "”": '"', "’": "'",
})  # fmt: skip
"""For `str.translate`: the characters of reports that ASCII lacks."""


@dataclass(frozen=True)
class Page:
    """`width` in columns; `encoding` says which characters can be written."""

    width: int = WIDTH
    colour: bool = False
    encoding: str = "utf-8"

    @classmethod
    def of(cls, stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> Page:
        """The page that `stream` is: a terminal as it says of itself, else 80 columns without colour.

        https://no-color.org and https://force-color.org say what the two variables mean.
        """
        encoding = getattr(stream, "encoding", None) or "utf-8"
        terminal = stream is not None and stream.isatty()
        colour = terminal and environment.get("TERM") not in ("dumb", "unknown")
        colour = (colour or bool(environment.get("FORCE_COLOR"))) and not environment.get("NO_COLOR")
        return cls(_columns(stream) if stream is not None and terminal else WIDTH, colour, encoding)

    def render(self, *parts: RenderableType) -> str:
        """`parts` one below the other, each ended by a new line."""
        from rich.text import Text

        console = self._console()
        for part in parts:
            # rich joins the texts it prints, and forgets how each wants to be wrapped.
            wrapping = (part.no_wrap, part.overflow) if isinstance(part, Text) else (None, None)
            console.print(part, crop=False, no_wrap=wrapping[0], overflow=wrapping[1])
        assert isinstance(console.file, StringIO)
        lines = console.file.getvalue().replace(_KEPT_SPACE, " ").splitlines()
        return self.fit("".join(f"{line.rstrip()}\n" for line in lines))

    def has_room_for(self, part: RenderableType) -> bool:
        """Whether no cell or line of `part` must be broken."""
        return self._console(100_000).measure(part).maximum <= self.width

    def _console(self, width: int | None = None) -> Console:
        from rich.console import Console

        return Console(
            file=StringIO(),
            width=width or self.width,
            color_system="standard" if self.colour else None,
            force_terminal=self.colour,
            no_color=not self.colour,
            force_jupyter=False,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def heading(self, file: str, verdict: Text, claim: str = "") -> list[RenderableType]:
        """`file  VERDICT  claim` in one line, or the claim below. However long the file's name, its verdict stands beside it in the line."""
        from rich.padding import Padding
        from rich.text import Text

        lead = Text.assemble(text(file, "bold"), "  ", verdict, no_wrap=True, overflow="ignore")
        rest = text(claim)
        if not claim:
            return [lead]
        if lead.cell_len + 2 + rest.cell_len <= self.width:
            return [Text.assemble(lead, "  ", rest)]
        return [lead, Padding(rest, (0, 0, 0, 2))]

    def fit(self, text: str) -> str:
        """`text` in characters that the page knows."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.translate(PLAIN).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return text


def _columns(stream: TextIO) -> int:
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return WIDTH
    # A terminal without a size (an expect script, a serial line) says 0.
    return max(columns, _WIDTH_MIN) if columns else WIDTH


def text(words: str, style: str = "") -> Text:
    """`words` for `Page.render`. They may come from a spec, so what a terminal would act on is taken out."""
    from rich.text import Text

    safe = one_line(words, limit=2_000)
    # Between the arguments of a resource, and before the number in `worker 2`.
    return Text(re.sub(r"(?<=,) (?=[^\[\]]*\])|(?<=\w) (?=\d)", _KEPT_SPACE, safe), style)


def plain(words: Text) -> str:
    """What `text` was made of, for formats other than the terminal's."""
    return words.plain.replace(_KEPT_SPACE, " ")
