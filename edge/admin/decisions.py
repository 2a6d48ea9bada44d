"""People's decisions on stored conversions, one or many, for the API and the console."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import Changed, Order, change_conversions
from edge.tracking.changes import MAX_NOTE_CHARS, ChangeReason, ChangeRefused, Wanted
from edge.tracking.parameters import clean
from edge.tracking.payouts import parse_amount
from storage.postgres.changes import Held, find_changed_by
from storage.postgres.connection import Connection
from storage.postgres.stories import find_conversion

MAX_DIGITS = 20
_MONEY = ("amount", "payout", "revenue")


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of a conversion. Without a `status` only the amounts change; what is not named stays."""

    status: Literal["", "approved", "rejected", "reversed"] = ""
    reason: ChangeReason = ""
    note: str = ""
    amount: Decimal | None = None
    payout: Decimal | None = None
    revenue: Decimal | None = None

    @property
    def wanted(self) -> Wanted:
        """The same for the one function that changes conversions."""
        return Wanted(self.status, self.reason, self.amount, self.payout, self.revenue)


class Decided(msgspec.Struct, frozen=True):
    """What became of one conversion. `problem` empty: it is changed, and this is how it is now."""

    conversion_id: UUID
    problem: str = ""
    status: str = ""
    amount: Decimal | None = None
    payout: Decimal | None = None
    revenue: Decimal | None = None


def faults_in(decision: Decision) -> list[tuple[str, str]]:
    """Field and what is wrong with it; empty: it can be tried."""
    named = [name for name in _MONEY if getattr(decision, name) is not None]
    allowed = "allowed is a plain amount such as 12.50, at most 6 decimals"
    faults = [(name, allowed) for name in named if not _is_amount(getattr(decision, name))]
    if not decision.status and not named:
        faults.append(("status", "say a status, or at least one of amount, payout and revenue"))
    if decision.status in ("rejected", "reversed") and named:
        faults.append((named[0], f"what is {decision.status} keeps its amounts"))
    if decision.status != "approved" and not decision.reason:
        faults.append(("reason", "say why"))
    if len(decision.note) > MAX_NOTE_CHARS or clean(decision.note) != decision.note:
        faults.append(("note", f"at most {MAX_NOTE_CHARS} characters, none of them a control character"))
    return faults


async def decide_each(conn: Connection, ids: Sequence[UUID], decision: Decision, actor: str) -> list[Decided]:
    """Change each, in this order; what cannot be changed says why. Each in a transaction of its own, or all in the caller's."""
    history, decided = CatalogHistory(), []
    order = Order(decision.wanted, actor, decision.note)
    each = list(dict.fromkeys(ids))
    # Inside one transaction one after the other would take locks against their order.
    for some in [each] if conn.is_in_transaction() else [[one] for one in each]:
        made = await change_conversions(conn, history, some, order)
        decided += [_told(*one) for one in zip(some, made, strict=True)]
    return decided


def _told(conversion_id: UUID, made: Changed | ChangeRefused) -> Decided:
    return Decided(conversion_id, str(made)) if isinstance(made, ChangeRefused) else _as_now(made[1])


async def find_detail(conn: Connection, conversion_id: UUID) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """A conversion and its changes. One that changed another instead of being one leads to that other."""
    holder = await find_changed_by(conn, conversion_id)
    return await find_conversion(conn, holder or conversion_id)


def _is_amount(value: Decimal) -> bool:
    # Written out, 1e999999999 would fill the memory.
    return abs(value.adjusted()) < MAX_DIGITS and parse_amount(f"{value:f}") is not None


def _as_now(held: Held) -> Decided:
    return Decided(held.conversion_id, "", held.status, held.amount, held.payout, held.revenue)
