"""A shipper at work in the test's own process, what it has to ship, and what of that reached the stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from edge.counters import Counters, cell
from edge.processes import ChildOrders
from edge.settings import Settings
from edge.shipper.process import Shipper
from storage.stream.reading import StreamReader
from storage.stream.shipments import Message, decode_message
from tests.node import eventually
from tests.postgres.drains import Scribe, now_ms
from tests.streams import StreamServer
from tests.unit.test_cutting import PARTITIONS, Taker

SOON_S = 20.0


def make_settings(server: StreamServer, data_dir: Path, **changes: object) -> Settings:
    data_dir.mkdir(exist_ok=True)
    values = {
        "data_dir": str(data_dir), "stream_url": server.url, "stream_replicas": 1, "stream_partitions": PARTITIONS,
        "stream_monitor_port": server.monitor_port, **changes,
    }  # fmt: skip
    return Settings(**values)  # type: ignore[arg-type]


def make_scribe(data_dir: Path, **fields: int) -> Scribe:
    return Scribe(data_dir, partitions=PARTITIONS, **fields)


class Running:
    """A shipper at work in this process."""

    def __init__(self, settings: Settings) -> None:
        self.counters = Counters.private()
        self.shipper = Shipper(ChildOrders("shipper", 0, settings, -1, []), self.counters)
        self._task = asyncio.create_task(self.shipper.run())

    async def ends(self) -> None:
        """Wait until it has."""
        await self._task

    async def is_told_to_end(self) -> None:
        """SIGTERM, and its end."""
        self.shipper._stop.set()
        await self._task

    async def dies(self) -> None:
        """At once, with nothing written down."""
        self._task.cancel()
        await asyncio.wait([self._task])

    def count(self, name: str) -> int:
        """A metric of it."""
        return self.counters.cells[cell(name)]


@asynccontextmanager
async def shipping(settings: Settings) -> AsyncIterator[Running]:
    running = Running(settings)
    try:
        yield running
    finally:
        await running.dies()


async def read_all(server: StreamServer) -> list[Message]:
    """Everything that the stream holds, in its order."""
    connection = await server.connect()
    reader = StreamReader(connection)
    await reader.open(range(PARTITIONS), 0)
    found: list[Message] = []
    while messages := await reader.take(0.3):
        found += [decode_message(one.data) for one in messages]
    await reader.close()
    await connection.close()
    return found


async def take_all(server: StreamServer, journal_id: UUID) -> Taker:
    taker = Taker()
    for message in await read_all(server):
        if message.journal_id == journal_id.bytes:
            taker.take(message)
    return taker


async def until_shipped(server: StreamServer, scribe: Scribe, *, is_finished: bool = False) -> Taker:
    """Until the stream has all of a journal's events; put together by the drains' rule."""
    taker = Taker()

    async def are_there() -> bool:
        nonlocal taker
        taker = await take_all(server, scribe.writer.journal_id)
        return len(taker.all_payloads) >= events_of(scribe) and (not is_finished or len(taker.is_finished) == PARTITIONS)

    await eventually(are_there, SOON_S, lambda: f"{len(taker.all_payloads)} of {events_of(scribe)}, {taker.is_finished}")
    assert len(taker.all_payloads) == events_of(scribe)
    return taker


def events_of(scribe: Scribe) -> int:
    return sum(written.kind != "beat" for written in scribe.written)


def write_some(scribe: Scribe, count: int) -> None:
    for _ in range(count):
        scribe.click()
    scribe.beat(now_ms())


async def until(check: Callable[[], bool]) -> None:
    async def is_so() -> bool:
        return check()

    await eventually(is_so, SOON_S)
