"""Group commit: one journal write per loop turn, before any answer; fsyncs beside the loop.

C1  `done(True)` is called only after the event is in the kernel (`PROCESS`), on the disk (`DISK`), or on other machines'
    disks, on this one's while those are away (`REPLICATED`, see `replicas`).
C2  Events are written in the order of `append`, and heartbeats with them.
C3  `done(False)`: this event is not in the journal and never will be.
C4  After a failed fsync nothing is confirmed any more: `on_broken` ends the process.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.errors import JournalBroken
from storage.journal.capacity import undrained_bytes
from storage.journal.framing import MAX_PAYLOAD_BYTES
from storage.journal.replicas import Done, Replicas, ReplicationWatch
from storage.journal.writer import JournalWriter

PROCESS, DISK, REPLICATED = 0, 1, 2
"""What an answer waits for. The least of them is false: that is the question that each click is asked."""
DROPPABLE_SHARE = 0.9
CAPACITY_SCAN_S = 0.5


Pending = tuple[bytes, bool, int, Done]
"""An event on its way: payload, is_droppable, durability, done. A plain tuple: one is made for each click."""


class GroupCommit:
    """The journal as the event loop uses it.

    `observe_write` gets events, bytes and failures of each write, before anything is confirmed; `observe_sync` the
    microseconds of each fsync; `watch` how `REPLICATED` answers left. Who knows of the stream tells `replicas`.
    """

    def __init__(
        self,
        writer: JournalWriter,
        *,
        max_bytes: int,
        fsync_interval_ms: int,
        observe_sync: Callable[[int], None],
        on_broken: Callable[[BaseException], None],
        observe_write: Callable[[int, int, int], None] = lambda events, byte_count, errors: None,
        watch: ReplicationWatch | None = None,
    ) -> None:
        self._writer = writer
        self._root: Path = writer.directory.parent
        self._max_bytes = max_bytes
        self._interval_s = fsync_interval_ms / 1000
        self._observe_write = observe_write
        self._observe_sync = observe_sync
        self._on_broken = on_broken
        self.replicas = Replicas(writer, watch or ReplicationWatch(), self._tell)
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "journal-sync")
        # The mutable state: this turn's events, those that wait for an fsync, and what the last scan of the disk saw.
        self._turn: list[Pending] = []
        self._unsynced: list[Done] = []
        self._sync_task: asyncio.Task[None] | None = None
        self._scanned_bytes = undrained_bytes(self._root)
        self._appended_at_scan = writer.appended_bytes
        self._timers = [self._loop.create_task(job) for job in (self._keep_synced(), self._keep_measured())]
        for timer in self._timers:
            timer.add_done_callback(self._check)

    @property
    def undrained_bytes(self) -> int:
        """What the node's journals hold that Postgres does not, as far as this process knows."""
        return self._scanned_bytes + self._writer.appended_bytes - self._appended_at_scan

    @property
    def is_nearly_full(self) -> bool:
        """Whether clicks are answered without being journalled."""
        return self.undrained_bytes >= self._max_bytes * DROPPABLE_SHARE

    def append(self, payload: bytes, done: Done, is_droppable: bool, durability: int) -> None:
        """Write `payload` at the end of this loop turn, then call `done` (C1, C3); `durability`: PROCESS and so on."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            self._loop.call_soon(done, False)
            return
        if not self._turn:
            self._loop.call_soon(self.flush)
        self._turn.append((payload, is_droppable, durability, done))

    def flush(self) -> None:
        """Write this turn's events now."""
        turn, self._turn = self._turn, []
        admitted = [event for event in turn if self._has_room(event)] if self.is_nearly_full else turn
        appended_bytes = self._writer.appended_bytes
        try:
            count = self._writer.write([event[0] for event in admitted]) if admitted else 0
        except JournalBroken as error:
            self._on_broken(error)
            return
        self._observe_write(count, self._writer.appended_bytes - appended_bytes, int(count < len(admitted)))
        if count < len(turn):
            written = set(map(id, admitted[:count]))
            for event in turn:
                if id(event) not in written:
                    self._tell(event[3], False)
            admitted = admitted[:count]
        for _, _, durability, done in admitted:
            if durability:
                if durability == DISK:
                    self._unsynced.append(done)
                elif on_sync := self.replicas.hold(done):
                    self._unsynced.append(on_sync)
                continue
            try:  # `_tell`, in place: this is each click's way
                done(True)
            except Exception as error:
                self._report(error)
        if self._unsynced:
            self._start_sync()

    async def close(self) -> None:
        """Write and sync what is left, confirm it, and end the journal."""
        for timer in self._timers:
            timer.cancel()
        self.flush()
        while self._unsynced or self._sync_task or self.replicas.is_waiting:
            if self._unsynced:
                self._start_sync()
            if self._sync_task:
                await self._sync_task
            else:
                await self.replicas.settle()
        self.replicas.forget()
        await self._loop.run_in_executor(self._thread, self._writer.close)
        self._thread.shutdown(wait=False)

    def _tell(self, done: Done, is_written: bool) -> None:
        """One waiter's fault must not keep the others from their answers."""
        try:
            done(is_written)
        except Exception as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "an answer failed", "exception": error})

    def _has_room(self, event: Pending) -> bool:
        limit = self._max_bytes * DROPPABLE_SHARE if event[1] else self._max_bytes
        return self.undrained_bytes < limit

    def _start_sync(self) -> None:
        if self._sync_task is None:
            self._sync_task = self._loop.create_task(self._sync())
            self._sync_task.add_done_callback(self._check)

    async def _sync(self) -> None:
        """Sync until nobody waits: those that came during one fsync are covered by the next."""
        try:
            while True:
                covered, self._unsynced = self._unsynced, []
                started = time.perf_counter_ns()
                await self._loop.run_in_executor(self._thread, self._writer.sync)
                self._observe_sync((time.perf_counter_ns() - started) // 1000)
                for done in covered:
                    self._tell(done, True)
                if not self._unsynced:
                    return
        except JournalBroken:
            self.replicas.forget()  # C4
            raise
        finally:
            self._sync_task = None

    async def _keep_synced(self) -> None:
        """What `process` mode promises of a power cut: an fsync every interval in which something was written."""
        while True:
            await asyncio.sleep(self._interval_s)
            if self._writer.appended_bytes > self._writer.synced_bytes:
                self._start_sync()

    async def _keep_measured(self) -> None:
        """What the node's other processes append and the drain gives back; and room for a journal that waits for it."""
        while True:
            await asyncio.sleep(CAPACITY_SCAN_S)
            if not self._writer.has_begun:
                now_ms = time.time_ns() // 1_000_000
                await self._loop.run_in_executor(self._thread, self._writer.begin, now_ms)
            appended = self._writer.appended_bytes
            try:
                scanned_bytes = await self._loop.run_in_executor(None, undrained_bytes, self._root)
            except OSError:  # out of descriptors, say: the last figure and our own bytes are near enough
                continue
            self._scanned_bytes, self._appended_at_scan = scanned_bytes, appended

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._on_broken(error)
