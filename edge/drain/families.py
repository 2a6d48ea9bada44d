"""First or last touch: of the clicks by one cookie, else by one contact, the one that a conversion is credited to."""

from collections.abc import Sequence
from typing import Literal, NamedTuple
from uuid import UUID

from edge.drain.catalogs import CatalogHistory
from edge.drain.rows import Touched
from edge.tracking.attribution import conversion_time
from edge.tracking.click_id import ms_of
from edge.tracking.crediting import Candidate, choose
from edge.tracking.verdict import facts_of, touch_of
from storage.journal.events import Conversion, Session
from storage.postgres.connection import Connection
from storage.postgres.sessions import StoredSession
from storage.postgres.touches import Found, Relation, Search, find_by_contact, find_by_cookie, find_relations

NO_RELATION = Relation(b"", True)
# Of a click that is not stored any more; it still stands for itself.


class Named(NamedTuple):
    """A conversion's touch as it was named, and what is looked for instead of it."""

    touched: Touched
    relation: Relation
    touch: Literal["first", "last"]
    converted_ms: int
    window_s: int
    """The longest that may apply: clicks further back are not looked for."""

    @property
    def is_candidate(self) -> bool:
        """Whether it may be credited itself, against others. A view never beats a click."""
        return self.touched.kind == "click" and self.relation.is_creditable

    def search(self, place: int, identity: UUID | str) -> Search:
        """Among the clicks by `identity`, as far as they may matter."""
        session = self.touched.session
        is_end = self.touch == "last" and self.is_candidate
        from_ms = ms_of(session.click_id) if is_end else self.converted_ms - self.window_s * 1000
        return Search(place, identity, session.offer_id, from_ms, self.converted_ms)


def session_of(stored: StoredSession) -> Session:
    """A stored touch as a session; address and user agent are not read back."""
    return Session(*stored[:7], ip="", user_agent="")


class Families:
    """Credits the conversions of one drain to the first or last click of their visitors."""

    def __init__(self, history: CatalogHistory) -> None:
        self._history = history

    async def credit(self, conn: Connection, pairs: Sequence[tuple[Conversion, Touched]]) -> list[Touched]:
        """For each conversion and the touch that it named: the touch it is credited to, in the same order."""
        if not pairs:
            return []
        revisions = {event.revision for event, _ in pairs} | {touched.session.revision for _, touched in pairs}
        await self._history.load(conn, revisions)
        relations = await _find_relations(conn, [touched for _, touched in pairs])
        named = {place: one for place, pair in enumerate(pairs) if (one := self._look_at(*pair, relations))}
        by_cookie = await _search_cookies(conn, named)
        related = {place for place, one in named.items() if _has_cookie_relation(one, by_cookie.get(place, ()))}
        by_contact = await _search_contacts(conn, {place: named[place] for place in named.keys() - related})
        for clicks in (*by_cookie.values(), *by_contact.values()):
            revisions.update(click.revision for click in clicks)
        await self._history.load(conn, revisions)
        credited = [touched for _, touched in pairs]
        for place, one in named.items():
            same = "cookie" if place in related else "contact"
            credited[place] = self._pick(one, (by_cookie if place in related else by_contact).get(place, ()), same)
        return credited

    def _look_at(self, event: Conversion, touched: Touched, relations: dict[bytes, Relation]) -> Named | None:
        """None where the catalog no longer says enough for any verdict but a refusal."""
        session = touched.session
        catalog = self._history.at(max(event.revision, session.revision))
        offer = catalog.offer(session.offer_id)
        advertiser = catalog.advertiser(offer.advertiser_id) if offer else None
        if offer is None or advertiser is None:
            return None
        touch = touch_of(session)
        # Ids may run ahead of the clock: no conversion is before the click that it names.
        converted_ms = max(touch.ms, conversion_time(facts_of(event), touch, advertiser))
        relation = relations.get(session.click_id, NO_RELATION)
        window_s = max(offer.click_window_s, self._window_s(session))
        return Named(touched, relation, offer.attribution, converted_ms, window_s)

    def _pick(self, one: Named, found: Sequence[StoredSession], same: str) -> Touched:
        mine = one.touched
        clicks = {click.click_id: click for click in found}
        candidates = [self._candidate(session_of(click)) for click in found]
        if one.is_candidate:
            candidates.append(self._candidate(mine.session))
        chosen = choose(candidates, one.touch, one.converted_ms)
        if not chosen or chosen == mine.session.click_id:
            return mine
        click = clicks[chosen]
        why = f"credited to the {one.touch} click of the same {same}, not to the {mine.kind} that was named"
        why = f"{mine.why}; {why}" if mine.why else why
        return Touched(session_of(click), click.country, click.device_type, "click", mine.session.click_id, why)

    def _candidate(self, session: Session) -> Candidate:
        return Candidate(session.click_id, ms_of(session.click_id), self._window_s(session))

    def _window_s(self, session: Session) -> int:
        """The click's own window; -1, which holds nothing, where its offer was not in the catalog."""
        offer = self._history.at(session.revision).offer(session.offer_id)
        return offer.click_window_s if offer else -1


async def _find_relations(conn: Connection, touches: Sequence[Touched]) -> dict[bytes, Relation]:
    ids: dict[str, set[bytes]] = {"click": set(), "impression": set()}
    for touched in touches:
        ids[touched.kind].add(touched.session.click_id)
    return {
        **await find_relations(conn, "clicks", ids["click"]),
        **await find_relations(conn, "impressions", ids["impression"]),
    }


async def _search_cookies(conn: Connection, named: dict[int, Named]) -> Found:
    found: Found = {}
    for touch in ("last", "first"):
        searches = []
        for place, one in named.items():
            # The named click may be another's first one, or have a first one itself.
            roots = {one.touched.session.click_id, one.relation.first_click_id} - {b""}
            searches += [one.search(place, UUID(bytes=root)) for root in roots if one.touch == touch]
        found |= await find_by_cookie(conn, searches, newest=touch == "last")
    return found


async def _search_contacts(conn: Connection, named: dict[int, Named]) -> Found:
    found: Found = {}
    for touch in ("last", "first"):
        contacts = {place: one.touched.session.contact_id for place, one in named.items() if one.touch == touch}
        searches = [named[place].search(place, contact) for place, contact in contacts.items() if contact]
        found |= await find_by_contact(conn, searches, newest=touch == "last")
    return found


def _has_cookie_relation(one: Named, found: Sequence[StoredSession]) -> bool:
    return bool(one.relation.first_click_id) or any(click.click_id != one.touched.session.click_id for click in found)
