"""What a file says otherwise of a conversion that is known, and the change that makes it so."""

from decimal import Decimal
from typing import Literal, NamedTuple
from uuid import UUID

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.imports.sale_rows import SaleRow
from edge.tracking.changes import MAX_NOTE_CHARS, ChangeReason, Wanted
from edge.tracking.payouts import round_money
from edge.tracking.status_codes import Status
from edge.tracking.verdict import Pricing
from storage.postgres.connection import Connection
from storage.postgres.imported import Heard, find_terms

_ENDED = ("rejected", "reversed")
_SHARED = ("cpa_percentage", "cpa_both")


class Difference(NamedTuple):
    """Status and amount as the file has them, where it has them otherwise; `text` says both. `was`: the status here."""

    status: Status | None
    amount: Decimal | None
    text: str
    was: str


def find_difference(row: SaleRow, heard: Heard) -> Difference | None:
    """What the row says otherwise; None: nothing that matters. What one increase added is no word on the whole."""
    if heard.is_increase:
        return None
    status = row.status
    if status is None or status == heard.status or (status in _ENDED and heard.status in _ENDED):
        status = None
    amount = None
    is_ended = (status or heard.status) in _ENDED
    if row.amount is not None and not is_ended and row.currency in ("", heard.currency):
        amount = round_money(row.amount)
        amount = None if amount in (heard.amount, heard.first_amount) else amount
    if status is None and amount is None:
        return None
    said = [f"status {heard.status} here, {status} in the file"] if status else []
    said += (
        [f"amount {heard.amount.normalize():f} here, {amount.normalize():f} in the file"] if amount is not None else []
    )
    return Difference(status, amount, "; ".join(said), heard.status)


async def make_it_so(
    conn: Connection,
    history: CatalogHistory,
    conversion_id: UUID,
    wanted: Difference,
    *,
    actor: str,
    note: str,
    tells_partners: bool = True,
) -> None:
    """Change the conversion; ChangeRefused if it cannot be. A share of the amount follows the amount."""
    status: Status | Literal[""] = wanted.status or ""
    payout, revenue = await _shares(conn, history, conversion_id, wanted.amount)
    reason: ChangeReason = "" if status == "approved" else "advertiser"
    changes = [Wanted(status, reason, wanted.amount, payout, revenue)]
    if (wanted.was, status) == ("pending", "approved") and payout is not None:
        # Its tier is known when it is approved, and has its share of the amount that it has then.
        changes = [Wanted("", "advertiser", wanted.amount, payout, revenue), Wanted("approved")]
    for change in changes:
        await change_conversion(
            conn, history, conversion_id, change, actor=actor, note=note[:MAX_NOTE_CHARS], tells_partners=tells_partners
        )


async def _shares(
    conn: Connection, history: CatalogHistory, conversion_id: UUID, amount: Decimal | None
) -> tuple[Decimal | None, Decimal | None]:
    """Payout and revenue anew, where they are a share of the amount; None: as they are."""
    found = await find_terms(conn, conversion_id) if amount is not None else None
    if found is None or amount is None:
        return None, None
    revision, offer_id, goal_id, aff_id, tier = found
    await history.load(conn, [revision])
    offer = history.at(revision).offer(offer_id)
    if offer is None or not aff_id:
        return None, None
    terms = offer.terms(goal_id, aff_id)
    money = Pricing(terms).of(amount, tier)
    return (
        money.payout if terms.payout_type in _SHARED else None,
        money.revenue if terms.revenue_type in _SHARED else None,
    )
