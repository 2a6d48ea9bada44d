"""What advertising cost and how many messages were sent, a day and place at a time; each row under the key it is of."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple

import asyncpg

_KEY = ("day", "offer_id", "aff_id", "creative_id", "list", "currency", "feed")
_KEY_LIST = ", ".join(_KEY)


class CostKey(NamedTuple):
    """Which row; 0 and "": of none, of all. `feed`: the file or system that says so."""

    day: date
    offer_id: int = 0
    aff_id: int = 0
    creative_id: int = 0
    list: str = ""
    currency: str = ""
    feed: str = ""


class CostRow(NamedTuple):
    """What it cost, in the key's currency, and how many messages were sent."""

    key: CostKey
    amount: Decimal
    sends: int


class CostFilter(NamedTuple):
    """Which rows: days from one to another, both included; an empty sequence lets all through."""

    from_day: date | None = None
    to_day: date | None = None
    offer_ids: Sequence[int] = ()
    aff_ids: Sequence[int] = ()
    lists: Sequence[str] = ()
    feeds: Sequence[str] = ()


async def find_costs(conn: asyncpg.Connection, wanted: CostFilter, after: CostKey | None, limit: int) -> list[CostRow]:
    """Rows in the order of their keys, from the one after `after`."""
    start = after or CostKey(date.min, -1)
    rows = await conn.fetch(
        f"SELECT {_KEY_LIST}, amount, sends FROM costs"
        " WHERE ($1::date IS NULL OR day >= $1) AND ($2::date IS NULL OR day <= $2)"
        " AND (cardinality($3::int[]) = 0 OR offer_id = ANY($3)) AND (cardinality($4::int[]) = 0 OR aff_id = ANY($4))"
        " AND (cardinality($5::text[]) = 0 OR list = ANY($5)) AND (cardinality($6::text[]) = 0 OR feed = ANY($6))"
        f" AND ({_KEY_LIST}) > ($7::date, $8::int, $9::int, $10::int, $11::text, $12::text, $13::text)"
        f" ORDER BY {_KEY_LIST} LIMIT $14",
        wanted.from_day,
        wanted.to_day,
        list(wanted.offer_ids),
        list(wanted.aff_ids),
        list(wanted.lists),
        list(wanted.feeds),
        *start,
        limit,
    )
    return [CostRow(CostKey(*row[:7]), row["amount"], row["sends"]) for row in rows]


async def put_costs(conn: asyncpg.Connection, rows: Sequence[CostRow]) -> None:
    """Make the book say what `rows` say, all or none; a key at most once."""
    ordered = sorted(rows)
    columns = [list(column) for column in zip(*((*row.key, row.amount, row.sends) for row in ordered), strict=True)]
    await conn.execute(
        f"INSERT INTO costs ({_KEY_LIST}, amount, sends)"
        " SELECT * FROM unnest($1::date[], $2::int[], $3::int[], $4::int[], $5::text[], $6::text[], $7::text[],"
        " $8::numeric[], $9::bigint[])"
        f" ON CONFLICT ({_KEY_LIST}) DO UPDATE SET amount = excluded.amount, sends = excluded.sends",
        *columns,
    )


async def delete_cost(conn: asyncpg.Connection, key: CostKey) -> bool:
    """Take a row out; False: there was none."""
    found = await conn.fetchval(
        "DELETE FROM costs WHERE (day, offer_id, aff_id, creative_id, list, currency, feed)"
        " = ($1::date, $2::int, $3::int, $4::int, $5::text, $6::text, $7::text) RETURNING true",
        *key,
    )
    return bool(found)
