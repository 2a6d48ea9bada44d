"""Several machines in one process: real journals, shippers, a real stream, drains and PostgreSQL, all at work at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from storage.stream.shipments import STREAM
from tests.node import eventually
from tests.postgres.drains import Bench, Scribe, now_ms
from tests.postgres.streamed_bench import faults_of, make_station, write_some
from tests.streams import StreamServer
from tests.wire.shippers import Running, make_settings

SOON_S = 40.0


@asynccontextmanager
async def shipped(server: StreamServer, data_dir: Path) -> AsyncIterator[Running]:
    """A machine's shipper, until it is told to end."""
    running = Running(make_settings(server, data_dir))
    try:
        yield running
    finally:
        await running.is_told_to_end()


async def until_stored(bench: Bench, scribes: Sequence[Scribe]) -> None:
    """All events, once, and the roll-ups are the rows'."""
    faults: list[str] = []

    async def is_all_there() -> bool:
        nonlocal faults
        faults = await faults_of(bench, scribes)
        return not faults

    await eventually(is_all_there, SOON_S, lambda: "\n".join(faults))
    assert await bench.value("SELECT count(*) FROM quarantine") == 0


async def test_the_number_of_partitions_changes_without_loss(
    bench: Bench, stream_server: StreamServer, nats_url: str
) -> None:
    """New journals have more, then fewer; old ones keep theirs to their end; the drains follow without being told."""
    scribes: list[Scribe] = []
    async with (
        make_station(bench, nats_url).running(),
        make_station(bench, nats_url, slot=1).running(),
        shipped(stream_server, bench.data_dir),
    ):
        for number, partitions in enumerate((4, 8, 2)):
            scribes.append(bench.scribe(partitions=partitions, worker=number))
            for scribe in scribes[-2:]:
                write_some(scribe, 20)
                scribe.beat(now_ms())
            await until_stored(bench, scribes)
            if number:
                scribes[number - 1].writer.close()
        for scribe in scribes[-1:]:
            scribe.writer.close()

        async def are_finished() -> bool:
            query = "SELECT count(*) FROM journal_positions WHERE finished_at IS NOT NULL"
            return bool(await bench.value(query) == len(scribes))

        await eventually(are_finished, SOON_S)
    await until_stored(bench, scribes)
    assert await bench.value("SELECT count(*) FROM stream_partitions") == 8


async def test_a_postback_at_another_edge_waits_for_a_click_that_is_not_shipped_yet(
    bench: Bench, stream_server: StreamServer, nats_url: str
) -> None:
    """It is stored before its click, waits, and is attributed once, when the click's machine has shipped."""
    there = bench.data_dir / "there"
    first = Scribe(there, node=1, partitions=4)
    second = bench.scribe(node=2, partitions=4)
    async with make_station(bench, nats_url).running(), shipped(stream_server, bench.data_dir):
        async with shipped(stream_server, there):
            first.beat(now_ms())  # the machine is known, and then its shipper stands still

            async def is_known() -> bool:
                return bool(await bench.value("SELECT count(*) FROM journal_positions WHERE node_id = 1"))

            await eventually(is_known, SOON_S)
        click_id = first.click()
        conversion_id = second.convert(click_id)
        second.beat(now_ms() + 5000)

        async def waits() -> bool:
            return bool(await bench.value("SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL"))

        await eventually(waits, SOON_S)
        await asyncio.sleep(0.5)  # several looks for what need not wait any longer
        assert await bench.verdict(conversion_id) == ("", "")
        async with shipped(stream_server, there):

            async def is_decided() -> bool:
                return await bench.verdict(conversion_id) == ("approved", "")

            await eventually(is_decided, SOON_S)
    first.writer.close()
    assert await bench.value("SELECT click_id FROM conversions") == await bench.value("SELECT click_id FROM clicks")


async def test_two_edges_and_two_drains_store_each_event_once(
    bench: Bench, stream_server: StreamServer, nats_url: str
) -> None:
    """While shippers and drains come and go."""
    there = bench.data_dir / "there"
    scribes = [Scribe(there, node=1, partitions=4), bench.scribe(node=2, partitions=4)]
    async with make_station(bench, nats_url, lease_s=1.0).running():
        for _ in range(3):
            async with (
                shipped(stream_server, there),
                shipped(stream_server, bench.data_dir),
                make_station(bench, nats_url, lease_s=1.0, slot=1).running(),
            ):
                for scribe in scribes:
                    write_some(scribe, 30)
                    scribe.beat(now_ms())
                await asyncio.sleep(0.2)
        async with shipped(stream_server, there), shipped(stream_server, bench.data_dir):
            await until_stored(bench, scribes)
    scribes[0].writer.close()


async def test_a_wholly_shipped_journal_that_postgres_never_heard_of_is_sent_again(
    bench: Bench, stream_server: StreamServer, nats_url: str
) -> None:
    """The database is one restored from before it, or the stream was lost: no drain could know to ask for it."""
    scribe = bench.scribe(partitions=4)
    write_some(scribe, 20)
    scribe.writer.close()
    async with shipped(stream_server, bench.data_dir) as running:

        async def is_shipped() -> bool:
            return scribe.writer.journal_id in running.shipper._journals.finished

        await eventually(is_shipped, SOON_S)
    connection = await stream_server.connect()
    await connection.jetstream.purge_stream(STREAM)
    await connection.close()
    async with make_station(bench, nats_url).running(), shipped(stream_server, bench.data_dir):
        await until_stored(bench, [scribe])
