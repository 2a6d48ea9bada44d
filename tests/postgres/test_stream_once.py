"""Exactly once through the stream: repeats, gaps, other cuts, restarts, restores. S: shipments.py; T: postgres/stream.py."""

from pathlib import Path
from random import Random

from storage.postgres.connection import connect
from storage.postgres.stream import refresh_watermarks
from storage.stream.shipments import STREAM, Shipment
from tests.conftest import Server
from tests.postgres.drains import Bench, Scribe, now_ms, open_bench, until
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
from tests.streams import START, Cargo, Ferry, StreamServer, forget_stream
from tests.wire_proxy import Cut, WireProxy

PLACES = "SELECT partition, segment, byte_offset, finished_at IS NOT NULL FROM stream_positions ORDER BY 1"


async def test_a_message_that_comes_three_times_in_other_cuts_is_stored_once(
    bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """S2: whatever the cuts, what lies before the stored position is skipped."""
    scribe = bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 6)
    cargo = cargo_of(scribe)
    async with stepped(bench, nats_url) as (station, conn):
        for step in (3, 5, 1000):
            await ferry.send(cargo.all(cargo.places[step:-1:step]))
            await catch_up(station, conn, ferry)
            assert await faults_of(bench, [scribe]) == []
            assert {row[1:] for row in await bench.rows(PLACES)} == {(*cargo.end, False)}
        assert metric(station, "edge_stream_redelivered_total") >= 2 * PARTITIONS
        assert metric(station, "edge_stream_gaps_total") == 0


