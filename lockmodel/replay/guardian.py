"""The guardian of a throw-away server, and the account that both run as. See `lockmodel.replay.server`."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockmodel.errors import ReplayError
from lockmodel.replay.binaries import DSN_HINT

# Arguments: directories to try, in order, for making ours in. LOCKMODEL_SWEEP: a directory to clean up without making one
# (an environment variable, as `ps` shows arguments and `running` looks at them).
GUARDIAN = r"""
trap '' HUP INT QUIT TERM PIPE
umask 077
home=$LOCKMODEL_SWEEP
for base in "$@"; do
    [ -n "$home" ] || home=$(mktemp -d "$base/lockmodel-XXXXXXXX" 2>/dev/null)
done
[ -n "$home" ] || exit 1
echo "$home"
exec >/dev/null 2>&1
data=$home/data

# The pids of initdb, the postmaster and its children, which work in our directory. Looked up afresh each time and known
# by directory and program, so that neither a reused pid nor a shell that somebody left there is ever signalled.
running() {
    if [ -e /proc/self/cwd ]; then
        for process in /proc/[0-9]*; do
            if [ "$process/cwd" -ef "$home" ] || [ "$process/cwd" -ef "$data" ]; then
                program=$(readlink "$process/exe")
                case ${program##*/} in
                    postgres | initdb | "postgres (deleted)") echo "${process#/proc/}" ;;
                esac
            fi
        done
    else  # macOS; children of the postmaster show our directory's name as cluster_name.
        ps -axww -o pid=,command= | name=${home##*/} awk \
            'index($0, ENVIRON["name"]) && /(initdb|postgres) -D |postgres: / {print $1}'
    fi
}

nap() { sleep 0.03 || sleep 1; }

# stop SIGNAL TRIES: signal initdb and the postmaster, who see to their children themselves, until nothing runs. Again and
# again, as a postmaster that has only just been started is not in its pid file yet.
stop() {
    tries=$2
    while pids=$(running); [ -n "$pids" ]; do
        [ "$tries" -gt 0 ] || return 1
        postmaster=; read -r postmaster < "$data/postmaster.pid"
        for pid in $pids; do
            case "$1 $pid $(readlink "/proc/$pid/exe" || ps -o command= -p "$pid")" in
                KILL* | *" $postmaster "* | */initdb | */initdb\ *) kill "-$1" "$pid" ;;
            esac
        done
        tries=$((tries - 1)); nap
    done
}

read -r word
stop INT 100 || stop QUIT 50 || stop KILL 100

# A postmaster that was killed leaves its small System V segment, the interlock on the data directory: key and id are in
# line 7 of its pid file, which it would have removed otherwise.
if [ -z "$(running)" ] && [ -f "$data/postmaster.pid" ]; then
    set -- $(sed -n 7p "$data/postmaster.pid")
    [ -z "$2" ] || ipcrm -m "$2"
fi
tries=100
while rm -rf "$home"; [ -e "$home" ] && [ "$tries" -gt 0 ]; do tries=$((tries - 1)); nap; done
"""


@dataclass(frozen=True)
class Account:
    """Who runs the server, in the words of `subprocess.Popen`; None: ourselves."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def popen(
        self, command: Sequence[str], *, cwd: Path | str = "/", more: Mapping[str, str] | None = None, **pipes: Any
    ) -> subprocess.Popen[bytes]:
        """Run as this user, in a session of its own: Ctrl-C in our terminal is for us to act on."""
        # What a child needs and no more: PG* would change the server, and secrets are not for the user `nobody`.
        kept = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
        path = f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".lstrip(":")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        return subprocess.Popen(
            command,
            cwd=cwd,
            env={**environment, "PATH": path, "LC_ALL": "C", **(more or {})},
            start_new_session=True,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else (),
            **pipes,
        )


def server_account() -> Account:
    import pwd  # Not there on Windows, where `start()` has refused already.

    if os.geteuid() != 0:
        return Account(f"user {os.geteuid()}")
    for name in ("nobody", "postgres"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(f"user {name}", entry.pw_uid, entry.pw_gid)
    raise ReplayError(f"postgres can't run as root, and there is no user nobody or postgres: {DSN_HINT}")
