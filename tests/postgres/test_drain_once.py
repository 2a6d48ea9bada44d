"""Exactly once: restarts at every point, rivals, power cuts, and what becomes of the files. J and P: journal, positions."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from storage.journal.segments import Position, name_segment
from storage.postgres.connection import connect
from storage.postgres.positions import PositionMoved
from tests.postgres.drains import Bench, Scribe, Station, compare, until
from tests.recount import differences
from tests.wire_proxy import WireProxy

SMALL_SEGMENT = 1200
"""Bytes: room for about four clicks."""


def names(scribe: Scribe) -> list[str]:
    """The files of a journal's segments."""
    return sorted(path.name for path in scribe.writer.directory.iterdir() if path.suffix in (".log", ".done"))


async def assert_all_stored(bench: Bench, *scribes: Scribe) -> None:
    """Every event is in its table, once, and the roll-ups are those of the rows."""
    for table, kind in (("clicks", "click"), ("impressions", "impression"), ("conversions", "conversion")):
        written = [one.id for scribe in scribes for one in scribe.written if one.kind == kind]
        assert compare(await bench.ids(table), written) == []
    assert await differences(bench.conn) == []


def write_some(scribe: Scribe, rounds: int) -> None:
    """Events of every kind."""
    for _ in range(rounds):
        scribe.convert(scribe.click())
        scribe.impression()


