"""What people did to conversions, done again to what these are under other rules. What a person set stays as set."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from edge.drain.changing import place_keys, state_of
from edge.drain.replay.rules import ReplayHistory
from edge.tracking.catalog import Catalog
from edge.tracking.changes import ChangeRefused, State, Wanted, change
from edge.tracking.verdict import Pricing
from storage.postgres.changes import Held

Row = Mapping[str, Any]
_MONEY = ("amount", "payout", "revenue")


def redo(row: Row, held: Held, history: ReplayHistory, rank: int) -> tuple[Held, tuple[str, ...]] | None:
    """The conversion after a person's change, and the keys that it claims; None: it changes nothing about this one."""
    revision = held.catalog_revision
    said = _said(row, _pricing(history.stored_at(revision), held))
    pricing = _pricing(history.at(revision), held)
    for wanted in _ways(row, held, said):
        try:
            after = change(state_of(held), wanted, pricing, rank)
        except ChangeRefused:
            continue
        keys = place_keys(held, pricing) if wanted.status == "approved" else ()
        return held._replace(**after._asdict()), keys
    return None


def _ways(row: Row, held: Held, said: dict[str, Decimal]) -> list[Wanted]:
    """As it was meant; else what comes nearest: amounts alone, or a rejection of what was never approved."""
    if row["change_kind"] == "adjusted":
        return [Wanted("", row["change_reason"], **said)]
    status = row["change_status_after"]
    ways = [Wanted(status, row["change_reason"], **said)]
    if status == "approved" and said:
        ways.append(Wanted("", row["change_reason"], **said))
    if status == "reversed" and held.status == "pending":
        ways.append(Wanted("rejected", row["change_reason"], **said))
    return ways


def _said(row: Row, pricing: Pricing | None) -> dict[str, Decimal]:
    """The amounts that the person named: those that do not follow from what was there, and the terms."""
    after = {name: row[f"change_{name}_after"] for name in _MONEY}
    before = {name: row[f"{name}_before"] for name in _MONEY}
    if None in (*after.values(), *before.values()):  # of before amounts were kept with changes
        return {}
    if row["change_kind"] != "approved":
        return {name: value for name, value in after.items() if value != before[name]}
    state = State(row["change_status_before"], "", 0, **before)
    amount = after["amount"] if after["amount"] != before["amount"] else None
    said = {name: after[name] for name in _MONEY if name != "amount" or amount is not None}
    for rank in _ranks(pricing):
        if expected := _approved(state, amount, pricing, rank):
            named = {name: value for name, value in said.items() if name == "amount" or value != getattr(expected, name)}
            said = min(said, named, key=len)
    return said


def _ranks(pricing: Pricing | None) -> list[int]:
    """One rank of each tier."""
    tiers = getattr(pricing.terms, "tiers", ()) if pricing else ()
    return [0, *(tier.from_conversions for tier in tiers)]


def _approved(state: State, amount: Decimal | None, pricing: Pricing | None, rank: int) -> State | None:
    try:
        return change(state, Wanted("approved", amount=amount), pricing, rank)
    except ChangeRefused:
        return None


def _pricing(catalog: Catalog, held: Held) -> Pricing | None:
    offer = catalog.offer(held.offer_id)
    return Pricing(offer.terms(held.goal_id, held.aff_id)) if offer and held.aff_id else None
