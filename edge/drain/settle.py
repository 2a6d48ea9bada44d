"""Conversions into verdicts and rows: find the click, decide, claim, book. All of it inside the batch's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import NamedTuple, Protocol
from uuid import UUID

from edge.drain.catalogs import CatalogHistory
from edge.drain.rows import RowMaker, Touched, extras_of, hour_of, moment
from edge.settings import Settings
from edge.tracking.attribution import decide
from edge.tracking.click_id import ms_of, node_of, worker_of
from edge.tracking.payouts import ZERO
from edge.tracking.verdict import ConversionFacts, Verdict, touch_of
from storage.journal.events import Conversion, Session, decode, decode_session
from storage.postgres.connection import Connection
from storage.postgres.conversions import ChangeRow, ConversionRow, Recalled, WaitingRow
from storage.postgres.copy import Uuid
from storage.postgres.positions import vouched_through
from storage.postgres.sessions import find_sessions
from storage.postgres.stats import Deltas, StatsKey

_COLUMNS = ["adv_sub1", "adv_sub2", "adv_sub3", "adv_sub4", "adv_sub5", "conversion_unique_id", "promo_code"]
# The token is a secret; the rest has a column, or only said how to answer.
_NOT_EXTRA = frozenset(
    (*_COLUMNS, "transaction_id", "offer_id", "aff_id", "goal_id", "amount", "security_token", "ip", "format", "a")
)
UNKNOWN_CLICK = "unknown_click"


class SessionsAtHand(Protocol):
    """Sessions by click id."""

    def get(self, click_id: bytes, /) -> Session | None: ...


class Received(NamedTuple):
    """A conversion to decide. `was_decided`: it is stored already, as one whose click is unknown."""

    event: Conversion
    payload: bytes
    journal_id: UUID
    was_decided: bool = False


def received_again(recalled: Recalled) -> Received:
    """A conversion that waited."""
    event = decode(recalled.event)
    if not isinstance(event, Conversion):
        raise TypeError("only conversions wait")
    return Received(event, recalled.event, recalled.journal_id, recalled.was_decided)


class Decided(NamedTuple):
    """A verdict and what it was made of."""

    received: Received
    touched: Touched | None
    verdict: Verdict
    advertiser_id: int


@dataclass
class Settled:
    """What a transaction has to store."""

    new: list[ConversionRow] = field(default_factory=list)
    replaced: list[ConversionRow] = field(default_factory=list)
    changes: list[ChangeRow] = field(default_factory=list)
    waiting: list[WaitingRow] = field(default_factory=list)
    deltas: Deltas = field(default_factory=Deltas)


class Settler:
    """Decides the conversions of one drain."""

    def __init__(self, history: CatalogHistory, rows: RowMaker, settings: Settings) -> None:
        self._history = history
        self._rows = rows
        self._wait = timedelta(seconds=settings.conversion_wait_s)

    async def find_clicks(
        self, conn: Connection, received: Sequence[Received], at_hand: SessionsAtHand
    ) -> tuple[dict[bytes, Touched], dict[tuple[int, int], int]]:
        """The touched sessions by click id, and how far the minters of those not found are drained.

        In this order: a click committed between the two look-ups must not be taken for lost.
        """
        touched: dict[bytes, Touched] = {}
        missing: set[bytes] = set()
        for one in received:
            click_id = one.event.click_id
            if not click_id or click_id in touched:
                continue
            session = at_hand.get(click_id)
            if session is None and one.event.session:
                session = decode_session(one.event.session)
            if session is None:
                missing.add(click_id)
            else:
                touched[click_id] = self._rows.touched(session)
        if not missing:
            return touched, {}
        vouched = await vouched_through(conn, sorted({(node_of(one), worker_of(one)) for one in missing}))
        for click_id, stored in (await find_sessions(conn, missing)).items():
            known = Session(*stored[:7], ip="", user_agent="")
            touched[click_id] = Touched(known, stored.country, stored.device_type)
        return touched, vouched

    def must_wait(
        self, one: Received, touched: Mapping[bytes, Touched], vouched: Mapping[tuple[int, int], int], now: datetime
    ) -> bool:
        """Whether the click may still be on its way."""
        click_id = one.event.click_id
        if not click_id or click_id in touched or one.was_decided:
            return False
        if vouched.get((node_of(click_id), worker_of(click_id)), -1) >= ms_of(click_id):
            return False
        return now < moment(one.event.received_ms) + self._wait

    def revisions(self, received: Sequence[Received], touched: Mapping[bytes, Touched]) -> set[int]:
        """The catalog revisions that `decide` will ask for."""
        return {one.event.revision for one in received} | {known.session.revision for known in touched.values()}

    def decide(self, one: Received, touched: Touched | None) -> Decided:
        """The verdict, claims not yet tried."""
        event = one.event
        facts = ConversionFacts(
            event.conversion_id,
            event.received_ms,
            event.via,
            event.transaction_id,
            event.goal_id,
            event.params,
            event.ip,
        )
        is_forged = not event.click_id and bool(event.transaction_id)
        if touched is None:
            return Decided(one, None, decide(facts, None, None, None, None, None, forged=is_forged), 0)
        touch = touch_of(touched.session)
        # A worker that is a moment behind must not judge by a catalog older than the click's.
        catalog = self._history.at(max(event.revision, touch.revision))
        click_offer = self._history.at(touch.revision).offer(touch.offer_id)
        offer = catalog.offer(touch.offer_id)
        advertiser = catalog.advertiser(offer.advertiser_id) if offer else None
        partner = catalog.partner(touch.aff_id)
        verdict = decide(facts, touch, click_offer, offer, partner, advertiser, forged=False)
        return Decided(one, touched, verdict, offer.advertiser_id if offer else 0)

    def waiting_row(self, one: Received, decided_at: datetime | None) -> WaitingRow:
        """The conversion kept until its click comes."""
        event = one.event
        received_at = moment(event.received_ms)
        return WaitingRow(
            Uuid(event.conversion_id),
            Uuid(event.click_id),
            node_of(event.click_id),
            worker_of(event.click_id),
            ms_of(event.click_id),
            received_at,
            received_at + self._wait,
            one.payload,
            one.journal_id,
            decided_at,
        )

    def book(self, decided: Decided, now: datetime, settled: Settled) -> None:
        """Add the conversion's row, its change and its roll-up to `settled`."""
        row = self._row(decided)
        verdict, hour = decided.verdict, hour_of(now)
        was_decided = decided.received.was_decided
        counts = {name: int(verdict.status == status) for name, status in _COUNTED}
        earned = verdict.status == "approved"
        amount, payout, revenue = (
            value if earned else ZERO for value in (verdict.amount, verdict.payout, verdict.revenue)
        )
        settled.deltas.add(_key(row, hour), amount=amount, payout=payout, revenue=revenue, **counts)
        if was_decided:
            settled.replaced.append(row)
            before = self._row(self.decide(decided.received, None))
            settled.deltas.add(_key(before, hour), rejected=-1)
            counts["rejected"] -= 1
        else:
            settled.new.append(row)
        settled.changes.append(
            ChangeRow(
                row.conversion_id,
                hour,
                "drain",
                "decided",
                "rejected" if was_decided else "",
                verdict.status,
                verdict.reason,
                amount,
                payout,
                revenue,
                counts["conversions"],
                counts["pending"],
                counts["rejected"],
                verdict.explanation,
            )
        )
        if verdict.reason == UNKNOWN_CLICK and decided.received.event.click_id:
            settled.waiting.append(self.waiting_row(decided.received, now))

    def _row(self, decided: Decided) -> ConversionRow:
        event, verdict, touched = decided.received.event, decided.verdict, decided.touched
        params = event.params
        session = touched.session if touched else None
        extras = extras_of(params, _NOT_EXTRA)
        if verdict.amount_note:
            extras["amount_sent"] = verdict.amount_note
        return ConversionRow(
            Uuid(event.conversion_id),
            Uuid(event.click_id) if event.click_id else None,
            event.transaction_id,
            node_of(session.click_id if session else event.conversion_id),
            decided.advertiser_id,
            session.offer_id if session else event.offer_id,
            session.aff_id if session else 0,
            verdict.goal_id,
            session.landing_page_id if session else 0,
            session.creative_id if session else 0,
            moment(ms_of(session.click_id)) if session else None,
            moment(verdict.converted_ms),
            moment(event.received_ms),
            verdict.amount,
            verdict.currency,
            verdict.revenue,
            verdict.payout,
            verdict.status,
            verdict.reason,
            verdict.status_code,
            params.get("adv_sub1", ""),
            params.get("adv_sub2", ""),
            params.get("adv_sub3", ""),
            params.get("adv_sub4", ""),
            params.get("adv_sub5", ""),
            params.get("conversion_unique_id", ""),
            params.get("promo_code", ""),
            event.via,
            self._rows.stored_ip(_visitor_address(event)),
            touched.country if touched else "",
            touched.device_type if touched else "",
            extras,
            event.revision,
        )


def _visitor_address(event: Conversion) -> str:
    """The buyer's address where a server says it, else the sender's."""
    said = event.params.get("ip", "") if event.via == "postback" else ""
    try:
        return str(ip_address(said)) if said else event.ip
    except ValueError:
        return event.ip


_COUNTED = (("conversions", "approved"), ("pending", "pending"), ("rejected", "rejected"))


def _key(row: ConversionRow, hour: datetime) -> StatsKey:
    return StatsKey(
        hour,
        row.node_id,
        row.advertiser_id,
        row.offer_id,
        row.aff_id,
        row.goal_id,
        row.landing_page_id,
        row.creative_id,
        row.country,
        row.device_type,
        row.currency,
    )
