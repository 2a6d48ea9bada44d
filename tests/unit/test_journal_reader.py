"""The reader: J1, J3, J9, J10 of storage/journal, on real files that tests cut, flip and remove."""

import os
import shutil
from pathlib import Path

import pytest

from storage.journal.reader import MAX_RAW_BYTES, Batch, Damaged, JournalReader
from storage.journal.segments import HEADER_BYTES, Position, name_segment
from storage.journal.writer import JournalWriter

START = Position(1, 0)
PAYLOADS = [b"first record", b"the one in the middle", b"third", b"last"]


def create(root: Path, max_segment_bytes: int = 1 << 30) -> JournalWriter:
    """A living journal."""
    return JournalWriter.create(root, node_id=1, worker_id=1, now_ms=1_000, max_segment_bytes=max_segment_bytes)


def write_segments(root: Path, *segments: list[bytes], alive: bool = False) -> JournalWriter:
    """A journal with these payloads, one list a segment; ended unless `alive`."""
    writer = create(root, max_segment_bytes=1)
    for payloads in segments:
        writer.write(payloads)
    # The first write rotates too, since a header alone is more than one byte: segment 1 holds nothing.
    if not alive:
        writer.close()
    return writer


def read(directory: Path, start: Position = START) -> Batch:
    """All that can be had in one read."""
    reader = JournalReader(directory, start)
    batch = reader.read(100_000, 1 << 30)
    reader.close()
    return batch


def get_payloads(batch: Batch) -> list[bytes]:
    """The payloads of a batch."""
    return [record.payload for record in batch.records]


def flip(path: Path, bit: int) -> None:
    """Flip one bit of the file."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def test_records_come_in_order_with_a_position_to_commit(tmp_path: Path) -> None:
    """Reading on from any batch's end gives each record once."""
    writer = write_segments(tmp_path, PAYLOADS, [b"next segment"], alive=True)
    position, payloads = Position(1, 0), []
    for _ in range(10):
        reader = JournalReader(writer.directory, position)
        batch = reader.read(2, 1 << 20)
        reader.close()
        assert len(batch.records) <= 2
        assert not batch.finished
        position = batch.end
        payloads += get_payloads(batch)
    assert payloads == [*PAYLOADS, b"next segment"]
    assert position == writer.appended
    writer.close()
    assert read(writer.directory, position).finished


def test_a_batch_is_bounded_in_bytes(tmp_path: Path) -> None:
    """A read stops soon after the bytes asked for, and the next one goes on from there."""
    writer = create(tmp_path)
    writer.write([b"%04d" % number + bytes(9_000) for number in range(400)])
    reader = JournalReader(writer.directory)
    sizes, numbers = [], []
    while (batch := reader.read(10_000, 600_000)).records:
        sizes.append(batch.size_bytes)
        numbers += [int(record.payload[:4]) for record in batch.records]
    assert numbers == list(range(400))
    assert max(sizes) < 600_000 + (1 << 20)
    reader.close()
    writer.close()


def test_a_seek_reads_a_batch_again(tmp_path: Path) -> None:
    """What was not committed comes once more."""
    writer = write_segments(tmp_path, PAYLOADS, PAYLOADS)
    reader = JournalReader(writer.directory)
    first = reader.read(3, 1 << 20)
    reader.read(100, 1 << 20)
    assert reader.is_finished()
    reader.seek(first.end)
    assert not reader.is_finished()
    assert get_payloads(reader.read(100, 1 << 20)) == (PAYLOADS * 2)[3:]
    reader.close()


@pytest.mark.reliability(number=4)
def test_the_last_record_cut_at_every_byte_is_a_torn_tail(tmp_path: Path) -> None:
    """J9: the journal ends before it; all earlier records come, and nothing is called damage."""
    writer = write_segments(tmp_path, PAYLOADS)
    path = name_segment(writer.directory, 2)
    last = read(writer.directory).records[-1]
    for cut in reversed(range(last.byte_offset, last.end_offset)):
        os.truncate(path, cut)
        batch = read(writer.directory)
        assert get_payloads(batch) == PAYLOADS[:-1]
        assert (batch.damaged, batch.finished, batch.torn_bytes) == ([], True, cut - last.byte_offset)
        assert batch.end == (2, last.byte_offset)
        assert read(writer.directory, batch.end).finished


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.reliability(number=5)
def test_every_bit_of_a_middle_record_flipped_is_one_damaged_region(tmp_path: Path, alive: bool) -> None:
    """J3: length, CRC, version or payload, under a living writer or an ended one: exactly that record is reported."""
    writer = write_segments(tmp_path, PAYLOADS, alive=alive)
    path = name_segment(writer.directory, 2)
    middle = read(writer.directory).records[1]
    for bit in range(middle.byte_offset * 8, middle.end_offset * 8):
        flip(path, bit)
        batch = read(writer.directory)
        assert get_payloads(batch) == [PAYLOADS[0], *PAYLOADS[2:]]
        raw = path.read_bytes()[middle.byte_offset : middle.end_offset]
        assert batch.damaged == [Damaged(2, middle.byte_offset, middle.end_offset, raw, "no valid frame")]
        assert batch.finished is not alive
        flip(path, bit)
    assert get_payloads(read(writer.directory)) == PAYLOADS
    writer.close()


