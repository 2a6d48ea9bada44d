"""The writer: J4 to J8 of storage/journal/segments.py, and one write(2) a batch."""

import errno
import os
import resource
import threading
from pathlib import Path

import pytest

from storage.errors import JournalBroken
from storage.journal.reader import Batch, JournalReader
from storage.journal.segments import HEADER_BYTES, list_segments, read_journal
from storage.journal.writer import JournalWriter
from tests.journal_disk import FaultyDisk

RECORD = b"x" * 91  # 100 bytes as a frame


def create(
    root: Path, disk: FaultyDisk, max_segment_bytes: int = 1 << 20, *, waits_for_room: bool = False
) -> JournalWriter:
    """A journal on the faulty disk."""
    return JournalWriter.create(
        root,
        node_id=1,
        worker_id=1,
        now_ms=1_000,
        max_segment_bytes=max_segment_bytes,
        waits_for_room=waits_for_room,
        filesystem=disk,
    )


def read_all(writer: JournalWriter) -> Batch:
    """Everything a reader that starts now gets."""
    reader = JournalReader(writer.directory)
    batch = reader.read(100_000, 1 << 30)
    reader.close()
    return batch


def read_payloads(writer: JournalWriter) -> list[bytes]:
    """The payloads a reader that starts now gets."""
    return [record.payload for record in read_all(writer).records]


def test_a_batch_is_one_system_call(tmp_path: Path) -> None:
    """Any number of records costs one write(2)."""
    disk = FaultyDisk()
    writer = create(tmp_path, disk)
    before = disk.calls["write"]
    assert writer.write([RECORD] * 64) == 64
    assert disk.calls["write"] == before + 1
    assert writer.appended == (1, HEADER_BYTES + 6_400)
    assert read_payloads(writer) == [RECORD] * 64
    writer.close()


