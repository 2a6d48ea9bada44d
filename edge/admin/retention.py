"""Takes away what has been kept long enough (`EDGE_CLICK_RETENTION`): each hour, on one node at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from edge.admin.chores import may_pass, own_connection
from edge.counters import Counters, cell
from edge.metric_families import RETAINED
from storage.postgres.connection import Connection
from storage.postgres.installation import CLICKS_KEPT, remember
from storage.postgres.partitions import PARENTS
from storage.postgres.retention import (
    BATCH_ROWS,
    BATCHES,
    OF_DAYS,
    drop_day,
    find_days,
    forget_answers,
    forget_external_ids,
    hold_alone,
    let_go,
)

FIRST_S = 30.0
INTERVAL_S = 3600.0
AGAIN_S = 60.0
"""After a round that somebody held up, and after an error."""
PAUSE_S = 0.1
"""Between two batches: the drain goes first."""
COMMAND_TIMEOUT_S = 600.0

_PARTITIONS = {table: cell("edge_retention_partitions_total", table) for table in PARENTS}
_ROWS = {table: cell("edge_retention_rows_total", table) for table in RETAINED}
_DONE = cell("edge_retention_done_seconds")

log = structlog.get_logger()


class Retention:
    """The job of one admin process; of those of several nodes one at a time does it."""

    def __init__(self, resolve_database: Callable[[], str], click_retention_s: int, counters: Counters) -> None:
        """`resolve_database`: where the database is now. `click_retention_s`: EDGE_CLICK_RETENTION."""
        self._resolve_database = resolve_database
        self._kept_for = timedelta(seconds=click_retention_s)
        self._cells = counters.cells
        self._pause_s = PAUSE_S

    async def run(self) -> None:
        """Until cancelled; whatever the database says is logged and tried again."""
        await asyncio.sleep(FIRST_S)
        while True:
            try:
                is_done = await self._connect_and_retain()
            except Exception as error:
                if not may_pass(error):
                    raise
                log.warning("not_retained", error=str(error), kind=type(error).__name__)
                is_done = False
            await asyncio.sleep(INTERVAL_S if is_done else AGAIN_S)

    async def _connect_and_retain(self) -> bool:
        async with own_connection(self._resolve_database, "retention", COMMAND_TIMEOUT_S) as conn:
            return await self.retain(conn, datetime.now(UTC))

    async def retain(self, conn: Connection, now: datetime) -> bool:
        """One round; False: something was held by others and is still there, or another node is at it."""
        if not await hold_alone(conn):
            return False
        try:
            await remember(conn, CLICKS_KEPT, str(round(self._kept_for.total_seconds())))
            before = (now - self._kept_for).replace(hour=0, minute=0, second=0, microsecond=0)
            is_done = await self._drop_days(conn, before)
            for name, batch in BATCHES.items():
                # A day that is still there is reported on: by its sums, which would be none.
                if is_done or name not in OF_DAYS:
                    await self._in_batches(name, partial(batch, conn, before))
            await self._in_batches("idempotent_answers", partial(forget_answers, conn))
            await self._forget_external_ids(conn, before)
        finally:
            if not conn.is_closed():
                await let_go(conn)
        if is_done:
            self._cells[_DONE] = int(now.timestamp() * 1000)
        return is_done

    async def _drop_days(self, conn: Connection, before: datetime) -> bool:
        """Drop the days before `before`; whether all of them are gone."""
        held: set[str] = set()
        for day in await find_days(conn, before.date()):
            # What is attached to a parent must wait while a detach is pending there.
            if day.parent in held and day.state != "detached":
                continue
            if await drop_day(conn, day):
                self._cells[_PARTITIONS[day.parent]] += 1
                log.info("partition_dropped", table=day.name, older_than=before.date().isoformat())
            else:
                held.add(day.parent)
                log.info("partition_held", table=day.name, hint="a transaction reads it; it is tried again in a minute")
        return not held

    async def _in_batches(self, name: str, batch: Callable[[], Awaitable[int]]) -> None:
        total, count = 0, BATCH_ROWS
        while count >= BATCH_ROWS:
            count = await batch()
            total += count
            self._cells[_ROWS[name]] += count
            await asyncio.sleep(self._pause_s if count >= BATCH_ROWS else 0)
        self._say(name, total)

    async def _forget_external_ids(self, conn: Connection, before: datetime) -> None:
        total, page, is_first = 0, 0, True
        while page or is_first:
            is_first = False
            count, page = await forget_external_ids(conn, before, page)
            total += count
            self._cells[_ROWS["external_ids"]] += count
            await asyncio.sleep(self._pause_s if page else 0)
        self._say("external_ids", total)

    @staticmethod
    def _say(name: str, rows: int) -> None:
        if rows:
            log.info("rows_dropped", table=name, rows=rows)
