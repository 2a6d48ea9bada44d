"""Which drain has which partitions: shared evenly, taken over from the dead, and never stored by two. By real drains."""

import asyncio

from storage.postgres.connection import Connection
from storage.postgres.stream_leases import share_out
from tests.postgres.drains import Bench, Scribe, Station, until
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
from tests.streams import Ferry, StreamServer

OWNERS = "SELECT owner, count(*) FROM stream_partitions WHERE leased_until > clock_timestamp() GROUP BY 1"
SHORT_S = 1.0
"""A lease that tests can wait for."""


async def shares(bench: Bench) -> list[int]:
    """How many partitions each drain holds."""
    return sorted(row[1] for row in await bench.rows(OWNERS))


async def is_shared(bench: Bench, *counts: int) -> bool:
    """Whether the partitions are shared out so."""
    return await shares(bench) == list(counts)


async def are_stored(bench: Bench, scribes: list[Scribe]) -> bool:
    """Whether each event is in its table, once."""
    return await faults_of(bench, scribes) == []


async def test_two_drains_share_the_partitions_and_who_ends_lets_go_at_once(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """A second one gets half of what the first has; stopped, it leaves all to the first without anybody's waiting."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    first, second = make_station(embedded_bench, nats_url), make_station(embedded_bench, nats_url)
    async with first.running():
        await until(lambda: is_shared(embedded_bench, 4))
        async with second.running():
            await until(lambda: is_shared(embedded_bench, 2, 2))
            write_some(scribe, 20)
            await ferry.send(cargo_of(scribe).all())
            await until(lambda: are_stored(embedded_bench, [scribe]))
            assert metric(first, "edge_stream_partitions_owned") == 2
        assert await embedded_bench.value("SELECT count(*) FROM stream_partitions WHERE owner IS NULL") == 2
        await until(lambda: is_shared(embedded_bench, 4))
        assert metric(first, "edge_stream_takeovers_total") == 0
    assert await faults_of(embedded_bench, [scribe]) == []


async def test_a_dead_drains_partitions_are_taken_over(embedded_bench: Bench, nats_url: str, ferry: Ferry) -> None:
    """It says nothing any more: once its lease is over the other has all, and goes on where the dead one stood."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    living = make_station(embedded_bench, nats_url, lease_s=SHORT_S)
    async with stepped(embedded_bench, nats_url, lease_s=SHORT_S) as (dead, conn), living.running():
        await until(lambda: stepped_to(dead, conn, embedded_bench, 2))
        write_some(scribe, 10)
        await ferry.send(cargo_of(scribe).all())
        await until(lambda: is_shared(embedded_bench, 4))
        await until(lambda: are_stored(embedded_bench, [scribe]))
        assert metric(living, "edge_stream_takeovers_total") == 2
        assert await embedded_bench.value("SELECT sum(takeovers) FROM stream_partitions") == 2


async def stepped_to(station: Station, conn: Connection, bench: Bench, count: int) -> bool:
    """Let the station share, and say whether it and another hold so many each."""
    await streamed_of(station).keep_leases(conn)
    return await shares(bench) == [count, count]


async def test_a_batch_of_who_is_not_the_owner_any_more_stores_nothing(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """P1: the compare-and-set refuses it whatever it believes to own; it begins anew, and nothing is stored twice."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 3)
    async with stepped(embedded_bench, nats_url) as (stale, conn):
        await ferry.send(cargo_of(scribe).all())
        await catch_up(stale, conn, ferry)
        write_some(scribe, 5)
        await ferry.send(cargo_of(scribe).all())
        await embedded_bench.conn.execute("UPDATE stream_partitions SET leased_until = now() - interval '1 s'")
        await embedded_bench.conn.execute("DELETE FROM stream_drains")
        streamed_of(stale)._next["leases"] = float("inf")
        async with stepped(embedded_bench, nats_url) as (owner, other):
            await catch_up(owner, other, ferry)
            assert await faults_of(embedded_bench, [scribe]) == []
            sequences = await embedded_bench.rows("SELECT partition, sequence FROM stream_partitions ORDER BY 1")
            assert await streamed_of(stale).advance(conn) == 0
            assert streamed_of(stale)._read_by is None
            assert await embedded_bench.rows("SELECT partition, sequence FROM stream_partitions ORDER BY 1") == sequences
    assert await faults_of(embedded_bench, [scribe]) == []


async def test_two_that_believe_to_own_the_same_store_each_event_once(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """However long both go on: the leases are worth nothing here, the places alone decide."""
    scribes = [embedded_bench.scribe(worker=worker, partitions=PARTITIONS) for worker in range(3)]
    for scribe in scribes:
        write_some(scribe, 20)
    for scribe in scribes:
        await ferry.send(cargo_of(scribe).all(cargo_of(scribe).places[5:-1:5]))
    async with stepped(embedded_bench, nats_url, batch_rows=9) as (one, first):
        await embedded_bench.conn.execute("UPDATE stream_partitions SET leased_until = now() - interval '1 s'")
        await embedded_bench.conn.execute("DELETE FROM stream_drains")
        async with stepped(embedded_bench, nats_url, batch_rows=9) as (two, second):
            for station in (one, two):
                streamed_of(station)._next["leases"] = float("inf")

            async def go_on(station: Station, conn: Connection) -> None:
                while not await are_stored(embedded_bench, scribes):
                    for _ in range(10):
                        await streamed_of(station).advance(conn)
                        streamed_of(station)._next["leases"] = float("inf")

            await go_on(one, first)
            await asyncio.gather(streamed_of(one).advance(first), streamed_of(two).advance(second))
            await go_on(two, second)
    assert await faults_of(embedded_bench, scribes) == []


async def test_a_partition_in_the_middle_of_a_transaction_is_not_taken(embedded_bench: Bench) -> None:
    """A long batch outlasts its lease; its row is locked, so its owner lives."""
    one, two = [(await embedded_bench.value("SELECT gen_random_uuid()")) for _ in range(2)]
    conn = await embedded_bench.connect()
    await embedded_bench.conn.execute("INSERT INTO stream_partitions (partition) SELECT generate_series(0, 3)")
    held = await share_out(conn, one, "one", wanted=4, lease_s=0.0)
    assert held.partitions == (0, 1, 2, 3)
    async with conn.transaction():
        await conn.execute("SELECT FROM stream_partitions WHERE partition < 3 FOR UPDATE")
        taken = await share_out(embedded_bench.conn, two, "two", wanted=4, lease_s=0.0)
        assert (taken.partitions, taken.takeovers) == ((3,), 1)
    taken = await share_out(embedded_bench.conn, two, "two", wanted=4, lease_s=0.0)
    assert (taken.partitions, taken.takeovers) == ((0, 1, 2, 3), 3)


async def test_more_partitions_are_drained_while_a_journal_has_them(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """The count is a journal's own from its birth: a drain that is configured with fewer drains all of them."""
    scribe = embedded_bench.scribe(partitions=7)
    write_some(scribe, 10)
    async with make_station(embedded_bench, nats_url, stream_partitions=2).running():
        await ferry.send(cargo_of(scribe, 7).all(is_last=True))
        await until(lambda: are_stored(embedded_bench, [scribe]))
        query = "SELECT count(*) FROM stream_positions WHERE finished_at IS NULL"
        await until(lambda: is_zero(embedded_bench, query))
        await until(lambda: is_shared(embedded_bench, 2))


async def is_zero(bench: Bench, query: str) -> bool:
    """Whether the query's value is 0."""
    return bool(await bench.value(query) == 0)


async def test_while_the_stream_is_away_the_drain_stores_its_machines_own_journals(
    embedded_bench: Bench, stream_server: StreamServer, nats_url: str
) -> None:
    """A journal without the mark is drained as ever; one with it waits for the stream, and is left alone here."""
    local, marked = embedded_bench.scribe(), embedded_bench.scribe(worker=1, partitions=PARTITIONS)
    write_some(local, 3)
    write_some(marked, 1)
    nowhere = nats_url.replace(str(stream_server.port), "1")
    async with make_station(embedded_bench, nowhere).running():
        await until(lambda: are_stored(embedded_bench, [local]))
        assert await embedded_bench.rows("SELECT journal_id FROM journal_positions") == [(local.writer.journal_id,)]
        assert await shares(embedded_bench) == []
