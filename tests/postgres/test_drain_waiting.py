"""A conversion before its click: how long it waits, for whom, and what a click that comes late changes."""

from typing import Any
from uuid import UUID

import pytest

from tests.postgres.drains import CATALOG, Bench, Scribe, Station, make_settings, now_ms
from tests.recount import differences

WAITING = "SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL"


class Late:
    """Worker 0 has minted a click that is in no journal yet; worker 1 has journalled its conversion."""

    def __init__(self, bench: Bench) -> None:
        self.clicker, self.other = bench.scribe(worker=0), bench.scribe(worker=1)
        self.session = self.clicker.session(aff_id=3)
        self.id_ms = int.from_bytes(self.session.click_id[:6], "big")
        self.conversion = self.other.convert(self.session.click_id, offer_id=17)
        self.station: Station = bench.station()


async def test_a_conversion_waits_for_the_click_of_another_workers_journal(bench: Bench) -> None:
    """Worker 0's journal is behind: no verdict. With the click comes the approval, in the same transaction."""
    late = Late(bench)
    await bench.drain(late.station)
    assert await bench.value(WAITING) == 1
    assert await bench.ids("conversions") == []
    late.clicker.click(late.session)
    await bench.drain(late.station)
    assert await bench.verdict(late.conversion) == ("approved", "")
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0
    assert await differences(bench.conn) == []


async def test_the_watermark_ends_the_wait(bench: Bench) -> None:
    """Through the millisecond before the id's is not enough; through the id's it is, and the click is unknown."""
    late = Late(bench)
    late.clicker.beat(late.id_ms)
    await bench.drain(late.station)
    assert await bench.value(WAITING) == 1
    late.clicker.beat(late.id_ms + 1)
    await bench.drain(late.station)
    assert await bench.verdict(late.conversion) == ("rejected", "unknown_click")
    assert await bench.value(WAITING) == 0
    assert await differences(bench.conn) == []


async def test_the_deadline_ends_the_wait(bench: Bench) -> None:
    """EDGE_CONVERSION_WAIT after the receipt the click is unknown, whatever the journals say."""
    late = Late(bench)
    await bench.drain(late.station)
    await bench.conn.execute("UPDATE conversions_waiting SET deadline = deadline - interval '71 hours'")
    await bench.drain(late.station)
    assert await bench.value(WAITING) == 1
    await bench.conn.execute("UPDATE conversions_waiting SET deadline = deadline - interval '1 hour'")
    await bench.drain(late.station)
    assert await bench.verdict(late.conversion) == ("rejected", "unknown_click")


async def test_a_conversion_drained_after_its_deadline_does_not_wait(bench: Bench) -> None:
    """The drain was away for longer than the wait: no second wait begins."""
    scribe, clicker = bench.scribe(worker=1), bench.scribe(worker=0)
    conversion = scribe.convert(clicker.ids.mint(0), ms=now_ms() - 3_600_000)
    await bench.drain(conversion_wait_s=1800)
    assert await bench.verdict(conversion) == ("rejected", "unknown_click")


@pytest.mark.parametrize("is_duplicate", [False, True])
async def test_a_click_that_comes_late_decides_again(bench: Bench, is_duplicate: bool) -> None:
    """From unknown_click to its true verdict; keys and roll-ups follow, and both decisions are on record."""
    late = Late(bench)
    late.clicker.beat(now_ms() + 5)
    await bench.drain(late.station)
    assert await bench.verdict(late.conversion) == ("rejected", "unknown_click")
    if is_duplicate:
        known = late.clicker.sessions[late.session.click_id]
        late.other.convert(late.session.click_id, session=known)
    late.clicker.click(late.session)
    await bench.drain(late.station)
    expected = ("rejected", "duplicate") if is_duplicate else ("approved", "")
    assert await bench.verdict(late.conversion) in (expected, ("approved", ""))
    assert await bench.value("SELECT count(*) FROM conversions WHERE status = 'approved'") == 1
    changes = await bench.rows(
        "SELECT status_before, status_after FROM conversion_changes WHERE conversion_id = $1 ORDER BY change_id",
        UUID(bytes=late.conversion),
    )
    assert changes == [("", "rejected"), ("rejected", (await bench.verdict(late.conversion))[0])]
    assert await bench.rows("SELECT sum(conversions), sum(rejected), sum(payout) FROM stats_hourly") == [
        (1, int(is_duplicate), 6)
    ]
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0
    assert await differences(bench.conn) == []


