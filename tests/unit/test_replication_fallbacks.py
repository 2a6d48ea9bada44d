"""`replicated` without the stream: when answers leave after their fsync instead, and when that ends (R2, R3)."""

import asyncio
import time
from pathlib import Path

import pytest

import storage.journal.replicas
from edge.counters import Counters, cell, new_block
from edge.replication import STREAM_AWAY, ReplicationCounts
from storage.journal.commit import DISK
from storage.journal.replicas import LATE, PATIENCE_S, UNLINKED
from storage.journal.segments import Position
from tests.replicating import Replicating
from tests.unit.test_group_commit import LIMIT_S, SlowDisk, until

pytestmark = pytest.mark.both_loops

SHORT_S = 0.2


@pytest.fixture(autouse=True)
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No acknowledgement counts as late because the machine is busy."""
    monkeypatch.setattr(storage.journal.replicas, "PATIENCE_S", LIMIT_S)


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An acknowledgement counts as late after a fifth of a second: the same rules in less time."""
    monkeypatch.setattr(storage.journal.replicas, "PATIENCE_S", SHORT_S)


class Clock:
    """Stands still but for what a test lets pass."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        """As the module `time` says it."""
        return self.now_s


@pytest.fixture
def clock(short_patience: None, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What acknowledgements are measured by."""
    clock = Clock()
    monkeypatch.setattr(storage.journal.replicas, "time", clock)
    return clock


async def test_without_a_shipper_answers_leave_after_the_fsync(tmp_path: Path) -> None:
    """R2: at once with it, and never before; so is everything that comes."""
    disk = SlowDisk()
    async with Replicating(tmp_path, disk) as journal:
        journal.follow()
        disk.is_slow = True
        await journal.write(b"first")
        await until(lambda: disk.waiting == 1)
        assert not journal.told
        await journal.write(b"during the fsync")
        disk.allow(1)
        await until(lambda: journal.told == [b"first"])
        await until(lambda: disk.waiting == 2)
        assert journal.told == [b"first"]
        disk.allow()
        await until(lambda: len(journal.told) == 2)
        assert journal.watch.reasons == [UNLINKED] * 2


async def test_when_the_stream_goes_away_those_that_wait_fall_back_at_once(tmp_path: Path) -> None:
    """`down`: what is on the disk is answered then, the rest with its fsync; after `up` answers wait again."""
    disk = SlowDisk()
    async with Replicating(tmp_path, disk) as journal:
        links = await journal.linked()
        journal.append(b"synced")
        await until(lambda: journal.syncs_us)
        disk.is_slow = True
        await journal.write(b"not synced")
        links.set_stream_up(False)
        await until(lambda: journal.told == [b"synced"])
        disk.allow()
        await until(lambda: journal.told == [b"synced", b"not synced"])
        assert journal.watch.reasons == [STREAM_AWAY] * 2
        links.acknowledged(journal.journal_id, journal.end)
        links.set_stream_up(True)
        await until(lambda: journal.watch.returns == 2)
        synced = len(journal.syncs_us)
        journal.append(b"waits again")
        await until(lambda: len(journal.syncs_us) > synced)
        assert len(journal.told) == 2
        links.acknowledged(journal.journal_id, journal.end)
        await until(lambda: len(journal.told) == 3)
        assert journal.watch.confirmations == 1


async def test_a_stream_that_says_nothing_costs_a_second_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands wait for a second, none again, and nothing of them is kept; those after them leave after their fsync."""
    monkeypatch.setattr(storage.journal.replicas, "PATIENCE_S", PATIENCE_S)
    async with Replicating(tmp_path) as journal:
        links = await journal.linked()
        began = time.monotonic()
        for number in range(3_000):
            journal.append(b"%d" % number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await until(lambda: journal.told)
        assert time.monotonic() - began >= PATIENCE_S
        monkeypatch.setattr(storage.journal.replicas, "PATIENCE_S", 2 * LIMIT_S)
        await until(lambda: len(journal.told) == 3_000)
        assert not journal.replicas.is_waiting
        journal.append(b"at once")
        await until(lambda: len(journal.told) == 3_001)
        assert journal.watch.reasons == [LATE] * 3_001
        links.acknowledged(journal.journal_id, journal.end)
        await until(lambda: journal.watch.returns == 2)
        synced = len(journal.syncs_us)
        journal.append(b"waits again")
        await until(lambda: len(journal.syncs_us) > synced)
        assert len(journal.told) == 3_001
        links.acknowledged(journal.journal_id, journal.end)
        await until(lambda: len(journal.told) == 3_002)
        assert journal.watch.confirmations == 1


async def test_a_stream_that_lags_behind_is_not_waited_for_until_it_is_prompt(tmp_path: Path, clock: Clock) -> None:
    """R3: acknowledgements of what was written long ago do not end the fallback while newer ones are still to come."""
    async with Replicating(tmp_path) as journal:
        journal.replicas.go_up()
        old = await journal.write(b"old")
        await until(lambda: journal.syncs_us)
        clock.now_s += 2 * SHORT_S
        await until(lambda: journal.told == [b"old"])
        ends = [await journal.write(b"%d" % number) for number in range(2)]
        await until(lambda: len(journal.told) == 3)
        clock.now_s += 2 * SHORT_S
        journal.replicas.reach(old)
        journal.replicas.reach(ends[0])
        assert journal.watch.returns == 1
        prompt = await journal.write(b"the next to be measured")
        await journal.write(b"one behind it")
        journal.replicas.reach(prompt)
        assert journal.watch.returns == 2
        journal.replicas.reach(journal.end)
        assert len(journal.told) == 5


async def test_what_is_on_the_disk_leaves_the_moment_that_the_stream_does(tmp_path: Path) -> None:
    """R2: nobody waits for the rest of the second."""
    async with Replicating(tmp_path) as journal:
        journal.replicas.go_up()
        await journal.write(b"synced")
        await until(lambda: journal.syncs_us)
        assert not journal.told
        journal.replicas.go_down(STREAM_AWAY)
        assert journal.told == [b"synced"]


async def test_a_late_stream_is_measured_again_and_again(tmp_path: Path, clock: Clock) -> None:
    """R3: a measurement that was lost, its acknowledgement never having come in time, is followed by another."""
    async with Replicating(tmp_path) as journal:
        journal.replicas.go_up()
        await journal.write(b"late")
        await until(lambda: journal.syncs_us)
        clock.now_s += 2 * SHORT_S
        await until(lambda: journal.told)
        await journal.write(b"measured in vain")
        clock.now_s += 2 * SHORT_S
        prompt = await journal.write(b"measured")
        await journal.write(b"one behind it")
        journal.replicas.reach(prompt)
        assert journal.watch.returns == 2
        journal.replicas.reach(journal.end)


async def test_a_late_stream_that_catches_up_is_waited_for_although_nothing_new_came(
    tmp_path: Path, clock: Clock
) -> None:
    """R3: however old the last event is, its acknowledgement is the stream's return."""
    async with Replicating(tmp_path) as journal:
        journal.replicas.go_up()
        end = await journal.write(b"alone")
        await until(lambda: journal.syncs_us)
        clock.now_s += 2 * SHORT_S
        await until(lambda: journal.told)
        clock.now_s += 2 * SHORT_S
        journal.replicas.reach(end)
        assert journal.watch.returns == 2


