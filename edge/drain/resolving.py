"""Verdicts, in the journal's order, into rows or into changes of earlier conversions; and prices by tier.

An earlier conversion may be stored already, its row locked beforehand, or be of the same batch. What a batch makes of it
is kept here until all of it is written: a batch that is rolled back leaves nothing behind.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from edge.drain.announcing import outbox_of
from edge.drain.caps import CapBench, CapJudge
from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import Why, book_change, booking_hour, state_of
from edge.drain.claims import Keys
from edge.drain.matching import FOR_EVER_MS
from edge.drain.rows import hour_of, moment
from edge.drain.settle import Decided, Settled, Settler, revision_of
from edge.drain.tiers import TierCounts
from edge.tracking.caps import EVER
from edge.tracking.catalog import OfferView
from edge.tracking.changes import ADVERTISER, ChangeRefused, answer
from edge.tracking.click_id import ms_of
from edge.tracking.payouts import MONEY_LIMIT, ZERO
from edge.tracking.status_codes import LATER
from edge.tracking.tombstones import nameless_event
from edge.tracking.verdict import Ask, Pricing
from storage.postgres.changes import Held, Sought, find_latest, lock_conversions
from storage.postgres.connection import Connection
from storage.postgres.conversions import ConversionRow
from storage.postgres.months import ClosedMonth, closed_months
from storage.postgres.stats import Deltas

Place = tuple[UUID | None, int]
CLOCKS_DIFFER = timedelta(seconds=1)
"""Of two machines, at most: what one received may seem to be a little later than what another received after it."""


class Ledger:
    """The conversions that a batch may change, as they are by now."""

    def __init__(self) -> None:
        self.held: dict[UUID, Held] = {}
        self.closed: list[ClosedMonth] = []
        self._is_asked = False
        self._stored: dict[Sought, UUID] = {}
        self._made: dict[Place, list[UUID]] = defaultdict(list)

    async def lock(self, conn: Connection, tried: Sequence[Decided], keys: Keys) -> None:
        """Find and lock those that are stored, then the months in which they are booked."""
        asking = [one for one in tried if one.verdict.ask]
        if not asking:
            return
        self._is_asked = True
        searching = {sought for one in asking if _is_search(one) for sought in _sought(one)}
        self._stored = await find_latest(conn, list(searching), LATER["rejected"]) if searching else {}
        wanted = {id_ for one in asking for id_ in self._wanted(one, keys)}
        # Those of this batch are not stored yet, or as what they no longer are.
        wanted -= {UUID(bytes=one.received.event.conversion_id) for one in tried}
        if wanted:
            self.held = {held.conversion_id: held for held in await lock_conversions(conn, wanted)}
            self.closed = await closed_months(conn)

    def add(self, row: ConversionRow, event_id: str, hour: datetime) -> None:
        """A conversion that the batch makes; kept where another may mean it, for most batches ask nothing."""
        if not self._is_asked:
            return
        shared = row._asdict()
        own = {"event_id": event_id, "booked_hour": hour}
        held = Held._make(own[name] if name in own else shared[name] for name in Held._fields)
        self.held[held.conversion_id] = held
        if held.status != "rejected":
            for place in places_of(held):
                self._made[place].append(held.conversion_id)

    def at_hand(self, one: Decided, keys: Keys) -> Iterator[Held]:
        """Those stored before that `one` may change."""
        return (self.held[id_] for id_ in self._wanted(one, keys) if id_ in self.held)

    def find(self, one: Decided) -> Held | None:
        """The conversion that `one` asks something of; None: there is none, or it is another advertiser's."""
        if one.verdict.ask is None:
            return None
        held = self.held.get(one.holder) if one.holder else None
        if one.holder is None and _is_search(one):
            held = next(filter(None, map(self._latest, _sought(one))), None)
        is_meant = held and held.advertiser_id == one.advertiser_id and held.received_at <= _received_by(one)
        return held if is_meant else None

    def _wanted(self, one: Decided, keys: Keys) -> list[UUID]:
        if not _is_search(one):
            return [*keys.stored_holders(one)]
        return [self._stored[sought] for sought in _sought(one) if sought in self._stored]

    def _latest(self, sought: Sought) -> Held | None:
        """As `find_latest` has it, of the batch's own and of what is stored."""
        made = (self.held[id_] for id_ in reversed(self._made.get((sought.click_id, sought.goal_id), ())))
        found = [one for one in made if _is_meant(one, sought)]
        stored = self._stored.get(sought)
        if stored in self.held:
            found.append(self.held[stored])
        exact = (one for one in found if (one.named_click_id or one.click_id) == sought.click_id)
        return next(exact, found[0] if found else None)


