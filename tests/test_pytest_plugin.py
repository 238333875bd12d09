"""The pytest plugin and `lockmodel.testing`: each test is a small project of its own, run by pytester."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import psycopg
import pytest
from hypothesis import given, settings
from leftovers import leftovers, remains

import lockmodel
from lockmodel.errors import LockmodelError, ReplayError
from lockmodel.overrides import Overrides
from lockmodel.replay.controlled import ControlledSchedule
from lockmodel.testing import assert_as_expected, assert_no_deadlock, controlled_schedule
from lockmodel.testing.strategies import spec_texts, specs

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"<!-- run with pytest -->\n```python\n(.*?)```", re.DOTALL)
# A checkout that was installed before the plugin existed does not know its entry point.
LOADED = [] if entry_points(group="pytest11", name="lockmodel") else ["-p", "lockmodel.pytest_plugin"]

SAFE = """
    name: safe
    resources:
      first: {kind: row}
      second: {kind: row}
    transactions:
      both:
        steps: [{first: FOR UPDATE}, {second: FOR UPDATE}]
"""
DEADLOCK = """
    name: crossed
    resources:
      first: {kind: row}
      second: {kind: row}
    transactions:
      there:
        steps: [{first: FOR UPDATE}, {second: FOR UPDATE}]
      back:
        steps: [{second: FOR UPDATE}, {first: FOR UPDATE}]
"""
ACCOUNTS = "CREATE TABLE account (id int PRIMARY KEY, cents int); INSERT INTO account VALUES (1, 0), (2, 0)"
TOUCH = "UPDATE account SET cents = cents + 1 WHERE id = %s"


def project(pytester: pytest.Pytester, settings: str, **files: str) -> None:
    """A project with `settings` in its pyproject.toml; `specs__a` is the file specs/a.yaml."""
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n{textwrap.dedent(settings)}")
    for name, content in files.items():
        path = pytester.path / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest in a process of its own, with warnings as errors."""
    words = ["-W", "error", "-p", "no:cacheprovider", *LOADED, *arguments]
    return pytester.runpytest_subprocess(*words, timeout=100)


# Specs as tests


def test_specs_of_the_configured_folder_are_tests(pytester: pytest.Pytester) -> None:
    """A spec that does what it expects passes; one that does not fails with its report, not with a traceback."""
    project(
        pytester,
        'lockmodel_specs = ["specs"]',
        specs__safe=SAFE,
        specs__deep__known=DEADLOCK + "    expect: deadlock\n",
        specs__crossed=DEADLOCK,
        elsewhere=DEADLOCK,
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, failed=1)
    text = result.stdout.str()
    assert "specs/crossed.yaml  DEADLOCK  between there and back (not as expected)" in text
    assert "takes first FOR UPDATE" in text
    assert "Neither can go on." in text
    assert "FAILED specs/crossed.yaml::check - specs/crossed.yaml  DEADLOCK" in text
    assert "Traceback" not in text
    assert "pytest_plugin.py" not in text


def test_a_file_with_an_error_is_one_line(pytester: pytest.Pytester) -> None:
    """It fails its own test, and the others are run."""
    project(pytester, 'lockmodel_specs = ["specs"]', specs__safe=SAFE, specs__bad=SAFE.replace("UPDATE}]", "UPDTE}]"))
    result = run(pytester)
    result.assert_outcomes(passed=1, failed=1)
    failures = result.stdout.str().split("FAILURES")[1].split("short test summary")[0]
    told = [line for line in failures.splitlines() if line.strip("_= ") and "check specs/" not in line]
    assert len(told) == 1, failures
    assert told[0].startswith("specs/bad.yaml:8: unknown mode 'FOR UPDTE'")


def test_an_undecided_spec_fails(pytester: pytest.Pytester) -> None:
    """A search that gave up is no success."""
    large = """
        name: large
        sets: {stripe: 5}
        resources:
          lane: {kind: lock, per: [stripe]}
        transactions:
          claim:
            steps: [{for: {s: stripe}, order: any, do: [{"lane[s]": SHARED}]}]
        workers: 6
        never: {crowd: "count(w.holds(lane[0])) > 6"}
    """
    settings = 'lockmodel_specs = ["specs"]\nlockmodel_timeout = "0.05"'
    project(pytester, settings, specs__large=large)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["specs/large.yaml  UNDECIDED*"])


