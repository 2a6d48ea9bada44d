"""Keeps the coarser sums at hand: each hour a few minutes after its end, all of them anew for another time zone."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog

from edge.admin.chores import keep_doing, own_connection
from edge.counters import Counters, cell
from storage.postgres.connection import Connection
from storage.postgres.converted_clicks import copy_converted_clicks
from storage.postgres.installation import recall
from storage.postgres.positions import all_vouched_through
from storage.postgres.rollups import begin_rollups, forget_rollups, pass_hours, rollup_state, sum_days

INTERVAL_S = 60.0
PAUSE_S = 60.0
COMMAND_TIMEOUT_S = 600.0
AFTER = timedelta(minutes=5)
"""The end of an hour: what comes later is added one by one, which is dearer."""
LONGEST_WAIT = timedelta(days=1)
"""For journals that are behind."""

_THROUGH = cell("edge_rolled_up_through_seconds")
_ERRORS = cell("edge_database_errors_total")

log = structlog.get_logger()


class RollUp:
    """The job of one admin process; those of other nodes take turns with it."""

    def __init__(self, resolve_database: Callable[[], str], timezone: str, counters: Counters) -> None:
        """`resolve_database`: where the database is now. `timezone`: until a drain has stored one."""
        self._resolve_database = resolve_database
        self._timezone = timezone
        self._cells = counters.cells
        self._copied_since = datetime.fromtimestamp(0, UTC)

    async def run(self) -> None:
        """Until cancelled; whatever the database says is logged and tried again."""
        await keep_doing(self._keep_rolled_up, self._tell, shortest_s=PAUSE_S, longest_s=PAUSE_S)

    def _tell(self, error: Exception) -> None:
        self._cells[_ERRORS] += 1
        log.warning("not_rolled_up", error=str(error), kind=type(error).__name__)

    async def _keep_rolled_up(self) -> None:
        async with own_connection(self._resolve_database, "roll-up", COMMAND_TIMEOUT_S) as conn:
            while not conn.is_closed():
                await self.roll_up(conn, datetime.now(UTC))
                await asyncio.sleep(INTERVAL_S)

    async def roll_up(self, conn: Connection, now: datetime) -> datetime | None:
        """Roll up what is finished at `now`; through where it is done. None: nothing is, in a zone whose days begin
        within an hour of UTC.
        """
        timezone = await recall(conn, "timezone", self._timezone)
        await self._follow(conn, timezone, now)
        if not has_whole_hours(timezone, now):
            return None
        drained_ms = await all_vouched_through(conn)
        drained = datetime.fromtimestamp(drained_ms / 1000, UTC) if drained_ms >= 0 else now
        until = max(now - LONGEST_WAIT, min(now - AFTER, drained))
        began_s, through = time.monotonic(), None
        while (passed := await pass_hours(conn, until)) != through and passed is not None:
            through = passed
            self._cells[_THROUGH] = int(through.timestamp()) * 1000
        while await sum_days(conn):
            pass
        while await copy_converted_clicks(conn, self._copied_since):
            pass
        self._copied_since = now - LONGEST_WAIT
        if time.monotonic() - began_s > INTERVAL_S:
            log.info("rolled_up", through=str(through), seconds=round(time.monotonic() - began_s))
        return through

    async def _follow(self, conn: Connection, timezone: str, now: datetime) -> None:
        """Begin anew where time zone or grains are others, or there is nothing yet."""
        state = await rollup_state(conn)
        is_usable = has_whole_hours(timezone, now)
        if state is not None and state.timezone == timezone and is_usable:
            return
        await forget_rollups(conn)
        self._cells[_THROUGH] = 0
        if is_usable:
            log.info("rolling_up_anew", timezone=timezone)
            await begin_rollups(conn, timezone, now)


def has_whole_hours(timezone: str, now: datetime) -> bool:
    """Whether the zone's days have begun with hours of UTC for three years."""
    zone = ZoneInfo(timezone)
    offsets = {(now - timedelta(days=days)).astimezone(zone).utcoffset() for days in range(-1, 3 * 365, 7)}
    return all(offset is not None and not offset % timedelta(hours=1) for offset in offsets)
