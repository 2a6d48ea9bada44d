"""Conversions into verdicts and rows: decide, book. All of it inside the batch's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import NamedTuple

from edge.drain.catalogs import CatalogHistory
from edge.drain.matching import Matcher, Received
from edge.drain.rows import RowMaker, Touched, extras_of, hour_of, moment
from edge.tracking.attribution import decide
from edge.tracking.click_id import ms_of, node_of
from edge.tracking.payouts import ZERO
from edge.tracking.verdict import ConversionFacts, Verdict, touch_of
from storage.journal.events import Conversion
from storage.postgres.conversions import ChangeRow, ConversionRow, WaitingRow
from storage.postgres.copy import Uuid
from storage.postgres.stats import Deltas, StatsKey

_COLUMNS = ["adv_sub1", "adv_sub2", "adv_sub3", "adv_sub4", "adv_sub5", "conversion_unique_id", "promo_code"]
# The token is a secret; the rest has a column, or only said how to answer, or who sent it.
_HOW_SENT = ("security_token", "signature", "timestamp", "format", "a")
_NOT_EXTRA = frozenset((*_COLUMNS, *_HOW_SENT, "transaction_id", "offer_id", "aff_id", "goal_id", "amount", "ip"))
UNKNOWN_CLICK = "unknown_click"


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

    def __init__(self, history: CatalogHistory, rows: RowMaker, matcher: Matcher) -> None:
        self._history = history
        self._rows = rows
        self._matcher = matcher

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
            settled.waiting.append(self._matcher.waiting_row(decided.received, now))

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
