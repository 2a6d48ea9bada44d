"""edge/admin/node_watch.py and the counting of failed queries: what the admin process knows of disk and database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from edge.admin import node_watch
from edge.admin.backend import Backend, DatabaseAway
from edge.admin.node_watch import NodeWatch
from edge.counters import Counters, cell
from edge.settings import Settings
from storage.postgres.connection import connect
from storage.postgres.partitions import Partitions, partition_name
from storage.postgres.watch import look
from tests.node import eventually
from tests.postgres.drains import Bench, Scribe

NOW = datetime.now(UTC)
UP, ERRORS = cell("edge_database_up"), cell("edge_database_errors_total")
AHEAD, PUBLISHED = cell("edge_partitions_ahead"), cell("edge_catalog_published_seconds")
UNDRAINED, FREE = cell("edge_journal_undrained_bytes"), cell("edge_journal_disk_free_bytes")
IDLE, USED = (cell("edge_database_pool_connections", state) for state in ("idle", "used"))


class Desk:
    """A backend, its watch and what they count."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self.url = url
        self.counters = Counters.private()
        settings = Settings(data_dir=str(data_dir), journal_max_bytes=12_345_678, stream_max_bytes=23_456_789)
        self.backend = Backend(settings, lambda: self.url, (), self.counters)
        self.watch = NodeWatch(self.backend, lambda: self.url, self.counters)

    def value(self, place: int) -> int:
        """A cell."""
        return self.counters.cells[place]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The watch's own loop."""
        task = asyncio.create_task(self.watch.run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, place: int, wanted: int) -> None:
        """Until a cell has that value."""

        async def is_so() -> bool:
            return self.value(place) == wanted

        await eventually(is_so, 20)


@pytest.fixture
async def desk(database: str, tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(database, tmp_path)
    yield desk
    await desk.backend.close()


async def test_partitions_ahead_are_those_up_to_the_first_gap(any_database: str) -> None:
    """Today's and earlier ones do not count, nor does one behind a gap, or one that is no longer attached."""
    conn = await connect(any_database)
    partitions = Partitions()
    assert (await look(conn, NOW.date())).partitions_ahead == 0
    await partitions.ensure_ahead(conn, NOW.date(), 4)
    assert (await look(conn, NOW.date())).partitions_ahead == 4
    await partitions.ensure(conn, [NOW.date() + timedelta(days=6)])
    assert (await look(conn, NOW.date())).partitions_ahead == 4
    await conn.execute(f"ALTER TABLE clicks DETACH PARTITION {partition_name('clicks', NOW.date() + timedelta(days=3))}")
    assert (await look(conn, NOW.date())).partitions_ahead == 2
    assert (await look(conn, NOW.date() + timedelta(days=9))).partitions_ahead == 0
    await conn.close()


async def test_the_newest_revision_s_time_is_told(bench: Bench) -> None:
    """Unix seconds of when it was stored."""
    await bench.conn.execute("UPDATE catalog_revisions SET created_at = '2026-01-02 03:04:05Z'")
    assert (await look(bench.conn, NOW.date())).catalog_published_s == 1_767_323_045
    await bench.conn.execute("DELETE FROM catalog_revisions")
    assert (await look(bench.conn, NOW.date())).catalog_published_s == 0


async def test_the_journals_disk_is_measured_while_the_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backlog grows just then; what the journals may take is there beside it."""
    monkeypatch.setattr(node_watch, "DISK_INTERVAL_S", 0.05)
    scribe = Scribe(tmp_path)
    desk = Desk("postgresql://nobody@127.0.0.1:1/nowhere", tmp_path)
    async with desk.running():
        await desk.until(cell("edge_journal_max_bytes"), 12_345_678)
        assert desk.value(cell("edge_stream_max_bytes")) == 23_456_789

        for _ in range(2):
            scribe.click()
            await desk.until(UNDRAINED, scribe.writer.appended.byte_offset)
        await eventually_counts(desk)
    scribe.close()
    assert desk.value(UP) == 0
    assert desk.value(FREE) > 0


async def eventually_counts(desk: Desk) -> None:
    """Until a failed connection was counted."""

    async def has_failed() -> bool:
        return desk.value(ERRORS) > 0

    await eventually(has_failed, 20)


async def test_a_database_that_goes_and_comes_back_is_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up, down once its connection is cut and there is no other, up again; each failure is counted."""
    monkeypatch.setattr(node_watch, "DATABASE_INTERVAL_S", 0.05)
    good = desk.url
    async with desk.running():
        await desk.until(UP, 1)
        assert desk.value(ERRORS) == 0
        desk.url = "postgresql://nobody@127.0.0.1:1/nowhere"
        conn = await connect(good)
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'clickedge watch' AND datname = current_database()"
        )
        await conn.close()
        await desk.until(UP, 0)
        await eventually_counts(desk)
        desk.url = good
        await desk.until(UP, 1)


async def test_the_pool_s_connections_are_counted_by_what_they_do(desk: Desk) -> None:
    """None before anything was asked; one in use within a block, idle behind it."""
    assert desk.backend.count_connections() == (0, 0)
    async with desk.backend.connection(), desk.backend.connection():
        assert desk.backend.count_connections() == (0, 2)
    assert desk.backend.count_connections() == (2, 0)


async def test_a_failed_query_is_counted_and_a_fault_of_the_data_or_the_reader_is_not(desk: Desk) -> None:
    """A time limit, a missing table, a lost database; but no value that was refused, and no reader who went away."""
    with pytest.raises(asyncpg.QueryCanceledError):
        async with desk.backend.transaction() as conn:
            await conn.execute("SET LOCAL statement_timeout = '1ms'; SELECT pg_sleep(5)")
    with pytest.raises(asyncpg.UndefinedTableError):
        async with desk.backend.connection() as conn:
            await conn.execute("TABLE there_is_none")
    assert desk.value(ERRORS) == 2
    with pytest.raises(asyncpg.DataError):
        async with desk.backend.connection() as conn:
            await conn.execute("SELECT 99999999999999::int")
    with pytest.raises(ConnectionResetError):
        async with desk.backend.connection():
            raise ConnectionResetError("the reader went away")
    assert desk.value(ERRORS) == 2


async def test_a_database_that_cannot_be_had_is_counted(tmp_path: Path) -> None:
    """Once for each request that found none."""
    desk = Desk("postgresql://nobody@127.0.0.1:1/nowhere", tmp_path)
    for count in (1, 2):
        with pytest.raises(DatabaseAway):
            async with desk.backend.connection():
                pass
        assert desk.value(ERRORS) == count
