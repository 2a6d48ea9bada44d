"""`clickedge serve`: binds the sockets, starts the children and the embedded Postgres, restarts what dies.

Workers start first, from the catalog snapshot on disk. The drain, the sender and the admin process follow once the
database is migrated and has leased this node's id. SIGTERM: workers finish and sync, the drain stores what they left,
the sender waits for the answers it is owed, the database stops last.
"""

import asyncio
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from edge.admin.catalog_publisher import publish_catalog
from edge.catalog_follower import SNAPSHOT
from edge.counters import Counters, cell, new_block
from edge.errors import UserError
from edge.http.tls import load_tls
from edge.node import admit_admin_token, claim_lease, with_secrets
from edge.offspring import Child
from edge.processes import ChildOrders, stop_requested
from edge.settings import Settings
from edge.vitals import Vitals
from storage.errors import DatabaseUnusable
from storage.files import hold_lock
from storage.postgres.catalog import CatalogMoved
from storage.postgres.connection import connect, is_retryable
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrations import migrate
from storage.postgres.server_user import make_data_dir

log = structlog.get_logger()

WORKERS_FINISH_S = 15.0
DRAIN_FINISH_S = 30.0
ADMIN_FINISH_S = 5.0
SENDER_MARGIN_S = 10.0
"""Beyond the longest time that a partner may take to answer."""
DATABASE_RETRY_S = 1.0
DATABASE_REPORT_S = 5.0
BACKLOG = 4096

Prepare = Callable[[str], Awaitable[None]]
"""What is to be done with the database (its URL) before the drain starts: apply a catalog."""


