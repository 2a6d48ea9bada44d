"""Cohorts: what contacts brought in after they came, as a table with shades, as lines, and as CSV."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from edge.admin.api.operation import READERS
from edge.admin.console.asked import address, by_field, pairs_of, parts_of, tidy
from edge.admin.console.contacts import unplaced, values_of, word
from edge.admin.console.page import Page, Route, Visit
from edge.exports.cohorts import to_csv
from storage.postgres.cohorts import MAX_WINDOWS, Cohort, CohortQuery, Window, find_cohorts
from storage.postgres.contact_filter import UTM
from storage.postgres.contact_query import parse_cohorts
from storage.postgres.listing.limits import TooSlow, in_time
from storage.postgres.reports.query import QueryRefused

PATH = "/cohorts"
SHADES = 9
LINES = 5
_FIELDS = frozenset(("from", "to", "cohort", "windows", "list", "currency", "has_converted", *UTM))


class Cell(NamedTuple):
    """One window of one cohort. `shade`: 0 to 9, by revenue per contact among those of the same number of days."""

    window: Window
    shade: int


class Line(NamedTuple):
    """One cohort in one currency."""

    cohort: Cohort
    label: str
    cells: list[Cell]


async def show(visit: Visit) -> web.StreamResponse:
    """The table; faults stand beside their fields."""
    if elsewhere := tidy(visit, PATH):
        return elsewhere
    pairs = pairs_of(visit)
    found: list[Cohort] = []
    faults, query = {}, None
    try:
        query = parse_cohorts(pairs, datetime.now(UTC), str(visit.shared.zone))
        found = await _find(visit, query)
    except QueryRefused as error:
        faults = by_field(error.faults)
    except TooSlow as error:
        faults = {"": str(error)}
    return visit.render(
        "cohorts.html",
        status=422 if faults else 200,
        groups=_groups(found, query.bucket) if query and found else [],
        days=[window.days for window in found[0].windows] if found else [],
        query=query,
        faults=faults,
        unplaced=unplaced(faults, _FIELDS),
        values=values_of(pairs, _FIELDS),
        kept=[one for one in pairs if one[0] not in _FIELDS],
        parts=parts_of(PATH, pairs, word),
        csv_url=address(f"{PATH}.csv", pairs),
        chart_url=address(f"{PATH}/chart.json", pairs),
        utm=UTM,
    )


async def send_csv(visit: Visit) -> web.Response:
    """A line a cohort, currency and window."""
    headers = {"Content-Disposition": 'attachment; filename="cohorts.csv"'}
    text = to_csv(await _find_or_refuse(visit, _parse(visit)))
    return web.Response(text=text, content_type="text/csv", charset="utf-8", headers=headers)


async def chart(visit: Visit) -> web.Response:
    """The lines' numbers as JSON: days, and by currency what a contact had brought in by then; null where it is not over."""
    query = _parse(visit)
    days = _days_between(query.window_days)
    found = await _find_or_refuse(visit, query._replace(window_days=days))
    currencies = sorted({one.currency for one in found if one.currency})
    body = {
        "days": [0, *days],
        "currencies": [{"currency": one, "lines": lines} for one in currencies if (lines := _lines(found, one, query.bucket))],
    }
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _days_between(asked: Sequence[int]) -> list[int]:
    """The windows asked for, and others evenly between them, so that lines bend where they do."""
    longest, free = max(asked), MAX_WINDOWS - len(set(asked))
    between = {round(longest * place / (free + 1)) for place in range(1, free + 1)} - {0}
    return sorted({*asked, *between})


def _lines(found: Sequence[Cohort], currency: str, bucket: str) -> list[dict[str, Any]]:
    """All that are old enough together, then the newest ones by themselves; none that has no window behind it."""
    sizes = {one.starts_on: one.contacts for one in found}
    mine = {one.starts_on: one.windows for one in found if one.currency == currency}
    blank = next(iter(mine.values()))
    complete = {one.starts_on: [window.is_complete for window in one.windows] for one in found}
    lines = []
    last = max((place for place in range(len(blank)) if any(flags[place] for flags in complete.values())), default=-1)
    if last >= 0:
        old = [day for day, flags in complete.items() if flags[last]]
        contacts = sum(sizes[day] for day in old)
        sums = [sum((mine[day][place].revenue for day in old if day in mine), Decimal(0)) for place in range(last + 1)]
        lines.append(
            {
                "label": f"All of at least {blank[last].days} days",
                "values": [0.0, *(float(one / contacts) for one in sums)],
            }
        )
    for day in sorted(mine, reverse=True)[:LINES]:
        values = [float(one.revenue_per_contact) if one.is_complete else None for one in mine[day]]
        if any(value is not None for value in values):
            lines.append({"label": label_of(day, bucket), "values": [0.0, *values]})
    return lines


def _groups(found: Sequence[Cohort], bucket: str) -> list[tuple[str, list[Line]]]:
    """The lines of each currency; cohorts that brought in nothing stand with each, so that none is missed."""
    currencies = sorted({one.currency for one in found if one.currency}) or [""]
    return [(currency, list(_shaded(found, currency, bucket))) for currency in currencies]


def _shaded(found: Sequence[Cohort], currency: str, bucket: str) -> list[Line]:
    mine = {one.starts_on: one for one in found if one.currency == currency}
    cohorts = [
        mine.get(one.starts_on) or _empty(one, currency) for one in {one.starts_on: one for one in found}.values()
    ]
    places = range(len(cohorts[0].windows))
    most = [max(one.windows[place].revenue_per_contact for one in cohorts) for place in places]
    return [
        Line(
            one,
            label_of(one.starts_on, bucket),
            [Cell(window, _shade(window, top)) for window, top in zip(one.windows, most, strict=True)],
        )
        for one in cohorts
    ]


def _empty(one: Cohort, currency: str) -> Cohort:
    zero = Decimal(0)
    windows = [Window(window.days, window.is_complete, 0, 0, zero, zero) for window in one.windows]
    return Cohort(one.starts_on, one.contacts, currency, windows)


def _shade(window: Window, top: Decimal) -> int:
    if top <= 0 or window.revenue_per_contact <= 0:
        return 0
    return max(1, int(window.revenue_per_contact / top * SHADES))


def label_of(day: date, bucket: str) -> str:
    """2026-10, or the day with which it begins."""
    return f"{day:%Y-%m}" if bucket == "month" else f"{day:%Y-%m-%d}"


def _parse(visit: Visit) -> CohortQuery:
    try:
        return parse_cohorts(pairs_of(visit), datetime.now(UTC), str(visit.shared.zone))
    except QueryRefused as error:
        raise web.HTTPUnprocessableEntity(text=f"{error}\n") from error


async def _find_or_refuse(visit: Visit, query: CohortQuery) -> list[Cohort]:
    try:
        return await _find(visit, query)
    except (QueryRefused, TooSlow) as error:
        raise web.HTTPUnprocessableEntity(text=f"{error}\n") from error


async def _find(visit: Visit, query: CohortQuery) -> list[Cohort]:
    async with visit.slow_connection() as conn, in_time(conn):
        return await find_cohorts(conn, query, datetime.now(UTC))


PAGE = Page(
    path=PATH,
    title="Cohorts",
    group="People",
    icon="cohorts",
    letter="w",
    scopes=READERS,
    routes=(Route("GET", PATH, show), Route("GET", f"{PATH}.csv", send_csv), Route("GET", f"{PATH}/chart.json", chart)),
)