def test_who_names_tests_gets_those_alone(pytester: pytest.Pytester) -> None:
    """Configured folders are added to a run of the whole project, and to no other."""
    project(pytester, 'testpaths = ["tests"]\nlockmodel_specs = ["specs"]', specs__safe=SAFE, specs__known=SAFE)
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "test_a.py").write_text("def test_a(): pass\n")
    for arguments, passed in (((), 3), (("tests",), 1), (("specs",), 2), (("specs/safe.yaml",), 1)):
        run(pytester, *arguments).assert_outcomes(passed=passed)
    run(pytester, "-m", "not lockmodel_spec").assert_outcomes(passed=1, deselected=2)
    run(pytester, "-n", "2").assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ('lockmodel_specs = ["nowhere"]', "there is no *nowhere, which lockmodel_specs or lockmodel_scenarios names"),
        (
            'lockmodel_specs = ["."]\nlockmodel_timeout = "soon"',
            "lockmodel_timeout = 'soon': it must be a number of seconds*",
        ),
    ],
)
def test_a_wrong_setting_is_one_line(pytester: pytest.Pytester, settings: str, complaint: str) -> None:
    """pytest's own usage error, with its exit code 4."""
    project(pytester, settings)
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: lockmodel: {complaint}"])


def test_a_run_without_specs_knows_nothing_of_yaml(pytester: pytest.Pytester) -> None:
    """Without a configured folder no file is collected."""
    project(pytester, "", specs__safe=SAFE)
    assert run(pytester).ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert run(pytester, "--markers").stdout.str().count("lockmodel_scenario") == 1


def test_the_plugin_costs_next_to_nothing() -> None:
    """To load it costs under 10 ms of CPU time beyond pytest itself, and none of the libraries that only a test with a spec needs."""
    code = """
        import sys, time, pytest, _pytest.config, importlib.util
        before, known, began = set(sys.modules), pytest, time.process_time()
        import lockmodel.pytest_plugin
        spent = time.process_time() - began
        heavy = {"rich", "psycopg", "networkx", "numpy", "numba", "pydantic", "ruamel", "hypothesis", "asyncio"}
        print(spent, *sorted({name.split(".")[0] for name in set(sys.modules) - before} & heavy))
    """
    spent = []
    for _ in range(5):
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
        )
        seconds, *heavy = answer.stdout.split()
        assert heavy == []
        spent.append(float(seconds))
    assert min(spent) < 0.010, spent


def test_the_plugin_has_its_entry_point() -> None:
    """What is installed is found by pytest."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["entry-points"]["pytest11"] == {"lockmodel": "lockmodel.pytest_plugin"}


# Scenarios as tests

SCENARIO = """
    scenario: Two transactions cross.
    spec: ../specs/crossed.yaml
    workers: 2
    outcome: deadlock
"""


@pytest.mark.postgres
def test_scenarios_are_replayed(pytester: pytest.Pytester, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes out otherwise fails with the replay's report."""
    monkeypatch.setenv("LOCKMODEL_TEST_DSN", dsn)
    project(
        pytester,
        'lockmodel_specs = ["specs", "both"]\nlockmodel_scenarios = ["scenarios", "both"]',
        specs__crossed=DEADLOCK + "    expect: deadlock\n",
        scenarios__confirmed=SCENARIO,
        scenarios__wrong=SCENARIO.replace("deadlock", "{safe: {schedules: 10, seed: 1}}"),
        scenarios__spec=SAFE,
        both__spec=SAFE,
        both__scenario=SCENARIO,
    )
    result = run(pytester)
    result.assert_outcomes(passed=4, failed=2)
    text = result.stdout.str()
    assert re.search(r"expected no deadlock, found \d+ in 10 schedules", text)
    assert re.search(
        r"scenarios/spec.yaml:\d+: this is a spec, not a scenario; name its folder in lockmodel_specs", text
    )
    assert "Traceback" not in text
    assert remains(dsn) == []


