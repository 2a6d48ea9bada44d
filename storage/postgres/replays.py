"""What a replay of stored conversions and clicks reads. Every query here only looks: see `open_snapshot`.

R1  A conversion belongs to the period that holds the hour in which it was last decided, all of its later changes with it.
R2  Rows come in the order in which they were booked: who waited for whose locks has the higher `change_id`.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from storage.postgres.cap_usage import Usage
from storage.postgres.connection import Connection
from storage.postgres.copy import Uuid

Row = Mapping[str, Any]
ZERO = Decimal(0)
_FETCHED = 1000


class Window(NamedTuple):
    """The conversions of a replay: decided from the hour `starts_at` until before `ends_at`; `first_id`: the first change."""

    starts_at: datetime
    ends_at: datetime
    offer_ids: tuple[int, ...] = ()
    """Empty: all."""
    first_id: int = 0


@asynccontextmanager
async def open_snapshot(conn: Connection) -> AsyncIterator[None]:
    """One moment of the database for as long as the block lasts; whatever would write is refused by the server."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        yield


_IN_WINDOW = "kind = 'decided' AND booked_hour >= $1 AND booked_hour < $2"
_OF_OFFERS = "($3::int[] = '{}' OR offer_id = ANY($3))"
_NOT_DECIDED_LATER = """NOT EXISTS (
    SELECT FROM conversion_changes AS later WHERE later.conversion_id = change.conversion_id
    AND later.kind = 'decided' AND later.change_id > change.change_id)"""
_MEASURE = f"""
    SELECT count(*), coalesce(min(change_id), 0) FROM conversion_changes AS change
    JOIN conversions USING (conversion_id) WHERE {_IN_WINDOW} AND {_OF_OFFERS}
"""
_CHANGE = (
    "change_id, kind, booked_hour, status_before, status_after, amount_after, payout_after, revenue_after, cause_id, cause_params,"
    " conversions_delta"
)
# What may still meet this row: a change of its conversion, or another conversion that a place is shared with.
_IS_LAST = """NOT EXISTS (
        SELECT FROM conversion_changes AS later
        WHERE later.conversion_id = decided.conversion_id AND later.change_id > change.change_id
    ) AND (decided.click_id IS NULL OR NOT EXISTS (
        SELECT FROM conversions AS other JOIN conversion_changes AS later USING (conversion_id)
        WHERE (other.click_id IN (decided.click_id, decided.named_click_id)
               OR other.named_click_id IN (decided.click_id, decided.named_click_id))
          AND later.change_id > change.change_id
    ))"""
_STREAM = f"""
    WITH decided AS MATERIALIZED (
        SELECT conversions.*, change_id AS decided_id, booked_hour AS decided_hour, status_before <> '' AS was_decided,
               (conversion_unique_id <> '' AND count(*) OVER (PARTITION BY conversion_unique_id) > 1)
               OR (click_id IS NULL AND aff_id > 0 AND extras ? 'adv_unique1'
                   AND count(*) OVER (PARTITION BY offer_id, aff_id, goal_id, extras ->> 'adv_unique1') > 1) AS is_repeated
        FROM conversion_changes AS change JOIN conversions USING (conversion_id)
        WHERE {_IN_WINDOW} AND {_OF_OFFERS} AND {_NOT_DECIDED_LATER}
    )
    SELECT decided.*, change.reason AS change_reason,
           {", ".join(f"change.{name} AS change_{name}" for name in _CHANGE.split(", "))},
           earlier.*, {_IS_LAST} AS is_last
    FROM decided JOIN conversion_changes AS change USING (conversion_id)
    LEFT JOIN LATERAL (
        SELECT amount_after AS amount_before, payout_after AS payout_before, revenue_after AS revenue_before
        FROM conversion_changes AS one
        WHERE one.conversion_id = decided.conversion_id AND one.change_id < change.change_id
          AND change.kind <> 'decided' AND (change.cause_id IS NULL OR erased_at IS NOT NULL) ORDER BY one.change_id DESC LIMIT 1
    ) AS earlier ON true
    WHERE change.change_id >= decided_id
    ORDER BY change_id
"""
_OUTSIDE = f"""
    SELECT change_id, offer_id, aff_id, change.booked_hour, decided_hour, conversions_delta, status_before, status_after,
           payout_after, revenue_after, before.payout_before, before.revenue_before
    FROM conversion_changes AS change JOIN conversions USING (conversion_id)
    CROSS JOIN LATERAL (
        SELECT booked_hour AS decided_hour FROM conversion_changes AS decided
        WHERE decided.conversion_id = change.conversion_id AND kind = 'decided' ORDER BY change_id DESC LIMIT 1
    ) AS decided
    CROSS JOIN LATERAL (
        SELECT payout_after AS payout_before, revenue_after AS revenue_before FROM conversion_changes AS earlier
        WHERE earlier.conversion_id = change.conversion_id AND earlier.change_id < change.change_id
        ORDER BY change_id DESC LIMIT 1
    ) AS before
    WHERE change.change_id > $4 AND kind <> 'decided' AND change.booked_hour < $2 AND decided_hour < $1 AND {_OF_OFFERS}
    ORDER BY change_id
"""


