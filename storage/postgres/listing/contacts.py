"""Contacts, those that came last first."""

from typing import NamedTuple

from storage.postgres.arguments import Arguments
from storage.postgres.connection import Connection
from storage.postgres.contact_filter import FIRST, JOINED_AT, ContactFilter, conditions
from storage.postgres.journeys import Contact, find_contacts
from storage.postgres.listing.cursors import PerhapsTime, decode_cursor, encode_cursor


class ContactPage(NamedTuple):
    """A page of contacts."""

    contacts: list[Contact]
    next_cursor: str | None


async def list_contacts(conn: Connection, wanted: ContactFilter, cursor: str = "", limit: int = 50) -> ContactPage:
    """Contacts that are not deleted, with their figures, newest first. BadCursor."""
    arguments = Arguments()
    found = ["deleted_at IS NULL", *conditions(wanted, arguments)]
    if after := decode_cursor(cursor, PerhapsTime, str):
        joined_at = f"coalesce({arguments.add(after[0])}::timestamptz, '-infinity')"
        found.append(f"({JOINED_AT}, contacts.contact_id) < ({joined_at}, {arguments.add(after[1])})")
    rows = await conn.fetch(
        f"SELECT contacts.contact_id, contacts.joined_at FROM contacts{FIRST if wanted.needs_first_click else ''}"
        f" WHERE {' AND '.join(found)} ORDER BY {JOINED_AT} DESC, contacts.contact_id DESC"
        f" LIMIT {arguments.add(limit + 1)}",
        *arguments.values,
    )
    shown = rows[:limit]
    contacts = await find_contacts(conn, [row["contact_id"] for row in shown])
    more = len(rows) > limit
    return ContactPage(contacts, encode_cursor([shown[-1]["joined_at"], shown[-1]["contact_id"]]) if more else None)
