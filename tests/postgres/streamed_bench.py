"""Drains of a stream in the test's own process: stations that have one, journals marked for it, and their comparison."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from edge.counters import cell
from edge.drain.streamed import Streamed
from storage.postgres.connection import Connection
from storage.stream.shipments import STREAM
from tests.node import eventually
from tests.postgres.drains import Bench, Scribe, Station, compare
from tests.recount import differences
from tests.streams import Cargo, Ferry

PARTITIONS = 4
TABLES = (("clicks", "click"), ("impressions", "impression"), ("conversions", "conversion"))


def streamed_of(station: Station) -> Streamed:
    """The part of a station that has to do with the stream."""
    assert station.drain._streamed is not None
    return station.drain._streamed


def make_station(
    bench: Bench, url: str, *, lease_s: float = 5.0, slot: int = 0, database: str = "", **settings: Any
) -> Station:
    """A drain with a stream; `database`: another way to the bench's."""
    values = {"stream_url": url, "stream_partitions": PARTITIONS, "stream_replicas": 1, **settings}
    station = bench.station(slot=slot, url=database, **values)
    streamed_of(station)._lease_s = lease_s
    return station


@asynccontextmanager
async def stepped(bench: Bench, url: str, **settings: Any) -> AsyncIterator[tuple[Station, Connection]]:
    """A drain that is stepped by hand: connected, with leases of all partitions that are free."""
    station, conn = make_station(bench, url, **settings), await bench.connect()
    streamed = streamed_of(station)

    async def holds_some() -> bool:
        await streamed.keep_leases(conn)
        return bool(streamed.partitions)

    try:
        await eventually(holds_some, 20.0)
        yield station, conn
    finally:
        if not conn.is_closed():
            await streamed.leave(conn)
        await streamed.close()


def metric(station: Station, name: str) -> int:
    """A count of the station's."""
    return station.counters.cells[cell(name)]


async def catch_up(station: Station, conn: Connection, ferry: Ferry) -> None:
    """Step until everything that the stream holds now has been looked at."""
    streamed = streamed_of(station)
    last = (await ferry.connection.jetstream.stream_info(STREAM)).state.last_seq

    async def is_through() -> bool:
        await streamed.advance(conn)
        query = "SELECT min(sequence) FROM stream_partitions WHERE owner = $1"
        sequence = await conn.fetchval(query, streamed.drain_id)
        return sequence is not None and sequence >= last

    await eventually(is_through, 20.0)


def write_some(scribe: Scribe, rounds: int) -> None:
    """Events of every kind."""
    for _ in range(rounds):
        scribe.convert(scribe.click())
        scribe.impression()


def cargo_of(scribe: Scribe, partitions: int = PARTITIONS) -> Cargo:
    """What is in a journal now."""
    return Cargo(scribe.writer.directory, partitions)


async def faults_of(bench: Bench, scribes: Sequence[Scribe]) -> list[str]:
    """What is stored too little or too often; nothing where each event is there once and the roll-ups are the rows'."""
    faults: list[str] = []
    for table, kind in TABLES:
        written = [one.id for scribe in scribes for one in scribe.written if one.kind == kind]
        faults += compare(await bench.ids(table), written)
    return [*faults, *map(str, await differences(bench.conn))]
