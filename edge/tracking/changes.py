"""What may become of a stored conversion: the transitions, the new money, and what a change adds to the roll-ups. Pure."""

from decimal import Decimal
from typing import Literal, NamedTuple, get_args

from edge.errors import UserError
from edge.tracking.payouts import MONEY_LIMIT, ZERO, round_money
from edge.tracking.status_codes import LATER, Status
from edge.tracking.verdict import Ask, Pricing

Kind = Literal["approved", "rejected", "reversed", "adjusted"]
ChangeReason = Literal[
    "", "returned", "cancelled", "fraud", "test_order", "wrong_amount", "agreed_correction", "advertiser", "other"
]
CHANGE_REASONS: tuple[str, ...] = get_args(ChangeReason)[1:]
ADVERTISER = "advertiser"
CAPPED = "capped"
MAX_NOTE_CHARS = 250

TRANSITIONS: dict[str, tuple[Status, ...]] = {
    "pending": ("approved", "rejected"),
    "approved": ("rejected", "reversed"),
    "rejected": ("approved",),
    "reversed": ("approved",),
}
"""Nothing becomes pending again, and what never was approved cannot be reversed."""
_COUNTED: tuple[Status, ...] = ("approved", "pending", "rejected", "reversed")


class ChangeRefused(UserError):
    """The conversion cannot change in this way; the text says why. Nothing is changed."""


class State(NamedTuple):
    """What changes about a conversion. Its money counts only while it is approved."""

    status: str
    reason: str
    status_code: int
    amount: Decimal
    payout: Decimal
    revenue: Decimal
    tier: int = 0


class Wanted(NamedTuple):
    """What a person asks for. `status` "": as it is; an amount that is None: as it is."""

    status: Status | Literal[""]
    reason: ChangeReason = ""
    amount: Decimal | None = None
    payout: Decimal | None = None
    revenue: Decimal | None = None


class Gain(NamedTuple):
    """What a change adds to the roll-ups, signed."""

    amount: Decimal
    payout: Decimal
    revenue: Decimal
    conversions: int
    pending: int
    rejected: int
    reversed: int


def change(state: State, wanted: Wanted, pricing: Pricing | None, rank: int) -> State:
    """The state as wanted; ChangeRefused if that cannot be.

    `pricing`: the terms, for what is to be approved; None where the catalog has none. `rank`: the number that a newly
    approved conversion has among the partner's of the month.
    """
    if wanted.status == state.status:
        raise ChangeRefused(f"it is {state.status} already")
    if wanted.status and wanted.status not in TRANSITIONS[state.status]:
        allowed = " or ".join(TRANSITIONS[state.status])
        raise ChangeRefused(f"it is {state.status}, and cannot become {wanted.status}; allowed: {allowed}")
    if not wanted.status and state.status not in ("approved", "pending"):
        raise ChangeRefused(f"it is {state.status}: only what is approved or pending can be adjusted")
    after = state
    if wanted.status == "approved":
        if wanted.amount is not None:
            after = state._replace(amount=wanted.amount)
        after = _approved(after, pricing, rank, is_priced=wanted.payout is not None and wanted.revenue is not None)
        if wanted.payout is not None:
            after = after._replace(tier=state.tier)
    elif wanted.status:
        after = _ended(state, wanted.status, wanted.reason)
    after = _with_money(after, wanted)
    if not wanted.status and after == state:
        raise ChangeRefused("nothing to change: these are its amounts already")
    return _checked(after)


def answer(state: State, ask: Ask, pricing: Pricing | None, rank: int) -> State | None:
    """What becomes of the earlier conversion that `ask` found; None: nothing, the later one stands for itself.

    `pricing`: None where neither amounts nor terms are in its currency: its money stays. ChangeRefused if the new amounts
    are too large to store, or there is no money and nothing to price it by.
    """
    status = _told_status(state, ask)
    if status in ("rejected", "reversed"):
        return _ended(state, status, ADVERTISER)
    if not status and (not ask.mode or state.status not in ("approved", "pending")):
        return None
    after = state
    if pricing is not None:
        after = _increased(state, pricing) if ask.mode == "increment" else _updated(state, pricing)
    return _checked(_approved(after, pricing, rank, is_priced=False) if status else after)


