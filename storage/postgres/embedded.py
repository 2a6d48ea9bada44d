"""The embedded PostgreSQL: a wheel's programs, run as a child of the supervisor.

E1  The server never outlives the supervisor by more than its own shutdown, and never listens on TCP.
E2  A server is started only when no process of an earlier one is left in the cluster; a pid file proves nothing.
E3  One supervisor at a time holds a cluster (flock on `postgres.lock`).
E4  `database.url` exists only while the server takes connections; it is 0600.
E5  Everybody gives a password; the socket's directory is 0700; no mode of a directory we did not make is changed.
"""

import asyncio
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import structlog

from storage.errors import DatabaseUnusable
from storage.files import hold_lock
from storage.postgres.cluster import SUPERUSER, Cluster, find_binaries, write_private
from storage.postgres.connection import CONNECTION_FILE
from storage.postgres.server_user import bare_environment, choose_server_user, make_data_dir, require_reachable

DATABASE = "clickedge"
_PORT = 5432  # only names the socket's file
_SOCKET_PREFIX = "clickedge-"
_POLL_S = 0.1
_REPORT_EVERY_S = 5.0
_CONNECT_TIMEOUT_S = 5.0
_QUIT_TIMEOUT_S = 10.0
_LOG_TAIL_BYTES = 8192
_MAX_LOG_BYTES = 16 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_LOG_LINE = re.compile(r"((?:LOG|ERROR|FATAL|PANIC):  .*)")
_libc = ctypes.CDLL(None, use_errno=True)


class StartFailed(DatabaseUnusable):
    """The server could not be started now: a full disk passes, a broken file does not; the words say which."""

    retryable = True