async def measure_window(conn: Connection, window: Window) -> tuple[Window, int]:
    """The window with its first change, and how many decisions are in it."""
    count, first_id = await conn.fetchrow(_MEASURE, window.starts_at, window.ends_at, window.offer_ids)
    return window._replace(first_id=first_id), count


async def stream_decided(conn: Connection, window: Window) -> AsyncIterator[Row]:
    """The decisions of the window and all later changes of their conversions: the conversion's columns as they are now,
    the change's with `change_` before their names. `is_last`: nothing later has to do with its click or conversion.
    """
    async for row in conn.cursor(_STREAM, *window[:3], prefetch=_FETCHED):
        yield row


async def changes_outside(conn: Connection, window: Window) -> AsyncIterator[Row]:
    """What became during the window of conversions decided before it: tiers and caps felt it."""
    async for row in conn.cursor(_OUTSIDE, *window, prefetch=_FETCHED):
        yield row


async def find_earlier_holders(conn: Connection, window: Window, keys: Sequence[str]) -> dict[str, Uuid]:
    """Which of these keys were held when the window began, or by a conversion that is not decided again."""
    if not keys:
        return {}
    rows = await conn.fetch(
        "SELECT key, conversion_id FROM conversion_keys AS held JOIN conversions USING (conversion_id)"
        f" CROSS JOIN LATERAL (SELECT booked_hour AS decided_hour FROM conversion_changes AS decided"
        "  WHERE decided.conversion_id = held.conversion_id AND kind = 'decided' ORDER BY change_id DESC LIMIT 1) AS decided"
        f" WHERE key = ANY($4) AND decided_hour < $2 AND (decided_hour < $1 OR erased_at IS NOT NULL OR NOT {_OF_OFFERS})",
        *window[:3],
        keys,
    )
    return {row["key"]: row["conversion_id"] for row in rows}


async def find_held(conn: Connection, keys: Iterable[str]) -> set[str]:
    """Which of these keys anybody holds."""
    if not (wanted := list(keys)):
        return set()
    return {row["key"] for row in await conn.fetch("SELECT key FROM conversion_keys WHERE key = ANY($1)", wanted)}


async def count_approved_before(
    conn: Connection, window: Window, places: Iterable[tuple[int, int]], since: datetime
) -> dict[tuple[int, int], int]:
    """Approved conversions of each offer and partner, booked from `since` until the window began."""
    offers, partners = (list(one) for one in zip(*places, strict=True))
    rows = await conn.fetch(
        "SELECT offer_id, aff_id, sum(conversions_delta)::int FROM conversion_changes JOIN conversions USING (conversion_id)"
        " WHERE booked_hour >= $1 AND booked_hour < $2 AND change_id < $3"
        " AND (offer_id, aff_id) IN (SELECT * FROM unnest($4::int[], $5::int[])) GROUP BY 1, 2",
        since,
        window.starts_at,
        window.first_id,
        offers,
        partners,
    )
    return {(row[0], row[1]): row[2] for row in rows}


_USED_BEFORE = """
    SELECT sum(gross_clicks - invalid_clicks - refused_clicks)::bigint, 0::bigint, sum(payout), sum(revenue)
    FROM stats_hourly WHERE offer_id = $1 AND $2 IN (0, aff_id) AND hour >= $3 AND hour < $4
    UNION ALL
    SELECT 0, 0, -sum(payout_delta), -sum(revenue_delta)
    FROM conversion_changes JOIN conversions USING (conversion_id)
    WHERE offer_id = $1 AND $2 IN (0, aff_id) AND booked_hour >= $3 AND booked_hour < $4
    UNION ALL
    SELECT 0, count(*), sum(payout_after), sum(revenue_after)
    FROM (
        SELECT DISTINCT ON (conversion_id) status_after, change.payout_after, change.revenue_after
        FROM conversion_changes AS change JOIN conversions USING (conversion_id)
        WHERE offer_id = $1 AND $2 IN (0, aff_id) AND change_id < $5 AND conversion_id IN (
            SELECT conversion_id FROM conversion_changes
            WHERE kind = 'decided' AND booked_hour >= $3 AND booked_hour < $4)
        ORDER BY conversion_id, change_id DESC
    ) AS state WHERE status_after IN ('approved', 'pending')
"""