def gain_of(before: State, after: State) -> Gain:
    """What the change from one state to the other adds to the roll-ups."""
    earned, had = _earned(after), _earned(before)
    amount, payout, revenue = (new - old for new, old in zip(earned, had, strict=True))
    counts = ((after.status == status) - (before.status == status) for status in _COUNTED)
    return Gain(amount, payout, revenue, *counts)


def kind_of(before: State, after: State) -> str:
    """What the change is called: its new status, or `adjusted`."""
    return "adjusted" if before.status == after.status else after.status


def _earned(state: State) -> tuple[Decimal, Decimal, Decimal]:
    return (state.amount, state.payout, state.revenue) if state.status == "approved" else (ZERO, ZERO, ZERO)


def _told_status(state: State, ask: Ask) -> Status | Literal[""]:
    """The status that the advertiser's word leads to; "": none other. It undoes only what it did itself."""
    if ask.said in ("rejected", "reversed"):
        if state.status == "approved":
            return ask.said
        return "rejected" if state.status == "pending" else ""
    if ask.said != "approved":
        return ""
    if state.status == "reversed" and state.reason == ADVERTISER:
        return "approved"
    # What is pending beyond a cap was accepted by the advertiser already: it waits for the network.
    is_open = (state.status == "pending" and state.reason != CAPPED) or (
        state.status == "rejected" and state.reason == ADVERTISER
    )
    return "approved" if is_open and not ask.is_manual else ""


def _ended(state: State, status: Status, reason: str) -> State:
    """Rejected or reversed: its amounts stay on record, and leave the roll-ups."""
    return state._replace(status=status, reason=reason, status_code=LATER[status])


def _approved(state: State, pricing: Pricing | None, rank: int, *, is_priced: bool) -> State:
    """Approved. What is pending gets its tier now, unless its payout was set; what has no money gets that of its terms."""
    after = state._replace(status="approved", reason="", status_code=LATER["approved"])
    if is_priced:
        return after
    has_money = bool(state.payout or state.revenue)
    if pricing is None:
        if has_money:
            return after
        raise ChangeRefused("the catalog has no terms for it: say both --payout and --revenue")
    tier = pricing.terms.tier(rank) if pricing.payout is None else 0
    money = pricing.of(state.amount, tier)
    if not has_money:
        return after._replace(payout=money.payout, revenue=money.revenue, tier=tier)
    if state.status == "pending" and tier and state.payout == pricing.of(state.amount, 0).payout:
        return after._replace(payout=money.payout, tier=tier)
    return after


def _updated(state: State, pricing: Pricing) -> State:
    """The amounts that were sent in place of those known; what was not sent stays."""
    after = state
    if pricing.amount is not None:
        money = pricing.of(pricing.amount, state.tier)
        after = state._replace(amount=round_money(pricing.amount), payout=money.payout, revenue=money.revenue)
    return after._replace(
        payout=after.payout if pricing.payout is None else round_money(pricing.payout),
        revenue=after.revenue if pricing.revenue is None else round_money(pricing.revenue),
    )


def _increased(state: State, pricing: Pricing) -> State:
    """The amount added, payout and revenue anew from the sum; those that the advertiser sets are added."""
    payout, revenue = state.payout, state.revenue
    amount = round_money(state.amount + (pricing.amount or ZERO))
    if pricing.amount is not None:
        payout, revenue = Pricing(pricing.terms).of(amount, state.tier)
    if pricing.payout is not None:
        payout = round_money(state.payout + pricing.payout)
    if pricing.revenue is not None:
        revenue = round_money(state.revenue + pricing.revenue)
    return state._replace(amount=amount, payout=payout, revenue=revenue)


def _with_money(state: State, wanted: Wanted) -> State:
    return state._replace(
        amount=state.amount if wanted.amount is None else wanted.amount,
        payout=state.payout if wanted.payout is None else wanted.payout,
        revenue=state.revenue if wanted.revenue is None else wanted.revenue,
    )


def _checked(state: State) -> State:
    if max(state.amount, state.payout, state.revenue) >= MONEY_LIMIT:
        raise ChangeRefused("its amounts would be 10^12 or more")
    return state
