"""`{name}` in the `sql` and `label` of a step: found at once when a spec is read, filled in when a trace is rendered."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lockmodel.expressions import Value


def template_names(template: str) -> list[str]:
    """The names in the braces of an `sql` or `label`. Raises ValueError where braces don't pair."""
    names = []
    for match in re.finditer(r"\{\{|\}\}|\{([^{}]*)\}|[{}]", template):
        if match.group(0) in ("{", "}"):
            raise ValueError("a single brace")
        if match.group(1) is not None:
            names.append(match.group(1).strip())
    return names


def fill_template(template: str, values: Mapping[str, Value]) -> str:
    """`template` with each `{name}` replaced by its value; SQL sees words as they are, so the text quotes them itself."""

    def fill(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group(0)[0]
        value = values[match.group(1).strip()]
        return str(value).lower() if isinstance(value, bool) else str(value)

    return re.sub(r"\{\{|\}\}|\{([^{}]*)\}", fill, template)
