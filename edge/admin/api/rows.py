"""The rows behind a report's figures: clicks, impressions and conversions, by the report's own parameters."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from edge.admin.api.operation import EVERYBODY, Call, Handler, Operation
from edge.admin.api.paging import Cursor, Limit, Page
from edge.admin.api.problems import Problem, bad_fields, not_found
from edge.admin.api.reports import ReportParameters, viewer_of
from storage.postgres.conversions import ConversionRow
from storage.postgres.copy import TouchRow
from storage.postgres.listing.conversions import list_conversions
from storage.postgres.listing.drill import LISTABLE, Drill, Kind, parse_drill
from storage.postgres.listing.limits import TooSlow, in_time
from storage.postgres.listing.touches import list_touches
from storage.postgres.reports.query import NotYours, QueryRefused

_TIMES = ("clicked_at", "touched_at", "converted_at", "received_at", "erased_at")
_MONEY = ("cost", "payout", "revenue", "amount")
_IDS = ("click_id", "conversion_id", "named_click_id", "first_click_id", "visitor")


def _type_of(name: str) -> Any:
    """What a column's value is in JSON."""
    if name in _IDS:
        return Annotated[str, Meta(pattern="^[0-9a-f]{32}$")] | None
    if name in _TIMES:
        return datetime | None
    if name in _MONEY:
        return Decimal
    if name in ("extras", "flags"):
        return dict[str, Any] if name == "extras" else list[str]
    if name == "ip":
        return str | None
    return int if (name.endswith("_id") and name not in _TEXT_IDS) or name in _NUMBERS else str


_TEXT_IDS = ("contact_id", "aff_click_id", "transaction_id", "conversion_unique_id")
_NUMBERS = ("catalog_revision", "status_code", "tier")


def _row_type(name: str, columns: Sequence[str], *more: tuple[str, Any, Any]) -> Any:
    fields = [(column, _type_of(column) | UnsetType, UNSET) for column in columns]
    return msgspec.defstruct(name, [*fields, *more], kw_only=True)


def _page_type(name: str, row: Any) -> Any:
    return msgspec.defstruct(name, [("data", list[row]), ("next_cursor", str | None)])


_ADDS = dict[str, Decimal]
ClickRow = _row_type("ClickRow", TouchRow._fields)
"""A click or impression. What the key may not see is left out; ids are 32 hexadecimal digits."""
StoredConversion = _row_type("StoredConversion", ConversionRow._fields, ("adds", _ADDS | UnsetType, UNSET))
"""A conversion; `adds`, where a metric is asked for: what it adds to each figure of that report."""


class _List(NamedTuple):
    """One of the lists."""

    kind: Kind
    name: str
    answer: Any
    what: str


_LISTS = (
    _List("clicks", "list_clicks", _page_type("ClickPage", ClickRow), "Clicks behind a report's figure, newest first"),
    _List(
        "impressions",
        "list_impressions",
        _page_type("ImpressionPage", ClickRow),
        "Impressions behind a report's figure, newest first",
    ),
    _List(
        "conversions",
        "list_conversions",
        _page_type("ConversionPage", StoredConversion),
        "Conversions behind a report's figure, newest first",
    ),
)


def read_drill(call: Call, kind: Kind) -> Drill:
    """What the request asks for; Problem 404 for somebody else's rows, 422 for every other fault."""
    parameters = list(call.request.query.items())
    now = datetime.now(UTC)
    try:
        return parse_drill(parameters, viewer_of(call.caller), now, call.backend.settings.timezone, kind)
    except NotYours as error:
        raise not_found(error.dimension) from error
    except QueryRefused as error:
        raise refused(error) from error


def refused(error: QueryRefused) -> Problem:
    """The problem that names the parameters at fault."""
    return bad_fields([(fault.field, fault.text) for fault in error.faults])


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row's values as they stand in JSON."""
    for name in _IDS:
        if row.get(name) is not None:
            row[name] = row[name].hex
    if row.get("ip") is not None:
        row["ip"] = str(row["ip"])
    return row


def _handler(kind: Kind) -> Handler:
    async def find(call: Call) -> Page:
        drill = read_drill(call, kind)
        try:
            async with call.backend.slow_connection() as conn, in_time(conn):
                page = await (
                    list_conversions(conn, drill) if kind == "conversions" else list_touches(conn, kind, drill)
                )
        except QueryRefused as error:
            raise refused(error) from error
        except TooSlow as error:
            raise Problem(422, str(error)) from error
        return Page([shown(row) for row in page.rows], page.next_cursor)

    return find


def _parameters(kind: Kind) -> Any:
    metrics = "|".join(LISTABLE[kind])
    metric = Annotated[str, Meta(pattern=f"^({metrics})$", description="only rows that count in this figure; else all")]
    fields: list[Any] = [("metric", metric, ""), ("limit", Limit, 50), ("cursor", Cursor, "")]
    return msgspec.defstruct(f"{kind.title()}Parameters", fields, bases=(ReportParameters,), kw_only=True)


OPERATIONS = tuple(
    Operation(
        "GET",
        f"/{one.kind}",
        one.name,
        one.what,
        _handler(one.kind),
        EVERYBODY,
        query_type=_parameters(one.kind),
        takes_any_query=True,
        answer_type=one.answer,
        statuses=(404,),
    )
    for one in _LISTS
)
