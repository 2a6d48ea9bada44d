"""Caps in the drain: counted exactly, decided one by one, in the order of the periods of a time zone."""

from decimal import Decimal
from typing import Any

from tests.postgres.drains import CATALOG, Bench
from tests.recount import differences


async def cap(bench: Bench, caps: str, *, extra: str = "", text: str = CATALOG) -> int:
    """Offer 17 with those caps; the revision."""
    at = text.index("[[offers.goals]]")
    return await bench.apply(f"{text[:at]}caps = {{ {caps} }}\n{extra}\n{text[at:]}")


async def used(bench: Bench, period: str = "total", aff_id: int = 0) -> tuple[Any, ...] | None:
    rows = await bench.rows(
        "SELECT clicks, conversions, payout, revenue FROM cap_usage"
        " WHERE offer_id = 17 AND aff_id = $1 AND period = $2 AND is_counted",
        aff_id,
        period,
    )
    return rows[0] if rows else None


async def test_of_many_conversions_exactly_the_cap_is_accepted(bench: Bench) -> None:
    """Those beyond it are stored as `capped`, code 17, with what was reached in the note."""
    scribe = bench.scribe(revision=await cap(bench, "total_conversions = 3"))
    ids = [scribe.convert(scribe.click()) for _ in range(5)]
    await bench.drain()
    assert [await bench.verdict(one) for one in ids] == [("approved", "")] * 3 + [("rejected", "capped")] * 2
    assert await used(bench) == (5, 3, Decimal(15), Decimal("22.5"))
    notes = await bench.rows("SELECT note FROM conversion_changes WHERE reason = 'capped'")
    assert set(notes) == {("beyond total_conversions = 3 of the offer",)}
    assert await bench.value("SELECT DISTINCT status_code FROM conversions WHERE reason = 'capped'") == 17
    assert await differences(bench.conn) == []
