"""Composition root of an edge worker: builds everything, owns the order of start and stop.

It answers from the catalog snapshot on disk, its own sessions and its own journal; nothing here waits for Postgres,
except that a data dir which never held its node's lease must get it first, and a first start waits for a catalog.
"""

import asyncio
import os
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from edge.catalog_follower import SNAPSHOT, CatalogFollower
from edge.counters import Counters, cell
from edge.enrich import CHECK_INTERVAL_S, Enricher
from edge.http.handshakes import Handshakes
from edge.http.port import FRESH_S, PublicPort
from edge.http.tls import load_tls
from edge.metric_families import SYNC_BUCKETS_US
from edge.node import holds_lease
from edge.processes import ANSWERS, STANDS_BY, ChildOrders, stop_requested
from edge.replication import ReplicationCounts, ShipperLink
from edge.state_follower import STATE, StateFollower
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import ClickIds
from edge.tracking.macros import compile_template
from edge.tracking.redirects import Hops
from edge.tracking.sessions import Sessions
from edge.tracking.state import EdgeState
from edge.tracking.visitors import Visitors
from storage.errors import LeaseHeld, StorageError
from storage.journal.commit import DISK, PROCESS, REPLICATED, GroupCommit
from storage.journal.events import Heartbeat, encode
from storage.journal.writer import JournalWriter
from storage.leases import IdLease
from storage.state_file import PublishedState

log = structlog.get_logger()

HEARTBEAT_S = 1.0
TAKE_OVER_S = 0.005
"""How often a successor looks whether the slot is free."""
LEASE_CHECK_S = 0.1
NOT_READY_S = 0.5
"""How long `/readyz` says 503 before nothing more is accepted: a balancer's next look."""
FINISH_S = 10.0
SPARE_DESCRIPTORS = 128
"""Kept from connections, for the journal, the lease and the catalog."""
UNUSABLE_GEOIP_S = 1
"""Built in 1970, as it were: whoever waits for an old geo database hears of one that cannot be read, too."""
MAX_SEGMENT_BYTES = 64 * 2**20
BROKEN_EXIT = 70
DURABILITIES = {"process": PROCESS, "disk": DISK, "replicated": REPLICATED}

