"""edge/admin/state_publisher.py: which caps are reached, in a file, whatever happens to rows, catalog and database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from edge.admin.state_publisher import StatePublisher
from edge.counters import Counters, cell
from storage.postgres.cap_usage import forget_usage
from storage.state_file import PublishedState, read_state
from tests.postgres.capped import cap, many_capped_offers
from tests.postgres.drains import Bench, until

EVER_MS = 253_370_764_800_000


class Desk:
    """A publisher that is asked by hand."""

    def __init__(self, bench: Bench, zone: str = "UTC") -> None:
        self.path = bench.data_dir / "published.state"
        self.counters = Counters.private()
        self.publisher = StatePublisher(lambda: bench.url, self.path, ZoneInfo(zone), self.counters)
        self._bench = bench

    async def publish(self, now: datetime | None = None) -> list[tuple[int, int, int]]:
        """Who is capped, as the file says."""
        conn = await self._bench.connect()
        state = await self.publisher.publish(conn, now or datetime.now(UTC))
        assert read_state(self.path) == state
        await conn.close()
        return state.capped


@pytest.fixture
def desk(bench: Bench) -> Desk:
    return Desk(bench)


def end_of_day_ms(now: datetime | None = None) -> int:
    return int(((now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)).timestamp()) * 1000


async def test_a_reached_cap_is_published_with_its_end(bench: Bench, desk: Desk) -> None:
    """Below the cap nothing, at it the offer until midnight; with two reached, the longer period."""
    began_s = time.time()
    scribe = bench.scribe(revision=await cap(bench, "caps = { daily_clicks = 2, total_conversions = 1 }"))
    scribe.click()
    await bench.drain()
    assert await desk.publish() == []
    scribe.click()
    await bench.drain()
    assert await desk.publish() == [(17, 0, end_of_day_ms())]
    scribe.convert(scribe.click())
    await bench.drain()
    assert await desk.publish() == [(17, 0, EVER_MS)]
    assert desk.counters.cells[cell("edge_capped_pairs")] == 1
    assert desk.counters.cells[cell("edge_state_published_seconds")] >= int(began_s * 1000)


@pytest.mark.parametrize(
    "caps", ['daily_payout = "10"', 'weekly_revenue = "15"', "monthly_conversions = 2", "total_clicks = 2"]
)
async def test_every_kind_of_cap_is_watched(bench: Bench, desk: Desk, caps: str) -> None:
    """Clicks, conversions, payout and revenue, in each period; two conversions reach them all, one none."""
    scribe = bench.scribe(revision=await cap(bench, f"caps = {{ {caps} }}"))
    scribe.convert(scribe.click())
    await bench.drain()
    assert await desk.publish() == []
    scribe.convert(scribe.click())
    await bench.drain()
    assert [pair[:2] for pair in await desk.publish()] == [(17, 0)]


async def test_a_partners_reached_cap_names_the_partner(bench: Bench, desk: Desk) -> None:
    """The offer stays open to the others."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { daily_clicks = 9 }", partner_3="daily_clicks = 1"))
    scribe.click(aff_id=3)
    await bench.drain()
    assert await desk.publish() == [(17, 3, end_of_day_ms())]


async def test_a_cap_is_known_without_a_drain(bench: Bench, desk: Desk) -> None:
    """Brought in when all is used up already, lowered, raised, taken away: the next look says so, by a count of its own."""
    scribe = bench.scribe()
    for _ in range(5):
        scribe.click()
    await bench.drain()
    for clicks, expected in ((5, True), (6, False), (3, True), (None, False), (4, True), (0, True)):
        await cap(bench, f"caps = {{ daily_clicks = {clicks} }}" if clicks is not None else "")
        assert bool(await desk.publish()) is expected
        assert await bench.value("SELECT count(*) FROM cap_usage WHERE is_counted") == (clicks is not None)


async def test_the_next_day_opens_the_offer(bench: Bench, desk: Desk) -> None:
    """In the zone of the settings; a row for the new day is counted, from nothing."""
    berlin = Desk(bench, "Europe/Berlin")
    scribe = bench.scribe(revision=await cap(bench, "caps = { daily_clicks = 1 }"))
    evening = datetime(2026, 7, 1, 21, 30, tzinfo=UTC)
    scribe.click(ms=int(evening.timestamp() * 1000))
    await bench.drain(timezone="Europe/Berlin")
    assert await berlin.publish(evening) == [(17, 0, int(datetime(2026, 7, 1, 22, tzinfo=UTC).timestamp()) * 1000)]
    assert await berlin.publish(evening + timedelta(minutes=30)) == []
    assert await desk.publish(evening + timedelta(minutes=30)) == [(17, 0, end_of_day_ms(evening))]


async def test_the_file_is_written_when_something_changed_or_it_is_gone(bench: Bench, desk: Desk) -> None:
    """Not each second: workers would read it for nothing."""
    await cap(bench, "caps = { daily_clicks = 1 }")
    await desk.publish()
    first = desk.path.stat().st_mtime_ns
    await desk.publish()
    assert desk.path.stat().st_mtime_ns == first
    desk.path.unlink()
    await desk.publish()
    assert desk.path.exists()


async def test_ids_of_another_tracker_are_announced(bench: Bench, desk: Desk) -> None:
    """From the first one on."""
    await desk.publish()
    assert not read_state(desk.path).has_external_ids
    await bench.conn.execute("INSERT INTO external_ids VALUES ('their-1', $1)", uuid4())
    await desk.publish()
    assert read_state(desk.path) == PublishedState([], True)


async def test_hundreds_of_capped_offers_are_counted_at_the_first_look(bench: Bench, desk: Desk) -> None:
    """In portions, each a transaction; a second publisher on another machine finds them counted."""
    await bench.apply(many_capped_offers("daily_clicks = 0, monthly_payout = 5", 150))
    assert len(await desk.publish()) == 150
    assert await bench.value("SELECT count(*) FROM cap_usage WHERE is_counted") == 450
    assert len(await Desk(bench).publish()) == 150


async def test_rows_of_long_ago_are_forgotten(bench: Bench, desk: Desk) -> None:
    """`total` never ends, and today is not long ago."""
    await cap(bench, "caps = { daily_clicks = 1, total_clicks = 1 }")
    now = datetime.now(UTC)
    await desk.publish(now - timedelta(days=500))
    await desk.publish()
    await forget_usage(bench.conn, now - timedelta(days=400))
    rows = await bench.rows("SELECT period, period_end > $1 FROM cap_usage ORDER BY 1", now)
    assert rows == [("daily", True), ("total", True)]


@asynccontextmanager
async def running(desk: Desk) -> AsyncIterator[None]:
    task = asyncio.create_task(desk.publisher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_running_publisher_outlives_its_connection(bench: Bench, desk: Desk) -> None:
    """Terminated at any time it connects again, and goes on to follow catalog and usage."""
    async with running(desk):
        await until(lambda: _capped(desk.path, 0))
        await bench.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clickedge state'"
        )
        await cap(bench, "caps = { daily_clicks = 0 }")
        await until(lambda: _capped(desk.path, 1))


async def _capped(path: Path, count: int) -> bool:
    return path.exists() and len(read_state(path).capped) == count
