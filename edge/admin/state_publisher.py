"""From the database to the workers: which caps are reached, as a file in the data dir, looked at each second."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import structlog

from edge.admin.chores import keep_doing, own_connection
from edge.cap_usage import key_of, limits_of_body
from edge.counters import Counters, cell
from edge.tracking.caps import Limit, Limits, is_reached
from storage.postgres.cap_usage import Usage, UsageKey, forget_usage, lock_usage, read_usage, store_usage
from storage.postgres.catalog import hold_catalog, load_at, load_changes, load_revision
from storage.postgres.connection import Connection
from storage.postgres.external_ids import has_external_ids
from storage.state_file import PublishedState, write_state

INTERVAL_S = 1.0
COUNTED_AT_ONCE = 100
"""Rows that one transaction counts: the drain waits for it."""
FORGET_INTERVAL_S = 3600.0
FORGET_AFTER = timedelta(days=400)

_PUBLISHED = cell("edge_state_published_seconds")
_CAPPED = cell("edge_capped_pairs")
_ERRORS = cell("edge_database_errors_total")

log = structlog.get_logger()


class _Watched(NamedTuple):
    """A cap and the row that says how much of it is used in this period."""

    limit: Limit
    key: UsageKey


class StatePublisher:
    """Keeps the file at what the database says."""

    def __init__(
        self, resolve_database: Callable[[], str], state_path: Path, zone: ZoneInfo, counters: Counters
    ) -> None:
        """`resolve_database`: where the database is now; asked again after each lost connection."""
        self._resolve_database = resolve_database
        self._path = state_path
        self._zone = zone
        self._cells = counters.cells
        self._written: PublishedState | None = None
        self._revision = 0
        self._limits: dict[int, Limits] = {}
        """The caps in force, by offer; those without any are left out."""
        self._next_forgetting_s = 0.0

    async def run(self) -> None:
        """Publish until cancelled; whatever the database or the disk says is logged and tried again, at most 5 s later."""
        await keep_doing(self._follow, self._tell)

    def _tell(self, error: Exception) -> None:
        self._cells[_ERRORS] += not isinstance(error, OSError)  # the disk's, or a connection that `NodeWatch` misses too
        log.warning("state_not_published", error=str(error), kind=type(error).__name__)

    async def _follow(self) -> None:
        async with own_connection(self._resolve_database, "state") as conn:
            # A database that was restored may have other revisions by the same numbers.
            self._revision, self._limits = 0, {}
            while not conn.is_closed():
                await self.publish(conn, datetime.now(UTC))
                await self._forget(conn)
                await asyncio.sleep(INTERVAL_S)

    async def publish(self, conn: Connection, now: datetime) -> PublishedState:
        """Write what is so at `now`, if it is not what the file says; what is so."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        usage = None
        while usage is None:
            await self._take_catalog(conn)
            watched = list(self._watched(hour))
            usage = await self._usage(conn, list({one.key for one in watched}))
        state = PublishedState(_capped(watched, usage), await has_external_ids(conn))
        if state != self._written or not self._path.exists():
            await asyncio.to_thread(write_state, self._path, state)
            self._written = state
            log.info("state_published", capped=len(state.capped), has_external_ids=state.has_external_ids)
        self._cells[_CAPPED] = len(state.capped)
        self._cells[_PUBLISHED] = time.time_ns() // 1_000_000
        return state

    async def _take_catalog(self, conn: Connection) -> None:
        revision = await load_revision(conn)
        if revision == self._revision:
            return
        changes = await (load_changes(conn, self._revision, revision) if self._revision else load_at(conn, revision))
        for kind, item_id, body in changes:
            if kind == "offers":
                self._limits[int(item_id)] = limits_of_body(body) if body is not None else {}
        self._limits = {offer_id: limits for offer_id, limits in self._limits.items() if limits}
        self._revision = revision

    def _watched(self, hour: datetime) -> Iterator[_Watched]:
        for offer_id, limits in self._limits.items():
            for some in limits.values():
                for limit in some:
                    yield _Watched(limit, key_of(limit, offer_id, hour, self._zone))

    async def _usage(self, conn: Connection, keys: list[UsageKey]) -> dict[UsageKey, Usage] | None:
        """What was used; rows that nobody has counted yet are counted now. None: the catalog has changed meanwhile."""
        usage = await read_usage(conn, keys)
        missing = sorted(key for key in keys if key not in usage)
        for start in range(0, len(missing), COUNTED_AT_ONCE):
            async with conn.transaction():
                if await hold_catalog(conn) != self._revision:
                    return None
                counted = await lock_usage(conn, missing[start : start + COUNTED_AT_ONCE])
                await store_usage(conn, counted)
            usage |= counted
        return usage

    async def _forget(self, conn: Connection) -> None:
        if time.monotonic() >= self._next_forgetting_s:
            self._next_forgetting_s = time.monotonic() + FORGET_INTERVAL_S
            await forget_usage(conn, datetime.now(UTC) - FORGET_AFTER)


def _capped(watched: list[_Watched], usage: dict[UsageKey, Usage]) -> list[tuple[int, int, int]]:
    """Who has reached a cap, and until when the longest such period lasts."""
    until_ms: dict[tuple[int, int], int] = {}
    for limit, key in watched:
        used = usage.get(key)
        if used is not None and is_reached(limit, used.of(limit.measure)):
            pair = (key.offer_id, key.aff_id)
            until_ms[pair] = max(until_ms.get(pair, 0), int(key.period_end.timestamp()) * 1000)
    return [(*pair, until) for pair, until in sorted(until_ms.items())]
