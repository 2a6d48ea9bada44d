"""A journal without room: clicks are still redirected and counted as dropped, conversions are refused; then all recovers.

The room is EDGE_JOURNAL_MAX_BYTES, or what a real disk has left.
"""

import asyncio
import os
import resource
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from tests.faults.arrivals import wait_until_stored
from tests.faults.gate import Gate
from tests.faults.load import Client, Say, id_in
from tests.node import Node, eventually
from tests.recount import differences

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

MakeNode = Callable[..., Node]
MakeSender = Callable[[Node], "Sender"]
CONNECTIONS = 16
PADDING = "p" * 900
ROOM = 6 * 2**20
NEARLY_FULL_CLICKS = 4000
"""Three quarters of the room: a padded click is some 1.2 kB."""
STEP = 30
SCANNED_S = 20.0


class Sender:
    """Clicks and postbacks over kept connections to all workers, and what was answered to them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.clicks: dict[str, str] = {}
        self.successes: list[str] = []
        self.refusals: list[str] = []
        self._clients = [Client(node.port) for _ in range(CONNECTIONS)]

    async def click(self, count: int) -> None:
        """`count` clicks, each of which must be redirected."""

        async def send(client: Client, mark: str) -> None:
            target = f"/aff_c?offer_id=1&aff_id=1&aff_sub={mark}&aff_sub2={PADDING}"
            self.clicks[mark] = id_in(await client.ask(target))

        await self._spread(send, [f"c{len(self.clicks) + index}" for index in range(count)])

    async def convert(self, count: int) -> None:
        """`count` postbacks for the first click, each with a unique id of its own."""
        click_id = self.clicks["c0"]

        async def send(client: Client, mark: str) -> None:
            target = f"/aff_lsr?transaction_id={click_id}&adv_sub={mark}&conversion_unique_id={mark}&adv_sub2={PADDING}"
            reply = await client.ask(target)
            if reply.status == 503:
                assert int(reply.headers["Retry-After"]) > 0
                self.refusals.append(mark)
            else:
                assert reply.body == b"success=true;"
                self.successes.append(mark)

        first = len(self.successes) + len(self.refusals)
        await self._spread(send, [f"v{first + index}" for index in range(count)])

    async def _spread(self, send: Callable[[Client, str], Awaitable[None]], marks: list[str]) -> None:
        async def run(index: int) -> None:
            for mark in marks[index::CONNECTIONS]:
                await send(self._clients[index], mark)

        await asyncio.gather(*map(run, range(CONNECTIONS)))

    async def dropped(self) -> int:
        return int(await self.node.metric("edge_events_dropped_total"))

    async def click_until_dropped(self) -> None:
        """Until clicks find no room any more, whichever worker they meet.

        In small steps: a worker learns but twice a second what the others have written, and what conversions have to
        themselves is not to be used up in between.
        """
        await self._until(self.click, STEP, self.dropped)

    async def convert_until_refused(self) -> None:
        """Until conversions find none either."""

        async def refused() -> int:
            return len(self.refusals)

        await self._until(self.convert, STEP, refused)

    async def _until(
        self, send: Callable[[int], Awaitable[None]], count: int, refused: Callable[[], Awaitable[int]]
    ) -> None:
        async def is_full() -> bool:
            before = await refused()
            await send(count)
            return await refused() - before == count

        await eventually(is_full, 60, self.node.describe)

    async def recover(self) -> None:
        """Until both clicks and conversions are recorded again, at every worker."""

        async def has_recovered() -> bool:
            dropped, refused = await self.dropped(), len(self.refusals)
            await self.click(CONNECTIONS)
            await self.convert(CONNECTIONS)
            return await self.dropped() == dropped and len(self.refusals) == refused

        await eventually(has_recovered, SCANNED_S, self.node.describe)

    def close(self) -> None:
        """Let go of all connections."""
        for client in self._clients:
            client.close()

    async def check(self, url: str) -> str:
        """Everything answered is stored once, but for as many clicks as were counted as dropped; the figures."""
        conn = await asyncpg.connect(url)
        try:
            clicks = [(row[0], row[1].hex) for row in await conn.fetch("SELECT aff_sub1, click_id FROM clicks")]
            conversions = [row[0] for row in await conn.fetch("SELECT adv_sub1 FROM conversions")]
            faults = await differences(conn)
        finally:
            await conn.close()
        assert faults == []
        assert len(set(clicks)) == len(clicks)
        assert set(clicks) <= set(self.clicks.items())
        assert len(self.clicks) - len(clicks) == await self.dropped() > 0
        assert sorted(conversions) == sorted(self.successes)
        return (
            f"{len(self.clicks)} clicks answered, {len(clicks)} stored, {await self.dropped()} counted as dropped;"
            f" {len(self.successes)} conversions stored, {len(self.refusals)} refused with 503"
        )


@pytest.fixture
async def make_sender() -> AsyncIterator[Callable[[Node], Sender]]:
    """A factory of senders, whose connections are closed at the end."""
    senders: list[Sender] = []

    def make(node: Node) -> Sender:
        senders.append(Sender(node))
        return senders[-1]

    yield make
    for sender in senders:
        sender.close()


@pytest.mark.reliability(number=9)
async def test_a_full_journal_drops_counted_clicks_and_refuses_conversions(
    make_gated: MakeNode, make_sender: MakeSender, gate: Gate, say: Say
) -> None:
    """Postgres away: at 90 % clicks go unrecorded and counted, at 100 % conversions get 503; then all recovers."""
    node = await make_gated(EDGE_WORKERS="2", EDGE_JOURNAL_MAX_BYTES=f"{ROOM}B").start()
    workers = node.pids("worker")
    sender = make_sender(node)
    await sender.click(100)
    await gate.shut()
    await sender.click(NEARLY_FULL_CLICKS)
    await sender.click_until_dropped()
    await sender.convert(100)
    assert sender.refusals == []
    await sender.convert_until_refused()
    await sender.click(100)
    assert ROOM * 0.99 < undrained_bytes(node.data_dir / "journal") < ROOM * 1.5
    await gate.open()
    await sender.recover()
    await wait_until_stored(node, gate.behind)
    say(await sender.check(gate.behind))
    assert node.pids("worker") == workers
    assert await node.stop() == 0


def undrained_bytes(root: Path) -> int:
    """What the journals hold that is not marked as drained."""
    return sum(path.stat().st_size for path in root.glob("*/*.log"))


@pytest.fixture
def small_disk(data_dir: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where `make_node` will put its first data dir: a file system of its own, of the test's size."""
    place = data_dir.with_name(data_dir.name + "-0")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={request.param}", "clickedge-test", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, spare_bytes: int) -> Path:
    """A file that leaves so much room on its disk."""
    ballast = disk / "ballast"
    space = os.statvfs(disk)
    # Others write meanwhile, so the last piece may not fit whole.
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        for _ in range(space.f_bfree - spare_bytes // space.f_frsize):
            file.write(bytes(space.f_frsize))
    return ballast


@pytest.mark.root
@pytest.mark.parametrize("small_disk", ["6m"], indirect=True)
@pytest.mark.reliability(number=6)
async def test_a_full_disk_drops_counted_clicks_and_recovers(
    small_disk: Path, make_gated: MakeNode, make_sender: MakeSender, gate: Gate, say: Say
) -> None:
    """No byte left on the device: as with a full journal, and no worker has to be restarted when there is space."""
    node = await make_gated(EDGE_WORKERS="2").start()
    workers = node.pids("worker")
    sender = make_sender(node)
    await sender.click(100)
    await gate.shut()
    ballast = fill(small_disk, 2**20)
    await sender.click_until_dropped()
    await sender.convert_until_refused()
    ballast.unlink()
    await sender.recover()
    await gate.open()
    await wait_until_stored(node, gate.behind)
    say(await sender.check(gate.behind))
    assert await node.metric("edge_journal_write_errors_total") > 0
    assert node.pids("worker") == workers
    assert await node.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("small_disk", ["6m"], indirect=True)
async def test_workers_killed_on_a_full_disk_answer_and_record_again_with_the_space(
    small_disk: Path, make_gated: MakeNode, make_sender: MakeSender, gate: Gate, say: Say
) -> None:
    """They cannot begin a journal, and answer as those whose disk filled later; with space each begins one, unasked."""
    node = await make_gated(EDGE_WORKERS="2").start()
    sender = make_sender(node)
    await sender.click(100)
    await gate.shut()
    ballast = fill(small_disk, 2**20)
    await sender.click_until_dropped()
    sender.close()
    before = journals(node)
    killed = {node.kill("worker", index) for index in (1, 0)}

    async def are_back() -> bool:
        return node.log_path.read_text().count("worker_ready") == 4

    await eventually(are_back, SCANNED_S, node.describe)
    workers = node.pids("worker")
    assert not killed & set(workers)
    await sender.click_until_dropped()
    await sender.convert_until_refused()
    assert journals(node) == before
    ballast.unlink()
    await sender.recover()
    assert len(journals(node) - before) == 2
    await gate.open()
    await wait_until_stored(node, gate.behind)
    say(await sender.check(gate.behind))
    assert node.pids("worker") == workers
    assert await node.stop() == 0


def journals(node: Node) -> set[str]:
    """Those on the disk, and what there is of others."""
    return {path.name for path in (node.data_dir / "journal").iterdir()}


@pytest.mark.root
@pytest.mark.parametrize("small_disk", ["400m"], indirect=True)
async def test_a_disk_filled_under_journal_and_embedded_postgres_recovers(
    small_disk: Path, make_node: MakeNode, make_sender: MakeSender, catalog: Path, say: Say
) -> None:
    """Neither can write a byte: clicks are redirected all the while, and both go on by themselves once there is space."""
    node = await make_node(catalog=catalog, EDGE_WORKERS="2").start()
    workers = node.pids("worker")
    sender = make_sender(node)
    await sender.click(100)
    ballast = fill(small_disk, 0)
    await sender.click_until_dropped()
    await sender.convert_until_refused()
    ballast.unlink()
    await sender.recover()
    await wait_until_stored(node)
    say(await sender.check(node.database_url))
    assert node.pids("worker") == workers
    assert await node.stop() == 0


async def test_a_journal_that_the_kernel_lets_grow_no_further_recovers(
    make_gated: MakeNode, make_sender: MakeSender, gate: Gate, say: Say
) -> None:
    """A limit on the size of files, put on the running workers and lifted again: EFBIG is met like a full disk."""
    node = await make_gated(EDGE_WORKERS="2").start()
    workers = node.pids("worker")
    sender = make_sender(node)
    await sender.click(100)
    for worker in workers:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (512 * 1024, resource.RLIM_INFINITY))
    await sender.click_until_dropped()
    await sender.convert_until_refused()
    for worker in workers:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await sender.recover()
    await wait_until_stored(node, gate.behind)
    say(await sender.check(gate.behind))
    assert node.pids("worker") == workers
    assert await node.stop() == 0
