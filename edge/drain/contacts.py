"""A conversion that names a contact instead of a click: which of the contact's touches it belongs to."""

from collections.abc import Iterable, Sequence

from edge.drain.catalogs import CatalogHistory
from edge.drain.families import session_of
from edge.drain.rows import Touched
from edge.tracking.attribution import has_valid_token
from edge.tracking.verdict import TouchKind, facts_of
from storage.journal.events import Conversion
from storage.postgres.connection import Connection
from storage.postgres.sessions import StoredSession, find_sessions
from storage.postgres.touches import Search, find_by_contact, find_converted

LOOKBACK_MS = 90 * 86_400_000
"""Of clicks by their contact, where the conversion names no offer."""
WHY = "found by its contact"
_KINDS: tuple[tuple[TouchKind, str], ...] = (("click", "clicks"), ("impression", "impressions"))


async def find_touches(conn: Connection, history: CatalogHistory, events: Sequence[Conversion]) -> dict[bytes, Touched]:
    """The latest touch of each conversion's contact, by conversion id; the catalogs of `events` are loaded."""
    searches = [_search(history, *one) for one in enumerate(events)]
    clicks = await find_by_contact(conn, searches, newest=True)
    converted = await _find_converted(conn, searches)
    found = {}
    for place, event in enumerate(events):
        touches = [_touched(click, "click") for click in clicks.get(place, ())] + converted.get(place, [])
        if touches:
            found[event.conversion_id] = _latest(history, event, touches)
    return found


def _search(history: CatalogHistory, place: int, event: Conversion) -> Search:
    offer = history.at(event.revision).offer(event.offer_id)
    lookback_ms = offer.click_window_s * 1000 if offer else LOOKBACK_MS
    return Search(place, event.params["contact_id"], event.offer_id, event.received_ms - lookback_ms, event.received_ms)


async def _find_converted(conn: Connection, searches: Sequence[Search]) -> dict[int, list[Touched]]:
    """What earlier conversions of the contacts were credited to, by the search's place."""
    by_place = await find_converted(conn, searches)
    ids = {touch_id for found in by_place.values() for touch_id in found}
    touches = {
        touch_id: _touched(stored, kind)
        for kind, table in _KINDS
        for touch_id, stored in (await find_sessions(conn, ids, table)).items()
    }
    return {place: [touches[one] for one in found if one in touches] for place, found in by_place.items()}


def _touched(stored: StoredSession, kind: TouchKind) -> Touched:
    return Touched(session_of(stored), stored.country, stored.device_type, kind, why=WHY)


def _latest(history: CatalogHistory, event: Conversion, touches: Iterable[Touched]) -> Touched:
    """The latest of an advertiser whose token fits what was sent; else the latest, for the verdict to refuse.

    A contact may buy of several advertisers, and none may claim a sale on another's click. A click beats a view.
    """
    return max(touches, key=lambda one: (_fits(history, event, one), one.kind == "click", one.session.click_id))


def _fits(history: CatalogHistory, event: Conversion, touched: Touched) -> bool:
    catalog = history.at(event.revision)
    offer = catalog.offer(touched.session.offer_id)
    advertiser = catalog.advertiser(offer.advertiser_id) if offer else None
    if advertiser is None:
        return False
    if advertiser.security_token:
        return has_valid_token(facts_of(event), advertiser)
    return not event.params.get("security_token")
