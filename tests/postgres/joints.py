"""What tests of several parts of the drain at once share: a conversion's verdict, with everything counted anew."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.tracking.changes import Wanted
from tests.cap_recount import cap_differences
from tests.postgres.drains import Bench
from tests.recount import differences

DUPLICATE = ("rejected", "duplicate")
SHARE = 'payout_type = "cpa_percentage"\npayout_percent = "10"'
TIERS = 'tiers = [{ from_conversions = 2, payout = "8" }]'
BATCHES = pytest.mark.parametrize("batch_rows", [1000, 1], ids=["one_batch", "a_batch_each"])
_MISCOUNTED = """
    SELECT tiers.offer_id, tiers.aff_id, tiers.conversions FROM tier_counts AS tiers
    WHERE tiers.conversions <> (
        SELECT coalesce(sum(conversions_delta), 0) FROM conversion_changes JOIN conversions USING (conversion_id)
        WHERE offer_id = tiers.offer_id AND aff_id = tiers.aff_id AND date_trunc('month', booked_hour, 'UTC')::date = month)
"""
_KEYLESS = """
    SELECT key FROM conversion_keys AS keys WHERE key NOT LIKE 's:%' AND NOT EXISTS (
        SELECT FROM conversions WHERE conversions.conversion_id = keys.conversion_id
        AND (status <> 'rejected' OR status_code = 213))
"""


async def verdicts(bench: Bench, *ids: bytes) -> list[tuple[str, str]]:
    """Status and reason of each; and all that is counted is what the rows say, no key is held for nothing."""
    assert await cap_differences(bench.conn) == []
    assert await differences(bench.conn) == []
    assert await bench.rows(_MISCOUNTED) == []
    assert await bench.rows(_KEYLESS) == []
    return [await bench.verdict(one) for one in ids]


async def payouts(bench: Bench, *ids: bytes) -> list[float]:
    query = "SELECT payout FROM conversions WHERE conversion_id = $1"
    return [float(await bench.value(query, UUID(bytes=one))) for one in ids]


async def change(bench: Bench, conversion_id: bytes, status: Any = "", **money: str) -> None:
    """As `clickedge conversion` does it."""
    wanted = Wanted(status, "other", **{name: Decimal(text) for name, text in money.items()})
    await change_conversion(bench.conn, CatalogHistory(), UUID(bytes=conversion_id), wanted, actor="a test")
