"""Migrations under load: the tables of an earlier release while its writers go on, and a drain beside the next release's."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from storage.postgres.connection import Connection, connect, is_retryable
from storage.postgres.migrations import Migration, migrate, read_migrations
from storage.postgres.partitions import Partitions
from tests.faults.load import Say
from tests.postgres.drains import Station, compare, open_bench, until
from tests.recount import differences

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

EARLIER = 6
WRITERS = 3
BATCH = 40
OLD_ROWS = 20_000
STALL_S = 20.0
MAX_TRIES = 10
_CLICK = ("click_id", "clicked_at", "node_id", "offer_id", "aff_id", "contact_id", "outcome")
_STATS = (
    "INSERT INTO stats_hourly (hour, node_id, offer_id, aff_id, gross_clicks, conversions, payout)"
    " VALUES (date_trunc('hour', now()), $1, 17, 2, $2, 1, 5)"
    " ON CONFLICT (hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country,"
    " device_type, currency) DO UPDATE SET gross_clicks = stats_hourly.gross_clicks + excluded.gross_clicks,"
    " conversions = stats_hourly.conversions + 1, payout = stats_hourly.payout + excluded.payout"
)
_CONVERSION = (
    "INSERT INTO conversions (conversion_id, click_id, node_id, offer_id, aff_id, converted_at, received_at, payout,"
    " status, via) VALUES ($1, $2, $3, 17, 2, now(), now(), 5, 'approved', 'postback')"
)
_CHANGE = (
    "INSERT INTO conversion_changes (conversion_id, kind, status_after, payout_delta, conversions_delta, booked_hour)"
    " VALUES ($1, 'decided', 'approved', 5, 1, date_trunc('hour', now()))"
)
NEXT_RELEASE = """
CREATE TABLE of_the_next_release (click_id uuid PRIMARY KEY);
ALTER TABLE journal_positions ADD COLUMN next_a int NOT NULL DEFAULT 0;
ALTER TABLE conversions ADD COLUMN next_b text NOT NULL DEFAULT '';
ALTER TABLE stats_hourly ADD COLUMN next_c bigint NOT NULL DEFAULT 0;
ALTER TABLE clicks ADD COLUMN next_d text NOT NULL DEFAULT '';
"""


class OldWriter:
    """A drain of an earlier release, as the tables see it: its statements, its transaction, its retries."""

    def __init__(self, url: str, number: int) -> None:
        self._url = url
        self._number = number
        self._journal = uuid.uuid4()
        self.batches = 0
        self.retries = 0
        self.slowest_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Store batch after batch, each until it is stored."""
        conn = await connect(self._url)
        await conn.execute(
            "INSERT INTO journal_positions (journal_id, node_id, worker_id, segment, byte_offset) VALUES ($1, $2, 0, 1, 0)",
            self._journal, self._number,
        )  # fmt: skip
        while not stop.is_set():
            began_s = time.monotonic()
            while not await self._is_stored(conn):
                self.retries += 1
                conn.terminate()
                conn = await connect(self._url)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
        await conn.close()

    async def _is_stored(self, conn: Connection) -> bool:
        try:
            at = await conn.fetchval("SELECT byte_offset FROM journal_positions WHERE journal_id = $1", self._journal)
            if at == self.batches:
                async with conn.transaction():
                    await self._store(conn)
            self.batches += 1
        except Exception as error:
            if not is_retryable(error):
                raise
            return False
        return True

    async def _store(self, conn: Connection) -> None:
        moved = "UPDATE journal_positions SET byte_offset = $2 + 1 WHERE journal_id = $1 AND byte_offset = $2"
        assert await conn.execute(moved, self._journal, self.batches) == "UPDATE 1"
        clicks = [_click(self._number) for _ in range(BATCH)]
        await conn.copy_records_to_table("clicks", records=clicks, columns=_CLICK)
        conversion_id = uuid.uuid4()
        await conn.execute(_CONVERSION, conversion_id, clicks[0][0], self._number)
        await conn.execute(_CHANGE, conversion_id)
        await conn.execute(_STATS, self._number, BATCH)


def _click(node_id: int) -> tuple[Any, ...]:
    at_ms = time.time_ns() // 1_000_000
    click_id = uuid.UUID(int=(at_ms << 80) | (uuid.uuid4().int & ((1 << 80) - 1)))
    contact = f"contact{click_id.int % 500}" if click_id.int % 3 == 0 else ""
    return click_id, datetime.fromtimestamp(at_ms / 1000, UTC), node_id, 17, 2, contact, "redirected"


