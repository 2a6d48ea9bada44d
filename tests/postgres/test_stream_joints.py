"""What meets across partitions, journals and drains: conversions and their clicks, a visitor's clicks; and bad messages."""

import msgspec
import pytest

from storage.stream.shipments import STREAM, VERSION, encode
from tests.postgres.drains import Bench, now_ms, until
from tests.postgres.streamed_bench import (
    PARTITIONS,
    cargo_of,
    catch_up,
    faults_of,
    make_station,
    metric,
    stepped,
    streamed_of,
    write_some,
)
from tests.postgres.test_drain_poison import poisonous
from tests.recount import differences
from tests.streams import START, Ferry


async def test_a_conversion_at_another_machine_before_its_click_was_shipped_is_attributed_once(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """It waits until the click's journal is stored through the click's millisecond in every partition."""
    here = embedded_bench.scribe(node=1, partitions=PARTITIONS)
    there = embedded_bench.scribe(node=2, partitions=PARTITIONS)
    session = here.session(aff_id=3)
    conversion = there.convert(session.click_id, offer_id=17)
    here.beat(now_ms())
    async with make_station(embedded_bench, nats_url).running(), make_station(embedded_bench, nats_url).running():
        await ferry.send([cargo_of(here).stretch(partition, START, START) for partition in range(PARTITIONS)])
        await ferry.send(cargo_of(there).all())
        await until(lambda: is_waiting(embedded_bench))
        assert await embedded_bench.verdict(conversion) == ("", "")
        here.click(session)
        await ferry.send(cargo_of(here).all())
        await until(lambda: is_decided(embedded_bench, conversion))
    assert await embedded_bench.verdict(conversion) == ("approved", "")
    assert await faults_of(embedded_bench, [here, there]) == []


async def is_waiting(bench: Bench) -> bool:
    """Whether one conversion waits."""
    return bool(await bench.value("SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL") == 1)


async def is_decided(bench: Bench, conversion: bytes) -> bool:
    """Whether the conversion has its verdict."""
    return await bench.verdict(conversion) != ("", "")


async def test_the_wait_for_a_click_ends_only_when_the_last_partition_is_through(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """One partition that lags holds the journal's watermark, and so the verdict."""
    here, there = embedded_bench.scribe(partitions=PARTITIONS), embedded_bench.scribe(worker=1, partitions=PARTITIONS)
    session = here.session()
    conversion = there.convert(session.click_id, offer_id=17)
    here.beat(now_ms() + 1)
    async with make_station(embedded_bench, nats_url).running():
        cargo = cargo_of(here)
        await ferry.send([cargo.stretch(partition, START, START) for partition in range(PARTITIONS)])
        await ferry.send([cargo.stretch(partition, START, cargo.end) for partition in range(PARTITIONS - 1)])
        await ferry.send(cargo_of(there).all())
        await until(lambda: is_waiting(embedded_bench))
        await ferry.send([cargo.stretch(PARTITIONS - 1, START, cargo.end)])
        await until(lambda: is_decided(embedded_bench, conversion))
    assert await embedded_bench.verdict(conversion) == ("rejected", "unknown_click")


async def test_a_visitor_is_unique_once_over_all_machines_and_drains(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """The drains of all machines share the visits: of one visitor's clicks on two edges one is unique."""
    scribes = [embedded_bench.scribe(node=node, partitions=PARTITIONS) for node in (1, 2)]
    async with (
        make_station(embedded_bench, nats_url, batch_rows=20).running(),
        make_station(embedded_bench, nats_url, batch_rows=20, node_id=2).running(),
    ):
        for visitor in range(100):
            for scribe in scribes:
                scribe.click(ip=f"198.51.100.{visitor}")
        chains = [cargo_of(scribe).all(cargo_of(scribe).places[10:-1:10]) for scribe in scribes]
        await ferry.send([one for pair in zip(*chains, strict=True) for one in pair])
        await until(lambda: has_clicks(embedded_bench, 200))
    assert await embedded_bench.value("SELECT count(*) FROM clicks WHERE 'duplicate' = ANY (flags)") == 100
    assert await embedded_bench.rows("SELECT DISTINCT node_id FROM visit_batches") == [(-1,)]
    assert await differences(embedded_bench.conn) == []


async def has_clicks(bench: Bench, count: int) -> bool:
    """Whether so many clicks are stored."""
    return bool(await bench.value("SELECT count(*) FROM clicks") == count)


@pytest.mark.parametrize("kind", ["no shipment", "wrong partition", "places out of order"])
async def test_a_message_that_is_no_shipment_is_set_aside_once(
    embedded_bench: Bench, nats_url: str, ferry: Ferry, kind: str
) -> None:
    """Whole, with its place in the stream; what follows is stored, and reading it again changes nothing."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 2)
    cargo = cargo_of(scribe)
    whole = cargo.stretch(2, START, cargo.end)
    message = {
        "no shipment": b"\x93 what is this",
        "wrong partition": encode(whole),
        "places out of order": encode(msgspec.structs.replace(whole, partition=1, before=cargo.end, after=START)),
    }[kind]
    sequence = await ferry.send_raw(1, message)
    await ferry.send(cargo.all())
    for _ in range(2):
        async with stepped(embedded_bench, nats_url) as (station, conn):
            await catch_up(station, conn, ferry)
        await embedded_bench.conn.execute("UPDATE stream_partitions SET sequence = 0")
    rows = await embedded_bench.rows("SELECT journal_id::text, segment, byte_offset, raw FROM quarantine")
    assert rows == [("00000000-0000-0000-0000-000000000000", 0, sequence, message)]
    assert await faults_of(embedded_bench, [scribe]) == []


async def test_what_another_release_wrote_is_left_for_its_drains(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """What precedes it is stored; it and what follows are not, and the drain lets go of its partitions."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 4)
    cargo = cargo_of(scribe)
    middle = cargo.places[6]
    await ferry.send([cargo.stretch(partition, START, middle) for partition in range(PARTITIONS)])
    last = (await ferry.connection.jetstream.stream_info(STREAM)).state.last_seq
    later = msgspec.msgpack.encode([VERSION + 1, "what this release cannot know"])
    await ferry.send_raw(0, later)
    await ferry.send([cargo.stretch(partition, middle, cargo.end) for partition in range(PARTITIONS)])
    async with stepped(embedded_bench, nats_url) as (station, conn):
        streamed = streamed_of(station)

        async def has_stood_back() -> bool:
            await streamed.advance(conn)
            return not streamed.partitions

        await until(has_stood_back)
        assert await embedded_bench.value("SELECT count(*) FROM quarantine") == 0
        assert await embedded_bench.rows("SELECT DISTINCT sequence, owner FROM stream_partitions") == [(last, None)]
        assert {row[0] for row in await embedded_bench.rows("SELECT byte_offset FROM stream_positions")} == {middle[1]}


async def test_bad_records_in_several_journals_cost_themselves_only(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """A batch of many pieces is cut in halves until each bad record is alone; the stream's mark moves with the last part."""
    scribes = [embedded_bench.scribe(worker=worker, partitions=PARTITIONS) for worker in range(4)]
    for number, scribe in enumerate(scribes):
        write_some(scribe, 5)
        if number % 2:
            poisonous(scribe, "click with a huge id")
            scribe.written.pop()
        write_some(scribe, 5)
        await ferry.send(cargo_of(scribe).all(is_last=True))
    async with stepped(embedded_bench, nats_url) as (station, conn):
        await catch_up(station, conn, ferry)
        assert metric(station, "edge_stream_redelivered_total") == 0
    assert await faults_of(embedded_bench, scribes) == []
    quarantined = {row[0] for row in await embedded_bench.rows("SELECT journal_id FROM quarantine")}
    assert quarantined == {scribe.writer.journal_id for scribe in scribes[1::2]}
    unfinished = "SELECT count(*) FROM stream_positions WHERE finished_at IS NULL"
    assert await embedded_bench.value(unfinished) == 0


async def test_only_what_all_partitions_have_stored_leaves_the_stream(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """The owner of partition 0 purges; a partition that nobody has drained holds the stream back for all."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 3)
    await ferry.send(cargo_of(scribe).all())
    total = 2 * PARTITIONS
    async with stepped(embedded_bench, nats_url, stream_keep_s=0) as (station, conn):
        await catch_up(station, conn, ferry)
        await conn.execute("UPDATE stream_partitions SET sequence = 3 WHERE partition = 2")
        await streamed_of(station).do_chores(conn)
        assert await sequences(ferry) == (4, total)
        assert metric(station, "edge_stream_messages") == total - 3
        await conn.execute("UPDATE stream_partitions SET stream = 'another' WHERE partition = 2")
        await streamed_of(station).do_chores(conn)
        assert await sequences(ferry) == (4, total)
    async with stepped(embedded_bench, nats_url, stream_keep_s=3600) as (station, conn):
        await ferry.send(cargo_of(scribe).all())
        await catch_up(station, conn, ferry)
        await streamed_of(station).do_chores(conn)
        assert await sequences(ferry) == (4, 2 * total)
    assert await faults_of(embedded_bench, [scribe]) == []


async def sequences(ferry: Ferry) -> tuple[int, int]:
    """The first and the last sequence that the stream holds."""
    state = (await ferry.connection.jetstream.stream_info(STREAM)).state
    return state.first_seq, state.last_seq
