"""Contacts: searched and filtered, those that came last first; one with its figures for life and its journey."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from aiohttp import web

from edge.admin.api.operation import READERS
from edge.admin.api.reports import viewer_of
from edge.admin.console.asked import FORM, address, by_field, pairs_of, parts_of, tidy
from edge.admin.console.names import Names
from edge.admin.console.page import Page, Route, Visit, not_found
from edge.admin.console.reasons import in_words
from storage.postgres.contact_filter import UTM, ContactFilter
from storage.postgres.contact_query import parse_contacts, split_paging
from storage.postgres.contacts import MAX_CONTACT_CHARS
from storage.postgres.journeys import Journey, find_contacts, list_journey
from storage.postgres.listing.behind import contacts_behind, kinds_of
from storage.postgres.listing.contacts import ContactPage, list_contacts
from storage.postgres.listing.cursors import BadCursor
from storage.postgres.listing.drill import Drill
from storage.postgres.listing.limits import TooSlow, in_time
from storage.postgres.reports.dimensions import find_dimension
from storage.postgres.reports.query import Fault, NotYours, Parameters, QueryRefused, parse_query
from storage.postgres.reports.statement import Arguments

PATH = "/contacts"
ROWS = 50
STEPS = 100
LABELS = {
    "q": "Id has in it",
    "from": "Came from",
    "to": "Came to",
    "has_converted": "Has converted",
    "list": "List",
    "timezone": "Time zone",
    "metric": "Behind",
    "currency": "Currency",
    "cohort": "By",
    "windows": "Windows",
    **{name: f"First {name.replace('utm_', 'UTM ')}" for name in UTM},
}
_FIELDS = frozenset(("q", "from", "to", "has_converted", "list", *UTM))
Among = Callable[[Arguments], str]


async def show_list(visit: Visit) -> web.StreamResponse:
    """The list, as the URL asks for it; faults stand beside their fields."""
    if elsewhere := tidy(visit, PATH):
        return elsewhere
    pairs = pairs_of(visit)
    page, faults = ContactPage([], None), {}
    try:
        paging, rest = split_paging(pairs, ("q", "cursor", "metric"))
        who, among = _who(visit, rest, paging["metric"], paging["q"])
        async with visit.slow_connection() as conn, in_time(conn):
            page = await list_contacts(conn, who, paging["cursor"], ROWS, among)
    except NotYours as error:
        raise not_found(error.dimension) from error
    except QueryRefused as error:
        faults = by_field(error.faults)
    except (BadCursor, TooSlow) as error:
        faults = {"": str(error)}
    asked = [one for one in pairs if one[0] != "cursor"]
    return visit.render(
        "contacts.html",
        status=422 if faults else 200,
        contacts=page.contacts,
        next_page=address(PATH, [*asked, ("cursor", page.next_cursor)]) if page.next_cursor else "",
        is_first=not visit.asked("cursor"),
        faults=faults,
        unplaced=unplaced(faults, _FIELDS),
        values=values_of(asked, _FIELDS),
        kept=[one for one in asked if one[0] not in _FIELDS],
        parts=parts_of(PATH, asked, word),
        utm=UTM,
        path_of=path_of,
    )


def _who(visit: Visit, rest: Parameters, metric: str, wanted: str) -> tuple[ContactFilter, Among | None]:
    """Whom the parameters mean: by themselves or, with a metric, as those behind a report's figure. QueryRefused; NotYours."""
    timezone = str(visit.shared.zone)
    if len(wanted) > MAX_CONTACT_CHARS or "\0" in wanted:
        raise QueryRefused([Fault("q", f"at most {MAX_CONTACT_CHARS} characters, none of them NUL")])
    if metric:
        if not (kinds := kinds_of(metric)):
            raise QueryRefused([Fault("metric", f"{metric[:60]!a} is none that rows add up to")])
        viewer = viewer_of(visit.caller)
        drill = Drill(parse_query(rest, viewer, datetime.now(UTC), timezone), viewer, metric)
        return ContactFilter(), partial(_behind, partial(contacts_behind, drill, kinds), wanted)
    return parse_contacts(rest, timezone), partial(_having, wanted) if wanted else None


def _behind(behind: Among, wanted: str, arguments: Arguments) -> str:
    return f"{behind(arguments)} INTERSECT {_having(wanted, arguments)}" if wanted else behind(arguments)


def _having(wanted: str, arguments: Arguments) -> str:
    place = arguments.add(wanted.lower(), "text")
    return f"SELECT contact_id FROM contacts WHERE position({place} IN lower(contact_id)) > 0"


def word(name: str, value: str) -> tuple[str, str] | None:
    """A part of the query as people read it."""
    if name == FORM:
        return None
    dimension = find_dimension(name)
    return LABELS.get(name) or (dimension.label if dimension else name), value or "none"


def unplaced(faults: dict[str, str], fields: frozenset[str]) -> list[str]:
    """Faults that no field of the form has."""
    return [
        text if field in ("", "cursor") else f"{field}: {text}" for field, text in faults.items() if field not in fields
    ]


def values_of(pairs: Parameters, fields: frozenset[str]) -> dict[str, str]:
    """What stands in the form's fields."""
    return {**dict.fromkeys(fields, ""), **dict(reversed(pairs))}


def path_of(contact_id: str) -> str:
    """The contact's page."""
    return f"{PATH}/{quote(contact_id, safe='')}"


async def show_one(visit: Visit) -> web.StreamResponse:
    """Who it is, what it brought in, and its journey page by page."""
    contact_id, faults = visit.request.match_info["id"], ""
    journey = Journey([], None)
    async with visit.connection() as conn:
        found = await find_contacts(conn, [contact_id]) if "\0" not in contact_id else []
        if not found:
            raise not_found("contact")
        names = Names(await visit.shared.catalog.current(conn))
        try:
            async with in_time(conn):
                journey = await list_journey(conn, contact_id, visit.asked("cursor"), STEPS)
        except (BadCursor, TooSlow) as error:
            faults = str(error)
    here = path_of(contact_id)
    return visit.render(
        "contact.html",
        status=422 if faults else 200,
        contact=found[0],
        steps=[_step(one) for one in journey.events],
        next_page=address(here, [("cursor", journey.next_cursor)]) if journey.next_cursor else "",
        is_first=not visit.asked("cursor"),
        here=here,
        fault=faults,
        in_words=in_words,
        names=names,
        utm=UTM,
    )


def _step(event: dict[str, Any]) -> dict[str, Any]:
    """A row of the journey, with what it brought and where it leads."""
    tones = {"approved": "good", "pending": "wait", "rejected": "bad", "reversed": "bad"}
    path = f"/conversions/{event['id'].hex}" if event["kind"] == "conversion" else f"/clicks/{event['id'].hex}"
    utm = " / ".join(event[name] for name in UTM if event[name])
    return {**event, "tone": tones.get(event["status"], ""), "path": path, "utm": utm}


PAGE = Page(
    path=PATH,
    title="Contacts",
    group="People",
    icon="contacts",
    letter="n",
    scopes=READERS,
    routes=(Route("GET", PATH, show_list), Route("GET", PATH + "/{id:.+}", show_one)),
)
