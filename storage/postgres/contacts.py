"""Contacts: imported, or first seen in a click, an impression or a conversion.

C1  Every contact_id of at most 256 characters that a stored row names has a contact: the drain adds it in the transaction
    that stores the row.
C2  `first_seen_at` and `first_click_id` are the earliest there are, in whatever order rows arrive.
C3  Rows are written in key order, and before the roll-ups: writers at once never wait for each other in a ring.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from storage.postgres.connection import Connection
from storage.postgres.copy import Uuid

MAX_CONTACT_CHARS = 256
"""A longer contact_id is stored with its click, and is no contact."""


class ContactRow(NamedTuple):
    """What is said of a contact; what is empty or None says nothing."""

    contact_id: str
    list: str = ""
    signed_up_at: datetime | None = None
    first_seen_at: datetime | None = None
    first_click_id: Uuid | UUID | None = None
    extras: dict[str, Any] = {}  # noqa: RUF012 - never mutated


class Upserted(NamedTuple):
    """How many contacts are new, and how many others have changed."""

    added: int
    changed: int


class _Column(NamedTuple):
    kind: str
    adds: str
    """Whether the new row says something that the old does not."""
    merged: str
    """The value, of `contacts` as it is and `excluded` as it comes."""


_COLUMNS = {
    "list": _Column(
        "text",
        "new.list <> '' AND new.list <> old.list",
        "CASE WHEN excluded.list <> '' THEN excluded.list ELSE contacts.list END",
    ),
    "signed_up_at": _Column(
        "timestamptz",
        "new.signed_up_at IS DISTINCT FROM coalesce(old.signed_up_at, '-infinity') AND new.signed_up_at IS NOT NULL",
        "coalesce(excluded.signed_up_at, contacts.signed_up_at)",
    ),
    "first_seen_at": _Column(
        "timestamptz",
        "new.first_seen_at < coalesce(old.first_seen_at, 'infinity')",
        "least(excluded.first_seen_at, contacts.first_seen_at)",
    ),
    "first_click_id": _Column(
        "uuid",
        "new.first_click_id < coalesce(old.first_click_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')",
        "least(excluded.first_click_id, contacts.first_click_id)",
    ),
    "extras": _Column("jsonb", "NOT old.extras @> new.extras", "contacts.extras || excluded.extras"),
}


class Sightings:
    """The contacts that a transaction's rows name, each as of its earliest."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[datetime, Uuid | None]] = {}

    def see(self, contact_id: str, at: datetime, click_id: Uuid | None = None) -> None:
        """A row of that moment names the contact; `click_id`: the row is this click."""
        if len(contact_id) > MAX_CONTACT_CHARS:
            return
        before_at, before_id = self.seen.get(contact_id, (at, click_id))
        if before_id is None or (click_id is not None and click_id < before_id):
            before_id = click_id
        self.seen[contact_id] = min(before_at, at), before_id

    def merge(self, other: "Sightings") -> None:
        """Take in what others have seen."""
        for contact_id, seen in other.seen.items():
            self.see(contact_id, *seen)

    def rows(self) -> list[ContactRow]:
        """What they say of each contact."""
        return [ContactRow(one, "", None, *seen) for one, seen in self.seen.items()]


async def upsert_contacts(conn: Connection, rows: Iterable[ContactRow]) -> Upserted:
    """Add contacts and what is said of them: what is said again wins, first seen is the earliest (C2).

    At most once in a transaction, and before its roll-ups (C3). A deleted contact stays deleted.
    """
    merged = _merge(rows)
    if not merged:
        return Upserted(0, 0)
    columns = {name: [getattr(row, name) for row in merged] for name in _COLUMNS}
    said = tuple(name for name, values in columns.items() if any(values))
    found = await conn.fetch(_upsert_sql(said), [row.contact_id for row in merged], *(columns[name] for name in said))
    added = sum(row["is_new"] for row in found)
    return Upserted(added, len(found) - added)


async def delete_contacts(conn: Connection, contact_ids: Collection[str], now: datetime) -> int:
    """Delete contacts: they stay in all totals, and are listed and shown no more; how many were there."""
    found = await conn.fetch(
        "UPDATE contacts SET deleted_at = $2 FROM (SELECT contact_id FROM contacts WHERE contact_id = ANY($1)"
        ' AND deleted_at IS NULL ORDER BY contact_id COLLATE "C" FOR UPDATE) AS doomed'
        " WHERE contacts.contact_id = doomed.contact_id RETURNING 1",
        list(contact_ids),
        now,
    )
    return len(found)


async def find_deleted(conn: Connection, contact_ids: Collection[str]) -> set[str]:
    """Those of the contacts that are deleted."""
    if not contact_ids:
        return set()
    query = "SELECT contact_id FROM contacts WHERE contact_id = ANY($1) AND deleted_at IS NOT NULL"
    return {row["contact_id"] for row in await conn.fetch(query, list(contact_ids))}


def _merge(rows: Iterable[ContactRow]) -> list[ContactRow]:
    """One row a contact: a later one wins as it would in the table."""
    merged: dict[str, ContactRow] = {}
    for row in rows:
        before = merged.get(row.contact_id)
        merged[row.contact_id] = row if before is None else _merge_two(before, row)
    return list(merged.values())


def _merge_two(before: ContactRow, after: ContactRow) -> ContactRow:
    seen = [row.first_seen_at for row in (before, after) if row.first_seen_at]
    clicks = [row.first_click_id for row in (before, after) if row.first_click_id]
    return ContactRow(
        after.contact_id,
        after.list or before.list,
        after.signed_up_at or before.signed_up_at,
        min(seen, default=None),
        min(clicks, default=None),
        {**before.extras, **after.extras},
    )


@lru_cache
def _upsert_sql(said: tuple[str, ...]) -> str:
    """Contacts that are as they are said to be are looked at only: nothing waits for a row that does not change."""
    names = ", ".join(("contact_id", *said))
    arrays = ", ".join(["$1::text[]", *(f"${i}::{_COLUMNS[name].kind}[]" for i, name in enumerate(said, 2))])
    adds = "".join(f" OR ({_COLUMNS[name].adds})" for name in said)
    merged = ", ".join(f"{name} = {_COLUMNS[name].merged}" for name in said)
    return (
        f"INSERT INTO contacts ({names}) SELECT {', '.join(f'new.{name}' for name in ('contact_id', *said))}"
        f" FROM unnest({arrays}) AS new ({names}) LEFT JOIN contacts AS old USING (contact_id)"
        f' WHERE old.contact_id IS NULL{adds} ORDER BY new.contact_id COLLATE "C"'
        f" ON CONFLICT (contact_id) DO {f'UPDATE SET {merged}' if merged else 'NOTHING'} RETURNING xmax = 0 AS is_new"
    )
