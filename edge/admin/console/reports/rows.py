"""The rows behind a figure: clicks, impressions, conversions or contacts, a page at a time, by the report's own parameters."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from aiohttp import web

from edge.admin.console.names import Names
from edge.admin.console.page import Handler, Route, Visit, not_found
from edge.admin.console.reports.asking import Asked, check_length, known_names, read_visit, refuse_foreign, see_other
from edge.admin.console.reports.form import label_of_metric, make_form
from edge.admin.console.reports.result import period_text
from edge.admin.console.reports.urls import Pairs, to_url, without
from storage.postgres.connection import Connection
from storage.postgres.contact_filter import ContactFilter
from storage.postgres.listing.behind import contacts_behind, kinds_of
from storage.postgres.listing.contacts import list_contacts
from storage.postgres.listing.conversions import list_conversions
from storage.postgres.listing.cursors import BadCursor
from storage.postgres.listing.drill import LISTABLE, Drill, Kind, parse_drill, read_limit
from storage.postgres.listing.limits import TooSlow, in_time
from storage.postgres.listing.touches import list_touches
from storage.postgres.reports.labels import find_labels
from storage.postgres.reports.metrics import METRICS, describe
from storage.postgres.reports.query import Fault, NotYours, QueryRefused, ReportQuery, parse_query

_ROW_KINDS: tuple[Kind, ...] = get_args(Kind)
What = Literal["clicks", "impressions", "conversions", "contacts"]
TITLES: Mapping[What, str] = {
    "clicks": "Clicks",
    "impressions": "Impressions",
    "conversions": "Conversions",
    "contacts": "Contacts",
}


class Found(NamedTuple):
    """A page of rows. `goals`: names of goals, by offer and id."""

    query: ReportQuery
    rows: list[Any]
    next_cursor: str | None
    goals: Mapping[str, str] = {}


async def _show(visit: Visit, what: What) -> web.Response:
    check_length(visit)
    if what == "contacts" and not visit.is_network:
        raise not_found("such page")
    asked = read_visit(visit)
    metric = dict(asked.pairs).get("metric", "")
    if sorted(asked.pairs) != sorted(visit.request.query.items()):
        return see_other(to_url(asked.pairs, f"/reports/{what}"))
    found, faults, trouble = None, [], ""
    async with visit.slow_connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
        known = await known_names(visit, conn)
        try:
            async with in_time(conn):
                found = await _find(conn, asked, what, metric)
        except NotYours as error:
            refuse_foreign(error)
        except QueryRefused as error:
            faults = error.faults
        except BadCursor as error:
            faults = [Fault("cursor", str(error))]
        except TooSlow as error:
            trouble = str(error)
    clicks = found.query.clicks if found else "valid"
    return visit.render(
        "reports_rows.html",
        status=200 if found else 422,
        what=what,
        title=TITLES[what],
        tabs=_tabs(visit, asked.pairs, metric, what),
        found=found,
        faults=faults,
        trouble=trouble,
        form=make_form(asked.pairs, asked.viewer, asked.today, known),
        metric=metric,
        metric_label=label_of_metric(metric, clicks),
        formula=describe(METRICS[metric], asked.viewer, clicks) if metric in METRICS else "",
        names=Names(catalog),
        period_text=period_text,
        back=to_url(without(asked.pairs, "metric", "limit", "cursor")),
        first=to_url(without(asked.pairs, "cursor"), f"/reports/{what}") if dict(asked.pairs).get("cursor") else "",
        more=to_url([*without(asked.pairs, "cursor"), ("cursor", found.next_cursor)], f"/reports/{what}")
        if found and found.next_cursor
        else "",
    )


async def _find(conn: Connection, asked: Asked, what: What, metric: str) -> Found:
    if what == "contacts":
        return await _find_contacts(conn, asked, metric)
    drill = parse_drill(asked.pairs, asked.viewer, asked.now, asked.timezone, what)
    if what == "conversions":
        page = await list_conversions(conn, drill)
        ids = [{"offer": row["offer_id"], "goal": row["goal_id"]} for row in page.rows]
        labels = await find_labels(conn, ids, ("offer", "goal"))
        return Found(drill.query, page.rows, page.next_cursor, labels.get("goal", {}))
    touches = await list_touches(conn, what, drill)
    return Found(drill.query, touches.rows, touches.next_cursor)


async def _find_contacts(conn: Connection, asked: Asked, metric: str) -> Found:
    said = dict(asked.pairs)
    limit = read_limit(said.get("limit", ""))
    rest = without(asked.pairs, "metric", "limit", "cursor")
    query = parse_query(rest, asked.viewer, asked.now, asked.timezone)
    kinds = kinds_of(metric) if metric else list(_ROW_KINDS)
    if metric and (not kinds or asked.viewer.scope not in METRICS[metric].scopes):
        raise QueryRefused([Fault("metric", f"{metric[:60]!a} is none that rows add up to")])
    if not metric:
        kinds = ["clicks", "conversions"]
    drill = Drill(query, asked.viewer, metric)
    page = await list_contacts(
        conn, ContactFilter(), said.get("cursor", ""), limit, partial(contacts_behind, drill, kinds)
    )
    return Found(query, page.contacts, page.next_cursor)


def _tabs(visit: Visit, pairs: Pairs, metric: str, here: str) -> list[tuple[str, str, bool]]:
    """The kinds of rows that the figure is made of: what to show, where, and whether it is shown."""
    rest = without(pairs, "cursor")
    kinds: list[str] = [kind for kind in _ROW_KINDS if not metric or metric in LISTABLE[kind]]
    if here in _ROW_KINDS and here not in kinds:
        kinds.append(here)
    if visit.is_network:
        kinds.append("contacts")
    return [(TITLES[kind], to_url(rest, f"/reports/{kind}"), kind == here) for kind in kinds]  # type: ignore[index]


def _handler(what: What) -> Handler:
    async def show(visit: Visit) -> web.Response:
        return await _show(visit, what)

    return show


ROUTES = tuple(Route("GET", f"/reports/{what}", _handler(what)) for what in TITLES)
