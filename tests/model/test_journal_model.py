"""The journal against a model that fits in a few lists: whatever happens, in whatever order (J4 to J11).

Each journal's model is what `write` said it took, in order, and how much of it a sync covered. The machine drains as the
real drain does: it reads from the committed position and may crash before it commits.
"""

import errno
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from storage.errors import JournalBroken
from storage.journal.capacity import undrained_bytes
from storage.journal.reader import JournalReader
from storage.journal.retention import delete_expired, mark_drained
from storage.journal.segments import Position, is_alive, list_journals, list_segments
from storage.journal.writer import JournalWriter
from tests.journal_disk import Choose, FaultyDisk

START = Position(1, 0)
MAX_SEGMENT_BYTES = 300
ERRORS = st.sampled_from([0, errno.ENOSPC, errno.EDQUOT, errno.EIO])
SETTINGS = settings(
    max_examples=400, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


@dataclass
class Expected:
    """One journal as it must be."""

    directory: Path
    written: list[bytes] = field(default_factory=list)
    synced: int = 0
    """So many of `written` survive a power cut."""
    drained: list[bytes] = field(default_factory=list)
    committed: Position = START
    fragments: int = 0
    """Bits of frames that a failed ftruncate left: damage that is no loss."""
    damaged: int = 0
    had_power_cut: bool = False
    finished: bool = False

    def check(self) -> None:
        """What was drained so far can be explained by what was written."""
        if not self.had_power_cut:
            assert self.drained == self.written[: len(self.drained)]
            assert self.damaged <= self.fragments
        else:
            rest = iter(self.written)
            assert all(payload in rest for payload in self.drained), "order or uniqueness lost"

    def check_finished(self) -> None:
        """Once drained to the end nothing is missing that was promised."""
        if not self.had_power_cut:
            assert self.drained == self.written
        assert set(self.written[: self.synced]) <= set(self.drained)


class JournalMachine(RuleBasedStateMachine):
    """One disk, a writer at a time, one drain."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="journal-model-"))
        self.root = self.home / "journal"
        self.disk = FaultyDisk()
        self.journals: list[Expected] = []
        self.now_s = 1_000_000
        self.count = 0

    @initialize()
    def start(self) -> None:
        """A worker starts: always a new journal."""
        self.writer = JournalWriter.create(
            self.root,
            node_id=1,
            worker_id=1,
            now_ms=self.now_s * 1_000,
            max_segment_bytes=MAX_SEGMENT_BYTES,
            filesystem=self.disk,
        )
        self.journals.append(Expected(self.writer.directory))

    def restart(self) -> None:
        """A dead worker's successor, on a disk that works again."""
        self.disk.failing.clear()
        self.disk.short_writes.clear()
        self.start()

    @rule(sizes=st.lists(st.integers(0, 120), min_size=1, max_size=6))
    def append(self, sizes: list[int]) -> None:
        """A batch of unique records; the count that `write` returns is what counts."""
        payloads = [b"%d:" % (self.count + index) + bytes(size) for index, size in enumerate(sizes)]
        self.count += len(payloads)
        failed_truncates = self.disk.calls["truncate"] if "truncate" in self.disk.failing else None
        taken = self.writer.write(payloads)
        self.journals[-1].written += payloads[:taken]
        if failed_truncates is not None:
            self.journals[-1].fragments += self.disk.calls["truncate"] - failed_truncates

    @rule(allowed_bytes=st.integers(0, 400), code=ERRORS)
    def plan_short_write(self, allowed_bytes: int, code: int) -> None:
        """One of the next writes is cut."""
        self.disk.short_writes.append((allowed_bytes, code))

    @rule(failing=st.sets(st.sampled_from(["truncate", "create_file", "rename"])))
    def break_or_mend(self, failing: set[str]) -> None:
        """From now on exactly these calls fail."""
        self.disk.failing = failing

    @rule()
    def sync(self) -> None:
        """A group commit."""
        self.writer.sync()
        self.journals[-1].synced = len(self.journals[-1].written)
        assert self.writer.synced_bytes == self.writer.appended_bytes

    @rule(call=st.sampled_from(["sync_data", "sync_directory"]))
    def fail_sync(self, call: str) -> None:
        """A failed fsync is the end of the writer; without anything to sync there is none to fail."""
        self.disk.failing = {call}
        try:
            self.sync()
        except JournalBroken:
            self.disk.kill_process()
            self.restart()
        self.disk.failing = set()

    @rule()
    def stop(self) -> None:
        """An orderly end."""
        self.writer.close()
        self.journals[-1].synced = len(self.journals[-1].written)
        self.restart()

    @rule()
    def kill(self) -> None:
        """kill -9: everything written stays."""
        self.disk.kill_process()
        self.restart()

    @rule(data=st.data())
    def cut_power(self, data: st.DataObject) -> None:
        """What no sync covered may go, in any part; the drain may have committed it already."""
        self.lose_power(lambda low, high: data.draw(st.integers(low, high)))

    def lose_power(self, choose: Choose) -> None:
        """The cut itself, and a fresh start after it."""
        self.disk.cut_power(choose)
        for expected in self.journals:
            expected.had_power_cut = True
        self.restart()

    @rule(index=st.integers(0, 30), max_records=st.integers(1, 20), commits=st.booleans())
    def drain(self, index: int, max_records: int, commits: bool) -> None:
        """One transaction of a drain that starts from the committed position; it may be rolled back."""
        expected = self.journals[index % len(self.journals)]
        reader = JournalReader(expected.directory, expected.committed)
        batch = reader.read(max_records, 1 << 20)
        reader.close()
        assert not (batch.finished and is_alive(expected.directory))
        if commits:
            expected.drained += [record.payload for record in batch.records]
            expected.damaged += len(batch.damaged)
            expected.committed = batch.end
            expected.finished = batch.finished
            expected.check()
        if batch.finished and commits:
            expected.check_finished()

    @rule(index=st.integers(0, 30))
    def mark(self, index: int) -> None:
        """Mark what the committed position has left behind."""
        expected = self.journals[index % len(self.journals)]
        behind = expected.committed.segment - (0 if expected.finished else 1)
        mark_drained(expected.directory, behind, now_s=self.now_s)

    @precondition(lambda self: self.journals)
    @rule(keep_s=st.integers(0, 3), max_total_bytes=st.sampled_from([0, 1_000, 1 << 40]))
    def delete(self, keep_s: int, max_total_bytes: int) -> None:
        """Time passes and what is drained is deleted: never a `.log`."""
        self.now_s += 1
        before = undrained_bytes(self.root)
        journals = list_journals(self.root)
        finished = {journal.journal_id for journal in journals if self.is_finished(journal.path)}
        stored_before = {journal.journal_id: self.committed_segment(journal.path) for journal in journals}
        delete_expired(self.root, self.now_s, keep_s, max_total_bytes, finished, stored_before)
        assert undrained_bytes(self.root) == before

    def is_finished(self, directory: Path) -> bool:
        """Whether the model's drain is through with the journal."""
        return any(expected.finished for expected in self.journals if expected.directory == directory)

    def committed_segment(self, directory: Path) -> float:
        """Before which segment the journal is drained; of a finished one all is."""
        [expected] = [expected for expected in self.journals if expected.directory == directory]
        return math.inf if expected.finished else expected.committed.segment

    @invariant()
    def count_step(self) -> None:
        """Steps over all examples; and segments from the committed one on are still there."""
        JournalMachine.steps += 1
        for expected in self.journals:
            if not expected.had_power_cut and not expected.finished:
                numbers = [segment.number for segment in list_segments(expected.directory)]
                assert expected.committed.segment in numbers

    def teardown(self) -> None:
        """Whatever happened, in the end every journal is drained to its end."""
        self.disk.kill_process()
        for index, expected in enumerate(self.journals):
            while not expected.finished:
                self.drain(index, 20, commits=True)
        shutil.rmtree(self.home)


@pytest.mark.timeout(900)
@pytest.mark.reliability(number=10)
def test_the_journal_behaves_like_its_model() -> None:
    """At least 10,000 steps of append, rotate, crash, power cut, drain, mark and delete."""
    JournalMachine.steps = 0
    run_state_machine_as_test(JournalMachine, settings=SETTINGS)
    assert JournalMachine.steps >= 10_000


def replay(*steps: Callable[[JournalMachine], None]) -> None:
    """One fixed walk through the machine, with its checks after every step and at its end."""
    machine = JournalMachine()
    machine.start()
    for step in steps:
        step(machine)
        machine.count_step()
    machine.teardown()


def keep_nothing(low: int, _high: int) -> int:
    """Of a power cut's choices the worst."""
    return low


def test_a_spoilt_segment_without_a_successor_ends_its_journal() -> None:
    """A fragment stays, no next segment can be made, the process dies: what counted is drained, the rest is torn."""
    replay(
        lambda machine: machine.append([50]),
        lambda machine: machine.break_or_mend({"truncate", "create_file"}),
        lambda machine: machine.plan_short_write(100, errno.EIO),
        lambda machine: machine.append([50, 50]),
        lambda machine: machine.append([50]),
        lambda machine: machine.drain(0, 20, commits=True),
        lambda machine: machine.kill(),
        lambda machine: machine.drain(0, 20, commits=True),
        lambda machine: machine.mark(0),
        lambda machine: machine.delete(0, 0),
    )


def test_a_committed_segment_whose_name_is_lost_is_not_waited_for() -> None:
    """The drain is in segment 2 when a power cut takes the segment's very name."""
    replay(
        lambda machine: machine.append([100, 100, 100]),
        lambda machine: machine.sync(),
        lambda machine: machine.append([100]),
        lambda machine: machine.drain(0, 20, commits=True),
        lambda machine: machine.mark(0),
        lambda machine: machine.lose_power(keep_nothing),
        lambda machine: machine.drain(0, 20, commits=True),
        lambda machine: machine.mark(0),
        lambda machine: machine.delete(0, 0),
    )


def test_a_rolled_back_drain_across_a_power_cut_gets_what_is_left() -> None:
    """Read, not committed, lost: what was synced comes again and nothing twice."""
    replay(
        lambda machine: machine.append([10, 20, 30]),
        lambda machine: machine.sync(),
        lambda machine: machine.append([40, 50]),
        lambda machine: machine.drain(0, 20, commits=False),
        lambda machine: machine.lose_power(keep_nothing),
        lambda machine: machine.drain(0, 2, commits=True),
        lambda machine: machine.drain(0, 20, commits=True),
    )
