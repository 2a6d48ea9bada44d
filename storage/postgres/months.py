"""Closed months: their hours take no change any more.

Who changes conversions holds the months' lock shared from reading them to its commit; who closes or opens one holds it
alone, and nothing else. So a month is closed between two changes, never in the midst of one.
"""

from datetime import date, datetime
from typing import NamedTuple

import asyncpg

_LOCK_KEY = 0x6D6F6E746873  # "months"


class ClosedMonth(NamedTuple):
    """A closed month, its end not included."""

    month: date
    starts_at: datetime
    ends_at: datetime
    closed_at: datetime
    actor: str


async def closed_months(conn: asyncpg.Connection, *, to_change: bool = True) -> list[ClosedMonth]:
    """All of them, in order. `to_change`: none is closed or opened before the transaction ends."""
    if to_change:
        await conn.execute("SELECT pg_advisory_xact_lock_shared($1)", _LOCK_KEY)
    rows = await conn.fetch("SELECT month, starts_at, ends_at, closed_at, actor FROM closed_months ORDER BY month")
    return [ClosedMonth(*row) for row in rows]


async def close_month(
    conn: asyncpg.Connection, month: date, starts_at: datetime, ends_at: datetime, actor: str
) -> bool:
    """Close it; False if it was closed already."""
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
        done = await conn.fetchval(
            "INSERT INTO closed_months (month, starts_at, ends_at, actor) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT DO NOTHING RETURNING true",
            month,
            starts_at,
            ends_at,
            actor,
        )
    return bool(done)


async def reopen_month(conn: asyncpg.Connection, month: date) -> bool:
    """Open it again; False if it was open."""
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
        return bool(await conn.fetchval("DELETE FROM closed_months WHERE month = $1 RETURNING true", month))


async def undrained_journals(conn: asyncpg.Connection, before_ms: int) -> int:
    """Journals that may still hold events of before that millisecond."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM journal_positions WHERE finished_at IS NULL AND watermark_ms < $1", before_ms
    )
    return count
