"""One conversion with all that became of it, and what a person makes of one or many."""

from typing import Annotated, Any
from uuid import UUID

import msgspec

from edge.admin.api.operation import ADMIN, EVERYBODY, Call, Operation
from edge.admin.api.problems import Problem, bad_fields, not_found
from edge.admin.decisions import Decided, Decision, decide_each, faults_in, find_detail
from edge.admin.sight import is_theirs, shown

MAX_CHANGED = 1000
_Row = dict[str, Any]


class ConversionPath(msgspec.Struct):
    """Which one."""

    id: UUID


class ConversionDetail(msgspec.Struct):
    """A conversion's columns as they are now, and its changes, oldest first."""

    conversion: _Row
    changes: list[_Row]


class Changes(Decision, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same for many."""

    ids: Annotated[list[UUID], msgspec.Meta(min_length=1, max_length=MAX_CHANGED)]


class Results(msgspec.Struct):
    """What became of each, in the order of the ids; `changed`: how many are."""

    changed: int
    data: list[Decided]


async def read(call: Call) -> ConversionDetail:
    """The conversion, if it is the caller's to see."""
    caller = call.caller
    async with call.backend.connection() as conn:
        row, changes = await find_detail(conn, call.path.id)
    if row is None or not is_theirs(row, caller.scope, caller.advertiser_id, caller.aff_id):
        raise not_found("conversion")
    return ConversionDetail(shown(row, caller.scope), [shown(one, caller.scope) for one in changes])


async def change_one(call: Call) -> ConversionDetail:
    """Change it, or say why that cannot be."""
    if faults := faults_in(call.body):
        raise bad_fields(faults)
    async with call.backend.connection() as conn:
        row, _ = await find_detail(conn, call.path.id)
        if row is None:
            raise not_found("conversion")
        [decided] = await decide_each(conn, [row["conversion_id"]], call.body, call.caller.name)
        if decided.problem:
            raise Problem(409, decided.problem)
        row, changes = await find_detail(conn, call.path.id)
    return ConversionDetail(shown(row or {}, call.caller.scope), [shown(one, call.caller.scope) for one in changes])


async def change_many(call: Call) -> Results:
    """Change each by itself: one that cannot be keeps none of the others."""
    if faults := faults_in(call.body):
        raise bad_fields(faults)
    async with call.backend.connection() as conn:
        decided = await decide_each(conn, call.body.ids, call.body, call.caller.name)
    return Results(sum(not one.problem for one in decided), decided)


OPERATIONS = (
    Operation(
        "GET", "/conversions/{id}", "conversion", "A conversion with all of its changes", read, EVERYBODY,
        path_type=ConversionPath, answer_type=ConversionDetail,
    ),
    Operation(
        "PATCH", "/conversions/{id}", "change_conversion", "Approve, reject, reverse or adjust a conversion", change_one,
        ADMIN, path_type=ConversionPath, body_type=Decision, answer_type=ConversionDetail,
    ),
    Operation(
        "POST", "/conversions/changes", "change_conversions", "Approve, reject, reverse or adjust many conversions",
        change_many, ADMIN, body_type=Changes, answer_type=Results,
    ),
)  # fmt: skip
