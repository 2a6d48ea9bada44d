"""What clicks and impressions earn: per click and per thousand, by whose terms, and which of them earn nothing."""

from typing import Any

import pytest

from tests.postgres.drains import CATALOG, GOOGLEBOT, Bench
from tests.recount import differences

CPC, CPM = 60, 61
OFFERS = """
[[partners]]
id = 4
name = "Blocked"
status = "blocked"
[[offers]]
id = %d
advertiser_id = 1
name = "pays"
url = "https://x.example/"
payout_type = "%s"
payout = "%s"
revenue_type = "%s"
revenue = "%s"
tiers = [{ from_conversions = 1, payout = "9" }]
[[offers.goals]]
id = 1
name = "lead"
payout_type = "cpa_flat"
payout = "3"
[[offers.overrides]]
aff_id = 3
payout = "%s"
[[offers.overrides]]
aff_id = 3
goal_id = 1
payout = "7"
"""
EARNINGS = [
    ("a unique click", {}, [], "", 0.1, 0.25),
    ("by the partner's own terms", {"aff_id": 3}, [], "", 0.15, 0.25),
    ("a duplicate", {}, ["duplicate"], "", 0, 0),
    ("a prefetch", {}, ["prefetch"], "", 0, 0),
    ("from a data centre", {}, ["datacentre"], "", 0, 0),
    ("a robot", {"user_agent": GOOGLEBOT}, [], "", 0, 0),
    ("of a blocked partner", {"aff_id": 4}, [], "partner_blocked", 0, 0),
    ("of nobody we know", {"aff_id": 99}, [], "unknown_partner", 0, 0),
    ("without a referrer that is allowed", {}, ["deep_link_refused"], "", 0.1, 0.25),
]


async def money(bench: Bench, table: str, click_id: bytes) -> tuple[float, float]:
    """Payout and revenue of a click or impression."""
    query = f"SELECT payout::float, revenue::float FROM {table} WHERE click_id = $1"
    return tuple(await bench.conn.fetchrow(query, click_id.hex()))


@pytest.mark.parametrize(("fields", "flags", "reason", "payout", "revenue"), [row[1:] for row in EARNINGS])
async def test_a_click_earns_by_its_partners_terms_when_it_is_unique(
    embedded_bench: Bench, fields: dict[str, Any], flags: list[str], reason: str, payout: float, revenue: float
) -> None:
    """Duplicates, robots, previews and unknown or blocked partners earn nothing; the roll-ups say the same."""
    bench = embedded_bench
    revision = await bench.apply(CATALOG + OFFERS % (CPC, "cpc", "0.10", "cpc", "0.25", "0.15"))
    scribe = bench.scribe(revision=revision)
    click_id = scribe.click(offer_id=CPC, flags=flags, reason=reason, **fields)
    await bench.drain()
    assert await money(bench, "clicks", click_id) == (payout, revenue)
    assert await bench.rows("SELECT sum(payout)::float, sum(revenue)::float FROM stats_hourly") == [(payout, revenue)]
    assert await differences(bench.conn) == []


async def test_an_impression_earns_a_thousandth_also_as_a_duplicate(embedded_bench: Bench) -> None:
    """Per thousand, by the partner's own terms where there are some; robots earn nothing."""
    bench = embedded_bench
    revision = await bench.apply(CATALOG + OFFERS % (CPM, "cpm", "2.50", "cpm", "4", "3"))
    scribe = bench.scribe(revision=revision)
    ids = [
        scribe.impression(offer_id=CPM),
        scribe.impression(offer_id=CPM, aff_id=3),
        scribe.impression(offer_id=CPM, flags=["duplicate"]),
        scribe.impression(offer_id=CPM, user_agent=GOOGLEBOT),
    ]
    await bench.drain()
    earned = [await money(bench, "impressions", one) for one in ids]
    assert earned == [(0.0025, 0.004), (0.003, 0.004), (0.0025, 0.004), (0, 0)]
    assert await differences(bench.conn) == []


async def test_an_offer_paid_by_the_click_pays_no_conversion_but_its_goals(embedded_bench: Bench) -> None:
    """Neither by its tiers nor by what the postback says; a goal with terms of its own is paid by them."""
    bench = embedded_bench
    revision = await bench.apply(CATALOG + OFFERS % (CPC, "cpc", "0.10", "cpc", "0.25", "0.15"))
    scribe = bench.scribe(revision=revision)
    click_id, other = scribe.click(offer_id=CPC), scribe.click(offer_id=CPC, aff_id=3)
    for one in (click_id, other):
        scribe.convert(one, amount="10", payout="99", revenue="99")
        scribe.convert(one, goal_id=1)
    await bench.drain()
    paid = "SELECT aff_id, goal_id, status, payout::float, revenue::float FROM conversions ORDER BY 1, 2"
    assert await bench.rows(paid) == [
        (2, 0, "approved", 0, 0), (2, 1, "approved", 3, 0), (3, 0, "approved", 0, 0), (3, 1, "approved", 7, 0)
    ]  # fmt: skip
    assert await differences(bench.conn) == []


@pytest.mark.parametrize("reason", ["capped", "offer_paused", "offer_expired"])
async def test_a_direct_click_or_view_of_an_offer_that_takes_none_earns_nothing(
    embedded_bench: Bench, reason: str
) -> None:
    """Whoever asks `/clk` for an expired offer is not paid for it; the stand-in that took such a click pays."""
    bench = embedded_bench
    revision = await bench.apply(CATALOG + OFFERS % (CPC, "cpc", "0.10", "cpc", "0.25", "0.15"))
    scribe = bench.scribe(revision=revision)
    asked = [{"offer_id": str(CPC)}, {"offer_id": "17"}]
    ids = [
        scribe.click(offer_id=CPC, outcome="recorded", reason=reason, params=params, ip=f"203.0.113.{number}")
        for number, params in enumerate(asked, 1)
    ]
    await bench.drain()
    assert [await money(bench, "clicks", one) for one in ids] == [(0, 0), (0.1, 0.25)]
    assert await differences(bench.conn) == []
