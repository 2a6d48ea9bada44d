"""Coarser sums of `stats_hourly` in `stats_rollups`, so that a report of many days reads thousands of rows, not millions.

R1  All hours before `stats_rollup_state.through` are in every grain, later ones in none. Without a row there, none is.
    A reader takes both from one snapshot: buckets before `through`, and hours of stats_hourly from there on.
R2  Who writes into stats_hourly holds its hours (shared advisory locks) from before it reads `through` to its commit, and
    adds what is of an hour before `through` here too, in the same transaction.
R3  Who moves `through` holds the hours that it passes alone: an hour is passed before a writer's transaction or after
    it, never in its midst. The hours of now are not among them, so nobody waits but who is late.
R4  Locks are taken upwards: the summing of days, the turn, all hours, single hours by number; then rows by key. Nobody
    waits in a ring.
R5  Days are those of the recorded time zone, the grains those of the recorded layout. Where either is another by now,
    the row is taken away (under the lock of all hours), and the table is filled anew.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple

import asyncpg

from storage.postgres.click_values import announce_day, days_to_sum, doubt_all_days, doubt_days, sum_day
from storage.postgres.stats_columns import MEASURES, StatsKey, array_of, unnested


class Grain(NamedTuple):
    """A coarser sum: by hour or day, and these dimensions; and always the currency."""

    number: int
    unit: Literal["hour", "day"]
    dimensions: tuple[str, ...]


class RollupState(NamedTuple):
    """What is rolled up: all hours before `through`, in days of `timezone`."""

    through: datetime
    timezone: str


GRAINS = (
    Grain(12, "hour", ()),
    Grain(1, "day", ("advertiser_id", "offer_id", "goal_id")),
    Grain(2, "day", ("country", "device_type")),
    Grain(3, "day", ("advertiser_id", "offer_id", "device_type")),
    Grain(4, "day", ("aff_id",)),
    Grain(5, "day", ("advertiser_id", "offer_id", "landing_page_id", "creative_id")),
    Grain(6, "day", ("aff_id", "device_type")),
    Grain(7, "day", ("advertiser_id", "offer_id", "country")),
    Grain(8, "day", ("advertiser_id", "offer_id", "aff_id", "goal_id")),
    Grain(9, "day", ("aff_id", "country")),
    Grain(10, "hour", ("advertiser_id", "offer_id")),
    Grain(11, "hour", ("country", "device_type")),
)
"""The shortest first; a number means one grain for ever, and has a partition. An offer comes with its advertiser."""
LAYOUT = "; ".join(f"{grain.number} {grain.unit} {' '.join(grain.dimensions)}" for grain in GRAINS)
"""Who knows these grains also keeps to what click_values.py says of days."""
HOURS_AT_ONCE = 24
"""That one transaction passes, and that a writer locks one by one; with more it takes the turn instead."""
_LOCKS = 0x726F6C6C  # "roll": the first half of the advisory locks' keys
_SUMMER, _TURN, _ALL = -2, -1, 0
_HOUR = timedelta(hours=1)
_LOCK_TIMEOUT_MS = 5000

_DIMENSIONS = tuple(name for name in StatsKey._fields if name not in ("hour", "node_id"))
_KEY = ("grain", "hour", *_DIMENSIONS)


def _sums_sql(source: str, zone: str) -> str:
    """Rows of all grains from the rows of `source`; `zone`: the parameter that names the time zone."""
    return " UNION ALL ".join(_grain_sql(grain, source, zone) for grain in GRAINS)


def _grain_sql(grain: Grain, source: str, zone: str) -> str:
    kept = (*grain.dimensions, "currency")
    nothing = {name: "''::text" if name in ("country", "device_type") else "0" for name in _DIMENSIONS}
    is_day = grain.unit == "day"
    bucket = f"(hour AT TIME ZONE {zone}::text)::date" if is_day else "hour"
    columns = [f"{grain.number}::smallint AS grain", f"{_midnight_sql(bucket, zone) if is_day else bucket} AS hour"]
    columns += [name if name in kept else f"{nothing[name]} AS {name}" for name in _DIMENSIONS]
    columns += [f"sum({name}) AS {name}" for name in MEASURES]
    return f"SELECT {', '.join(columns)} FROM {source} GROUP BY {bucket}, {', '.join(kept)}"


def _midnight_sql(day: str, zone: str) -> str:
    """Where that day begins. Of a midnight that comes twice PostgreSQL means the second one: the first is an hour before."""
    begins = f"({day}::timestamp AT TIME ZONE {zone}::text)"
    is_second = f"(({begins} - interval '1 hour') AT TIME ZONE {zone}::text)::date = {day}"
    return f"{begins} - CASE WHEN {is_second} THEN interval '1 hour' ELSE interval '0' END"


def _add_sql(rows: str) -> str:
    """Add these rows to what is there, in key order."""
    return (
        f"INSERT INTO stats_rollups ({', '.join(_KEY + MEASURES)}) SELECT * FROM ({rows}) AS summed"
        f" ORDER BY {', '.join(_KEY)} ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
        + ", ".join(f"{name} = stats_rollups.{name} + excluded.{name}" for name in MEASURES)
    )


_NAMES = StatsKey._fields + MEASURES
_ADD_LATE = f"WITH late ({', '.join(_NAMES)}) AS MATERIALIZED (SELECT * FROM {unnested(_NAMES)}) " + _add_sql(
    _sums_sql("late", f"${len(_NAMES) + 1}")
)
_EMPTY = "DELETE FROM stats_rollups WHERE NOT EXISTS (SELECT FROM stats_rollup_state)"
_ADD_HOURS = _add_sql(_sums_sql("(SELECT * FROM stats_hourly WHERE hour >= $1 AND hour < $2) AS passed", "$3"))


async def hold_hours(conn: asyncpg.Connection, hours: Collection[datetime]) -> RollupState | None:
    """Until the transaction's end none of these hours is passed (R2); what is rolled up by now, None: nothing."""
    numbers = sorted(map(_number, hours))
    await _lock(conn, [_TURN] if len(numbers) > HOURS_AT_ONCE else [_ALL, *numbers], is_shared=True)
    # A statement of its own: its snapshot must be younger than the locks.
    row = await conn.fetchrow("SELECT through, timezone, layout = $1 FROM stats_rollup_state", LAYOUT)
    if row is None:
        return None
    through, timezone, is_ours = row
    if not is_ours and min(hours) < through:
        # Another release's grains, which this one cannot add to: no reader may use them any more.
        await conn.execute("DELETE FROM stats_rollup_state")
    return RollupState(through, timezone) if is_ours else None


