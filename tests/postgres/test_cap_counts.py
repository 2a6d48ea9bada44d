"""Caps are counted as the rows have it: when caps come and go, with several drains, after later changes."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from edge.cap_usage import UsageChange, follow_changes
from storage.postgres.cap_usage import Usage, UsageKey, lock_usage, store_usage
from storage.postgres.catalog import hold_catalog
from tests.cap_recount import cap_differences
from tests.postgres.capped import APPROVED, CAPPED, assert_exact, cap, many_capped_offers, used
from tests.postgres.drains import GOOGLEBOT, Bench, Scribe, Station, now_ms, until

UTC_ZONE = ZoneInfo("UTC")


async def test_a_cap_that_comes_later_finds_what_was_before(bench: Bench) -> None:
    """Clicks, refused and invalid ones, earnings of clicks and impressions, conversions: counted from the first moment."""
    terms = 'payout_type = "cpc"\npayout = "0.5"\nrevenue_type = "cpm"\nrevenue = "2"'
    scribe = bench.scribe(revision=await cap(bench, terms))
    write_everything(scribe)
    await bench.drain()
    scribe.revision = await cap(bench, f"{terms}\ncaps = {{ total_conversions = 2, daily_clicks = 100 }}")
    assert await bench.value("SELECT count(*) FROM cap_usage") == 0
    ids = [scribe.convert(scribe.click()), scribe.convert(scribe.click())]
    await bench.drain()
    assert [await bench.verdict(one) for one in ids] == [APPROVED, CAPPED]
    assert await used(bench) == await used(bench, "daily")
    assert (await used(bench) or ())[:2] == (5, 2)
    await assert_exact(bench)


def write_everything(scribe: Scribe) -> None:
    """Three clicks that the offer took; one by a robot, one prefetched, one refused; an impression; a conversion."""
    scribe.click(aff_id=3)
    scribe.click(flags=["duplicate"])
    scribe.click(user_agent=GOOGLEBOT)
    scribe.click(flags=["prefetch"])
    scribe.click(outcome="fallback", reason="offer_paused")
    scribe.click(outcome="rejected", reason="offer_paused", user_agent=GOOGLEBOT)
    scribe.impression()
    scribe.convert(scribe.click(aff_id=3))


async def test_a_cap_that_goes_and_comes_again_has_missed_nothing(bench: Bench) -> None:
    """What happened without it is counted when it is back; so is what a batch of the old revision decides late."""
    capped = "caps = { total_conversions = 3 }"
    old = await cap(bench, capped)
    scribe = bench.scribe(revision=old)
    scribe.convert(scribe.click())
    await bench.drain()
    free = await cap(bench, "")
    assert await used(bench) is None
    scribe.revision = free
    scribe.convert(scribe.click())
    late = [scribe.convert(scribe.click(revision=old), revision=old) for _ in range(2)]
    await bench.drain()
    assert [await bench.verdict(one) for one in late] == [APPROVED, CAPPED]
    scribe.revision = free
    free_one = scribe.convert(scribe.click())
    await bench.drain()
    assert await bench.verdict(free_one) == APPROVED
    scribe.revision = await cap(bench, "caps = { total_conversions = 5 }")
    ids = [scribe.convert(scribe.click()) for _ in range(2)]
    await bench.drain()
    assert [await bench.verdict(one) for one in ids] == [APPROVED, CAPPED]
    await assert_exact(bench)


async def test_two_drains_with_many_capped_offers_never_wait_in_a_ring(bench: Bench) -> None:
    """Each meets the offers in another order, in small batches: no deadlock, no error, and every cap is exact."""
    revision = await bench.apply(
        many_capped_offers("daily_clicks = 50, weekly_payout = 100, total_conversions = 15", 30)
    )
    scribes = [bench.scribe(worker=worker, revision=revision) for worker in range(2)]
    for scribe, step in zip(scribes, (7, 11), strict=True):
        for number in range(900):
            click = scribe.click(offer_id=101 + number * step % 30, aff_id=2 + number % 2)
            if number % 2:
                scribe.convert(click)
            else:
                scribe.convert(click, conversion_unique_id=str(number))
    stations = [bench.station(slot=slot, drains=2, batch_rows=60) for slot in range(2)]
    conns = [await bench.connect() for _ in stations]
    await asyncio.gather(*map(Station.turn, stations, conns))
    counts = await bench.rows(
        "SELECT offer_id, count(*) FROM conversions WHERE status = 'approved' GROUP BY 1 ORDER BY 1"
    )
    assert counts
    assert all(count <= 15 for _, count in counts)
    assert sum(count == 15 for _, count in counts) > 0
    assert await bench.value("SELECT max(conversions) FROM cap_usage WHERE aff_id = 3") == 7
    await assert_exact(bench)


async def test_a_cap_brought_in_while_drains_are_at_work_misses_nothing(bench: Bench) -> None:
    """Batches that began without it are over before it is in force: usage equals the rows, no conversion too many."""
    free = await cap(bench, "")
    scribes = [bench.scribe(worker=worker, revision=free) for worker in range(2)]
    stations = [bench.station(slot=slot, drains=2, batch_rows=20) for slot in range(2)]

    async def is_stored() -> bool:
        return bool(await bench.value("SELECT count(*) FROM conversions") == 600)

    async with stations[0].running(), stations[1].running():
        for number in range(1, 31):
            for scribe in scribes:
                for _ in range(10):
                    scribe.convert(scribe.click())
            if number % 5 == 0:
                revision = await cap(bench, f"caps = {{ total_conversions = {100 * number} }}")
                for scribe in scribes:
                    scribe.revision = revision
        await until(is_stored)
    await bench.drain(slot=0, drains=2)
    await assert_exact(bench)
    assert (await used(bench) or ())[:2] == (600, 600)


async def test_a_new_revision_waits_for_a_batch_that_knows_the_old_one(bench: Bench) -> None:
    """C4: while a transaction holds the catalog nothing is applied; afterwards at once."""
    conn = await bench.connect()
    async with conn.transaction():
        revision = await hold_catalog(conn)
        applying = asyncio.create_task(cap(bench, "caps = { total_clicks = 1 }"))
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

        async def is_waiting() -> bool:
            return bool(await conn.fetchval(waiting))

        await until(is_waiting)
        assert not applying.done()
    assert await applying == revision + 1


async def test_later_changes_are_followed_in_the_period_of_the_decision(bench: Bench) -> None:
    """A conversion taken back makes room again; offers without caps, and periods of long ago, are left alone."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { total_conversions = 1 }", partner_3="daily_payout = 9"))
    taken_back = scribe.convert(scribe.click(aff_id=3))
    await bench.drain()
    decided = "SELECT booked_hour FROM conversion_changes WHERE conversion_id = $1"
    change = UsageChange(17, 3, await bench.value(decided, UUID(bytes=taken_back)), Usage(0, -1, Decimal(-6), Decimal("-7.5")))
    async with bench.conn.transaction():
        await follow_changes(bench.conn, [change, change._replace(offer_id=18)], UTC_ZONE)
        await bench.conn.execute("UPDATE conversions SET status = 'reversed', payout = 0, revenue = 0")
        await bench.conn.execute(
            "INSERT INTO conversion_changes (conversion_id, booked_hour, kind, status_before, status_after, payout_delta,"
            " revenue_delta, conversions_delta) SELECT conversion_id, $1, 'reversed', 'approved', 'reversed', -6, -7.5, -1"
            " FROM conversions",
            change.hour,
        )
        await bench.conn.execute("UPDATE stats_hourly SET payout = payout - 6, revenue = revenue - 7.5")
    assert await used(bench) == await used(bench, "daily", 3) == (1, 0, 0, 0)
    assert await cap_differences(bench.conn) == []
    assert await bench.value("SELECT count(*) FROM cap_usage") == 2
    again = scribe.convert(scribe.click(aff_id=3))
    await bench.drain()
    assert await bench.verdict(again) == APPROVED
    # Counted anew it is the same: the change is booked where the decision was.
    before = await used(bench)
    await bench.conn.execute("UPDATE cap_usage SET is_counted = false")
    await bench.drain()
    scribe.click(outcome="fallback")
    await bench.drain()
    assert await used(bench) == before
    assert await cap_differences(bench.conn) == []


