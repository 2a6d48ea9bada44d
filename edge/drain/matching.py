"""Whom a conversion is credited to: the touch that it names, another of the same visitor, or a partner without one.

In this order: a click's id, an external id or a contact leads to a touch; of the visitor's touches the offer's
`attribution` chooses; where there is none, and it need not be waited for, a promo code or a partner's id may stand in.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

from msgspec.structs import replace

from edge.drain import contacts
from edge.drain.catalogs import CatalogHistory
from edge.drain.families import Families, session_of
from edge.drain.rows import RowMaker, Touched, moment
from edge.settings import Settings
from edge.tracking.click_id import ms_of, node_of, worker_of
from edge.tracking.crediting import credit_without_click, find_promo, names_partner
from storage.journal.events import Conversion, Session, decode, decode_session
from storage.postgres.connection import Connection
from storage.postgres.conversions import Recalled, WaitingRow
from storage.postgres.copy import Uuid
from storage.postgres.external_ids import find_external_ids
from storage.postgres.positions import all_vouched_through, others_vouched_through, vouched_through
from storage.postgres.sessions import find_sessions

ANY_WORKER = -1
"""Where others name the worker that minted an id, this waits for all of them."""
FOR_EVER_MS = 1 << 62


class SessionsAtHand(Protocol):
    """Sessions by click id."""

    def get(self, click_id: bytes, /) -> Session | None: ...


class Received(NamedTuple):
    """A conversion to decide. `was_decided`: it is stored already, as one whose click is unknown.

    `is_erased`: it is decided by all that it says; what is stored of it names nobody, `payload` included.
    """

    event: Conversion
    payload: bytes
    journal_id: UUID
    was_decided: bool = False
    is_erased: bool = False


class Matched(NamedTuple):
    """A conversion and what it is credited to, if anything; `must_wait`: its click may still be on its way."""

    received: Received
    touched: Touched | None
    must_wait: bool


def received_again(recalled: Recalled) -> Received:
    """A conversion that waited."""
    event = decode(recalled.event)
    if not isinstance(event, Conversion):
        raise TypeError("only conversions wait")
    return Received(event, recalled.event, recalled.journal_id, recalled.was_decided)


class _Horizon(NamedTuple):
    """How far journals are stored: those of each (node, worker) asked for, and all live ones."""

    by_minter: Mapping[tuple[int, int], int]
    all_ms: int

    def holds(self, event: Conversion) -> bool:
        """Whether the click that this conversion names would be stored by now."""
        if not event.click_id:
            return self.all_ms >= event.received_ms
        minter = node_of(event.click_id), worker_of(event.click_id)
        return self.by_minter.get(minter, -1) >= ms_of(event.click_id)


class Matcher:
    """Finds whom one drain's conversions are credited to."""

    def __init__(self, rows: RowMaker, settings: Settings, history: CatalogHistory) -> None:
        self._rows = rows
        self._wait = timedelta(seconds=settings.conversion_wait_s)
        self._history = history
        self._families = Families(history)

    async def match(
        self,
        conn: Connection,
        received: Sequence[Received],
        at_hand: SessionsAtHand,
        now: datetime,
        *,
        may_wait: bool = True,
    ) -> list[Matched]:
        """Each conversion with its touch, in the same order."""
        events = [one.event for one in received]
        await self._history.load(conn, {event.revision for event in events})
        named, horizon = await self._find_named(conn, events, at_hand)
        pairs = [(event, named[event.conversion_id]) for event in events if event.conversion_id in named]
        credited = await self._families.credit(conn, pairs)
        found = {event.conversion_id: touched for (event, _), touched in zip(pairs, credited, strict=True)}
        # The families' look-ups may have pushed these out of the history.
        await self._history.load(conn, {event.revision for event in events})
        matched = []
        for one in received:
            touched = found.get(one.event.conversion_id)
            must_wait = touched is None and may_wait and self._must_wait(one, horizon, now)
            if not must_wait:
                touched = self.with_promo(one.event, touched) if touched else self.without_click(one.event)
            matched.append(Matched(one, touched, must_wait))
        return matched

    def waiting_row(self, one: Received, decided_at: datetime | None) -> WaitingRow:
        """The conversion kept until its click comes."""
        event = one.event
        received_at = moment(event.received_ms)
        click_id = event.click_id
        return WaitingRow(
            Uuid(event.conversion_id),
            Uuid(click_id) if click_id else None,
            node_of(click_id) if click_id else ANY_WORKER,
            worker_of(click_id) if click_id else ANY_WORKER,
            ms_of(click_id) if click_id else event.received_ms,
            received_at,
            received_at + self._wait,
            one.payload,
            one.journal_id,
            decided_at,
            event.transaction_id if event.is_external and not one.is_erased else None,
        )

    def word_row(self, one: Received, touched: Touched | None) -> WaitingRow:
        """What takes back a conversion that nobody has stored yet, kept until the other journals are stored that far."""
        row, touch_id = self.waiting_row(one, None), touched.session.click_id if touched else b""
        return row._replace(
            click_id=row.click_id or (Uuid(touch_id) if touch_id else None),
            node_id=ANY_WORKER,
            worker_id=ANY_WORKER,
            id_ms=one.event.received_ms,
            external_id=None,
        )

    async def words_through(self, conn: Connection, words: Sequence[Received]) -> int:
        """Through which millisecond all is stored that may have come before these words, but for what is in their journal."""
        journals = {one.journal_id for one in words}
        if not journals:
            return FOR_EVER_MS
        through_ms = await others_vouched_through(conn, journals.pop() if len(journals) == 1 else None)
        return FOR_EVER_MS if through_ms is None else through_ms

    def may_be_early(self, one: Received, through_ms: int, now: datetime) -> bool:
        """Whether what it takes back may still be in a journal that is behind."""
        received_ms = one.event.received_ms
        return not one.was_decided and received_ms > through_ms and now < moment(received_ms) + self._wait

    async def _find_named(
        self, conn: Connection, events: Sequence[Conversion], at_hand: SessionsAtHand
    ) -> tuple[dict[bytes, Touched], _Horizon]:
        """The touches that were named, by conversion id, and how far those are drained who may bring the others.

        The horizon is asked first: a click committed between the two look-ups must not be taken for lost.
        """
        touched = self._recall(events, at_hand)
        missing = {event.click_id for event in events if event.click_id} - touched.keys()
        by_contact = [event for event in events if self._names_contact(event)]
        external = {event.transaction_id for event in events if event.is_external}
        minters = sorted({(node_of(one), worker_of(one)) for one in missing})
        horizon = _Horizon(
            await vouched_through(conn, minters) if minters else {},
            await all_vouched_through(conn) if by_contact or external else -1,
        )
        known = await find_external_ids(conn, external)
        touched |= await _look_up(conn, missing | set(known.values()))
        named = {event.conversion_id: touched[event.click_id] for event in events if event.click_id in touched}
        for event in events:
            if event.is_external and (one := touched.get(known.get(event.transaction_id, b""))):
                named[event.conversion_id] = one._replace(why="found by an id that is not ours")
        return named | await contacts.find_touches(conn, self._history, by_contact), horizon

    def _recall(self, events: Sequence[Conversion], at_hand: SessionsAtHand) -> dict[bytes, Touched]:
        """The touches that need no look-up: a worker or this drain still held them."""
        touched: dict[bytes, Touched] = {}
        for event in events:
            click_id = event.click_id
            if not click_id or click_id in touched:
                continue
            session = at_hand.get(click_id)
            if session is None and event.session:
                session = decode_session(event.session)
            if session is not None:
                touched[click_id] = self._rows.touched(session)
        return touched

    def _names_contact(self, event: Conversion) -> bool:
        """Whether a contact is all that says whose it is."""
        if event.click_id or event.transaction_id or event.via == "pixel" or "contact_id" not in event.params:
            return False
        return not names_partner(self._history.at(event.revision).offer(event.offer_id), event.params)

    def _must_wait(self, one: Received, horizon: _Horizon, now: datetime) -> bool:
        """Whether the click may still be on its way."""
        event = one.event
        if one.was_decided or not (event.click_id or event.is_external or self._names_contact(event)):
            return False
        return not horizon.holds(event) and now < moment(event.received_ms) + self._wait

    def with_promo(self, event: Conversion, touched: Touched) -> Touched:
        """The touch, its partner replaced where a promo code says so."""
        session = touched.session
        offer = self._history.at(event.revision).offer(session.offer_id)
        promo = find_promo(offer, event.params) if event.via != "pixel" else None
        if promo is None or not promo.wins or promo.aff_id == session.aff_id:
            return touched
        why = f"the promo code's partner {promo.aff_id} instead of the {touched.kind}'s, {session.aff_id}"
        why = f"{touched.why}; {why}" if touched.why else why
        return touched._replace(session=replace(session, aff_id=promo.aff_id), why=why)

    def without_click(self, event: Conversion) -> Touched | None:
        """The partner whom a postback names otherwise. What was forged is nobody's."""
        is_forged = not event.click_id and bool(event.transaction_id) and not event.is_external
        offer = self._history.at(event.revision).offer(event.offer_id)
        credit = credit_without_click(offer, event.params) if event.via != "pixel" and not is_forged else None
        if credit is None:
            return None
        contact = event.params.get("contact_id", "")
        session = Session(b"", event.revision, event.offer_id, credit.aff_id, 0, 0, contact, "", "")
        words = {"partner_id": "credited to the partner that it named", "promo_code": "credited by its promo code"}
        # Sent again, an order counts once: by the click that it named, though that never came. A rebill repeats by nature.
        named_id = event.click_id if credit.by == "promo_code" else b""
        return Touched(session, "", "", credit.by, named_id, words[credit.by])


async def _look_up(conn: Connection, ids: Collection[bytes]) -> dict[bytes, Touched]:
    """Those of `ids` that are stored clicks or, failing that, impressions."""
    if not ids:
        return {}
    clicks = await find_sessions(conn, ids)
    touched = {one: Touched(session_of(stored), stored.country, stored.device_type) for one, stored in clicks.items()}
    for one, stored in (await find_sessions(conn, set(ids) - clicks.keys(), "impressions")).items():
        touched[one] = Touched(session_of(stored), stored.country, stored.device_type, "impression")
    return touched
