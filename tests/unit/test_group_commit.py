"""Group commit: C1 to C4 of storage/journal/commit.py, on real files and on a disk with faults."""

import asyncio
import errno
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from storage.errors import JournalBroken
from storage.journal.commit import DISK, PROCESS, GroupCommit
from storage.journal.filesystem import REAL_FILESYSTEM, Filesystem
from storage.journal.framing import HEAD_BYTES, MAX_PAYLOAD_BYTES
from storage.journal.reader import JournalReader
from storage.journal.retention import mark_drained
from storage.journal.segments import HEADER_BYTES, is_alive, list_segments
from storage.journal.writer import JournalWriter
from tests.journal_disk import FaultyDisk

pytestmark = pytest.mark.both_loops

NEVER_MS = 10_000_000
"""An interval that no test lives to see."""
LIMIT_S = 20.0
RECORD = b"x" * 91  # 100 bytes as a frame


@dataclass
class SlowDisk(FaultyDisk):
    """Each fsync waits for a permit of its own once `is_slow`."""

    is_slow: bool = False
    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    waiting: int = 0
    """Fsyncs that have begun since then."""

    def sync_data(self, descriptor: int) -> None:
        """Wait, then fsync."""
        if self.is_slow:
            self.waiting += 1
            assert self.permits.acquire(timeout=LIMIT_S)
        super().sync_data(descriptor)

    def allow(self, count: int = 1_000) -> None:
        """Let that many fsyncs through."""
        self.permits.release(count)


class Journal:
    """A group commit, and what it told whom."""

    def __init__(
        self,
        root: Path,
        disk: Filesystem = REAL_FILESYSTEM,
        *,
        max_bytes: int = 1 << 30,
        interval_ms: int = NEVER_MS,
        max_segment_bytes: int = 1 << 20,
    ) -> None:
        self.writer = JournalWriter.create(
            root,
            node_id=1,
            worker_id=1,
            now_ms=1_000,
            max_segment_bytes=max_segment_bytes,
            waits_for_room=True,
            filesystem=disk,
        )
        self.told: list[tuple[bytes, bool]] = []
        self.broken: list[BaseException] = []
        self.syncs_us: list[int] = []
        self.writes: list[tuple[int, int, int]] = []
        self.commit = GroupCommit(
            self.writer,
            max_bytes=max_bytes,
            fsync_interval_ms=interval_ms,
            observe_sync=self.syncs_us.append,
            on_broken=self.broken.append,
            observe_write=lambda events, byte_count, errors: self.writes.append((events, byte_count, errors)),
        )

    def append(self, payload: bytes, *, is_droppable: bool = False, is_durable: bool = False) -> None:
        """Append, and note the answer."""
        self.commit.append(
            payload,
            lambda is_written: self.told.append((payload, is_written)),
            is_droppable=is_droppable,
            durability=is_durable,
        )

    async def heard(self, count: int) -> list[tuple[bytes, bool]]:
        """The answers, once there are so many."""
        await until(lambda: len(self.told) >= count)
        return self.told

    def stored(self) -> list[bytes]:
        """The payloads that a reader which starts now gets."""
        reader = JournalReader(self.writer.directory)
        batch = reader.read(1_000_000, 1 << 30)
        reader.close()
        assert not batch.damaged
        return [record.payload for record in batch.records]


async def until(check: Callable[[], Any]) -> None:
    """Until `check` holds, looked at each millisecond; the loop turns meanwhile."""
    deadline = time.monotonic() + LIMIT_S
    while not check():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_the_events_of_one_loop_turn_cost_one_write(tmp_path: Path) -> None:
    """Nothing is written before the turn ends; then everything is, by one write(2), in the order of `append` (C2)."""
    disk = FaultyDisk()
    journal = Journal(tmp_path, disk)
    for turn in range(1, 4):
        before = disk.calls["write"]
        payloads = [b"%d-%d" % (turn, number) for number in range(50)]
        for number, payload in enumerate(payloads):
            journal.append(payload, is_durable=number % 3 == 0, is_droppable=number % 2 == 0)
        assert disk.calls["write"] == before
        assert len(journal.told) == (turn - 1) * 50
        await journal.heard(turn * 50)
        assert disk.calls["write"] == before + 1
        assert journal.stored()[-50:] == payloads
    assert [events for events, _, _ in journal.writes] == [50, 50, 50]
    await journal.commit.close()


