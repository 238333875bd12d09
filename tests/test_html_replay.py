"""`lockmodel replay --html`: what the model foretold and what Postgres did, in one page; read as a document, and in a real Chromium."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from chromium import answer, needs_chromium
from test_cli import lockmodel as command
from test_html import Elements
from test_html_browser import BUTTON
from test_replay import NOT_REALIZABLE, SPECS
from test_sides import TOLD, UNTOLD

from lockmodel.errors import UsageError
from lockmodel.report.html.replay import report
from lockmodel.report.json import Failure

pytestmark = pytest.mark.postgres

OLD_CLAIM = str(SPECS / "striped-old-claim.yaml")
SCENARIO = "scenarios/old-claim-against-enqueue.yaml"
HOSTILE = """
scenario: "</script><script>alert(1)</script>"
workers: 2
outcome: deadlock
spec:
  name: "<img src=x onerror=alert(1)>"
  resources:
    a: {kind: lock}
    b: {kind: lock}
  transactions:
    "<b>one</b>":
      steps:
        - a: EXCLUSIVE
          label: "{{{{data}}}} <i>&"
        - b: EXCLUSIVE
    two: {steps: [b: EXCLUSIVE, a: EXCLUSIVE]}
"""


def replayed(folder: Path, *words: str, code: int) -> tuple[str, dict[str, Any]]:
    """The page of `lockmodel replay WORDS`, and its JSON report."""
    page = folder / "replay.html"
    done = command("replay", *words, "--format", "json", "--html", str(page))
    assert done.code == code, done.err
    return page.read_text(encoding="utf-8"), json.loads(done.out)


def written(folder: Path, text: str) -> str:
    file = folder / "spec.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def plain(page: str) -> str:
    """The page's words, without its elements, its style and its scripts."""

    class Words(Elements):
        def __init__(self, page: str) -> None:
            self.said: list[str] = []
            super().__init__(page)

        def handle_data(self, data: str) -> None:
            if self.tags and self.tags[-1][0] not in ("script", "style"):
                self.said.append(data)

    return " ".join(" ".join(Words(page).said).split())


def test_a_confirmed_deadlock_has_both_accounts_of_each_statement(dsn: str, tmp_path: Path) -> None:
    """What was foretold, what it became, the 40P01 with its lines, and the model's own words; it needs nothing but itself."""
    page, document = replayed(tmp_path, OLD_CLAIM, "--dsn", dsn, code=0)
    (replay,) = document["replays"]
    said = plain(page)
    for statement in replay["statements"]:
        assert f"{statement['sql']} {statement['step']}, line {statement['line']}" in said
    assert said.count("locks then") == len(replay["statements"])
    assert "waits for worker 2 locks then worker 1 holds lane[0] FOR UPDATE; waits for lane[1] FOR UPDATE" in said
    assert "waits for worker 1: the circle is closed" in said
    assert "Postgres aborted worker 2: deadlock detected (SQLSTATE 40P01)." in said
    assert all(wait["text"] in said for wait in replay["deadlock"]["waits"])
    assert "worker 2 waits for lane[0]. Neither can go on." in said
    assert f"on PostgreSQL {replay['server']}" in said
    for tag, attributes in Elements(page).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed")
        assert "src" not in attributes and attributes.get("href", "#").startswith("#")


@pytest.mark.parametrize("spec", [TOLD, UNTOLD], ids=["told", "untold"])
def test_where_they_part_both_sides_locks_are_shown(spec: str, dsn: str, tmp_path: Path) -> None:
    """Each line of the sides, what differs marked, and what pg_locks and pgrowlocks showed."""
    page, document = replayed(tmp_path, written(tmp_path, spec), "--dsn", dsn, code=1)
    (replay,) = document["replays"]
    sides = replay["difference"]["sides"]
    lines = [line for side in sides for line in side["locks"]]
    cells = [f"<td>{line['model']}</td><td>{line['postgres']}" for line in lines]
    assert len(lines) >= 5 and all(cell in unescape(page) for cell in cells)
    assert page.count('<tr class="differs"') == sum(line["differs"] for line in lines) + 1
    said = plain(page)
    assert f"worker 1, at account[1] FOR UPDATE: {replay['difference']['message']}." in said
    raw = said.partition("As pg_locks and pgrowlocks showed it")[2]
    assert "row account id=0 FOR UPDATE" in raw and "table audit ROW EXCLUSIVE" in raw


def test_a_trace_that_cannot_be_followed_says_why(dsn: str, tmp_path: Path) -> None:
    """There are no statements; the model's schedule is there all the same."""
    page, document = replayed(tmp_path, written(tmp_path, NOT_REALIZABLE), "--dsn", dsn, code=3)
    assert document["replays"][0]["reason"] in plain(page)
    assert 'class="explorer"' in page and "<table" not in page.partition("<script")[0]