async def migrate_patiently(conn: Connection, migrations: list[Migration]) -> int:
    """As a node that starts: again while a lock cannot be had; how often."""
    tries = 1
    while True:
        try:
            await migrate(conn, migrations)
        except Exception as error:
            if not is_retryable(error):
                raise
            tries += 1
            if tries == MAX_TRIES:
                raise
        else:
            return tries


@pytest.fixture
async def earlier(empty_database: str) -> AsyncIterator[tuple[str, Connection]]:
    """A database with the tables of an earlier release and rows in them; its URL and a connection."""
    conn = await connect(empty_database)
    await migrate(conn, [one for one in read_migrations() if one.version <= EARLIER])
    await Partitions().ensure_ahead(conn, datetime.now(UTC).date())
    await conn.copy_records_to_table("clicks", records=[_click(9) for _ in range(OLD_ROWS)], columns=_CLICK)
    yield empty_database, conn
    conn.terminate()


async def test_an_earlier_release_s_tables_are_migrated_while_its_drains_store(
    earlier: tuple[str, Connection], say: Say
) -> None:
    """What was stored before, during and after is there, once; its statements go on working on the new tables."""
    url, conn = earlier
    writers = [OldWriter(url, number) for number in range(WRITERS)]
    stop = asyncio.Event()
    writing = [asyncio.create_task(writer.run(stop)) for writer in writers]
    try:
        await until(lambda: _have_all_stored(writers, 5))
        began_s = time.monotonic()
        tries = await migrate_patiently(conn, read_migrations())
        took_s = time.monotonic() - began_s
        stored = [writer.batches for writer in writers]
        await until(lambda: _have_all_stored(writers, max(stored) + 3))
    finally:
        stop.set()
        await asyncio.gather(*writing)
    slowest_s = max(writer.slowest_s for writer in writers)
    say(
        f"{len(read_migrations()) - EARLIER} migrations in {took_s:.2f} s, {tries} tries, beside {sum(stored)} batches;"
        f" slowest batch {slowest_s:.2f} s, {sum(writer.retries for writer in writers)} retries"
    )
    assert slowest_s < STALL_S
    batches = sum(writer.batches for writer in writers)
    assert await conn.fetchval("SELECT count(*) FROM clicks") == OLD_ROWS + batches * BATCH
    assert await conn.fetchval("SELECT count(DISTINCT click_id) FROM clicks") == OLD_ROWS + batches * BATCH
    assert await conn.fetchval("SELECT count(*) FROM conversions") == batches
    sums = await conn.fetchrow("SELECT sum(gross_clicks), sum(conversions), sum(payout) FROM stats_hourly")
    assert tuple(sums) == (batches * BATCH, batches, Decimal(5 * batches))


async def _have_all_stored(writers: list[OldWriter], batches: int) -> bool:
    return all(writer.batches >= batches for writer in writers)


@asynccontextmanager
async def handing_over(station: Station) -> AsyncIterator[None]:
    """A running drain that in the end is told to leave the rest to the next one: there is always more."""
    async with station.running():
        station.drain._stop.is_handover = True
        yield


async def test_a_drain_stores_on_while_the_next_release_migrates(data_dir: Path, database: str, say: Say) -> None:
    """M5: columns are added to all that it writes; it repeats a batch at most, and a drain started later works too."""
    async with open_bench(data_dir, database) as bench:
        scribe = bench.scribe()
        clicks: list[bytes] = []

        async def load(stop: asyncio.Event) -> None:
            while not stop.is_set():
                clicks.append(scribe.click())
                scribe.convert(clicks[-1])
                await asyncio.sleep(0.005)

        async def is_stored(least: int) -> bool:
            return bool(await bench.value("SELECT count(*) FROM conversions") >= least)

        stop = asyncio.Event()
        loading = asyncio.create_task(load(stop))
        try:
            async with handing_over(bench.station()):
                await until(lambda: is_stored(50))
                following = [*read_migrations(), Migration(9999, "of_the_next", NEXT_RELEASE, read_migrations()[-1].version)]
                tries = await migrate_patiently(await bench.connect(), following)
                await until(partial(is_stored, len(clicks) + 50))
            assert await migrate(await bench.connect()) == []
            async with handing_over(bench.station()):
                await until(partial(is_stored, len(clicks) + 50))
        finally:
            stop.set()
            with suppress(asyncio.CancelledError):
                await loading
        scribe.close()
        await bench.drain()
        say(f"{len(clicks)} clicks and as many conversions beside a migration of {tries} tries")
        assert compare(await bench.ids("clicks"), clicks) == []
        assert await bench.value("SELECT count(*) FROM conversions WHERE status = 'approved'") == len(clicks)
        assert not await bench.value("SELECT count(*) FROM quarantine")
        assert not await differences(bench.conn)
