"""A worker's journal whose answers wait for a stream: the real writer, group commit and link; the test is the shipper."""

import asyncio
from pathlib import Path
from typing import Self

from edge.replication import ShipperLink
from edge.shipper.link import WorkerLinks
from storage.journal.commit import REPLICATED, GroupCommit
from storage.journal.filesystem import REAL_FILESYSTEM, Filesystem
from storage.journal.replicas import Replicas, ReplicationWatch
from storage.journal.segments import Position
from storage.journal.writer import JournalWriter
from tests.unit.test_group_commit import until

NEVER_MS = 10_000_000


class Watch(ReplicationWatch):
    """What it was told."""

    def __init__(self) -> None:
        self.confirmations = 0
        self.durations_us: list[float] = []
        self.reasons: list[str] = []
        self.returns = 0

    def confirmed(self, answers: int, duration_us: float) -> None:
        """Note it."""
        self.confirmations += answers
        self.durations_us.append(duration_us)

    def fell_back(self, answers: int, reason: str) -> None:
        """Note each."""
        self.reasons += [reason] * answers

    def came_back(self) -> None:
        """Note it."""
        self.returns += 1


class Replicating:
    """A journal below `data_dir`, and what it told whom."""

    def __init__(self, data_dir: Path, disk: Filesystem = REAL_FILESYSTEM, *, max_segment_bytes: int = 1 << 20) -> None:
        self.data_dir = data_dir
        self.writer = JournalWriter.create(
            data_dir / "journal",
            node_id=1,
            worker_id=1,
            now_ms=1_000,
            max_segment_bytes=max_segment_bytes,
            partitions=16,
            filesystem=disk,
        )
        self.journal_id = self.writer.journal_id
        self.told: list[bytes] = []
        self.broken: list[BaseException] = []
        self.syncs_us: list[int] = []
        self.watch = Watch()
        self.commit = GroupCommit(
            self.writer,
            max_bytes=1 << 30,
            fsync_interval_ms=NEVER_MS,
            observe_sync=self.syncs_us.append,
            on_broken=self.broken.append,
            watch=self.watch,
        )
        self._is_closed = False
        self._links: list[WorkerLinks] = []
        self._following: asyncio.Task[None] | None = None

    @property
    def replicas(self) -> Replicas:
        """Where a test can say what the link would."""
        return self.commit.replicas

    @property
    def end(self) -> Position:
        """Where the journal ends now."""
        return self.writer.appended

    def append(self, payload: bytes, durability: int = REPLICATED) -> None:
        """Append, and note the answer."""

        def done(is_written: bool) -> None:
            assert is_written
            self.told.append(payload)

        self.commit.append(payload, done, is_droppable=False, durability=durability)

    async def write(self, payload: bytes) -> Position:
        """Append, and wait until it is written: the place where it ends."""
        before = self.end
        self.append(payload)
        await until(lambda: self.end != before)
        return self.end

    def follow(self) -> None:
        """Begin to hold a link to whoever is the shipper."""
        link = ShipperLink(self.data_dir, self.journal_id, self.replicas)
        self._following = asyncio.create_task(link.run())

    async def shipper(self, *, is_up: bool = True) -> WorkerLinks:
        """A shipper that listens."""
        links = WorkerLinks()
        await links.start(self.data_dir)
        links.set_stream_up(is_up)
        self._links.append(links)
        return links

    async def linked(self) -> WorkerLinks:
        """A shipper whose stream is there, and the worker knows it."""
        links = await self.shipper()
        self.follow()
        await until(lambda: self.watch.returns)
        links.poked.clear()
        return links

    async def close(self) -> None:
        """End the journal as a worker does."""
        self._is_closed = True
        await self.commit.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        for links in self._links:
            await links.close()
        if not self._is_closed:
            await self.close()