class Supervisor:
    """One node. `run` returns when it was told to stop; UserError and StorageError: it could not start."""

    def __init__(self, settings: Settings, prepare: Prepare) -> None:
        _raise_descriptor_limit()
        load_tls(settings)  # to say now what a worker would say later
        _make_data_dir(settings.data_path)
        self._lock = _lock_data_dir(settings.data_path)
        self._settings = with_secrets(settings)
        self._prepare = prepare
        self.is_ready = asyncio.Event()
        """Set once the workers answer and the drain and admin process have been started."""
        self._stop = stop_requested()
        self._embedded = None if settings.database_url else EmbeddedPostgres(settings.data_path, log=log)
        self._public, self._admin = self._bind()
        self.public_address: tuple[str, int] = self._public[0].getsockname()[:2]
        """Host and port that clicks come to."""
        self.admin_address: tuple[str, int] = self._admin.getsockname()[:2]
        """Host and port of the admin listener."""
        self._roles = _roles(settings)
        self._blocks = {role: new_block() for role in [*self._roles, ("supervisor", 0)]}
        self._children: dict[str, list[Child]] = {"worker": [], "drain": [], "sender": [], "admin": []}

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        watching = self._watch_itself()
        try:
            self._start("worker")
            serving = asyncio.create_task(self._serve())
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        finally:
            await self._end()
            watching.cancel()

    def _watch_itself(self) -> asyncio.Task[None]:
        counters = Counters.of_fd(self._blocks["supervisor", 0])
        counters.cells[cell("edge_process_up")] = counters.cells[cell("edge_process_starts_total")] = 1
        return asyncio.create_task(Vitals(counters).watch())

    async def _serve(self) -> None:
        """Bring the database up, prepare it, start the rest; then keep the embedded server running."""
        url = await self._start_database(is_first=True)
        await self._insist(url)
        self._start("drain")
        self._start("sender")
        self._start("admin")
        self.is_ready.set()
        while self._embedded:
            code = await self._embedded.wait()
            log.error("database_died", code=code)
            await self._start_database(is_first=False)
        await asyncio.Event().wait()

    async def _start_database(self, *, is_first: bool) -> str:
        """The database's URL. DatabaseUnusable only at the first start: later the workers go on without it."""
        if self._embedded is None:
            return self._settings.database_url
        while True:
            try:
                return await self._embedded.start()
            except DatabaseUnusable as error:
                if is_first and not error.retryable:
                    raise
                log.error("database_failed_to_start", error=str(error))
                await asyncio.sleep(DATABASE_RETRY_S)

    async def _insist(self, url: str) -> None:
        """Migrate, lease the node id, apply the catalog, publish it: again and again while Postgres is away."""
        tries = 0
        while True:
            try:
                await _migrate(url)
                await claim_lease(self._settings, url)
                await admit_admin_token(self._settings, url)
                await self._prepare(url)
                await _publish(url, self._settings.data_path / SNAPSHOT)
                return
            except Exception as error:
                if not (is_retryable(error) or isinstance(error, CatalogMoved)):
                    raise
                if tries % int(DATABASE_REPORT_S / DATABASE_RETRY_S) == 0:
                    log.warning("database_away", error=str(error), hint="redirects go on from what is on disk")
                tries += 1
                await asyncio.sleep(DATABASE_RETRY_S)

    def _bind(self) -> tuple[list[socket.socket], socket.socket]:
        """A socket per worker, all on the public port, held here so that no queued connection dies with a worker."""
        settings = self._settings
        # Alone first: SO_REUSEPORT would join another program's port without a word.
        probe = _bind_socket(settings.host, settings.port, "EDGE_PORT", shared=False)
        port = probe.getsockname()[1]
        probe.close()
        first = _bind_socket(settings.host, port, "EDGE_PORT", shared=True)
        others = [_bind_socket(settings.host, port, "EDGE_PORT", shared=True) for _ in range(settings.workers - 1)]
        admin = _bind_socket(settings.admin_host, settings.admin_port, "EDGE_ADMIN_PORT", shared=False)
        return [first, *others], admin

    def _start(self, role: str) -> None:
        for (name, slot), block in self._blocks.items():
            if name == role:
                child = Child(self._orders(name, slot), Counters.of_fd(block))
                self._children[role].append(child)
                child.start()

    def _orders(self, role: str, slot: int) -> ChildOrders:
        sockets = {"worker": [self._public[slot]] if role == "worker" else [], "admin": [self._admin]}.get(role, [])
        is_admin = role == "admin"
        return ChildOrders(
            role,
            slot,
            self._settings,
            self._blocks[role, slot],
            [sock.fileno() for sock in sockets],
            [(name, number, block) for (name, number), block in self._blocks.items()] if is_admin else [],
        )

    async def _end(self) -> None:
        log.info("stopping")
        for sock in self._public:  # the workers hold their own; once these are done, nobody queues for nobody
            sock.close()
        await self._end_all("worker", WORKERS_FINISH_S)
        sender_finish_s = self._settings.postback_timeout_s + SENDER_MARGIN_S
        await asyncio.gather(self._end_all("drain", DRAIN_FINISH_S), self._end_all("sender", sender_finish_s))
        await self._end_all("admin", ADMIN_FINISH_S)
        if self._embedded:
            await self._embedded.stop()
        os.close(self._lock)
        log.info("stopped")

    async def _end_all(self, role: str, patience_s: float) -> None:
        await asyncio.gather(*(child.stop(patience_s) for child in self._children[role]))


def _roles(settings: Settings) -> list[tuple[str, int]]:
    workers = [("worker", slot) for slot in range(settings.workers)]
    return [*workers, *(("drain", slot) for slot in range(settings.drains)), ("sender", 0), ("admin", 0)]


def _raise_descriptor_limit() -> None:
    """A connection is a descriptor, and a shell's limit of 1024 is soon reached; children inherit this one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _make_data_dir(data_dir: Path) -> None:
    try:
        make_data_dir(data_dir)
    except OSError as error:
        raise UserError(f"EDGE_DATA_DIR: {data_dir} cannot be made: {error.strerror}") from error


def _lock_data_dir(data_dir: Path) -> int:
    try:
        descriptor = hold_lock(data_dir / "serve.lock")
    except OSError as error:
        raise UserError(f"EDGE_DATA_DIR: {data_dir} cannot be written: {error.strerror}") from error
    if descriptor is None:
        raise UserError(f"EDGE_DATA_DIR: another `clickedge serve` runs on {data_dir}")
    return descriptor


def _bind_socket(host: str, port: int, setting: str, *, shared: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        raise UserError(f"{setting}: cannot listen on {host}:{port}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


async def _migrate(url: str) -> None:
    conn = await connect(url)
    try:
        await migrate(conn)
    finally:
        await conn.close()


async def _publish(url: str, snapshot: Path) -> None:
    conn = await connect(url)
    try:
        await publish_catalog(conn, snapshot)
    finally:
        await conn.close()