async def test_in_process_mode_the_event_is_in_the_file_when_its_answer_may_leave(tmp_path: Path) -> None:
    """C1, with an fsync that never ends: a kill right after the answer costs nothing."""
    disk = SlowDisk()
    journal = Journal(tmp_path, disk)
    disk.is_slow = True
    found: list[list[bytes]] = []
    journal.commit.append(
        b"a click", lambda is_written: found.append(journal.stored()), is_droppable=True, durability=PROCESS
    )
    await until(lambda: found)
    assert found == [[b"a click"]]
    disk.allow()
    await journal.commit.close()


@pytest.mark.reliability(number=2)
async def test_in_disk_mode_the_answer_waits_for_the_fsync(tmp_path: Path) -> None:
    """C1: written at once, answered only when a power cut could not take it any more."""
    disk = SlowDisk()
    journal = Journal(tmp_path, disk)
    disk.is_slow = True
    synced: list[int] = []
    journal.commit.append(
        RECORD, lambda is_written: synced.append(journal.writer.synced_bytes), is_droppable=False, durability=DISK
    )
    await until(lambda: disk.waiting == 1)
    assert journal.stored() == [RECORD]
    assert not synced
    disk.allow(1)
    await until(lambda: synced)
    assert synced == [100]
    assert len(journal.syncs_us) == 1
    disk.allow()
    await journal.commit.close()


async def test_events_that_come_during_an_fsync_are_covered_by_the_next(tmp_path: Path) -> None:
    """An fsync vouches only for what was written before it began; all that came meanwhile share one more."""
    disk = SlowDisk()
    journal = Journal(tmp_path, disk)
    disk.is_slow = True
    journal.append(b"first", is_durable=True)
    await until(lambda: disk.waiting == 1)
    late = [b"late %d" % number for number in range(30)]
    for number, payload in enumerate(late):
        journal.append(payload, is_durable=True)
        journal.append(b"process %d" % number)
        await journal.heard(number + 1)
    assert journal.told == [(b"process %d" % number, True) for number in range(30)]
    disk.allow(1)
    assert (await journal.heard(31))[30:] == [(b"first", True)]
    await until(lambda: disk.waiting == 2)
    assert len(journal.told) == 31
    disk.allow(1)
    assert (await journal.heard(61))[31:] == [(payload, True) for payload in late]
    assert disk.waiting == 2
    disk.allow()
    await journal.commit.close()


async def test_whatever_comes_when_is_answered_once_and_only_when_it_is_safe(tmp_path: Path) -> None:
    """No wake-up is lost and no answer leaves early, over rotations, random turns and fsyncs of random length."""
    chance = random.Random(20261121)

    class Uneven(Filesystem):
        def sync_data(self, descriptor: int) -> None:
            time.sleep(chance.random() * 0.003)
            super().sync_data(descriptor)

    journal = Journal(tmp_path, Uneven(), max_segment_bytes=20_000, interval_ms=5)
    told: list[int] = []
    early: list[int] = []
    end_bytes = 0
    payloads = []

    def expect(number: int, ticket: int, *, is_durable: bool) -> Callable[[bool], None]:
        def done(is_written: bool) -> None:
            told.append(number)
            safe_bytes = journal.writer.synced_bytes if is_durable else journal.writer.appended_bytes
            if not is_written or safe_bytes < ticket:
                early.append(number)

        return done

    for number in range(3_000):
        payload = b"%d " % number + b"." * chance.randrange(200)
        payloads.append(payload)
        end_bytes += HEAD_BYTES + len(payload)
        is_durable = chance.random() < 0.3
        done = expect(number, end_bytes, is_durable=is_durable)
        journal.commit.append(payload, done, is_droppable=False, durability=is_durable)
        if chance.random() < 0.3:
            await asyncio.sleep(chance.choice((0, 0, 0, 0.001)))
    # Without `close`, which would wake whoever was forgotten.
    await until(lambda: len(told) == 3_000)
    assert sorted(told) == list(range(3_000))
    assert not early
    assert len(list_segments(journal.writer.directory)) > 5
    await journal.commit.close()
    assert journal.stored() == payloads
    assert not journal.broken


@pytest.mark.reliability(number=3)
async def test_what_nobody_waits_for_is_synced_once_an_interval(tmp_path: Path) -> None:
    """A power cut costs `process` mode an interval and an fsync; an idle journal costs no fsync at all."""
    disk = FaultyDisk()
    journal = Journal(tmp_path, disk, interval_ms=20)
    journal.append(RECORD)
    assert await journal.heard(1) == [(RECORD, True)]
    await until(lambda: journal.writer.synced_bytes == 100)
    # The scan for the cap comes every half second: two of them are many intervals without anything to sync.
    count = disk.calls["sync_data"]
    began = time.monotonic()
    await until(lambda: time.monotonic() > began + 0.3)
    assert disk.calls["sync_data"] == count
    journal.append(RECORD)
    await until(lambda: journal.writer.synced_bytes == 200)
    await journal.commit.close()


