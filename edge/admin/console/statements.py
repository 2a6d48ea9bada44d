"""Statements: what a month owes whom, as a list, a page to print and CSV; closing and opening months."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from aiohttp import web

from edge.admin.api.operation import ADMIN, EVERYBODY
from edge.admin.api.problems import Problem
from edge.admin.api.statements import is_theirs, whose_statements
from edge.admin.console.page import Page, Refusal, Route, Visit, not_found
from edge.closing import StillComing, closable_at, close, span_in_force
from edge.errors import UserError
from edge.statements.building import summarise
from edge.statements.finding import Whose, find_statement, find_statements
from edge.statements.forms import month_name, page_headers, to_csv, to_page
from edge.statements.statement import Statement
from edge.tracking.months import month_of, parse_month
from storage.postgres.connection import Connection
from storage.postgres.months import closed_months, reopen_month

MONTHS_SHOWN = 24
_MAX_ID = 2**31 - 1


async def show(visit: Visit) -> web.Response:
    """The totals of a month: by default the last one that is over."""
    return await _page(visit, _month_asked(visit, visit.asked("month")))


async def download(visit: Visit) -> web.Response:
    """The same as one table."""
    month = _month_asked(visit, visit.asked("month"))
    async with visit.slow_connection() as conn:
        found = await _find(conn, month, _wanted(visit))
    return _csv(found, f"statements-{month:%Y-%m}.csv")


async def show_one(visit: Visit) -> web.Response:
    """One statement as a page to print, or as CSV."""
    asked = visit.request.match_info
    party_id, month = _number(asked["id"]), parse_month(asked["month"])
    whose = Whose("partner" if asked["party"] == "partner" else "advertiser", party_id)
    if month is None or not party_id or not is_theirs(visit.caller, whose):
        raise not_found("statement")
    async with visit.slow_connection() as conn:
        found = await _find(conn, month, [whose])
    if not found:
        raise not_found("statement")
    if visit.asked("format") == "csv":
        return _csv(found, f"statement-{month:%Y-%m}-{whose.party}-{whose.id}.csv")
    return web.Response(text=to_page(found[0]), content_type="text/html", headers=page_headers())


async def close_one(visit: Visit) -> web.StreamResponse:
    """Close a month whose name was typed."""
    month = _month_asked(visit, str(visit.form.get("month", "")))
    if not _is_named(visit, month):
        return await _page(visit, month, fault=f"Type {month_name(f'{month:%Y-%m}')} to close it.", status=422)
    async with visit.connection() as conn:
        try:
            is_forced = "force" in visit.form
            await close(conn, month, now=datetime.now(UTC), actor=visit.caller.actor, force=is_forced)
        except StillComing as error:
            return await _page(visit, month, fault=f"{error.text}.", may_force=True, status=409)
        except UserError as error:
            return await _page(visit, month, fault=str(error), status=409)
    return _to(month, "closed")


async def open_one(visit: Visit) -> web.StreamResponse:
    """Open a closed month whose name was typed."""
    month = _month_asked(visit, str(visit.form.get("month", "")))
    if not _is_named(visit, month):
        return await _page(visit, month, fault=f"Type {month_name(f'{month:%Y-%m}')} to open it.", status=422)
    async with visit.connection() as conn:
        if not await reopen_month(conn, month):
            return await _page(visit, month, fault=f"{month:%Y-%m} is not closed.", status=409)
    return _to(month, "opened")


async def _page(
    visit: Visit, month: date, *, fault: str = "", may_force: bool = False, status: int = 200
) -> web.Response:
    now = datetime.now(UTC)
    async with visit.slow_connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
        found = await _find(conn, month, _wanted(visit))
        closed = {one.month: one for one in await closed_months(conn, to_change=False)}
        may_close_at = closable_at(await span_in_force(conn, month))
    lines = [line for one in found for line in summarise(one)]
    return visit.render(
        "statements.html",
        status=status,
        month=f"{month:%Y-%m}",
        months=_months(month_of(now, visit.shared.zone), (month, *closed)),
        closed=closed.get(month),
        closed_names={f"{one:%Y-%m}" for one in closed},
        groups=[(party, [one for one in lines if one.party == party]) for party in ("partner", "advertiser")],
        measures={"partner": "payout", "advertiser": "revenue"},
        is_over=now >= may_close_at,
        may_close_at=may_close_at,
        partner=_number(visit.asked("partner")),
        advertiser=_number(visit.asked("advertiser")),
        partners=visit.shared.catalog.partners(catalog) if visit.is_network else [],
        advertisers=visit.shared.catalog.advertisers(catalog) if visit.is_network else [],
        fault=fault,
        may_force=may_force,
        done=visit.asked("done"),
        month_name=month_name,
    )


async def _find(conn: Connection, month: date, wanted: Iterable[Whose]) -> list[Statement]:
    """Those that there are; Refusal for a month that has not begun."""
    now, found = datetime.now(UTC), []
    try:
        for whose in wanted:
            if not whose.id:
                found += await find_statements(conn, month, whose.party, now=now)
            elif one := await find_statement(conn, month, whose, now=now):
                found.append(one)
    except UserError as error:
        raise Refusal(404, "There are no statements yet", f"{error}.") from error
    return found


def _wanted(visit: Visit) -> list[Whose]:
    try:
        return whose_statements(visit.caller, _number(visit.asked("partner")), _number(visit.asked("advertiser")))
    except Problem as problem:
        raise not_found("statement") from problem


def _month_asked(visit: Visit, text: str) -> date:
    if not text:
        return (month_of(datetime.now(UTC), visit.shared.zone) - timedelta(days=1)).replace(day=1)
    month = parse_month(text)
    if month is None:
        raise Refusal(422, "This is no month", "Write it 2026-10.")
    return month


def _months(newest: date, others: Iterable[date]) -> list[str]:
    """The months to choose from, the newest first."""
    found = {newest, *others}
    one = newest
    for _ in range(MONTHS_SHOWN - 1):
        one = (one - timedelta(days=1)).replace(day=1)
        found.add(one)
    return [f"{month:%Y-%m}" for month in sorted(found, reverse=True)]


def _is_named(visit: Visit, month: date) -> bool:
    typed = " ".join(str(visit.form.get("named", "")).split()).casefold()
    name = f"{month:%Y-%m}"
    return typed in (name, month_name(name).casefold())


def _csv(found: Iterable[Statement], name: str) -> web.Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(text=to_csv(found), content_type="text/csv", headers=headers)


def _to(month: date, done: str) -> web.Response:
    return web.Response(status=303, headers={"Location": f"/statements?month={month:%Y-%m}&done={done}"})


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= _MAX_ID else 0


PAGE = Page(
    path="/statements",
    title="Statements",
    group="Books",
    icon="statements",
    letter="s",
    scopes=EVERYBODY,
    routes=(
        Route("GET", "/statements", show),
        Route("GET", "/statements/all.csv", download),
        Route("GET", "/statements/{party:partner|advertiser}/{id:[0-9]{1,10}}/{month}", show_one),
        Route("POST", "/statements/close", close_one, ADMIN),
        Route("POST", "/statements/open", open_one, ADMIN),
    ),
)
