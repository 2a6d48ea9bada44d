"""What was had of capped offers and partners, by period: kept in `cap_usage`, exact at every commit.

U1  Whoever adds to rows that a cap counts first takes `hold_catalog` (storage.postgres.catalog), then all its keys by one
    `lock_usage`, before it writes anything else of what it adds; then `store_usage`. One call a transaction, keys sorted:
    no two ever wait in a ring.
U2  A row that is missing, or not `is_counted`, is counted from the roll-ups and changes that are committed: all that come
    later find the row, and wait for it.
U3  A new catalog revision sets `is_counted` back for the offers that it changes, while nobody holds the catalog.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg

from storage.postgres.connection import Connection


class UsageKey(NamedTuple):
    """A row. `aff_id` 0: the whole offer; `period_end`: the first moment after it."""

    offer_id: int
    aff_id: int
    period: str
    period_start: datetime
    period_end: datetime


@dataclass(slots=True)
class Usage:
    """What was had: clicks that the offer took, conversions approved or pending, what these and the clicks earn."""

    clicks: int = 0
    conversions: int = 0
    payout: Decimal = Decimal(0)
    revenue: Decimal = Decimal(0)

    def add(self, other: "Usage") -> None:
        self.clicks += other.clicks
        self.conversions += other.conversions
        self.payout += other.payout
        self.revenue += other.revenue

    def of(self, measure: str) -> int | Decimal:
        """One of the four, by name."""
        used: int | Decimal = getattr(self, measure)
        return used


_KEYS = "unnest($1::int[], $2::int[], $3::text[], $4::timestamptz[], $5::timestamptz[])"
_NAMES = "offer_id, aff_id, period, period_start, period_end"
_LOCK = f"""
    INSERT INTO cap_usage ({_NAMES}) SELECT * FROM {_KEYS}
    ON CONFLICT (offer_id, aff_id, period, period_start) DO UPDATE SET period_end = excluded.period_end
    RETURNING {_NAMES}, clicks, conversions, payout, revenue, is_counted
"""
_READ = f"""
    SELECT {", ".join(f"used.{name}" for name in UsageKey._fields)}, clicks, conversions, payout, revenue
    FROM {_KEYS} AS keys ({_NAMES})
    JOIN cap_usage AS used USING (offer_id, aff_id, period, period_start) WHERE is_counted
"""
# What clicks and impressions earned is what stats_hourly has beyond the changes of conversions. Conversions that are
# pending now, or were adjusted, count as they are now, in the hour in which they were last decided.
_COUNT = """
    SELECT offer_id, aff_id, sum(gross_clicks - invalid_clicks - refused_clicks)::bigint, 0::bigint,
           sum(payout), sum(revenue)
    FROM stats_hourly WHERE offer_id = ANY($1) AND hour >= $2 AND hour < $3 GROUP BY 1, 2
    UNION ALL
    SELECT offer_id, aff_id, 0, count(*) FILTER (WHERE counts),
           coalesce(sum(payout) FILTER (WHERE counts), 0) - sum(payout_delta),
           coalesce(sum(revenue) FILTER (WHERE counts), 0) - sum(revenue_delta)
    FROM (
        SELECT offer_id, aff_id, payout, revenue, payout_delta, revenue_delta,
               kind = 'decided' AND status IN ('approved', 'pending') AND NOT EXISTS (
                   SELECT FROM conversion_changes AS later
                   WHERE later.conversion_id = change.conversion_id AND later.kind = 'decided'
                     AND later.change_id > change.change_id
               ) AS counts
        FROM conversion_changes AS change JOIN conversions USING (conversion_id)
        WHERE offer_id = ANY($1) AND booked_hour >= $2 AND booked_hour < $3
    ) AS booked GROUP BY 1, 2
"""
_STORE = f"""
    UPDATE cap_usage SET clicks = new.clicks, conversions = new.conversions, payout = new.payout,
           revenue = new.revenue, is_counted = new.is_counted
    FROM (
        SELECT * FROM unnest($1::int[], $2::int[], $3::text[], $4::timestamptz[], $5::timestamptz[],
                             $6::bigint[], $7::bigint[], $8::numeric[], $9::numeric[], $10::boolean[])
    ) AS new ({_NAMES}, clicks, conversions, payout, revenue, is_counted)
    WHERE (cap_usage.offer_id, cap_usage.aff_id, cap_usage.period, cap_usage.period_start)
        = (new.offer_id, new.aff_id, new.period, new.period_start)
"""


async def lock_usage(conn: asyncpg.Connection, keys: Iterable[UsageKey]) -> dict[UsageKey, Usage]:
    """What was had, of each key; nobody else changes it until this transaction ends (U1, U2)."""
    wanted = sorted(set(keys))
    rows = await conn.fetch(_LOCK, *_columns(wanted)) if wanted else []
    usage = {UsageKey(*row[:5]): Usage(*row[5:9]) for row in rows}
    uncounted = [UsageKey(*row[:5]) for row in rows if not row["is_counted"]]
    return usage | await _count(conn, uncounted)


async def store_usage(
    conn: asyncpg.Connection, usage: Mapping[UsageKey, Usage], tracked: Collection[UsageKey] | None = None
) -> None:
    """Store what `lock_usage` gave, changed. Keys not in `tracked` nobody keeps up: they are counted anew next time."""
    if usage:
        measures = list(zip(*(astuple(used) for used in usage.values()), strict=True))
        is_counted = [tracked is None or key in tracked for key in usage]
        await conn.execute(_STORE, *_columns(list(usage)), *measures, is_counted)


async def read_usage(conn: asyncpg.Connection, keys: Sequence[UsageKey]) -> dict[UsageKey, Usage]:
    """What was had, of those keys whose row is there and counted."""
    rows = await conn.fetch(_READ, *_columns(keys)) if keys else []
    return {UsageKey(*row[:5]): Usage(*row[5:9]) for row in rows}


async def forget_usage(conn: asyncpg.Connection, before: datetime) -> None:
    """Give up rows of periods that ended before; one that is needed again is counted again."""
    await conn.execute("DELETE FROM cap_usage WHERE period_end < $1", before)


async def _count(conn: asyncpg.Connection, keys: Sequence[UsageKey]) -> dict[UsageKey, Usage]:
    """What the rows say, as committed by now: what was committed while `_LOCK` waited is seen. A look for each period."""
    counted = {key: Usage() for key in keys}
    for start, end in {(key.period_start, key.period_end) for key in keys}:
        of_period = {key[:2]: key for key in keys if key.period_start == start and key.period_end == end}
        offers = sorted({offer_id for offer_id, _ in of_period})
        for offer_id, aff_id, *measures in await conn.fetch(_COUNT, offers, start, end):
            for owner in {0, aff_id}:
                if key := of_period.get((offer_id, owner)):
                    counted[key].add(Usage(*measures))
    return counted


def _columns(keys: Sequence[UsageKey]) -> list[tuple[Any, ...]]:
    return list(zip(*keys, strict=True))


async def usage_at(conn: Connection, offer_id: int, moment: datetime) -> dict[tuple[int, str], Usage]:
    """What is used in the periods that hold `moment`, by partner (0: the whole offer) and kind of period."""
    rows = await conn.fetch(
        "SELECT aff_id, period, clicks, conversions, payout, revenue FROM cap_usage"
        " WHERE offer_id = $1 AND period_start <= $2 AND period_end > $2 AND is_counted",
        offer_id,
        moment,
    )
    return {(row[0], row[1]): Usage(*tuple(row)[2:]) for row in rows}
