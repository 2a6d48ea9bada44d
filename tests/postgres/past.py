"""Conversions as if they had been decided long ago."""

from datetime import date
from zoneinfo import ZoneInfo

from edge.tracking.months import month_of
from storage.postgres.connection import Connection
from storage.postgres.rollups import forget_rollups
from storage.postgres.stats import StatsKey

_MOVED = "conversions, pending, rejected, reversed, amount, payout, revenue"
_KEY = ", ".join(StatsKey._fields[1:])


async def decide_in_the_past(conn: Connection, days: int) -> date:
    """As if all conversions stored by now had been decided that many days ago; that month's first day in UTC."""
    await forget_rollups(conn)
    async with conn.transaction():
        await conn.execute("UPDATE conversion_changes SET booked_hour = booked_hour - make_interval(days => $1)", days)
        moved = await conn.fetch(f"SELECT hour, {_KEY}, {_MOVED} FROM stats_hourly")
        zeros = ", ".join(f"{name} = 0" for name in _MOVED.split(", "))
        await conn.execute(f"UPDATE stats_hourly SET {zeros}")
        places = ", ".join(f"${place}" for place in range(2, len(StatsKey._fields) + 8))
        await conn.executemany(
            f"INSERT INTO stats_hourly (hour, {_KEY}, {_MOVED}) VALUES ($1::timestamptz - make_interval(days => {days}), {places})",
            [tuple(row) for row in moved],
        )
        await conn.execute("DELETE FROM tier_counts; DELETE FROM cap_usage")  # made anew when they are needed
    return month_of(await conn.fetchval("SELECT min(booked_hour) FROM conversion_changes"), ZoneInfo("UTC"))
