"""Coarser sums: at every moment what stats_hourly adds up to, whoever writes beside, whatever time zone is asked for."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from edge.admin.roll_up import RollUp
from edge.counters import Counters
from storage.postgres.connection import Connection, connect
from storage.postgres.installation import remember
from storage.postgres.positions import Move, advance, register
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import run_report
from storage.postgres.reports.viewer import ADMIN
from storage.postgres.rollups import begin_rollups, forget_rollups, pass_hours, rollup_state
from storage.postgres.stats import Deltas, StatsKey, upsert
from tests.node import eventually
from tests.rollup_recount import rollup_differences

FIRST = datetime(2026, 3, 27, tzinfo=UTC)
"""Two days later clocks are put forward in Europe."""
HOURS = 24 * 6


def _deltas(chance: random.Random, rows: int, hours: range) -> Deltas:
    deltas = Deltas()
    for _ in range(rows):
        key = StatsKey(
            FIRST + timedelta(hours=chance.choice(hours)),
            chance.randrange(2),
            1,
            chance.randrange(1, 4),
            chance.randrange(1, 4),
            chance.randrange(2),
            0,
            chance.randrange(2),
            chance.choice(["", "DE", "US"]),
            chance.choice(["", "mobile"]),
            chance.choice(["USD", "EUR"]),
        )
        deltas.add(key, gross_clicks=chance.randrange(3), conversions=chance.randrange(-1, 2))
        deltas.add(key, payout=Decimal(chance.randrange(-500, 500)) / 100, reversed=chance.randrange(2))
    return deltas


async def _store(conn: Connection, deltas: Deltas) -> None:
    async with conn.transaction():
        await upsert(conn, deltas)


async def _start(conn: Connection, timezone: str, until: datetime) -> None:
    await forget_rollups(conn)
    await begin_rollups(conn, timezone, FIRST)
    while (through := await pass_hours(conn, until)) is not None and through < until:
        pass


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Connection]:
    """A connection to a fresh database."""
    opened = await connect(database)
    yield opened
    await opened.close()


@pytest.fixture
async def rival(database: str) -> AsyncIterator[Connection]:
    """Another one to the same database."""
    opened = await connect(database)
    yield opened
    await opened.close()


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "America/Los_Angeles"])
async def test_days_and_hours_add_up(conn: Connection, timezone: str) -> None:
    """Each grain holds what the hours before the boundary add up to, in days of the zone, short ones too."""
    await _store(conn, _deltas(random.Random(1), 400, range(HOURS)))
    await _start(conn, timezone, FIRST + timedelta(hours=HOURS - 30))
    assert await rollup_differences(conn) == []
    assert await conn.fetchval("SELECT count(DISTINCT grain) FROM stats_rollups") == 12
    days = await conn.fetchval("SELECT count(DISTINCT hour) FROM stats_rollups WHERE grain = 1")
    assert days == (6 if timezone == "America/Los_Angeles" else 5)


async def test_what_comes_late_is_in_at_once(conn: Connection) -> None:
    """Clicks and changes of an hour that was rolled up are in the coarser sums at the same commit; undone, in neither."""
    chance = random.Random(2)
    await _store(conn, _deltas(chance, 50, range(HOURS)))
    await _start(conn, "Europe/Berlin", FIRST + timedelta(hours=100))
    before = await conn.fetchval("SELECT sum(payout) FROM stats_rollups WHERE grain = 1")
    await _store(conn, _deltas(chance, 50, range(80, 120)))
    assert await rollup_differences(conn) == []
    assert await conn.fetchval("SELECT sum(payout) FROM stats_rollups WHERE grain = 1") != before
    rolled_back = conn.transaction()
    await rolled_back.start()
    await upsert(conn, _deltas(chance, 50, range(90)))
    await rolled_back.rollback()
    assert await rollup_differences(conn) == []


async def test_an_hour_is_not_passed_in_the_midst_of_a_transaction(conn: Connection, rival: Connection) -> None:
    """Who moves the boundary waits for a writer of those hours, and then counts what it wrote, once."""
    await _start(conn, "UTC", FIRST)
    for hours in (range(3), range(HOURS)):  # the latter more than are locked one by one
        writing = rival.transaction()
        await writing.start()
        await upsert(rival, _deltas(random.Random(3), 60, hours))
        passing = asyncio.create_task(pass_hours(conn, FIRST + timedelta(hours=5)))
        await _until_waits(rival)
        await writing.commit()
        assert await passing == FIRST + timedelta(hours=5)
        assert await rollup_differences(conn) == []
        await _start(conn, "UTC", FIRST)


async def test_a_writer_of_this_hour_waits_for_nobody(conn: Connection, rival: Connection) -> None:
    """While finished hours are being summed, the hour of now is written to; a late row waits, and is counted once."""
    await _store(conn, _deltas(random.Random(4), 60, range(8)))
    await _start(conn, "UTC", FIRST)
    passing = conn.transaction()
    await passing.start()
    await pass_hours(conn, FIRST + timedelta(hours=6))
    await asyncio.wait_for(_store(rival, _deltas(random.Random(5), 60, range(6, 8))), 20)
    late = asyncio.create_task(_store(rival, _deltas(random.Random(6), 60, range(8))))
    await _until_waits(conn)
    await passing.commit()
    await late
    assert await rollup_differences(conn) == []


@pytest.mark.parametrize("seed", range(3))
async def test_any_interleaving_adds_up(database: str, seed: int) -> None:
    """Two writers of any hours, one who moves the boundary and one who starts anew: every snapshot adds up."""
    chance = random.Random(seed)
    *writers, mover, starter, reader = [await connect(database) for _ in range(5)]
    finished = asyncio.Event()

    async def write(conn: Connection) -> None:
        for _ in range(25):
            begin = chance.randrange(HOURS)
            await _store(
                conn, _deltas(chance, chance.randrange(1, 40), range(begin, begin + chance.choice((1, 3, 60))))
            )

    async def move() -> None:
        until = FIRST
        while not finished.is_set():
            until += timedelta(hours=chance.randrange(12))
            await pass_hours(mover, until)

    async def start_anew() -> None:
        while not finished.is_set():
            await forget_rollups(starter)
            await begin_rollups(starter, chance.choice(["UTC", "Europe/Berlin", "Asia/Tokyo"]), FIRST)
            await asyncio.wait([asyncio.create_task(finished.wait())], timeout=chance.random() / 10)

    async def look() -> None:
        while not finished.is_set():
            async with reader.transaction(isolation="repeatable_read", readonly=True):
                assert await rollup_differences(reader) == []

    others = [asyncio.create_task(one) for one in (move(), start_anew(), look())]
    await asyncio.gather(*map(write, writers))
    finished.set()
    await asyncio.gather(*others)
    await pass_hours(mover, FIRST + timedelta(days=30))
    assert await rollup_differences(reader) == []
    for conn in (*writers, mover, starter, reader):
        await conn.close()


async def test_grains_of_another_release_are_not_used(conn: Connection) -> None:
    """A release that cannot keep up the other's grains takes them out of use when it must, and not before."""
    await _store(conn, _deltas(random.Random(7), 60, range(8)))
    await _start(conn, "UTC", FIRST + timedelta(hours=6))
    await conn.execute("UPDATE stats_rollup_state SET layout = '1 day offer_id'")
    assert await rollup_state(conn) is None
    assert await pass_hours(conn, FIRST + timedelta(hours=8)) is None
    await _store(conn, _deltas(random.Random(8), 60, range(6, 8)))
    assert await conn.fetchval("SELECT count(*) FROM stats_rollup_state") == 1
    await _store(conn, _deltas(random.Random(8), 60, range(8)))
    assert await conn.fetchval("SELECT count(*) FROM stats_rollup_state") == 0