async def test_an_overdue_answer_still_waits_for_its_fsync(tmp_path: Path, clock: Clock) -> None:
    """Late stream and slow disk: neither vouches yet, so nobody is told; the first that does is enough."""
    disk = SlowDisk()
    async with Replicating(tmp_path, disk) as journal:
        journal.replicas.go_up()
        disk.is_slow = True
        first = await journal.write(b"first")
        await journal.write(b"second")
        clock.now_s += 2 * SHORT_S
        await until(lambda: journal.replicas._is_late)
        assert not journal.told
        journal.replicas.reach(first)
        assert journal.told == [b"first"]
        disk.allow()
        await until(lambda: len(journal.told) == 2)
        assert (journal.watch.confirmations, journal.watch.reasons) == (1, [LATE])


async def test_a_shipper_that_starts_anew_must_catch_up_before_it_is_waited_for(tmp_path: Path) -> None:
    """What was written while it was gone is acknowledged first; an earlier place than before confirms nothing."""
    async with Replicating(tmp_path) as journal:
        links = await journal.linked()
        before = await journal.write(b"before")
        links.acknowledged(journal.journal_id, before)
        await until(lambda: journal.told == [b"before"])
        await links.close()
        journal.append(b"while it was gone")
        await until(lambda: len(journal.told) == 2)
        assert journal.watch.reasons == [UNLINKED]
        again = await journal.shipper()
        again.acknowledged(journal.journal_id, Position(1, 0))
        await asyncio.wait_for(again.poked.wait(), 20)
        journal.append(b"not caught up")
        await until(lambda: len(journal.told) == 3)
        again.acknowledged(journal.journal_id, journal.end)
        await until(lambda: journal.watch.returns == 2)
        synced = len(journal.syncs_us)
        journal.append(b"waits again")
        await until(lambda: len(journal.syncs_us) > synced)
        assert len(journal.told) == 3
        again.acknowledged(journal.journal_id, journal.end)
        await until(lambda: len(journal.told) == 4)
        assert (journal.watch.confirmations, len(journal.watch.reasons)) == (2, 2)


@pytest.mark.usefixtures("short_patience")
async def test_closing_falls_back_when_no_acknowledgement_comes(tmp_path: Path) -> None:
    """Also what is not written yet when it begins."""
    async with Replicating(tmp_path) as journal:
        await journal.linked()
        await journal.write(b"written")
        journal.append(b"of this turn")
        journal.append(b"disk", DISK)
        await asyncio.wait_for(journal.close(), 20)
        assert sorted(journal.told) == [b"disk", b"of this turn", b"written"]
        assert journal.watch.reasons == [LATE] * 2


async def test_answers_are_counted_by_how_they_left() -> None:
    """Each answer once, with its duration if it was replicated."""
    counters = Counters.of_fd(new_block())
    counts = ReplicationCounts(counters)
    counts.confirmed(3, 700.0)
    counts.fell_back(2, LATE)
    assert counters.cells[cell("edge_replicated_answers_total")] == 3
    assert counters.cells[cell("edge_replication_fallbacks_total")] == 2
    first = cell("edge_replication_seconds")
    assert counters.cells[first + 3] == 3


async def test_a_fallback_is_told_when_it_begins_and_when_it_ends(capfd: pytest.CaptureFixture[str]) -> None:
    """One line each, whatever number of answers; a stream that comes and goes says so every ten seconds at the most."""
    now_s = [100.0]
    counts = ReplicationCounts(Counters.of_fd(new_block()), lambda: now_s[0])
    counts.came_back()
    for _ in range(3):
        counts.fell_back(5, LATE)
    counts.came_back()
    counts.fell_back(5, LATE)
    counts.came_back()
    now_s[0] += 10
    counts.fell_back(1, UNLINKED)
    counts.came_back()
    printed = "".join(capfd.readouterr())
    assert printed.count("replication_fell_back") == printed.count("replication_back") == 2
    assert printed.index(LATE) < printed.index("fallbacks=15") < printed.index(UNLINKED) < printed.index("fallbacks=1", -60)
