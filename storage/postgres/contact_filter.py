"""Which contacts are meant: by list, by when they came, by whether they bought, by what first brought them."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from storage.postgres.arguments import Arguments

UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")
JOINED_AT = "coalesce(contacts.joined_at, '-infinity')"
"""As the index says it; a contact of which nobody knows when it came is older than all others."""
LIST = "coalesce(nullif(contacts.list, ''), first.list, '')"
"""Needs `FIRST`: the contact's list, else the one that its first click named."""
FIRST = (
    " LEFT JOIN LATERAL (SELECT clicked_at, source, " + ", ".join(UTM) + ", coalesce(extras ->> 'list', '') AS list"
    " FROM clicks WHERE clicks.click_id = contacts.first_click_id) AS first ON true"
)
IS_CONTACT = "contact_id <> '' AND length(contact_id) <= 256"
"""As the indexes say it: without this they would not be used."""


class ContactFilter(NamedTuple):
    """What is empty or None asks nothing. `joined_since` is inclusive, `joined_until` exclusive; "" is "none"."""

    lists: tuple[str, ...] = ()
    joined_since: datetime | None = None
    joined_until: datetime | None = None
    has_converted: bool | None = None
    first_utm: Mapping[str, tuple[str, ...]] = {}

    @property
    def needs_first_click(self) -> bool:
        """Whether the contacts' first clicks must be looked at."""
        return bool(self.lists or self.first_utm)


def conditions(wanted: ContactFilter, arguments: Arguments) -> list[str]:
    """What must be true of `contacts` (joined with FIRST where `needs_first_click` says so)."""
    found = []
    if wanted.joined_since is not None:
        found.append(f"{JOINED_AT} >= {arguments.add(wanted.joined_since)}")
    if wanted.joined_until is not None:
        found.append(f"{JOINED_AT} < {arguments.add(wanted.joined_until)}")
    if wanted.lists:
        found.append(f"{LIST} = ANY({arguments.add(list(wanted.lists))})")
    found += [
        f"coalesce(first.{name}, '') = ANY({arguments.add(list(values))})"
        for name in UTM
        if (values := wanted.first_utm.get(name, ()))
    ]
    if wanted.has_converted is not None:
        exists = (
            "EXISTS (SELECT FROM conversions WHERE conversions.contact_id = contacts.contact_id"
            " AND conversions.contact_id <> '' AND length(conversions.contact_id) <= 256 AND status = 'approved')"
        )
        found.append(exists if wanted.has_converted else f"NOT {exists}")
    return found
