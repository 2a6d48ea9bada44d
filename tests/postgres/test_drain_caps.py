"""Caps in the drain: which conversions are taken, which are beyond them, and what is used by each."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from tests.postgres.capped import APPROVED, CAPPED, assert_exact, cap, used
from tests.postgres.drains import Bench


async def test_of_many_conversions_exactly_the_cap_is_accepted(bench: Bench) -> None:
    """Those beyond it are stored as `capped`, code 17, with what was reached in the note."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { total_conversions = 3 }"))
    ids = [scribe.convert(scribe.click()) for _ in range(5)]
    await bench.drain()
    assert [await bench.verdict(one) for one in ids] == [APPROVED] * 3 + [CAPPED] * 2
    assert await used(bench) == (5, 3, Decimal(15), Decimal("22.5"))
    assert await bench.rows("SELECT DISTINCT note FROM conversion_changes WHERE reason = 'capped'") == [
        ("beyond total_conversions = 3 of the offer",)
    ]
    assert await bench.rows("SELECT DISTINCT status_code, payout FROM conversions WHERE reason = 'capped'") == [(17, 0)]
    await assert_exact(bench)


async def test_money_caps_are_never_exceeded_and_smaller_ones_still_fit(bench: Bench) -> None:
    """A payout of 5 does not fit under 12 after two others, one of 1 does; a revenue cap likewise."""
    scribe = bench.scribe(revision=await cap(bench, 'caps = { monthly_payout = "12", total_revenue = "17" }'))
    ids = [scribe.convert(scribe.click()) for _ in range(3)]
    leads = [scribe.convert(scribe.click(), goal_id=1) for _ in range(2)]
    await bench.drain()
    assert [await bench.verdict(one) for one in ids] == [APPROVED, APPROVED, CAPPED]
    assert [await bench.verdict(one) for one in leads] == [APPROVED, CAPPED]
    assert await used(bench) == await used(bench, "monthly") == (5, 3, Decimal(11), Decimal("16.5"))
    await assert_exact(bench)


async def test_a_partners_cap_binds_that_partner_only(bench: Bench) -> None:
    """Partner 3 stops at its own cap, partner 2 at the offer's, which counts both."""
    revision = await cap(bench, "caps = { daily_conversions = 4 }", partner_3="daily_conversions = 1")
    scribe = bench.scribe(revision=revision)
    threes = [scribe.convert(scribe.click(aff_id=3)) for _ in range(2)]
    twos = [scribe.convert(scribe.click()) for _ in range(4)]
    await bench.drain()
    assert [await bench.verdict(one) for one in threes] == [APPROVED, CAPPED]
    assert [await bench.verdict(one) for one in twos] == [APPROVED] * 3 + [CAPPED]
    assert await used(bench, "daily", 3) == (2, 1, Decimal(6), Decimal("7.5"))
    assert await used(bench, "daily") == (6, 4, Decimal(21), Decimal(30))
    assert await used(bench, "daily", 2) is None
    await assert_exact(bench)


async def test_beyond_the_cap_may_mean_pending(bench: Bench) -> None:
    """`cap_conversions = "pending"`: nothing is refused, the note says which cap, the code is our own; they count."""
    fields = 'caps = { total_conversions = 1 }\ncap_conversions = "pending"'
    scribe = bench.scribe(revision=await cap(bench, fields))
    ids = [scribe.convert(scribe.click()) for _ in range(2)]
    await bench.drain()
    assert [await bench.verdict(one) for one in ids] == [APPROVED, ("pending", "capped")]
    ((code, payout, note),) = await bench.rows(
        "SELECT status_code, payout, note FROM conversions JOIN conversion_changes USING (conversion_id)"
        " WHERE status = 'pending'"
    )
    assert (code, payout) == (216, 5)
    assert "beyond total_conversions = 1 of the offer: somebody has to decide" in note
    assert await used(bench) == (2, 2, Decimal(10), Decimal(15))
    await assert_exact(bench)


async def test_pending_conversions_count(bench: Bench) -> None:
    """With `approval = "manual"` a cap is used up by what waits for a decision."""
    scribe = bench.scribe(revision=await cap(bench, 'caps = { total_payout = "5" }\napproval = "manual"'))
    ids = [scribe.convert(scribe.click()) for _ in range(2)]
    await bench.drain()
    assert [await bench.verdict(one) for one in ids] == [("pending", ""), CAPPED]
    await assert_exact(bench)


async def test_a_capped_conversion_does_not_block_a_later_one_of_its_click(bench: Bench) -> None:
    """It gives its key back: after the cap is raised the same click converts."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { total_conversions = 0 }"))
    click = scribe.click()
    first = scribe.convert(click)
    await bench.drain()
    assert await bench.value("SELECT count(*) FROM conversion_keys") == 0
    scribe.revision = await cap(bench, "caps = { total_conversions = 1 }")
    second, third = scribe.convert(click), scribe.convert(click)
    await bench.drain()
    assert [await bench.verdict(one) for one in (first, second, third)] == [CAPPED, APPROVED, ("rejected", "duplicate")]
    await assert_exact(bench)


async def test_a_repetition_takes_the_place_of_one_that_was_capped_in_the_same_batch(bench: Bench) -> None:
    """A dear one does not fit; the cheaper one with the same unique id behind it does, and a third is its duplicate."""
    fields = 'caps = { total_payout = "6" }\npayout_type = "cpa_percentage"\npayout_percent = "10"'
    scribe = bench.scribe(revision=await cap(bench, fields))
    ids = [scribe.convert(scribe.click(), conversion_unique_id="x", amount=amount) for amount in ("100", "50", "1")]
    await bench.drain()
    assert [await bench.verdict(one) for one in ids] == [CAPPED, APPROVED, ("rejected", "duplicate")]
    assert await bench.rows("SELECT key, conversion_id FROM conversion_keys") == [("u:x", UUID(bytes=ids[1]))]
    await assert_exact(bench)


async def test_a_duplicate_of_a_stored_conversion_uses_nothing(bench: Bench) -> None:
    """Refused ones, whatever for, leave room for others."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { total_conversions = 2 }"))
    click = scribe.click()
    ids = [scribe.convert(click), scribe.convert(click), scribe.convert(scribe.click(aff_id=99)), scribe.convert(b"")]
    ids.append(scribe.convert(scribe.click()))
    await bench.drain()
    verdicts = [await bench.verdict(one) for one in ids]
    assert [status for status, _ in verdicts] == ["approved", "rejected", "rejected", "rejected", "approved"]
    await assert_exact(bench)


