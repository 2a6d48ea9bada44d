"""What a decision would make of conversions: each is changed in a transaction of its own that is taken back."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from edge.admin.decisions import Decision
from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.tracking.changes import ChangeRefused
from storage.postgres.changes import Held
from storage.postgres.connection import Connection
from storage.postgres.stories import find_conversions

Row = dict[str, Any]
_MONEY = ("amount", "payout", "revenue")


class Foreseen(NamedTuple):
    """One conversion as it is, and as it would be; `after` None: it cannot be changed so, and `problem` says why."""

    conversion_id: UUID
    row: Row | None
    after: Held | None
    problem: str


class Effect(NamedTuple):
    """What the changes add to reports in one currency: what counts is approved."""

    currency: str
    amount: Decimal
    payout: Decimal
    revenue: Decimal


async def foresee_each(conn: Connection, ids: Sequence[UUID], decision: Decision) -> list[Foreseen]:
    """What would become of each, in this order; nothing is changed."""
    rows = {row["conversion_id"]: row for row in await find_conversions(conn, ids)}
    history = CatalogHistory()
    found = []
    for one in dict.fromkeys(ids):
        after, problem = await _foresee(conn, history, one, decision)
        found.append(Foreseen(one, rows.get(one), after, problem))
    return found


async def _foresee(
    conn: Connection, history: CatalogHistory, conversion_id: UUID, decision: Decision
) -> tuple[Held | None, str]:
    transaction = conn.transaction()
    await transaction.start()
    try:
        _, after = await change_conversion(conn, history, conversion_id, decision.wanted, actor="")
    except ChangeRefused as refused:
        return None, str(refused)
    else:
        return after, ""
    finally:
        await transaction.rollback()


def effects_of(foreseen: Sequence[Foreseen]) -> list[Effect]:
    """What all of them together add, by currency; one in which nothing changes is left out."""
    sums: dict[str, dict[str, Decimal]] = {}
    for one in foreseen:
        if one.row is None or one.after is None:
            continue
        kept = sums.setdefault(one.row["currency"], dict.fromkeys(_MONEY, Decimal(0)))
        for name in _MONEY:
            kept[name] += _counted(one.after._asdict(), name) - _counted(one.row, name)
    return [Effect(currency, **sums[currency]) for currency in sorted(sums) if any(sums[currency].values())]


def _counted(row: Row, name: str) -> Decimal:
    return Decimal(row[name]) if row["status"] == "approved" else Decimal(0)
