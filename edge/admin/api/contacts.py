"""Contacts: who they are, what they did, and what cohorts of them brought in (docs/contacts.md)."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge.admin.api.contact_answers import (
    ContactAnswer,
    ContactsPage,
    JourneyPage,
    answer_contact,
    answer_journey,
    answer_page,
)
from edge.admin.api.operation import ADMIN, READERS, Call, Operation
from edge.admin.api.paging import Cursor, Limit
from edge.admin.api.problems import Problem, bad_fields, not_found
from edge.admin.api.reports import Day, Zone, viewer_of
from edge.admin.api.rows import refused
from storage.postgres.cohorts import Cohort, find_cohorts
from storage.postgres.contact_filter import UTM, ContactFilter
from storage.postgres.contact_query import parse_cohorts, parse_contacts, split_paging
from storage.postgres.contacts import MAX_CONTACT_CHARS, delete_contacts
from storage.postgres.journeys import find_contacts, list_journey
from storage.postgres.listing.behind import contacts_behind, kinds_of
from storage.postgres.listing.contacts import list_contacts
from storage.postgres.listing.cursors import BadCursor
from storage.postgres.listing.drill import LISTABLE, Drill, read_limit
from storage.postgres.listing.limits import TooSlow, in_time
from storage.postgres.reports.query import Fault, NotYours, Parameters, QueryRefused, parse_query
from storage.postgres.reports.statement import Arguments

_Text = Annotated[str, Meta(description="only these; empty: none")]


class CohortsAnswer(msgspec.Struct, frozen=True):
    """Cohorts, oldest first, one for each currency in which it brought something in."""

    data: list[Cohort]


class ContactPath(msgspec.Struct, frozen=True):
    """Which contact."""

    contact_id: Annotated[str, Meta(min_length=1, max_length=MAX_CONTACT_CHARS)]


class JourneyParameters(msgspec.Struct, frozen=True):
    """Which page."""

    limit: Limit = 50
    cursor: Cursor = ""


_METRICS = "|".join(sorted({metric for metrics in LISTABLE.values() for metric in metrics}))
_WHO: list[Any] = [
    ("from_", Day, ""),
    ("to", Day, ""),
    ("timezone", Zone, ""),
    ("has_converted", Literal["true", "false"], ""),
    ("list_", list[_Text], msgspec.field(default_factory=list)),
    *((name, list[_Text], msgspec.field(default_factory=list)) for name in UTM),
]
_RENAMED = {"from_": "from", "list_": "list"}
ContactParameters = msgspec.defstruct(
    "ContactParameters",
    [
        *_WHO,
        ("metric", Annotated[str, Meta(pattern=f"^({_METRICS})$", description="those behind this figure of a report, by the report's parameters")], ""),
        ("limit", Limit, 50),
        ("cursor", Cursor, ""),
    ],
    rename=_RENAMED,
    kw_only=True,
)  # fmt: skip
CohortParameters = msgspec.defstruct(
    "CohortParameters",
    [
        *_WHO,
        ("cohort", Literal["day", "week", "month"], "month"),
        ("windows", Annotated[str, Meta(pattern="^[1-9][0-9]{0,3}(,[1-9][0-9]{0,3}){0,23}$", description="days, comma-separated")], "7,30,90"),
        ("currency", list[_Text], msgspec.field(default_factory=list)),
    ],
    rename=_RENAMED,
    kw_only=True,
)  # fmt: skip
"""For the OpenAPI page alone, as ReportParameters."""


async def find(call: Call) -> ContactsPage:
    """One page of contacts: those that the filters mean or, with `metric`, those behind a report's figure."""
    try:
        paging, rest = split_paging(list(call.request.query.items()), ("limit", "cursor", "metric"))
        who, among = _who(call, rest, paging["metric"])
        limit = read_limit(paging["limit"])
        async with call.backend.slow_connection() as conn, in_time(conn):
            page = await list_contacts(conn, who, paging["cursor"], limit, among)
    except NotYours as error:
        raise not_found(error.dimension) from error
    except QueryRefused as error:
        raise refused(error) from error
    except BadCursor as error:
        raise bad_fields([("cursor", str(error))]) from error
    except TooSlow as error:
        raise Problem(422, str(error)) from error
    return answer_page(page)


async def show(call: Call) -> ContactAnswer:
    """One contact."""
    async with call.backend.connection() as conn:
        found = await find_contacts(conn, [call.path.contact_id])
    if not found:
        raise not_found("contact")
    return answer_contact(found[0])


async def journey(call: Call) -> JourneyPage:
    """One page of what a contact did."""
    try:
        async with call.backend.slow_connection() as conn, in_time(conn):
            if not await find_contacts(conn, [call.path.contact_id]):
                raise not_found("contact")
            return answer_journey(await list_journey(conn, call.path.contact_id, call.query.cursor, call.query.limit))
    except BadCursor as error:
        raise bad_fields([("cursor", str(error))]) from error
    except TooSlow as error:
        raise Problem(422, str(error)) from error


async def delete(call: Call) -> None:
    """Delete a contact: it stays in all totals."""
    async with call.backend.connection() as conn:
        if not await delete_contacts(conn, [call.path.contact_id], datetime.now(UTC)):
            raise not_found("contact")


async def cohorts(call: Call) -> CohortsAnswer:
    """What cohorts brought in."""
    now = datetime.now(UTC)
    try:
        query = parse_cohorts(list(call.request.query.items()), now, call.backend.settings.timezone)
        async with call.backend.slow_connection() as conn, in_time(conn):
            return CohortsAnswer(await find_cohorts(conn, query, now))
    except QueryRefused as error:
        raise refused(error) from error
    except TooSlow as error:
        raise Problem(422, str(error)) from error


def _who(call: Call, parameters: Parameters, metric: str) -> tuple[ContactFilter, Callable[[Arguments], str] | None]:
    timezone = call.backend.settings.timezone
    if not metric:
        return parse_contacts(parameters, timezone), None
    kinds = kinds_of(metric)
    if not kinds:
        raise QueryRefused(
            [Fault("metric", f"{metric[:60]!a} is none that rows add up to: {_METRICS.replace('|', ', ')}")]
        )
    viewer = viewer_of(call.caller)
    drill = Drill(parse_query(parameters, viewer, datetime.now(UTC), timezone), viewer, metric)
    return ContactFilter(), partial(contacts_behind, drill, kinds)


OPERATIONS = (
    Operation(
        "GET", "/contacts", "list_contacts", "Contacts with their lifetime figures; those that came last first", find, READERS,
        query_type=ContactParameters, takes_any_query=True, answer_type=ContactsPage, statuses=(404,),
    ),
    Operation(
        "GET", "/contacts/{contact_id}", "show_contact", "One contact with its lifetime figures", show, READERS,
        path_type=ContactPath, answer_type=ContactAnswer,
    ),
    Operation(
        "DELETE", "/contacts/{contact_id}", "delete_contact", "Delete a contact: it stays in all totals", delete, ADMIN,
        path_type=ContactPath, status=204,
    ),
    Operation(
        "GET", "/contacts/{contact_id}/journey", "show_journey", "What a contact did, oldest first", journey, READERS,
        path_type=ContactPath, query_type=JourneyParameters, answer_type=JourneyPage,
    ),
    Operation(
        "GET", "/cohorts", "list_cohorts", "Revenue by sign-up cohort, so many days after they came", cohorts, READERS,
        query_type=CohortParameters, takes_any_query=True, answer_type=CohortsAnswer,
    ),
)  # fmt: skip