@pytest.mark.parametrize("code", [0, errno.ENOSPC, errno.EIO])
async def test_of_a_write_cut_short_exactly_the_events_left_out_are_refused(tmp_path: Path, code: int) -> None:
    """C3: refused means not in the journal and never will be; the next turn is written without a restart."""
    disk = FaultyDisk()
    journal = Journal(tmp_path, disk)
    payloads = [b"%02d" % number + RECORD[2:] for number in range(6)]
    disk.short_writes = [(350, code)]
    for number, payload in enumerate(payloads):
        journal.append(payload, is_durable=number % 2 == 0, is_droppable=number % 3 == 0)
    await journal.heard(6)
    assert dict(journal.told) == {payload: number < 3 for number, payload in enumerate(payloads)}
    journal.append(b"again", is_durable=True)
    assert (await journal.heard(7))[6:] == [(b"again", True)]
    assert journal.stored() == [*payloads[:3], b"again"]
    assert [(events, errors) for events, _, errors in journal.writes] == [(3, 1), (1, 0)]
    assert sum(byte_count for _, byte_count, _ in journal.writes) == journal.writer.appended_bytes
    assert not journal.broken
    await journal.commit.close()


async def test_an_event_too_large_for_a_frame_is_refused_alone(tmp_path: Path) -> None:
    """Its neighbours in the same turn are written."""
    journal = Journal(tmp_path)
    for payload in (b"before", b"x" * (MAX_PAYLOAD_BYTES + 1), b"x" * MAX_PAYLOAD_BYTES, b"after"):
        journal.append(payload)
    await journal.heard(4)
    assert {(len(payload), is_written) for payload, is_written in journal.told} == {
        (6, True),
        (5, True),
        (MAX_PAYLOAD_BYTES, True),
        (MAX_PAYLOAD_BYTES + 1, False),
    }
    assert [len(payload) for payload in journal.stored()] == [6, MAX_PAYLOAD_BYTES, 5]
    await journal.commit.close()


