"""PostgreSQL as a machine of its own: the wheel's programs, on a TCP port that stays the same over kills."""

import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import asyncpg

from benchmarks.nats import die_with_parent, free_port
from storage.files import hold_lock
from storage.postgres.cluster import SUPERUSER, Cluster, find_binaries
from storage.postgres.server_user import bare_environment, choose_server_user, make_data_dir, require_reachable

HOST, NAME = "127.0.0.1", "clickedge"
READY_S, STOP_S, GONE_S = 90.0, 60.0, 30.0
_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class DatabaseFailed(Exception):
    """The server did not do in time what it had to."""


class Database:
    """One server. Start it from the main thread: it dies with the thread that started it."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        """`port` 0: a free one."""
        self._directory = directory
        self._port = port or free_port([HOST])
        self._process: subprocess.Popen[bytes] | None = None
        make_data_dir(directory)
        self._lock = hold_lock(directory / "postgres.lock")
        if self._lock is None:
            raise DatabaseFailed(f"another process runs the database in {directory}")
        user = choose_server_user()
        require_reachable(directory, user)
        self._cluster = Cluster(directory, user, find_binaries(), {})
        self._binaries = self._cluster.reachable_binaries()
        self._cluster.prepare(self._binaries)

    @property
    def url(self) -> str:
        """For everybody."""
        return self._url(NAME)

    @property
    def pid(self) -> int:
        """Its main process. DatabaseFailed: it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise DatabaseFailed("PostgreSQL does not run")
        return self._process.pid

    async def start(self) -> None:
        """Until it takes connections, after crash recovery if need be; the database exists afterwards."""
        await self._outwait_orphans()
        self._launch()
        deadline_s = time.monotonic() + READY_S
        while not await self._has_database():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline_s:
                words = self._log.read_text(errors="replace")[-1500:]
                raise DatabaseFailed(f"PostgreSQL did not start within {READY_S:.0f} s: {words}")
            await asyncio.sleep(0.1)

    async def kill(self) -> None:
        """kill -9 of its main process; its children end by themselves, and are waited for."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        await asyncio.to_thread(self._process.wait, GONE_S)
        await self._outwait_orphans()

    def stop(self) -> None:
        """Sessions are cut, a checkpoint is written. Nothing if it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_S)

    async def answers(self) -> bool:
        """Whether it takes a connection within a second."""
        try:
            conn = await asyncpg.connect(self.url, timeout=1)
        except _AWAY:
            return False
        conn.terminate()
        return True

    async def _outwait_orphans(self) -> None:
        deadline_s = time.monotonic() + GONE_S
        while await asyncio.to_thread(self._cluster.processes):
            if time.monotonic() > deadline_s:
                raise DatabaseFailed("processes of the killed PostgreSQL do not end")
            await asyncio.sleep(0.1)
        self._cluster.forget_pid_file()

    def _launch(self) -> None:
        command = [
            str(self._binaries / "postgres"), "-D", str(self._cluster.directory), "-p", str(self._port),
            "-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories=", "-c", "logging_collector=off",
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd="/", env=bare_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent(),  # noqa: PLW1509 - it takes no lock
                **self._cluster.user.popen_arguments(),
            )  # fmt: skip

    async def _has_database(self) -> bool:
        try:
            conn = await asyncpg.connect(self._url("postgres"), timeout=2)
        except _AWAY:
            return False
        try:
            if not await conn.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", NAME):
                await conn.execute(f"CREATE DATABASE {NAME}")
        finally:
            with suppress(*_AWAY):
                await conn.close()
        return True

    def _url(self, name: str) -> str:
        return f"postgresql://{SUPERUSER}:{self._cluster.password}@{HOST}:{self._port}/{name}"

    @property
    def _log(self) -> Path:
        return self._directory / "postgres.log"
