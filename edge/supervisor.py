"""`clickedge serve`: binds the sockets, starts the children and the embedded Postgres, restarts what dies.

Workers start first, from the catalog snapshot on disk, and with a stream the shipper. The drain, the sender and the admin process follow once the
database is migrated and has leased this node's id. SIGTERM: workers finish and sync, the drain stores what they left,
the sender waits for the answers it is owed, the database stops last.

SIGHUP: the code that is installed now migrates the database, then each process is replaced by one of that code, workers
first and one by one. Whatever of it fails, what still runs goes on.
"""

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from edge.admin.catalog_publisher import publish_catalog
from edge.catalog_follower import SNAPSHOT
from edge.counters import Counters, cell, new_block
from edge.errors import UserError
from edge.http.tls import load_tls
from edge.listening import listen
from edge.migrating import MIGRATION_S, migrate_database
from edge.node import admit_admin_token, claim_lease, with_secrets
from edge.offspring import Child, run_once
from edge.processes import ChildOrders, stop_requested
from edge.settings import Settings
from edge.systemd import HandedOver, Notifier
from edge.vitals import Vitals
from edge.waiting_journals import judge_waiting
from storage.errors import DatabaseUnusable
from storage.files import hold_lock
from storage.postgres.catalog import CatalogMoved
from storage.postgres.connection import connect, is_retryable
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.server_user import make_data_dir

log = structlog.get_logger()

WORKERS_FINISH_S = 20.0
SHIPPER_FINISH_S = 15.0
DRAIN_FINISH_S = 30.0
ADMIN_FINISH_S = 5.0
SENDER_MARGIN_S = 10.0
"""Beyond the longest time that a partner may take to answer."""
DATABASE_RETRY_S = 1.0
DATABASE_REPORT_S = 5.0

Prepare = Callable[[str], Awaitable[None]]
"""What is to be done with the database (its URL) before the drain starts: apply a catalog."""


class Supervisor:
    """One node. `run` returns when it was told to stop; UserError and StorageError: it could not start."""

    def __init__(
        self,
        settings: Settings,
        prepare: Prepare,
        given: HandedOver,
        notifier: Notifier,
    ) -> None:
        """`given`: sockets of the service manager; `notifier`: how it hears of the node's state."""
        _raise_descriptor_limit()
        load_tls(settings)  # to say now what a worker would say later
        _make_data_dir(settings.data_path)
        self._lock = _lock_data_dir(settings.data_path)
        judge_waiting(settings)
        self._settings = with_secrets(settings)
        self._prepare = prepare
        self.is_ready = asyncio.Event()
        """Set once the workers answer and the drain and admin process have been started."""
        self._stop = stop_requested()
        self._embedded = None if settings.database_url else EmbeddedPostgres(settings.data_path, log=log)
        self._sockets = listen(settings, given)
        self.public_address: tuple[str, int] = self._sockets.public[0][0].getsockname()[:2]
        """Host and port that clicks come to."""
        self.admin_address: tuple[str, int] = self._sockets.admin.getsockname()[:2]
        """Host and port of the admin listener."""
        self._roles = _roles(settings)
        self._blocks = {role: new_block() for role in [*self._roles, ("supervisor", 0)]}
        self._children: dict[str, list[Child]] = {role: [] for role in ("worker", "shipper", "drain", "sender", "admin")}
        self._notifier = notifier
        self._reload_asked = asyncio.Event()
        self._has_terminal = sys.stdin is not None and sys.stdin.isatty()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        watching = self._watch_itself()
        try:
            self._start("worker")
            self._start("shipper")
            stopping = asyncio.create_task(self._stop.wait())
            jobs = [asyncio.create_task(job) for job in (self._serve(), self._announce(), self._reload_when_told())]
            await asyncio.wait((*jobs, stopping), return_when=asyncio.FIRST_COMPLETED)
            for job in jobs:
                if job.done():
                    job.result()
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
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
                await migrate_database(url)
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

    def _hang_up(self) -> None:
        """SIGHUP: a reload, or the end of the terminal that this was started from."""
        if self._has_terminal and not sys.stdin.isatty():
            self._stop.set()
        else:
            self._reload_asked.set()

    async def _announce(self) -> None:
        """Tell the service manager once all workers answer; the database may still be away."""
        for child in self._children["worker"]:
            await child.answers()
        self._notifier.tell("READY=1")
        await asyncio.Event().wait()

    async def _reload_when_told(self) -> None:
        """One reload after the other, each of what is installed when it begins; none before the start is over."""
        while True:
            await self._reload_asked.wait()
            await self.is_ready.wait()
            self._reload_asked.clear()
            self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            log.info("reloading")
            if await self._reload():
                log.info("reloaded")
            else:
                log.error("reload_given_up", hint="what was not replaced runs on; mend what is installed, and reload again")
            self._notifier.tell("READY=1")

    async def _reload(self) -> bool:
        """Replace everybody; False as soon as that does not succeed."""
        block = new_block()  # whoever is shown on the metrics page still counts into its own
        try:
            if await run_once(self._orders("migration", 0, block), MIGRATION_S) != 0:
                return False
        finally:
            os.close(block)
        patience_s = {
            "worker": WORKERS_FINISH_S,
            "shipper": SHIPPER_FINISH_S,
            "drain": DRAIN_FINISH_S,
            "sender": self._sender_finish_s,
        }
        for role, children in self._children.items():
            for child in children:
                if not await child.replace(patience_s.get(role, ADMIN_FINISH_S), stands_by=role == "worker"):
                    return False
        return True

    def _start(self, role: str) -> None:
        for (name, slot), block in self._blocks.items():
            if name == role:
                child = Child(self._orders(name, slot, block), Counters.of_fd(block))
                self._children[role].append(child)
                child.start()

    def _orders(self, role: str, slot: int, block: int) -> ChildOrders:
        public, admin = self._sockets
        sockets = {"worker": public[slot] if role == "worker" else [], "admin": [admin]}.get(role, [])
        is_admin = role == "admin"
        return ChildOrders(
            role,
            slot,
            self._settings,
            block,
            [sock.fileno() for sock in sockets],
            [(name, number, block) for (name, number), block in self._blocks.items()] if is_admin else [],
        )

    async def _end(self) -> None:
        log.info("stopping")
        self._notifier.tell("STOPPING=1")
        self._sockets.close_public()  # the workers hold their own; once these are done, nobody queues for nobody
        await self._end_all("worker", WORKERS_FINISH_S)
        await self._end_all("shipper", SHIPPER_FINISH_S)
        await asyncio.gather(self._end_all("drain", DRAIN_FINISH_S), self._end_all("sender", self._sender_finish_s))
        await self._end_all("admin", ADMIN_FINISH_S)
        if self._embedded:
            await self._embedded.stop()
        os.close(self._lock)
        log.info("stopped")

    @property
    def _sender_finish_s(self) -> float:
        return self._settings.postback_timeout_s + SENDER_MARGIN_S

    async def _end_all(self, role: str, patience_s: float) -> None:
        await asyncio.gather(*(child.stop(patience_s) for child in self._children[role]))


def _roles(settings: Settings) -> list[tuple[str, int]]:
    workers = [("worker", slot) for slot in range(settings.workers)]
    shippers = [("shipper", 0)] if settings.stream_url and settings.shipper else []
    drains = [("drain", slot) for slot in range(settings.drains)]
    return [*workers, *shippers, *drains, ("sender", 0), ("admin", 0)]


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


async def _publish(url: str, snapshot: Path) -> None:
    conn = await connect(url)
    try:
        await publish_catalog(conn, snapshot)
    finally:
        await conn.close()
