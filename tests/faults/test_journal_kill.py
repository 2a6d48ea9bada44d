"""A real writer process, killed, under a reader that follows it: J5, J7, J9, J10 of storage/journal/segments.py."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.journal.reader import JournalReader
from storage.journal.segments import list_journals

WRITER = """
import sys, threading
from pathlib import Path
from storage.journal.writer import JournalWriter

writer = JournalWriter.create(Path(sys.argv[1]), node_id=1, worker_id=1, now_ms=1, max_segment_bytes=40_000)

def sync_for_ever():
    while True:
        writer.sync()

threading.Thread(target=sync_for_ever, daemon=True).start()
number = 0
while True:
    batch = [b"%d " % (number + index) + b"x" * (number % 300) for index in range(number % 20 + 1)]
    assert writer.write(batch) == len(batch)
    number += len(batch)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("kill_after", [1, 2_000, 30_000])
@pytest.mark.reliability(number=1)
def test_a_follower_gets_every_answered_record_of_a_killed_writer(tmp_path: Path, kill_after: int) -> None:
    """Across rotations and after kill -9: an unbroken sequence, through the last count the writer gave out."""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        answered = int(process.stdout.readline())
        reader = JournalReader(list_journals(tmp_path)[0].path)
        expected = 0
        is_killed = False
        deadline_s = time.monotonic() + 30
        while not reader.is_finished():
            assert time.monotonic() < deadline_s
            batch = reader.read(500, 1 << 20)
            assert not batch.damaged
            for record in batch.records:
                assert int(record.payload.split(b" ", 1)[0]) == expected
                expected += 1
            answered = read_count(process.stdout.read1(1 << 16), answered) if not is_killed else answered  # type: ignore[attr-defined]
            if expected >= kill_after and not is_killed:
                process.kill()
                answered = read_count(process.stdout.read(), answered)
                is_killed = True
        reader.close()
    assert expected >= answered
    assert answered >= kill_after


def read_count(output: bytes, known: int) -> int:
    """The last count that was printed whole."""
    lines = output.split(b"\n")[:-1]
    return max([known, *(int(line) for line in lines[-1:])])
