"""Unique clicks: whose click is a duplicate, and that no restart, rollback or order of journals changes it. U: uniques.py."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from random import Random
from uuid import UUID

import pytest

from edge.counters import cell
from storage.postgres.visits import lock_visits
from tests.postgres.drains import GOOGLEBOT, Bench, Scribe, Station, now_ms, until
from tests.recount import differences
from tests.visits import misjudged
from tests.wire_proxy import Cut, WireProxy

HOUR_MS = 3_600_000
HERE, THERE = "203.0.113.77", "203.0.113.78"


async def duplicates(bench: Bench) -> list[bytes]:
    """Ids of the clicks so flagged, in order; the roll-ups agree with them."""
    assert await differences(bench.conn) == []
    rows = await bench.rows("SELECT click_id FROM clicks WHERE 'duplicate' = ANY (flags)")
    return sorted(row[0].bytes for row in rows)


async def test_a_visitors_second_click_is_a_duplicate_by_cookie_or_by_address_and_browser(bench: Bench) -> None:
    """Without a cookie by address and user agent; with one by its first id, from wherever, and only so."""
    scribe = bench.scribe()
    first = scribe.click()
    again = scribe.click()
    on_the_way = scribe.click(visitor=first, ip=THERE)
    neighbour = scribe.click(visitor=scribe.ids.mint(now_ms() - 48 * HOUR_MS))
    neighbour_again = scribe.click(visitor=neighbour, ip=THERE)
    await bench.drain()
    assert await duplicates(bench) == [again, on_the_way, neighbour_again]


async def test_another_offer_partner_or_browser_is_another_visit(bench: Bench) -> None:
    """Unique is per offer, partner and visitor."""
    scribe = bench.scribe()
    for fields in ({}, {"offer_id": 18}, {"aff_id": 3}, {"ip": THERE}, {"user_agent": "another browser"}):
        scribe.click(**fields)
    again = scribe.click(aff_id=3)
    await bench.drain()
    assert await duplicates(bench) == [again]


async def test_bots_and_prefetches_neither_are_nor_make_duplicates(bench: Bench) -> None:
    """A preview of the link a moment before does not cost the partner the visitor's own click."""
    scribe = bench.scribe()
    scribe.click(flags=["prefetch"])
    scribe.click(user_agent=GOOGLEBOT)
    scribe.click(user_agent=GOOGLEBOT)
    seen = scribe.click()
    scribe.click(flags=["prefetch"], visitor=seen)
    await bench.drain()
    assert await duplicates(bench) == []
    assert await bench.value("SELECT sum(unique_clicks) FROM stats_hourly") == 1