@pytest.mark.parametrize("code", [0, errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.reliability(number=6)
def test_a_write_cut_at_any_byte_keeps_its_whole_frames(tmp_path: Path, code: int) -> None:
    """J7: whole frames stay and count, the fragment goes, and the next write goes through without a restart."""
    disk = FaultyDisk()
    writer = create(tmp_path, disk)
    expected = []
    for cut in range(0, 301, 7):
        payloads = [b"%03d-%d" % (cut, number) + RECORD[5:] for number in range(3)]
        disk.short_writes = [(cut, code)]
        assert writer.write(payloads) == cut // 100
        assert writer.write([b"again"]) == 1
        expected += [*payloads[: cut // 100], b"again"]
    assert writer.appended_bytes == writer.appended.byte_offset - HEADER_BYTES
    batch = read_all(writer)
    assert [record.payload for record in batch.records] == expected
    assert not batch.damaged
    assert writer.last_error is not None
    assert writer.last_error.errno == (code or errno.ENOSPC)
    writer.close()


def test_a_full_disk_takes_nothing_and_recovers(tmp_path: Path) -> None:
    """Real short writes (RLIMIT_FSIZE): a count of 0 while there is no room, all again once there is."""
    writer = create(tmp_path, FaultyDisk())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER_BYTES + 250, limits[1]))
    try:
        assert [writer.write([RECORD] * 4), writer.write([RECORD]), writer.write([RECORD])] == [2, 0, 0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert writer.write([RECORD] * 4) == 4
    assert read_payloads(writer) == [RECORD] * 6
    assert writer.last_error is not None
    writer.close()


def test_a_fragment_that_cannot_be_cut_off_ends_its_segment(tmp_path: Path) -> None:
    """J7: when ftruncate fails too, writing goes on in the next segment, and nothing that counted is lost."""
    disk = FaultyDisk()
    writer = create(tmp_path, disk)
    disk.short_writes, disk.failing = [(150, errno.EIO)], {"truncate"}
    assert writer.write([RECORD] * 2) == 1
    disk.failing = {"truncate", "create_file"}
    assert writer.write([b"no room for a segment"]) == 0
    disk.failing = set()
    assert writer.write([b"next"]) == 1
    assert writer.appended.segment == 2
    batch = read_all(writer)
    assert [record.payload for record in batch.records] == [RECORD, b"next"]
    assert [(damaged.segment, len(damaged.raw)) for damaged in batch.damaged] == [(1, 50)]
    writer.close()


@pytest.mark.parametrize("call", ["sync_data", "sync_directory"])
@pytest.mark.reliability(number=7)
def test_a_failed_fsync_is_the_end(tmp_path: Path, call: str) -> None:
    """J8: the sync raises, and so does every write and sync after it, although the disk works again."""
    disk = FaultyDisk()
    writer = create(tmp_path, disk, max_segment_bytes=100)
    writer.write([RECORD])
    writer.write([RECORD])
    disk.failing = {call}
    with pytest.raises(JournalBroken, match="Input/output error"):
        writer.sync()
    disk.failing = set()
    assert writer.synced_bytes == 0
    with pytest.raises(JournalBroken):
        writer.write([RECORD])
    with pytest.raises(JournalBroken):
        writer.sync()
    writer.close()


def test_a_sync_covers_what_was_written_before_it(tmp_path: Path) -> None:
    """J8: `synced_bytes` reaches `appended_bytes`; a sync with nothing new costs no fsync."""
    disk = FaultyDisk()
    writer = create(tmp_path, disk)
    writer.write([RECORD])
    assert writer.synced_bytes == 0
    assert writer.sync() == writer.synced_bytes == writer.appended_bytes == 100
    before = disk.calls["sync_data"]
    writer.sync()
    assert disk.calls["sync_data"] == before
    writer.close()


def test_a_prepared_segment_makes_rotation_one_rename(tmp_path: Path) -> None:
    """A sync past half of a segment prepares the next; the write that rotates creates nothing."""
    disk = FaultyDisk()
    writer = create(tmp_path, disk, max_segment_bytes=300)
    writer.write([RECORD] * 3)
    writer.sync()
    assert [segment.number for segment in list_segments(writer.directory)] == [1]
    created, renamed = disk.calls["create_file"], disk.calls["rename"]
    writer.write([b"second"])
    assert (disk.calls["create_file"], disk.calls["rename"]) == (created, renamed + 1)
    assert writer.appended.segment == 2
    writer.sync()
    assert read_payloads(writer) == [RECORD] * 3 + [b"second"]
    writer.close()


def test_rotation_without_preparation_creates_the_segment_itself(tmp_path: Path) -> None:
    """J6: many rotations without a sync lose nothing and never write to an earlier segment again."""
    writer = create(tmp_path, FaultyDisk(), max_segment_bytes=200)
    payloads = [b"%d" % number + RECORD for number in range(50)]
    for payload in payloads:
        writer.write([payload])
        sizes = [segment.path.stat().st_size for segment in list_segments(writer.directory)]
        assert all(size >= 200 for size in sizes[:-1])
    assert writer.appended.segment > 20
    assert read_payloads(writer) == payloads
    writer.close()
    assert not list(writer.directory.glob(".next*"))


@pytest.mark.parametrize("call", ["create_file", "rename"])
def test_a_segment_outgrows_its_limit_when_no_new_file_can_be_made(tmp_path: Path, call: str) -> None:
    """Out of inodes or descriptors, records still go where there is room; rotation follows when it can."""
    disk = FaultyDisk()
    writer = create(tmp_path, disk, max_segment_bytes=100)
    disk.failing = {call}
    assert [writer.write([RECORD]) for _ in range(3)] == [1, 1, 1]
    writer.sync()
    assert writer.write([RECORD]) == 1
    assert writer.appended.segment == 1
    disk.failing = set()
    assert writer.write([RECORD]) == 1
    assert writer.appended.segment == 2
    assert read_payloads(writer) == [RECORD] * 5
    writer.close()


def test_an_oversized_payload_leaves_the_journal_alone(tmp_path: Path) -> None:
    """ValueError before anything is written."""
    writer = create(tmp_path, FaultyDisk())
    with pytest.raises(ValueError, match="262144"):
        writer.write([RECORD, bytes(300_000)])
    assert read_payloads(writer) == []
    writer.close()


def test_a_closed_journal_takes_nothing_more(tmp_path: Path) -> None:
    """After close all is synced, the descriptors are back, and write refuses."""
    before = len(os.listdir("/proc/self/fd"))
    writer = create(tmp_path, FaultyDisk(), max_segment_bytes=100)
    for _ in range(3):
        writer.write([RECORD])
    writer.close()
    assert writer.synced_bytes == 300
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(JournalBroken, match="closed"):
        writer.write([RECORD])
    assert read_all(writer).finished


def test_a_birth_cut_short_leaves_no_journal(tmp_path: Path) -> None:
    """J4: whatever fails on the way, no reader sees a journal, and no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    for call in ("create_file", "sync_data", "sync_directory", "rename"):
        with pytest.raises(OSError, match=r"No space|Input/output"):
            create(tmp_path, FaultyDisk(failing={call}))
    with pytest.raises(OSError, match="no space for a segment"):
        create(tmp_path, FaultyDisk(short_writes=[(1 << 10, 0), (10, 0)]))
    assert not list(tmp_path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_journal_may_wait_for_room(tmp_path: Path, code: int) -> None:
    """Until there is some it takes nothing and leaves nothing on the disk; then it is a journal like any other."""
    before = len(os.listdir("/proc/self/fd"))
    disk = FaultyDisk(failing={"create_file"})
    writer = create(tmp_path, disk, waits_for_room=True)
    assert [writer.write([RECORD]), writer.sync(), writer.begin(2_000), writer.write([RECORD])] == [0, 0, False, 0]
    disk.failing, disk.short_writes = set(), [(1 << 10, 0), (10, code)]
    assert not writer.begin(2_000)
    assert (writer.has_begun, writer.appended, list(tmp_path.iterdir())) == (False, (1, HEADER_BYTES), [])
    assert writer.last_error is not None
    assert writer.last_error.errno == code
    assert writer.begin(3_000)
    assert writer.write([RECORD] * 2) == 2
    assert writer.sync() == 200
    assert read_journal(writer.directory).created_ms == 3_000
    assert read_payloads(writer) == [RECORD] * 2
    writer.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_journal_that_found_no_room_to_its_end_was_none(tmp_path: Path) -> None:
    """Closed before it began: nothing is left of it."""
    writer = create(tmp_path, FaultyDisk(failing={"create_file"}), waits_for_room=True)
    writer.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["sync_data", "sync_directory", "rename"])
def test_a_journal_waits_for_nothing_but_room(tmp_path: Path, call: str) -> None:
    """A disk that fails in any other way is an error at once, and later too."""
    disk = FaultyDisk(failing={"create_file"})
    writer = create(tmp_path, disk, waits_for_room=True)
    disk.failing = {call}
    with pytest.raises(OSError, match="Input/output"):
        writer.begin(2_000)
    with pytest.raises(OSError, match="Input/output"):
        create(tmp_path, disk, waits_for_room=True)
    assert not list(tmp_path.iterdir())


def test_writes_and_syncs_at_once_lose_nothing(tmp_path: Path) -> None:
    """A thread that syncs without a pause beside one that writes over hundreds of rotations: every record, in order."""
    disk = FaultyDisk()
    writer = create(tmp_path, disk, max_segment_bytes=2_000)
    done = threading.Event()

    def sync_until_done() -> None:
        while not done.is_set():
            before = writer.appended_bytes
            assert writer.sync() >= before

    syncer = threading.Thread(target=sync_until_done)
    syncer.start()
    payloads = [b"%05d" % number + RECORD for number in range(10_000)]
    for start in range(0, len(payloads), 5):
        assert writer.write(payloads[start : start + 5]) == 5
    done.set()
    syncer.join()
    writer.close()
    assert writer.synced_bytes == writer.appended_bytes
    assert read_payloads(writer) == payloads
    assert not list(writer.directory.glob(".next*"))
