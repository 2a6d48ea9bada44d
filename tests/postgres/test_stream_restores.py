"""Streams and databases that go back to an earlier state: nothing that is not stored is skipped, or purged."""

import shutil
from pathlib import Path

from tests.postgres.drains import Bench, until
from tests.postgres.streamed_bench import (
    PARTITIONS,
    cargo_of,
    catch_up,
    faults_of,
    make_station,
    stepped,
    streamed_of,
    write_some,
)
from tests.postgres.test_stream_joints import sequences
from tests.streams import Ferry, StreamServer


async def test_a_stream_restored_from_a_backup_is_read_again(embedded_bench: Bench, short_directory: Path) -> None:
    """It is the same stream, and its next messages have sequences that were read before."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    directory, backup = short_directory / "restored", short_directory / "backup"
    directory.mkdir()
    server = StreamServer(directory)
    server.start()
    try:
        await (await server.connect()).close()
        server.kill()
        shutil.copytree(directory, backup)
        server.start()
        ferry = Ferry(await server.connect())
        async with make_station(embedded_bench, server.url).running():
            for _ in range(3):
                write_some(scribe, 2)
                await ferry.send(cargo_of(scribe).all())
            await until(lambda: is_stored(embedded_bench, scribe))
            server.kill()
            shutil.rmtree(directory)
            backup.rename(directory)
            server.start()
            ferry = Ferry(await server.connect())
            write_some(scribe, 2)
            await ferry.send(cargo_of(scribe).all())
            await until(lambda: is_stored(embedded_bench, scribe))
    finally:
        server.kill()
        shutil.rmtree(directory)


async def is_stored(bench: Bench, scribe: object) -> bool:
    return await faults_of(bench, [scribe]) == []  # type: ignore[list-item]


async def test_what_a_restored_database_has_not_is_not_purged(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """Though it was stored long enough ago, by what the drain remembers of the database as it was."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 3)
    await ferry.send(cargo_of(scribe).all())
    async with stepped(embedded_bench, nats_url, stream_keep_s=3600) as (station, conn):
        await catch_up(station, conn, ferry)
        streamed = streamed_of(station)
        await streamed.do_chores(conn)
        await conn.execute("UPDATE stream_partitions SET sequence = 2 WHERE partition = 1")
        streamed._stored[0] = (streamed._stored[0][0] - 3600, *streamed._stored[0][1:])
        await streamed.do_chores(conn)
        assert await sequences(ferry) == (3, 2 * PARTITIONS)
