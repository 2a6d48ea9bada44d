"""Stored conversions to be changed: found, locked in the order of their ids, written back.

The order of all locks of a transaction that stores or changes conversions, what a batch brings before them first:
journal_positions, the node's visits (`visits.py`), the imports' turn (`imports.py`), external_ids, conversions_waiting,
conversion_keys, conversions, the months (`months.py`), the making of tier_counts (T3), tier_counts, the catalog
(`hold_catalog`), cap_usage, postback_outbox, contacts, the hours (`rollups.py`), stats_hourly, stats_rollups,
click_value_days; within a table by key. Who keeps to it waits for nobody in a ring. Who changes many in one transaction
takes each kind of lock for all of them before the next kind.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import asyncpg


class Held(NamedTuple):
    """A stored conversion, its row locked. `booked_hour`: where its decision is booked."""

    conversion_id: UUID
    click_id: UUID | None
    named_click_id: UUID | None
    node_id: int
    advertiser_id: int
    offer_id: int
    aff_id: int
    goal_id: int
    landing_page_id: int
    creative_id: int
    country: str
    device_type: str
    currency: str
    received_at: datetime
    catalog_revision: int
    conversion_unique_id: str
    event_id: str
    status: str
    reason: str
    status_code: int
    amount: Decimal
    payout: Decimal
    revenue: Decimal
    tier: int
    booked_hour: datetime


class Sought(NamedTuple):
    """A conversion that a later one may mean: of a goal, credited to the click or named by it. `event_id` "": any."""

    click_id: UUID
    goal_id: int
    event_id: str
    only_pending: bool
    received_by: datetime


_EVENT_ID = "coalesce(extras ->> 'adv_unique1', '')"
_SELECTED = ", ".join(f"{_EVENT_ID} AS event_id" if name == "event_id" else name for name in Held._fields[:-1])


async def lock_conversions(conn: asyncpg.Connection, ids: Iterable[UUID], *, is_look: bool = False) -> list[Held]:
    """Those of `ids` that are stored, locked; `is_look`: not locked."""
    rows = await conn.fetch(
        f"SELECT {_SELECTED}, (SELECT max(booked_hour) FROM conversion_changes AS decided WHERE kind = 'decided'"
        " AND decided.conversion_id = conversions.conversion_id) AS booked_hour"
        " FROM conversions WHERE conversion_id = ANY($1) ORDER BY conversion_id" + " FOR UPDATE" * (not is_look),
        list(ids),
    )
    return [Held(*row) for row in rows]


async def find_latest(conn: asyncpg.Connection, sought: Sequence[Sought], later_code: int) -> dict[Sought, UUID]:
    """The latest of each that once was accepted, where there is one; one that came with that very click before others.

    `later_code`: of a later rejection.
    """
    rows = await conn.fetch(
        "SELECT wanted.place, found.conversion_id"
        " FROM unnest($1::int[], $2::uuid[], $3::int[], $4::text[], $5::bool[], $6::timestamptz[])"
        " AS wanted (place, click_id, goal_id, event_id, only_pending, received_by) CROSS JOIN LATERAL ("
        "  SELECT conversion_id FROM conversions WHERE conversion_id IN ("
        "   SELECT conversion_id FROM conversions WHERE click_id = wanted.click_id UNION ALL"
        "   SELECT conversion_id FROM conversions WHERE named_click_id = wanted.click_id) AND goal_id = wanted.goal_id"
        "  AND (status <> 'rejected' OR status_code = $7) AND (status = 'pending' OR NOT wanted.only_pending)"
        "  AND received_at <= wanted.received_by"
        f"  AND wanted.event_id IN ('', {_EVENT_ID}) ORDER BY coalesce(named_click_id, click_id) = wanted.click_id DESC,"
        "  received_at DESC, conversion_id DESC LIMIT 1"
        " ) AS found",
        range(len(sought)),
        *map(list, zip(*sought, strict=True)),
        later_code,
    )
    return {sought[place]: conversion_id for place, conversion_id in rows}


async def update_conversions(conn: asyncpg.Connection, changed: Sequence[Held]) -> None:
    """Write back what can change of locked conversions."""
    if changed:
        await conn.executemany(
            "UPDATE conversions SET status = $2, reason = $3, status_code = $4, amount = $5, payout = $6, revenue = $7,"
            " tier = $8 WHERE conversion_id = $1",
            [(one.conversion_id, *one[Held._fields.index("status") : -1]) for one in changed],
        )


async def hold_waiting(conn: asyncpg.Connection, conversion_ids: Iterable[UUID]) -> None:
    """No late click decides these conversions meanwhile; first of all locks, since the drain takes them first."""
    await conn.execute(
        "SELECT FROM conversions_waiting WHERE conversion_id = ANY($1) AND decided_at IS NOT NULL"
        " ORDER BY conversion_id FOR UPDATE",
        list(conversion_ids),
    )


async def end_waiting(conn: asyncpg.Connection, conversion_ids: Iterable[UUID]) -> None:
    """A late click changes these conversions no more; after `hold_waiting`."""
    await conn.execute(
        "DELETE FROM conversions_waiting WHERE conversion_id = ANY($1) AND decided_at IS NOT NULL", list(conversion_ids)
    )


async def find_changed_by(conn: asyncpg.Connection, cause_id: UUID) -> UUID | None:
    """The conversion that this one changed instead of being one of its own."""
    found: UUID | None = await conn.fetchval(
        "SELECT conversion_id FROM conversion_changes WHERE cause_id = $1", cause_id
    )
    return found
