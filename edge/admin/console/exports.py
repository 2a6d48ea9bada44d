"""Exports: rows and reports as files, chosen in a form, streamed as the API does."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from aiohttp import web

from edge.admin.api.exports import send_export
from edge.admin.api.operation import EVERYBODY
from edge.admin.api.problems import Problem
from edge.admin.api.reports import viewer_of
from edge.admin.console.catalog_list import visible
from edge.admin.console.page import Page, Route, Visit, not_found
from edge.exports.asking import FORMATS
from storage.postgres.exports.tables import TABLES, Table
from storage.postgres.reports.dimensions import DIMENSIONS, Dimension
from storage.postgres.reports.metrics import DEFAULT_METRICS, METRICS

REPORTS = "reports"
DAYS = 30
MAX_LINES, MAX_CHARS = 50, 500
_DEFAULT_DIMENSIONS = ("date", "offer")
_PLAIN = ("from", "to", "timezone", "by", "format", "for_spreadsheets", "offer", "partner", "advertiser", "sort")


class Box(NamedTuple):
    """Something to tick. `label` "": its name says it."""

    name: str
    label: str
    is_ticked: bool


async def show(visit: Visit) -> web.Response:
    """The form for one kind of rows."""
    what = visit.asked("what") or "conversions"
    if what not in _known(visit):
        raise not_found("export")
    return await _form(visit, what)


async def download(visit: Visit) -> web.StreamResponse:
    """The file; the form again, with what is wrong in it, as long as nothing has been sent."""
    what = visit.request.match_info["what"]
    if what not in _known(visit):
        raise not_found("export")
    try:
        return await send_export(
            visit.shared.backend, visit.caller, visit.request, what, list(_parameters(visit.request.query))
        )
    except Problem as problem:
        faults = [f"{one.field}: {one.detail}" for one in problem.errors] or [problem.detail]
        return await _form(visit, what, faults, problem.status)


async def _form(visit: Visit, what: str, faults: list[str] | None = None, status: int = 200) -> web.Response:
    query = visit.request.query
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
    table = TABLES.get(what)
    known = [one for one in DIMENSIONS.values() if visit.caller.scope in one.scopes]
    today = datetime.now(UTC).astimezone(visit.shared.zone).date()
    values = {name: visit.asked(name) for name in (*_PLAIN, "filters")}
    is_new = not any(query.get(name) for name in ("from", "format"))
    if is_new and not (table and table.is_timeless):
        values |= {"from": f"{today - timedelta(days=DAYS - 1)}", "to": f"{today}"}
    return visit.render(
        "exports.html",
        status=status,
        what=what,
        kinds=_known(visit),
        table=table,
        values=values,
        is_defused=is_new or "for_spreadsheets" in query,
        formats=FORMATS,
        columns=_columns(visit, table) if table else [],
        dimensions=list(_boxes(visit, "dimensions", known, _DEFAULT_DIMENSIONS)) if not table else [],
        metrics=list(_boxes(visit, "metrics", _metrics(visit), DEFAULT_METRICS)) if not table else [],
        filters=[one for one in known if (not table or table.source.has(one)) and _is_line(one)],
        offers=list(visible(visit, catalog, "offers")) if not table or table.source.has(DIMENSIONS["offer"]) else [],
        partners=list(visible(visit, catalog, "partners"))
        if not table or table.source.has(DIMENSIONS["partner"])
        else [],
        has_by=table is None or table.by_click is not None,
        faults=faults or [],
    )


def _known(visit: Visit) -> list[str]:
    """What this caller may export."""
    return [REPORTS, *(name for name, table in TABLES.items() if visit.caller.scope in table.scopes)]


def _parameters(query: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The form's fields as the API's parameters: empty ones say nothing, `filters` has one a line."""
    lists: dict[str, list[str]] = {"dimensions": [], "metrics": []}
    for name, value in query.items():
        text = str(value).strip()
        if name == "filters":
            for line in text.splitlines()[:MAX_LINES]:
                field, _, wanted = line.partition("=")
                if line.strip():
                    yield field.strip()[:MAX_CHARS], wanted.strip()[:MAX_CHARS]
        elif name in lists:
            lists[name].append(text)
        elif text and (name in _PLAIN or name == "columns"):
            yield name, text
    yield from ((name, ",".join(values)) for name, values in lists.items() if values)


def _columns(visit: Visit, table: Table) -> list[Box]:
    ticked = visit.request.query.getall("columns", [])
    return [Box(one.name, "", not ticked or one.name in ticked) for one in table.visible(visit.caller.scope)]


def _metrics(visit: Visit) -> list[Any]:
    viewer = viewer_of(visit.caller)
    return [one for one in METRICS.values() if viewer.scope in one.scopes]


def _boxes(visit: Visit, name: str, known: list[Any], usual: tuple[str, ...]) -> Iterator[Box]:
    ticked = visit.request.query.getall(name, []) or usual
    return (Box(one.name, one.label, one.name in ticked) for one in known)


def _is_line(dimension: Dimension) -> bool:
    return dimension.name not in ("offer", "partner", "date", "hour", "week", "month")


PAGE = Page(
    path="/exports",
    title="Exports",
    group="Books",
    icon="exports",
    letter="x",
    scopes=EVERYBODY,
    routes=(Route("GET", "/exports", show), Route("GET", "/exports/{what:[a-z]{1,20}}", download)),
)
