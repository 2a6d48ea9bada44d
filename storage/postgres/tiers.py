"""How many approved conversions a partner has of an offer in a month: one row each, locked by who prices the next one.

T1  A row is the sum of `conversions_delta` over the changes booked in its month.
T2  It is made from those changes when it is first needed; from then on whoever books such a change adds to it.
T3  While a row is made nobody books in months without a row: the maker holds an advisory lock alone, they share it.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from typing import NamedTuple

import asyncpg


class TierKey(NamedTuple):
    """A row's key; `month`: its first day."""

    offer_id: int
    aff_id: int
    month: date


_LOCK_KEY = 0x7469657273  # "tiers"
_OF_KEYS = "WHERE (offer_id, aff_id, month) IN (SELECT * FROM unnest($1::int[], $2::int[], $3::date[]))"
_SEED = """
    INSERT INTO tier_counts (offer_id, aff_id, month, conversions)
    SELECT $1, $2, $3, coalesce(sum(conversions_delta), 0) FROM conversion_changes JOIN conversions USING (conversion_id)
    WHERE offer_id = $1 AND aff_id = $2 AND booked_hour >= $4 AND booked_hour < $5
    ON CONFLICT DO NOTHING
"""


async def begin(conn: asyncpg.Connection, tiered: Collection[TierKey], *, books_others: bool) -> None:
    """T3, until the transaction ends. `tiered`: what needs its row; `books_others`: there may be changes of others too."""
    if tiered and set(tiered) - await find_counted(conn, tiered):
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
    elif books_others:
        await conn.execute("SELECT pg_advisory_xact_lock_shared($1)", _LOCK_KEY)


async def find_counted(conn: asyncpg.Connection, keys: Iterable[TierKey]) -> set[TierKey]:
    """Those of `keys` that have a row."""
    columns = map(list, zip(*keys, strict=True))
    rows = await conn.fetch(f"SELECT offer_id, aff_id, month FROM tier_counts {_OF_KEYS}", *columns)
    return {TierKey(*row) for row in rows}


async def lock_counts(
    conn: asyncpg.Connection, spans: Mapping[TierKey, tuple[datetime, datetime]]
) -> dict[TierKey, int]:
    """The counts, their rows locked in key order; `spans`: when the month begins and ends.

    Rows that are missing are made first, in key order too (T3 holds).
    """
    keys = sorted(spans)
    for key in sorted(set(keys) - await find_counted(conn, keys)):
        await conn.execute(_SEED, *key, *spans[key])
    rows = await conn.fetch(
        f"SELECT offer_id, aff_id, month, conversions FROM tier_counts {_OF_KEYS}"
        " ORDER BY offer_id, aff_id, month FOR UPDATE",
        *map(list, zip(*keys, strict=True)),
    )
    return {TierKey(*row[:3]): row[3] for row in rows}


async def write_counts(conn: asyncpg.Connection, counts: Iterable[tuple[TierKey, int]]) -> None:
    """Set locked counts."""
    rows = [(*key, count) for key, count in counts]
    if rows:
        await conn.executemany(
            "UPDATE tier_counts SET conversions = $4 WHERE offer_id = $1 AND aff_id = $2 AND month = $3", rows
        )