def test_every_bit_of_a_segment_header_flipped_keeps_its_records(tmp_path: Path) -> None:
    """J3: the header is one damaged region; the journal's id is known from the directory's name."""
    writer = write_segments(tmp_path, PAYLOADS)
    for bit in range(HEADER_BYTES * 8):
        flip(name_segment(writer.directory, 2), bit)
        batch = read(writer.directory)
        assert get_payloads(batch) == PAYLOADS
        assert [(found.segment, found.byte_offset, found.end_offset) for found in batch.damaged] == [
            (2, 0, HEADER_BYTES)
        ]
        flip(name_segment(writer.directory, 2), bit)


def test_damage_over_several_records_is_one_region(tmp_path: Path) -> None:
    """Records that lie side by side are lost together and reported once."""
    writer = write_segments(tmp_path, PAYLOADS)
    records = read(writer.directory).records
    with name_segment(writer.directory, 2).open("r+b") as file:
        file.seek(records[1].byte_offset)
        file.write(bytes(records[2].end_offset - records[1].byte_offset))
    batch = read(writer.directory)
    assert get_payloads(batch) == [PAYLOADS[0], PAYLOADS[3]]
    assert [(found.byte_offset, found.end_offset) for found in batch.damaged] == [
        (records[1].byte_offset, records[2].end_offset)
    ]


def test_a_large_damaged_region_is_crossed_and_its_bytes_are_bounded(tmp_path: Path) -> None:
    """Megabytes of zeros do not hide what follows them, nor end up whole in one row."""
    writer = create(tmp_path)
    writer.write([b"before"])
    writer.write([bytes(200_000)] * 10)
    writer.write([b"after"])
    writer.close()
    records = read(writer.directory).records
    with name_segment(writer.directory, 1).open("r+b") as file:
        file.seek(records[1].byte_offset)
        file.write(bytes(records[-1].byte_offset - records[1].byte_offset))
    batch = read(writer.directory)
    assert get_payloads(batch) == [b"before", b"after"]
    assert len(batch.damaged[0].raw) == MAX_RAW_BYTES
    assert batch.damaged[0].end_offset == records[-1].byte_offset
    assert "2000090 bytes, the first 1048576 kept" in batch.damaged[0].error


