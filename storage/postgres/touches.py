"""Touches by who made them: the clicks of one cookie, of one contact. One query a batch; a time range prunes the partitions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from storage.postgres.partitions import day_of_id, id_range
from storage.postgres.sessions import COLUMNS, StoredSession

MAX_CANDIDATES = 20
"""Of one search: those nearest to the wanted end."""

# A click that led nowhere, that no person made or that could not earn takes nobody's credit.
_IS_CREDITABLE = (
    "outcome = 'redirected' AND NOT flags && '{prefetch}' AND reason NOT IN ('unknown_partner', 'partner_blocked')"
)
# As the indexes say it: without this they would not be used.
_IS_CONTACT = "contact_id <> '' AND length(contact_id) <= 256"


class Relation(NamedTuple):
    """What a touch says of others: its cookie's first click (empty: none), and whether it may be credited itself."""

    first_click_id: bytes
    is_creditable: bool


class Search(NamedTuple):
    """Clicks of an offer (0: of any) by `identity`, a cookie's first click or a contact, between two milliseconds."""

    place: int
    identity: UUID | str
    offer_id: int
    from_ms: int
    through_ms: int


Found = dict[int, list[StoredSession]]
"""By the search's place."""


async def find_relations(conn: asyncpg.Connection, table: str, ids: Iterable[bytes]) -> dict[bytes, Relation]:
    """The relations of those `ids` that are stored in `clicks` or `impressions`; a look-up for each day of them."""
    by_day = defaultdict(list)
    for touch_id in ids:
        by_day[day_of_id(touch_id)].append(UUID(bytes=touch_id))
    found = {}
    for day, of_day in by_day.items():
        rows = await conn.fetch(
            f"SELECT click_id, first_click_id, {_IS_CREDITABLE} AS is_creditable FROM {table}"
            " WHERE click_id = ANY($1) AND click_id >= $2 AND click_id < $3",
            of_day,
            *id_range(day),
        )
        for row in rows:
            first = row["first_click_id"]
            found[row["click_id"].bytes] = Relation(first.bytes if first else b"", row["is_creditable"])
    return found


async def find_by_cookie(conn: asyncpg.Connection, searches: Sequence[Search], *, newest: bool) -> Found:
    """For each search the creditable clicks of the cookie whose first click is `identity`, that one too."""
    found = await _find(conn, "uuid", "first_click_id = wanted.identity", searches, newest=newest)
    firsts = await _find(conn, "uuid", "click_id = wanted.identity", searches, newest=newest)
    for place, sessions in firsts.items():
        found[place].extend(sessions)
    return found


async def find_by_contact(conn: asyncpg.Connection, searches: Sequence[Search], *, newest: bool) -> Found:
    """For each search the creditable clicks of that contact."""
    return await _find(conn, "text", f"contact_id = wanted.identity AND {_IS_CONTACT}", searches, newest=newest)


async def find_converted(conn: asyncpg.Connection, searches: Sequence[Search]) -> dict[int, list[bytes]]:
    """For each search the touches that the contact's conversions, received by then, were credited to; at most 20."""
    found: dict[int, list[bytes]] = defaultdict(list)
    if not searches:
        return found
    rows = await conn.fetch(
        "SELECT wanted.place, touch.click_id FROM unnest($1::int[], $2::text[], $3::int[], $4::timestamptz[])"
        " AS wanted (place, identity, offer_id, received_by) CROSS JOIN LATERAL ("
        f" SELECT click_id FROM conversions WHERE contact_id = wanted.identity AND {_IS_CONTACT}"
        " AND received_at <= wanted.received_by AND (wanted.offer_id = 0 OR offer_id = wanted.offer_id)"
        f" AND click_id IS NOT NULL AND status <> 'rejected' ORDER BY received_at DESC LIMIT {MAX_CANDIDATES}) AS touch",
        [one.place for one in searches],
        [one.identity for one in searches],
        [one.offer_id for one in searches],
        [datetime.fromtimestamp(one.through_ms / 1000, UTC) for one in searches],
    )
    for place, click_id in rows:
        found[place].append(click_id.bytes)
    return found


async def _find(
    conn: asyncpg.Connection, kind: str, condition: str, searches: Sequence[Search], *, newest: bool
) -> Found:
    found: Found = defaultdict(list)
    if not searches:
        return found
    lows, highs = [_lowest(one.from_ms) for one in searches], [_highest(one.through_ms) for one in searches]
    # Each search's own bounds keep its scan short; those of all of them spare the planner the other partitions.
    rows: list[Any] = await conn.fetch(
        f"SELECT wanted.place, touch.* FROM unnest($1::int[], $2::{kind}[], $3::int[], $4::uuid[], $5::uuid[])"
        " AS wanted (place, identity, offer_id, low, high) CROSS JOIN LATERAL ("
        f" SELECT {COLUMNS} FROM clicks WHERE {condition} AND (wanted.offer_id = 0 OR offer_id = wanted.offer_id)"
        " AND click_id BETWEEN wanted.low AND wanted.high AND click_id BETWEEN $6 AND $7"
        f" AND {_IS_CREDITABLE} ORDER BY click_id {'DESC' if newest else 'ASC'} LIMIT {MAX_CANDIDATES}) AS touch",
        [one.place for one in searches],
        [one.identity for one in searches],
        [one.offer_id for one in searches],
        lows,
        highs,
        min(lows),
        max(highs),
    )
    for row in rows:
        place, click_id, *rest = row
        found[place].append(StoredSession(click_id.bytes, *rest))
    return found


def _lowest(ms: int) -> UUID:
    return UUID(int=max(0, ms) << 80)


def _highest(ms: int) -> UUID:
    return UUID(int=(max(0, ms) + 1 << 80) - 1)
