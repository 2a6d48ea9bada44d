"""Rows of clicks and impressions into their partitions, by binary COPY through the parent."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import asyncpg
from asyncpg.pgproto.pgproto import UUID as Uuid  # noqa: N811 - it is a class; made from 16 bytes in a fifth of the standard one's time

__all__ = ["TouchRow", "Uuid", "copy_rows", "quarantine"]


class TouchRow(NamedTuple):
    """A row of `clicks` or `impressions`; the fields are the columns."""

    click_id: Uuid
    clicked_at: datetime
    node_id: int
    offer_id: int
    aff_id: int
    landing_page_id: int
    creative_id: int
    alias: str
    source: str
    aff_sub1: str
    aff_sub2: str
    aff_sub3: str
    aff_sub4: str
    aff_sub5: str
    aff_click_id: str
    utm_source: str
    utm_medium: str
    utm_campaign: str
    utm_content: str
    utm_term: str
    contact_id: str
    ip: bytes | None
    """Packed: asyncpg would parse text anew in each row, 2.4 us against 0.5 (IPv4, 2 shared Xeon cores, 2026-11-21)."""
    country: str
    region: str
    city: str
    user_agent: str
    device_type: str
    device_brand: str
    os: str
    browser: str
    language: str
    referrer: str
    visitor: Uuid | None
    cost: Decimal
    payout: Decimal
    revenue: Decimal
    currency: str
    outcome: str
    reason: str
    flags: list[str]
    extras: dict[str, str]
    catalog_revision: int
    first_click_id: Uuid | None
    """The first click that the cookie remembered."""


async def copy_rows(conn: asyncpg.Connection, table: str, rows: Iterable[TouchRow]) -> None:
    """Append `rows` to `clicks` or `impressions`. UniqueViolationError would mean that P1 was broken."""
    await conn.copy_records_to_table(table, records=rows, columns=TouchRow._fields)


async def quarantine(
    conn: asyncpg.Connection, journal_id: UUID, damaged: Sequence[tuple[int, int, str, bytes]]
) -> None:
    """Keep what could not be stored: (segment, byte_offset, error, raw), whole; once, however often it is reported."""
    if damaged:
        await conn.executemany(
            "INSERT INTO quarantine (journal_id, segment, byte_offset, error, raw) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT DO NOTHING",
            [(journal_id, *row) for row in damaged],
        )
