"""What the console's first page shows: sums of the roll-ups, and the newest clicks and conversions.

`aff_id`, `advertiser_id`: only that partner's or that advertiser's; 0: everybody's. Money of several currencies is never
added: each row of sums has its currency.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

from storage.postgres.catalog import load_owners
from storage.postgres.connection import Connection

Row = dict[str, Any]
COUNTS = ("impressions", "gross_clicks", "unique_clicks", "invalid_clicks", "conversions", "pending", "rejected")
SUMS = ("amount", "revenue", "payout")
_MEASURES = ", ".join(
    (
        *(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in COUNTS),
        *(f"coalesce(sum({name}), 0) AS {name}" for name in SUMS),
    )
)
_OWN = "($3 = 0 OR aff_id = $3) AND ($4 = 0 OR advertiser_id = $4)"
NEWEST_WITHIN = timedelta(hours=1)
"""Clicks older than this are not looked for: a list of the newest must not read a day of other people's."""


class Whose(NamedTuple):
    """Whose rows count; 0: everybody's."""

    aff_id: int = 0
    advertiser_id: int = 0


async def sum_by_currency(conn: Connection, since: datetime, until: datetime, whose: Whose) -> list[Row]:
    """The sums of the hours from `since` to before `until`, a row a currency."""
    return await _fetch(
        conn,
        f"SELECT currency, {_MEASURES} FROM stats_hourly WHERE hour >= $1 AND hour < $2 AND {_OWN}"
        " GROUP BY currency ORDER BY currency",
        since,
        until,
        *whose,
    )


async def sum_by_step(
    conn: Connection, since: datetime, until: datetime, whose: Whose, step: Literal["hour", "day"], timezone: str
) -> list[Row]:
    """Valid clicks and conversions by hour, of UTC as they are booked, or by day of that time zone; without empty ones.

    `at`: the first instant.
    """
    return await _fetch(
        conn,
        "SELECT CASE $5 WHEN 'hour' THEN hour ELSE date_trunc($5, hour, $6) END AS at, sum(gross_clicks - invalid_clicks)::bigint AS clicks,"
        f" sum(conversions)::bigint AS conversions FROM stats_hourly WHERE hour >= $1 AND hour < $2 AND {_OWN}"
        " GROUP BY 1 ORDER BY 1",
        since,
        until,
        *whose,
        step,
        timezone,
    )


async def sum_by_item(
    conn: Connection,
    since: datetime,
    until: datetime,
    whose: Whose,
    column: Literal["offer_id", "aff_id", "advertiser_id"],
    limit: int,
) -> list[Row]:
    """The offers, partners or advertisers with the most revenue, then clicks; a row an item and currency."""
    return await _fetch(
        conn,
        f"SELECT {column} AS id, currency, {_MEASURES} FROM stats_hourly"
        f" WHERE hour >= $1 AND hour < $2 AND {_OWN} AND {column} > 0"
        f" GROUP BY {column}, currency ORDER BY sum(conversions) DESC, sum(gross_clicks) DESC, {column} LIMIT $5",
        since,
        until,
        *whose,
        limit,
    )


async def count_by_item(
    conn: Connection,
    since: datetime,
    column: Literal["offer_id", "aff_id", "advertiser_id"],
    ids: Sequence[int],
    whose: Whose,
) -> dict[int, tuple[int, int]]:
    """Valid clicks and conversions of these items since then."""
    rows = await conn.fetch(
        f"SELECT {column}, sum(gross_clicks - invalid_clicks)::bigint, sum(conversions)::bigint FROM stats_hourly"
        f" WHERE hour >= $1 AND {column} = ANY($2::int[]) AND {_OWN} GROUP BY {column}",
        since,
        ids,
        *whose,
    )
    return {row[0]: (row[1], row[2]) for row in rows}


class Filters(NamedTuple):
    """Which clicks; 0 and "" for all."""

    offer_id: int = 0
    aff_id: int = 0
    offer_ids: Sequence[int] | None = None
    """Only clicks of these offers; None: of all."""
    advertiser_id: int = 0
    """And of these only that advertiser's, by the catalog of each click."""


async def newest_clicks(conn: Connection, now: datetime, filters: Filters, limit: int) -> list[Row]:
    """The newest clicks of the last hour, newest first."""
    first = UUID(int=int((now - NEWEST_WITHIN).timestamp() * 1000) << 80)
    rows = await _fetch(
        conn,
        "SELECT click_id, clicked_at, offer_id, aff_id, source, country, device_type, browser, outcome, reason, flags,"
        " catalog_revision FROM clicks WHERE click_id >= $1 AND ($2 = 0 OR offer_id = $2) AND ($3 = 0 OR aff_id = $3)"
        " AND ($4::int[] IS NULL OR offer_id = ANY($4)) ORDER BY click_id DESC LIMIT $5",
        first,
        filters.offer_id,
        filters.aff_id,
        filters.offer_ids,
        limit,
    )
    if not filters.advertiser_id:
        return rows
    owners = await load_owners(conn, {(row["offer_id"], row["catalog_revision"]) for row in rows})
    return [row for row in rows if owners.get((row["offer_id"], row["catalog_revision"])) == filters.advertiser_id]


async def newest_conversions(conn: Connection, since: datetime, whose: Whose, limit: int) -> list[Row]:
    """The newest conversions received since then, newest first."""
    return await _fetch(
        conn,
        "SELECT conversion_id, click_id, transaction_id, received_at, offer_id, aff_id, goal_id, status, reason, amount,"
        " currency, revenue, payout FROM conversions WHERE received_at >= $1"
        " AND ($2 = 0 OR aff_id = $2) AND ($3 = 0 OR advertiser_id = $3)"
        " ORDER BY received_at DESC, conversion_id LIMIT $4",
        since,
        *whose,
        limit,
    )


def ratio(part: Decimal | int, whole: Decimal | int, factor: int = 1) -> Decimal | None:
    """`factor` * part / whole; None where there is nothing to divide by."""
    return Decimal(part) * factor / Decimal(whole) if whole else None


async def _fetch(conn: Connection, query: str, *arguments: Any) -> list[Row]:
    return [dict(row) for row in await conn.fetch(query, *arguments)]
