"""What has been kept long enough, taken away beside readers and writers.

K1  Clicks and impressions leave by whole days of UTC: the day's partition is detached CONCURRENTLY, which blocks neither
    COPY nor reports, and dropped. Never a DELETE. Sums (`stats_hourly`, `stats_rollups`) stay.
K2  Whatever was cut off is finished by the next round: a detach that is pending is finalised, a table that is detached
    already is dropped. Both are found in the server's catalog; nothing is remembered elsewhere.
K3  One process at a time, by an advisory lock of its session.
K4  No lock is waited for longer than `LOCK_TIMEOUT_MS`. Then the step is given up, and tried again by the next round.
K5  Rows of other tables go in batches, each a transaction of its own. Rows that somebody holds are left for the next round.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Literal, NamedTuple

import asyncpg

from storage.postgres.click_values import VALUE_DIMENSIONS
from storage.postgres.idempotent_answers import KEPT_FOR
from storage.postgres.partitions import PARENTS, id_range
from storage.postgres.rollups import hold_summing

LOCK_TIMEOUT_MS = 5000
BATCH_ROWS = 2000
BATCH_PAGES = 2000
"""Of 8 KiB, that one batch reads of a table without an index to go by."""
_LOCK_KEY = 0x436C69636B456472  # "ClickEdr"
_NAME = re.compile(r"([a-z]+)_(\d{4})(\d\d)(\d\d)", re.ASCII)

State = Literal["attached", "pending", "detached"]


class Day(NamedTuple):
    """A day's table of `parent`; `pending`: a detach was cut off, `detached`: it was not dropped yet."""

    day: date
    parent: str
    name: str
    state: State


async def hold_alone(conn: asyncpg.Connection) -> bool:
    """Whether this session may take things away now; until `let_go` nobody else may (K3)."""
    is_ours: bool = await conn.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY)
    return is_ours


async def let_go(conn: asyncpg.Connection) -> None:
    """The counterpart of `hold_alone`."""
    await conn.execute("SELECT pg_advisory_unlock($1)", _LOCK_KEY)


# A table of ours says so by its CHECK: what somebody else named like a day is left alone.
_DAYS = """
    SELECT parent.relname AS parent, child.relname AS name, known.inhrelid IS NULL AS is_detached,
           coalesce(known.inhdetachpending, false) AS is_pending
    FROM pg_class AS parent
    JOIN pg_class AS child ON child.relnamespace = parent.relnamespace AND child.relkind = 'r'
        AND child.relname ~ ('^' || parent.relname || '_[0-9]{8}$')
    LEFT JOIN pg_inherits AS known ON known.inhrelid = child.oid AND known.inhparent = parent.oid
    WHERE parent.oid = ANY($1::text[]::regclass[]::oid[]) AND EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = child.oid AND contype = 'c' AND conname = child.relname || '_clicked_at')
    ORDER BY child.relname
"""


async def find_days(conn: asyncpg.Connection, before: date) -> list[Day]:
    """The tables of days before that one, and any whose detach was cut off; the first first, those cut off before all."""
    days = []
    for row in await conn.fetch(_DAYS, list(PARENTS)):
        state: State = "pending" if row["is_pending"] else "detached" if row["is_detached"] else "attached"
        day = _day_of(row["name"])
        if day is not None and (day < before or state == "pending"):
            days.append(Day(day, row["parent"], row["name"], state))
    # While a detach is pending the parent takes no other.
    return sorted(days, key=lambda one: (one.state != "pending", one.day, one.parent))


def _day_of(name: str) -> date | None:
    parts = _NAME.fullmatch(name)
    try:
        return date(*map(int, parts.groups()[1:])) if parts else None
    except ValueError:
        return None


async def drop_day(conn: asyncpg.Connection, day: Day) -> bool:
    """Detach and drop the day's table (K1, K2), outside a transaction; False: somebody holds it, ask again later."""
    await conn.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
    try:
        if day.state != "detached":
            how = "FINALIZE" if day.state == "pending" else "CONCURRENTLY"
            await conn.execute(f"ALTER TABLE {day.parent} DETACH PARTITION {day.name} {how}")
        await conn.execute(f"DROP TABLE {day.name}")
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
        return False
    finally:
        if not conn.is_closed():
            await conn.execute("RESET lock_timeout")
    return True


Batch = Callable[[asyncpg.Connection, datetime], Awaitable[int]]
"""Takes away some rows of before that moment; how many. Fewer than `BATCH_ROWS`: there are no more for now."""