class Turn(NamedTuple):
    """What one transaction's conversions are resolved with."""

    keys: Keys
    ledger: Ledger
    counts: TierCounts
    caps: CapBench
    now: datetime
    settled: Settled
    through_ms: int = FOR_EVER_MS
    """Through which millisecond the other journals are stored: what is taken back may still be in one."""


class Resolver:
    """Resolves the verdicts of one drain."""

    def __init__(self, settler: Settler, history: CatalogHistory, caps: CapJudge, zone: ZoneInfo) -> None:
        self._settler = settler
        self._history = history
        self._caps = caps
        self._zone = zone

    async def resolve(
        self,
        conn: Connection,
        tried: Sequence[Decided],
        keys: Keys,
        ledger: Ledger,
        touches: Deltas,
        now: datetime,
        settled: Settled,
        through_ms: int = FOR_EVER_MS,
    ) -> list[Decided]:
        """Book every conversion, as one of its own or as a change; those of their own."""
        counts = TierCounts(self._zone)
        self._need(counts, tried, keys, ledger, now)
        await counts.lock(conn)
        caps = await self._caps.open(conn, tried, ledger.held.values(), touches, now)
        turn = Turn(keys, ledger, counts, caps, now, settled, through_ms)
        booked = [made for one in tried if (made := self.settle_one(one, turn))]
        settled.postbacks.extend(outbox_of(self._history, booked))
        await counts.write(conn)
        await caps.write(conn)
        await keys.write(conn)
        return booked

    def settle_one(self, tried: Decided, turn: "Turn") -> Decided | None:
        """In its turn; None: it is a change of another and has no row, or waits for what it changes."""
        one = turn.keys.judge(tried)
        if self._change(one, turn):
            turn.keys.take_signature(tried)
            if not one.received.was_decided:
                return None
            # It has a row of its own already, which cannot earn as well.
            return self._book(one._replace(verdict=one.verdict.as_duplicate()), turn)
        is_alone = takes_back(one) and turn.ledger.find(one) is None
        if is_alone and self._settler.wait(one, turn.through_ms, turn.now, turn.settled):
            return None
        booked = self._book(one, turn)
        turn.keys.take(tried, booked.verdict.status)
        if booked.verdict.reason == "duplicate":
            turn.keys.take_signature(tried)
        return booked

    def _need(self, counts: TierCounts, tried: Iterable[Decided], keys: Keys, ledger: Ledger, now: datetime) -> None:
        hour = hour_of(now)
        for one in tried:
            offer = self._offer_of(one)
            if one.touched is None or offer is None:
                continue
            if one.verdict.status != "rejected":
                counts.need(offer.id, one.touched.session.aff_id, hour, is_tiered=bool(offer.tiers))
            for held in ledger.at_hand(one, keys):
                at = booking_hour(held, ledger.closed, now)
                counts.need(held.offer_id, held.aff_id, at, is_tiered=held.offer_id == offer.id and bool(offer.tiers))

    def _change(self, one: Decided, turn: "Turn") -> bool:
        """Change the earlier conversion as `one` asks; False: it stands for itself."""
        held, verdict = turn.ledger.find(one), one.verdict
        if held is None or verdict.ask is None or verdict.pricing is None:
            return False
        ask = verdict.ask
        pricing: Pricing | None = verdict.pricing
        hour = booking_hour(held, turn.ledger.closed, turn.now)
        is_same_money = held.currency == verdict.currency
        if not _is_same_place(one, held) or not is_same_money:
            pricing = self._pricing_of(held, one, verdict.pricing)
            # The same unique id elsewhere, or the offer has another currency by now: only the status may follow.
            if not is_same_money or not _is_same_order(ask, held):
                ask = msgspec.structs.replace(ask, mode="")
        if ask.mode == "update" and _received_at(one) + CLOCKS_DIFFER < held.received_at:
            # Its journal was stored later: what it would overwrite is the later word.
            ask = msgspec.structs.replace(ask, mode="")
        try:
            after = answer(state_of(held), ask, pricing, turn.counts.rank(held.offer_id, held.aff_id, hour))
        except ChangeRefused:
            after = None
        if after is None:
            return False
        is_told = after.status != held.status
        event = one.received.event
        reason = ADVERTISER if is_told else verdict.ask.mode
        why = Why(
            "import" if event.via == "import" else "postback",
            reason,
            "" if one.received.is_erased else verdict.explanation,
            self._history.at(revision_of(one)),
            nameless_event(event, keeps_sender=False) if one.received.is_erased else event,
        )
        changed = turn.ledger.held[held.conversion_id] = book_change(turn.settled, held, after, hour, why)
        turn.counts.add(held.offer_id, held.aff_id, hour, turn.settled.changes[-1].conversions_delta)
        turn.caps.change(held, changed)
        return True

    def _pricing_of(self, held: Held, one: Decided, sent: Pricing) -> Pricing | None:
        """What was sent at the terms of the conversion that it is about, which is another partner's, goal's or offer's.

        None: its offer is gone, or has another currency by now.
        """
        offer = self._history.at(revision_of(one)).offer(held.offer_id)
        if offer is None or offer.currency != held.currency:
            return None
        terms = offer.terms(held.goal_id, held.aff_id)
        if offer.currency != one.verdict.currency:
            return Pricing(terms)
        is_set = offer.advertiser_sets_amounts
        return Pricing(terms, sent.amount, sent.payout if is_set else None, sent.revenue if is_set else None)

    def _book(self, one: Decided, turn: "Turn") -> Decided:
        hour = hour_of(turn.now)
        one = turn.caps.decide(self._priced(one, turn.counts, turn.now), one)
        row = self._settler.book(one, turn.now, turn.settled)
        turn.ledger.add(row, one.received.event.params.get("adv_unique1", ""), hour)
        if row.status == "approved":
            turn.counts.add(row.offer_id, row.aff_id, hour, 1)
        return one

    def _priced(self, one: Decided, counts: TierCounts, now: datetime) -> Decided:
        """With the payout of the tier that it reaches, unless the advertiser has set it."""
        verdict, pricing = one.verdict, one.verdict.pricing
        if verdict.status != "approved" or pricing is None or pricing.payout is not None or one.touched is None:
            return one
        session = one.touched.session
        rank = counts.rank(session.offer_id, session.aff_id, hour_of(now))
        if not (tier := pricing.terms.tier(rank)):
            return one
        payout = pricing.of(pricing.amount or ZERO, tier).payout
        if payout >= MONEY_LIMIT:
            return one
        note = f"{verdict.explanation}; the partner's number {rank} this month, so of the tier from {tier}"
        return one._replace(verdict=msgspec.structs.replace(verdict, payout=payout, tier=tier, explanation=note))

    def _offer_of(self, one: Decided) -> OfferView | None:
        if one.touched is None:
            return None
        session = one.touched.session
        return self._history.at(revision_of(one)).offer(session.offer_id)


