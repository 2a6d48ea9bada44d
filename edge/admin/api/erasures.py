"""People erased over the API, and what was erased before."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from edge.admin.api.operation import Call, Operation, Reply
from edge.admin.api.paging import Cursor, Limit, Page, cursor_after, place_of
from edge.admin.api.problems import bad_fields
from edge.admin.api.server_address import asked_from
from edge.erasing import Order, Report, count, erase
from edge.errors import UserError
from edge.node import with_secrets
from edge.tracking.click_id import read_well_formed
from edge.tracking.tombstones import MAX_VALUE_CHARS, Target, address_target, contact_target
from storage.postgres.erasures import list_erasures
from storage.postgres.external_ids import find_external_ids

MAX_VALUES = 100
_Values = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_VALUE_CHARS)]], msgspec.Meta(max_length=MAX_VALUES)
]


class ErasureBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to erase; `ips`: addresses or networks; `dry_run`: only count."""

    contacts: _Values = []
    clicks: _Values = []
    ips: _Values = []
    dry_run: bool = False


class Erased(msgspec.Struct, frozen=True):
    """What was done, or would be: rows by table. Events until then are not stored when a journal still has them."""

    until: datetime
    rows: dict[str, int]
    dry_run: bool


class ErasureAnswer(msgspec.Struct, frozen=True):
    """An erasure that somebody asked for; `hash`: of what was erased, keyed."""

    erasure_id: int
    kind: str
    hash: str
    until: datetime
    actor: str


class ErasurePage(msgspec.Struct, frozen=True):
    """One page of erasures."""

    data: list[ErasureAnswer]
    next_cursor: str | None


class FindErasures(msgspec.Struct, frozen=True):
    """All, the latest first."""

    limit: Limit = 50
    cursor: Cursor = ""


async def create(call: Call) -> Reply:
    """Erase, or count what would be."""
    targets = await _targets(call)
    secret = with_secrets(call.backend.settings).secrets[0]
    order = Order(targets, secret, call.caller.actor, asked_from(call.backend, call.request))
    async with call.backend.slow_connection() as conn:
        report: Report = await (count(conn, order) if call.body.dry_run else erase(conn, order))
    return Reply(Erased(report.until, report.rows, call.body.dry_run), 200)


async def find(call: Call) -> Page:
    """One page of what was erased."""
    before = place_of(call.query.cursor, Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)])
    async with call.backend.connection() as conn:
        rows = await list_erasures(conn, before_id=before, limit=call.query.limit + 1)
    data = [ErasureAnswer(*row) for row in rows[: call.query.limit]]
    return Page(data, cursor_after(data[-1].erasure_id) if len(rows) > len(data) else None)


async def _targets(call: Call) -> list[Target]:
    """Each value once; Problem 422 names those that are none."""
    body, faults = call.body, []
    async with call.backend.connection() as conn:
        known = await find_external_ids(conn, [one for one in body.clicks if read_well_formed(one) is None])

    def click_target(text: str) -> Target:
        click_id = read_well_formed(text) or known.get(text)
        if click_id is None:
            raise UserError("the id of no click")
        return Target("click", click_id)

    found: list[Target] = []
    for field, read in (("contacts", contact_target), ("clicks", click_target), ("ips", address_target)):
        for place, text in enumerate(getattr(body, field)):
            try:
                found.append(read(text))
            except UserError as error:
                faults.append((f"/{field}/{place}", str(error)))
    if not found and not faults:
        faults.append(("/contacts", "name somebody: contacts, clicks or ips"))
    if faults:
        raise bad_fields(faults)
    return list(dict.fromkeys(found))


_EXAMPLE: dict[str, Any] = {"contacts": ["c-1204"], "ips": ["203.0.113.77"], "dry_run": True}
OPERATIONS = (
    Operation(
        "POST", "/erasures", "erase", "Erase people", create, body_type=ErasureBody, answer_type=Erased,
        example=_EXAMPLE, commits=True,
    ),
    Operation(
        "GET", "/erasures", "list_erasures", "List what was erased", find, query_type=FindErasures, answer_type=ErasurePage
    ),
)  # fmt: skip