def test_random_schedules_are_counted_and_one_is_shown(dsn: str, tmp_path: Path) -> None:
    """That with the most waits; of those with deadlocks, the first with one."""
    page, document = replayed(
        tmp_path, str(SPECS / "striped.yaml"), "--schedules", "4", "--seed", "3", "--dsn", dsn, code=0
    )
    (replay,) = document["replays"]
    said = plain(page)
    assert f"4 random schedules of 3 workers: none deadlocked. Seed 3. {replay['sent']} statements in " in said
    assert "One of them: schedule " in said and "waits for worker" in said
    deadlocked, document = replayed(tmp_path, OLD_CLAIM, "--schedules", "20", "--seed", "3", "--dsn", dsn, code=0)
    (replay,) = document["replays"]
    assert replay["deadlocks"] > 0
    assert f"One of them: schedule {replay['schedule']} Postgres aborted worker" in plain(deadlocked)


def test_several_replays_are_an_index_and_sections(dsn: str, tmp_path: Path) -> None:
    """What is as expected is folded; of a scenario that is what its badge says. What failed is there too."""
    broken = written(tmp_path, "name: x\n")
    page, document = replayed(tmp_path, SCENARIO, broken, OLD_CLAIM, "--dsn", dsn, code=2)
    assert len(document["replays"]) == 2
    assert [one["href"] for tag, one in Elements(page).tags if tag == "a"] == ["#result-0", "#result-1"]
    said = plain(page)
    assert "AS EXPECTED The old claim of a striped queue deadlocks with an enqueue. CONFIRMED on PostgreSQL" in said
    assert "CONFIRMED deadlock between enqueue and claim, on PostgreSQL" in said
    assert said.count("The replay") == 2
    assert f"ERROR {broken}" in said
    assert "Not replayed." in plain(report([], [Failure("f", UsageError("f: x"))], unreplayed=["left.yaml"]))


def test_what_a_spec_says_stays_text(dsn: str, tmp_path: Path) -> None:
    """Names and labels full of markup mean nothing in the page."""
    page, _ = replayed(tmp_path, written(tmp_path, HOSTILE), "--dsn", dsn, code=0)
    tags = Elements(page).tags
    assert [tag for tag, _ in tags].count("script") == 2
    assert not {"img", "b", "i"} & {tag for tag, _ in tags}
    assert "{{data}} <i>&" in plain(page)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--html", ""], "--html: it names no file"),
        (["--html", "no/such/folder/x.html"], "--html "),
        (["--html", "x.html", "-o", "./x.html"], "another format goes to this file, too"),
        (["--html", OLD_CLAIM], "it is one of the specs, which would be overwritten"),
    ],
)
def test_a_wrong_file_is_one_line(words: list[str], message: str) -> None:
    """Before a server is started, with exit code 2."""
    done = command("replay", OLD_CLAIM, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err and done.err.count("\n") == 1


@needs_chromium
@pytest.mark.chromium
def test_the_number_of_a_statement_leads_to_its_step(dsn: str, tmp_path: Path) -> None:
    """Also after one has gone elsewhere; the requests of the circle lead to the end, and a scenario has nothing to download."""
    page, _ = replayed(tmp_path, OLD_CLAIM, "--dsn", dsn, code=0)
    script = """
      const places = [];
      const numbers = [...document.querySelectorAll("tr[data-step] th button")];
      for (const number of [1, 3, 5, 7]) { numbers[number].click(); places.push(explorer.at); }
      key("Home"); key("1");
      numbers[1].click();
      places.push(explorer.at, explorer.steps.length);
      return { places, buttons: [...root.querySelectorAll(".tools button")].map((one) => one.textContent) };
    """
    told = answer(page, BUTTON + script, tmp_path)
    assert told["places"] == [2, 4, 6, 6, 2, 6]
    assert "Scenario" in told["buttons"]
    scenario, _ = replayed(tmp_path, SCENARIO, "--dsn", dsn, code=0)
    shown = answer(scenario, BUTTON + 'key("s"); key("y"); return [root.textContent, explorer.at];', tmp_path)
    assert "Download" not in shown[0] and shown[1] == 6


@needs_chromium
@pytest.mark.chromium
def test_a_link_into_the_index_unfolds_its_section(dsn: str, tmp_path: Path) -> None:
    """The others stay folded until they are opened, or printed."""
    page, _ = replayed(tmp_path, SCENARIO, OLD_CLAIM, "--dsn", dsn, code=0)
    script = """
      const open = () => [...document.querySelectorAll("article > details")].map((one) => one.open);
      const before = open();
      window.dispatchEvent(new Event("beforeprint"));
      return [before, open(), page.explorers.size];
    """
    before, printed, explorers = answer(page, script, tmp_path, fragment="#result-1")
    assert (before, printed, explorers) == ([False, True], [True, True], 2)