async def add_late(conn: asyncpg.Connection, state: RollupState, columns: Mapping[str, Sequence[Any]]) -> None:
    """Add rows of hours before `state.through`, by column; after `hold_hours`, which gave `state`."""
    await conn.execute(_ADD_LATE, *(array_of(name, columns[name]) for name in _NAMES), state.timezone)
    days = {hour.date() for hour, clicks in zip(columns["hour"], columns["gross_clicks"], strict=True) if clicks}
    if days:
        await doubt_days(conn, days)


async def rollup_state(conn: asyncpg.Connection) -> RollupState | None:
    """What this release can read of the roll-ups; in a transaction of one snapshot with what is read (R1)."""
    row = await conn.fetchrow("SELECT through, timezone FROM stats_rollup_state WHERE layout = $1", LAYOUT)
    return RollupState(*row) if row else None


async def forget_rollups(conn: asyncpg.Connection) -> None:
    """Nobody reads or adds to them from now on."""
    async with conn.transaction():
        await _hold_alone(conn, [_TURN, _ALL])
        await conn.execute("DELETE FROM stats_rollup_state")


async def begin_rollups(conn: asyncpg.Connection, timezone: str, now: datetime) -> None:
    """Where nothing is rolled up: an empty table, to be filled from the first hour stored, or from `now` on."""
    async with conn.transaction():
        await _hold_alone(conn, [_TURN])
        # The most of them while writers go on. Not TRUNCATE: a reader with an older snapshot still needs the rows.
        await conn.execute(_EMPTY)
    async with conn.transaction():
        await _hold_alone(conn, [_TURN, _ALL])
        await conn.execute(_EMPTY)
        await doubt_all_days(conn)
        first = await conn.fetchval("SELECT min(hour) FROM stats_hourly")
        await conn.execute(
            "INSERT INTO stats_rollup_state (through, timezone, layout) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            first or _hour_of(now),
            timezone,
            LAYOUT,
        )


async def pass_hours(conn: asyncpg.Connection, until: datetime) -> datetime | None:
    """Roll up the next hours before `until`, a day's at most; through where it is done then, None: start anew."""
    try:
        async with conn.transaction():
            return await _pass_hours(conn, _hour_of(until))
    except _Taken:
        return None


async def _pass_hours(conn: asyncpg.Connection, until: datetime) -> datetime | None:
    await _hold_alone(conn, [_TURN])
    state = await rollup_state(conn)
    if state is None:
        return None
    end = min(until, state.through + HOURS_AT_ONCE * _HOUR)
    if end <= state.through:
        return state.through
    await _lock(conn, [_ALL], is_shared=True)
    await _hold_alone(conn, range(_number(state.through), _number(end)))
    await conn.execute(_ADD_HOURS, state.through, end, state.timezone)
    if await conn.execute("UPDATE stats_rollup_state SET through = $1", end) == "UPDATE 0":
        raise _Taken
    return end


class _Taken(Exception):
    """A writer took the row away meanwhile: what was added is taken back."""


async def sum_days(conn: asyncpg.Connection, limit: int = 1) -> int:
    """Sum up the values of finished days (`click_values.py`), at most so many; how many were."""
    state = await rollup_state(conn)
    days = await days_to_sum(conn, state.through) if state else []
    summed = 0
    for day in days[:limit]:
        try:
            summed += await _sum_day(conn, day)
        except _Taken:
            continue
    return summed


async def _sum_day(conn: asyncpg.Connection, day: date) -> bool:
    first = _number(datetime.combine(day, time(), UTC))
    async with conn.transaction():
        await _hold_alone(conn, [_SUMMER, _TURN])
        await _lock(conn, [_ALL], is_shared=True)
        await _hold_alone(conn, range(first, first + 24))
        await announce_day(conn, day)
    async with conn.transaction():
        await _hold_alone(conn, [_SUMMER])
        if not await sum_day(conn, day):
            raise _Taken
    return True


async def hold_summing(conn: asyncpg.Connection) -> None:
    """Until the transaction's end no day is summed. Taken before all other locks (R4)."""
    await _hold_alone(conn, [_SUMMER])


async def _hold_alone(conn: asyncpg.Connection, numbers: Sequence[int]) -> None:
    await conn.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
    await _lock(conn, numbers, is_shared=False)


async def _lock(conn: asyncpg.Connection, numbers: Sequence[int], *, is_shared: bool) -> None:
    lock = "pg_advisory_xact_lock_shared" if is_shared else "pg_advisory_xact_lock"
    await conn.execute(f"SELECT count({lock}($1::int, number)) FROM unnest($2::int[]) AS number", _LOCKS, numbers)


def _number(hour: datetime) -> int:
    return int(hour.timestamp()) // 3600


def _hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