class EmbeddedPostgres:
    """The server of one data dir. `start` belongs to the main thread: the server dies with the thread that forked it."""

    def __init__(
        self,
        data_dir: Path,
        *,
        log: Any = None,
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
        orphan_patience_s: float = 60.0,
    ) -> None:
        """`settings` are for a new cluster's postgresql.conf; `binaries` default to the wheel's."""
        self._data_dir = data_dir.absolute()
        self._log = log or structlog.get_logger(__name__)
        self._settings = dict(settings or {})
        self._installed_binaries = binaries
        self._orphan_patience_s = orphan_patience_s
        self._lock_fd: int | None = None
        self._cluster: Cluster | None = None
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: asyncio.Future[int] | None = None

    @property
    def pid(self) -> int | None:
        """The running server's process id."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> str:
        """The URL of a server that takes connections, after crash recovery if need be; also after its death.

        DatabaseUnusable for what waiting cannot mend; its subclass StartFailed for what may be mended meanwhile.
        """
        if self.pid is not None:
            raise RuntimeError("the server is running")
        try:
            make_data_dir(self._data_dir)
            self._hold_lock()
            return await self._start_locked()
        except OSError as error:
            raise StartFailed(f"cannot use {error.filename or self._data_dir}: {error.strerror}") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StartFailed(f"PostgreSQL took connections and then failed: {error}") from error

    async def _start_locked(self) -> str:
        self._connection_file.unlink(missing_ok=True)
        try:
            cluster, binaries = await asyncio.to_thread(self._prepare)
            await self._outwait_orphans(cluster)
            self._launch(cluster, binaries)
            url = await self._wait_until_ready(cluster)
            self._publish(url)
        except BaseException:
            await asyncio.shield(self.stop(0))
            raise
        return url

    async def wait(self) -> int:
        """The server's exit code, once it has ended (negative: the signal)."""
        if self._ended is None:
            raise RuntimeError("the server was never started")
        return await asyncio.shield(self._ended)

    async def stop(self, timeout_s: float = 30.0) -> None:
        """End the server: sessions are cut, a checkpoint is written; after `timeout_s` without the checkpoint."""
        self._connection_file.unlink(missing_ok=True)
        for number, patience_s in ((signal.SIGINT, timeout_s), (signal.SIGQUIT, _QUIT_TIMEOUT_S), (signal.SIGKILL, 60)):
            if self._process is None or self._ended is None or self._ended.done():
                break
            self._process.send_signal(number)
            await asyncio.wait([self._ended], timeout=patience_s)
        self._remove_socket_dir()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    @property
    def _connection_file(self) -> Path:
        return self._data_dir / CONNECTION_FILE

    @property
    def _socket_link(self) -> Path:
        """A link to the socket's directory, by which a killed supervisor's is found and removed."""
        return self._data_dir / "postgres.socket"

    @property
    def _log_file(self) -> Path:
        return self._data_dir / "postgres.log"

    def _hold_lock(self) -> None:
        if self._lock_fd is not None:
            return
        self._lock_fd = hold_lock(self._data_dir / "postgres.lock")
        if self._lock_fd is None:
            raise DatabaseUnusable(f"another `clickedge serve` runs the database in {self._data_dir}")

    def _prepare(self) -> tuple[Cluster, Path]:
        user = choose_server_user()
        require_reachable(self._data_dir, user)
        if self._cluster is None:
            installed = self._installed_binaries or find_binaries()
            self._cluster = Cluster(self._data_dir, user, installed, self._settings)
        binaries = self._cluster.reachable_binaries()
        self._cluster.prepare(binaries)
        return self._cluster, binaries

    async def _outwait_orphans(self, cluster: Cluster) -> None:
        """Wait for what is left of an earlier server, which is shutting down; then make it hurry, then end it."""
        began = time.monotonic()
        report = self._reporter("database_waits_for_earlier_server")
        while await asyncio.to_thread(cluster.processes):
            report()
            waited_s = time.monotonic() - began
            if waited_s > self._orphan_patience_s + _QUIT_TIMEOUT_S:
                cluster.signal_processes(signal.SIGKILL)
            elif waited_s > self._orphan_patience_s:
                cluster.signal_processes(signal.SIGQUIT)
            await asyncio.sleep(_POLL_S)
        cluster.forget_pid_file()

    def _launch(self, cluster: Cluster, binaries: Path) -> None:
        self._remove_socket_dir()
        socket_dir = _make_socket_dir()
        self._socket_link.symlink_to(socket_dir)
        cluster.user.own(socket_dir, 0o700)
        command = [
            str(binaries / "postgres"), "-D", str(cluster.directory), "-p", str(_PORT),
            "-c", "listen_addresses=", "-c", f"unix_socket_directories={socket_dir}",
            "-c", "unix_socket_permissions=0700", "-c", "logging_collector=off", "-c", "log_destination=stderr",
        ]  # fmt: skip
        supervisor_pid = os.getpid()

        def die_with_supervisor() -> None:
            # Runs in the child after the change of user, which would clear it.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
            if os.getppid() != supervisor_pid:
                os._exit(1)

        with open(self._rotated_log(), "ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                command, cwd="/", env=bare_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=die_with_supervisor,  # noqa: PLW1509 - it takes no lock
                **cluster.user.popen_arguments(),
            )  # fmt: skip
        self._ended = _watch(self._process)

    def _rotated_log(self) -> Path:
        with suppress(FileNotFoundError):
            if self._log_file.stat().st_size > _MAX_LOG_BYTES:
                self._log_file.replace(self._log_file.with_suffix(".log.1"))
        self._log_file.touch(mode=0o600)
        return self._log_file

    async def _wait_until_ready(self, cluster: Cluster) -> str:
        report = self._reporter("database_starting", hint="after a crash, recovery may take minutes")
        password = cluster.password
        while not await self._can_prepare_database(self._url(password, "postgres")):
            if self._ended is not None and self._ended.done():
                raise StartFailed(
                    f"PostgreSQL ended while starting (code {self._ended.result()}): {self._last_words()};"
                    f" its log is {self._log_file}"
                )
            report()
            await asyncio.sleep(_POLL_S)
        return self._url(password, DATABASE)

    async def _can_prepare_database(self, url: str) -> bool:
        """Whether the server takes connections; if so, our database exists afterwards."""
        try:
            connection = await asyncpg.connect(url, timeout=_CONNECT_TIMEOUT_S)
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise DatabaseUnusable(f"{self._data_dir}/postgres/password is not the cluster's: {error}") from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()
        return True

    def _url(self, password: str, database: str) -> str:
        return f"postgresql://{SUPERUSER}:{password}@/{database}?host={self._socket_link.readlink()}&port={_PORT}"

    def _publish(self, url: str) -> None:
        unfinished = self._connection_file.with_name(CONNECTION_FILE + ".new")
        unfinished.unlink(missing_ok=True)
        write_private(unfinished, url)
        unfinished.rename(self._connection_file)

    def _last_words(self) -> str:
        with open(self._log_file, "rb") as file:
            file.seek(max(self._log_start, self._log_file.stat().st_size - _LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        said = [match[1] for line in lines if (match := _LOG_LINE.search(line))]
        fatal = [index for index, words in enumerate(said) if words.startswith(("FATAL", "PANIC"))]
        # The line before the last word often holds the reason.
        return "; ".join(said[max(0, fatal[0] - 1) : fatal[0] + 1] if fatal else said[-1:]) or "it said nothing"

    def _reporter(self, event: str, **fields: str) -> Callable[[], None]:
        """A function that logs `event` at most every few seconds, the first time after as many."""
        began = last = time.monotonic()

        def report() -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _REPORT_EVERY_S:
                last = now
                self._log.info(event, waited_s=round(now - began), **fields)

        return report

    def _remove_socket_dir(self) -> None:
        if not self._socket_link.is_symlink():
            return
        socket_dir = self._socket_link.readlink()
        # The name may be somebody else's by now.
        is_ours = self._cluster is not None and _is_owned(socket_dir, self._cluster.user.uid)
        if is_ours and socket_dir.name.startswith(_SOCKET_PREFIX):
            shutil.rmtree(socket_dir, ignore_errors=True)
        self._socket_link.unlink()


def socket_parents(environ: Mapping[str, str], *, is_root: bool) -> list[str]:
    """Where the socket's directory may be made, the best first: a socket's path ends at 107 bytes, a data dir's may not."""
    if is_root:
        return ["/run", "/tmp"]  # noqa: S108 - mkdtemp in it is safe
    # A service's own directory (RuntimeDirectory=) first: its /tmp may be one that no command outside sees. /tmp rather
    # than XDG_RUNTIME_DIR, which goes at logout while a `nohup clickedge serve` stays.
    of_service = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return [*filter(None, [of_service]), "/tmp", environ.get("XDG_RUNTIME_DIR", "/var/tmp")]  # noqa: S108 - the same


def _make_socket_dir() -> Path:
    for parent in socket_parents(os.environ, is_root=os.geteuid() == 0):
        with suppress(OSError):
            return Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir=parent))
    raise DatabaseUnusable("no directory for PostgreSQL's socket: neither /tmp nor XDG_RUNTIME_DIR is writable")


def _is_owned(path: Path, uid: int) -> bool:
    try:
        return path.lstat().st_uid == uid
    except FileNotFoundError:
        return False


def _watch(process: subprocess.Popen[bytes]) -> "asyncio.Future[int]":
    """The exit code of `process`, on any event loop."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    descriptor = os.pidfd_open(process.pid)

    def reap() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        code = process.wait()
        if not ended.done():
            ended.set_result(code)

    loop.add_reader(descriptor, reap)
    return ended
