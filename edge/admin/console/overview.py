"""The first page: today against the same time yesterday, the last hours or days, who is on top, and what comes in now."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from edge.admin.api.operation import EVERYBODY
from edge.admin.console.names import Names
from edge.admin.console.page import Page, Route, Visit
from edge.admin.metrics import drain_lag_s
from storage.postgres.connection import Connection
from storage.postgres.overview import (
    COUNTS,
    SUMS,
    Filters,
    newest_clicks,
    newest_conversions,
    ratio,
    sum_by_currency,
    sum_by_item,
    sum_by_step,
)

TOP = 8
NEWEST = 12
HOUR = timedelta(hours=1)
Row = dict[str, Any]


class Span(NamedTuple):
    """Today so far, and as much of yesterday. `share`: how much of the running hour is over."""

    today: datetime
    yesterday: datetime
    hour: datetime
    share: Decimal

    @property
    def hour_yesterday(self) -> datetime:
        """The hour of yesterday that the running one is compared with."""
        return self.hour - (self.today - self.yesterday)


class Figure(NamedTuple):
    """A key figure. `unit`: "" for counts, a currency, or %. `better`: whether more of it is good news; None: neither."""

    label: str
    unit: str
    now: Decimal | int | None
    before: Decimal | int | None
    title: str
    better: bool | None = True


async def show(visit: Visit) -> web.Response:
    """The page, or the part of it that is asked for."""
    part = visit.asked("part")
    now = datetime.now(UTC)
    async with visit.connection() as conn:
        if part == "live":
            return visit.render("overview_live.html", **await _live(visit, conn, now))
        if part in ("figures", "top"):
            return visit.render(f"overview_{part}.html", **await _figures(visit, conn, now))
        values = {**await _figures(visit, conn, now), **await _live(visit, conn, now)}
    return visit.render("overview.html", step=_step(visit), **values)


async def chart(visit: Visit) -> web.Response:
    """The chart's numbers as JSON: moments in Unix seconds, valid clicks, conversions; empty steps are 0."""
    step, now = _step(visit), datetime.now(UTC)
    moments = list(_steps(visit, step, now))
    async with visit.connection() as conn:
        rows = await sum_by_step(
            conn, moments[0], now, visit.whose, "hour" if step == "hour" else "day", str(visit.shared.zone)
        )
    found = {row["at"]: row for row in rows}
    body = {
        "step": step,
        "at": [int(moment.timestamp()) for moment in moments],
        "clicks": [found[at]["clicks"] if at in found else 0 for at in moments],
        "conversions": [found[at]["conversions"] if at in found else 0 for at in moments],
        "labels": [_label(visit, step, at) for at in moments],
    }
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _step(visit: Visit) -> str:
    return "day" if visit.asked("step") == "day" else "hour"


