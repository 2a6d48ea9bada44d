"""A database restored from a backup: what was drained since lies in the journals, and numbers are given away again."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from edge.admin.catalog_cache import CatalogCache
from edge.admin.catalog_publisher import CatalogPublisher, publish_catalog
from edge.catalog_follower import read_snapshot
from edge.tracking.catalog import Catalog
from storage.postgres.connection import connect
from tests.postgres.drains import CATALOG, Bench, Scribe, until
from tests.postgres.test_drain_once import SMALL_SEGMENT, assert_all_stored, names, write_some

DEARER, DEAREST = (CATALOG.replace('payout = "5.00"', f'payout = "{payout}"') for payout in ("8.00", "9.00"))

LOST = '[[offers]]\nid = 18\nadvertiser_id = 1\nname = "Lost"\nurl = "https://x.example/"\n'


@pytest.fixture
def bench(embedded_bench: Bench) -> Bench:
    """One server is enough: nothing here depends on its version."""
    return embedded_bench


@asynccontextmanager
async def backup_of(bench: Bench) -> AsyncIterator[str]:
    """The bench's database as it is now, as another one; its URL."""
    name = bench.url.split("@/")[1].split("?")[0]
    await bench.conn.close()
    admin = await connect(bench.url.replace(f"@/{name}?", "@/postgres?"))
    await admin.execute(f"CREATE DATABASE {name}_backup TEMPLATE {name}")
    bench.conn = await connect(bench.url)
    try:
        yield bench.url.replace(f"@/{name}?", f"@/{name}_backup?")
    finally:
        bench.conn.terminate()
        await admin.execute(f"DROP DATABASE {name}_backup WITH (FORCE)")
        await admin.close()


async def restore(bench: Bench, url: str) -> None:
    """That database is the bench's from now on."""
    bench.conn.terminate()
    bench.url, bench.conn = url, await connect(url)


def age(*scribes: Scribe) -> None:
    """All of their drained segments were drained long ago."""
    for scribe in scribes:
        for path in scribe.writer.directory.glob("*.done"):
            os.utime(path, (0, 0))


@pytest.mark.reliability(number=10)
@pytest.mark.parametrize("settings", [{"journal_keep_s": 60}, {"journal_max_bytes": 60}])
async def test_what_a_restored_database_lacks_is_kept_however_long_ago_it_was_drained(
    bench: Bench, settings: dict[str, Any]
) -> None:
    """Longer ago than EDGE_JOURNAL_KEEP, or there is no room for it: nothing is deleted before it is stored again."""
    scribe = bench.scribe(max_segment_bytes=SMALL_SEGMENT)
    write_some(scribe, 5)
    await bench.drain()
    async with backup_of(bench) as url:
        write_some(scribe, 7)
        scribe.close()
        await bench.drain()
        segments = names(scribe)
        await restore(bench, url)
        station, conn = bench.station(batch_rows=2, **settings), await bench.connect()
        age(scribe)
        await station.drain._feeds.discover(conn)
        while feeds := list(station.drain._feeds):
            for feed in feeds:
                station.drain._feeds.delete_expired()
                await station.drain._advance(conn, feed)
                age(scribe)
        await assert_all_stored(bench, scribe)
        assert await bench.value("SELECT count(*) FROM quarantine") == 0
        station.drain._feeds.delete_expired()
        assert segments
        assert not scribe.writer.directory.exists()
        conn.terminate()


@pytest.mark.parametrize("settings", [{"journal_keep_s": 60}, {"journal_max_bytes": 60}])
async def test_one_drain_deletes_nothing_that_another_has_to_store_again(bench: Bench, settings: dict[str, Any]) -> None:
    """With EDGE_DRAINS = 2 the first is ready, and tidies up, before the second has looked at its journals."""
    mine, other = (bench.scribe(worker=number, max_segment_bytes=SMALL_SEGMENT) for number in (0, 1))
    async with backup_of(bench) as url:
        for scribe in (mine, other):
            write_some(scribe, 6)
            scribe.close()
        await bench.drain()
        await restore(bench, url)
        age(mine, other)
        for slot in (0, 1):
            station = bench.station(slot=slot, drains=2, **settings)
            conn = await bench.connect()
            await station.drain._feeds.discover(conn)
            station.drain._feeds.delete_expired()
            await station.turn(conn)
            conn.terminate()
        await assert_all_stored(bench, mine, other)


async def test_a_revision_that_was_lost_and_given_away_again_is_judged_as_it_is_now(bench: Bench) -> None:
    """Events of the lost revision are judged by the restored catalog; those of the new one of that number by its own."""
    async with backup_of(bench) as url:
        scribe = bench.scribe(revision=await bench.apply(DEARER))
        scribe.convert(scribe.click())
        await restore(bench, url)
        station = bench.station()
        await bench.drain(station)
        assert await bench.rows("SELECT payout, catalog_revision FROM conversions") == [(5, 2)]
        assert await bench.apply(DEAREST) == 2
        scribe.convert(scribe.click())
        await bench.drain(station)
        assert await bench.rows("SELECT payout FROM conversions ORDER BY conversion_id") == [(5,), (9,)]


async def test_workers_get_a_revision_that_was_lost_and_given_away_again(bench: Bench) -> None:
    """The snapshot on disk is of the lost revision; what is applied after the restore has its number, and is published."""
    path = bench.data_dir / "catalog.snapshot"
    async with backup_of(bench) as url:
        assert await bench.apply(DEARER) == 2
        await publish_catalog(bench.conn, path)
        await restore(bench, url)
        assert await bench.apply(DEAREST) == 2
        publisher = asyncio.create_task(CatalogPublisher(lambda: url, path).run())

        async def is_published() -> bool:
            catalog = await read_snapshot(path, Catalog.empty())
            offer = catalog.offer(17)
            return offer is not None and offer.terms(0, 2).payout == 9

        try:
            await until(is_published)
        finally:
            publisher.cancel()
            with suppress(asyncio.CancelledError):
                await publisher


@pytest.mark.parametrize("revision", [2, 3])
async def test_the_api_shows_a_revision_that_was_lost_and_given_away_again_as_it_is_now(bench: Bench, revision: int) -> None:
    """And edits that one: nobody asked in between, so that the number never went back."""
    cache = CatalogCache()
    async with backup_of(bench) as url:
        assert await bench.apply(DEARER + LOST) == 2
        assert (await cache.current(bench.conn)).offer(18) is not None
        await restore(bench, url)
        for payout in ("9", "8")[: revision - 1]:
            await bench.apply(CATALOG.replace('payout = "5.00"', f'payout = "{payout}"'))
        catalog = await cache.current(bench.conn)
        assert (catalog.revision, catalog.offer(18)) == (revision, None)
        offer = catalog.offer(17)
        assert offer is not None
        assert offer.terms(0, 2).payout == (9 if revision == 2 else 8)


async def test_a_publisher_that_begins_anew_leaves_a_snapshot_that_is_right_alone(bench: Bench) -> None:
    """Workers would load all of it again."""
    path = bench.data_dir / "catalog.snapshot"
    assert await publish_catalog(bench.conn, path) == 1
    before = path.stat()
    assert await publish_catalog(bench.conn, path) == 1
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
