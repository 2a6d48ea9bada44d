"""The socket between workers and shipper: who may connect, what is told when, and what strangers can do: nothing."""

import asyncio
import gc
import os
import socket
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

import pytest

from edge.replication import MAX_LINE_BYTES, SOCKET_NAME, way_to_shipper
from edge.shipper.link import MAX_JOURNALS, MAX_LINKS, WorkerLinks
from storage.journal.segments import Position
from tests.replicating import Replicating
from tests.unit.test_group_commit import SlowDisk, until

pytestmark = pytest.mark.both_loops

LIMIT_S = 20


@pytest.fixture(autouse=True)
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No acknowledgement counts as late because the machine is busy."""
    monkeypatch.setattr("storage.journal.replicas.PATIENCE_S", LIMIT_S)


class Peer:
    """Whoever connects."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, *lines: bytes) -> None:
        """Send lines."""
        self.send(b"".join(line + b"\n" for line in lines))

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    async def hear(self) -> bytes:
        """The next line; empty at the end."""
        return (await asyncio.wait_for(self._reader.readline(), LIMIT_S)).rstrip(b"\n")

    async def is_hung_up_on(self) -> bool:
        """Wait until the other end closes."""
        try:
            await asyncio.wait_for(self._reader.read(), LIMIT_S)
        except ConnectionResetError:
            pass
        return True

    async def close(self) -> None:
        """Go away."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class Shipper:
    """A shipper's end, and those that connect to it."""

    def __init__(self, data_dir: Path) -> None:
        self.links = WorkerLinks()
        self._data_dir = data_dir
        self._peers: list[Peer] = []

    async def peer(self, *lines: bytes) -> Peer:
        """One that is connected, and has said so much."""
        with way_to_shipper(self._data_dir) as path:
            peer = Peer(*await asyncio.open_unix_connection(path))
        self._peers.append(peer)
        peer.say(*lines)
        return peer

    async def __aenter__(self) -> Self:
        await self.links.start(self._data_dir)
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self._peers:
            await peer.close()
        await self.links.close()


def introduce(journal_id: UUID) -> bytes:
    """A worker's first line."""
    return b"journal " + journal_id.hex.encode()


async def test_only_its_own_user_can_open_the_socket_and_no_path_is_too_long(tmp_path: Path) -> None:
    """0600, in a data dir whose path no socket's address could hold; what a killed shipper left is no hindrance."""
    data_dir = tmp_path / ("x" * 120) / ("y" * 120)
    data_dir.mkdir(parents=True)
    for _ in range(2):
        async with Shipper(data_dir) as shipper:
            mode = (data_dir / SOCKET_NAME).stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600
            worker = await shipper.peer(introduce(uuid4()))
            assert await worker.hear() == b"down"
            assert shipper.links.poked.is_set()
        (data_dir / SOCKET_NAME).touch()


async def test_each_worker_hears_of_its_own_journal_and_of_the_stream(tmp_path: Path) -> None:
    """The last place of a loop turn, `up` and `down` when they change; the place is told first to one that comes later."""
    first, second = uuid4(), uuid4()
    async with Shipper(tmp_path) as shipper:
        links = shipper.links
        one = await shipper.peer(introduce(first))
        assert await one.hear() == b"down"
        links.acknowledged(second, Position(1, 500))
        links.acknowledged(first, Position(1, 100))
        links.acknowledged(first, Position(2, 0))
        assert await one.hear() == b"place 2 0"
        links.set_stream_up(True)
        links.set_stream_up(True)
        assert await one.hear() == b"up"
        other = await shipper.peer(introduce(second))
        assert [await other.hear(), await other.hear()] == [b"place 1 500", b"up"]
        links.set_stream_up(False)
        assert [await one.hear(), await other.hear()] == [b"down", b"down"]
        links.poked.clear()
        other.say(b"poke")
        await until(links.poked.is_set)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n",
        b"poke",
        b"journal 123",
        b"journal " + b"A" * 32,
        b"journal " + b"a" * 32 + b" ",
        b"journal " + b"a" * 32 + b"\njournal " + b"b" * 32,
        b"." * 100,
        b"\xff\xfe",
        b"place 1 100",
    ],
)
async def test_a_stranger_is_hung_up_on_and_harms_nobody(tmp_path: Path, said: bytes) -> None:
    """The worker beside it goes on hearing what is its."""
    journal_id = uuid4()
    async with Shipper(tmp_path) as shipper:
        worker = await shipper.peer(introduce(journal_id))
        assert await worker.hear() == b"down"
        assert await (await shipper.peer(said)).is_hung_up_on()
        shipper.links.acknowledged(journal_id, Position(1, 100))
        assert await worker.hear() == b"place 1 100"
        assert shipper.links.link_count == 1


async def test_a_line_without_an_end_is_not_kept(tmp_path: Path) -> None:
    """It is hung up on before it is long."""
    async with Shipper(tmp_path) as shipper:
        stranger = await shipper.peer()
        stranger.send(b"x" * (MAX_LINE_BYTES + 1))
        assert await stranger.is_hung_up_on()
        assert shipper.links.link_count == 0


async def test_strangers_cannot_pile_up(tmp_path: Path) -> None:
    """So many connections, not more; a place that becomes free is given away again."""
    async with Shipper(tmp_path) as shipper:
        peers = [await shipper.peer() for _ in range(MAX_LINKS)]
        await until(lambda: shipper.links.link_count == MAX_LINKS)
        assert await (await shipper.peer()).is_hung_up_on()
        await peers[0].close()
        await until(lambda: shipper.links.link_count < MAX_LINKS)
        assert await (await shipper.peer(introduce(uuid4()))).hear() == b"down"