def _steps(visit: Visit, step: str, now: datetime) -> Iterator[datetime]:
    if step == "hour":
        hour = now.replace(minute=0, second=0, microsecond=0)
        yield from (hour - HOUR * ago for ago in range(23, -1, -1))
    else:
        today = now.astimezone(visit.shared.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        yield from ((today - timedelta(days=ago)).astimezone(UTC) for ago in range(13, -1, -1))


def _label(visit: Visit, step: str, at: datetime) -> str:
    return at.astimezone(visit.shared.zone).strftime("%H:%M" if step == "hour" else "%a %d %b")


def span_of(visit: Visit, now: datetime) -> Span:
    """Today in the reports' time zone, and yesterday."""
    today = now.astimezone(visit.shared.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    hour = now.replace(minute=0, second=0, microsecond=0)
    share = Decimal(int((now - hour).total_seconds())) / 3600
    return Span(today.astimezone(UTC), (today - timedelta(days=1)).astimezone(UTC), hour, share)


async def _figures(visit: Visit, conn: Connection, now: datetime) -> dict[str, Any]:
    span, whose = span_of(visit, now), visit.whose
    today = await sum_by_currency(conn, span.today, now, whose)
    # The roll-ups know hours: of the hour that runs, yesterday's counts in proportion.
    whole = await sum_by_currency(conn, span.yesterday, span.hour_yesterday, whose)
    running = await sum_by_currency(conn, span.hour_yesterday, span.hour_yesterday + HOUR, whose)
    before = _added(whole, running, span.share)
    names = Names(await visit.shared.catalog.current(conn))
    offers = await sum_by_item(conn, span.today, now, whose, "offer_id", TOP)
    partners = await sum_by_item(conn, span.today, now, whose, "aff_id", TOP) if visit.is_network else []
    return {
        "groups": list(key_figures(visit, today, before)),
        "offers": [_earned(visit, row) for row in offers],
        "partners": [_earned(visit, row) for row in partners],
        "names": names,
        "now": now,
        "lag_s": drain_lag_s(visit.shared.backend.slots),
        "until": now - timedelta(days=1),
    }


async def _live(visit: Visit, conn: Connection, now: datetime) -> dict[str, Any]:
    catalog = await visit.shared.catalog.current(conn)
    caller = visit.caller
    own_offers = visit.shared.catalog.offers_of(catalog, caller.advertiser_id)
    filters = Filters(aff_id=caller.aff_id, offer_ids=own_offers, advertiser_id=caller.advertiser_id)
    return {
        "clicks": await newest_clicks(conn, now, filters, NEWEST),
        "conversions": await newest_conversions(conn, now - timedelta(days=1), visit.whose, NEWEST),
        "names": Names(catalog),
        "now": now,
        "lag_s": drain_lag_s(visit.shared.backend.slots),
    }


def key_figures(visit: Visit, today: Sequence[Row], before: Sequence[Row]) -> Iterator[list[Figure]]:
    """The cards of whoever looks: counts, then money, a group a currency. Ratios come from sums."""
    yield list(_count_figures(_totals(today), _totals(before)))
    for now_row, old_row in _by_currency(today, before):
        yield list(_money_figures(visit, now_row, old_row))


def _count_figures(now: Row, old: Row) -> Iterator[Figure]:
    clicks = _valid(now), _valid(old)
    approved = now["conversions"], old["conversions"]
    yield Figure("Clicks", "", *clicks, "valid clicks: gross without bots, prefetches and data centres")
    yield Figure("Unique clicks", "", now["unique_clicks"], old["unique_clicks"], "the first of each visitor")
    yield Figure("Conversions", "", *approved, "approved conversions")
    yield Figure("Pending", "", now["pending"], old["pending"], "conversions to be approved or rejected", None)
    cr = ratio(approved[0], clicks[0], 100), ratio(approved[1], clicks[1], 100)
    yield Figure("CR", "%", *cr, "conversions / valid clicks")


def _money_figures(visit: Visit, now_row: Row, old_row: Row) -> Iterator[Figure]:
    unit = now_row["currency"]
    if visit.sees_revenue:
        yield Figure("Revenue", unit, now_row["revenue"], old_row["revenue"], "what advertisers pay")
    if visit.sees_payout:
        label, better = ("Payout", None) if visit.is_network else ("Earnings", True)
        yield Figure(label, unit, now_row["payout"], old_row["payout"], "what partners earn", better)
    if visit.is_network:
        profit = now_row["revenue"] - now_row["payout"], old_row["revenue"] - old_row["payout"]
        yield Figure("Profit", unit, *profit, "revenue - payout")
    earned = "revenue" if visit.sees_revenue else "payout"
    epc = ratio(now_row[earned], _valid(now_row)), ratio(old_row[earned], _valid(old_row))
    yield Figure("EPC", unit, *epc, f"{earned} / valid clicks")


def _earned(visit: Visit, row: Row) -> Row:
    clicks = _valid(row)
    return {**row, "clicks": clicks, "cr": ratio(row["conversions"], clicks, 100)}


def _valid(row: Row) -> Any:
    return row["gross_clicks"] - row["invalid_clicks"]


def _totals(rows: Iterable[Row]) -> Row:
    """Counts over all currencies: clicks are clicks."""
    kept = list(rows)
    return {name: sum(row[name] for row in kept) for name in COUNTS}


def _by_currency(today: Sequence[Row], before: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Both days' sums of each currency in which money was earned."""
    rows = [{row["currency"]: row for row in day} for day in (today, before)]
    currencies = set(rows[0]) | set(rows[1])
    for currency in sorted(currencies, key=lambda one: (-rows[0].get(one, {}).get("revenue", 0), one)):
        pair = [day.get(currency, {**dict.fromkeys(COUNTS + SUMS, Decimal(0)), "currency": currency}) for day in rows]
        if currency:
            yield pair[0], pair[1]


def _added(whole: Sequence[Row], running: Sequence[Row], share: Decimal) -> list[Row]:
    """Sums of whole hours, and of one hour its share: counts in whole numbers."""
    added = {row["currency"]: dict(row) for row in whole}
    for row in running:
        kept = added.setdefault(row["currency"], {**dict.fromkeys(COUNTS + SUMS, 0), "currency": row["currency"]})
        for name in COUNTS:
            kept[name] += int(row[name] * share)
        for name in SUMS:
            kept[name] += (row[name] * share).quantize(Decimal("0.000001"))
    return list(added.values())


PAGE = Page(
    path="/",
    title="Overview",
    group="Watch",
    icon="overview",
    letter="o",
    scopes=EVERYBODY,
    routes=(Route("GET", "/", show), Route("GET", "/overview/chart.json", chart)),
)