@pytest.mark.parametrize("lost", [[200_000, 200_000, 100_000], [200_000, 200_000, 200_000], [262_000, 262_000]])
def test_a_frame_across_the_windows_of_a_search_is_found(tmp_path: Path, lost: list[int]) -> None:
    """J3: a long frame that starts shortly before or behind a search window's end is kept."""
    writer = create(tmp_path)
    writer.write([bytes(size) for size in lost])
    end = writer.appended.byte_offset
    writer.write([b"y" * 200_000, b"after"])
    writer.close()
    with name_segment(writer.directory, 1).open("r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(bytes(end - HEADER_BYTES))
    batch = read(writer.directory)
    assert get_payloads(batch) == [b"y" * 200_000, b"after"]
    assert [(found.byte_offset, found.end_offset) for found in batch.damaged] == [(HEADER_BYTES, end)]


def test_a_fragment_in_a_living_journal_is_waited_for(tmp_path: Path) -> None:
    """J9: half a frame is no error while the writer lives; the record comes once the rest is there."""
    writer = write_segments(tmp_path, PAYLOADS, alive=True)
    path = name_segment(writer.directory, 2)
    whole = path.read_bytes()
    last = read(writer.directory).records[-1]
    reader = JournalReader(writer.directory)
    os.truncate(path, last.byte_offset + 5)
    batch = reader.read(100, 1 << 20)
    assert (get_payloads(batch), batch.damaged, batch.finished) == (PAYLOADS[:-1], [], False)
    empty = reader.read(100, 1 << 20)
    assert (empty.records, empty.damaged, empty.finished, empty.end) == ([], [], False, batch.end)
    path.write_bytes(whole)
    assert get_payloads(reader.read(100, 1 << 20)) == PAYLOADS[-1:]
    reader.close()
    writer.close()


def test_a_fragment_replaced_between_two_reads_is_no_damage(tmp_path: Path) -> None:
    """J7: a reader that saw a fragment, later cut off and written over, gets what was written in the end."""
    writer = write_segments(tmp_path, PAYLOADS, alive=True)
    path = name_segment(writer.directory, 2)
    whole = path.read_bytes()
    records = read(writer.directory).records
    path.write_bytes(whole[: records[1].byte_offset] + b"\x99" * 12)
    reader = JournalReader(writer.directory)
    assert get_payloads(reader.read(100, 1 << 20)) == PAYLOADS[:1]
    path.write_bytes(whole)
    batch = reader.read(100, 1 << 20)
    assert (get_payloads(batch), batch.damaged) == (PAYLOADS[1:], [])
    reader.close()
    writer.close()


def test_a_bad_tail_of_a_segment_with_a_successor_is_damage(tmp_path: Path) -> None:
    """J9: what stands between the last frame and the next segment may have been a record: it is reported."""
    writer = write_segments(tmp_path, PAYLOADS, [b"next"])
    last = read(writer.directory).records[3]
    os.truncate(name_segment(writer.directory, 2), last.end_offset - 1)
    batch = read(writer.directory)
    assert get_payloads(batch) == [*PAYLOADS[:-1], b"next"]
    assert [(found.segment, found.byte_offset, found.end_offset) for found in batch.damaged] == [
        (2, last.byte_offset, last.end_offset - 1)
    ]


@pytest.mark.parametrize("alive", [True, False])
def test_a_missing_middle_segment_is_reported_and_passed(tmp_path: Path, alive: bool) -> None:
    """A hole in the sequence is damage, not an endless wait."""
    writer = write_segments(tmp_path, [b"two"], [b"three"], [b"four"], [b"five"], alive=alive)
    name_segment(writer.directory, 3).unlink()
    name_segment(writer.directory, 4).unlink()
    batch = read(writer.directory)
    assert get_payloads(batch) == [b"two", b"five"]
    error = "the segment's file is missing"
    assert batch.damaged == [Damaged(3, 0, 0, b"", error), Damaged(4, 0, 0, b"", error)]
    writer.close()


def test_an_empty_middle_segment_is_reported(tmp_path: Path) -> None:
    """A power cut may leave a name without bytes: that is said, since records may have been in it."""
    writer = write_segments(tmp_path, [b"two"], [b"three"])
    os.truncate(name_segment(writer.directory, 2), 0)
    batch = read(writer.directory)
    assert get_payloads(batch) == [b"three"]
    assert [(found.segment, found.error) for found in batch.damaged] == [(2, "the segment's file is empty")]


def test_a_position_beyond_the_end_is_the_segments_end(tmp_path: Path) -> None:
    """A power cut dropped bytes that the drain had committed: reading goes on behind them."""
    writer = write_segments(tmp_path, PAYLOADS, [b"next"])
    batch = read(writer.directory, Position(2, 1_000_000))
    assert (get_payloads(batch), batch.damaged, batch.finished) == ([b"next"], [], True)
    batch = read(writer.directory, Position(3, 1_000_000))
    assert (batch.records, batch.damaged, batch.finished) == ([], [], True)
    assert batch.end == (3, 1_000_000)
    batch = read(writer.directory, Position(9, 50))
    assert (batch.records, batch.damaged, batch.finished) == ([], [], True)


def test_a_segment_renamed_under_the_reader_is_still_read(tmp_path: Path) -> None:
    """Drained segments are read under their new name: replay after a database restore."""
    writer = write_segments(tmp_path, PAYLOADS, [b"next"])
    reader = JournalReader(writer.directory)
    assert get_payloads(reader.read(1, 1 << 20)) == PAYLOADS[:1]
    for number in (1, 2, 3):
        name_segment(writer.directory, number).rename(name_segment(writer.directory, number, is_done=True))
    assert get_payloads(reader.read(100, 1 << 20)) == [*PAYLOADS[1:], b"next"]
    reader.close()
    assert get_payloads(read(writer.directory)) == [*PAYLOADS, b"next"]


def test_a_journal_is_finished_only_without_a_writer(tmp_path: Path) -> None:
    """J10: a living journal read to its end is not finished; an ended one is, also when its directory is gone."""
    writer = write_segments(tmp_path, PAYLOADS, alive=True)
    reader = JournalReader(writer.directory)
    assert not reader.read(100, 1 << 20).finished
    assert not reader.is_finished()
    writer.write([b"late"])
    writer.close()
    assert get_payloads(reader.read(1, 1 << 20)) == [b"late"]
    assert not reader.is_finished()
    assert reader.read(100, 1 << 20).finished
    assert reader.is_finished()
    reader.close()
    shutil.rmtree(writer.directory)
    assert read(writer.directory).finished


def test_reading_to_the_end_and_past_rotations_keeps_one_descriptor(tmp_path: Path) -> None:
    """Hundreds of segments and polls do not pile up open files."""
    before = len(os.listdir("/proc/self/fd"))
    writer = write_segments(tmp_path, *([b"%d" % number] for number in range(200)))
    reader = JournalReader(writer.directory)
    assert len(reader.read(1_000, 1 << 20).records) == 200
    for _ in range(100):
        reader.read(1_000, 1 << 20)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    reader.close()
