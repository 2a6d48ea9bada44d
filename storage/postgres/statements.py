"""What monthly statements say: computed while the month is open, kept when it is closed.

S1  The lines booked in a month, whichever statement has them, add up to what `stats_hourly` had of it when the last of
    them was kept. So each click and conversion is stated once.
S2  Kept lines never change; they go only when their month is opened again.
S3  A change of a conversion decided in an earlier, closed month is a line of its own (`made_in` earlier). What comes into the
    hours of a closed month itself, as late clicks do, is a line of the next statement (`booked_in` earlier).
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

_LOCK_KEY = 0x73746174656D  # "statem"
_EVER = date(1970, 1, 1)


class Span(NamedTuple):
    """A month to be stated: its instants, the zone that it is a month of, and whether and when it was closed.

    `catalog_revision`: whose names are shown; None: not kept, and the catalog in force.
    """

    month: date
    starts_at: datetime
    ends_at: datetime
    timezone: str
    closed_at: datetime | None = None
    catalog_revision: int | None = None


class Party(NamedTuple):
    """Whose statement: one of the two ids, the other 0; both 0: everybody's."""

    aff_id: int = 0
    advertiser_id: int = 0


EVERYBODY = Party()


class StatedLine(NamedTuple):
    """A row of `statement_lines`, without its month; money exact, six decimals."""

    booked_in: date
    made_in: date
    advertiser_id: int
    aff_id: int
    offer_id: int
    goal_id: int
    currency: str
    impressions: int
    clicks: int
    conversions: int
    amount: Decimal
    payout: Decimal
    revenue: Decimal
    conversion_payout: Decimal
    conversion_revenue: Decimal


class AdjustedConversion(NamedTuple):
    """A change, booked in the month, of a conversion that was decided before it; the money is what it added."""

    conversion_id: UUID
    made_in: date
    changed_at: datetime
    status: str
    reason: str
    advertiser_id: int
    aff_id: int
    offer_id: int
    goal_id: int
    currency: str
    conversions: int
    amount: Decimal
    payout: Decimal
    revenue: Decimal


class CatalogName(NamedTuple):
    """An item of the catalog as it was last known: table, id, body as JSON."""

    kind: str
    id: int
    body: bytes


_KEY = "advertiser_id, aff_id, offer_id, goal_id, currency"
_COUNTS = ("impressions", "clicks", "conversions")
_MONEY = ("amount", "payout", "revenue", "conversion_payout", "conversion_revenue")
_SUMS = ", ".join([f"sum({name})::bigint" for name in _COUNTS] + [f"sum({name})" for name in _MONEY])
_SOMETHING = " OR ".join(f"sum({name}) <> 0" for name in _COUNTS + _MONEY)
# $1 month, $2 starts_at, $3 ends_at, $4 time zone, $5 aff_id, $6 advertiser_id
_MINE = "($5::int = 0 OR aff_id = $5) AND ($6::int = 0 OR advertiser_id = $6)"
_CHANGES = f"""
    SELECT change_id, conversion_id, changed_at, changes.kind, status_after, changes.reason, advertiser_id, aff_id, offer_id,
           goal_id, currency, conversions_delta, amount_delta, payout_delta, revenue_delta,
           CASE WHEN decided.booked_hour < $2 THEN least($1::date, coalesce(
               (SELECT month FROM closed_months WHERE starts_at <= decided.booked_hour AND decided.booked_hour < ends_at),
               date_trunc('month', decided.booked_hour AT TIME ZONE $4)::date)) ELSE $1::date END AS made_in
    FROM conversion_changes AS changes JOIN conversions USING (conversion_id)
    LEFT JOIN LATERAL (
        SELECT booked_hour FROM conversion_changes AS earlier
        WHERE earlier.conversion_id = changes.conversion_id AND earlier.kind = 'decided'
          AND earlier.change_id < changes.change_id AND changes.kind <> 'decided' ORDER BY change_id DESC LIMIT 1
    ) AS decided ON true
    WHERE changes.booked_hour >= $2 AND changes.booked_hour < $3 AND {_MINE}
"""
# All months from that one to this are closed: else the one that is not states what came late.
_IS_NEXT_OPEN = """(SELECT count(*) FROM closed_months AS between WHERE between.month >= closed_months.month
        AND between.month < $1) = extract(year FROM age($1, month)) * 12 + extract(month FROM age($1, month))"""
