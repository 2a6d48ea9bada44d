"""The verdict on a conversion: one pure function of what was sent, the click it names and the catalog.

Which click is meant was decided before (`crediting`). `decide` asks `_CHECKS` in their order: the first that finds a fault
gives the reason; after them the advertiser's own word counts. The click's revision of the catalog decides its window; the
conversion's decides money, token and status. The caller claims `Verdict.claims` in the database and takes `as_duplicate()`
when one of them is held already.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hmac import compare_digest
from typing import Literal

import msgspec

from edge.tracking import signatures
from edge.tracking.addresses import is_allowed
from edge.tracking.asking import ask_of, claims_of, late_ask, repeat_key_of, said_of
from edge.tracking.parameters import to_id
from edge.tracking.payouts import (
    MONEY_LIMIT,
    ZERO,
    Money,
    parse_amount,
    round_money,
    uses_percentage,
)
from edge.tracking.status_codes import APPROVED, PENDING, Reason, Status, rejection_code
from edge.tracking.verdict import (
    AdvertiserView,
    Ask,
    ConversionFacts,
    ConversionTerms,
    OfferView,
    PartnerView,
    Pricing,
    Touch,
    Verdict,
)

MAX_BACKDATING_MS = 30 * 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class _Case(msgspec.Struct, frozen=True):
    """Everything about one conversion whose click, offer and advertiser are known."""

    sent: ConversionFacts
    touch: Touch
    click_offer: OfferView
    offer: OfferView
    partner: PartnerView | None
    advertiser: AdvertiserView
    goal_id: int
    """-1: the offer has no such goal."""
    converted_ms: int

    @property
    def elapsed_ms(self) -> int:
        # Ids may run ahead of the clock, and clocks differ between machines: no conversion is before its click.
        return max(0, self.converted_ms - self.touch.ms)

    @property
    def terms(self) -> ConversionTerms:
        return self.offer.terms(self.goal_id, self.touch.aff_id)

    @property
    def is_foreign(self) -> bool:
        """Whether its amounts are in another currency than the offer's."""
        return (self.sent.params.get("currency") or self.offer.currency).upper() != self.offer.currency


def decide(
    conversion: ConversionFacts,
    touch: Touch | None,
    click_offer: OfferView | None,
    offer: OfferView | None,
    partner: PartnerView | None,
    advertiser: AdvertiserView | None,
    *,
    forged: bool,
) -> Verdict:
    """The verdict. `click_offer`: the offer at the click's revision; the rest: at the conversion's. Never raises."""
    if forged:
        return _refuse_unmatched(conversion, "forged_id", "the transaction_id was not minted here")
    if touch is None:
        return _refuse_unmatched(conversion, "unknown_click", _unknown(conversion))
    if click_offer is None or offer is None:
        return _refuse_unmatched(conversion, "unknown_offer", f"the catalog has no offer {touch.offer_id}")
    if advertiser is None:
        # Without it neither token nor addresses can be checked, so nothing may pass.
        return _refuse_unmatched(conversion, "unknown_offer", f"offer {touch.offer_id} has no advertiser any more")
    goal_id = _goal_of(conversion, offer)
    converted_ms = conversion_time(conversion, touch, advertiser)
    case = _Case(conversion, touch, click_offer, offer, partner, advertiser, goal_id, converted_ms)
    for reason, find_fault in _CHECKS:
        if fault := find_fault(case):
            others = (other for other, find_other in _CHECKS if other != reason and find_other(case))
            return _refuse(case, reason, fault, ask=late_ask(case, [reason, *others]) if said_of(case.sent) else None)
    said = said_of(case.sent)
    if said in ("rejected", "reversed"):
        return _refuse(case, "advertiser", f"the advertiser says that it is {said}", ask=ask_of(case))
    return _accept(case, said)


def parse_datetime(text: str) -> int | None:
    """Unix ms of ISO 8601, `YYYY-MM-DD HH:MM:SS` (UTC unless it says otherwise) or Unix seconds; None if none."""
    if not text.isascii():
        return None
    if text.isdigit() and 9 <= len(text) <= 11:
        return int(text) * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MS


def has_valid_token(conversion: ConversionFacts, advertiser: AdvertiserView) -> bool:
    """Whether the advertiser has a token and it was sent; in constant time."""
    sent, expected = conversion.params.get("security_token", ""), advertiser.security_token
    # compare_digest takes only ASCII as text, and lone surrogates must not raise here.
    return bool(expected) and compare_digest(
        sent.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )


def conversion_time(conversion: ConversionFacts, touch: Touch, advertiser: AdvertiserView) -> int:
    """`datetime` where it can be believed: with a valid token, between click and receipt; else the receipt.

    Without a click it may be up to 30 days back. An imported file is the network's own word: it is believed as it stands.
    """
    sent_ms = parse_datetime(conversion.params.get("datetime", ""))
    if conversion.via == "import" and sent_ms is not None:
        return min(max(sent_ms, touch.ms if touch.click_id else 0), conversion.received_ms)
    earliest_ms = touch.ms if touch.click_id else conversion.received_ms - MAX_BACKDATING_MS
    if sent_ms is None or not earliest_ms <= sent_ms <= conversion.received_ms:
        return conversion.received_ms
    return sent_ms if has_valid_token(conversion, advertiser) else conversion.received_ms


def _goal_of(conversion: ConversionFacts, offer: OfferView) -> int:
    """The goal meant, 0 for none, -1 for one unknown. The worker resolves names only where it knows the offer."""
    goal_id, name = conversion.params.get("goal_id", ""), conversion.params.get("goal_name", "")
    if goal_id in ("", "0") and name:
        goal = offer.goals_by_name.get(name)
        return goal.id if goal else -1
    number = conversion.goal_id or (0 if goal_id in ("", "0") else to_id(goal_id) or -1)
    return number if number == 0 or number in offer.goals_by_id else -1


def _pixel_fault(case: _Case) -> str:
    refused = case.sent.via == "pixel" and not case.offer.pixels
    return "the offer takes no browser pixels" if refused else ""


def _token_fault(case: _Case) -> str:
    if case.sent.via != "postback" or not case.advertiser.security_token or has_valid_token(case.sent, case.advertiser):
        return ""
    return "the security_token is wrong" if case.sent.params.get("security_token") else "no security_token was sent"


def _signature_fault(case: _Case) -> str:
    return signatures.find_fault(case.sent, case.advertiser)


def _address_fault(case: _Case) -> str:
    allowed = case.advertiser.allowed_ips
    if case.sent.via != "postback" or not allowed or is_allowed(case.sent.ip, allowed):
        return ""
    return f"the advertiser's allowed_ips do not hold {case.sent.ip or 'an unknown address'}"


def _expiry_fault(case: _Case) -> str:
    if case.offer.status == "expired":
        return "the offer has the status expired"
    is_over = 0 < case.offer.expires_at_ms <= case.converted_ms
    return "the offer's expires_at had passed" if is_over else ""


def _missing_partner_fault(case: _Case) -> str:
    return f"the catalog has no partner {case.touch.aff_id}" if case.partner is None else ""


def _blocked_partner_fault(case: _Case) -> str:
    is_blocked = case.partner is not None and case.partner.status == "blocked"
    return f"partner {case.touch.aff_id} is blocked" if is_blocked else ""


def _window_fault(case: _Case) -> str:
    if not case.touch.click_id:
        return ""
    is_click, offer = case.touch.kind != "impression", case.click_offer
    window_s = offer.click_window_s if is_click else offer.impression_window_s
    if case.elapsed_ms <= window_s * 1000 and (is_click or window_s):
        return ""
    touch = "click" if is_click else "view"
    return f"{_span(case.elapsed_ms)} after the {touch}; its window is {_span(window_s * 1000)}"


def _haste_fault(case: _Case) -> str:
    if not case.touch.click_id or case.elapsed_ms >= case.offer.min_seconds_to_convert * 1000:
        return ""
    return f"{case.elapsed_ms} ms after the click; the offer asks for {case.offer.min_seconds_to_convert} s"


def _goal_fault(case: _Case) -> str:
    params = case.sent.params
    goal = params.get("goal_id") or params.get("goal_name") or str(case.sent.goal_id)
    return f"the offer has no goal {goal[:64]!a}" if case.goal_id < 0 else ""


def _amount_fault(case: _Case) -> str:
    for name in ("amount", "payout", "revenue") if case.offer.advertiser_sets_amounts else ("amount",):
        text = case.sent.params.get(name)
        if text and parse_amount(text) is None:
            return f"{name} is no plain decimal of at most 12 digits and 6 decimals: {text[:40]!a}"
    return "payout or revenue is 10^12 or more" if max(_money(case)) >= MONEY_LIMIT else ""


def _currency_fault(case: _Case) -> str:
    params, terms = case.sent.params, case.terms
    sets_amounts = case.offer.advertiser_sets_amounts and (params.get("payout") or params.get("revenue"))
    if case.is_foreign and (sets_amounts or uses_percentage(terms)):
        return f"the money depends on an amount in {params['currency'][:8]!a}; the offer is in {case.offer.currency}"
    return ""


