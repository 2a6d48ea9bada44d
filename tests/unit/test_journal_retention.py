"""Marking, capacity and deletion: J11 of storage/journal/segments.py."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from storage.journal.capacity import undrained_bytes
from storage.journal.filesystem import Filesystem
from storage.journal.retention import delete_expired, mark_drained, sweep_unborn
from storage.journal.segments import HEADER_BYTES, LOCK_NAME, list_journals, list_segments, name_segment
from storage.journal.writer import JournalWriter

UNLIMITED = 1 << 40
SEGMENT_BYTES = HEADER_BYTES + 100


def write_segments(root: Path, count: int) -> JournalWriter:
    """A living journal of `count` segments with one frame of 100 bytes each."""
    writer = JournalWriter.create(root, node_id=1, worker_id=1, now_ms=1, max_segment_bytes=HEADER_BYTES + 50)
    for _ in range(count):
        assert writer.write([b"x" * 91]) == 1
    return writer


def list_names(writer: JournalWriter) -> list[str]:
    """The names of the journal's segments."""
    return [segment.path.name for segment in list_segments(writer.directory)]


def test_drained_segments_are_marked_and_no_longer_counted(tmp_path: Path) -> None:
    """Undrained bytes are those of `.log` files, and marking twice changes nothing."""
    writer = write_segments(tmp_path, 4)
    assert undrained_bytes(tmp_path) == 4 * SEGMENT_BYTES
    assert mark_drained(writer.directory, 2, now_s=1_000) == 2
    assert mark_drained(writer.directory, 2, now_s=2_000) == 0
    assert list_names(writer) == ["00000001.done", "00000002.done", "00000003.log", "00000004.log"]
    assert undrained_bytes(tmp_path) == 2 * SEGMENT_BYTES
    assert name_segment(writer.directory, 1, is_done=True).stat().st_mtime == 1_000
    writer.close()


def test_the_segment_that_is_written_is_never_marked(tmp_path: Path) -> None:
    """The last segment of a living journal stays, and is marked once the journal has ended."""
    writer = write_segments(tmp_path, 2)
    assert mark_drained(writer.directory, 99, now_s=1_000) == 1
    assert list_names(writer) == ["00000001.done", "00000002.log"]
    writer.close()
    assert mark_drained(writer.directory, 99, now_s=1_000) == 1


def test_drained_segments_are_kept_for_their_time(tmp_path: Path) -> None:
    """Nothing younger than `keep_s` goes while there is room."""
    writer = write_segments(tmp_path, 4)
    mark_drained(writer.directory, 1, now_s=1_000)
    mark_drained(writer.directory, 2, now_s=2_000)
    assert delete_expired(tmp_path, 1_999, 1_000, UNLIMITED, set(), {}) == 0
    assert delete_expired(tmp_path, 2_000, 1_000, UNLIMITED, set(), {}) == SEGMENT_BYTES
    assert list_names(writer) == ["00000002.done", "00000003.log", "00000004.log"]
    writer.close()


def test_the_oldest_go_first_when_room_is_short(tmp_path: Path) -> None:
    """Above the total the oldest drained segments of any journal are deleted, only as many as needed."""
    one, two = write_segments(tmp_path, 3), write_segments(tmp_path, 3)
    mark_drained(one.directory, 1, now_s=1_000)
    mark_drained(two.directory, 2, now_s=1_001)
    mark_drained(one.directory, 2, now_s=1_002)
    stored_before = {one.journal_id: 3.0, two.journal_id: math.inf}
    assert delete_expired(tmp_path, 1_003, 3_600, 4 * SEGMENT_BYTES, set(), stored_before) == 2 * SEGMENT_BYTES
    left = list_names(one) + list_names(two)
    assert left.count("00000002.done") + left.count("00000001.done") == 2
    assert "00000001.done" not in list_names(one)
    one.close()
    two.close()


def test_room_is_made_of_what_is_known_to_be_stored(tmp_path: Path) -> None:
    """A mark may be of a database that was restored to an older state, or of one that nobody can ask now."""
    one, two = write_segments(tmp_path, 4), write_segments(tmp_path, 2)
    for writer in (one, two):
        mark_drained(writer.directory, 3, now_s=1_000)
    assert delete_expired(tmp_path, 10**12, math.inf, 0, set(), {}) == 0
    assert delete_expired(tmp_path, 1_001, 3_600, 0, set(), {one.journal_id: 3}) == 2 * SEGMENT_BYTES
    assert (list_names(one), list_names(two)) == (["00000003.done", "00000004.log"], ["00000001.done", "00000002.log"])
    one.close()
    two.close()


