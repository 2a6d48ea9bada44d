"""Clicks by one dimension of theirs: summed days out of `click_values`, the clicks themselves for the rest of the period.

Read from the same snapshot as the days that are summed (V1 of storage/postgres/click_values.py).
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from storage.postgres.click_values import SUMS_OF_CLICKS, VALUE_DIMENSIONS, VALUE_SUMS, summed_days
from storage.postgres.connection import Connection
from storage.postgres.reports.periods import day_begins
from storage.postgres.reports.sources import CLICK_ROWS, CLICKS, Column, Component, Need, Source

MAX_GAPS = 8
"""Stretches of days that are not summed; with more the clicks are read altogether."""
_SUMS = ", ".join(VALUE_SUMS)
_Stretch = tuple[datetime, datetime]


async def value_sources(conn: Connection, need: Need) -> list[Source]:
    """The source for the need's only dimension beside days and currency, if it is one of those that are summed."""
    kinds = {dimension.kind for dimension in need.dimensions}
    names = {one.name for one in need.dimensions if not one.is_time} - {"currency"}
    by_days = not {"date", "week", "month"}.isdisjoint(kinds)
    if len(names) != 1 or "hour" in kinds or (by_days and need.period.timezone != "UTC"):
        return []
    [name] = names
    if name not in VALUE_DIMENSIONS:
        return []
    first, after = (at.astimezone(UTC).date() for at in (need.period.starts_at, need.period.ends_at))
    if day_begins(first, UTC) < need.period.starts_at:
        first += timedelta(days=1)
    days = await summed_days(conn, name, first, after)
    gaps = _gaps(days, need.period.starts_at, need.period.ends_at)
    return [_source(name, days, gaps, by_days=by_days)] if days and len(gaps) <= MAX_GAPS else []


def _gaps(days: Sequence[date], starts_at: datetime, ends_at: datetime) -> list[_Stretch]:
    """What of the time lies in none of the days."""
    gaps, at = [], starts_at
    for day in days:
        begins = day_begins(day, UTC)
        if at < begins:
            gaps.append((at, begins))
        at = begins + timedelta(days=1)
    return [*gaps, (at, ends_at)] if at < ends_at else gaps


def _source(name: str, days: Sequence[date], gaps: Sequence[_Stretch], *, by_days: bool) -> Source:
    bounds = {"first": day_begins(days[0], UTC), "last": day_begins(days[-1], UTC)}
    day = "day::timestamp AT TIME ZONE 'UTC'" if by_days else "{first}"
    summed = (
        f"SELECT {day} AS moment, value, currency, {_SUMS} FROM click_values"
        f" WHERE dimension = {VALUE_DIMENSIONS[name]} AND day >= ({{first}} AT TIME ZONE 'UTC')::date"
        " AND day <= ({last} AT TIME ZONE 'UTC')::date"
    )
    read = []
    for number, gap in enumerate(gaps):
        begin, end = f"begin{number}", f"end{number}"
        bounds |= dict(zip((begin, end), gap, strict=True))
        if bounds["first"] < gap[0] < bounds["last"]:
            # Only where it is needed: the planner takes it for a rare condition.
            summed += (
                f" AND NOT (day >= ({{{begin}}} AT TIME ZONE 'UTC')::date AND day < ({{{end}}} AT TIME ZONE 'UTC')::date)"
            )
        moment = f"greatest(date_trunc('day', clicked_at, 'UTC'), {{{begin}}})" if by_days else f"{{{begin}}}"
        read.append(
            f"SELECT {moment} AS moment, {name}, currency, {SUMS_OF_CLICKS} FROM clicks"
            f" WHERE clicked_at >= {{{begin}}} AND clicked_at < {{{end}}} GROUP BY moment, {name}, currency"
        )
    return CLICK_ROWS._replace(
        name=f"click_values by {name}",
        rank=CLICK_ROWS.rank - 10,
        table=f"({' UNION ALL '.join([summed, *read])}) AS touch",
        moment="touch.moment",
        ids="",
        bounds=bounds,
        is_cut=True,
        columns={name: Column("touch.value"), "currency": Column("touch.currency")},
        components={one: Component(CLICKS, f"sum(touch.{one}) FILTER (WHERE touch.{one} <> 0)") for one in VALUE_SUMS},
        joins={},
        extra=None,
        touches=frozenset(("last", "linear", "time_decay", "position")),
    )
