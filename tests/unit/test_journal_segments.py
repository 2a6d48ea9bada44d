"""Names, headers, listing and locks: J4, J5 of storage/journal/segments.py."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from storage.errors import JournalLocked
from storage.journal.filesystem import Filesystem
from storage.journal.segments import (
    LOCK_NAME,
    Header,
    has_segment_after,
    is_alive,
    list_journals,
    list_segments,
    name_segment,
    open_segment,
    pack_header,
    parse_header,
    read_journal,
)
from storage.journal.writer import JournalWriter

HEADER = Header(UUID(int=7), 1023, 61, 3, 1_700_000_000_000)


def create(root: Path, now_ms: int = 1_000) -> JournalWriter:
    """A journal of node 5, worker 2."""
    return JournalWriter.create(root, node_id=5, worker_id=2, now_ms=now_ms, max_segment_bytes=1_000)


def test_a_header_comes_back_as_it_was() -> None:
    """All fields survive, the largest node and worker too."""
    assert parse_header(pack_header(HEADER)) == HEADER


def test_a_header_with_any_bit_flipped_or_cut_is_refused() -> None:
    """No damaged header passes for a good one."""
    data = pack_header(HEADER)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert parse_header(bytes(flipped)) is None
    assert not any(parse_header(data[:cut]) for cut in range(len(data)))


def test_journals_are_listed_by_age_without_the_unborn(tmp_path: Path) -> None:
    """J4: temp directories, strangers and files are not journals."""
    younger, older = create(tmp_path, 2_000), create(tmp_path, 1_000)
    (tmp_path / f".new-{uuid4().hex}").mkdir()
    (tmp_path / "lost+found").mkdir()
    (tmp_path / uuid4().hex).write_text("a file")
    assert [tuple(found) for found in list_journals(tmp_path)] == [
        (older.journal_id, 5, 2, 1_000, older.directory, 0),
        (younger.journal_id, 5, 2, 2_000, younger.directory, 0),
    ]
    older.close()
    younger.close()


def test_a_root_that_is_not_there_holds_no_journals(tmp_path: Path) -> None:
    """The first start finds nothing instead of failing."""
    assert list_journals(tmp_path / "absent") == []


def test_a_journal_is_known_by_any_copy_of_its_header(tmp_path: Path) -> None:
    """Node and worker are read from the lock file, else from a segment, and are -1 when neither verifies."""
    writer = create(tmp_path)
    writer.close()
    (writer.directory / LOCK_NAME).write_bytes(b"garbage")
    assert read_journal(writer.directory).node_id == 5
    name_segment(writer.directory, 1).write_bytes(b"garbage")
    assert read_journal(writer.directory).node_id == -1


def test_a_copy_of_the_header_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    """The disk fails there: the next copy is taken, and the journal keeps no other from being found."""
    writer, other = create(tmp_path, 1_000), create(tmp_path, 2_000)
    writer.close()
    (writer.directory / LOCK_NAME).unlink()
    (writer.directory / LOCK_NAME).mkdir()
    assert [found.node_id for found in list_journals(tmp_path)] == [5, 5]
    segment = name_segment(writer.directory, 1)
    segment.unlink()
    segment.mkdir()
    assert [found.journal_id for found in list_journals(tmp_path)] == [writer.journal_id, other.journal_id]
    other.close()


def test_a_journal_is_alive_as_long_as_its_writer(tmp_path: Path) -> None:
    """J5: alive while the lock is held, ended once it is free or the directory is gone."""
    writer = create(tmp_path)
    assert is_alive(writer.directory)
    writer.close()
    assert not is_alive(writer.directory)
    assert not is_alive(tmp_path / uuid4().hex)


@pytest.mark.reliability(number=8)
def test_a_second_holder_is_refused(tmp_path: Path) -> None:
    """J5: the lock of a living journal cannot be taken."""
    writer = create(tmp_path)
    disk = Filesystem()
    with (writer.directory / LOCK_NAME).open("rb") as lock, pytest.raises(JournalLocked):
        disk.lock(lock.fileno())
    writer.close()
    with (writer.directory / LOCK_NAME).open("rb") as lock:
        disk.lock(lock.fileno())


def test_segments_are_found_drained_or_not(tmp_path: Path) -> None:
    """Both names of a segment are listed, in order, and opened; names that are none are passed over."""
    for name in ("00000010.log", "00000002.done", "00000001.done", ".next-00000011", LOCK_NAME, "1.log"):
        (tmp_path / name).write_text(name)
    assert [(segment.number, segment.is_done) for segment in list_segments(tmp_path)] == [
        (1, True),
        (2, True),
        (10, False),
    ]
    assert open_segment(tmp_path, 3) is None
    assert [has_segment_after(tmp_path, number) for number in (1, 2, 9, 10)] == [True, True, True, False]


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """Journals hold addresses of people: nobody else may read them."""
    writer = create(tmp_path / "journal")
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
    assert writer.directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in writer.directory.iterdir()} == {0o600}
    writer.close()
