"""Conversions: found by period, filter and id, newest first; one with all that became of it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args
from uuid import UUID

from aiohttp import web

from edge.admin.api.operation import ADMIN, EVERYBODY
from edge.admin.api.reports import viewer_of
from edge.admin.console import conversion_changes
from edge.admin.console.asked import FORM, Part, address, by_field, pairs_of, parts_of, tidy
from edge.admin.console.catalog_list import visible
from edge.admin.console.names import Names
from edge.admin.console.page import Page, Refusal, Route, Visit, not_found
from edge.admin.console.reasons import REASONS, in_words
from edge.admin.decisions import find_detail
from edge.admin.sight import is_theirs, shown, sight_of
from edge.replaying import replay
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Offer
from edge.tracking.status_codes import STATUS_CODES, Status
from edge.tracking.timeline import conversion_entries
from storage.postgres.listing.conversions import Also, ConversionPage, list_conversions
from storage.postgres.listing.drill import Drill, parse_drill
from storage.postgres.listing.limits import TooSlow, in_time
from storage.postgres.postbacks import find_postbacks
from storage.postgres.reports.dimensions import find_dimension
from storage.postgres.reports.query import Fault, NotYours, QueryRefused

PATH = "/conversions"
ROWS = 50
STATUSES = get_args(Status)
_FIRST_DAY = "2000-01-02"
_MAX_NAMED_CHARS = 256
_OWN = ("id", "reason")
_FIELDS = frozenset(("from", "to", "offer", "partner", "goal", "status", "contact", *_OWN))
_LABELS = {
    "from": "From",
    "to": "To",
    "id": "Id",
    "reason": "Reason",
    "metric": "Counted in",
    "by": "By",
    "timezone": "Time zone",
}
_MEANINGS = {row.code: row.meaning.replace("`", "") for row in STATUS_CODES}


class Asked(NamedTuple):
    """A list that can be shown."""

    drill: Drill
    also: Also


async def show_list(visit: Visit) -> web.StreamResponse:
    """The list, as the URL asks for it; faults stand beside their fields."""
    if elsewhere := tidy(visit, PATH):
        return elsewhere
    page, faults = ConversionPage([], None), {}
    async with visit.slow_connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
        try:
            asked = _read(visit)
            async with in_time(conn):
                page = await list_conversions(conn, *asked)
        except NotYours as error:
            raise not_found(error.dimension) from error
        except QueryRefused as error:
            faults = by_field(error.faults)
        except TooSlow as error:
            faults = {"": str(error)}
    pairs = pairs_of(visit, but=("cursor",))
    return visit.render(
        "conversions.html",
        status=422 if faults else 200,
        rows=page.rows,
        next_page=address(PATH, [*pairs, ("cursor", page.next_cursor)]) if page.next_cursor else "",
        is_first=not visit.asked("cursor"),
        faults=faults,
        unplaced=[
            text if field in ("", "cursor") else f"{field}: {text}"
            for field, text in faults.items()
            if field not in _FIELDS
        ],
        values=_values(pairs),
        kept=[one for one in pairs if one[0] not in _FIELDS],
        parts=_parts(visit, catalog, pairs),
        here=visit.request.path_qs,
        statuses=STATUSES,
        reasons=REASONS,
        names=Names(catalog),
        in_words=in_words,
        **_choices(visit, catalog),
    )


def _read(visit: Visit) -> Asked:
    """QueryRefused with all faults; NotYours."""
    pairs = pairs_of(visit)
    named = next((value for name, value in pairs if name == "id"), "")
    rest = [one for one in pairs if one[0] not in _OWN]
    if named and not any(name in ("from", "to") for name, _ in rest):
        rest.append(("from", _FIRST_DAY))
    own_faults = [Fault("id", f"is longer than {_MAX_NAMED_CHARS} characters")] if len(named) > _MAX_NAMED_CHARS else []
    own_faults += [Fault("id", "has a NUL character in it")] if "\0" in named else []
    reasons = [value for name, value in pairs if name == "reason"]
    own_faults += [Fault("reason", f"{one[:60]!a} is no reason") for one in reasons if one not in REASONS and one]
    now, timezone = datetime.now(UTC), str(visit.shared.zone)
    try:
        drill = parse_drill([*rest, ("limit", str(ROWS))], viewer_of(visit.caller), now, timezone, "conversions")
    except QueryRefused as refused:
        raise QueryRefused([*own_faults, *refused.faults]) from refused
    unknown = set(drill.query.filters.get("status", ())) - set(STATUSES)
    own_faults += [Fault("status", f"{one[:60]!a} is none of {', '.join(STATUSES)}") for one in unknown]
    if own_faults:
        raise QueryRefused(own_faults)
    return Asked(drill, Also(reasons, named))


def _values(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {name: [] for name in _FIELDS}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def _choices(visit: Visit, catalog: Catalog) -> dict[str, Any]:
    """What can be picked: offers, partners, and the goals of the offers that are picked."""
    offers = [one for one in visible(visit, catalog, "offers") if isinstance(one, Offer)]
    picked = visit.request.query.getall("offer", [])
    goals: dict[int, set[str]] = {}
    for offer in offers:
        if not picked or str(offer.id) in picked:
            for goal in offer.goals:
                goals.setdefault(goal.id, set()).add(goal.name)
    return {
        "offers": offers,
        "partners": list(visible(visit, catalog, "partners")),
        "goals": [(one, ", ".join(sorted(goals[one]))) for one in sorted(goals)],
    }


def _parts(visit: Visit, catalog: Catalog, pairs: Sequence[tuple[str, str]]) -> list[Part]:
    names = Names(catalog)
    seen = {"offer": {one.id for one in visible(visit, catalog, "offers")}, "partner": {visit.caller.aff_id}}

    def word(name: str, value: str) -> tuple[str, str] | None:
        if name == FORM:
            return None
        dimension = find_dimension(name)
        label = _LABELS.get(name) or (dimension.label if dimension else name)
        is_id = value.isascii() and value.isdigit() and len(value) < 11
        # A name only of what whoever looks may see: the number may be anybody's.
        if name in seen and is_id and (visit.is_network or int(value) in seen[name]):
            return label, f"{value} · {names.offer(int(value)) if name == 'offer' else names.partner(int(value))}"
        return label, (in_words(value) if name == "reason" else value) or "none"

    return parts_of(PATH, pairs, word)


async def show_one(visit: Visit) -> web.StreamResponse:
    """A conversion with its columns, its changes and what partners were told of it."""
    caller, sight = visit.caller, sight_of(visit.caller.scope)
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
        row, changes = await find_detail(conn, _id_of(visit))
        if row is None or not is_theirs(row, caller.scope, caller.advertiser_id, caller.aff_id):
            raise not_found("conversion")
        postbacks = await find_postbacks(conn, [row["conversion_id"]]) if sight.sees_postbacks else []
        postbacks = [one for one in postbacks if caller.aff_id in (0, one["aff_id"])]
    seen = shown(row, caller.scope)
    return visit.render(
        "conversion.html",
        row=seen,
        meaning=_MEANINGS.get(row["status_code"], ""),
        entries=sorted(conversion_entries("Conversion", row, changes, postbacks, sight), key=lambda one: one.at),
        postbacks=postbacks,
        queued=visit.asked("queued") if visit.asked("queued").isdecimal() else "",
        names=Names(catalog),
        in_words=in_words,
        allowed=conversion_changes.allowed(row["status"]),
    )


async def tell_again(visit: Visit) -> web.StreamResponse:
    """Queue its partners' postbacks once more."""
    async with visit.connection() as conn:
        row, _ = await find_detail(conn, _id_of(visit))
        if row is None:
            raise not_found("conversion")
        done = await replay(conn, ids=[row["conversion_id"]], actor=f"replay by {visit.caller.name}")
    where = f"{PATH}/{row['conversion_id'].hex}?queued={done.postbacks}"
    return web.Response(status=303, headers={"Location": where})


def _id_of(visit: Visit) -> UUID:
    try:
        return UUID(visit.request.match_info["id"])
    except ValueError as error:
        raise Refusal(404, "There is no conversion", "A conversion's id is 32 hexadecimal digits.") from error


PAGE = Page(
    path=PATH,
    title="Conversions",
    group="Watch",
    icon="conversions",
    letter="v",
    scopes=EVERYBODY,
    routes=(
        Route("GET", PATH, show_list),
        Route("POST", f"{PATH}/review", conversion_changes.review, ADMIN),
        Route("POST", f"{PATH}/change", conversion_changes.change, ADMIN),
        Route("GET", f"{PATH}/{{id}}", show_one),
        Route("POST", f"{PATH}/{{id}}/replay", tell_again, ADMIN),
    ),
)
