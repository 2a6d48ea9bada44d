"""Costs and sends of a feed: gathered beside the table, summed by key, then put there in one transaction.

F1  Nothing of a file is seen before all of it: one that was broken off has changed nothing.
F2  What a feed says of a key replaces what the same feed said of it; other feeds, and keys that it does not name, stay.
"""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple

import asyncpg

_KEY = "day, offer_id, aff_id, creative_id, list, currency"
_LIMIT = 10**12


class Cost(NamedTuple):
    """What one row says; 0 and "" for none."""

    day: date
    offer_id: int
    aff_id: int
    creative_id: int
    list: str
    currency: str
    amount: Decimal
    sends: int


class Merged(NamedTuple):
    """How many keys are new or say something else now, and how many were like this before."""

    stored: int
    known: int


async def open_feed(conn: asyncpg.Connection) -> None:
    """Begin to gather, on this connection."""
    await conn.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS gathered_costs (day date, offer_id int, aff_id int, creative_id int, list text,"
        f" currency text, amount numeric NOT NULL, sends numeric NOT NULL, PRIMARY KEY ({_KEY}))"
    )
    await conn.execute("TRUNCATE pg_temp.gathered_costs")


async def gather(conn: asyncpg.Connection, costs: Sequence[Cost]) -> None:
    """Add rows to what is gathered; rows of one key are added up."""
    if costs:
        await conn.execute(
            f"INSERT INTO pg_temp.gathered_costs AS old SELECT {_KEY}, sum(amount), sum(sends) FROM"
            " unnest($1::date[], $2::int[], $3::int[], $4::int[], $5::text[], $6::text[], $7::numeric[], $8::bigint[])"
            f" AS new ({_KEY}, amount, sends) GROUP BY {_KEY}"
            f" ON CONFLICT ({_KEY}) DO UPDATE SET amount = old.amount + excluded.amount, sends = old.sends + excluded.sends",
            *map(list, zip(*costs, strict=True)),
        )


async def find_too_large(conn: asyncpg.Connection) -> tuple[date, Decimal] | None:
    """A day whose gathered sum is more than the table holds."""
    row = await conn.fetchrow(
        "SELECT day, amount FROM pg_temp.gathered_costs WHERE amount >= $1 OR sends >= 10::numeric ^ 18 LIMIT 1", _LIMIT
    )
    return (row[0], row[1]) if row else None


async def compare_feed(conn: asyncpg.Connection, feed: str) -> Merged:
    """What `merge_feed` would do; nothing is changed."""
    row = await conn.fetchrow(
        "SELECT count(*), count(*) FILTER (WHERE (old.amount, old.sends) = (new.amount, new.sends))"
        f" FROM pg_temp.gathered_costs AS new LEFT JOIN costs AS old ON old.feed = $1 AND {_SAME}",
        feed,
    )
    return Merged(row[0] - row[1], row[1]) if row else Merged(0, 0)


async def merge_feed(conn: asyncpg.Connection, feed: str) -> Merged:
    """Put what is gathered into the feed (F2); in the caller's transaction (F1), in key order."""
    total = await conn.fetchval("SELECT count(*) FROM pg_temp.gathered_costs")
    done = await conn.execute(
        f"INSERT INTO costs AS old ({_KEY}, amount, sends, feed) SELECT {_KEY}, amount, sends, $1"
        f' FROM pg_temp.gathered_costs ORDER BY day, offer_id, aff_id, creative_id, list COLLATE "C", currency COLLATE "C"'
        f" ON CONFLICT ({_KEY}, feed) DO UPDATE SET amount = excluded.amount, sends = excluded.sends"
        " WHERE (old.amount, old.sends) IS DISTINCT FROM (excluded.amount, excluded.sends)",
        feed,
    )
    stored = int(done.rpartition(" ")[2])
    return Merged(stored, total - stored)


_SAME = " AND ".join(f"old.{name} = new.{name}" for name in _KEY.split(", "))
