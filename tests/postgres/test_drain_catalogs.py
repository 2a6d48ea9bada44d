"""Each event is judged by the catalog that was in force when it happened, however late the drain runs."""

import pytest

from tests.postgres.drains import CATALOG, Bench, now_ms
from tests.recount import differences

HOUR_MS = 3_600_000
DEARER = CATALOG.replace('payout = "5.00"', 'payout = "9.00"')
GUARDED = CATALOG.replace('name = "Plain"', 'name = "Plain"\nsecurity_token = "t"')
BRIEF = CATALOG.replace('payout = "5.00"', 'click_window = "1h"\npayout = "5.00"')
LATER_OFFER = '[[offers]]\nid = 30\nadvertiser_id = 1\nname = "New"\nurl = "https://n.example/"\npayout = "3"\n'


@pytest.fixture
def bench(embedded_bench: Bench) -> Bench:
    """One server is enough: nothing here depends on its version."""
    return embedded_bench


async def test_money_is_the_conversions_revisions(bench: Bench) -> None:
    """Clicked under revision 1: a conversion under 1 earns 5, one under 2 earns 9, though both are drained under 2."""
    scribe = bench.scribe()
    assert await bench.apply(DEARER) == 2
    before, after = scribe.click(), scribe.click()
    scribe.convert(before, revision=1)
    scribe.convert(after, revision=2)
    await bench.drain()
    assert await bench.rows("SELECT payout, catalog_revision FROM conversions ORDER BY 2") == [(5, 1), (9, 2)]
    assert await bench.rows("SELECT sum(payout) FROM stats_hourly") == [(14,)]


async def test_the_token_is_the_conversions_revisions(bench: Bench) -> None:
    """A token that was demanded later condemns no earlier conversion."""
    scribe = bench.scribe()
    await bench.apply(GUARDED)
    before = scribe.convert(scribe.click(), revision=1)
    after = scribe.convert(scribe.click(), revision=2)
    right = scribe.convert(scribe.click(), revision=2, security_token="t")
    await bench.drain()
    assert await bench.verdict(before) == await bench.verdict(right) == ("approved", "")
    assert await bench.verdict(after) == ("rejected", "bad_token")


async def test_the_window_is_the_clicks_revisions(bench: Bench) -> None:
    """What was promised with the click holds: a window narrowed since does not shut it, one narrow then stays so."""
    await bench.apply(BRIEF)
    scribe = bench.scribe()
    wide = scribe.click(ms=now_ms() - 2 * HOUR_MS, revision=1)
    narrow = scribe.click(ms=now_ms() - 2 * HOUR_MS, revision=2)
    kept, lost = scribe.convert(wide, revision=2), scribe.convert(narrow, revision=1)
    await bench.drain()
    assert await bench.verdict(kept) == ("approved", "")
    assert await bench.verdict(lost) == ("rejected", "outside_window")


async def test_a_worker_that_is_behind_does_not_judge_a_click_by_an_older_catalog(bench: Bench) -> None:
    """The click is of an offer that the conversion's worker had not heard of yet."""
    assert await bench.apply(LATER_OFFER) == 2
    scribe = bench.scribe()
    conversion = scribe.convert(scribe.click(offer_id=30, revision=2), revision=1)
    await bench.drain()
    assert await bench.verdict(conversion) == ("approved", "")
    assert await bench.value("SELECT payout FROM conversions") == 3
    assert await differences(bench.conn) == []


async def test_a_batch_may_need_more_revisions_than_are_kept(bench: Bench) -> None:
    """Forty of them, newest first, oldest last, in one batch: each earns its own payout."""
    for number in range(2, 41):
        await bench.apply(CATALOG.replace('payout = "5.00"', f'payout = "{number}"'))
    scribe = bench.scribe()
    for revision in [*range(40, 0, -1), 40]:
        scribe.convert(scribe.click(revision=revision), revision=revision)
    await bench.drain()
    rows = await bench.rows("SELECT catalog_revision, payout FROM conversions ORDER BY conversion_id")
    expected = [(number, 5 if number == 1 else number) for number in [*range(40, 0, -1), 40]]
    assert rows == expected
    assert await differences(bench.conn) == []


async def test_an_offer_moved_to_another_advertiser_is_booked_as_it_was(bench: Bench) -> None:
    """Clicks under their own revision's advertiser, conversions under theirs."""
    await bench.apply(CATALOG.replace("advertiser_id = 1", "advertiser_id = 2"))
    scribe = bench.scribe()
    first = scribe.click(revision=1)
    scribe.click(revision=2)
    scribe.convert(first, revision=1)
    await bench.drain()
    rows = await bench.rows("SELECT advertiser_id, sum(gross_clicks), sum(conversions) FROM stats_hourly GROUP BY 1")
    assert sorted(rows) == [(1, 1, 1), (2, 1, 0)]
    assert await differences(bench.conn) == []
