"""Exactly once through the stream: repeats, gaps, other cuts, restarts. S: shipments.py; P: positions.py; T: stream.py."""

from storage.postgres.connection import connect
from tests.node import eventually
from tests.postgres.drains import Bench
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
from tests.streams import Ferry


async def test_a_message_that_comes_three_times_in_other_cuts_is_stored_once(
    embedded_bench: Bench, nats_url: str, ferry: Ferry
) -> None:
    """S2: whatever the cuts, what lies before the stored position is skipped."""
    scribe = embedded_bench.scribe(partitions=PARTITIONS)
    write_some(scribe, 6)
    cargo = cargo_of(scribe)
    async with stepped(embedded_bench, nats_url) as (station, conn):
        for step in (3, 5, 1000):
            await ferry.send(cargo.all(cargo.places[step:-1:step]))
            await catch_up(station, conn, ferry)
            assert await faults_of(embedded_bench, [scribe]) == []
