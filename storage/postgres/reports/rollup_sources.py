"""The coarser sums as sources: days (or hours) out of `stats_rollups`, what is of no whole day out of `stats_hourly`.

C1  What is read is stats_hourly's, so a source here answers what HOURLY does, for the dimensions of one grain.
C2  A day is read only if all of its hours are asked for and, where the report goes by days, if its days are the same.
C3  The state, the days and the hours are read from one snapshot (R1 of storage/postgres/rollups.py).
"""

from collections.abc import Collection, Iterator
from datetime import date, datetime
from zoneinfo import ZoneInfo

from storage.postgres.reports.periods import Period, day_begins
from storage.postgres.reports.sources import EARNED, HOURLY, Need, Source
from storage.postgres.rollups import GRAINS, Grain, RollupState
from storage.postgres.stats_columns import MEASURES, StatsKey

_COLUMNS = {
    "advertiser_id": "advertiser",
    "offer_id": "offer",
    "aff_id": "partner",
    "goal_id": "goal",
    "landing_page_id": "landing_page",
    "creative_id": "creative",
    "country": "country",
    "device_type": "device",
    "currency": "currency",
}
_NAMES = ", ".join(name for name in (*StatsKey._fields, *MEASURES) if name != "node_id")


def rollup_sources(state: RollupState, need: Need) -> list[Source]:
    """Those of the grains that have all the need's dimensions, the shortest first; HOURLY's and EARNED's rows, sooner."""
    kinds = {dimension.kind for dimension in need.dimensions}
    asked = {dimension.name for dimension in need.dimensions if not dimension.is_time}
    found: list[Source] = []
    for place, grain in enumerate(GRAINS):
        has_all = asked <= {_COLUMNS[name] for name in (*grain.dimensions, "currency")}
        if has_all and _fits(grain, state, need.period, kinds):
            found += _sources(place, grain, need.period, *_cut(grain, state, need.period))
    return found


def _fits(grain: Grain, state: RollupState, period: Period, kinds: Collection[str]) -> bool:
    by_days = not {"date", "week", "month"}.isdisjoint(kinds)
    return grain.unit == "hour" or ("hour" not in kinds and not (by_days and period.timezone != state.timezone))


def _cut(grain: Grain, state: RollupState, period: Period) -> tuple[datetime, datetime]:
    """The part of the period that buckets of the grain make up, its end not included; the same twice: none."""
    begins, ends = period.starts_at, min(period.ends_at, state.through)
    if grain.unit == "day":
        begins = _midnight(Period(begins, begins, state.timezone).days_after, state)
        if ends < state.through:
            ends = _midnight(ends.astimezone(ZoneInfo(state.timezone)).date(), state)
    return (begins, ends) if begins < ends else (period.starts_at, period.starts_at)


def _midnight(day: date, state: RollupState) -> datetime:
    return day_begins(day, ZoneInfo(state.timezone))


def _sources(place: int, grain: Grain, period: Period, begins: datetime, ends: datetime) -> Iterator[Source]:
    has_head, has_tail = period.starts_at < begins, ends < period.ends_at
    parts = []
    # The report's own conditions keep to the period.
    if has_head:
        parts.append(f"SELECT {_NAMES} FROM stats_hourly WHERE hour < {{begins}}")
    if begins < ends:
        within = " AND hour >= {begins}" * has_head + " AND hour < {ends}" * has_tail
        parts.append(f"SELECT {_NAMES} FROM stats_rollups WHERE grain = {grain.number}{within}")
    if has_tail:
        parts.append(f"SELECT {_NAMES} FROM stats_hourly WHERE hour >= {{ends}}")
    bounds = ({"begins": begins} if has_head else {}) | ({"ends": ends} if has_tail else {})
    rows = f"({' UNION ALL '.join(parts)}) AS hourly"
    name = f"stats_rollups by {', '.join([grain.unit, *(_COLUMNS[name] for name in grain.dimensions)])}"
    for source in (HOURLY, EARNED):
        yield source._replace(
            name=source.name.replace("stats_hourly", name),
            rank=source.rank - len(GRAINS) + place,
            table=rows if source is HOURLY else source.table.replace("FROM stats_hourly", f"FROM {rows}"),
            bounds=bounds,
        )
