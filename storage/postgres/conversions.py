"""Conversions: their rows, the keys that make each count once, those that wait, and every change with its deltas."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import asyncpg

from storage.postgres.copy import Uuid


class ConversionRow(NamedTuple):
    """A row of `conversions`; the fields are the columns."""

    conversion_id: Uuid
    click_id: Uuid | None
    transaction_id: str
    node_id: int
    advertiser_id: int
    offer_id: int
    aff_id: int
    goal_id: int
    landing_page_id: int
    creative_id: int
    touched_at: datetime | None
    converted_at: datetime
    received_at: datetime
    amount: Decimal
    currency: str
    revenue: Decimal
    payout: Decimal
    status: str
    reason: str
    status_code: int
    adv_sub1: str
    adv_sub2: str
    adv_sub3: str
    adv_sub4: str
    adv_sub5: str
    conversion_unique_id: str
    promo_code: str
    via: str
    ip: str | None
    country: str
    device_type: str
    extras: dict[str, str]
    catalog_revision: int
    tier: int
    contact_id: str
    named_click_id: Uuid | None
    """The touch that was named, where another is credited."""
    erased_at: datetime | None = None
    """When what names a person was taken out."""


class ChangeRow(NamedTuple):
    """A row of `conversion_changes`: what one decision or later change added to `stats_hourly`."""

    conversion_id: Uuid
    booked_hour: datetime
    actor: str
    kind: str
    status_before: str
    status_after: str
    reason: str
    amount_delta: Decimal
    payout_delta: Decimal
    revenue_delta: Decimal
    conversions_delta: int
    pending_delta: int
    rejected_delta: int
    note: str
    amount_after: Decimal
    payout_after: Decimal
    revenue_after: Decimal
    cause_id: Uuid | None = None
    """The conversion that, instead of being one of its own, changed this one; `cause_params`: what it sent."""
    cause_params: dict[str, str] = {}  # noqa: RUF012 - never mutated


class WaitingRow(NamedTuple):
    """A row of `conversions_waiting`. `decided_at`: it was called unknown_click, and a later click still changes that.

    Without a click id it waits for `external_id` or, without that too, for its contact; node and worker are then -1, and
    `id_ms` is its receipt.
    """

    conversion_id: Uuid
    click_id: Uuid | None
    node_id: int
    worker_id: int
    id_ms: int
    received_at: datetime
    deadline: datetime
    event: bytes
    journal_id: UUID
    decided_at: datetime | None
    external_id: str | None


class Recalled(NamedTuple):
    """A waiting conversion taken back to be decided."""

    conversion_id: UUID
    event: bytes
    journal_id: UUID
    was_decided: bool


async def insert_conversions(conn: asyncpg.Connection, rows: Sequence[ConversionRow]) -> None:
    """Store decided conversions."""
    if rows:
        await conn.copy_records_to_table("conversions", records=rows, columns=ConversionRow._fields)


async def replace_conversions(conn: asyncpg.Connection, rows: Sequence[ConversionRow]) -> None:
    """Store conversions over what they were; the caller books the difference with `insert_changes`."""
    if rows:
        await conn.execute("DELETE FROM conversions WHERE conversion_id = ANY($1)", [row.conversion_id for row in rows])
        await insert_conversions(conn, rows)


async def insert_changes(conn: asyncpg.Connection, rows: Sequence[ChangeRow]) -> None:
    """Book decisions and changes."""
    if rows:
        await conn.copy_records_to_table("conversion_changes", records=rows, columns=ChangeRow._fields)


async def find_holders(conn: asyncpg.Connection, keys: Sequence[str]) -> dict[str, Uuid]:
    """The conversions that hold these keys, by key."""
    rows = await conn.fetch("SELECT key, conversion_id FROM conversion_keys WHERE key = ANY($1)", keys) if keys else ()
    return {row["key"]: row["conversion_id"] for row in rows}


async def claim_keys(conn: asyncpg.Connection, claims: dict[str, Uuid]) -> set[str]:
    """Claim each key for its conversion; those that nobody held. In key order: two claimers never wait in a ring."""
    if not claims:
        return set()
    rows = await conn.fetch(
        "INSERT INTO conversion_keys (key, conversion_id)"
        ' SELECT * FROM unnest($1::text[], $2::uuid[]) AS new (key, conversion_id) ORDER BY key COLLATE "C"'
        " ON CONFLICT DO NOTHING RETURNING key",
        list(claims),
        list(claims.values()),
    )
    return {row["key"] for row in rows}


async def release_keys(conn: asyncpg.Connection, keys: dict[str, Uuid]) -> None:
    """Free keys that these conversions claimed in this transaction."""
    if keys:
        await conn.execute(
            "DELETE FROM conversion_keys USING unnest($1::text[], $2::uuid[]) AS freed (key, conversion_id)"
            " WHERE conversion_keys.key = freed.key AND conversion_keys.conversion_id = freed.conversion_id",
            list(keys),
            list(keys.values()),
        )


async def give_keys(conn: asyncpg.Connection, keys: dict[str, Uuid]) -> None:
    """Pass keys that were claimed in this transaction to other conversions."""
    if keys:
        await conn.execute(
            "UPDATE conversion_keys SET conversion_id = heirs.conversion_id"
            " FROM unnest($1::text[], $2::uuid[]) AS heirs (key, conversion_id) WHERE conversion_keys.key = heirs.key",
            list(keys),
            list(keys.values()),
        )


async def insert_waiting(conn: asyncpg.Connection, rows: Sequence[WaitingRow]) -> None:
    """Keep conversions whose click has not been seen."""
    if rows:
        await conn.copy_records_to_table("conversions_waiting", records=rows, columns=WaitingRow._fields)


async def recall_for_clicks(conn: asyncpg.Connection, click_ids: Iterable[Uuid]) -> list[Recalled]:
    """Take back the conversions that waited for these clicks, or were decided without them."""
    return [Recalled(*row) for row in await conn.fetch(_recall_sql("click_id"), list(click_ids))]


async def recall_for_external_ids(conn: asyncpg.Connection, external_ids: Sequence[str]) -> list[Recalled]:
    """Take back the conversions that waited for these ids of others, or were decided without them."""
    if not external_ids:
        return []
    return [Recalled(*row) for row in await conn.fetch(_recall_sql("external_id"), external_ids)]


def _recall_sql(column: str) -> str:
    """Locked in the order of their ids before any goes, as whoever changes conversions locks them (`hold_waiting`)."""
    return (
        f"WITH held AS MATERIALIZED (SELECT conversion_id FROM conversions_waiting WHERE {column} = ANY($1)"
        "  ORDER BY conversion_id FOR UPDATE)"
        " DELETE FROM conversions_waiting AS waiting USING held WHERE waiting.conversion_id = held.conversion_id"
        " RETURNING waiting.conversion_id, event, journal_id, decided_at IS NOT NULL AS was_decided"
    )


async def recall_one(conn: asyncpg.Connection, conversion_id: UUID) -> list[Recalled]:
    """Take back this one; empty if another has done so."""
    rows = await conn.fetch(
        "DELETE FROM conversions_waiting WHERE conversion_id = $1"
        " RETURNING conversion_id, event, journal_id, decided_at IS NOT NULL",
        conversion_id,
    )
    return [Recalled(*row) for row in rows]


async def recall_due(conn: asyncpg.Connection, limit: int) -> list[Recalled]:
    """Take back conversions that need wait no longer: their click's journals are drained that far, or time is up.

    Those without a click's id wait for all live journals.
    """
    rows = await conn.fetch(
        "DELETE FROM conversions_waiting WHERE conversion_id IN ("
        " SELECT conversion_id FROM conversions_waiting WHERE conversion_id IN ("
        "  SELECT due.conversion_id FROM ("
        "   SELECT node_id, worker_id, least(max(watermark_ms), min(watermark_ms) FILTER (WHERE finished_at IS NULL))"
        "   AS through_ms FROM journal_positions WHERE node_id >= 0 GROUP BY 1, 2"
        "  ) AS vouched CROSS JOIN LATERAL ("
        "   SELECT conversion_id FROM conversions_waiting AS waiting WHERE waiting.decided_at IS NULL"
        "   AND waiting.node_id = vouched.node_id AND waiting.worker_id = vouched.worker_id"
        "   AND waiting.id_ms <= vouched.through_ms LIMIT $1"
        "  ) AS due UNION ALL ("
        "   SELECT conversion_id FROM conversions_waiting WHERE decided_at IS NULL AND deadline <= now() LIMIT $1"
        "  ) UNION ALL ("
        "   SELECT conversion_id FROM conversions_waiting WHERE decided_at IS NULL AND node_id = -1 AND worker_id = -1"
        "   AND id_ms <= (SELECT min(watermark_ms) FROM journal_positions WHERE finished_at IS NULL) LIMIT $1)"
        " ) LIMIT $1 FOR UPDATE SKIP LOCKED"
        ") RETURNING conversion_id, event, journal_id, false",
        limit,
    )
    return [Recalled(*row) for row in rows]


async def decided_clicks(conn: asyncpg.Connection, since: datetime) -> list[UUID]:
    """The click ids of conversions called unknown_click since then."""
    rows = await conn.fetch(
        "SELECT DISTINCT click_id FROM conversions_waiting WHERE decided_at >= $1 AND click_id IS NOT NULL LIMIT 10000",
        since,
    )
    return [row["click_id"] for row in rows]


async def count_waiting(conn: asyncpg.Connection) -> int:
    """Conversions that wait for their click."""
    count: int = await conn.fetchval("SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL")
    return count


async def forget_decided(conn: asyncpg.Connection, before: datetime) -> None:
    """Give up on clicks of conversions decided that long ago."""
    await conn.execute("DELETE FROM conversions_waiting WHERE decided_at < $1", before)
