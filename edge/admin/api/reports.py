"""Reports: any dimensions, metrics and filters (docs/reports.md), each caller its own figures."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge.admin.api.operation import EVERYBODY, Call, Caller, Operation
from edge.admin.api.problems import Problem, bad_fields, not_found
from storage.postgres.reports.answer import Answer, to_answer
from storage.postgres.reports.dimensions import DIMENSIONS, Dimension
from storage.postgres.reports.metrics import METRICS, Clicks
from storage.postgres.reports.query import MAX_ROWS, By, NotYours, QueryRefused, Touch, parse_query
from storage.postgres.reports.report import ReportTooSlow, run_report
from storage.postgres.reports.viewer import Viewer

_MONTH = r"20[0-9]{2}-(0[1-9]|1[0-2])"
_DAY = rf"{_MONTH}-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
Day = Annotated[
    str, Meta(pattern=f"^{_DAY}({_TIME})?$", description="a day, or a time with offset such as 2026-10-31T12:00:00Z")
]
Zone = Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_+/-]{0,63}$", description="any IANA name, such as Europe/Berlin")]


def viewer_of(caller: Caller) -> Viewer:
    """What this caller may see of reports."""
    return Viewer(caller.scope, caller.advertiser_id, caller.aff_id)


async def report(call: Call) -> Answer:
    """The report that the query asks for."""
    viewer = viewer_of(call.caller)
    now = datetime.now(UTC)
    try:
        query = parse_query(list(call.request.query.items()), viewer, now, call.backend.settings.timezone)
        async with call.backend.slow_connection() as conn:
            return to_answer(await run_report(conn, query, viewer, now))
    except NotYours as error:
        raise not_found(error.dimension) from error
    except QueryRefused as error:
        raise bad_fields([(fault.field, fault.text) for fault in error.faults]) from error
    except ReportTooSlow as error:
        raise Problem(422, str(error)) from error


def _names(names: Any, what: str) -> Any:
    one = "|".join(names)
    return Annotated[str, Meta(pattern=f"^({one})(,({one}))*$", description=what)]


def _filter_type(dimension: Dimension) -> Any:
    meaning = f"only where it is one of these; {dimension.meaning}"
    if dimension.kind == "id":
        return list[Annotated[int, Meta(ge=0, le=2**31 - 1, description=meaning)]]
    if dimension.kind == "text":
        return list[Annotated[str, Meta(description=meaning)]]
    times = {"hour": f"^{_DAY}{_TIME}$", "month": f"^{_MONTH}(-(0[1-9]|[12][0-9]|3[01]))?$"}
    return list[Annotated[str, Meta(pattern=times.get(dimension.kind, f"^{_DAY}$"), description=meaning)]]


_PARAMETERS: list[Any] = [
    ("dimensions", _names([*DIMENSIONS, r"extra\.[^,]{1,64}"], "what to group by, comma-separated; extra.<name> too"), ""),
    ("metrics", _names(METRICS, "which figures, comma-separated"), ""),
    ("from_", Day, ""),
    ("to", Day, ""),
    ("timezone", Zone, ""),
    ("by", By, "conversion"),
    ("clicks", Clicks, "valid"),
    ("touch", Touch, "last"),
    ("compare", Literal["previous", "none"], "none"),
    ("sort", Annotated[str, Meta(description="one of the metrics or dimensions; -revenue: the largest first")], ""),
    ("limit", Annotated[int, Meta(ge=1, le=MAX_ROWS)], 1000),
    ("cursor", Annotated[str, Meta(description="the next_cursor of the page before")], ""),
    *((name, _filter_type(one), msgspec.field(default_factory=list)) for name, one in DIMENSIONS.items()),
]
ReportParameters = msgspec.defstruct("ReportParameters", _PARAMETERS, rename={"from_": "from"}, kw_only=True)
"""For the OpenAPI page alone: `parse_query` reads the parameters, and knows more forms of them."""

OPERATIONS = (
    Operation(
        "GET",
        "/reports",
        "get_report",
        "Figures by any dimensions, with their totals",
        report,
        EVERYBODY,
        query_type=ReportParameters,
        takes_any_query=True,
        answer_type=Answer,
    ),
)