async def test_nothing_behind_a_gap_is_stored_until_what_is_missing_came_again(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """The drain asks for it by journal, partition and place; the other partitions go on."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 12)
    cargo = cargo_of(scribe)
    chain = cargo.chain(0, cargo.places[6:-1:6])
    lost = next(index for index, one in enumerate(chain) if one.entries)
    others = [one for one in cargo.all() if one.partition]
    async with stepped(embedded_bench, nats_url) as (station, conn):
        await ferry.send([*chain[:lost], *chain[lost + 1 :], *others])
        await catch_up(station, conn, ferry)
        stored = await embedded_bench.rows(PLACES)
        assert stored[0] == (0, *chain[lost].before, False)
        assert {row[1:] for row in stored[1:]} == {(*cargo.end, False)}
        await until(lambda: has_asked(ferry))
        assert {(one.journal_id, one.partition, one.place) for one in ferry.asked} == {
            (scribe.writer.journal_id.bytes, 0, chain[lost].before)
        }
        assert metric(station, "edge_stream_gaps_total") >= 1
        await ferry.send(chain[lost:])
        await catch_up(station, conn, ferry)
        assert await faults_of(embedded_bench, [scribe]) == []
        asked = metric(station, "edge_stream_resend_requests_total")
        streamed_of(station)._next.clear()
        await streamed_of(station).advance(conn)
        assert metric(station, "edge_stream_resend_requests_total") == asked


async def has_asked(ferry: Ferry) -> bool:
    """Whether a drain has asked for something."""
    return bool(ferry.asked)


async def test_a_gap_that_its_own_batch_fills_costs_no_request(embedded_bench: Bench, nats_url: str, ferry: Ferry) -> None:
    """A shipper that goes back by itself, after a failed publish, is not asked to."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 6)
    chain = cargo_of(scribe).chain(0, cargo_of(scribe).places[4:-1:4])
    others = [one for one in cargo_of(scribe).all() if one.partition]
    await ferry.send([*others, *chain[:2], *chain[3:], *chain[2:]])
    async with stepped(embedded_bench, nats_url) as (station, conn):
        await catch_up(station, conn, ferry)
        assert await faults_of(embedded_bench, [scribe]) == []
        assert metric(station, "edge_stream_resend_requests_total") == 0


async def test_a_journal_that_stands_still_is_asked_for(embedded_bench: Bench, nats_url: str, ferry: Ferry) -> None:
    """What the stream lost behind a journal's last message shows in nothing that comes: silence is looked at too."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 2)
    cargo = cargo_of(scribe)
    await ferry.send(cargo.all(is_last=True)[:-1])
    async with stepped(embedded_bench, nats_url) as (station, conn):
        await catch_up(station, conn, ferry)
        await streamed_of(station).do_chores(conn)
        assert metric(station, "edge_stream_resend_requests_total") == 0
        await conn.execute("UPDATE stream_positions SET updated_at = now() - interval '1 minute'")
        await streamed_of(station).do_chores(conn)
        await until(lambda: has_asked(ferry))
        assert [(one.partition, one.place) for one in ferry.asked] == [(PARTITIONS - 1, START)]


async def test_a_journal_is_finished_once_all_its_partitions_are(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """Its own row follows its partitions: the least of the watermarks, and the end only with the last of them."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 3)
    scribe.beat(now_ms())
    row = "SELECT watermark_ms, finished_at IS NOT NULL, partitions, segment, byte_offset FROM journal_positions"
    async with stepped(embedded_bench, nats_url) as (station, conn):
        cargo = cargo_of(scribe)
        through_ms = cargo.items[-1].through_ms
        await ferry.send([cargo.stretch(partition, START, START) for partition in range(PARTITIONS)])
        for partition in range(PARTITIONS):
            streamed_of(station)._next.clear()
            await streamed_of(station).refresh(conn)
            assert await embedded_bench.rows(row) in ([], [(0, False, PARTITIONS, 1, 0)])
            await ferry.send([cargo.stretch(partition, START, cargo.end)])
            await catch_up(station, conn, ferry)
        await refresh_watermarks(embedded_bench.conn)
        assert await embedded_bench.rows(row) == [(through_ms, False, PARTITIONS, 1, 0)]
        for partition in range(PARTITIONS):
            await ferry.send([cargo.stretch(partition, cargo.end, cargo.end, is_last=True)] * 2)
            await catch_up(station, conn, ferry)
            await refresh_watermarks(embedded_bench.conn)
            finished = await embedded_bench.value("SELECT finished_at IS NOT NULL FROM journal_positions")
            assert finished == (partition == PARTITIONS - 1)
    assert await faults_of(embedded_bench, [scribe]) == []


async def test_a_journal_that_lost_its_end_in_a_power_cut_is_finished_all_the_same(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """What its shipper sent is synced where the stream is, not where it was written: the journal ends before what is stored."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 6)
    cargo = cargo_of(scribe)
    left = cargo.places[5]
    closing = [cargo.stretch(partition, left, left, is_last=True) for partition in range(PARTITIONS)]
    async with stepped(embedded_bench, nats_url) as (station, conn):
        for shipments in (cargo.all(), closing):
            await ferry.send(shipments)
            await catch_up(station, conn, ferry)
        assert {row[1:] for row in await embedded_bench.rows(PLACES)} == {(*cargo.end, True)}
    assert await faults_of(embedded_bench, [scribe]) == []


async def test_in_a_stream_made_anew_reading_begins_anew(
    embedded_bench: Bench, stream_server: StreamServer, nats_url: str, ferry: Ferry
) -> None:
    """T2: its sequences are small again, and nothing of it is taken for what was read before."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 4)
    async with stepped(embedded_bench, nats_url) as (station, conn):
        await ferry.send(cargo_of(scribe).all(cargo_of(scribe).places[1:-1]))
        await catch_up(station, conn, ferry)
    await forget_stream(stream_server)
    write_some(scribe, 4)
    async with stepped(embedded_bench, nats_url) as (station, conn):
        await ferry.send(cargo_of(scribe).all())
        await catch_up(station, conn, ferry)
        assert await embedded_bench.value("SELECT max(sequence) FROM stream_partitions") <= 3 * PARTITIONS
    assert await faults_of(embedded_bench, [scribe]) == []


async def test_a_drain_whose_stream_is_deleted_goes_on_with_the_next(
    embedded_bench: Bench, stream_server: StreamServer, nats_url: str, ferry: Ferry
) -> None:
    """The running drain notices by itself that its consumer is gone."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 2)
    async with make_station(embedded_bench, nats_url).running():
        await ferry.send(cargo_of(scribe).all())
        await until(lambda: is_stored(embedded_bench, [scribe]))
        assert await ferry.connection.jetstream.delete_stream(STREAM)
        await ferry.connection.ensure_stream(stream_server.options)
        write_some(scribe, 2)
        await ferry.send(cargo_of(scribe).all())
        await until(lambda: is_stored(embedded_bench, [scribe]))


async def is_stored(bench: Bench, scribes: list[Scribe]) -> bool:
    """Whether each event is in its table, once."""
    return await faults_of(bench, scribes) == []


async def test_a_restored_database_is_filled_from_the_stream(
    embedded_server: Server, data_dir: Path, database: str, nats_url: str, ferry: Ferry
) -> None:
    """Places and sequences go back with the rows, so the stream is read again from there, and nothing twice."""
    async with open_bench(data_dir, database) as bench:
        scribe = bench.scribe(partitions=PARTITIONS)
        write_some(scribe, 4)
        async with stepped(bench, nats_url) as (station, conn):
            await ferry.send(cargo_of(scribe).all(cargo_of(scribe).places[2:-1:2]))
            await catch_up(station, conn, ferry)
        await conn.close()
        name = database.partition("@/")[2].partition("?")[0]
        await bench.conn.close()
        # By the bench, so that it ends with it whatever happens.
        bench._connections.append(server := await connect(embedded_server.url))
        await server.execute(f"CREATE DATABASE {name}_backup TEMPLATE {name} STRATEGY = FILE_COPY")
        write_some(scribe, 4)
        cargo = cargo_of(scribe)
        sent = cargo.places[len(cargo.places) // 2 :]
        try:
            for url in (database, database.replace(name, f"{name}_backup")):
                bench._connections.append(looking := await connect(url))
                again = Bench(data_dir, url, looking)
                if url == database:
                    await ferry.send(cargo.all(sent))
                async with stepped(again, nats_url) as (station, conn):
                    await catch_up(station, conn, ferry)
                assert await faults_of(again, [scribe]) == []
                again.close()
        finally:
            await server.execute(f"DROP DATABASE {name}_backup WITH (FORCE)")


async def test_random_cuts_repeats_gaps_and_lost_commits_store_each_event_once(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """Two drains, both through a wire that is cut at their commits, while shipments come in any order a shipper may send."""
    random = Random(7)
    scribes = [embedded_bench.scribe(worker=worker, partitions=PARTITIONS) for worker in range(3)]
    async with (
        WireProxy(embedded_bench.url).listening() as first,
        WireProxy(embedded_bench.url).listening() as second,
        make_station(embedded_bench, nats_url, lease_s=0.5, batch_rows=12, database=first.url).running(),
        make_station(embedded_bench, nats_url, lease_s=0.5, batch_rows=12, database=second.url).running(),
    ):
        for _ in range(4):
            for proxy in (first, second):
                proxy.arm(Cut(b"COMMIT;", random.randrange(3), random.choice(["nothing", "half", "all"])))
            for scribe in scribes:
                write_some(scribe, 5)
            await ferry.send(shuffled([cargo_of(scribe) for scribe in scribes], random))
        await ferry.send([one for scribe in scribes for one in cargo_of(scribe).all(is_last=True)])
        await until(lambda: is_finished(embedded_bench, 3), 40.0)
    assert await faults_of(embedded_bench, scribes) == []
    assert first.cuts + second.cuts >= 2


async def is_finished(bench: Bench, journals: int) -> bool:
    """Whether so many journals are wholly stored."""
    query = "SELECT count(*) FROM journal_positions WHERE finished_at IS NOT NULL"
    return bool(await bench.value(query) == journals)


def shuffled(cargoes: list[Cargo], random: Random) -> list[Shipment]:
    """Each chain in its order, with steps back, other cuts and gaps; the chains mixed."""
    chains = []
    for cargo in cargoes:
        for partition in range(cargo.partitions):
            sent: list[Shipment] = []
            for _ in range(random.randrange(1, 4)):
                cuts = random.sample(cargo.places[1:-1], random.randrange(6))
                chain = cargo.chain(partition, cuts)
                begin = random.randrange(len(chain))
                sent += [chain[0], *(one for one in chain[begin:] if random.random() > 0.15)]
            chains.append(sent)
    mixed = []
    while chains := [chain for chain in chains if chain]:
        mixed.append(random.choice(chains).pop(0))
    return mixed