_SYNC = cell("edge_journal_sync_seconds")
_SESSIONS = cell("edge_sessions")
_MOST_SESSIONS = cell("edge_sessions_max")
_JOURNALLED = cell("edge_events_journalled_total")
_BYTES = cell("edge_journal_bytes_total")
_WRITE_ERRORS = cell("edge_journal_write_errors_total")
_LAG = cell("edge_loop_lag_seconds")
_ROTATIONS = cell("edge_journal_rotations_total")
_CONNECTIONS = cell("edge_connections")
_GEOIP_BUILT = cell("edge_geoip_built_seconds")
_REVISION = cell("edge_catalog_revision")
_LOADS = cell("edge_catalog_loads_total", "ok")
_FAILED_LOADS = cell("edge_catalog_loads_total", "failed")
_STATES = cell("edge_state_loads_total", "ok")
_FAILED_STATES = cell("edge_state_loads_total", "failed")


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Worker:
    """One edge worker, from `run` to its end."""

    def __init__(self, orders: ChildOrders, counters: Counters) -> None:
        self._settings = orders.settings
        self._slot = orders.slot
        self._is_successor = orders.is_successor
        self._progress_fd = orders.progress_fd
        self._sockets = [socket.socket(fileno=fd) for fd in orders.listen_fds]
        self._counters = counters
        self._stop = stop_requested()
        self._is_stopping = False
        self._threads = ThreadPoolExecutor(2, "worker")

    async def run(self) -> None:
        """Serve until SIGTERM or SIGHUP; then finish what was begun, sync and return."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self._threads)
        follower = CatalogFollower(self._settings.data_path / SNAPSHOT, self._take_catalog, self._refuse_catalog)
        loading = loop.run_in_executor(self._threads, self._load_enricher)
        if not await self._wait_for_permission(follower):
            return
        enricher = await loading
        tls = load_tls(self._settings)  # now: a predecessor gives its place to nobody whose certificate is bad
        self._say(STANDS_BY)
        if not await self._take_slot():
            return
        await follower.load()
        self._open(enricher)
        self._state.catalog = follower.catalog
        states = StateFollower(self._settings.data_path / STATE, self._take_state, self._refuse_state)
        states.take_new()
        tasks = [
            loop.create_task(job, name=name)
            for name, job in (
                ("catalog", follower.run()),
                ("state", states.run()),
                ("lease", self._keep_lease()),
                ("heartbeat", self._beat()),
                ("gauges", self._measure()),
                ("deadlines", self._port.watch()),
                ("geoip", self._follow_geoip(enricher)),
                ("shipper link", self._follow_stream()),
            )
        ]
        for task in tasks:
            task.add_done_callback(self._check)
        servers = [await self._port.listen(sock, tls) for sock in self._sockets]
        self._say(ANSWERS)
        log.info("worker_ready", catalog_revision=self._state.catalog.revision, journal=self._journal_id)
        await self._stop.wait()
        await self._finish(servers, tasks)

    async def _wait_for_permission(self, follower: CatalogFollower) -> bool:
        """Until the node's lease was once held and there is a catalog; False when told to stop meanwhile."""
        is_said = False
        while not self._stop.is_set():
            if holds_lease(self._settings) and await follower.load():
                return True
            if not is_said:
                log.info("worker_waiting", reason="for the first node lease and catalog, both from Postgres")
                is_said = True
            await asyncio.sleep(0.05)
        return False

    def _load_enricher(self) -> Enricher:
        """A third of a second and a file of any size: for a thread."""
        enricher = Enricher.of(self._settings, checks_itself=False)
        enricher.take(enricher.look())
        return enricher

    def _say(self, step: bytes) -> None:
        """Tell the supervisor how far this is, if it listens."""
        if self._progress_fd >= 0:
            os.write(self._progress_fd, step)

    async def _take_slot(self) -> bool:
        """Lease the slot's ids, as soon as a predecessor has let go of them; False when told to stop meanwhile."""
        path = self._settings.data_path / "ids" / f"worker-{self._slot}.lease"
        while not self._stop.is_set():
            try:
                self._lease = IdLease.open(path, now_ms())
            except LeaseHeld:
                if not self._is_successor:
                    raise
                await asyncio.sleep(TAKE_OVER_S)
            else:
                return True
        return False

    def _open(self, enricher: Enricher) -> None:
        settings = self._settings
        root = settings.data_path / "journal"
        try:
            writer = JournalWriter.create(
                root,
                node_id=settings.node_id,
                worker_id=self._slot,
                now_ms=now_ms(),
                max_segment_bytes=min(
                    MAX_SEGMENT_BYTES, max(64 * 1024, settings.journal_max_bytes // (32 * settings.workers))
                ),
                partitions=settings.stream_partitions if settings.stream_url else 0,
                waits_for_room=True,
            )
        except OSError as error:
            raise StorageError(f"cannot begin a journal in {root}: {error.strerror}") from error
        self._journal_id = writer.journal_id.hex
        self._writer, self._counted_segment = writer, writer.appended.segment
        self._journal = GroupCommit(
            writer,
            max_bytes=settings.journal_max_bytes,
            fsync_interval_ms=settings.fsync_interval_ms,
            observe_sync=lambda duration_us: self._counters.observe(_SYNC, SYNC_BUCKETS_US, duration_us),
            on_broken=self._break,
            observe_write=self._count_write,
            watch=ReplicationCounts(self._counters),
        )
        self._counters.cells[_MOST_SESSIONS] = settings.session_capacity
        self._state = EdgeState(
            Catalog.empty(),
            ClickIds(settings.secrets, settings.node_id, self._slot, self._lease),
            Sessions(settings.session_capacity),
            self._counters,
            compile_template(settings.fallback_url) if settings.fallback_url else None,
            settings.honour_gpc,
            honour_dnt=settings.honour_dnt,
            visitors=Visitors(settings.secrets[0]),
            hops=Hops(settings.secrets),
            enrichment=enricher,
        )
        self._port = PublicPort(
            self._state,
            self._journal,
            readiness=self._readiness,
            on_broken=self._break,
            trusted=settings.trusted_networks,
            durable_clicks=DURABILITIES[settings.click_durability],
            durable_conversions=DURABILITIES[settings.conversion_durability],
            is_lane_on=settings.lane,
            has_proxy=settings.proxy_protocol,
            max_connections=max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS),
            client_connections=settings.client_connections,
        )

    async def _finish(self, servers: list[asyncio.Server | Handshakes], tasks: list[asyncio.Task[None]]) -> None:
        if self._stop.is_handover:
            await self._port.retire(0)
        else:
            self._is_stopping = True
            await self._port.retire(NOT_READY_S)
        for server in servers:
            server.close()
        # A TLS handshake that has begun is no connection yet.
        await self._port.shutdown(FINISH_S, least_s=FRESH_S if self._settings.tls_cert else 0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._journal.close()
        self._measure_once()
        self._lease.close()
        log.info("worker_finished")

    def _readiness(self) -> tuple[int, str]:
        if self._is_stopping:
            return 503, "stopping"
        if self._journal.is_nearly_full:
            return 200, "degraded: the journal is nearly full, clicks are answered but not recorded"
        return 200, "ready"

    def _take_catalog(self, catalog: Catalog) -> None:
        self._state.catalog = catalog
        self._counters.cells[_LOADS] += 1
        log.info("catalog_taken", revision=catalog.revision)

    def _refuse_catalog(self, error: Exception) -> None:
        self._counters.cells[_FAILED_LOADS] += 1
        log.error("catalog_refused", error=str(error))

    def _take_state(self, state: PublishedState) -> None:
        self._state.capped = {(offer_id, aff_id): until_ms for offer_id, aff_id, until_ms in state.capped}
        # A click with such an id, seen here a moment ago, may not have been published yet.
        self._state.has_external_ids |= state.has_external_ids
        self._counters.cells[_STATES] += 1
        log.info("state_taken", capped=len(state.capped))

    def _refuse_state(self, error: Exception) -> None:
        self._counters.cells[_FAILED_STATES] += 1
        log.error("state_refused", error=str(error))

    async def _keep_lease(self) -> None:
        while True:
            if self._lease.needs_extension(now_ms()):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._lease.extend, now_ms())
            await asyncio.sleep(LEASE_CHECK_S)

    async def _follow_geoip(self, enricher: Enricher) -> None:
        """The database is looked at and opened beside the loop, and used from one click to the next."""
        while self._settings.geoip_db:
            self._counters.cells[_GEOIP_BUILT] = enricher.geoip_built_s or UNUSABLE_GEOIP_S
            await asyncio.sleep(CHECK_INTERVAL_S)
            enricher.take(await asyncio.get_running_loop().run_in_executor(self._threads, enricher.look))

    async def _follow_stream(self) -> None:
        """What the stream has acknowledged, if anything waits for that."""
        if "replicated" in (self._settings.click_durability, self._settings.conversion_durability):
            await ShipperLink(self._settings.data_path, self._writer.journal_id, self._journal.replicas).run()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            beat = Heartbeat(self._state.ids.floor(now_ms()))
            self._journal.append(encode(beat), lambda is_written: None, is_droppable=False, durability=PROCESS)

    async def _measure(self) -> None:
        """Gauges, four times a second; how late this wakes up is the loop's lag."""
        loop = asyncio.get_running_loop()
        worst_us = [0, 0, 0, 0]
        turn = 0
        while True:
            due_s = loop.time() + 0.25
            await asyncio.sleep(0.25)
            worst_us[turn % 4] = max(0, int((loop.time() - due_s) * 1e6))
            self._counters.cells[_LAG] = max(worst_us)
            turn += 1
            self._measure_once()

    def _measure_once(self) -> None:
        cells = self._counters.cells
        cells[_SESSIONS] = len(self._state.sessions)
        cells[_REVISION] = self._state.catalog.revision
        cells[_CONNECTIONS] = self._port.connection_count
        segment = self._writer.appended.segment
        cells[_ROTATIONS] += segment - self._counted_segment
        self._counted_segment = segment

    def _count_write(self, events: int, byte_count: int, errors: int) -> None:
        cells = self._counters.cells
        cells[_JOURNALLED] += events
        cells[_BYTES] += byte_count
        cells[_WRITE_ERRORS] += errors

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """An fsync or a background task failed: stop at once, before anything else is answered."""
        log.critical("worker_broken", error=str(error), kind=type(error).__name__)
        os._exit(BROKEN_EXIT)


async def run_worker(orders: ChildOrders, counters: Counters) -> None:
    """Be worker number `orders.slot` until SIGTERM. StorageError: the surroundings do not allow it."""
    await Worker(orders, counters).run()
