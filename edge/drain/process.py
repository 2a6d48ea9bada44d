"""Composition root of a drain: follows this node's journals into Postgres, one transaction a batch."""

import os
import random
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from edge.counters import Counters, cell
from edge.drain.catalogs import CatalogHistory
from edge.drain.contents import Entry, Piece
from edge.drain.journals import MAX_BATCH_BYTES, Feed, JournalFeeds
from edge.drain.rows import RowMaker
from edge.drain.storing import Store
from edge.drain.tombstone_file import TombstoneFile
from edge.drain.unique_sharing import SharedUniques
from edge.drain.uniques import Uniques
from edge.enrich import Enricher
from edge.logs import RateLimited
from edge.processes import ChildOrders, Schedule, stop_requested
from edge.settings import Settings
from edge.tracking.sessions import Sessions
from storage.errors import DatabaseUnusable, StorageError
from storage.files import hold_lock
from storage.journal.reader import Batch
from storage.journal.segments import Position
from storage.postgres.connection import Connection, connect, is_retryable
from storage.postgres.conversions import count_waiting, forget_decided
from storage.postgres.installation import SameDatabase, remember
from storage.postgres.positions import PositionMoved

if TYPE_CHECKING:
    from edge.drain.streamed import Streamed

log = structlog.get_logger()
quietly = RateLimited(log, 5.0)

DISCOVER_S = 0.2
DUE_S = 0.25
CHORES_S = 10.0
PARTITIONS_AHEAD_DAYS = 7
STATEMENT_TIMEOUT_S = 120.0
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
FORGET_AFTER = timedelta(days=90)
OVERTAKEN_WITHIN = timedelta(minutes=5)
"""Longer than any transaction lasts, and many times the chores' interval."""

_ERRORS = cell("edge_drain_errors_total")
_DATABASE_ERRORS = cell("edge_database_errors_total")
_CORRUPT = cell("edge_journal_corrupt_records_total")
_THROUGH = cell("edge_drained_through_seconds")
_WAITING = cell("edge_conversions_waiting")


