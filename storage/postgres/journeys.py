"""One contact: who it is, and everything it did, in the order in which it did it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from storage.postgres.connection import Connection
from storage.postgres.contact_figures import Figures, find_figures
from storage.postgres.contact_filter import FIRST, IS_CONTACT, LIST, UTM
from storage.postgres.listing.cursors import decode_cursor, encode_cursor

Row = dict[str, Any]
_SHARED = "offer_id, aff_id, landing_page_id, creative_id, country, device_type, currency, revenue, payout, extras"
_TOUCH = (
    "SELECT '%s' AS kind, clicked_at AS at, click_id AS id, NULL::uuid AS click_id, 0 AS goal_id, "
    + ", ".join(UTM)
    + ", source, referrer, flags, outcome AS status, reason, 0::numeric AS amount, '' AS promo_code, "
    + _SHARED
    + f" FROM %s WHERE contact_id = $1 AND {IS_CONTACT} AND click_id >= $4 AND (clicked_at, click_id) > ($2, $3)"
    " ORDER BY clicks.click_id LIMIT $5"
)
_CONVERSIONS = (
    "SELECT 'conversion', converted_at, conversion_id, click_id, goal_id, "
    + ", ".join(["''"] * len(UTM))
    + f", '', '', '{{}}'::text[], status, reason, amount, promo_code, {_SHARED} FROM conversions"
    f" WHERE contact_id = $1 AND {IS_CONTACT} AND (converted_at, conversion_id) > ($2, $3)"
    " ORDER BY converted_at, conversion_id LIMIT $5"
)
_START = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


class Contact(NamedTuple):
    """A contact that is not deleted. `first`: its first click's UTM parameters and time; None without a click."""

    contact_id: str
    list: str
    signed_up_at: datetime | None
    first_seen_at: datetime | None
    first_click_id: UUID | None
    extras: Row
    first: Row | None
    figures: Figures


class Journey(NamedTuple):
    """A page of it, oldest first. A conversion's `status` is its own, a click's or view's its outcome."""

    events: list[Row]
    next_cursor: str | None


async def find_contacts(conn: Connection, contact_ids: Sequence[str]) -> list[Contact]:
    """These contacts with their figures, in this order; deleted ones and those that are none are left out."""
    rows = await conn.fetch(
        f"SELECT contacts.contact_id, {LIST} AS list, signed_up_at, first_seen_at, first_click_id, contacts.extras,"
        f" first.clicked_at, {', '.join(f'first.{name}' for name in UTM)} FROM contacts{FIRST}"
        " WHERE contacts.contact_id = ANY($1) AND deleted_at IS NULL",
        list(contact_ids),
    )
    by_id = {row["contact_id"]: row for row in rows}
    figures = await find_figures(conn, list(by_id))
    return [_contact(by_id[one], figures[one]) for one in contact_ids if one in by_id]


async def list_journey(conn: Connection, contact_id: str, cursor: str = "", limit: int = 50) -> Journey:
    """Clicks, impressions and conversions of a contact, oldest first. BadCursor."""
    at, last_id = decode_cursor(cursor, datetime, UUID) or _START
    parts = " UNION ALL ".join(
        f"({part})"
        for part in (
            _TOUCH % ("click", "clicks"),
            _TOUCH.replace("clicks.click_id", "impressions.click_id") % ("impression", "impressions"),
            _CONVERSIONS,
        )
    )
    lowest = UUID(int=max(0, (at - _START[0]) // timedelta(milliseconds=1)) << 80)
    rows = await conn.fetch(f"{parts} ORDER BY at, id LIMIT $5", contact_id, at, last_id, lowest, limit + 1)
    events = [dict(row) for row in rows[:limit]]
    more = len(rows) > limit
    return Journey(events, encode_cursor([events[-1]["at"], events[-1]["id"]]) if more else None)


def _contact(row: Any, figures: Figures) -> Contact:
    first = {"clicked_at": row["clicked_at"], **{name: row[name] for name in UTM}} if row["clicked_at"] else None
    return Contact(**{name: row[name] for name in Contact._fields[:6]}, first=first, figures=figures)
