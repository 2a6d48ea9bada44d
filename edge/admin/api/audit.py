"""The audit log over the API."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from edge.admin.api.operation import Call, Operation
from edge.admin.api.paging import Cursor, Limit, Page, cursor_after, place_of
from storage.postgres.audit import Filter, list_entries

_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class FindEntries(msgspec.Struct, frozen=True):
    """Which entries, the latest first. `action`: or those that begin with that word; `since` included, `until` not."""

    actor: _Text = ""
    action: _Text = ""
    subject: _Text = ""
    since: _Moment | None = None
    until: _Moment | None = None
    limit: Limit = 50
    cursor: Cursor = ""


class AuditEntry(msgspec.Struct, frozen=True):
    """What somebody did, to what, and from which address ("": a command)."""

    audit_id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    address: str


class AuditPage(msgspec.Struct, frozen=True):
    """One page of the audit log."""

    data: list[AuditEntry]
    next_cursor: str | None


async def find(call: Call) -> Page:
    """One page of the log."""
    query = call.query
    before = place_of(query.cursor, Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)])
    wanted = Filter(query.actor, query.action, query.subject, query.since, query.until, before)
    async with call.backend.connection() as conn:
        rows = await list_entries(conn, wanted, query.limit + 1)
    data = [AuditEntry(*row) for row in rows[: query.limit]]
    return Page(data, cursor_after(data[-1].audit_id) if len(rows) > len(data) else None)


OPERATIONS = (
    Operation("GET", "/audit", "list_audit", "List who changed what", find, query_type=FindEntries, answer_type=AuditPage),
)
