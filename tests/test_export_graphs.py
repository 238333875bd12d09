"""`lockmodel export --to dot | mermaid | graphml`: what the parsers of those who read them make of our graphs.

DOT is read by pydot everywhere, and by Graphviz where it is installed (Debian: `apt-get install graphviz`); Mermaid by mermaid.js itself,
which mermaidx runs without a browser; GraphML by networkx.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mermaidx
import networkx
import pydot
import pytest
from generated import spec_of, to_yaml
from test_differential import numbered
from test_export import lockmodel
from transcripts import blocks

from lockmodel.errors import UsageError
from lockmodel.export.dot import dot
from lockmodel.export.graph_files import lock_order_file, state_file, waits_for_file
from lockmodel.export.mermaid import MAX_EDGES, mermaid
from lockmodel.export.pictures import Edge, Node, Picture, lock_order_picture, state_picture, waits_for_picture
from lockmodel.graphs import lock_order_graph, state_graph, waits_for_graph
from lockmodel.overrides import Overrides
from lockmodel.parser import load, parse
from lockmodel.stepping import Model, model_of

ROOT = Path(__file__).parent.parent
GRAPHVIZ = shutil.which("dot")
needs_graphviz = pytest.mark.skipif(
    GRAPHVIZ is None, reason="Graphviz is not installed (Debian: apt-get install graphviz)"
)

ODD = [
    '"',
    "\\",
    "\\n",
    "<b>x</b>",
    "#35;",
    "&amp;",
    "a;b",
    "`x`",
    "1. one",
    "- one",
    "end",
    "graph",
    "[x](y)",
    "é→ß",
    "%%{init}%%",
    "|",
    "x\\",
    "{a}",
    "<",
    "_x_",
    "*x*",
]
"""What means something to one language or the other."""
PICTURE = Picture(
    ("A \"title\" with <odd> things: \\n #1;", "and a second line"),
    tuple(Node((text, f"line {index}"), "group " + ODD[index % 3] if index < 9 else None, marked=index == 2, start=index == 4) for index, text in enumerate(ODD)),
    tuple(Edge(index % len(ODD), (index * 7 + 1) % len(ODD), text, marked=index == 3, weak=index % 4 == 1) for index, text in enumerate(["", *ODD])),
)  # fmt: skip


def model(file: str) -> Model:
    return model_of(load(str(ROOT / file)), Overrides())


def pictures() -> dict[str, Picture]:
    claim = model("specs/striped-old-claim.yaml")
    state = claim.initial
    # mermaid.js takes half a minute for the states of two workers.
    demo = model_of(load(str(ROOT / "specs/deadlock-demo.yaml")), Overrides({}, 1))
    return {
        "odd": PICTURE,
        "empty": Picture(("nothing",), (), ()),
        "lock order by family": lock_order_picture(claim, "family"),
        "lock order by resource": lock_order_picture(claim, "resource"),
        "waits for": waits_for_picture(waits_for_graph(claim, state), "the beginning"),
        "states": state_picture(demo, state_graph(demo)),
    }


# Graphviz


def expected(picture: Picture) -> tuple[list[str], list[tuple[int, int, str]]]:
    return (
        sorted("\n".join(node.lines) for node in picture.nodes),
        sorted((edge.tail, edge.head, edge.label) for edge in picture.edges),
    )


@needs_graphviz
@pytest.mark.parametrize("name", pictures())
def test_graphviz_reads_each_label_as_it_was(name: str) -> None:
    """`dot -Tjson` gives the graph back as it understood it; the text that it draws is compared, not what we wrote."""
    assert GRAPHVIZ
    picture = pictures()[name]
    command = [GRAPHVIZ, "-Tjson"]
    answer = subprocess.run(command, input=dot(picture, "a test"), capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0 and not [line for line in answer.stderr.splitlines() if "font" not in line.lower()]
    graph = json.loads(answer.stdout)
    objects = graph.get("objects", [])
    drawn = {one["name"]: "\n".join(part["text"] for part in one["_ldraw_"] if part["op"] == "T") for one in objects}
    nodes = [text for one, text in drawn.items() if not one.startswith("cluster")]
    edges = []
    for edge in graph.get("edges", []):
        ends = (int(objects[edge[end]]["name"].removeprefix("n")) for end in ("tail", "head"))
        edges.append((*ends, "".join(part["text"] for part in edge.get("_ldraw_", []) if part["op"] == "T")))
    assert (sorted(nodes), sorted(edges)) == expected(picture)
    assert "\n".join(part["text"] for part in graph["_ldraw_"] if part["op"] == "T") == "\n".join(picture.title)
    groups = {drawn[one["name"]]: len(one["nodes"]) for one in objects if one["name"].startswith("cluster")}
    assert groups == {group: sum(node.group == group for node in picture.nodes) for group in picture.groups}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot's own, about pyparsing.
@pytest.mark.parametrize("name", pictures())
def test_pydot_reads_the_same_graph(name: str) -> None:
    picture = pictures()[name]
    (graph,) = pydot.graph_from_dot_data(dot(picture, "a test")) or []
    boxes = graph.get_subgraphs()
    nodes = [
        node for holder in (graph, *boxes) for node in holder.get_nodes() if re.fullmatch(r"n\d+", node.get_name())
    ]
    assert {node.get_name() for node in nodes} == {f"n{index}" for index in range(len(picture.nodes))}
    edges = sorted((int(edge.get_source()[1:]), int(edge.get_destination()[1:])) for edge in graph.get_edges())
    assert edges == sorted((edge.tail, edge.head) for edge in picture.edges)
    assert len(boxes) == len(picture.groups)


# Mermaid


def drawn_by_mermaid(text: str) -> tuple[list[str], int]:
    """The texts in the picture that mermaid.js makes of `text`, without white space, and how many arrows it has."""
    svg = mermaidx.render(text).svg()
    ends = r"<(?:foreignObject|text)\b.*?</(?:foreignObject|text)>"
    texts = [
        "".join(html.unescape(re.sub(r"<[^>]*>", "", part)).replace("\u2060", "").split())
        for part in re.findall(ends, svg, re.DOTALL)
    ]
    return texts, len(re.findall(r'<path\b[^>]*marker-end="', svg))


@pytest.mark.parametrize("name", [name for name in pictures() if name != "empty"])
def test_mermaid_draws_each_text_as_it_was(name: str) -> None:
    picture = pictures()[name]
    texts, arrows = drawn_by_mermaid(mermaid(picture, "a %%{init: {}}%% test"))
    for label in (
        ["".join(node.lines) for node in picture.nodes] + [edge.label for edge in picture.edges] + list(picture.groups)
    ):
        assert not label or "".join(label.split()) in texts, label
    assert arrows == len(picture.edges)


def test_mermaid_refuses_what_is_no_flowchart() -> None:
    """The test above can fail: what is not quoted is an error."""
    with pytest.raises(RuntimeError, match="Parse error"):
        drawn_by_mermaid(mermaid(PICTURE, "a test").replace('["', "[").replace('"]', "]"))


_LINE = re.compile(
    r'---|title: ".*"|%% [^{}]*|flowchart (LR|TB)|  subgraph g\d+\["[^"]*"\]|  end|(    |  )n\d+\["[^"]*"\]'
    r'|  n\d+ (-->|-\.->)(\|"[^"]*"\|)? n\d+|  classDef \w+ \S+|  class n\d+(,n\d+)* \w+|  linkStyle \d+(,\d+)* \S+'
)
"""All the lines that we write, by the grammar of flowcharts."""


def test_each_line_is_one_of_a_few_kinds_on_generated_specs() -> None:
    for number in range(60):
        one = model_of(parse(to_yaml(spec_of(numbered(number)))), Overrides())
        for text in (
            lock_order_file("mermaid", one, "a test"),
            waits_for_file("mermaid", one, "a test", one.initial, "x"),
        ):
            assert all(_LINE.fullmatch(line) for line in text.splitlines()), text


def test_a_picture_too_large_for_mermaid_is_refused() -> None:
    edges = tuple(Edge(0, 0) for _ in range(MAX_EDGES + 1))
    with pytest.raises(
        UsageError, match="has 501 arrows, and Mermaid draws at most 500; make a set smaller, or write --to dot"
    ):
        mermaid(Picture(("x",), (Node(("a",)),), edges), "a test")
    wide = tuple(Node(("x" * 100,)) for _ in range(500))
    with pytest.raises(UsageError, match="characters, and Mermaid draws at most 50,000"):
        mermaid(Picture(("x",), wide, ()), "a test")


# GraphML


def test_networkx_reads_the_lock_order_back() -> None:
    """With all its edges, on generated specs; lists are texts."""
    for number in range(60):
        one = model_of(parse(to_yaml(spec_of(numbered(number)))), Overrides())
        graph = lock_order_graph(one)
        read = networkx.parse_graphml(lock_order_file("graphml", one, "a test"))
        assert read.is_directed() and read.graph["source"] == "a test"
        assert list(read.nodes) == list(graph.nodes) and set(read.edges) == set(graph.edges)
        for name, data in graph.nodes(data=True):
            assert read.nodes[name] == data
        for edge in graph.edges:
            theirs, ours = read.edges[edge], graph.edges[edge]
            assert (theirs["waits"], theirs["pairs"]) == (ours["waits"], ours["pairs"])
            assert theirs["transactions"] == "; ".join(ours["transactions"])
            assert theirs["modes"] == "; ".join(f"{held} → {wanted}" for held, wanted in ours["modes"])


def test_networkx_reads_the_states_back() -> None:
    """As many states and transitions as a check counts, each state with its number; two steps between the same states stay two."""
    for file in ("specs/deadlock-demo.yaml", "tests/small/always.yaml", "tests/small/upgrade.yaml"):
        one = model(file)
        graph = state_graph(one)
        read = networkx.parse_graphml(state_file("graphml", one, "a test"))
        assert (len(read), read.number_of_edges()) == (len(graph), graph.number_of_edges())
        names = {state: f"s{data['number']}" for state, data in graph.nodes(data=True)}
        for state, data in graph.nodes(data=True):
            theirs = dict(read.nodes[names[state]])
            assert isinstance(theirs.pop("label"), str) and theirs == data
        ours = sorted(
            (names[a], names[b], data["worker"], data["action"], data["label"]) for a, b, data in graph.edges(data=True)
        )
        assert (
            sorted((a, b, data["worker"], data["action"], data["label"]) for a, b, data in read.edges(data=True))
            == ours
        )


def test_names_that_xml_can_not_hold_are_escaped() -> None:
    text = "name: x\nresources: {a: {kind: lock}}\ntransactions: {'t<&\"': {steps: [{a: SHARED}]}}\nworkers: 1\n"
    one = model_of(parse(text), Overrides())
    read = networkx.parse_graphml(
        waits_for_file("graphml", one, "a\x02 test", one.next(one.initial, one.actions(one.initial)[0]), "x")
    )
    assert read.nodes["worker 1"]["transaction"] == 't<&"' and read.graph["source"] == "a\\x02 test"


# What a picture leaves out


def thirty(lanes: int = 16) -> str:
    single = ["account", "ledger", "users", "audit", "orders", "stock", "invoice", "ring", "outbox", "gate"]
    resources = ", ".join(f"{name}: {{kind: row}}" for name in single)
    steps = ", ".join(f"{{{name}: FOR UPDATE}}" for name in single)
    return (
        f"name: thirty\nsets: {{lane: {lanes}, slot: 2}}\n"
        f"resources: {{lane: {{kind: row, per: [lane]}}, slot: {{kind: table, per: [slot]}}, {resources}}}\n"
        "transactions:\n"
        '  enqueue: {steps: [{for: {s: lane}, do: [{"lane[s]": FOR UPDATE}]}]}\n'
        '  claim: {choose: {s: lane, t: slot}, steps: [{"lane[s]": FOR UPDATE}, {"slot[t]": ROW EXCLUSIVE}]}\n'
        f"  settle: {{steps: [{steps}]}}\n"
        "  refund: {steps: [{invoice: FOR UPDATE}, {stock: FOR UPDATE}]}\n"
        "workers: 2\n"
    )


def test_thirty_resources_can_be_read() -> None:
    """Few arrows, short labels, families together, and the circle marked."""
    one = model_of(parse(thirty()), Overrides())
    assert len(one.system.resources) == 28 and lock_order_graph(one).number_of_edges() > 150
    picture = lock_order_picture(one)
    assert len(picture.nodes) == 28 and picture.groups == ("lane (row)", "slot (table)")
    assert len(picture.edges) <= 40 and max(len(line) for node in picture.nodes for line in node.lines) <= 12
    assert {
        picture.nodes[index].lines[0] for edge in picture.edges if edge.marked for index in (edge.tail, edge.head)
    } == {"stock", "invoice"}
    left = lock_order_graph(one).number_of_edges() - len(picture.edges)
    assert f"left out: {left} arrows that a longer way implies" in picture.title


def test_more_than_can_be_read_is_drawn_by_families() -> None:
    one = model_of(parse(thirty(40)), Overrides())
    picture = lock_order_picture(one)
    assert len(picture.nodes) == 12 and not picture.groups and "a node is a family of resources" in picture.title
    assert ("lane", "40 of kind row") in [node.lines for node in picture.nodes]
    assert len(lock_order_picture(one, "resource").nodes) == 52


def test_what_is_left_out_a_longer_way_implies() -> None:
    """On generated specs: whoever reaches whom in the graph does so in the picture, and the other way round."""
    fewer = 0
    for number in range(80):
        one = model_of(parse(to_yaml(spec_of(numbered(number)))), Overrides())
        graph = lock_order_graph(one)
        picture = lock_order_picture(one, "resource")
        names = [node.lines[0] for node in picture.nodes]
        drawn: Any = networkx.DiGraph()
        drawn.add_nodes_from(graph)
        drawn.add_edges_from((names[edge.tail], names[edge.head]) for edge in picture.edges)
        assert set(drawn.edges) <= set(graph.edges)
        assert set(graph) - set(names) == ({name for name in graph if not graph.degree(name)} if graph.edges else set())
        assert set(networkx.transitive_closure(drawn, reflexive=None).edges) == set(
            networkx.transitive_closure(graph, reflexive=None).edges
        )
        fewer += drawn.number_of_edges() < graph.number_of_edges()
    assert fewer > 5


def test_a_deadlock_is_red() -> None:
    one = model("specs/deadlock-demo.yaml")
    stuck = next(state for state, data in state_graph(one).nodes(data=True) if data["deadlock"])
    picture = waits_for_picture(waits_for_graph(one, stuck), "the end")
    assert (
        len(picture.edges) == 2
        and all(edge.marked for edge in picture.edges)
        and all(node.marked for node in picture.nodes)
    )
    quiet = waits_for_picture(waits_for_graph(one, one.initial), "the beginning")
    assert not quiet.edges and not any(node.marked for node in quiet.nodes)


# The command, and what the documentation shows of it


def test_the_documented_flowchart_is_what_the_command_prints() -> None:
    """`SNAP_UPDATE=1` writes it anew."""
    document = ROOT / "docs" / "export.md"
    text = document.read_text()
    (shown,) = (block.body for block in blocks(text) if block.mark == "mermaid")
    command = re.search(r"This is `lockmodel (export [^`]* --to mermaid)`:\n\n<!-- mermaid -->", text)
    assert command
    printed = lockmodel(*command[1].split()).stdout
    if os.environ.get("SNAP_UPDATE"):
        mark = "<!-- mermaid -->\n```mermaid\n"
        document.write_text(text.replace(mark + shown, mark + printed))
        shown = printed
    assert shown == printed and "linkStyle" in printed  # It has a circle.


@pytest.mark.parametrize("graph", ["lock-order", "waits-for", "state"])
@pytest.mark.parametrize(
    ("form", "start"),
    [
        ("dot", "// Exported by lockmodel from specs/deadlock-demo.yaml\ndigraph {"),
        ("mermaid", "---\ntitle: "),
        ("graphml", "<graphml"),
    ],
)
def test_every_graph_in_every_form(form: str, start: str, graph: str, tmp_path: Path) -> None:
    file = tmp_path / "graph"
    answer = lockmodel("export", "specs/deadlock-demo.yaml", "--to", form, "--graph", graph, "-o", str(file))
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert file.read_text(encoding="utf-8").startswith(start)


@pytest.mark.parametrize(("arguments", "line"), [
    (["--to", "dot", "--graph", "order"], "--graph 'order': did you mean lock-order? available: lock-order, waits-for, state"),
    (["--to", "dot", "--by", "set"], "--by 'set': available: resource, family"),
    (["--to", "dot", "--graph", "state", "--by", "family"], "--by is for --graph lock-order"),
    (["--to", "tla", "--graph", "state"], "--graph is for --to dot, mermaid or graphml"),
    (["--to", "dot", "--trace", "x"], "--trace is for --to isolation, --to itf and --graph waits-for"),
    (["--to", "dot", "--seed", "1"], "--seed is for --to isolation without --trace"),
    (["--to", "itf", "--deadlock", "1"], "--deadlock is for a --trace"),
    (["--to", "mermaid", "--max-states", "3"], "--max-states is for traces and --graph state"),
    (["--to", "mermaid", "--graph", "state", "--max-states", "3"], "deadlock-demo has more than 3 states; make a set smaller, or raise max_states"),
    (["--to", "graphml", "--graph", "waits-for", "--trace", "no.json"], "--trace no.json: No such file or directory"),
])  # fmt: skip
def test_a_wrong_command_line_is_one_line(arguments: list[str], line: str) -> None:
    answer = lockmodel("export", "specs/deadlock-demo.yaml", *arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.split() == line.split()


def test_a_graph_of_what_holds_has_no_last_state() -> None:
    answer = lockmodel("export", "specs/striped.yaml", "--to", "dot", "--graph", "waits-for")
    assert answer.returncode == 2 and "check finds no violation" in answer.stderr