@pytest.mark.parametrize("keep_s", [0, 3_600])
def test_undrained_segments_are_never_deleted(tmp_path: Path, keep_s: float) -> None:
    """J11: no age, no shortage and no claim that the journal is finished deletes a `.log`."""
    writer = write_segments(tmp_path, 3)
    writer.close()
    assert delete_expired(tmp_path, 10**12, keep_s, 0, {writer.journal_id}, {writer.journal_id: math.inf}) == 0
    assert len(list_names(writer)) == 3


def test_a_journal_that_is_finished_and_empty_is_removed(tmp_path: Path) -> None:
    """The directory goes with its last segment, but only when the drain calls the journal finished."""
    writer = write_segments(tmp_path, 2)
    (writer.directory / ".next-00000003").write_bytes(b"left behind")
    writer.close()
    mark_drained(writer.directory, 2, now_s=1_000)
    delete_expired(tmp_path, 5_000, 3_600, UNLIMITED, set(), {})
    assert len(list_names(writer)) == 0
    assert writer.directory.exists()
    delete_expired(tmp_path, 5_000, 3_600, UNLIMITED, {writer.journal_id}, {})
    assert not writer.directory.exists()


def test_the_directory_of_a_living_journal_stays(tmp_path: Path) -> None:
    """A writer's directory is not pulled from under it, whatever the caller says."""
    writer = write_segments(tmp_path, 1)
    name_segment(writer.directory, 1).unlink()
    delete_expired(tmp_path, 5_000, 0, 0, {writer.journal_id}, {})
    assert writer.directory.exists()
    writer.close()


def test_a_removal_that_is_cut_short_leaves_no_half_journal(tmp_path: Path) -> None:
    """Without the file that says so, a journal whose events go to a stream would be taken for this machine's own."""
    writer = write_segments(tmp_path, 1)
    writer.close()
    (writer.directory / "obstacle").mkdir()
    mark_drained(writer.directory, 1, now_s=1_000)
    with pytest.raises(OSError, match="obstacle"):
        delete_expired(tmp_path, 5_000, 0, UNLIMITED, {writer.journal_id}, {})
    assert list_journals(tmp_path) == []


def test_two_may_remove_the_same_journals_at_once(tmp_path: Path) -> None:
    """The drains and the shipper of a machine do."""
    writers = [write_segments(tmp_path, 1) for _ in range(60)]
    for writer in writers:
        writer.close()
        mark_drained(writer.directory, 1, now_s=1_000)
    finished = {writer.journal_id for writer in writers}
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(delete_expired, tmp_path, 5_000, 0, UNLIMITED, finished, {}) for _ in range(4)]
    assert sum(call.result() for call in calls) >= 60 * SEGMENT_BYTES
    assert list_journals(tmp_path) == []


def test_journals_that_were_never_born_are_swept(tmp_path: Path) -> None:
    """J4: old remains go; a birth in progress, young or locked, is left alone."""
    remains = tmp_path / f".new-{uuid4().hex}"
    remains.mkdir()
    (remains / LOCK_NAME).touch()
    (remains / "00000001.log").touch()
    born_s = remains.stat().st_mtime
    in_progress = tmp_path / f".new-{uuid4().hex}"
    in_progress.mkdir()
    lock = (in_progress / LOCK_NAME).open("wb")
    Filesystem().lock(lock.fileno())
    assert sweep_unborn(tmp_path, born_s + 59) == 0
    assert sweep_unborn(tmp_path, born_s + 100) == 1
    assert not remains.exists()
    assert in_progress.exists()
    lock.close()
    assert sweep_unborn(tmp_path, born_s + 100) == 1


def test_an_absent_root_is_an_empty_one(tmp_path: Path) -> None:
    """Before the first journal nothing is counted, deleted or swept."""
    absent = tmp_path / "absent"
    assert (undrained_bytes(absent), delete_expired(absent, 1, 1, 1, set(), {}), sweep_unborn(absent, 1)) == (0, 0, 0)
