"""Composition root of the shipper: reads this machine's journals and has the stream acknowledge every event of them.

It is the workers' only way to other machines, and they do not wait for it, unless they were told to (`replicated`).
Whatever fails, what was not acknowledged is sent again, from the first such place on.
"""

import asyncio
import math
import os
import time
from uuid import UUID

import structlog

from edge.counters import Counters, cell
from edge.logs import RateLimited
from edge.metric_families import SYNC_BUCKETS_US
from edge.processes import ChildOrders, Schedule, stop_requested
from edge.shipper.journals import ShippedJournal, ShippedJournals
from edge.shipper.link import WorkerLinks
from edge.stream_settings import SHIP_LOCK, is_synced, stream_options
from storage.errors import StorageError
from storage.files import hold_lock
from storage.journal.retention import delete_expired, sweep_unborn
from storage.journal.segments import Position
from storage.stream.connection import connect_stream
from storage.stream.publishing import Delivery, Publisher
from storage.stream.resending import Allowance, Resends
from storage.stream.servers import StreamAway

log = structlog.get_logger()
quietly = RateLimited(log, 5.0)

INTERVAL_S = 0.1
"""How long events gather for one message a partition, unless somebody waits for them."""
DISCOVER_S = 0.2
KEEP_S = 1.0
CHORES_S = 10.0
REMIND_S = 300.0
"""How often drains are told of the journals that were shipped: a database that was restored may not know them."""
FINISH_S = 10.0
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0

_MESSAGES = cell("edge_shipped_messages_total")
_EVENTS = cell("edge_shipped_events_total")
_BYTES = cell("edge_shipped_bytes_total")
_ERRORS = cell("edge_ship_errors_total")
_RESENDS = cell("edge_ship_resends_total")
_UNSHIPPED = cell("edge_ship_unshipped_bytes")
_THROUGH = cell("edge_shipped_through_seconds")
_SECONDS = cell("edge_ship_seconds")
_UP = cell("edge_stream_up")
_UNSYNCED = cell("edge_stream_unsynced")


