"""The structure that docs/design.md draws, checked against the imports that the code really has."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import networkx
import pytest

PACKAGE = Path(__file__).parent.parent / "lockmodel"

LAYERS = [
    ("vocabulary", {"errors", "modes"}),
    ("language", {"expressions", "templates", "document", "fields", "statements", "steps", "expectations", "spec", "json_schema", "scenario", "faults", "parser", "overrides"}),
    ("system", {"system", "program", "declarations", "lookup", "relations", "table_modes", "writes", "effects", "triggers", "row_effects", "partitions", "table_statements", "expansion", "sql_text", "lock_steps", "claims", "resolver", "timeouts", "config", "silent", "machine", "compiler", "semantics", "lock_manager", "trace", "properties"}),
    ("engines", {"exploration", "budget", "digraph", "reference", "places", "row_table", "row_watch", "rows", "retrace", "packed", "engines", "prover"}),
    ("results", {"simulation", "explanation", "deadlocks", "verdict", "lift", "checker", "stepping", "ahead", "graphs"}),
    ("outward", {"report", "export", "replay", "queue"}),
    ("doors", {"cli", "testing", "pytest_plugin", "__main__", ""}),
]  # fmt: skip

ONLY_IN = {
    "ruamel": {"parser"},
    "networkx": {"graphs", "export"},
    "graphviz": {"export"},
    "numpy": {"packed"},
    "numba": {"packed"},
    "psycopg": {"replay", "queue"},
    "psycopg_pool": {"replay"},
    "rich": {"report", "cli"},
    "typer": {"cli"},
    "pytest": {"pytest_plugin"},
    "hypothesis": {"testing"},
}


@cache
def modules() -> dict[str, Path]:
    """Every module's dotted name below `lockmodel`, and its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def imports(path: Path) -> set[str]:
    """The modules that the file at `path` imports, `if TYPE_CHECKING` and function bodies included."""
    names = set()
    known = modules()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: imports are absolute"
            # `from lockmodel.queue import claim` imports the module claim, not what the package offers.
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = {name for name in below if name.removeprefix("lockmodel.") in known}
            names |= inner if inner == below else {node.module, *inner}
    return names


def layer_of(module: str) -> int:
    top = module.split(".")[0]
    return next(index for index, (_, names) in enumerate(LAYERS) if top in names)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_its_own_layer_and_those_above(module: str) -> None:
    """What is told later may use what was told earlier, never the other way round."""
    if module == "":
        return
    for name in imports(modules()[module]):
        if name.startswith("lockmodel."):
            target = name.removeprefix("lockmodel.")
            if target in modules():
                assert layer_of(target) <= layer_of(module), f"{module} imports {target}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """A reader can always begin with the module that needs no other."""
    graph: networkx.DiGraph = networkx.DiGraph()
    for module, path in modules().items():
        for name in imports(path):
            target = name.removeprefix("lockmodel.")
            if name.startswith("lockmodel.") and target in modules() and target != module and module:
                graph.add_edge(module, target)
    assert networkx.is_directed_acyclic_graph(graph), networkx.find_cycle(graph)


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_used_in_one_place_only(library: str) -> None:
    """YAML stays in the parser, Postgres in the replay, the terminal in reports and doors."""
    for module, path in modules().items():
        if any(name.split(".")[0] == library for name in imports(path)):
            allowed = ONLY_IN[library]
            assert module in allowed or module.split(".")[0] in allowed, f"{module} imports {library}"


def test_only_doors_print() -> None:
    """A module below the command line returns what it has to say."""
    for module, path in modules().items():
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        printing = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        assert not printing or module.startswith("cli"), module


def test_importing_lockmodel_is_light() -> None:
    """`import lockmodel` loads none of the libraries that only some commands need."""
    code = "import lockmodel, sys; print([m for m in ('rich', 'psycopg', 'numba', 'networkx', 'typer') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_every_layer_is_a_real_module() -> None:
    """The table above has no name that the code has not."""
    tops = {module.split(".")[0] for module in modules()}
    assert tops == set().union(*(names for _, names in LAYERS))
