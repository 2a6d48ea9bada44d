"""Does `cap_usage` equal the raw rows? A recount that shares no code with the product and asks no roll-up."""

from typing import Any

_ROWS = "SELECT * FROM cap_usage WHERE is_counted"
_CLICKS = """
    SELECT count(*) FROM clicks
    WHERE offer_id = $1 AND $2 IN (0, aff_id) AND date_trunc('hour', clicked_at, 'UTC') >= $3
      AND date_trunc('hour', clicked_at, 'UTC') < $4
      AND outcome NOT IN ('fallback', 'rejected') AND NOT flags && '{bot,prefetch,datacentre}'
"""
_TOUCHES = """
    SELECT coalesce(sum(payout), 0), coalesce(sum(revenue), 0)
    FROM (SELECT * FROM clicks UNION ALL SELECT * FROM impressions) AS touches
    WHERE offer_id = $1 AND $2 IN (0, aff_id) AND date_trunc('hour', clicked_at, 'UTC') >= $3
      AND date_trunc('hour', clicked_at, 'UTC') < $4
"""
_CONVERSIONS = """
    SELECT count(*), coalesce(sum(payout), 0), coalesce(sum(revenue), 0) FROM conversions
    JOIN (SELECT conversion_id, max(booked_hour) AS hour FROM conversion_changes WHERE kind = 'decided' GROUP BY 1) AS decided
    USING (conversion_id)
    WHERE offer_id = $1 AND $2 IN (0, aff_id) AND hour >= $3 AND hour < $4 AND status IN ('approved', 'pending')
"""


async def cap_differences(conn: Any) -> list[str]:
    """One line for each row whose figures are not what the rows say; empty: all is well."""
    faults = []
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        for row in await conn.fetch(_ROWS):
            place = (row["offer_id"], row["aff_id"], row["period_start"], row["period_end"])
            clicks = await conn.fetchval(_CLICKS, *place)
            earned = await conn.fetchrow(_TOUCHES, *place)
            converted = await conn.fetchrow(_CONVERSIONS, *place)
            rows = (clicks, converted[0], earned[0] + converted[1], earned[1] + converted[2])
            used = (row["clicks"], row["conversions"], row["payout"], row["revenue"])
            if used != rows:
                faults.append(f"{place[:2]} {row['period']} {place[2]:%F %H}: {used}, in the rows {rows}")
    return faults