@pytest.mark.parametrize("batch_rows", [1, 4])
async def test_a_drain_that_restarts_after_every_batch_stores_each_event_once(bench: Bench, batch_rows: int) -> None:
    """A new process for each batch, whatever the batch ends with."""
    scribe = bench.scribe(max_segment_bytes=SMALL_SEGMENT)
    write_some(scribe, 5)
    for _ in range(len(scribe.written) // batch_rows + 1):
        station = bench.station(batch_rows=batch_rows)
        conn = await bench.connect()
        await station.drain._feeds.discover(conn)
        for feed in station.drain._feeds:
            await station.drain._advance(conn, feed)
        await conn.close()
    await assert_all_stored(bench, scribe)
    assert await bench.position(scribe) == scribe.writer.appended


async def test_of_two_drains_on_one_journal_one_stops(bench: Bench) -> None:
    """P1: who comes second to a position gets PositionMoved and has stored nothing."""
    scribe = bench.scribe()
    write_some(scribe, 3)
    first, second = bench.station(), bench.station()
    conn = await bench.connect()
    await second.drain._feeds.discover(conn)
    await bench.drain(first)
    with pytest.raises(PositionMoved):
        await second.turn(conn)
    await assert_all_stored(bench, scribe)


async def test_two_drains_at_once_store_nothing_twice(bench: Bench) -> None:
    """They race for every batch; at the first one that it loses a drain stops, the other goes on to the end."""
    scribe = bench.scribe()
    write_some(scribe, 60)
    conns = [await bench.connect() for _ in range(2)]
    stations = [bench.station(batch_rows=10) for _ in conns]
    for station, conn in zip(stations, conns, strict=True):
        await station.drain._feeds.discover(conn)
    ends = await asyncio.gather(*map(Station.turn, stations, conns), return_exceptions=True)
    assert [type(end) for end in ends if isinstance(end, BaseException)] == [PositionMoved]
    await assert_all_stored(bench, scribe)


async def test_a_second_drain_waits_for_no_journal_of_the_first(bench: Bench) -> None:
    """With EDGE_DRAINS = 2 the first's transaction, however long, does not hold up the second's journals."""
    mine, other = bench.scribe(worker=1), bench.scribe(worker=0)
    write_some(mine, 1)
    write_some(other, 1)
    station = bench.station(slot=1, drains=2)
    await bench.drain(station)
    assert await bench.position(other) == (1, 0)
    async with bench.conn.transaction():
        await bench.conn.execute("UPDATE journal_positions SET updated_at = now()")
        async with asyncio.timeout(20):
            conn = await bench.connect()
            await station.drain._feeds.discover(conn)
            await conn.close()
    await bench.drain(slot=0, drains=2)
    await assert_all_stored(bench, mine, other)


async def test_a_position_beyond_the_journals_end_is_the_end(bench: Bench) -> None:
    """After a power cut the journal may be shorter than what is stored of it: it is finished, and nothing is lost."""
    scribe = bench.scribe()
    write_some(scribe, 4)
    await bench.drain()
    stored = await bench.position(scribe)
    scribe.close()
    with name_segment(scribe.writer.directory, 1).open("r+b") as file:
        file.truncate(scribe.written[2].end.byte_offset + 5)
    successor = bench.scribe()
    write_some(successor, 1)
    await bench.drain()
    assert await bench.value(
        "SELECT finished_at IS NOT NULL FROM journal_positions WHERE worker_id = 0 ORDER BY 1 DESC"
    )
    assert await bench.position(scribe) == stored
    assert names(scribe) == ["00000001.done"]
    await assert_all_stored(bench, scribe, successor)


async def test_drained_segments_are_marked_and_the_living_one_is_not(bench: Bench) -> None:
    """J11: `.done` is what Postgres has and the writer has left; the last follows when the writer is gone."""
    scribe = bench.scribe(max_segment_bytes=SMALL_SEGMENT)
    write_some(scribe, 8)
    station = bench.station()
    await bench.drain(station)
    last = scribe.writer.appended.segment
    assert last > 3
    assert names(scribe) == [f"{number:08d}.done" for number in range(1, last)] + [f"{last:08d}.log"]
    assert await bench.value("SELECT finished_at FROM journal_positions") is None
    scribe.close()
    await bench.drain(station)
    assert names(scribe) == [f"{number:08d}.done" for number in range(1, last + 1)]
    assert await bench.value("SELECT finished_at IS NOT NULL FROM journal_positions")


async def test_a_drain_killed_before_it_marked_its_segments_marks_them_later(bench: Bench) -> None:
    """The names follow the position, also of a journal that was finished: else its bytes would count as undrained."""
    scribe = bench.scribe(max_segment_bytes=SMALL_SEGMENT)
    write_some(scribe, 8)
    scribe.close()
    await bench.drain()
    marked = names(scribe)
    for name in marked:
        (scribe.writer.directory / name).rename((scribe.writer.directory / name).with_suffix(".log"))
    await bench.drain()
    assert names(scribe) == marked
    await assert_all_stored(bench, scribe)


async def test_only_drained_segments_are_deleted(bench: Bench) -> None:
    """Retention takes what is drained and old, and with its last segment the journal's directory; nothing else."""
    drained = bench.scribe(worker=0, max_segment_bytes=SMALL_SEGMENT)
    undrained = bench.scribe(worker=1, max_segment_bytes=SMALL_SEGMENT)
    for scribe in (drained, undrained):
        write_some(scribe, 6)
        scribe.close()
    kept = names(undrained)
    station = bench.station(slot=0, drains=2, journal_keep_s=0, journal_max_bytes=1 << 30)
    await bench.drain(station)
    station.drain._feeds.delete_expired()
    assert not drained.writer.directory.exists()
    assert names(undrained) == kept
    await bench.drain(slot=1, drains=2)
    await assert_all_stored(bench, drained, undrained)


async def test_segments_are_kept_as_long_as_asked(bench: Bench) -> None:
    """Within EDGE_JOURNAL_KEEP a drained segment stays, to be replayed into a restored database."""
    scribe = bench.scribe(max_segment_bytes=SMALL_SEGMENT)
    write_some(scribe, 6)
    scribe.close()
    station = bench.station(journal_keep_s=3600)
    await bench.drain(station)
    before = names(scribe)
    station.drain._feeds.delete_expired()
    assert names(scribe) == before != []


async def test_while_the_database_is_away_kept_segments_make_room_for_undrained_ones(bench: Bench) -> None:
    """As many as must, of those that it was known to have; a drain that has never seen it deletes nothing."""
    ended, living = (bench.scribe(worker=number, max_segment_bytes=SMALL_SEGMENT) for number in (0, 1))
    for scribe in (ended, living):
        write_some(scribe, 8)
    ended.close()
    room = sum(sizes(bench, "*").values())
    async with AsyncExitStack() as way:
        proxy = await way.enter_async_context(WireProxy(bench.url).listening())
        async with bench.station(url=proxy.url, journal_max_bytes=room).running():
            await until(lambda: is_stored(bench, living))
            kept = sizes(bench, "done")
            await way.aclose()
            write_some(living, 12)
            undrained = sizes(bench, "log")
            assert sum(sizes(bench, "*").values()) > room

            async def is_room() -> bool:
                return sum(sizes(bench, "*").values()) <= room

            await until(is_room)
    left = sizes(bench, "*")
    assert sizes(bench, "log") == undrained
    assert sizes(bench, "done").keys() < kept.keys()
    assert sum(left.values()) > room - 2 * SMALL_SEGMENT
    bench.station(journal_max_bytes=1).drain._feeds.make_room()
    assert sizes(bench, "*") == left
    await bench.drain()
    await assert_all_stored(bench, ended, living)
    assert await bench.value("SELECT count(*) FROM quarantine") == 0


def sizes(bench: Bench, kind: str) -> dict[Path, int]:
    """The segments of all journals, `log` or `done` ones, and their sizes."""
    found = {}
    for path in (bench.data_dir / "journal").glob(f"*/0*.{kind}"):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_size
    return found


async def is_stored(bench: Bench, scribe: Scribe) -> bool:
    """Whether all that it has written is, and all that is of others; only what is still written is unmarked."""
    return len(sizes(bench, "log")) == 1 and await bench.position(scribe) == scribe.writer.appended


@pytest.mark.reliability(number=14)
async def test_a_restored_database_is_caught_up_from_the_journal(bench: Bench) -> None:
    """Restored to an older state, Postgres gets what came since from drained segments: once, roll-ups and all."""
    scribe = bench.scribe(max_segment_bytes=SMALL_SEGMENT)
    write_some(scribe, 5)
    await bench.drain()
    name = bench.url.split("@/")[1].split("?")[0]
    restored_url = bench.url.replace(f"@/{name}?", f"@/{name}_restored?")
    await bench.conn.close()
    admin = await connect(bench.url.replace(f"@/{name}?", "@/postgres?"))
    await admin.execute(f"CREATE DATABASE {name}_restored TEMPLATE {name}")
    write_some(scribe, 7)
    scribe.close()
    await bench.drain()
    bench.url, bench.conn = restored_url, await connect(restored_url)
    assert len(await bench.ids()) == 5
    try:
        await bench.drain()
        await assert_all_stored(bench, scribe)
        assert await bench.position(scribe) >= Position(3, 0)
    finally:
        await bench.conn.close()
        await admin.execute(f"DROP DATABASE {name}_restored WITH (FORCE)")
        await admin.close()


@pytest.mark.reliability(number=14)
async def test_a_segment_read_again_adds_no_row(bench: Bench) -> None:
    """The position set back to the beginning, by whatever hand: no second row, no second cent in any sum; the repeats lie in quarantine, as what they are."""
    scribe = bench.scribe(max_segment_bytes=SMALL_SEGMENT)
    write_some(scribe, 6)
    await bench.drain()
    before = await rows_of_all_tables(bench)
    await bench.conn.execute("UPDATE journal_positions SET segment = 1, byte_offset = 0")
    await bench.drain()
    assert await rows_of_all_tables(bench) == before
    errors = {row[0] for row in await bench.rows("SELECT error FROM quarantine")}
    assert all("duplicate key" in error for error in errors)
    assert await bench.position(scribe) == scribe.writer.appended
    assert await differences(bench.conn) == []


async def rows_of_all_tables(bench: Bench) -> dict[str, int]:
    """How many rows what is counted and paid by has."""
    tables = ("clicks", "impressions", "conversions", "conversion_keys", "conversion_changes", "stats_hourly")
    return {table: await bench.value(f"SELECT count(*) FROM {table}") for table in tables}
