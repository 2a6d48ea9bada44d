"""A report over time, for the chart: a value for each hour, day, week or month of the period, empty ones too."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

import msgspec

from storage.postgres.connection import Connection
from storage.postgres.reports.dimensions import DIMENSIONS
from storage.postgres.reports.metrics import METRICS, header
from storage.postgres.reports.periods import Period
from storage.postgres.reports.query import ReportQuery
from storage.postgres.reports.report import Report, run_report
from storage.postgres.reports.viewer import Viewer

MAX_STEPS = 2000
_MAX_ROWS = 20_000
_HOUR = timedelta(hours=1)
_FORMATS = {"hour": "%d %b %H:%M", "week": "%d %b %Y", "month": "%b %Y"}
Step = date | datetime


class Series(msgspec.Struct):
    """`name`: the currency, "" where there is one; values by metric, a step each, `before` those of the time before."""

    name: str
    now: dict[str, list[float | None]]
    before: dict[str, list[float | None]] | None = None


class Chart(msgspec.Struct):
    """`labels`: of the steps, `labels_before`: of those that they are compared with; `metrics`: name, label, unit."""

    step: str
    labels: list[str]
    labels_before: list[str]
    metrics: list[tuple[str, str, str]]
    series: list[Series]


def time_dimension(query: ReportQuery) -> str:
    """The dimension that the chart runs along; "" if there is none."""
    return next((name for name in query.dimensions if name in DIMENSIONS and DIMENSIONS[name].is_time), "")


async def make_chart(conn: Connection, query: ReportQuery, viewer: Viewer, now: datetime) -> Chart | None:
    """The report's figures by its time dimension alone; None if it has none, or far too many steps."""
    name = time_dimension(query)
    if not name:
        return None
    alone = msgspec.structs.replace(
        query, dimensions=(name,), sort=name, descending=False, compare=False, limit=_MAX_ROWS, offset=0
    )
    kind = DIMENSIONS[name].kind
    steps = list(steps_of(kind, query.period, now))
    if len(steps) > MAX_STEPS:
        return None
    found = by_currency(await run_report(conn, alone, viewer, now), name)
    before, steps_before = None, []
    if query.compare:
        past = msgspec.structs.replace(alone, period=query.period.previous(now))
        steps_before = list(steps_of(kind, past.period, now))[: len(steps)]
        before = by_currency(await run_report(conn, past, viewer, now), name)
    names = [*dict.fromkeys([*found, *(before or {})])] or [""]
    if len(names) > 1:  # one time without money is the currency's, not a line of its own
        names = [one for one in names if one] or names
    return Chart(
        step=DIMENSIONS[name].label,
        labels=[_label(one, kind) for one in steps],
        labels_before=[_label(one, kind) for one in steps_before],
        metrics=[(one, header(METRICS[one], query.clicks), METRICS[one].unit) for one in query.metrics],
        series=[
            Series(
                one,
                _values(query, steps, found.get(one, {})),
                _values(query, steps_before, before.get(one, {})) if before is not None else None,
            )
            for one in names
        ],
    )


def steps_of(kind: str, period: Period, now: datetime) -> Iterator[Step]:
    """The hours, days, weeks or months of a period, as far as they have begun."""
    zone, ends_at = period.zone, min(period.ends_at, max(now, period.starts_at + _HOUR))
    if kind == "hour":
        at = _hour_of(period.starts_at, zone)
        while at < ends_at:
            yield at.astimezone(zone)
            at = _hour_of(at + _HOUR, zone)
        return
    day, last = period.first_day, (ends_at - timedelta(microseconds=1)).astimezone(zone).date()
    day = day - timedelta(days=day.weekday()) if kind == "week" else day.replace(day=1) if kind == "month" else day
    while day <= last:
        yield day
        day = _next(kind, day)


def _hour_of(at: datetime, zone: tzinfo) -> datetime:
    """Where the zone's hour begins that this moment is in, as the report's rows have it."""
    local = at.astimezone(zone)
    return at - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)


def _next(kind: str, day: date) -> date:
    if kind == "month":
        return (day.replace(day=28) + timedelta(days=4)).replace(day=1)
    return day + timedelta(days=7 if kind == "week" else 1)


Figures = dict[Any, Mapping[str, Any]]


def by_currency(report: Report, name: str) -> dict[str, Figures]:
    """Figures by time, of each currency; of "" where money is of one, or there is none."""
    found: dict[str, Figures] = {}
    for row in report.rows:
        currency = str(row.dimensions.get("currency", ""))
        found.setdefault(currency, {})[_key(row.dimensions[name])] = row.metrics
    return found


def _values(query: ReportQuery, steps: Sequence[Step], figures: Figures) -> dict[str, list[float | None]]:
    nothing = {name: None if METRICS[name].is_ratio else 0 for name in query.metrics}
    rows = [figures.get(_key(step), nothing) for step in steps]
    return {name: [None if row[name] is None else float(row[name]) for row in rows] for name in query.metrics}


def _key(step: Step) -> Step:
    return step.astimezone(UTC) if isinstance(step, datetime) else step


def _label(step: Step, kind: str) -> str:
    return f"{step:{_FORMATS.get(kind, '%a %d %b')}}"