def _is_same_place(one: Decided, held: Held) -> bool:
    """Whether both are of one click and goal and, as a promo code may say otherwise, of one partner; so of one price."""
    session, ask = one.touched and one.touched.session, one.verdict.ask
    if session is None or ask is None:
        return False
    return (*_place(ask), session.offer_id, session.aff_id) == (held.click_id, held.goal_id, held.offer_id, held.aff_id)


def _is_same_order(ask: Ask, held: Held) -> bool:
    """Whether both came with one click, though the visitor clicked again between them and another is credited by now."""
    named = UUID(bytes=ask.named_id) if ask.named_id else None
    return named is not None and named in (held.named_click_id, held.click_id) and ask.goal_id == held.goal_id


def _is_search(one: Decided) -> bool:
    """Whether it means the latest of its click and goal, whatever key that holds: a partner alone has too many."""
    ask = one.verdict.ask
    return ask is not None and not ask.seeks and ask.said not in ("", "pending") and bool(ask.click_id)


def _is_meant(found: Held, sought: Sought) -> bool:
    is_named = not sought.event_id or found.event_id == sought.event_id
    is_open = found.status == "pending" or not sought.only_pending
    return is_named and is_open and found.received_at <= sought.received_by


def _sought(one: Decided) -> list[Sought]:
    """By the click that was named, else by the one that is credited."""
    ask = one.verdict.ask
    if ask is None:
        return []
    clicks, received_by = dict.fromkeys(id_ for id_ in (ask.named_id, ask.click_id) if id_), _received_by(one)
    return [Sought(UUID(bytes=id_), ask.goal_id, ask.event_id, ask.only_pending, received_by) for id_ in clicks]


def _received_by(one: Decided) -> datetime:
    """What came later is not taken back, though its journal was stored first: the advertiser did not know of it."""
    return _received_at(one) + CLOCKS_DIFFER if takes_back(one) else EVER


def _received_at(one: Decided) -> datetime:
    """By its id too, whose millisecond only grows: a clock that was set back does not put it before its worker's others."""
    event = one.received.event
    return moment(max(event.received_ms, ms_of(event.conversion_id)))


def takes_back(one: Decided) -> bool:
    """Whether it is the advertiser's word that an earlier conversion is rejected or reversed."""
    return one.verdict.ask is not None and one.verdict.ask.said in ("rejected", "reversed")


def _place(ask: Ask) -> Place:
    return UUID(bytes=ask.click_id) if ask.click_id else None, ask.goal_id


def places_of(held: Held) -> list[Place]:
    """Where a later one may look for it: the click that it is credited to, and the one that it named."""
    return [(one, held.goal_id) for one in dict.fromkeys((held.click_id, held.named_click_id or held.click_id))]
