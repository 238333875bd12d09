"""`lockmodel schema`: the JSON Schema of a spec or a scenario, for editors that complete and check as one types."""

from __future__ import annotations

from typing import Annotated

import typer

from lockmodel.cli.files import check_output, deliver
from lockmodel.cli.startup import importing

OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the schema to FILE instead.")
]

ScenarioOption = Annotated[bool, typer.Option("--scenario", help="That of a scenario file, not of a spec.")]


def register(app: typer.Typer) -> None:
    app.command("schema")(schema)


def schema(scenario: ScenarioOption = False, output: OutputOption = None) -> int:
    """Print the JSON Schema of a spec file, for editors."""
    with importing():
        import json

        from lockmodel.json_schema import json_schema
        from lockmodel.scenario import Scenario
        from lockmodel.spec import Spec
    check_output(output)
    deliver(json.dumps(json_schema(Scenario if scenario else Spec), indent=2) + "\n", output)
    return 0
