"""Composition root of the sender: takes due postbacks from the outbox, sends them, logs how each attempt ended.

At least once: an attempt is logged in one transaction with its row's new state, after the answer. So a partner hears
the same twice only if the sender, its machine or PostgreSQL went away between an answer and its line in the log.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import aiohttp
import structlog

from edge.counters import Counters, cell
from edge.logs import RateLimited
from edge.metric_families import POSTBACK_BUCKETS_US
from edge.processes import ChildOrders, stop_requested
from edge.sender.delivery import deliver, open_client
from edge.tracking.catalog import Catalog
from edge.tracking.postback_values import Facts
from storage.errors import DatabaseUnusable, StorageError
from storage.files import hold_lock
from storage.postgres.catalog import load_at, load_changes, load_revision
from storage.postgres.connection import Connection, connect, is_retryable
from storage.postgres.installation import SameDatabase
from storage.postgres.outbox import Attempt, Due, finish, forget, free_leases, measure, take_due
from storage.postgres.postback_facts import PostbackFacts, find_facts

log = structlog.get_logger()
quietly = RateLimited(log, 5.0)

MAX_PER_HOST = 8
MAX_IN_FLIGHT = 256
POLL_S = 0.25
POLL_SHARE = 10
"""A look costs more with each host that has rows waiting, 60 ms with 5,000 (2 shared, busy cores, 2026-11-22): while there
is nothing to send, it takes a tenth of the time at most."""
CHORES_S = 10.0
LEASE_MARGIN_S = 30.0
"""Beyond a request's longest time: a sender that lives has then logged, or it has lost the database."""
STATEMENT_TIMEOUT_S = 60.0
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0

_ENDED = {outcome: cell("edge_postbacks_total", outcome) for outcome in ("delivered", "failed", "dead")}
_ERRORS = cell("edge_database_errors_total")
_SECONDS = cell("edge_postback_seconds")
_IN_FLIGHT = cell("edge_postbacks_in_flight")
_PENDING = cell("edge_postbacks_pending")
_OLDEST = cell("edge_postbacks_oldest_seconds")