async def test_what_a_later_conversion_adds_to_an_earlier_one_is_counted(bench: Bench) -> None:
    """In the same batch or in one after it: the caps' sums are those of the conversions as they are now."""
    revision = await cap(
        bench,
        'caps = { total_payout = "9" }\nduplicates = "increment"\npayout_type = "cpa_percentage"\npayout_percent = "10"\n',
    )
    scribe = bench.scribe(revision=revision)
    click_id = scribe.click(aff_id=2)
    for amount in ("10", "20"):
        scribe.convert(click_id, amount=amount)
    await bench.drain()
    assert (await used(bench) or ())[1:3] == (1, 3)
    scribe.convert(click_id, amount="30")
    scribe.convert(click_id, status="reversed")
    await bench.drain()
    assert (await used(bench) or ())[1:3] == (0, 0)
    assert await cap_differences(bench.conn) == []


async def test_usage_is_locked_from_its_first_moment(bench: Bench) -> None:
    """U2: of two that need a row that is not there one counts it, the other waits and finds it counted."""
    key = UsageKey(17, 0, "total", datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
    scribe = bench.scribe()
    scribe.click(ms=now_ms())
    await bench.drain()
    first, second = await bench.connect(), await bench.connect()

    async def wait_and_add() -> int:
        async with second.transaction():
            usage = await lock_usage(second, [key])
            usage[key].clicks += 1
            await store_usage(second, usage)
        return usage[key].clicks

    async with first.transaction():
        usage = await lock_usage(first, [key])
        assert usage[key].clicks == 1
        waiting = asyncio.create_task(wait_and_add())

        async def is_waiting() -> bool:
            return bool(await bench.value("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        await until(is_waiting)
        usage[key].clicks += 10
        await store_usage(first, usage)
    assert await waiting == 12
    assert (await used(bench) or ())[0] == 12
