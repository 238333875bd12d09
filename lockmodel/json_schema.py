"""The JSON Schema of a file, which editors use to complete and to check as one types.

It is made from the document models, so that there is one description of the language's shape.
"""

from __future__ import annotations

from typing import Any

from lockmodel.document import Node
from lockmodel.spec import Spec


def json_schema(document: type[Node] = Spec) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a file: a spec, or what `document` describes."""
    schema = _tidy(document.model_json_schema(by_alias=True))
    title = f"lockmodel {document.__name__.lower()}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def _tidy(schema: Any) -> Any:
    """`schema` without what only Python needs: a key that is left out is None here, but null is no value in a spec."""
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "properties" in schema:
        properties = {name: _tidy(part) for name, part in schema["properties"].items()}
        return {**_tidy({key: part for key, part in schema.items() if key != "properties"}), "properties": properties}
    branches = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    if len(branches) == 1:
        schema = {**branches[0], **{key: part for key, part in schema.items() if key != "anyOf"}}
    return {
        key: _tidy(part)
        for key, part in schema.items()
        if not (key == "title" and isinstance(part, str)) and not (key == "default" and part in (None, {}, []))
    }
