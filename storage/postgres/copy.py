"""Rows of clicks and impressions, and what could be made no row of."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import asyncpg
from asyncpg.pgproto.pgproto import UUID as Uuid  # noqa: N811 - it is a class; made from 16 bytes in a fifth of the standard one's time

__all__ = ["TouchRow", "Uuid", "quarantine"]


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
    """Packed, 4 or 16 bytes."""
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


async def quarantine(conn: asyncpg.Connection, damaged: Sequence[tuple[UUID, int, int, str, bytes]]) -> None:
    """Keep what could not be stored: (journal_id, segment, byte_offset, error, raw), whole; once, however often told."""
    if damaged:
        await conn.executemany(
            "INSERT INTO quarantine (journal_id, segment, byte_offset, error, raw) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT DO NOTHING",
            damaged,
        )