class Drain:
    """One drain process."""

    def __init__(self, orders: ChildOrders, counters: Counters) -> None:
        settings = orders.settings
        self._orders = orders
        self._settings = settings
        self._counters = counters
        self._feeds = JournalFeeds(settings, orders.slot)
        self._uniques = _make_uniques(settings, counters, orders.slot)
        rows = RowMaker(Enricher.of(settings), settings, self._uniques.is_repeat if self._uniques.is_on else None)
        history = CatalogHistory()
        sessions: Sessions[bytes] = Sessions(settings.session_capacity)
        self._store = Store(rows, settings, history, sessions, self._uniques, counters)
        self._streamed = _make_streamed(orders, self._store, counters)
        self._tombstones = TombstoneFile(settings.data_path, settings.secrets) if orders.slot == 0 else None
        self._stop = stop_requested()
        self._same = SameDatabase()
        self._next = Schedule()
        self._backoff_s = FIRST_BACKOFF_S

    async def run(self) -> None:
        """Store until SIGTERM, then what is left of journals whose workers are gone. SIGHUP: that is the next one's."""
        while True:
            try:
                self._feeds.make_room()
                conn = await connect(
                    self._orders.resolve_database(),
                    application_name=f"clickedge drain {self._orders.slot}",
                    command_timeout_s=STATEMENT_TIMEOUT_S,
                )
                try:
                    await self._same.check(conn)
                    await remember(conn, "timezone", self._settings.timezone)
                    self._feeds.forget_all()
                    if self._streamed:
                        self._streamed.forget_all()
                    self._uniques.doubt()
                    self._store.erasures.doubt()
                    if self._tombstones:
                        await self._tombstones.restore(conn)
                    log.info("drain_ready")
                    await self._follow(conn)
                    return
                finally:
                    conn.terminate()
            except Exception as error:
                # A DatabaseUnusable passes too: the embedded server may be starting again.
                if not (is_retryable(error) or isinstance(error, DatabaseUnusable)):
                    raise
                self._counters.cells[_ERRORS] += 1
                self._counters.cells[_DATABASE_ERRORS] += 1
                quietly.warning("drain_interrupted", error=str(error), kind=type(error).__name__)
            if self._stop.is_set():
                return
            await self._stop.within(self._backoff_s)
            self._backoff_s = min(MAX_BACKOFF_S, self._backoff_s * 2)

    async def close(self) -> None:
        """Let go of the stream."""
        if self._streamed:
            await self._streamed.close()

    async def _follow(self, conn: Connection) -> None:
        while True:
            is_last_round = self._stop.is_set()
            if is_last_round or self._next.is_due("discover", DISCOVER_S):
                await self._feeds.discover(conn)
            stored = 0
            for feed in self._feeds:
                stored += await self._advance(conn, feed)
                if self._streamed:
                    await self._streamed.keep_leases(conn)
            if self._streamed and not is_last_round:
                stored += await self._streamed.advance(conn)
                await self._streamed.refresh(conn)
            if is_last_round or self._next.is_due("due", DUE_S):
                stored += await self._store.settle_due(conn)
            self._counters.cells[_THROUGH] = min(self._through_ms(), default=0)
            if self._next.is_due("chores", CHORES_S):
                await self._do_chores(conn)
            if is_last_round and (self._stop.is_handover or not stored):
                if self._streamed:
                    await self._streamed.leave(conn)
                return
            if not self._is_behind():
                await self._stop.within(0 if is_last_round else self._settings.batch_interval_ms / 1000)

    async def _advance(self, conn: Connection, feed: Feed) -> int:
        """Store the feed's next batch; how many entries there were."""
        started_ms = time.time_ns() // 1_000_000
        try:
            batch = feed.read(self._settings.batch_rows)
        except OSError as error:  # of this journal's disk; the others may be read
            self._counters.cells[_ERRORS] += 1
            quietly.error("journal_unreadable", journal=feed.journal_id.hex, error=str(error))
            feed.rewind(feed.position)
            feed.is_behind = False
            return 0
        entries = _in_order(batch)
        if entries or batch.end != feed.position:
            await self._store_batch(conn, feed, entries, batch.end)
            self._counters.cells[_CORRUPT] += len(batch.damaged)
        feed.is_behind = len(entries) >= self._settings.batch_rows or batch.size_bytes >= MAX_BATCH_BYTES
        feed.through_ms = self._store.watermark_ms if feed.is_behind else started_ms
        if batch.finished:
            await self._feeds.end(conn, feed)
        return len(entries)

    async def _store_batch(self, conn: Connection, feed: Feed, entries: list[Entry], end: Position) -> None:
        try:
            await self._store.store(conn, [Piece(feed.journal_id, feed.position, entries, end)])
        except PositionMoved:
            log.critical("drain_not_alone", journal=feed.journal_id.hex, hint="another drain stores this journal")
            self._uniques.forget_all()
            raise
        feed.commit(end)
        self._backoff_s = FIRST_BACKOFF_S

    async def _do_chores(self, conn: Connection) -> None:
        now = datetime.now(UTC)
        await self._store.partitions.ensure_ahead(conn, now.date(), PARTITIONS_AHEAD_DAYS)
        await self._store.settle_overtaken(conn, now - OVERTAKEN_WITHIN)
        await forget_decided(conn, now - FORGET_AFTER)
        await self._uniques.tidy(conn)
        if self._tombstones:
            await self._tombstones.follow(conn)
        self._counters.cells[_WAITING] = await count_waiting(conn)
        if self._streamed:
            await self._streamed.do_chores(conn)
        self._feeds.delete_expired()

    def _is_behind(self) -> bool:
        is_stream_behind = self._streamed is not None and self._streamed.is_behind
        return is_stream_behind or any(feed.is_behind for feed in self._feeds)

    def _through_ms(self) -> list[int]:
        """Through when each thing that this drain stores is stored."""
        streamed = [self._streamed.through_ms] if self._streamed else []
        return [*streamed, *(feed.through_ms for feed in self._feeds)]


def _make_uniques(settings: Settings, counters: Counters, slot: int) -> Uniques:
    if settings.stream_url:
        return SharedUniques(settings, counters, random.getrandbits(31), is_everywhere=True)
    return Uniques(settings, counters) if settings.drains == 1 else SharedUniques(settings, counters, slot)


def _make_streamed(orders: ChildOrders, store: Store, counters: Counters) -> "Streamed | None":
    if not orders.settings.stream_url:
        return None
    from edge.drain.streamed import Streamed  # noqa: PLC0415 - without a stream, its library is not imported

    name = f"drain {socket.gethostname()} {os.getpid()} {orders.slot}"
    return Streamed(orders.settings, store, counters, name)


def _in_order(batch: Batch) -> list[Entry]:
    """Records and damaged regions as they lie in the journal."""
    if not batch.damaged:
        return list(batch.records)
    return sorted([*batch.records, *batch.damaged], key=lambda entry: (entry.segment, entry.byte_offset))


async def run_drain(orders: ChildOrders, counters: Counters) -> None:
    """Be drain number `orders.slot` until SIGTERM. StorageError: another drain of this number runs here."""
    lock = hold_lock(orders.settings.data_path / f"drain-{orders.slot}.lock")
    if lock is None:
        raise StorageError(f"another drain {orders.slot} runs on {orders.settings.data_dir}")
    drain = Drain(orders, counters)
    try:
        await drain.run()
    finally:
        await drain.close()
        os.close(lock)