@pytest.mark.parametrize(("hours", "expected"), [(0, []), (1, [False]), (2, [True]), (24, [True])])
async def test_the_window_is_that_of_the_setting(bench: Bench, hours: int, expected: list[bool]) -> None:
    """Ninety minutes apart; 0 turns it off, for clicks a moment apart too."""
    scribe = bench.scribe()
    begin_ms = now_ms() - 3 * HOUR_MS
    scribe.click(ms=begin_ms)
    if hours == 0:
        scribe.click(ms=begin_ms + 1)
    late = scribe.click(ms=begin_ms + HOUR_MS * 3 // 2)
    await bench.drain(unique_hours=hours)
    assert [one in await duplicates(bench) for one in [late][: len(expected)]] == expected
    assert hours or await duplicates(bench) == []


async def test_a_duplicate_renews_the_visit(bench: Bench) -> None:
    """Unique is who was not there for the whole window: the last visit counts, a duplicate too."""
    scribe = bench.scribe()
    begin_ms = now_ms() - 100 * HOUR_MS
    clicks = [scribe.click(ms=begin_ms + hours * HOUR_MS) for hours in (0, 20, 40, 65, 90)]
    await bench.drain()
    assert await duplicates(bench) == clicks[1:3]


def visits_at_random(scribes: list[Scribe], count: int, random: Random) -> Iterator[bytes]:
    """Clicks of few people over three days, some with a cookie of an earlier click, some bots, journals in any order."""
    begin_ms = now_ms() - 72 * HOUR_MS
    cookies: dict[tuple[int, int], bytes] = {}
    for number in range(count):
        person, offer_id = random.randrange(12), random.choice((17, 18))
        cookie = cookies.get((person, offer_id), b"") if random.random() < 0.5 else b""
        flags = ["prefetch"] if random.random() < 0.1 else []
        click_id = random.choice(scribes).click(
            ms=begin_ms + number * 72 * HOUR_MS // count,
            offer_id=offer_id,
            aff_id=random.choice((2, 3)),
            ip=f"198.51.100.{person // 3}",  # three people behind each address
            visitor=cookie,
            flags=flags,
        )
        cookies.setdefault((person, offer_id), cookie or click_id)
        yield click_id


@pytest.mark.parametrize("batch_rows", [3, 1000])
async def test_restarts_between_batches_change_no_flag(bench: Bench, batch_rows: int) -> None:
    """U1: a new process after every few batches flags what one that never stopped would, and what SQL says."""
    scribe = bench.scribe()
    clicks = list(visits_at_random([scribe], 300, Random(1)))
    conn = await bench.connect()
    while not await is_at_end(bench, scribe):
        station = bench.station(batch_rows=batch_rows)
        await station.drain._feeds.discover(conn)
        for _ in range(7):
            for feed in station.drain._feeds:
                await station.drain._advance(conn, feed)
    assert await misjudged(bench.conn) == []
    flagged = await duplicates(bench)
    assert flagged == await expected_in_order(bench)
    assert 50 < len(flagged) < len(clicks) - 50


async def expected_in_order(bench: Bench) -> list[bytes]:
    """The duplicates, if the clicks were stored in the order of their ids."""
    rows = await bench.rows(
        "SELECT click_id FROM clicks AS c WHERE NOT flags && '{bot,prefetch,datacentre}' AND EXISTS ("
        " SELECT FROM clicks AS e WHERE e.click_id < c.click_id AND e.offer_id = c.offer_id AND e.aff_id = c.aff_id"
        " AND c.visitor IN (e.visitor, e.click_id) AND NOT e.flags && '{bot,prefetch,datacentre}'"
        " AND e.clicked_at >= c.clicked_at - interval '24 hours')"
    )
    return sorted(row[0].bytes for row in rows)


async def test_journals_out_of_order_give_each_visitor_one_unique_click(bench: Bench) -> None:
    """U3: a node's workers hand over their clicks in any order, a returning visitor's before his first."""
    scribes = [bench.scribe(worker=worker) for worker in range(3)]
    list(visits_at_random(scribes, 300, Random(2)))
    await bench.drain(batch_rows=10)
    assert await misjudged(bench.conn) == []
    assert len(await duplicates(bench)) > 50


async def test_what_is_rolled_back_was_never_seen(bench: Bench) -> None:
    """U1: bisection stores a batch in pieces, some twice tried; a click cut out for good makes no duplicate."""
    scribe = bench.scribe()
    scribe.click(contact_id="a\0b")
    scribe.click(ip="not an address", user_agent="one")
    clicks = [scribe.click() for _ in range(3)]
    scribe.click(aff_id=2**31)
    scribe.click(ip=THERE, contact_id="\0")
    later = scribe.click(ip=THERE)
    await bench.drain()
    assert await bench.value("SELECT count(*) FROM quarantine") == 4
    assert await duplicates(bench) == clicks[1:]
    assert later in await bench.ids()
    assert await misjudged(bench.conn) == []


async def test_a_commit_whose_reply_is_lost_is_remembered(bench: Bench) -> None:
    """U1: after a lost connection the memory is what Postgres has, whether the batch got there or not."""
    scribe = bench.scribe()
    async with WireProxy(bench.url).listening() as proxy, bench.station(url=proxy.url).running():
        for number, portion in enumerate(["nothing", "half", "all"] * 2):
            ip = f"203.0.113.{number}"
            scribe.click(ip=ip)
            await until(lambda: is_at_end(bench, scribe))
            proxy.arm(Cut(b"COMMIT;", 0, portion))  # type: ignore[arg-type]
            scribe.click(ip=ip, aff_id=3)
            await proxy.wait_cut()
            scribe.click(ip=ip, aff_id=3)
            await until(lambda: is_at_end(bench, scribe))
    assert len(await duplicates(bench)) == 6
    assert await misjudged(bench.conn) == []


async def test_a_database_restored_from_before_a_click_stores_it_again_as_unique(bench: Bench) -> None:
    """U1: the journal is read again, and what this process remembers of the clicks that were lost does not count."""
    scribe = bench.scribe()
    station = bench.station()
    kept = scribe.click(ip=THERE)
    await bench.drain(station)
    position = await bench.position(scribe)
    scribe.click()
    repeat = scribe.click()
    await bench.drain(station)
    async with bench.conn.transaction():
        await bench.conn.execute("DELETE FROM clicks WHERE click_id <> $1", UUID(bytes=kept))
        await bench.conn.execute("DELETE FROM stats_hourly")
        await bench.conn.execute("UPDATE journal_positions SET segment = $1, byte_offset = $2", *position)
    station.drain._feeds.forget_all()
    station.drain._uniques.doubt()
    await bench.drain(station)
    rows = await bench.rows("SELECT click_id FROM clicks WHERE 'duplicate' = ANY (flags)")
    assert [row[0].bytes for row in rows] == [repeat]
    assert await misjudged(bench.conn) == []


async def test_a_connection_lost_between_batches_costs_no_second_reading(bench: Bench) -> None:
    """U1: the memory stays as it is: who is not to be found in `clicks` any more is known all the same."""
    scribe = bench.scribe()
    station = bench.station()
    scribe.click()
    await bench.drain(station)
    await bench.conn.execute("UPDATE clicks SET visitor = NULL")
    station.drain._uniques.doubt()
    again = scribe.click()
    await bench.drain(station)
    assert await duplicates(bench) == [again]


async def is_at_end(bench: Bench, scribe: Scribe) -> bool:
    """Whether all that was written is stored."""
    known = await bench.value("SELECT count(*) FROM journal_positions WHERE journal_id = $1", scribe.writer.journal_id)
    return bool(known) and await bench.position(scribe) == scribe.writer.appended


async def test_two_drains_agree_on_who_came_first(bench: Bench) -> None:
    """Both hold a batch with the same visitors open at once: the one that comes second does its batch again."""
    scribes = [bench.scribe(worker=worker) for worker in (0, 1)]
    for number in range(20):
        for scribe in scribes:
            scribe.click(ip=f"198.51.100.{number}")
    stations = [bench.station(slot=slot, drains=2) for slot in (0, 1)]
    conns = [await bench.connect() for _ in stations]
    async with bench.conn.transaction():
        await lock_visits(bench.conn, 0)
        turns = [asyncio.create_task(Station.turn(*pair)) for pair in zip(stations, conns, strict=True)]
        await until(lambda: are_waiting(bench, 2))
    await asyncio.gather(*turns)
    assert len(await duplicates(bench)) == 20
    assert await misjudged(bench.conn) == []


async def are_waiting(bench: Bench, count: int) -> bool:
    """Whether so many transactions wait for the node's lock."""
    waiting = "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database WHERE locktype = 'advisory' "
    return bool(await bench.value(waiting + "AND NOT granted AND datname = current_database()") == count)


async def test_a_cookie_that_overtakes_its_own_click_makes_that_one_the_duplicate(bench: Bench) -> None:
    """Two drains again: the first click is still uncommitted when the one with its cookie is stored."""
    here, there = [bench.scribe(worker=worker) for worker in (0, 1)]
    first = here.click()
    there.click(visitor=first, ip=THERE)
    stations = [bench.station(slot=slot, drains=2) for slot in (0, 1)]
    conns = [await bench.connect() for _ in stations]
    for station, conn in zip(stations, conns, strict=True):
        await station.drain._feeds.discover(conn)
    async with bench.conn.transaction():
        await lock_visits(bench.conn, 0)
        late = asyncio.create_task(stations[1].turn(conns[1]))
        await until(lambda: are_waiting(bench, 1))
        early = asyncio.create_task(stations[0].turn(conns[0]))
        await until(lambda: are_waiting(bench, 2))
    await asyncio.gather(late, early)
    assert await duplicates(bench) == [first]


async def test_several_drains_at_full_speed_misjudge_nobody(bench: Bench) -> None:
    """Three of them, small batches, few visitors; each learns what the others have stored, also after a restart."""
    scribes = [bench.scribe(worker=worker) for worker in range(3)]
    async with AsyncExitStack() as stack:
        for slot in (0, 1):
            await stack.enter_async_context(bench.station(slot=slot, drains=3, batch_rows=20).running())
        async with bench.station(slot=2, drains=3, batch_rows=20).running():
            write_quickly(scribes, 300)
            await until(lambda: are_at_end(bench, scribes))
        await bench.conn.execute("DELETE FROM visit_batches WHERE seq < (SELECT max(seq) FROM visit_batches)")
        write_quickly(scribes[:2], 100)
        await until(lambda: are_at_end(bench, scribes[:2]))
        write_quickly(scribes, 100)
        await bench.drain(slot=2, drains=3)
        await until(lambda: are_at_end(bench, scribes))
    assert len(await bench.ids()) == 300 * 3 + 100 * 2 + 100 * 3
    assert await misjudged(bench.conn) == []
    assert await bench.value("SELECT sum(unique_clicks) FROM stats_hourly") == 400


def write_quickly(scribes: list[Scribe], visitors: int) -> None:
    """Each visitor clicks once with each worker."""
    for number in range(visitors):
        for scribe in scribes:
            scribe.click(ip=f"198.18.{visitors // 100}.{number % 256}", user_agent=str(number // 256))


async def are_at_end(bench: Bench, scribes: list[Scribe]) -> bool:
    """Whether all journals are stored."""
    return all([await is_at_end(bench, scribe) for scribe in scribes])


async def test_what_drains_told_each_other_is_deleted_and_who_missed_it_reads_again(bench: Bench) -> None:
    """V2: the last row stays; a gap in the numbers is no lost visit."""
    scribes = [bench.scribe(worker=worker) for worker in (0, 1)]
    stations = [bench.station(slot=slot, drains=2, batch_rows=1) for slot in (0, 1)]
    conns = [await bench.connect() for _ in stations]
    scribes[1].click(ip="192.0.2.1")
    await stations[1].turn(conns[1])
    for number in range(3):
        scribes[0].click(ip=f"198.51.100.{number}")
    await stations[0].turn(conns[0])
    await bench.conn.execute("UPDATE visit_batches SET stored_at = now() - interval '11 minutes'")
    await stations[0].drain._uniques.tidy(conns[0])
    assert await bench.rows("SELECT seq FROM visit_batches") == [(4,)]
    for number in range(3):
        scribes[1].click(ip=f"198.51.100.{number}")
    await stations[1].turn(conns[1])
    assert len(await duplicates(bench)) == 3


async def test_a_full_memory_forgets_the_oldest_and_says_so(bench: Bench) -> None:
    """Beyond `EDGE_UNIQUE_CAPACITY` a visitor may count as new again, and a counter says how much was forgotten."""
    scribe = bench.scribe()
    station = bench.station(unique_capacity=1000, batch_rows=100)
    first = scribe.click()
    for number in range(600):
        scribe.click(ip=f"198.51.{number // 256}.{number % 256}")
    again = scribe.click()
    await bench.drain(station)
    assert metric(station, "edge_visits_forgotten_total") > 0
    assert metric(station, "edge_visits_held") <= 1000
    assert again not in await duplicates(bench)
    assert first in await bench.ids()


def metric(station: Station, name: str) -> int:
    """A count of the station's."""
    return station.counters.cells[cell(name)]
