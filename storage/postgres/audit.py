"""Who changed what: rows are added and listed, and retention takes the old ones; none is ever changed."""

from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

MAX_TEXT_CHARS = 256


class Entry(NamedTuple):
    """What somebody did. `subject`: to what; `address`: from where, "" for a command."""

    actor: str
    action: str
    subject: str = ""
    detail: dict[str, Any] = {}  # noqa: RUF012 - never mutated
    address: str = ""


class Listed(NamedTuple):
    """A row of `audit_log`."""

    audit_id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    address: str


class Filter(NamedTuple):
    """Which rows; what is empty or None lets all through. `action`: or what begins with it and a space."""

    actor: str = ""
    action: str = ""
    subject: str = ""
    since: datetime | None = None
    until: datetime | None = None
    before_id: int | None = None


async def add_entry(conn: asyncpg.Connection, entry: Entry) -> None:
    """Write it down, in the caller's transaction if there is one."""
    await conn.execute(
        "INSERT INTO audit_log (actor, action, subject, detail, address) VALUES ($1, $2, $3, $4, $5)",
        entry.actor[:MAX_TEXT_CHARS],
        entry.action[:MAX_TEXT_CHARS],
        entry.subject[:MAX_TEXT_CHARS],
        entry.detail,
        entry.address[:MAX_TEXT_CHARS],
    )


async def list_entries(conn: asyncpg.Connection, wanted: Filter, limit: int = 50) -> list[Listed]:
    """The latest first."""
    rows = await conn.fetch(
        "SELECT audit_id, at, actor, action, subject, detail, address FROM audit_log"
        " WHERE ($1 = '' OR actor = $1) AND ($2 = '' OR action = $2 OR starts_with(action, $2 || ' '))"
        " AND ($3 = '' OR subject = $3)"
        " AND ($4::timestamptz IS NULL OR at >= $4) AND ($5::timestamptz IS NULL OR at < $5)"
        " AND ($6::bigint IS NULL OR audit_id < $6) ORDER BY audit_id DESC LIMIT $7",
        wanted.actor,
        wanted.action,
        wanted.subject,
        wanted.since,
        wanted.until,
        wanted.before_id,
        limit,
    )
    return [Listed(*row) for row in rows]