async def test_who_does_not_read_is_hung_up_on(tmp_path: Path) -> None:
    """What is to be told does not pile up for a process that stands still; it begins anew when it goes on."""
    journal_id = uuid4()
    async with Shipper(tmp_path) as shipper:
        links = shipper.links
        with socket.socket(socket.AF_UNIX) as still, way_to_shipper(tmp_path) as path:
            still.connect(path)
            still.setblocking(False)
            still.sendall(introduce(journal_id) + b"\n")
            await until(links.poked.is_set)
            number = 0
            while links.link_count:
                number += 1
                links.acknowledged(journal_id, Position(1, number))
                await asyncio.sleep(0)
            assert number < 100_000
        again = await shipper.peer(introduce(journal_id))
        assert await again.hear() == b"place 1 %d" % number


async def test_places_of_journals_long_gone_are_forgotten(tmp_path: Path) -> None:
    """A shipper that runs for years remembers those acknowledged last."""
    first, last = uuid4(), uuid4()
    async with Shipper(tmp_path) as shipper:
        for journal_id in (first, *(uuid4() for _ in range(MAX_JOURNALS - 1)), last):
            shipper.links.acknowledged(journal_id, Position(1, 1))
        for journal_id, heard in ((first, b"down"), (last, b"place 1 1")):
            worker = await shipper.peer(introduce(journal_id))
            assert await worker.hear() == heard


async def test_a_place_acknowledged_before_the_worker_said_its_journal_counts(tmp_path: Path) -> None:
    """It confirms what waits when the link comes, with no further acknowledgement and without the fsync."""
    disk = SlowDisk()
    async with Replicating(tmp_path, disk) as journal:
        links = await journal.shipper()
        disk.is_slow = True
        links.acknowledged(journal.journal_id, await journal.write(b"waits"))
        journal.follow()
        await until(lambda: journal.told == [b"waits"])
        assert (journal.watch.confirmations, journal.syncs_us) == (1, [])
        disk.allow()


async def test_answers_that_wait_while_the_link_is_made_anew_are_confirmed_by_a_later_place(tmp_path: Path) -> None:
    """The shipper dies, another comes: what the disk has not vouched for meanwhile is acknowledged by the second."""
    disk = SlowDisk()
    async with Replicating(tmp_path, disk) as journal:
        links = await journal.linked()
        disk.is_slow = True
        await journal.write(b"waits")
        await links.close()
        again = await journal.shipper()
        await asyncio.wait_for(again.poked.wait(), LIMIT_S)
        assert not journal.told
        again.acknowledged(journal.journal_id, journal.end)
        await until(lambda: journal.told == [b"waits"])
        assert (journal.watch.confirmations, journal.watch.reasons) == (1, [])
        disk.allow()


async def test_a_shipper_that_is_gone_while_a_worker_connects_costs_nobody_a_descriptor(tmp_path: Path) -> None:
    """The worker's socket is closed once: a second time it would be whoever's has its number by then, the journal's say."""
    async with Replicating(tmp_path) as journal:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / SOCKET_NAME))
            listener.listen()
            journal.follow()
            await asyncio.sleep(0)  # it has connected, and is not told so yet
        await journal.shipper()
        with ExitStack() as stack:
            others = [stack.enter_context(open(os.devnull)) for _ in range(9)]
            await until(lambda: journal.watch.returns)
            gc.collect()
            assert all(os.fstat(other.fileno()) for other in others)


async def test_a_shipper_that_lies_is_hung_up_on_and_confirms_nothing(tmp_path: Path) -> None:
    """A place beyond the journal: what waits then leaves after its fsync, and so does what is written later."""
    disk = SlowDisk()
    async with Replicating(tmp_path, disk) as journal:
        links = await journal.linked()
        disk.is_slow = True
        await journal.write(b"waits")
        await until(links.poked.is_set)
        links.poked.clear()
        links.acknowledged(journal.journal_id, Position(9, 10**6))
        await asyncio.wait_for(links.poked.wait(), LIMIT_S)  # it came again
        await journal.write(b"later")
        assert not journal.told
        disk.allow()
        await until(lambda: len(journal.told) == 2)
        assert journal.watch.confirmations == 0


@pytest.mark.parametrize("line", [b"place 1", b"place -1 5", b"place 1 5 7", b"place 1 0x10", b"Up", b"", b"." * 100])
async def test_a_worker_does_not_listen_to_nonsense(tmp_path: Path, line: bytes) -> None:
    """It hangs up and comes again; until then the stream is away."""
    async with Replicating(tmp_path) as journal:
        came = asyncio.Queue[asyncio.StreamWriter]()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / SOCKET_NAME))
            server = await asyncio.start_unix_server(lambda _, writer: came.put_nowait(writer), sock=listener)
            journal.follow()
            first = await asyncio.wait_for(came.get(), LIMIT_S)
            first.write(b"up\n" + line + b"\nup\n")
            second = await asyncio.wait_for(came.get(), LIMIT_S)
            journal.append(b"conversion")
            await until(lambda: journal.told)
            assert len(journal.watch.reasons) == 1
            second.close()
            first.close()
            server.close()


async def test_pokes_do_not_pile_up_for_a_shipper_that_stands_still(tmp_path: Path) -> None:
    """It accepts, and reads nothing: more pokes than a buffer holds cost neither memory nor the link."""
    async with Replicating(tmp_path) as journal:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / SOCKET_NAME))
            listener.listen()
            listener.setblocking(False)
            journal.follow()
            still, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), LIMIT_S)
            with still:
                still.sendall(b"up\n")
                await until(lambda: journal.watch.returns == 1)
                for number in range(20_000):
                    journal.replicas.on_waiting()
                    if number % 20 == 0:
                        await asyncio.sleep(0)
                still.sendall(b"down\nup\n")
                await until(lambda: journal.watch.returns == 2)
