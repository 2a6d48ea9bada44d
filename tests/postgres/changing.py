"""Offers whose later conversions change earlier ones, and what is stored of both."""


from typing import Any
from uuid import UUID

import pytest

from tests.postgres.drains import CATALOG, Bench
from tests.recount import differences

SHARES = 'payout_type = "cpa_both"\npayout = "1"\npayout_percent = "10"\nrevenue_type = "cpa_percentage"\nrevenue_percent = "20"'


def offer(number: int, text: str, advertiser: int = 1) -> str:
    """An offer in TOML."""
    return f'[[offers]]\nid = {number}\nadvertiser_id = {advertiser}\nname = "o"\nurl = "https://x.example/"\n{text}\n'


UPDATE, INCREMENT, MANUAL, GUARDED, NEW, EVENTS, REPEATED, SET, SHORT = range(30, 39)
OFFERS = CATALOG + "".join(
    [
        offer(UPDATE, f'{SHARES}\nduplicates = "update"'),
        offer(INCREMENT, f'{SHARES}\nduplicates = "increment"'),
        offer(MANUAL, 'payout = "5"\nrevenue = "7"\napproval = "manual"'),
        offer(GUARDED, 'payout = "5"\nrevenue = "7"', 2),
        offer(NEW, f'{SHARES}\nduplicates = "new"'),
        offer(EVENTS, f'{SHARES}\nduplicates = "by_event_id"'),
        offer(REPEATED, 'payout = "5"\nduplicates = "new_repeated"'),
        offer(SET, 'payout = "5"\nduplicates = "increment"\nadvertiser_sets_amounts = true'),
        offer(SHORT, 'payout = "5"\nrevenue = "7"\nclick_window = "1h"'),
    ]
)
BATCHES = pytest.mark.parametrize("batch_rows", [1000, 1], ids=["one_batch", "a_batch_each"])


async def shown(bench: Bench, *ids: bytes) -> list[tuple[Any, ...] | None]:
    """Status, reason, amount, payout, revenue of each; None: it has no row. And that the roll-ups are those of the rows."""
    assert await differences(bench.conn) == []
    query = "SELECT status, reason, amount, payout, revenue FROM conversions WHERE conversion_id = $1"
    found = [await bench.conn.fetchrow(query, UUID(bytes=one)) for one in ids]
    return [(*row[:2], *map(float, row[2:])) if row else None for row in map(tuple_or_none, found)]


def tuple_or_none(row: Any) -> tuple[Any, ...] | None:
    return tuple(row) if row else None


async def causes(bench: Bench) -> list[tuple[Any, ...]]:
    """Kind, cause, actor and the three deltas of every later change, in order."""
    rows = await bench.conn.fetch(
        "SELECT kind, cause_id, actor, amount_delta, payout_delta, revenue_delta FROM conversion_changes"
        " WHERE kind <> 'decided' ORDER BY change_id"
    )
    return [(row[0], row[1].bytes if row[1] else None, row[2], *map(float, tuple(row)[3:])) for row in rows]
