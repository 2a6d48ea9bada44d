"""Tiers by the partner's number of the month, and closed months: exact under several drains, and after every change."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.tracking.changes import ChangeRefused, Wanted
from edge.tracking.months import span_of
from storage.postgres.months import close_month, closed_months, reopen_month
from tests.postgres.drains import CATALOG, Bench, Scribe, Station, until
from tests.postgres.past import decide_in_the_past
from tests.recount import differences

TIERED, TIERED_MANUAL, PLAIN = 40, 41, 17
TIERS = (
    'tiers = [{ from_conversions = 3, payout = "6" }, { from_conversions = 5, payout = "8", payout_percent = "50" }]'
)
OFFER = """
[[offers]]
id = %d
advertiser_id = 1
name = "tiered"
url = "https://x.example/"
payout_type = "cpa_both"
payout = "5"
payout_percent = "10"
revenue = "9"
%s
[[offers.goals]]
id = 1
name = "lead"
payout = "1"
[[offers.goals]]
id = 2
name = "other"
[[offers.overrides]]
aff_id = 3
payout = "7"
"""
OFFERS = CATALOG + OFFER % (TIERED, TIERS) + OFFER % (TIERED_MANUAL, TIERS + '\napproval = "manual"')


@pytest.fixture
async def scribe(bench: Bench) -> Scribe:
    """A worker's journal on the catalog above."""
    return bench.scribe(revision=await bench.apply(OFFERS))


async def change(bench: Bench, conversion_id: bytes, status: Any = "", reason: Any = "other", **money: str) -> None:
    """As `clickedge conversion` does it."""
    wanted = Wanted(status, reason, **{name: Decimal(text) for name, text in money.items()})
    await change_conversion(bench.conn, CatalogHistory(), UUID(bytes=conversion_id), wanted, actor="a test")


async def payouts(bench: Bench, *ids: bytes) -> list[float]:
    """What each pays."""
    assert await differences(bench.conn) == []
    query = "SELECT payout FROM conversions WHERE conversion_id = $1"
    return [float(await bench.value(query, UUID(bytes=one))) for one in ids]


async def miscounted(bench: Bench) -> list[tuple[Any, ...]]:
    """T1: counts that are not the sum of the changes of their month."""
    return await bench.rows(
        "SELECT offer_id, aff_id, tiers.conversions, sum(conversions_delta) FROM tier_counts AS tiers"
        " JOIN conversions USING (offer_id, aff_id) JOIN conversion_changes AS changes USING (conversion_id)"
        " WHERE date_trunc('month', booked_hour, 'UTC')::date = month GROUP BY 1, 2, 3, month"
        " HAVING tiers.conversions <> sum(conversions_delta)"
    )


@pytest.mark.parametrize("batch_rows", [1000, 1])
async def test_the_nth_conversion_of_the_month_is_paid_by_its_tier(
    bench: Bench, scribe: Scribe, batch_rows: int
) -> None:
    """The n-th included; a goal or a partner with a payout of its own has no tiers; refused ones do not count."""
    ids = []
    for number in range(6):
        click_id = scribe.click(offer_id=TIERED)
        ids.append(scribe.convert(click_id, amount="10"))
        scribe.convert(click_id, amount="10")
        if number == 1:
            scribe.convert(scribe.click(offer_id=TIERED), amount="x")
            scribe.convert(scribe.click(offer_id=TIERED), status="pending")
    lead = scribe.convert(scribe.click(offer_id=TIERED), goal_id=1)
    other_goal = scribe.convert(scribe.click(offer_id=TIERED), goal_id=2)
    for _ in range(3):
        partner = scribe.convert(scribe.click(offer_id=TIERED, aff_id=3))
    await bench.drain(batch_rows=batch_rows)
    assert await payouts(bench, *ids) == [6, 6, 7, 7, 13, 13]
    assert await payouts(bench, lead, other_goal, partner) == [1, 8, 7]
    assert await bench.rows("SELECT tier, count(*) FROM conversions WHERE aff_id = 2 GROUP BY 1 ORDER BY 1") == [
        (0, 2 + 8 + 1), (3, 2), (5, 3)
    ]  # fmt: skip
    assert await bench.rows("SELECT aff_id, conversions FROM tier_counts ORDER BY 1") == [(2, 8), (3, 3)]
    assert await miscounted(bench) == []


