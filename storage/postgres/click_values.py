"""What the clicks of finished days add up to by one dimension each, such as utm_campaign, so that a report need not read
them all.

V1  A `summed` day and dimension in `click_value_days`: the rows of `click_values` are what the day's clicks add up to. It
    holds only while `stats_rollup_state` has a row, and for days of which all hours are before its `through`.
V2  Who stores a click in such an hour takes the day out in the same transaction (`doubt_days`, after `hold_hours`), until
    it is summed again.
V3  A day is announced (`summing`) with its hours held alone, then summed, then called `summed` if the announcement still
    stands: a click that came meanwhile has taken it away, one that came before is among those read.
"""

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta

import asyncpg

from storage.postgres.partitions import id_range

VALUE_DIMENSIONS = {
    name: number
    for number, name in enumerate(
        (
            "source", "aff_sub1", "aff_sub2", "aff_sub3", "aff_sub4", "aff_sub5", "utm_source", "utm_medium",
            "utm_campaign", "utm_content", "utm_term", "alias", "region", "city", "os", "browser", "language",
        ),
        1,
    )
}  # fmt: skip
"""Columns of `clicks`, and the numbers that they have for ever."""
LEAST_CLICKS_OF_A_VALUE = 3
"""On average of a day; below, its sums would be no shorter than the clicks."""
VALUE_SUMS = ("gross_clicks", "unique_clicks", "invalid_clicks", "refused_clicks", "payout", "revenue", "cost")
_INVALID = "flags && '{bot,prefetch,datacentre}'"
SUMS_OF_CLICKS = (
    "count(*) AS gross_clicks,"
    " count(*) FILTER (WHERE NOT flags && '{bot,prefetch,datacentre,duplicate}') AS unique_clicks,"
    f" count(*) FILTER (WHERE {_INVALID}) AS invalid_clicks,"
    f" count(*) FILTER (WHERE NOT {_INVALID} AND outcome IN ('fallback', 'rejected')) AS refused_clicks,"
    " sum(payout) AS payout, sum(revenue) AS revenue, sum(cost) AS cost"
)


async def doubt_days(conn: asyncpg.Connection, days: Collection[date]) -> None:
    """Their clicks are read one by one until they are summed again (V2)."""
    await conn.execute(
        "WITH held AS (SELECT * FROM click_value_days WHERE day = ANY($1) ORDER BY day, dimension FOR UPDATE)"
        " DELETE FROM click_value_days AS known USING held"
        " WHERE (known.day, known.dimension) = (held.day, held.dimension)",
        sorted(days),
    )


async def doubt_all_days(conn: asyncpg.Connection) -> None:
    """All of them are summed anew."""
    await conn.execute("DELETE FROM click_value_days")


async def days_to_sum(conn: asyncpg.Connection, through: datetime) -> list[date]:
    """Days that ended before `through` and are not summed, the last first."""
    rows = await conn.fetch(
        "SELECT day::date FROM generate_series((SELECT min(hour) FROM stats_hourly)::date, $1::date - 1, interval '1 day')"
        " AS series (day) WHERE (SELECT count(*) FROM click_value_days AS known WHERE known.day = series.day::date"
        " AND state <> 'summing') < $2 ORDER BY 1 DESC",
        through.astimezone(UTC).date(),
        len(VALUE_DIMENSIONS),
    )
    return [row[0] for row in rows]


async def announce_day(conn: asyncpg.Connection, day: date) -> None:
    """Begin to sum a day: in a transaction that holds its hours alone (V3)."""
    await conn.execute(
        "INSERT INTO click_value_days (day, dimension, state) SELECT $1, number, 'summing' FROM unnest($2::int[]) AS number"
        " ON CONFLICT (day, dimension) DO UPDATE SET state = 'summing'",
        day,
        list(VALUE_DIMENSIONS.values()),
    )


async def sum_day(conn: asyncpg.Connection, day: date) -> bool:
    """Sum up an announced day; whether that stands, and no click came meanwhile. In a transaction of its own."""
    await conn.execute("DELETE FROM click_values WHERE day = $1", day)
    states = [(number, await _sum_values(conn, day, name, number)) for name, number in VALUE_DIMENSIONS.items()]
    done = await conn.fetch(
        "WITH held AS (SELECT * FROM click_value_days WHERE day = $1 ORDER BY day, dimension FOR UPDATE)"
        " UPDATE click_value_days AS known SET state = new.state FROM held JOIN unnest($2::int[], $3::text[])"
        " AS new (dimension, state) USING (dimension)"
        " WHERE known.day = $1 AND known.dimension = held.dimension AND known.state = 'summing' RETURNING true",
        day,
        *map(list, zip(*states, strict=True)),
    )
    return len(done) == len(states)


async def _sum_values(conn: asyncpg.Connection, day: date, name: str, number: int) -> str:
    """What becomes of the day and dimension."""
    low, high = id_range(day)
    begins = datetime.combine(day, time(), UTC)
    undo = conn.transaction()
    await undo.start()
    clicks, values = await conn.fetchrow(
        "WITH summed AS (INSERT INTO click_values (day, dimension, value, currency, " + ", ".join(VALUE_SUMS) + ")"
        f" SELECT $1::date, $2::smallint, {name}, currency, {SUMS_OF_CLICKS} FROM clicks"
        " WHERE click_id >= $3 AND click_id < $4 AND clicked_at >= $5 AND clicked_at < $6 GROUP BY 3, 4"
        " RETURNING gross_clicks) SELECT coalesce(sum(gross_clicks), 0), count(*) FROM summed",
        day, number, low, high, begins, begins + timedelta(days=1),
    )  # fmt: skip
    if values * LEAST_CLICKS_OF_A_VALUE > max(clicks, 1000):
        await undo.rollback()
        return "too many"
    await undo.commit()
    return "summed"


async def summed_days(conn: asyncpg.Connection, name: str, first: date, after: date) -> list[date]:
    """Of the days from the first on, those that may be read from click_values, in order."""
    rows = await conn.fetch(
        "SELECT day FROM click_value_days WHERE dimension = $1 AND day >= $2 AND day < $3 AND state = 'summed' ORDER BY 1",
        VALUE_DIMENSIONS[name],
        first,
        after,
    )
    return [row[0] for row in rows]