async def count_used_before(conn: Connection, window: Window, offer_id: int, aff_id: int, since: datetime) -> Usage:
    """What was had of an offer (`aff_id` 0) or of that partner in it from `since` until the window began."""
    used = Usage()
    if since < window.starts_at:
        place = (offer_id, aff_id, since, window.starts_at, window.first_id)
        for clicks, conversions, payout, revenue in await conn.fetch(_USED_BEFORE, *place):
            used.add(Usage(clicks or 0, conversions or 0, payout or ZERO, revenue or ZERO))
    return used


_TOUCH_HOURS = """
    SELECT date_trunc('hour', clicked_at, 'UTC') AS hour, offer_id, aff_id, currency, outcome, reason, count(*) AS clicks,
           count(*) FILTER (WHERE outcome NOT IN ('fallback', 'rejected') AND NOT flags && '{bot,prefetch,datacentre}') AS taken,
           sum(payout) AS payout, sum(revenue) AS revenue, true AS is_click
    FROM clicks WHERE click_id >= $1 AND click_id < $2 AND ($3::int[] = '{}' OR offer_id = ANY($3))
      AND NOT (offer_id = ANY($4) OR aff_id = ANY($5) OR coalesce(extras ->> 'requested_offer_id', '') = ANY($6))
    GROUP BY 1, 2, 3, 4, 5, 6
    UNION ALL
    SELECT date_trunc('hour', clicked_at, 'UTC'), offer_id, aff_id, currency, '', '', 0, 0, sum(payout), sum(revenue), false
    FROM impressions WHERE click_id >= $1 AND click_id < $2 AND ($3::int[] = '{}' OR offer_id = ANY($3))
      AND (payout <> 0 OR revenue <> 0) GROUP BY 1, 2, 3, 4
    ORDER BY hour
"""
_CLICKS = """
    SELECT click_id, clicked_at, offer_id, aff_id, source, aff_sub1, aff_sub2, aff_sub3, aff_sub4, aff_sub5, country, region,
           city, user_agent, device_type, device_brand, os, browser, language, visitor, payout, revenue, currency, outcome,
           reason, flags, extras, catalog_revision
    FROM clicks WHERE click_id >= $1 AND click_id < $2
      AND (offer_id = ANY($3) OR aff_id = ANY($4) OR coalesce(extras ->> 'requested_offer_id', '') = ANY($5))
    ORDER BY click_id
"""


class Touched(NamedTuple):
    """The clicks that changed rules may send or pay otherwise: of these offers, asked for or gone to, and partners."""

    offer_ids: list[int]
    aff_ids: list[int]

    @property
    def asked(self) -> list[str]:
        """The offers as clicks name the one that was asked for."""
        return [str(offer_id) for offer_id in self.offer_ids]


async def stream_untouched(conn: Connection, window: Window, touched: Touched) -> AsyncIterator[Row]:
    """All other clicks, counted by hour, place and outcome, hour after hour; and what impressions earned."""
    span = id_of(window.starts_at), id_of(window.ends_at)
    async for row in conn.cursor(
        _TOUCH_HOURS, *span, window.offer_ids, touched.offer_ids, touched.aff_ids, touched.asked, prefetch=_FETCHED
    ):
        yield row


async def stream_clicks(conn: Connection, window: Window, touched: Touched) -> AsyncIterator[Row]:
    """These clicks one by one, in the order of their time."""
    span = id_of(window.starts_at), id_of(window.ends_at)
    async for row in conn.cursor(
        _CLICKS, *span, touched.offer_ids, touched.aff_ids, touched.asked, prefetch=_FETCHED
    ):
        yield row


async def offers_ever(conn: Connection) -> list[tuple[int, bytes]]:
    """The bodies of all offers, as they are and as they were."""
    rows = await conn.fetch("SELECT id::int, body FROM catalog_items WHERE kind = 'offers'")
    return [(row[0], row[1]) for row in rows]


async def count_clicks(conn: Connection, window: Window) -> int:
    """How many clicks there are in the window, by the roll-ups."""
    found: int = await conn.fetchval(
        "SELECT coalesce(sum(gross_clicks), 0)::bigint FROM stats_hourly WHERE hour >= $1 AND hour < $2",
        window.starts_at,
        window.ends_at,
    )
    return found


def id_of(moment: datetime) -> UUID:
    """The lowest id that a touch of that moment may have."""
    return UUID(int=round(moment.timestamp() * 1000) << 80)


async def revision_times(conn: Connection) -> list[tuple[datetime, int]]:
    """When each catalog revision was stored, in order."""
    return [tuple(row) for row in await conn.fetch("SELECT created_at, revision FROM catalog_revisions ORDER BY revision")]


def uuid_of(value: UUID | None) -> bytes:
    """An id's bytes; empty for none."""
    return value.bytes if value else b""
