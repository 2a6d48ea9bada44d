"""Monthly statements, of all parties and of one."""

import base64
from datetime import UTC, datetime
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct, field

from edge.admin.api.operation import EVERYBODY, Call, Caller, Operation
from edge.admin.api.problems import Problem, bad_fields, not_found
from edge.errors import UserError
from edge.statements.building import summarise
from edge.statements.finding import Whose, find_statement, find_statements
from edge.statements.forms import page_headers, to_csv, to_page
from edge.statements.statement import PartyKind, Statement, Summary
from edge.tracking.months import parse_month

Month = Annotated[str, Meta(pattern="^20[0-9]{2}-(0[1-9]|1[0-2])$", description="Such as 2026-10.")]
Id = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_PARTIES: tuple[PartyKind, ...] = ("partner", "advertiser")


class ListQuery(Struct):
    """Which month, and whose; neither partner nor advertiser: everybody's that the key may see."""

    month: Month
    partner: Id | None = None
    advertiser: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    cursor: str = ""


class SummaryPage(Struct):
    """Statements in short, a line for each currency."""

    data: list[Summary]
    next_cursor: str | None


class StatementPath(Struct):
    """Whose statement of which month."""

    party: PartyKind
    id: Id
    month: Month


class FormQuery(Struct):
    """`html`: a page to print."""

    form: Literal["json", "csv", "html"] = field(name="format", default="json")


async def list_statements(call: Call) -> SummaryPage:
    """The totals of a month."""
    query = call.query
    wanted = whose_statements(call.caller, query.partner, query.advertiser)
    found: list[Summary] = []
    for whose in wanted:
        for one in await _find(call, query.month, whose):
            found += summarise(one)
    start = next((place for place, one in enumerate(found) if _key(one) > _read_cursor(query.cursor)), len(found))
    end = start + query.limit
    page = found[start:end]
    return SummaryPage(page, _cursor(page[-1]) if end < len(found) else None)


async def show_statement(call: Call) -> Statement | web.Response:
    """One statement, as JSON, CSV or a page."""
    path = call.path
    whose = Whose(path.party, path.id)
    if not is_theirs(call.caller, whose):
        raise not_found(path.party)
    found = await _find(call, path.month, whose)
    if not found:
        raise not_found(path.party)
    if call.query.form == "json":
        return found[0]
    headers = {"Cache-Control": "no-store"}
    if call.query.form == "html":
        return web.Response(text=to_page(found[0]), content_type="text/html", headers={**headers, **page_headers()})
    name = f"statement-{path.month}-{path.party}-{path.id}.csv"
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return web.Response(text=to_csv(found), content_type="text/csv", headers=headers)


async def _find(call: Call, month_name: str, whose: Whose) -> list[Statement]:
    month = parse_month(month_name)
    if month is None:
        raise bad_fields([("month", "is no month: write it 2026-10")])
    now = datetime.now(UTC)
    async with call.backend.slow_connection() as conn:
        try:
            if not whose.id:
                return await find_statements(conn, month, whose.party, now=now)
            found = await find_statement(conn, month, whose, now=now)
        except UserError as error:
            raise Problem(404, str(error)) from error
    return [found] if found else []


def whose_statements(caller: Caller, partner: int | None, advertiser: int | None) -> list[Whose]:
    """Whose to list. A key of one party has its own; what it asks for beyond that is not there."""
    if caller.scope == "partner":
        own = [Whose("partner", caller.aff_id)]
    elif caller.scope == "advertiser":
        own = [Whose("advertiser", caller.advertiser_id)]
    else:
        own = [Whose(party) for party in _PARTIES]
    named = {"partner": partner, "advertiser": advertiser}
    if not any(named.values()):
        return own
    asked = [Whose(party, party_id) for party in _PARTIES if (party_id := named[party])]
    refused = [one for one in asked if not is_theirs(caller, one)]
    if refused:
        raise not_found(refused[0].party)
    return asked


def is_theirs(caller: Caller, whose: Whose) -> bool:
    """Whether that statement is one that the caller may see."""
    if caller.scope == "partner":
        return whose == Whose("partner", caller.aff_id)
    return caller.scope != "advertiser" or whose == Whose("advertiser", caller.advertiser_id)


def _key(one: Summary) -> tuple[int, int, str]:
    return _PARTIES.index(one.party), one.id, one.currency


def _cursor(one: Summary) -> str:
    text = "{}:{}:{}".format(*_key(one))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(text: str) -> tuple[int, int, str]:
    """The key that the page before ended with."""
    if not text:
        return -1, 0, ""
    try:
        place, party_id, currency = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split(":")
        return int(place), int(party_id), currency
    except ValueError:
        raise bad_fields([("cursor", "is none that this list gave")]) from None


OPERATIONS = (
    Operation(
        "GET",
        "/statements",
        "list_statements",
        "What a month owes partners, and advertisers owe",
        list_statements,
        EVERYBODY,
        query_type=ListQuery,
        answer_type=SummaryPage,
    ),
    Operation(
        "GET",
        "/statements/{party}/{id}/{month}",
        "show_statement",
        "One statement: preliminary while its month is open, final once it is closed",
        show_statement,
        EVERYBODY,
        path_type=StatementPath,
        query_type=FormQuery,
        answer_type=Statement,
        media=("text/csv", "text/html"),
    ),
)
