"""Conversions into verdicts and rows: decide, book. All of it inside the batch's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import NamedTuple
from uuid import UUID

from edge.drain.catalogs import CatalogHistory
from edge.drain.matching import Matched, Matcher, Received
from edge.drain.rows import RowMaker, Touched, extras_of, hour_of, moment
from edge.tracking.attribution import decide
from edge.tracking.click_id import ms_of, node_of
from edge.tracking.payouts import ZERO
from edge.tracking.verdict import Verdict, facts_of, touch_of
from storage.journal.events import Conversion
from storage.postgres.changes import Held
from storage.postgres.contacts import Sightings
from storage.postgres.conversions import ChangeRow, ConversionRow, WaitingRow
from storage.postgres.copy import Uuid
from storage.postgres.outbox import OutboxRow
from storage.postgres.stats import Deltas, StatsKey

_COLUMNS = [
    "adv_sub1",
    "adv_sub2",
    "adv_sub3",
    "adv_sub4",
    "adv_sub5",
    "conversion_unique_id",
    "promo_code",
    "contact_id",
]
# The token is a secret; the rest has a column, or only said how to answer, or who sent it.
_HOW_SENT = ("security_token", "signature", "timestamp", "format", "a")
NOT_EXTRA = frozenset((*_COLUMNS, *_HOW_SENT, "transaction_id", "offer_id", "aff_id", "goal_id", "amount", "ip"))
UNKNOWN_CLICK = "unknown_click"


class Decided(NamedTuple):
    """A verdict and what it was made of."""

    received: Received
    touched: Touched | None
    verdict: Verdict
    advertiser_id: int
    holder: Uuid | None = None
    """The conversion that holds a key which this one asks for."""
    is_repeated: bool = False


def revision_of(one: Decided) -> int:
    """The catalog's, by which it is judged: a worker that is a moment behind must not judge by one older than the click's."""
    return max(one.received.event.revision, one.touched.session.revision if one.touched else 0)


@dataclass
class Settled:
    """What a transaction has to store."""

    new: list[ConversionRow] = field(default_factory=list)
    replaced: list[ConversionRow] = field(default_factory=list)
    changes: list[ChangeRow] = field(default_factory=list)
    changed: dict[UUID, Held] = field(default_factory=dict)
    """Conversions that were changed, as they are now."""
    waiting: list[WaitingRow] = field(default_factory=list)
    deltas: Deltas = field(default_factory=Deltas)
    contacts: Sightings = field(default_factory=Sightings)
    postbacks: list[OutboxRow] = field(default_factory=list)


class Settler:
    """Decides the conversions of one drain."""

    def __init__(self, history: CatalogHistory, rows: RowMaker, matcher: Matcher) -> None:
        self._history = history
        self._rows = rows
        self._matcher = matcher

    def revisions(self, matched: Sequence[Matched]) -> set[int]:
        """The catalog revisions that `decide` will ask for."""
        touched = {one.touched.session.revision for one in matched if one.touched}
        return {one.received.event.revision for one in matched} | touched

    def decide(self, one: Received, touched: Touched | None) -> Decided:
        """The verdict, claims not yet tried."""
        event = one.event
        facts = facts_of(event)
        is_forged = not event.click_id and bool(event.transaction_id) and not event.is_external
        if touched is None:
            return Decided(one, None, decide(facts, None, None, None, None, None, forged=is_forged), 0)
        session = touched.session
        ms = 0 if session.click_id else event.received_ms
        touch = touch_of(session, touched.kind, touched.named_id, touched.why, ms)
        # A worker that is a moment behind must not judge by a catalog older than the click's.
        catalog = self._history.at(max(event.revision, touch.revision))
        click_offer = self._history.at(touch.revision).offer(touch.offer_id)
        offer = catalog.offer(touch.offer_id)
        advertiser = catalog.advertiser(offer.advertiser_id) if offer else None
        partner = catalog.partner(touch.aff_id)
        verdict = decide(facts, touch, click_offer, offer, partner, advertiser, forged=False)
        return Decided(one, touched, verdict, offer.advertiser_id if offer else 0)

    def wait(self, decided: Decided, through_ms: int, now: datetime, settled: Settled) -> bool:
        """Keep what takes back a conversion that may still be on its way; False: all that came before it is stored."""
        if not self._matcher.may_be_early(decided.received, through_ms, now):
            return False
        settled.waiting.append(self._matcher.word_row(decided.received, decided.touched))
        return True

    def book(self, decided: Decided, now: datetime, settled: Settled) -> ConversionRow:
        """Add the conversion's row, its change and its roll-up to `settled`; the row."""
        row = self._row(decided)
        if row.contact_id:
            settled.contacts.see(row.contact_id, row.converted_at)
        verdict, hour = decided.verdict, hour_of(now)
        was_decided = decided.received.was_decided
        counts = {name: int(verdict.status == status) for name, status in _COUNTED}
        earned = verdict.status == "approved"
        amount, payout, revenue = (
            value if earned else ZERO for value in (verdict.amount, verdict.payout, verdict.revenue)
        )
        settled.deltas.add(stats_key(row, hour), amount=amount, payout=payout, revenue=revenue, **counts)
        if was_decided:
            settled.replaced.append(row)
            before = self._row(self.decide(decided.received, None))
            settled.deltas.add(stats_key(before, hour), rejected=-1)
            counts["rejected"] -= 1
        else:
            settled.new.append(row)
        settled.changes.append(
            ChangeRow(
                row.conversion_id,
                hour,
                "import" if decided.received.event.via == "import" else "drain",
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
                "" if decided.received.is_erased else verdict.explanation,
                verdict.amount,
                verdict.payout,
                verdict.revenue,
            )
        )
        event = decided.received.event
        if verdict.reason == UNKNOWN_CLICK and (event.click_id or event.is_external):
            settled.waiting.append(self._matcher.waiting_row(decided.received, now))
        return row

    def _row(self, decided: Decided) -> ConversionRow:
        row = self._full_row(decided)
        return nameless_row(row) if decided.received.is_erased else row

    def _full_row(self, decided: Decided) -> ConversionRow:
        event, verdict, touched = decided.received.event, decided.verdict, decided.touched
        params = event.params
        session = touched.session if touched else None
        # A partner credited without a click has a session without an id.
        click_id = session.click_id if session else event.click_id
        extras = extras_of(params, NOT_EXTRA)
        extras.pop("repeated", None)  # the mark is ours to make
        if decided.is_repeated:
            extras["repeated"] = "1"
        if verdict.amount_note:
            extras["amount_sent"] = verdict.amount_note
        if touched and touched.kind != "click":
            extras["touch"] = touched.kind
        return ConversionRow(
            Uuid(event.conversion_id),
            Uuid(click_id) if click_id else None,
            event.transaction_id,
            node_of(click_id if session and click_id else event.conversion_id),
            decided.advertiser_id,
            session.offer_id if session else event.offer_id,
            session.aff_id if session else 0,
            verdict.goal_id,
            session.landing_page_id if session else 0,
            session.creative_id if session else 0,
            moment(ms_of(click_id)) if session and click_id else None,
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
            revision_of(decided),
            verdict.tier,
            params.get("contact_id") or (session.contact_id if session else ""),
            Uuid(touched.named_id) if touched and touched.named_id else None,
        )


_KEPT_EXTRAS = ("touch", "repeated")


def nameless_row(row: ConversionRow) -> ConversionRow:
    """The row without what can name a person, as `clickedge erase` leaves it."""
    own_id = str(row.click_id).replace("-", "")
    return row._replace(
        contact_id="",
        conversion_unique_id="",
        promo_code="",
        adv_sub1="",
        adv_sub2="",
        adv_sub3="",
        adv_sub4="",
        adv_sub5="",
        ip=None,
        transaction_id=own_id if row.transaction_id == own_id else "",
        extras={name: value for name, value in row.extras.items() if name in _KEPT_EXTRAS},
        erased_at=datetime.now(UTC),
    )


def _visitor_address(event: Conversion) -> str:
    """The buyer's address where a server says it, else the sender's."""
    said = event.params.get("ip", "") if event.via != "pixel" else ""
    try:
        return str(ip_address(said)) if said else event.ip
    except ValueError:
        return event.ip


_COUNTED = (("conversions", "approved"), ("pending", "pending"), ("rejected", "rejected"))


def stats_key(row: ConversionRow | Held, hour: datetime) -> StatsKey:
    """Where a conversion is counted in that hour."""
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