async def _until_waits(conn: Connection) -> None:
    async def is_waiting() -> bool:
        return bool(await conn.fetchval("SELECT true FROM pg_locks WHERE NOT granted LIMIT 1"))

    await eventually(is_waiting, 20)


@pytest.mark.parametrize(("timezone", "is_used"), [("Europe/Berlin", True), ("Asia/Kolkata", False)])
async def test_another_time_zone_is_followed(conn: Connection, timezone: str, is_used: bool) -> None:
    """The job fills the days of a new zone from nothing; where days begin at half an hour of UTC, nothing is used."""
    job = RollUp(str, "UTC", Counters.private())
    now = FIRST + timedelta(hours=HOURS, minutes=20)
    await _store(conn, _deltas(random.Random(9), 200, range(HOURS + 1)))
    assert await job.roll_up(conn, now) == FIRST + timedelta(hours=HOURS)
    assert await rollup_differences(conn) == []
    await remember(conn, "timezone", timezone)
    await job.roll_up(conn, now)
    state = await rollup_state(conn)
    assert (state and state.timezone) == (timezone if is_used else None)
    assert await rollup_differences(conn) == []


async def test_hours_that_are_not_drained_yet_are_waited_for(conn: Connection) -> None:
    """A journal that is behind holds the boundary back, for a day at most: then what it still has comes late."""
    job = RollUp(str, "UTC", Counters.private())
    await _store(conn, _deltas(random.Random(10), 20, range(HOURS)))
    stuck = FIRST + timedelta(hours=50, minutes=30)
    journal_id = uuid4()
    await register(conn, [(journal_id, 0, 0)])
    await advance(conn, [Move(journal_id, None, (1, 0), (1, 100), int(stuck.timestamp() * 1000))])
    assert await job.roll_up(conn, FIRST + timedelta(hours=60)) == FIRST + timedelta(hours=50)
    assert await job.roll_up(conn, FIRST + timedelta(hours=90)) == FIRST + timedelta(hours=66)
    assert await rollup_differences(conn) == []


async def test_a_midnight_that_comes_twice_begins_its_day_once(conn: Connection) -> None:
    """Where clocks are put back at one to midnight, the day is a bucket from its first midnight on, and reports end there too."""
    zone, last = "Atlantic/Azores", datetime(2026, 10, 26, tzinfo=UTC)
    deltas = Deltas()
    for hours in range(48):
        key = StatsKey(last - timedelta(hours=hours), 0, 1, 1, 1, 0, 0, 0, "", "", "USD")
        deltas.add(key, gross_clicks=1)
    await _store(conn, deltas)
    for through in range(20, 48):
        until = last - timedelta(hours=through)
        await _start(conn, zone, until)
        assert await rollup_differences(conn) == []
        for begins in range(20, 26):
            asked = [("from", (last - timedelta(hours=begins)).isoformat()), ("to", last.isoformat()), ("timezone", zone)]
            query = parse_query([*asked, ("metrics", "gross_clicks")], ADMIN, last, "UTC")
            report = await run_report(conn, query, ADMIN, last)
            assert report.totals.metrics["gross_clicks"] == begins, (through, report.plan)