async def test_what_is_taken_back_lowers_the_count_of_later_ones_only(bench: Bench, scribe: Scribe) -> None:
    """Nobody is priced anew; who comes back is the next in line. In one batch as over several."""
    clicks = [scribe.click(offer_id=TIERED) for _ in range(5)]
    first, second, third = (scribe.convert(click_id) for click_id in clicks[:3])
    scribe.convert(clicks[0], status="reversed")
    fourth = scribe.convert(clicks[3])
    await bench.drain()
    assert await payouts(bench, first, second, third, fourth) == [5, 5, 6, 6]
    await change(bench, third, "rejected")
    await change(bench, second, "rejected")
    fifth = scribe.convert(clicks[4])
    await bench.drain()
    assert await payouts(bench, third, fifth) == [6, 5]
    assert await miscounted(bench) == []


async def test_a_pending_one_gets_its_tier_when_it_is_approved(bench: Bench, scribe: Scribe) -> None:
    """By the number it has then; a payout that somebody set stays."""
    ids = [scribe.convert(scribe.click(offer_id=TIERED_MANUAL), amount="10") for _ in range(5)]
    await bench.drain()
    await change(bench, ids[2], payout="5.55")
    for one in ids:
        await change(bench, one, "approved")
    assert await payouts(bench, *ids) == [6, 6, 5.55, 7, 13]
    assert await miscounted(bench) == []


async def test_two_drains_count_one_after_the_other(bench: Bench) -> None:
    """Two journals side by side, a count that neither has seen yet: each number is given once."""
    revision = await bench.apply(OFFERS)
    scribes = [bench.scribe(worker=worker, revision=revision) for worker in (0, 1)]
    for scribe in scribes:
        for number in range(30):
            scribe.convert(scribe.click(offer_id=TIERED, aff_id=2 + number % 2))
            scribe.convert(scribe.click(offer_id=TIERED_MANUAL, aff_id=3 - number % 2), status="approved")
    conns = [await bench.connect() for _ in scribes]
    stations = [bench.station(slot=slot, drains=2, batch_rows=16) for slot in (0, 1)]
    await asyncio.gather(*map(Station.turn, stations, conns))
    paid = await bench.rows(
        "SELECT payout::float, count(*) FROM conversions WHERE offer_id = $1 AND aff_id = 2 GROUP BY 1 ORDER BY 1",
        TIERED,
    )
    assert paid == [(5, 2), (6, 2), (8, 26)]
    assert await differences(bench.conn) == []
    assert await miscounted(bench) == []


async def test_tiers_that_come_later_count_what_was_before(bench: Bench) -> None:
    """A count is made from the month's conversions when it is first needed."""
    revision = await bench.apply(OFFERS.replace(TIERS, ""))
    scribe = bench.scribe(revision=revision)
    for _ in range(4):
        scribe.convert(scribe.click(offer_id=TIERED))
    await bench.drain()
    scribe.revision = await bench.apply(OFFERS)
    fifth = scribe.convert(scribe.click(offer_id=TIERED))
    await bench.drain()
    assert await payouts(bench, fifth) == [8]
    assert await miscounted(bench) == []


async def test_a_change_is_booked_where_the_decision_was_until_the_month_is_closed(
    bench: Bench, scribe: Scribe
) -> None:
    """Then in the hour of the change; reopened, in the old hour again. All hours together are always right."""
    clicks = [scribe.click() for _ in range(4)]
    ids = [scribe.convert(click_id) for click_id in clicks]
    await bench.drain()
    month = await decide_in_the_past(bench.conn, 70)
    span = span_of(month, ZoneInfo("UTC"))
    await change(bench, ids[0], "reversed")
    assert await close_month(bench.conn, *span, "a test")
    assert not await close_month(bench.conn, *span, "a test")
    await change(bench, ids[1], "reversed")
    scribe.convert(clicks[2], status="reversed")
    await bench.drain()
    assert await reopen_month(bench.conn, month)
    assert not await reopen_month(bench.conn, month)
    await change(bench, ids[3], "reversed")
    assert await differences(bench.conn) == []
    past = await bench.value("SELECT sum(payout) FROM stats_hourly WHERE hour < now() - interval '60 days'")
    now = await bench.value("SELECT sum(payout) FROM stats_hourly WHERE hour > now() - interval '2 hours'")
    assert (past, now) == (10, -10)


