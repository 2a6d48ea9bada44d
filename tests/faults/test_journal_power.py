"""Power cuts with the drain ahead of the disk: J8, J9 of storage/journal/segments.py."""

import random
from pathlib import Path

import pytest

from storage.journal.reader import JournalReader
from storage.journal.retention import mark_drained
from storage.journal.segments import Position
from storage.journal.writer import JournalWriter
from tests.journal_disk import FaultyDisk


def create(root: Path, disk: FaultyDisk) -> JournalWriter:
    """A journal with small segments on the faulty disk."""
    return JournalWriter.create(root, node_id=1, worker_id=1, now_ms=1, max_segment_bytes=500, filesystem=disk)


def read_from(directory: Path, start: Position) -> tuple[list[bytes], Position, bool]:
    """All payloads from `start` on, the position to commit, and whether the journal is finished."""
    reader = JournalReader(directory, start)
    batch = reader.read(100_000, 1 << 30)
    reader.close()
    return [record.payload for record in batch.records], batch.end, batch.finished


@pytest.mark.parametrize("marks", [True, False])
def test_a_drain_ahead_of_the_disk_comes_to_the_journals_end(tmp_path: Path, marks: bool) -> None:
    """Committed, then lost to the power cut: no wait, no record twice, and the journal counts as finished."""
    disk = FaultyDisk()
    writer = create(tmp_path, disk)
    synced = [b"synced %d" % number + bytes(90) for number in range(8)]
    for payload in synced:
        writer.write([payload])
    writer.sync()
    unsynced = [b"unsynced %d" % number + bytes(90) for number in range(8)]
    for payload in unsynced:
        writer.write([payload])
    payloads, committed, _ = read_from(writer.directory, Position(1, 0))
    assert payloads == synced + unsynced
    if marks:
        mark_drained(writer.directory, committed.segment - 1, now_s=1)
    disk.cut_power(lambda low, _high: low)
    assert read_from(writer.directory, committed) == ([], committed, True)
    if not marks:
        assert read_from(writer.directory, Position(1, 0))[0] == synced


@pytest.mark.reliability(number=3)
def test_what_was_synced_survives_every_power_cut(tmp_path: Path) -> None:
    """J8: two hundred cuts with random survivors, torn and zeroed tails: every synced record is there, in order."""
    chance = random.Random(11)
    for round_number in range(200):
        disk = FaultyDisk()
        writer = create(tmp_path, disk)
        written = []
        synced = 0
        for number in range(chance.randint(1, 40)):
            written.append(b"%d/%d " % (round_number, number) + bytes(chance.randint(0, 120)))
            assert writer.write(written[-1:]) == 1
            if chance.random() < 0.2:
                writer.sync()
                synced = len(written)
        disk.cut_power(chance.randint)
        payloads, _, finished = read_from(writer.directory, Position(1, 0))
        assert finished
        assert payloads[:synced] == written[:synced]
        rest = iter(written[synced:])
        assert all(payload in rest for payload in payloads[synced:])