class Shipper:
    """One machine's shipper. `run` returns when it was told to stop, or with `is_done_when_idle` when all is shipped."""

    def __init__(self, orders: ChildOrders, counters: Counters) -> None:
        self._settings = orders.settings
        self._options = stream_options(orders.settings)
        self._counters = counters
        self._journals = ShippedJournals(orders.settings.data_path / "journal")
        self._links = WorkerLinks()
        self._allowance = Allowance()
        self._stop = stop_requested()
        self._wake = asyncio.Event()
        self._next = Schedule()
        self._backoff_s = FIRST_BACKOFF_S

    async def run(self) -> None:
        """Ship until SIGTERM, then what the workers left. StreamUnusable: this stream does not keep what it acknowledges."""
        await self._links.start(self._settings.data_path)
        try:
            while not self._stop.is_set():
                try:
                    await self._ship_over_one_connection()
                except StreamAway as error:
                    self._counters.cells[_ERRORS] += 1
                    quietly.warning("shipping_interrupted", error=str(error))
                    self._journals.discover()
                    await self._keep()
                    await asyncio.to_thread(self._delete, math.inf)
                    await self._stop.within(self._backoff_s)
                    self._backoff_s = min(MAX_BACKOFF_S, self._backoff_s * 2)
        finally:
            await self._keep()
            await self._links.close()

    async def _ship_over_one_connection(self) -> None:
        self._counters.cells[_UNSYNCED] = int(not await is_synced(self._settings))
        connection = await connect_stream(self._options, f"clickedge shipper {self._settings.node_id}", inboxes="edge")
        try:
            await connection.ensure_stream(self._options)
            publisher = Publisher(connection, self._count, self._wake.set)
            resends = await Resends.listen(connection, self._wake.set)
            for journal in self._journals:
                journal.go_back()
                self._tell(journal)
            self._next.pop("remind", None)
            self._counters.cells[_UP] = 1
            self._links.set_stream_up(True)
            log.info("shipper_ready")
            await self._ship(publisher, resends)
        finally:
            self._counters.cells[_UP] = 0
            self._links.set_stream_up(False)
            await connection.close()

    async def _ship(self, publisher: Publisher, resends: Resends) -> None:
        stopping_since_s = 0.0
        while True:
            if self._stop.is_set():
                stopping_since_s = stopping_since_s or time.monotonic()
                if self._stop.is_handover or time.monotonic() - stopping_since_s > FINISH_S:
                    return
            publisher.check()
            if self._next.is_due("discover", DISCOVER_S) or stopping_since_s:
                await self._discover(publisher)
            self._go_back_for(resends)
            had_room, sent = publisher.has_room, await self._send(publisher)
            if self._next.is_due("remind", REMIND_S):
                await publisher.send(await asyncio.to_thread(self._journals.endings))
            self._collect()
            await self._end_finished()
            await self._do_chores()
            is_idle = had_room and not sent and not any(journal.is_under_way for journal in self._journals)
            if stopping_since_s and is_idle:
                return
            if not any(journal.is_behind for journal in self._journals) or not publisher.has_room:
                await self._gather(publisher)

    async def _discover(self, publisher: Publisher) -> None:
        self._journals.discover()
        new = [journal for journal in self._journals if journal.is_new]
        announced: list[Delivery] = [await journal.announce(publisher) for journal in new]
        while not all(delivery.is_done for delivery in announced):
            publisher.check()
            await self._pause_for_news(INTERVAL_S)
        for journal in new:
            journal.is_new = False

    async def _send(self, publisher: Publisher) -> int:
        """What each journal that was announced has next, while there is room; how many events that was."""
        sent = 0
        for journal in self._journals:
            if not publisher.has_room or journal.is_new:
                continue
            try:
                sent += await journal.send_next(publisher)
            except OSError as error:  # of this journal's disk; the others may be read
                quietly.error("journal_unreadable", journal=journal.journal.journal_id.hex, error=str(error))
                journal.go_back()
        return sent

    def _collect(self) -> None:
        """Take in acknowledgements, and tell the workers that wait for them."""
        for journal in self._journals:
            if journal.collect():
                self._backoff_s = FIRST_BACKOFF_S
                self._tell(journal)

    def _tell(self, journal: ShippedJournal) -> None:
        self._links.acknowledged(journal.journal.journal_id, Position(*journal.acknowledged.place))

    async def _end_finished(self) -> None:
        for journal in self._journals:
            if journal.acknowledged.is_finished:
                await asyncio.to_thread(journal.keep)
                self._journals.end(journal)

    def _go_back_for(self, resends: Resends) -> None:
        for request in resends.take():
            journal_id = UUID(bytes=request.journal_id)
            if not self._journals.may_send_again(journal_id, request.place):
                continue
            if not self._allowance.take(journal_id, time.monotonic()):
                quietly.warning("resend_refused", journal=journal_id.hex, place=request.place)
                continue
            journal = self._journals.find(journal_id)
            if journal is not None and journal.is_due_again(request.place):
                journal.resend_from(request.place)
                self._counters.cells[_RESENDS] += 1
                log.warning("shipping_again", journal=journal.journal.journal_id.hex, place=request.place)

    async def _gather(self, publisher: Publisher) -> None:
        """Until it is time to look again: acknowledgements are taken in at once, and who waits for one is not kept waiting."""
        deadline_s = time.monotonic() + INTERVAL_S
        is_told = self._stop.is_set()
        while (left_s := deadline_s - time.monotonic()) > 0 and self._stop.is_set() == is_told:
            if publisher.has_room and self._links.poked.is_set():
                self._links.poked.clear()
                return
            await self._pause_for_news(left_s, *([self._links.poked] if publisher.has_room else []))
            self._collect()

    async def _pause_for_news(self, seconds: float, *others: asyncio.Event) -> None:
        """Until an acknowledgement, a request, the end or one of the others, or so long."""
        events = [self._wake, *others, *([] if self._stop.is_set() else [self._stop])]
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        self._wake.clear()

    async def _do_chores(self) -> None:
        if self._next.is_due("keep", KEEP_S):
            await self._keep()
        if self._next.is_due("delete", CHORES_S):
            await asyncio.to_thread(self._delete, self._settings.journal_keep_s)

    async def _keep(self) -> None:
        """Write down how far all came, and how far that is behind."""
        now_ms = time.time_ns() // 1_000_000
        journals = list(self._journals)
        for journal in journals:
            await asyncio.to_thread(journal.keep)
        cells = self._counters.cells
        cells[_THROUGH] = min((one.acknowledged.watermark_ms for one in journals), default=now_ms)
        cells[_UNSHIPPED] = await asyncio.to_thread(self._measure)

    def _measure(self) -> int:
        return sum(one.unshipped_bytes() for one in self._journals)

    def _delete(self, keep_s: float) -> None:
        root, now_s = self._journals.root, time.time()
        finished = set(self._journals.finished)
        stored_before: dict[UUID, float] = {one.journal.journal_id: one.acknowledged.place[0] for one in self._journals}
        stored_before |= dict.fromkeys(finished, math.inf)
        delete_expired(root, now_s, keep_s, self._settings.journal_max_bytes, finished, stored_before)
        sweep_unborn(root, now_s)

    def _count(self, events: int, size_bytes: int, duration_us: int) -> None:
        cells = self._counters.cells
        cells[_MESSAGES] += 1
        cells[_EVENTS] += events
        cells[_BYTES] += size_bytes
        self._counters.observe(_SECONDS, SYNC_BUCKETS_US, duration_us)


async def run_shipper(orders: ChildOrders, counters: Counters) -> None:
    """Be the machine's shipper until SIGTERM. StorageError: another one runs here, or the stream does not fit."""
    settings = orders.settings
    lock = hold_lock(settings.data_path / SHIP_LOCK)
    if lock is None:
        raise StorageError(f"another shipper runs on {settings.data_dir}")
    try:
        await Shipper(orders, counters).run()
    finally:
        os.close(lock)