_CHECKS: tuple[tuple[Reason, Callable[[_Case], str]], ...] = (
    ("pixel_refused", _pixel_fault),
    ("bad_token", _token_fault),
    ("bad_signature", _signature_fault),
    ("ip_not_allowed", _address_fault),
    ("offer_inactive", _expiry_fault),
    ("unknown_partner", _missing_partner_fault),
    ("partner_blocked", _blocked_partner_fault),
    ("outside_window", _window_fault),
    ("too_soon", _haste_fault),
    ("unknown_goal", _goal_fault),
    ("invalid_amount", _amount_fault),
    ("currency_mismatch", _currency_fault),
)


def _refuse_unmatched(conversion: ConversionFacts, reason: Reason, explanation: str) -> Verdict:
    return Verdict(
        status="rejected",
        reason=reason,
        status_code=rejection_code(reason),
        goal_id=conversion.goal_id,
        converted_ms=conversion.received_ms,
        explanation=explanation,
    )


def _refuse(case: _Case, reason: Reason, explanation: str, ask: Ask | None = None) -> Verdict:
    amount, amount_note = _amount(case)
    return Verdict(
        status="rejected",
        reason=reason,
        status_code=rejection_code(reason),
        goal_id=max(case.goal_id, 0),
        converted_ms=case.converted_ms,
        amount=amount,
        amount_note=amount_note,
        currency=case.offer.currency,
        # Heard again, the advertiser's word would take back another conversion.
        claims=signatures.replay_claims(case.sent, case.advertiser) if ask else (),
        ask=ask,
        pricing=_pricing(case) if ask else None,
        explanation=f"{explanation}; {case.touch.why}" if case.touch.why else explanation,
    )


def _accept(case: _Case, said: Status | Literal[""]) -> Verdict:
    is_pending = case.offer.approval == "manual" or said == "pending"
    money = _money(case)
    amount, amount_note = _amount(case)
    sent_datetime = case.sent.params.get("datetime", "")
    is_ignored = sent_datetime and case.sent.via != "import" and parse_datetime(sent_datetime) != case.converted_ms
    note = "; its datetime was not used: no valid token, unreadable, or not between click and receipt"
    return Verdict(
        status="pending" if is_pending else "approved",
        status_code=PENDING if is_pending else APPROVED[case.sent.via],
        goal_id=case.goal_id,
        converted_ms=case.converted_ms,
        amount=amount,
        amount_note=amount_note,
        payout=money.payout,
        revenue=money.revenue,
        currency=case.offer.currency,
        claims=(*claims_of(case), *signatures.replay_claims(case.sent, case.advertiser)),
        repeat_key=repeat_key_of(case),
        ask=ask_of(case, is_accepted=True),
        pricing=_pricing(case),
        explanation=f"{_credited(case)}{note if is_ignored else ''}",
    )


def _credited(case: _Case) -> str:
    touch = case.touch
    if not touch.click_id:
        return f"by {case.sent.via}, {touch.why}"
    name = "view" if touch.kind == "impression" else "click"
    why = f"; {touch.why}" if touch.why else ""
    return f"{_span(case.elapsed_ms)} after the {name}, by {case.sent.via}{why}"


def _unknown(conversion: ConversionFacts) -> str:
    if conversion.is_external:
        return "the id is not ours, and no click carried it"
    if not conversion.transaction_id:
        return "it named no click, and none was found otherwise"
    return "the id is genuine, but its click was never stored"


def _amount(case: _Case) -> tuple[Decimal, str]:
    """The amount in the offer's currency, and a note of one in another: reports never add across currencies."""
    amount = parse_amount(case.sent.params.get("amount", "")) or ZERO
    if case.is_foreign and amount:
        return ZERO, f"{amount} {case.sent.params['currency'][:8]}"
    return round_money(amount), ""


def _pricing(case: _Case) -> Pricing:
    params, is_set = case.sent.params, case.offer.advertiser_sets_amounts
    return Pricing(
        case.terms,
        None if case.is_foreign else parse_amount(params.get("amount", "")),
        parse_amount(params.get("payout", "")) if is_set else None,
        parse_amount(params.get("revenue", "")) if is_set else None,
    )


def _money(case: _Case) -> Money:
    # Not the pricing's amount: a flat payout does not mind one in another currency, and a share of it is refused.
    return _pricing(case).of(parse_amount(case.sent.params.get("amount", "")) or ZERO, 0)


def _span(ms: int) -> str:
    return str(timedelta(seconds=ms // 1000))
