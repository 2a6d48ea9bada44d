"""Closed months: listed, closed and opened again."""

from datetime import UTC, date, datetime
from typing import Annotated

from msgspec import Meta, Struct

from edge.admin.api.operation import ADMIN, READERS, Call, Operation
from edge.admin.api.problems import Problem, bad_fields
from edge.admin.api.statements import Month
from edge.closing import StillComing, close, span_in_force
from edge.errors import UserError
from edge.tracking.months import parse_month
from storage.postgres.months import ClosedMonth, closed_months, reopen_month


class MonthPath(Struct):
    """Which month."""

    month: Month


class CloseQuery(Struct):
    """`force`: although a journal may still hold events of that month."""

    force: Annotated[bool, Meta(description="although a journal may still hold events of it")] = False


class MonthState(Struct):
    """A month and its instants, the end not included. `closed_at`, `closed_by`: null while it is open."""

    month: str
    starts_at: datetime
    ends_at: datetime
    closed_at: datetime | None = None
    closed_by: str | None = None


class MonthList(Struct):
    """All closed months, the earliest first; always whole."""

    data: list[MonthState]
    next_cursor: str | None


async def list_months(call: Call) -> MonthList:
    """The closed ones."""
    async with call.backend.connection() as conn:
        found = await closed_months(conn, to_change=False)
    return MonthList([_state(one) for one in found], None)


async def close_one(call: Call) -> MonthState:
    """Close it."""
    month = _month(call)
    async with call.backend.connection() as conn:
        try:
            await close(conn, month, now=datetime.now(UTC), actor=call.caller.actor, force=call.query.force)
        except StillComing as error:
            raise Problem(409, f"{error.text}: wait, or say force=true") from error
        except UserError as error:
            raise Problem(409, str(error)) from error
        found = {one.month: one for one in await closed_months(conn, to_change=False)}
    if month not in found:
        raise Problem(409, f"{call.path.month} was opened again in the same moment")
    return _state(found[month])


async def reopen_one(call: Call) -> MonthState:
    """Open it again."""
    month = _month(call)
    async with call.backend.connection() as conn:
        if not await reopen_month(conn, month):
            raise Problem(409, f"{call.path.month} is not closed")
        span = await span_in_force(conn, month)
    return MonthState(call.path.month, span.starts_at, span.ends_at)


def _month(call: Call) -> date:
    month = parse_month(call.path.month)
    if month is None:
        raise bad_fields([("month", "is no month: write it 2026-10")])
    return month


def _state(one: ClosedMonth) -> MonthState:
    return MonthState(f"{one.month:%Y-%m}", one.starts_at, one.ends_at, one.closed_at, one.actor)


OPERATIONS = (
    Operation("GET", "/months", "list_closed_months", "The closed months", list_months, READERS, answer_type=MonthList),
    Operation(
        "POST", "/months/{month}/close", "close_month", "Close a month: later changes are booked when they are made",
        close_one, ADMIN, MonthPath, CloseQuery, answer_type=MonthState, statuses=(409,),
    ),
    Operation(
        "POST", "/months/{month}/reopen", "reopen_month", "Open a closed month again; its kept statements are thrown away",
        reopen_one, ADMIN, MonthPath, answer_type=MonthState, statuses=(409,),
    ),
)  # fmt: skip