async def test_at_nine_tenths_of_the_cap_clicks_are_refused_and_at_all_of_it_everything(tmp_path: Path) -> None:
    """The cap is the node's: what other journals hold undrained counts."""
    other = JournalWriter.create(tmp_path, node_id=1, worker_id=2, now_ms=1, max_segment_bytes=1 << 20)
    assert other.write([RECORD] * 85) == 85
    journal = Journal(tmp_path, max_bytes=10_000)
    room = 9_000 - 8_500 - 2 * HEADER_BYTES
    while journal.commit.undrained_bytes < 9_000:
        assert not journal.commit.is_nearly_full
        journal.append(b"click" + RECORD[5:], is_droppable=True)
        await journal.heard(len(journal.told) + 1)
    clicks = -(-room // 100)
    assert journal.told == [(b"click" + RECORD[5:], True)] * clicks
    assert journal.commit.is_nearly_full
    journal.told.clear()
    journal.append(b"a click", is_droppable=True)
    journal.append(b"a conversion" + b"." * 1_000, is_durable=True)
    journal.append(b"another click", is_droppable=True)
    await journal.heard(3)
    assert sorted(is_written for _, is_written in journal.told) == [False, False, True]
    assert journal.stored()[clicks:] == [b"a conversion" + b"." * 1_000]
    journal.told.clear()
    journal.append(b"one more", is_durable=True)
    assert await journal.heard(1) == [(b"one more", False)]
    other.close()
    await journal.commit.close()


async def test_room_that_the_drain_gives_back_is_used_without_a_restart(tmp_path: Path) -> None:
    """Clicks are journalled again soon after another journal's segment was marked as drained."""
    other = JournalWriter.create(tmp_path, node_id=1, worker_id=2, now_ms=1, max_segment_bytes=1 << 20)
    assert other.write([RECORD] * 100) == 100
    other.close()
    journal = Journal(tmp_path, max_bytes=10_000, interval_ms=1)
    journal.append(b"no room", is_durable=True)
    assert await journal.heard(1) == [(b"no room", False)]
    assert mark_drained(other.directory, 1, now_s=time.time()) == 1
    await until(lambda: not journal.commit.is_nearly_full)
    journal.append(b"room again", is_droppable=True)
    assert (await journal.heard(2))[1:] == [(b"room again", True)]
    await journal.commit.close()


async def test_a_journal_that_found_no_room_to_begin_begins_when_there_is_some(tmp_path: Path) -> None:
    """Until then events are refused and counted as failed writes, as by a disk that filled later."""
    disk = FaultyDisk(failing={"create_file"})
    journal = Journal(tmp_path, disk)
    journal.append(b"a click", is_droppable=True)
    journal.append(b"a conversion", is_durable=True)
    assert await journal.heard(2) == [(b"a click", False), (b"a conversion", False)]
    assert journal.writes == [(0, 0, 1)]
    disk.failing = set()
    await until(lambda: journal.writer.has_begun)
    journal.append(b"room", is_durable=True)
    assert (await journal.heard(3))[2:] == [(b"room", True)]
    assert journal.stored() == [b"room"]
    await journal.commit.close()
    assert not journal.broken


async def test_a_journal_that_found_no_room_and_then_another_fault_ends_the_process(tmp_path: Path) -> None:
    """Its disk fails the fsync of its first segment."""
    disk = FaultyDisk(failing={"create_file"})
    journal = Journal(tmp_path, disk)
    disk.failing = {"sync_data"}
    await until(lambda: journal.broken)
    journal.append(b"a click", is_droppable=True)
    assert await journal.heard(1) == [(b"a click", False)]
    await journal.commit.close()


async def test_what_was_written_and_drained_long_ago_does_not_fill_the_cap(tmp_path: Path) -> None:
    """A journal that is drained as it is written takes several times the cap in its life."""
    journal = Journal(tmp_path, max_bytes=10_000, interval_ms=1, max_segment_bytes=2_000)
    for _ in range(4):
        while not journal.commit.is_nearly_full:
            journal.append(RECORD, is_droppable=True)
            await journal.heard(len(journal.told) + 1)
        mark_drained(journal.writer.directory, journal.writer.appended.segment - 1, now_s=time.time())
        await until(lambda: not journal.commit.is_nearly_full)
    assert journal.told == [(RECORD, True)] * len(journal.told)
    assert journal.writer.appended_bytes > 20_000
    await journal.commit.close()


async def test_after_a_failed_fsync_nothing_is_confirmed_any_more(tmp_path: Path) -> None:
    """C4: whoever waited hears nothing, later events neither, whatever their mode; the process is told to end."""
    disk = FaultyDisk()
    journal = Journal(tmp_path, disk)
    disk.failing = {"sync_data"}
    journal.append(b"conversion", is_durable=True)
    await until(lambda: journal.broken)
    disk.failing = set()
    seen = len(journal.broken)
    journal.append(b"click")
    journal.append(b"another conversion", is_durable=True)
    await until(lambda: len(journal.broken) > seen)
    assert all(isinstance(error, JournalBroken) for error in journal.broken)
    assert not journal.told
    assert b"click" not in journal.stored()
    await journal.commit.close()
    assert not journal.told


async def test_closing_confirms_what_is_left_and_ends_the_journal(tmp_path: Path) -> None:
    """An fsync on its way is waited for, the events behind it get one of their own, and the lock is given back."""
    disk = SlowDisk()
    journal = Journal(tmp_path, disk)
    disk.is_slow = True
    journal.append(b"waits", is_durable=True)
    await until(lambda: disk.waiting == 1)
    journal.append(b"behind it", is_durable=True)
    journal.append(b"process")
    assert is_alive(journal.writer.directory)
    threading.Timer(0.05, disk.allow).start()
    await journal.commit.close()
    assert sorted(journal.told) == [(b"behind it", True), (b"process", True), (b"waits", True)]
    assert not is_alive(journal.writer.directory)
    reader = JournalReader(journal.writer.directory)
    batch = reader.read(10, 1 << 20)
    reader.close()
    assert batch.finished
    assert [record.payload for record in batch.records] == [b"waits", b"behind it", b"process"]


async def test_what_an_answer_sets_off_is_written_too(tmp_path: Path) -> None:
    """An event appended by a callback, of a write or of an fsync, belongs to the next turn and is not forgotten."""
    journal = Journal(tmp_path)
    left = [20]

    def again(is_written: bool) -> None:
        assert is_written
        left[0] -= 1
        if left[0]:
            journal.commit.append(b"%d" % left[0], again, is_droppable=False, durability=left[0] % 2 == 0)

    journal.commit.append(b"20", again, is_droppable=False, durability=DISK)
    await until(lambda: not left[0])
    assert journal.stored() == [b"%d" % number for number in range(20, 0, -1)]
    await journal.commit.close()
