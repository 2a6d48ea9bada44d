"""Closing a month: its changes are booked elsewhere from then on, and what its statements say is kept."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from edge.errors import UserError
from edge.tracking.months import MonthSpan, span_of
from storage.postgres.connection import Connection
from storage.postgres.installation import recall
from storage.postgres.months import close_month, closed_months, undrained_journals
from storage.postgres.statements import keep_lines

SETTLED_AFTER = timedelta(minutes=10)
"""No transaction lasts that long: nothing is still being booked in a month that ended earlier."""


class StillComing(UserError):
    """A month that may still get events. `text`: why, without what the user of the command may do."""

    def __init__(self, text: str) -> None:
        """`text`: for people."""
        self.text = text
        super().__init__(f"{text}: wait, or say --force")


async def span_in_force(conn: Connection, month: date) -> MonthSpan:
    """A month's instants: as it was closed, else in the time zone of serve, without what its closed neighbours have."""
    closed = {one.month: one for one in await closed_months(conn, to_change=False)}
    if known := closed.get(month):
        return MonthSpan(month, known.starts_at, known.ends_at)
    span = span_of(month, ZoneInfo(await recall(conn, "timezone", "UTC")))
    before = closed.get((month - timedelta(days=1)).replace(day=1))
    after = closed.get((month + timedelta(days=31)).replace(day=1))
    return span._replace(
        starts_at=before.ends_at if before else span.starts_at, ends_at=after.starts_at if after else span.ends_at
    )


async def close(conn: Connection, month: date, *, now: datetime, actor: str, force: bool = False) -> MonthSpan:
    """Close it; UserError if it is not over, not wholly stored (unless `force`), or closed already."""
    span = await span_in_force(conn, month)
    if now < (may_close_at := closable_at(span)):
        raise UserError(f"{month:%Y-%m} is not over: it can be closed from {may_close_at} on")
    undrained = await undrained_journals(conn, round((may_close_at - SETTLED_AFTER).timestamp() * 1000))
    if undrained and not force:
        raise StillComing(f"{undrained} journals may still hold events of {month:%Y-%m}")
    if not await close_month(conn, *span, actor):
        raise UserError(f"{month:%Y-%m} is closed already")
    await keep_lines(conn, month, await recall(conn, "timezone", "UTC"))
    return span


def closable_at(span: MonthSpan) -> datetime:
    """When it can be closed: after the hour of UTC in which it ends, which is the month's to its own end."""
    hour = span.ends_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour + timedelta(hours=hour < span.ends_at) + SETTLED_AFTER