async def test_a_finished_journal_vouches_only_through_its_last_record(bench: Bench) -> None:
    """A worker killed after it minted an id may have a successor whose journal nobody has seen: no verdict yet."""
    late = Late(bench)
    late.clicker.beat(late.id_ms - 1000)
    late.clicker.close()
    await bench.drain(late.station)
    assert await bench.value("SELECT count(*) FROM journal_positions WHERE finished_at IS NOT NULL") == 1
    assert await bench.value(WAITING) == 1
    successor = bench.scribe(worker=0)
    await bench.drain(late.station)
    assert await bench.value(WAITING) == 1
    successor.beat(now_ms() + 1000)
    await bench.drain(late.station)
    assert await bench.verdict(late.conversion) == ("rejected", "unknown_click")


async def test_a_journal_discovered_late_still_brings_the_click_in_time(bench: Bench) -> None:
    """The journals known so far are finished; the click lies in one that is found after the conversion is drained."""
    late = Late(bench)
    late.clicker.beat(late.id_ms - 1000)
    late.clicker.close()
    await bench.drain(late.station)
    bench.scribe(worker=0).click(late.session)
    await bench.drain(late.station)
    assert await bench.verdict(late.conversion) == ("approved", "")
    assert await bench.value("SELECT count(*) FROM conversion_changes") == 1


async def test_an_undrained_journal_holds_back_what_a_later_one_says(bench: Bench) -> None:
    """Two journals of one worker: the later is drained beyond the id, the earlier has the click and is not drained."""
    late = Late(bench)
    late.clicker.click(late.session)
    late.clicker.close()
    bench.scribe(worker=0).beat(now_ms() + 1000)
    conn = await bench.connect()
    await late.station.drain._feeds.discover(conn)
    _, other, successor = late.station.drain._feeds
    await late.station.drain._advance(conn, successor)
    await late.station.drain._advance(conn, other)
    assert await late.station.drain._store.settle_due(conn) == 0
    assert await bench.value(WAITING) == 1
    await late.station.turn(conn)
    assert await bench.verdict(late.conversion) == ("approved", "")
    assert await bench.value("SELECT count(*) FROM conversion_changes") == 1


async def test_a_worker_of_another_node_is_waited_for(bench: Bench) -> None:
    """An id of node 7, which no journal of this database speaks for, waits for the deadline."""
    stranger = Scribe(bench.data_dir.with_name(bench.data_dir.name + "-7"), node=7)
    scribe = bench.scribe()
    click_id = stranger.click()
    conversion = scribe.convert(click_id)
    scribe.beat(now_ms() + 1000)
    await bench.drain()
    assert await bench.value(WAITING) == 1
    other = bench.station()
    await bench.drain(other)
    assert await bench.ids("conversions") == []
    elsewhere = Station(make_settings(stranger.writer.directory.parents[1], bench.url, node_id=7))
    await bench.drain(elsewhere)
    assert await bench.verdict(conversion) == ("approved", "")
    assert await bench.rows("SELECT DISTINCT node_id FROM stats_hourly") == [(7,)]
    stranger.close()


async def test_waiting_survives_a_restart_of_the_drain(bench: Bench) -> None:
    """Another process takes up what waits."""
    late = Late(bench)
    await bench.drain(late.station)
    late.clicker.click(late.session)
    await bench.drain()
    assert await bench.verdict(late.conversion) == ("approved", "")


@pytest.mark.parametrize("ends_by", ["the click", "the promo code"])
async def test_what_waited_is_decided_in_the_order_in_which_it_came(bench: Bench, ends_by: str) -> None:
    """A sale and its refund, wherever their rows have come to lie meanwhile: the refund takes back the sale."""
    revision = await bench.apply(CATALOG.replace('payout = "5.00"', 'payout = "5.00"\npromo_codes = [{ code = "X", aff_id = 2 }]'))
    clicker, other = bench.scribe(worker=0, revision=revision), bench.scribe(worker=1, revision=revision)
    session, station = clicker.session(), bench.station()
    sent: dict[str, Any] = {"offer_id": 17, "promo_code": "X", "conversion_unique_id": "o-1"}
    sale = other.convert(session.click_id, **sent)
    other.convert(session.click_id, **sent, status="reversed")
    await bench.drain(station)
    await bench.conn.execute(
        "UPDATE conversions_waiting SET deadline = deadline + interval '1s' WHERE conversion_id = $1", UUID(bytes=sale)
    )
    if ends_by == "the click":
        clicker.click(session)
    else:
        clicker.beat(now_ms() + 1000)
    await bench.drain(station)
    assert await bench.verdict(sale) == ("reversed", "advertiser")
    assert await differences(bench.conn) == []