_LINES = f"""
    WITH spans AS (
        SELECT $1::date AS month, $2::timestamptz AS starts_at, $3::timestamptz AS ends_at
        UNION ALL SELECT month, starts_at, ends_at FROM closed_months
        WHERE month < $1 AND month >= $7::date AND catalog_revision IS NOT NULL AND {_IS_NEXT_OPEN}
    ), changes AS MATERIALIZED ({_CHANGES}), parts AS (
        SELECT month AS booked_in, month AS made_in, {_KEY}, impressions, gross_clicks - invalid_clicks AS clicks,
               conversions, amount, payout, revenue, 0 AS conversion_payout, 0 AS conversion_revenue
        FROM spans JOIN stats_hourly ON hour >= starts_at AND hour < ends_at WHERE {_MINE}
        UNION ALL
        SELECT $1, made_in, {_KEY}, 0, 0, conversions_delta, amount_delta, payout_delta, revenue_delta, payout_delta,
               revenue_delta FROM changes WHERE made_in < $1
        UNION ALL
        SELECT $1, $1, {_KEY}, 0, 0, -conversions_delta, -amount_delta, -payout_delta, -revenue_delta, 0, 0
        FROM changes WHERE made_in < $1
        UNION ALL
        SELECT $1, $1, {_KEY}, 0, 0, 0, 0, 0, 0, payout_delta, revenue_delta FROM changes WHERE made_in = $1
        UNION ALL
        SELECT booked_in, booked_in, {_KEY}, -impressions, -clicks, -conversions, -amount, -payout, -revenue, 0, 0
        FROM statement_lines WHERE stated_in <> $1 AND booked_in IN (SELECT month FROM spans) AND {_MINE}
    )
    SELECT booked_in, made_in, {_KEY}, {_SUMS} FROM parts GROUP BY booked_in, made_in, {_KEY} HAVING {_SOMETHING}
"""
_ORDER = "ORDER BY currency, offer_id, goal_id, made_in DESC, booked_in DESC, advertiser_id, aff_id"


async def compute_lines(
    conn: asyncpg.Connection, span: Span, party: Party = EVERYBODY, *, late_since: date = _EVER
) -> list[StatedLine]:
    """What that party's statement of a month says now. `late_since`: into which months' hours something may have come late."""
    rows = await conn.fetch(f"{_LINES} {_ORDER}", *_arguments(span, party), late_since)
    return [StatedLine(*row) for row in rows]


async def kept_lines(conn: asyncpg.Connection, month: date, party: Party = EVERYBODY) -> list[StatedLine]:
    """What was kept when that month was closed."""
    rows = await conn.fetch(
        f"SELECT {', '.join(StatedLine._fields)} FROM statement_lines WHERE stated_in = $1"
        f" AND ($2 = 0 OR aff_id = $2) AND ($3 = 0 OR advertiser_id = $3) {_ORDER}",
        month,
        *party,
    )
    return [StatedLine(*row) for row in rows]


async def adjusted_conversions(conn: asyncpg.Connection, span: Span, party: Party) -> list[AdjustedConversion]:
    """The changes of conversions of earlier months that are booked in this one, in their order."""
    rows = await conn.fetch(
        "SELECT conversion_id, made_in, changed_at, status_after, reason, advertiser_id, aff_id, offer_id, goal_id,"
        f" currency, conversions_delta, amount_delta, payout_delta, revenue_delta FROM ({_CHANGES}) AS changes WHERE made_in < $1 ORDER BY change_id",
        *_arguments(span, party),
    )
    return [AdjustedConversion(*row) for row in rows]


async def find_closed(conn: asyncpg.Connection, month: date) -> Span | None:
    """The month as it was closed; None while it is open."""
    row = await conn.fetchrow(
        "SELECT month, starts_at, ends_at, timezone, closed_at, catalog_revision FROM closed_months WHERE month = $1", month
    )
    return Span(*row) if row else None


async def keep_lines(conn: asyncpg.Connection, month: date, timezone: str) -> None:
    """Keep what a closed month's statements say from now on, once; nothing for an open one or one that is kept."""
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
        span = await find_closed(conn, month)
        if span is None or span.catalog_revision is not None:
            return
        columns = ", ".join(StatedLine._fields)
        await conn.execute(
            f"INSERT INTO statement_lines (stated_in, {columns}) SELECT $1, * FROM ({_LINES}) AS lines",
            *_arguments(span._replace(timezone=timezone), Party()),
            _EVER,
        )
        await conn.execute(
            "UPDATE closed_months SET timezone = $2,"
            " catalog_revision = (SELECT coalesce(max(revision), 0) FROM catalog_revisions) WHERE month = $1",
            month,
            timezone,
        )


async def catalog_names(conn: asyncpg.Connection, revision: int | None) -> list[CatalogName]:
    """Advertisers, partners and offers as they last were up to that revision (None: now), ended ones too."""
    rows = await conn.fetch(
        "SELECT DISTINCT ON (kind, id) kind, id::int, body FROM catalog_items"
        " WHERE kind IN ('advertisers', 'partners', 'offers') AND ($1::bigint IS NULL OR revision_from <= $1)"
        " ORDER BY kind, id, revision_from DESC",
        revision,
    )
    return [CatalogName(*row) for row in rows]


def _arguments(span: Span, party: Party) -> tuple[Any, ...]:
    return span.month, span.starts_at, span.ends_at, span.timezone, *party