def _delete(table: str, key: str, condition: str, order: str = "") -> Batch:
    query = (
        f"DELETE FROM {table} WHERE {key} = ANY(ARRAY(SELECT {key} FROM {table} WHERE {condition}"
        f"{order and f' ORDER BY {order}'} LIMIT {BATCH_ROWS} FOR UPDATE SKIP LOCKED))"
    )
    return lambda conn, before: _run(conn, query, before)


def _update(table: str, change: str, key: str, condition: str, order: str) -> Batch:
    query = (
        f"UPDATE {table} SET {change} WHERE {key} = ANY(ARRAY(SELECT {key} FROM {table} WHERE {condition}"
        f" ORDER BY {order} LIMIT {BATCH_ROWS} FOR UPDATE SKIP LOCKED))"
    )
    return lambda conn, before: _run(conn, query, before)


async def _run(conn: asyncpg.Connection, query: str, *arguments: object) -> int:
    done: str = await conn.execute(query, *arguments)
    return int(done.rpartition(" ")[2])


async def _forget_copies(conn: asyncpg.Connection, before: datetime) -> int:
    """Copies of clicks, which leave with the clicks' day."""
    low, _ = id_range(before.date())
    return await _run(
        conn,
        "DELETE FROM converted_clicks WHERE click_id = ANY(ARRAY(SELECT click_id FROM converted_clicks"
        f" WHERE click_id < $1 ORDER BY click_id LIMIT {BATCH_ROWS}))",
        low,
    )


async def _forget_values(conn: asyncpg.Connection, before: datetime) -> int:
    """What a day's clicks added up to by their sub ids. `click_value_days` stays: of no clicks the sums are none."""
    query = (
        "DELETE FROM click_values WHERE ctid = ANY(ARRAY(SELECT ctid FROM click_values"
        f" WHERE dimension = ANY($2::smallint[]) AND day < $1 LIMIT {BATCH_ROWS}))"
    )
    async with conn.transaction():
        await hold_summing(conn)
        return await _run(conn, query, before.date(), list(VALUE_DIMENSIONS.values()))


BATCHES: dict[str, Batch] = {
    "converted_clicks": _forget_copies,
    "click_values": _forget_values,
    "conversions_waiting": _delete("conversions_waiting", "conversion_id", "decided_at < $1", "decided_at"),
    "quarantine": _delete("quarantine", "ctid", "quarantined_at < $1"),
    "conversions.ip": _update(
        "conversions", "ip = NULL", "conversion_id", "ip IS NOT NULL AND received_at < $1", "received_at"
    ),
    "audit_log": _delete("audit_log", "audit_id", "at < $1", "at"),
    "imports.examples": _update(
        "imports",
        "examples = '[]', plan = plan - 'rows'",
        "import_id",
        "(examples <> '[]' OR plan ? 'rows') AND started_at < $1",
        "import_id",
    ),
}
"""By table, or by the column of one whose rows stay. Those of `EDGE_CLICK_RETENTION`."""
OF_DAYS = frozenset(("converted_clicks", "click_values"))
"""What was made of days of clicks, and is read in their place: it goes when they are gone, not before."""


async def forget_answers(conn: asyncpg.Connection) -> int:
    """A batch of answers to requests that may be repeated no more."""
    return await _run(
        conn,
        "DELETE FROM idempotent_answers WHERE ctid = ANY(ARRAY(SELECT ctid FROM idempotent_answers"
        f" WHERE answered_at < now() - {KEPT_FOR} ORDER BY answered_at LIMIT {BATCH_ROWS} FOR UPDATE SKIP LOCKED))",
    )


async def forget_external_ids(conn: asyncpg.Connection, before: datetime, page: int) -> tuple[int, int]:
    """Ids that stood for clicks of before that moment, in the table's pages from `page` on: how many, and the next page.

    0: that was the last. The table has no index by time: one would cost each click with such an id.
    """
    low, _ = id_range(before.date())
    deleted = await _run(
        conn,
        "DELETE FROM external_ids WHERE ctid >= $2::tid AND ctid < $3::tid AND click_id < $1",
        low,
        (page, 0),
        (page + BATCH_PAGES, 0),
    )
    pages: int = await conn.fetchval(
        "SELECT pg_relation_size('external_ids') / current_setting('block_size')::bigint"
    )
    following = page + BATCH_PAGES
    return deleted, following if following < pages else 0