async def test_closing_waits_for_changes_and_changes_for_closing(bench: Bench, scribe: Scribe) -> None:
    """A change that has read the months commits first; who comes while a month is being closed finds it closed."""
    first = scribe.convert(scribe.click())
    await bench.drain()
    month = await decide_in_the_past(bench.conn, 70)
    other = await bench.connect()
    async with other.transaction():
        assert await closed_months(other) == []
        closing = asyncio.ensure_future(close_month(bench.conn, *span_of(month, ZoneInfo("UTC")), "a test"))
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        watch = await bench.connect()
        await until(lambda: watch.fetchval(query))
        assert not closing.done()
    assert await closing
    await change(bench, first, "reversed")
    hour = await bench.value("SELECT booked_hour FROM conversion_changes WHERE kind = 'reversed'")
    assert datetime.now(UTC) - hour < timedelta(hours=2)


async def test_a_person_approves_what_a_rule_refused(bench: Bench, scribe: Scribe) -> None:
    """It earns what its terms say and then stands in the way of the next; without terms the amounts must be said."""
    click_id = scribe.click()
    refused = scribe.convert(click_id, amount="x")
    forged = scribe.convert(b"", transaction_id="deadbeef")
    await bench.drain()
    await change(bench, refused, "approved")
    assert await payouts(bench, refused) == [5]
    next_one = scribe.convert(click_id)
    await bench.drain()
    assert await bench.verdict(next_one) == ("rejected", "duplicate")
    with pytest.raises(ChangeRefused, match="no terms"):
        await change(bench, forged, "approved", payout="1")
    await change(bench, forged, "approved", payout="1", revenue="2")
    await change(bench, next_one, "approved")
    assert await payouts(bench, forged, next_one) == [1, 5]


async def test_a_person_decides_for_good_what_waited_for_its_click(bench: Bench, scribe: Scribe) -> None:
    """Once approved by hand, the click that comes late changes nothing more."""
    late = bench.scribe(worker=1, revision=scribe.revision)
    session = late.session()
    unknown = scribe.convert(session.click_id)
    await bench.drain(slot=0, drains=2, conversion_wait_s=0)
    await change(bench, unknown, "approved", payout="3", revenue="4")
    late.click(session)
    await bench.drain(slot=1, drains=2)
    assert await payouts(bench, unknown) == [3]
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0


@pytest.mark.parametrize(
    ("steps", "refusal"),
    [
        (["approved"], "it is approved already"),
        (["reversed", "rejected"], "it is reversed, and cannot become rejected; allowed: approved"),
        (["rejected", "reversed"], "it is rejected, and cannot become reversed; allowed: approved"),
        (["pending"], "cannot become pending"),
        (["reversed", ""], "only what is approved or pending can be adjusted"),
    ],
)
async def test_a_change_that_is_not_allowed_changes_nothing(
    embedded_bench: Bench, steps: list[str], refusal: str
) -> None:
    """The reason is said; no row, change or roll-up differs."""
    scribe = embedded_bench.scribe()
    first = scribe.convert(scribe.click())
    await embedded_bench.drain()
    for step in steps[:-1]:
        await change(embedded_bench, first, step)
    before = await embedded_bench.rows("SELECT * FROM conversions, stats_hourly, conversion_changes ORDER BY change_id")
    with pytest.raises(ChangeRefused, match=refusal):
        await change(embedded_bench, first, steps[-1], payout="1")
    after = await embedded_bench.rows("SELECT * FROM conversions, stats_hourly, conversion_changes ORDER BY change_id")
    assert before == after