class Sender:
    """One node's sender. `run` returns when it was told to stop and has logged what it had begun."""

    def __init__(self, orders: ChildOrders, counters: Counters, client: aiohttp.ClientSession) -> None:
        self._orders = orders
        self._settings = orders.settings
        self._counters = counters
        self._cells = counters.cells
        self._client = client
        self._stop = stop_requested()
        self._catalog = Catalog.empty()
        self._flights: dict[asyncio.Task[Attempt], Due] = {}
        self._ended: list[Attempt] = []
        """Ended, not yet logged. What is in here outlives a lost connection, and is logged before more is taken."""
        self._has_landed = asyncio.Event()
        self._is_first = True
        self._same = SameDatabase()
        self._next_chores_s = 0.0
        self._backoff_s = FIRST_BACKOFF_S

    async def run(self) -> None:
        """Until SIGTERM. While PostgreSQL is away it waits, tries again at most 5 s later, and takes nothing new."""
        while True:
            try:
                conn = await connect(
                    self._orders.resolve_database(),
                    application_name="clickedge sender",
                    command_timeout_s=STATEMENT_TIMEOUT_S,
                )
                try:
                    # Else an answer would be written down for whatever row now has that row's number.
                    await self._same.check(conn)
                    await self._follow(conn)
                    return
                finally:
                    conn.terminate()
            except Exception as error:
                # A DatabaseUnusable passes too: the embedded server may be starting again.
                if not (is_retryable(error) or isinstance(error, DatabaseUnusable)):
                    raise
                self._cells[_ERRORS] += 1
                quietly.warning("sender_interrupted", error=str(error), kind=type(error).__name__)
            if self._stop.is_set():
                return
            await self._stop.within(self._backoff_s)
            self._backoff_s = min(MAX_BACKOFF_S, self._backoff_s * 2)

    async def _follow(self, conn: Connection) -> None:
        if self._is_first:  # what a killed predecessor had in hand need not wait for its lease
            await free_leases(conn, self._settings.node_id)
            self._is_first = False
            log.info("sender_ready")
        while True:
            is_stopping = self._stop.is_set()
            self._has_landed.clear()
            await self._write_down(conn)
            self._cells[_IN_FLIGHT] = len(self._flights)
            self._backoff_s = FIRST_BACKOFF_S
            if is_stopping and not self._flights:
                return
            began_s = time.monotonic()
            taken = 0 if is_stopping else await self._take(conn)
            took_s = time.monotonic() - began_s
            if time.monotonic() >= self._next_chores_s:
                await self._do_chores(conn)
            if not taken:
                await self._wait(max(POLL_S, took_s * POLL_SHARE))

    async def _take(self, conn: Connection) -> int:
        """Begin what is due and has room; how many."""
        room = MAX_IN_FLIGHT - len(self._flights)
        if room <= 0:
            return 0
        due = await take_due(
            conn,
            node_id=self._settings.node_id,
            busy=Counter(one.host for one in self._flights.values()),
            per_host=MAX_PER_HOST,
            limit=room,
            lease_s=self._settings.postback_timeout_s + LEASE_MARGIN_S,
        )
        if due:
            await self._follow_catalog(conn)
            facts = await find_facts(conn, [one.conversion_id for one in due])
            for one in due:
                self._begin(one, facts)
        return len(due)

    def _begin(self, due: Due, found: Mapping[UUID, PostbackFacts]) -> None:
        stored, partner = found.get(due.conversion_id), self._catalog.partner(due.aff_id)
        if stored is None:
            self._give_up(due, "the conversion is not stored any more")
        elif partner is None:
            self._give_up(due, f"partner {due.aff_id} is not in the catalog any more")
        elif partner.status == "blocked":
            self._give_up(due, f"partner {due.aff_id} is blocked")
        else:
            facts = Facts(due, stored.conversion, stored.click or {}, self._catalog)
            flight = asyncio.create_task(deliver(self._client, due, facts, self._settings.postback_retry_s))
            self._flights[flight] = due
            flight.add_done_callback(self._land)

    def _land(self, flight: asyncio.Task[Attempt]) -> None:
        due = self._flights.pop(flight)
        attempt = flight.result()
        if attempt.outcome == "dead":
            quietly.warning("postback_dead", conversion=due.conversion_id.hex, host=due.host, error=attempt.error)
        self._ended.append(attempt)
        self._has_landed.set()

    def _give_up(self, due: Due, why: str) -> None:
        quietly.warning("postback_dead", conversion=due.conversion_id.hex, host=due.host, error=why)
        now = datetime.now(UTC)
        self._ended.append(
            Attempt(due.outbox_id, due.conversion_id, due.attempts, now, due.method, "", 0, 0, why, "", "dead", 0.0)
        )

    async def _write_down(self, conn: Connection) -> None:
        ended = self._ended.copy()
        if ended:
            await finish(conn, ended)
            del self._ended[: len(ended)]
            for attempt in ended:
                self._cells[_ENDED[attempt.outcome]] += 1
                if attempt.url:  # else it was given up without asking
                    self._counters.observe(_SECONDS, POSTBACK_BUCKETS_US, attempt.duration_ms * 1000)

    async def _follow_catalog(self, conn: Connection) -> None:
        """The catalog in force: names and signing secrets are today's, addresses are as they were queued."""
        known, revision = self._catalog.revision, await load_revision(conn)
        if revision > known > 0:
            self._catalog = self._catalog.changed(revision, await load_changes(conn, known, revision))
        elif revision != known:
            self._catalog = Catalog.empty().changed(revision, await load_at(conn, revision))

    async def _do_chores(self, conn: Connection) -> None:
        backlog = await measure(conn)
        self._cells[_PENDING], self._cells[_OLDEST] = backlog.pending, max(0, round(backlog.oldest_s))
        await forget(conn, datetime.now(UTC) - timedelta(seconds=self._settings.click_retention_s))
        self._next_chores_s = time.monotonic() + CHORES_S

    async def _wait(self, seconds: float) -> None:
        """Until a flight lands, at most so long."""
        try:
            await asyncio.wait_for(self._has_landed.wait(), seconds)
        except TimeoutError:
            pass


async def run_sender(orders: ChildOrders, counters: Counters) -> None:
    """Be this node's sender until SIGTERM. StorageError: another one runs on its data dir."""
    settings = orders.settings
    lock = hold_lock(settings.data_path / "sender.lock")
    if lock is None:
        raise StorageError(f"another sender runs on {settings.data_dir}")
    try:
        async with open_client(settings.postback_networks, settings.postback_timeout_s) as client:
            await Sender(orders, counters, client).run()
    finally:
        os.close(lock)
