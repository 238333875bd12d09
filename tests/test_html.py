"""The HTML report as a document: it stands alone, nothing in a spec can break out of it, and what is too large is said to be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_cli import lockmodel as command

import lockmodel
from lockmodel.overrides import Overrides
from lockmodel.report import html
from lockmodel.report.html import document, tables
from lockmodel.stepping import model

ROOT = Path(__file__).parent.parent
OLD_CLAIM = "specs/striped-old-claim.yaml"
HOSTILE = """
name: "</script><script>alert(1)</script>"
doc: "<!-- ]]> & ' \\" \\u2028 ünïcödé {{data}} 🔒"
resources:
  a: {kind: table}
  b: {kind: table}
transactions:
  "<img src=x onerror=alert(1)>":
    steps: [{a: EXCLUSIVE}, {b: EXCLUSIVE}]
  "it's \\"quoted\\" & 🔒":
    steps: [{b: EXCLUSIVE}, {a: EXCLUSIVE}]
workers: 2
expect: deadlock
"""


class Elements(HTMLParser):
    """All start tags with their attributes, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.scripts and self.tags[-1][0] == "script":
            self.scripts[-1] += data


def page_of(*specs: str) -> str:
    return html.report([lockmodel.check(lockmodel.load(spec)) for spec in specs])


def hostile_page() -> str:
    return html.report([lockmodel.check(lockmodel.parse(HOSTILE))])


def data_of(page: str) -> dict[str, object]:
    return json.loads(Elements(page).scripts[0])


def test_the_page_needs_nothing_but_itself() -> None:
    """No element loads anything, and the page forbids itself to."""
    page = page_of(OLD_CLAIM)
    for tag, attributes in Elements(page).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed"), tag
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "default-src 'none'" in page
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|import)\s*\(|@import|url\(", page.replace("url(#", ""))


def test_what_a_spec_says_stays_text() -> None:
    """`</script>`, quotes, comments and the template's own marks mean nothing in the report."""
    page = hostile_page()
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in elements.tags]
    assert not [name for _, attributes in elements.tags for name in attributes if name.startswith("on")]
    source = data_of(page)["results"][0]["source"]  # type: ignore[index]
    assert source["spec"] == HOSTILE
    assert "{{data}} 🔒" in page


def test_half_a_character_is_written_as_a_question_mark() -> None:
    """A file in UTF-8 has no halves of surrogate pairs, and the report must still be written."""
    assert document.embedded({"a": "\ud800"}) == '{"a":"\\ud800"}'


def test_the_verdict_and_the_steps_are_there_without_a_script() -> None:
    """Whoever has scripts turned off reads the verdict, the reason, the schedule, the proof and the spec."""
    violated, proved = page_of(OLD_CLAIM), page_of("specs/striped.yaml")
    assert "worker 2 waits for lane[0]. Neither can go on." in violated
    assert "<li>worker 1 takes lane[0] FOR UPDATE</li>" in violated
    assert "lane (ascending) &lt; ready &lt; claims" in proved
    assert "lockmodel replay specs/striped-old-claim.yaml" in violated


def test_several_specs_are_in_one_page_with_links() -> None:
    """Each result has its article, and errors and what was left out are told."""
    page = page_of(OLD_CLAIM, "specs/striped.yaml")
    assert [attributes["href"] for tag, attributes in Elements(page).tags if tag == "a"] == ["#result-0", "#result-1"]
    assert len(data_of(page)["results"]) == 2  # type: ignore[arg-type]
    assert "Not checked." in html.report([], unchecked=["x.yaml"])


def test_a_model_that_is_too_large_has_a_report_without_explorer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report says what is too many; all else is there."""
    monkeypatch.setattr(tables, "MAX_LOCATIONS", 10)
    page = page_of(OLD_CLAIM)
    assert "The explorer is left out, since the model is too large for a page: " in page
    assert 'class="explorer"' not in page
    assert "Neither can go on." in page
    assert "tables" not in data_of(page)["results"][0]  # type: ignore[index]


@pytest.mark.parametrize(("limit", "value"), [("MAX_CREW", 1), ("MAX_NUMBERS", 3)])
def test_every_limit_is_kept(limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many workers and many guards are no less heavy than many locations."""
    monkeypatch.setattr(tables, limit, value)
    with pytest.raises(tables.TooLarge, match=r"workers; the most is 1|more than 3 entries"):
        tables.tables(model(OLD_CLAIM))


def test_the_trace_is_given_by_edges_that_lead_along_it() -> None:
    """Each step's number means the edge that the trace takes."""
    result = lockmodel.check(lockmodel.load(OLD_CLAIM))
    assert result.trace is not None
    made = tables.model_of_result(result)
    locations = [0] * len(made.crew)
    for worker, edge in tables.steps(made, result.trace):
        locations[worker] = made.system.locations[locations[worker]].edges[edge].target
    assert tuple(locations) == result.trace.last.locations


def test_another_model_has_another_digest() -> None:
    """So a link to a schedule is not followed in a report of something else."""
    one, other = (tables.digest(tables.tables(model(OLD_CLAIM, sets={"stripe": size}))) for size in (2, 3))
    assert one != other


# The command line


def test_the_option_writes_the_page_beside_the_report(tmp_path: Path) -> None:
    """`--html FILE` takes nothing away from the terminal, and the exit code is as ever."""
    file = tmp_path / "report.html"
    done = command("check", OLD_CLAIM, "--html", str(file))
    assert done.code == 0
    assert "DEADLOCK" in done.out
    assert file.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_it_goes_with_other_formats(tmp_path: Path) -> None:
    """JSON to standard output, the page to its file."""
    file = tmp_path / "report.html"
    done = command("check", OLD_CLAIM, "--format", "json", "--html", str(file))
    assert json.loads(done.out)["results"]
    assert "</html>" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--html", ""], "--html: it names no file"),
        (["--html", "no/such/folder/x.html"], "--html "),
        (["--html", "x.html", "--format", "json=x.html"], "another format goes to this file, too"),
    ],
)
def test_a_wrong_file_is_one_line(arguments: list[str], message: str) -> None:
    """Before any work is done, with exit code 2."""
    done = command("check", OLD_CLAIM, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_the_page_is_made_only_when_asked_for() -> None:
    """Neither the report's modules nor the graphs' library are loaded by a plain check."""
    code = (
        "import sys; from lockmodel.cli import main; sys.argv = ['lockmodel', 'check', 'specs/striped.yaml']; main(); "
        "print([m for m in sys.modules if m.startswith('lockmodel.report.html')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_overrides_travel_with_the_schedule() -> None:
    """A downloaded schedule must be replayed on the same model."""
    result = lockmodel.check(lockmodel.load(OLD_CLAIM), Overrides({"stripe": 3}))
    data = data_of(html.report([result]))
    assert data["results"][0]["source"]["overrides"]["sets"] == {"stripe": 3}  # type: ignore[index]