async def test_capped_clicks_that_the_offer_took_earn_nothing_and_those_of_a_stand_in_do(bench: Bench) -> None:
    """cpc: beyond the cap `allow` is a free ride; a click that another offer took instead is that offer's."""
    fields = 'payout_type = "cpc"\npayout = "0.5"\ncap_clicks = "allow"\ncaps = { total_clicks = 1 }'
    scribe = bench.scribe(revision=await cap(bench, fields))
    paid = scribe.click(params={"offer_id": "17"})
    free = scribe.click(reason="capped", params={"offer_id": "17"}, ip="203.0.113.1")
    stood_in = scribe.click(reason="capped", params={"offer_id": "16"}, ip="203.0.113.2")
    refused = scribe.click(reason="capped", outcome="fallback", params={"offer_id": "17"}, ip="203.0.113.3")
    await bench.drain()
    rows = dict(await bench.rows("SELECT click_id, payout FROM clicks"))
    assert [rows[UUID(bytes=one)] for one in (paid, free, stood_in, refused)] == [Decimal("0.5"), 0, Decimal("0.5"), 0]
    assert await used(bench) == (3, 0, Decimal(1), 0)
    await assert_exact(bench)


async def test_days_begin_where_the_settings_say(bench: Bench) -> None:
    """EDGE_TIMEZONE: each click counts on the local day of its own hour, whenever it is drained."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { daily_clicks = 9, total_clicks = 99 }"))
    before, after = (datetime(2026, 3, 28, 22, 59, tzinfo=UTC), datetime(2026, 3, 28, 23, 0, tzinfo=UTC))
    for moment in (before, after, after + timedelta(hours=1)):
        scribe.click(ms=int(moment.timestamp() * 1000))
    await bench.drain(timezone="Europe/Berlin")
    days = await bench.rows("SELECT period_start, period_end, clicks FROM cap_usage WHERE period = 'daily' ORDER BY 1")
    # The 29th has 23 hours.
    assert days == [
        (datetime(2026, 3, 27, 23, tzinfo=UTC), after, 1),
        (after, datetime(2026, 3, 29, 22, tzinfo=UTC), 2),
    ]
    assert (await used(bench) or ())[0] == 3
    await assert_exact(bench)


async def test_a_batch_that_fails_uses_nothing_and_its_neighbours_count(bench: Bench) -> None:
    """Bisection: the poisonous record is cut out, what was decided before it is decided again, once."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { total_conversions = 30, daily_clicks = 5 }"))
    ids = []
    for number in range(40):
        ids.append(scribe.convert(scribe.click()))
        if number in (3, 17, 33):
            scribe.convert(scribe.click(), adv_sub1="a\0b")
            scribe.click(contact_id="a\0b")
    await bench.drain()
    assert await bench.value("SELECT count(*) FROM quarantine") == 6
    assert [await bench.verdict(one) for one in ids] == [APPROVED] * 30 + [CAPPED] * 10
    assert (await used(bench) or ())[:2] == (43, 30)
    await assert_exact(bench)


async def test_a_transaction_that_is_rolled_back_leaves_no_use_behind(bench: Bench) -> None:
    """A drain whose connection dies before its commit: the next one decides the same, and counts once."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { total_conversions = 2 }"))
    ids = [scribe.convert(scribe.click()) for _ in range(3)]
    station, conn = bench.station(), await bench.connect()
    await station.drain._feeds.discover(conn)
    (feed,) = station.drain._feeds
    await bench.conn.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON conversions DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    with pytest.raises(Exception, match=r"terminat|closed"):
        await station.drain._advance(conn, feed)
    assert await bench.value("SELECT count(*) FROM cap_usage") == 0
    await bench.conn.execute("DROP TRIGGER fail ON conversions")
    await bench.drain()
    assert [await bench.verdict(one) for one in ids] == [APPROVED, APPROVED, CAPPED]
    await assert_exact(bench)


async def test_conversions_that_waited_for_their_click_are_capped_too(bench: Bench) -> None:
    """Decided when the click comes, under the caps of the conversion's revision, in the hour of the decision."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { total_conversions = 1 }"))
    late = bench.scribe(worker=1, revision=scribe.revision)
    sessions = [late.session() for _ in range(2)]
    ids = [scribe.convert(session.click_id) for session in sessions]
    station = bench.station(drains=1, conversion_wait_s=0)
    await bench.drain(station)
    assert {await bench.verdict(one) for one in ids} == {("rejected", "unknown_click")}
    for session in sessions:
        late.click(session)
    await bench.drain(station)
    assert sorted([await bench.verdict(one) for one in ids]) == [APPROVED, CAPPED]
    await assert_exact(bench)
