"""The Reports page: the form, and the result of what its URL asks for."""

from typing import Any

import msgspec
from aiohttp import web

from edge.admin.api import exports
from edge.admin.api.operation import EVERYBODY, Call
from edge.admin.api.problems import Problem
from edge.admin.console.page import Page, Refusal, Route, Visit
from edge.admin.console.reports import rows, saved
from edge.admin.console.reports.asking import Asked, check_length, known_names, read_visit, refuse_foreign, see_other
from edge.admin.console.reports.chart import make_chart, time_dimension
from edge.admin.console.reports.form import FAMILIES, dimension_groups, make_form
from edge.admin.console.reports.result import make_table, period_text
from edge.admin.console.reports.urls import filters_of, replaced, to_url, without
from storage.postgres.reports.dimensions import DIMENSIONS
from storage.postgres.reports.query import Fault, NotYours, QueryRefused, ReportQuery, parse_query
from storage.postgres.reports.report import ReportTooSlow, run_report

PAGE_ROWS, MAX_PAGE_ROWS = 100, 1000
FIRST_REPORT = "/reports?dimensions=date"
_EXPORT = {one.path: one.handle for one in exports.OPERATIONS}["/exports/reports"]


async def show(visit: Visit) -> web.Response:
    """The page; the report alone where htmx asks. Its URL is made the canonical one."""
    check_length(visit)
    asked = read_visit(visit)
    if not visit.request.query and not visit.is_fragment:
        return see_other(FIRST_REPORT)
    url = to_url(asked.pairs)
    if not visit.is_fragment and sorted(asked.pairs) != sorted(visit.request.query.items()):
        return see_other(url)
    values, status = await _report(visit, asked)
    is_fragment = visit.is_fragment
    template = "reports_body.html" if is_fragment else "reports.html"
    # htmx shows only what is answered with 200.
    response = visit.render(template, status=200 if is_fragment else status, url=url, **values)
    if is_fragment:
        response.headers["HX-Push-Url"] = url
    return response


async def _report(visit: Visit, asked: Asked) -> tuple[dict[str, Any], int]:
    faults: list[Fault] = []
    values: dict[str, Any] = {"report": None, "table": None, "trouble": ""}
    async with visit.slow_connection() as conn:
        known = await known_names(visit, conn)
        try:
            query = parse_query(asked.pairs, asked.viewer, asked.now, asked.timezone)
            # A page that a browser can show: the API's has a thousand rows where nobody says.
            rows_asked = query.limit if dict(asked.pairs).get("limit") else PAGE_ROWS
            query = msgspec.structs.replace(query, limit=min(rows_asked, MAX_PAGE_ROWS))
            report = await run_report(conn, query, asked.viewer, asked.now)
            values |= {"report": report, "table": make_table(report, asked.pairs, asked.viewer)}
            values |= _ways_on(asked, query, report.next_cursor)
        except NotYours as error:
            refuse_foreign(error)
        except QueryRefused as error:
            faults = error.faults
        except ReportTooSlow as error:
            values["trouble"] = str(error)
        values["saved"] = await saved.beside(visit, conn, asked)
    form = make_form(asked.pairs, asked.viewer, asked.today, known, faults)
    values |= {"form": form, "known": known, "period_text": period_text}
    return values, 422 if faults or values["trouble"] else 200


def _ways_on(asked: Asked, query: ReportQuery, next_cursor: str | None) -> dict[str, Any]:
    here = without(asked.pairs, "cursor")
    before = max(0, query.offset - query.limit)
    back = replaced(here, cursor=query.cursor_at(before)) if before else here
    whole = without(here, "limit")
    return {
        "next_url": to_url([*here, ("cursor", next_cursor)]) if next_cursor else "",
        "previous_url": to_url(back) if query.offset else "",
        "chart_url": to_url(here, "/reports/chart.json") if time_dimension(query) else "",
        "exports": [
            ("CSV", to_url([*whole, ("format", "csv")], "/reports/export")),
            ("CSV for spreadsheets", to_url([*whole, ("format", "csv"), ("for_spreadsheets", "true")], "/reports/export")),
            ("NDJSON", to_url([*whole, ("format", "ndjson")], "/reports/export")),
            ("Parquet", to_url([*whole, ("format", "parquet")], "/reports/export")),
        ],
    }


async def chart(visit: Visit) -> web.Response:
    """The chart's numbers."""
    check_length(visit)
    asked = read_visit(visit)
    try:
        query = parse_query(asked.pairs, asked.viewer, asked.now, asked.timezone)
        async with visit.slow_connection() as conn:
            made = await make_chart(conn, query, asked.viewer, asked.now)
    except NotYours as error:
        refuse_foreign(error)
    except (QueryRefused, ReportTooSlow) as error:
        raise Refusal(422, "There is no such chart", str(error)) from error
    return web.Response(body=msgspec.json.encode(made), content_type="application/json")


async def open_by(visit: Visit) -> web.Response:
    """The dimensions that a row can be opened by: each leads to the report of that row alone."""
    check_length(visit)
    asked = read_visit(visit)
    here = without(asked.pairs, "cursor", "limit", "sort")
    fixed = {name for name, _ in filters_of(here)}
    families = []
    for family in FAMILIES:
        others = [name for name in family if name not in fixed]
        if fixed & {*family, "source"} and len(others) > 1:
            said = ", ".join(DIMENSIONS[name].label for name in others)
            families.append((said, to_url(replaced(here, dimensions=",".join(others)))))
    groups = [
        (group.label, [(one, to_url(replaced(here, dimensions=one.value))) for one in group.choices])
        for group in dimension_groups(asked.viewer, without=fixed)
    ]
    async with visit.connection() as conn:
        form = make_form(asked.pairs, asked.viewer, asked.today, await known_names(visit, conn))
    template = "reports_open.html" if visit.is_fragment else "reports_open_page.html"
    return visit.render(template, groups=groups, families=families, chips=form.chips)


async def export(visit: Visit) -> web.StreamResponse:
    """The whole report as a file, by the API's own operation."""
    check_length(visit)
    try:
        found = await _EXPORT(Call(visit.caller, visit.shared.backend, visit.request, None, None, None))
    except Problem as problem:
        said = "; ".join(f"{one.field}: {one.detail}" for one in problem.errors)
        raise Refusal(problem.status, "That file cannot be made", said or problem.detail) from problem
    if not isinstance(found, web.StreamResponse):
        raise TypeError("an export is a stream")
    return found


PAGE = Page(
    path="/reports",
    title="Reports",
    group="Watch",
    icon="reports",
    letter="r",
    scopes=EVERYBODY,
    routes=(
        Route("GET", "/reports", show),
        Route("GET", "/reports/chart.json", chart),
        Route("GET", "/reports/open", open_by),
        Route("GET", "/reports/export", export),
        *rows.ROUTES,
        *saved.ROUTES,
    ),
)
