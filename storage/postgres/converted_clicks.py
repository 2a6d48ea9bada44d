"""Copies of the clicks that have conversions: what a click says never changes, so a copy needs no more than to be made."""

from datetime import datetime

import asyncpg

from storage.postgres.erasures import hold_erasures

FIELDS = (
    "click_id, offer_id, aff_id, landing_page_id, creative_id, alias, source, aff_sub1, aff_sub2, aff_sub3, aff_sub4,"
    " aff_sub5, utm_source, utm_medium, utm_campaign, utm_content, utm_term, country, region, city, device_type, os,"
    " browser, language, referrer, extras, first_click_id, contact_id, clicked_at"
)


async def copy_converted_clicks(conn: asyncpg.Connection, since: datetime, limit: int = 20_000) -> int:
    """Copy clicks of conversions received since then, where there is no copy; how many, at most `limit`."""
    async with conn.transaction():
        await hold_erasures(conn)
        done: str = await conn.execute(
            f"INSERT INTO converted_clicks ({FIELDS}) SELECT touch.* FROM ("
            "  SELECT DISTINCT click_id FROM conversions WHERE received_at >= $1 AND NOT EXISTS"
            "  (SELECT FROM converted_clicks AS known WHERE known.click_id = conversions.click_id)"
            f" ) AS missing CROSS JOIN LATERAL (SELECT {FIELDS} FROM clicks WHERE click_id = missing.click_id LIMIT 1) AS touch"
            " LIMIT $2 ON CONFLICT DO NOTHING",
            since,
            limit,
        )
    return int(done.rpartition(" ")[2])