@pytest.mark.postgres
def test_without_a_server_there_is_one_line(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that can't be reached fails scenarios and fixtures alike, with what to do."""
    monkeypatch.setenv("LOCKMODEL_TEST_DSN", f"host={pytester.path} dbname=none")
    project(pytester, 'lockmodel_specs = ["specs"]\nlockmodel_scenarios = ["scenarios"]',
            specs__crossed=DEADLOCK + "    expect: deadlock\n", scenarios__a=SCENARIO)  # fmt: skip
    pytester.makepyfile("def test_a(lockmodel_schedule): pass")
    result = run(pytester)
    result.assert_outcomes(passed=1, failed=1, errors=1)
    assert result.stdout.str().count("can't connect to Postgres") >= 2
    assert "Traceback" not in result.stdout.str()


# Assertions


def test_the_assertion_is_the_report() -> None:
    """It reads as the terminal's report does, without a command that has no file to name."""
    with pytest.raises(AssertionError) as caught:
        assert_no_deadlock(textwrap.dedent(DEADLOCK))
    text = str(caught.value)
    assert text.startswith("<spec>  DEADLOCK  between there and back (not as expected)")
    assert "Neither can go on." in text
    assert "Replay it" not in text


def test_an_expected_deadlock_is_one_all_the_same() -> None:
    """`assert_no_deadlock` asks whether there is one; `assert_as_expected` whether it is the one that is known."""
    known = textwrap.dedent(DEADLOCK) + "expect: {deadlock: {between: [there, back]}}\n"
    assert assert_as_expected(known).trace is not None
    with pytest.raises(AssertionError, match="DEADLOCK"):
        assert_no_deadlock(known)
    with pytest.raises(AssertionError, match="Expected a deadlock, found: no violation"):
        assert_as_expected(textwrap.dedent(SAFE) + "expect: deadlock\n")


def test_every_way_to_name_a_spec(tmp_path: Path) -> None:
    """A file by name or Path, text, or a Spec."""
    file = tmp_path / "safe.yaml"
    file.write_text(textwrap.dedent(SAFE))
    for spec in (file, str(file), textwrap.dedent(SAFE), lockmodel.load(file)):
        assert assert_no_deadlock(spec).verdict.outcome is lockmodel.Outcome.HOLDS


def test_workers_and_sets_are_those_of_the_command_line() -> None:
    """Numbers, elements, truth values and `any`."""
    result = assert_no_deadlock(ROOT / "specs" / "striped.yaml", workers=2, sets={"stripe": 3, "slot": ["a", 7]})
    assert result.overrides == Overrides({"stripe": 3, "slot": ("a", 7)}, 2)
    assert assert_no_deadlock(textwrap.dedent(SAFE), workers="any").overrides == Overrides({}, None)
    crossed = textwrap.dedent(DEADLOCK)
    assert_no_deadlock(crossed, workers=1)
    for wrong in ({"workers": 0}, {"sets": {"stripes": 2}}, {"workers": {"consumer": 2}}):
        with pytest.raises(LockmodelError):
            assert_no_deadlock(crossed, **wrong)  # type: ignore[arg-type]


# Controlled schedules


@pytest.fixture
def schedule(dsn: str) -> Iterator[ControlledSchedule]:
    with ControlledSchedule(dsn) as schedule:
        schedule.setup(ACCOUNTS)
        yield schedule


@pytest.mark.postgres
def test_a_statement_that_waits_is_no_success(schedule: ControlledSchedule) -> None:
    """The failure says for whom, and tells the schedule so far."""
    alice, bob = schedule.sessions("alice", "bob")
    alice.run("BEGIN")
    alice.run(TOUCH, [1])
    with pytest.raises(AssertionError) as caught:
        bob.run(TOUCH, [1])
    first, _, *story = str(caught.value).splitlines()
    assert first == "bob waits for alice, but should go on"
    assert [line.split()[:2] for line in story] == [["1", "alice"], ["2", "alice"], ["3", "bob"]]


@pytest.mark.postgres
def test_a_statement_that_should_wait_must_wait_for_the_right_one(schedule: ControlledSchedule) -> None:
    """Neither one that goes on, nor one that waits for somebody else, nor one that fails will do."""
    alice, bob, carol = schedule.sessions("alice", "bob", "carol")
    alice.run("BEGIN")
    alice.run(TOUCH, [1])
    with pytest.raises(AssertionError, match="bob went on, but should wait for alice"):
        bob.waits_for(alice, TOUCH, [2])
    with pytest.raises(psycopg.errors.UndefinedTable):
        schedule.session("dave").run("SELECT * FROM nothing")
    with pytest.raises(AssertionError, match="carol waits for alice, but should wait for bob"):
        carol.waits_for(bob, TOUCH, [1])


@pytest.mark.postgres
def test_a_deadlock_that_does_not_come_is_a_failure(schedule: ControlledSchedule) -> None:
    """A statement that goes on, or only waits."""
    alice, bob = schedule.sessions("alice", "bob")
    alice.run("BEGIN")
    alice.run(TOUCH, [1])
    with pytest.raises(AssertionError, match="alice went on, but should get 40P01"):
        alice.deadlocks(TOUCH, [2])
    with pytest.raises(AssertionError, match="bob waits for alice, but no deadlock is reported"):
        bob.deadlocks(TOUCH, [1])


@pytest.mark.postgres
def test_three_in_a_circle_and_one_behind_it(schedule: ControlledSchedule) -> None:
    """The circle has its members only; who waits for one of them is none."""
    schedule.setup("INSERT INTO account VALUES (3, 0), (4, 0)")
    ann, ben, cleo, dan = schedule.sessions("ann", "ben", "cleo", "dan")
    for session, number in ((ann, 1), (ben, 2), (cleo, 3)):
        session.run("BEGIN")
        session.run(TOUCH, [number])
    ann.run(TOUCH, [4])
    dan.waits_for(ann, TOUCH, [4])
    ann.waits_for(ben, TOUCH, [2])
    ben.waits_for(cleo, TOUCH, [3])
    assert schedule.waiting() == {"dan": ("ann",), "ann": ("ben",), "ben": ("cleo",)}
    assert cleo.deadlocks(TOUCH, [1]) == {"ann", "ben", "cleo"}
    ben.finishes()
    ben.run("COMMIT")
    ann.finishes()
    ann.run("COMMIT")
    dan.finishes()
    assert schedule.waiting() == {}


@pytest.mark.postgres
def test_other_failures(schedule: ControlledSchedule) -> None:
    """NOWAIT at once, lock_timeout after a wait, and a failure that is another one."""
    alice, bob = schedule.sessions("alice", "bob")
    alice.run("BEGIN")
    alice.run(TOUCH, [1])
    lock = "SELECT 1 FROM account WHERE id = 1 FOR UPDATE"
    assert isinstance(bob.fails("55P03", f"{lock} NOWAIT"), psycopg.errors.LockNotAvailable)
    bob.run("SET lock_timeout = '300ms'")
    bob.waits_for(alice, lock)
    bob.fails("55P03")
    with pytest.raises(AssertionError, match=r"bob fails with 42P01 .*, but should fail with 55P03"):
        bob.fails("55P03", "SELECT * FROM nothing")


@pytest.mark.postgres
def test_a_schedule_used_in_a_wrong_way_says_so(schedule: ControlledSchedule, dsn: str) -> None:
    """One line that says what instead."""
    alice, bob = schedule.sessions("alice", "bob")
    with pytest.raises(ReplayError, match="there is a session 'bob' already"):
        schedule.session("bob")
    with pytest.raises(ReplayError, match="alice has no statement that waits"):
        alice.finishes()
    alice.run("BEGIN")
    alice.run(TOUCH, [1])
    bob.waits_for(alice, TOUCH, [1])
    with pytest.raises(ReplayError, match=r"bob still has a statement that waits; call bob.finishes\(\) first"):
        bob.run("SELECT 1")

    async def inside_a_loop() -> None:
        schedule.waiting()

    with pytest.raises(ReplayError, match="can't be used inside a running event loop"):
        asyncio.run(inside_a_loop())
    with controlled_schedule(dsn) as other:
        pass
    with pytest.raises(ReplayError, match="the schedule is closed"):
        other.session("alice")


@pytest.mark.postgres
def test_an_ordinary_user_can_choose_the_victim_too(dsn: str) -> None:
    """Who may not set deadlock_timeout waits until the others have looked for a deadlock in vain."""
    name = "lockmodel_test_ordinary"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}" if _exists(connection, name) else "SELECT 1")
        connection.execute(f"CREATE ROLE {name} LOGIN")
        (database,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        connection.execute(f'GRANT CREATE ON DATABASE "{database}" TO {name}')
    try:
        with ControlledSchedule(f"{dsn} user={name}") as schedule:
            schedule.setup(ACCOUNTS)
            alice, bob = schedule.sessions("alice", "bob")
            for session, number in ((alice, 1), (bob, 2)):
                session.run("BEGIN")
                session.run(TOUCH, [number])
            alice.waits_for(bob, TOUCH, [2])
            assert bob.deadlocks(TOUCH, [1]) == {"alice", "bob"}
            alice.finishes()
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {name}")
            connection.execute(f"DROP ROLE {name}")


def _exists(connection: psycopg.Connection[tuple[object, ...]], role: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is not None


@pytest.mark.postgres
def test_nothing_is_left_of_a_test_that_failed_in_the_middle(
    pytester: pytest.Pytester, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither schema nor session nor waiting statement, nor a connection that the test opened and forgot."""
    monkeypatch.setenv("LOCKMODEL_TEST_DSN", dsn)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makepyfile(f"""
        import psycopg, threading
        from leftovers import remains

        forgotten = []

        def test_in_the_middle(lockmodel_schedule):
            lockmodel_schedule.setup({ACCOUNTS!r})
            forgotten.append(psycopg.connect(lockmodel_schedule.dsn))
            assert forgotten[0].execute("SELECT count(*) FROM account").fetchone() == (2,)
            alice, bob = lockmodel_schedule.sessions("alice", "bob")
            alice.run("BEGIN")
            alice.run({TOUCH!r}, [1])
            bob.waits_for(alice, {TOUCH!r}, [1])
            alice.waits_for(bob, {TOUCH!r}, [2])

        def test_after_it(lockmodel_dsn):
            assert threading.active_count() == 1
            assert remains(lockmodel_dsn) == []
            forgotten[0].close()
    """)
    result = run(pytester)
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    assert "alice went on, but should wait for bob" in text
    assert "controlled.py" not in text and "backends.py" not in text, "a reader sees the line of the test, not ours"
    assert remains(dsn) == []


@pytest.mark.postgres
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_is_interrupted(
    pytester: pytest.Pytester, dsn: str, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Ctrl-C ends a step that is under way, and the fixture still cleans up; after a kill, the next schedule does."""
    monkeypatch.setenv("LOCKMODEL_TEST_DSN", dsn)
    pytester.makepyfile(f"""
        def test_it(lockmodel_schedule):
            lockmodel_schedule.setup({ACCOUNTS!r})
            alice = lockmodel_schedule.session("alice")
            alice.run("BEGIN")
            alice.run({TOUCH!r}, [1])
            print("ready", flush=True)
            alice.run("SELECT pg_sleep(600)")
    """)
    words = [sys.executable, "-m", "pytest", "-s", "-W", "error", *LOADED]
    with subprocess.Popen(words, cwd=pytester.path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("ready" in line for line in process.stdout)
        process.send_signal(number)
        process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == pytest.ExitCode.INTERRUPTED
        assert remains(dsn) == []
        return
    assert leftovers(dsn) != []
    deadline = time.monotonic() + 30
    while left := leftovers(dsn):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
        with controlled_schedule(dsn):
            pass


@pytest.mark.postgres
def test_an_embedded_server_ends_with_the_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture starts one where no server is named."""
    monkeypatch.delenv("LOCKMODEL_TEST_DSN", raising=False)
    pytester.makepyfile("""
        from pathlib import Path

        def test_where_it_is(lockmodel_schedule, lockmodel_dsn):
            Path("where").write_text(lockmodel_dsn)
            assert lockmodel_schedule.session("alice").run("SELECT 1") == [(1,)]
    """)
    run(pytester).assert_outcomes(passed=1)
    found = re.search(r"host=(\S+)", (pytester.path / "where").read_text())
    assert found is not None and not Path(found[1]).exists()


# The document


@pytest.mark.postgres
def test_the_examples_of_the_document_are_tests(
    pytester: pytest.Pytester, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/pytest.md's Python blocks, as they stand there; its settings are those that pytest knows."""
    page = (ROOT / "docs" / "pytest.md").read_text()
    blocks = BLOCK.findall(page)
    assert len(blocks) == page.count("```python") == 3
    monkeypatch.setenv("LOCKMODEL_TEST_DSN", dsn)
    pytester.makepyfile(**{f"test_block_{number}": block for number, block in enumerate(blocks)})
    (pytester.path / "specs").symlink_to(ROOT / "specs")
    project(pytester, page.split("```toml\n")[1].split("```")[0].partition("\n")[2].replace('"scenarios"', ""))
    run(pytester, *(f"test_block_{number}.py" for number in range(len(blocks)))).assert_outcomes(passed=7)


# Strategies


@settings(max_examples=60)
@given(specs(max_transactions=2, max_steps=2, max_elements=3, max_workers=2))
def test_generated_specs_are_valid_and_within_their_bounds(spec: lockmodel.Spec) -> None:
    """Each can be checked, and its text is the spec."""
    assert len(spec.transactions) <= 2
    assert spec.workers in (1, 2)
    assert spec.sets["stripe"] in (1, 2, 3)
    assert lockmodel.check(spec).verdict.outcome is not lockmodel.Outcome.UNDECIDED
    assert repr(lockmodel.parse(spec.source.text)) == repr(spec)


def test_generated_specs_are_of_both_sorts() -> None:
    """Some deadlock, some do not; with `only_waits` nothing is ever refused."""
    found = set()

    @settings(max_examples=150, database=None)
    @given(spec_texts(only_waits=True))
    def collect(text: str) -> None:
        assert not re.search("LOCKED|NOWAIT|TRY|either|savepoint", text), text
        found.add(lockmodel.check(lockmodel.parse(text)).verdict.outcome)

    collect()
    assert found >= {lockmodel.Outcome.HOLDS, lockmodel.Outcome.VIOLATED}


def test_bounds_out_of_range_are_refused() -> None:
    """With the range in the message."""
    with pytest.raises(ValueError, match="max_transactions must be 1 to 8, not 9"):
        specs(max_transactions=9)
