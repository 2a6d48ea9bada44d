"""`replicated`: which answers wait for the stream, and which acknowledgement each leaves with (R1, R4); all at random."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import edge.replication
import storage.journal.replicas
from edge.shipper.link import WorkerLinks
from storage.journal.commit import DISK, PROCESS, REPLICATED
from storage.journal.framing import HEAD_BYTES
from storage.journal.reader import JournalReader
from storage.journal.replicas import UNLINKED
from storage.journal.segments import Position
from tests.replicating import Replicating
from tests.unit.test_group_commit import LIMIT_S, RECORD, SlowDisk, until

pytestmark = pytest.mark.both_loops


@pytest.fixture(autouse=True)
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No acknowledgement counts as late because the machine is busy."""
    monkeypatch.setattr(storage.journal.replicas, "PATIENCE_S", LIMIT_S)


async def test_the_answer_leaves_with_the_acknowledgement_and_not_before(tmp_path: Path) -> None:
    """Written and on this disk is not enough; the shipper is told that somebody waits, and told only once it can read it."""
    async with Replicating(tmp_path) as journal:
        links = await journal.linked()
        journal.append(b"click", PROCESS)
        journal.append(b"conversion")
        await until(links.poked.is_set)
        assert JournalReader(journal.writer.directory).read(10, 1 << 20).records[-1].payload == b"conversion"
        await until(lambda: journal.syncs_us)
        assert journal.told == [b"click"]
        links.acknowledged(journal.journal_id, journal.end)
        await until(lambda: journal.told == [b"click", b"conversion"])
        assert (journal.watch.confirmations, journal.watch.reasons) == (1, [])
        assert 0 < journal.watch.durations_us[0] < 1e6


async def test_the_acknowledgement_need_not_wait_for_this_disk(tmp_path: Path) -> None:
    """An fsync that never ends holds no answer back that other machines vouch for."""
    disk = SlowDisk()
    async with Replicating(tmp_path, disk) as journal:
        links = await journal.linked()
        disk.is_slow = True
        links.acknowledged(journal.journal_id, await journal.write(RECORD))
        await until(lambda: journal.told == [RECORD])
        assert not journal.syncs_us
        disk.allow()


async def test_a_place_confirms_exactly_what_ends_before_it(tmp_path: Path) -> None:
    """R1: not one byte less is enough; a smaller place after a larger one takes nothing back and gives nothing."""
    async with Replicating(tmp_path) as journal:
        journal.replicas.go_up()
        ends = [await journal.write(b"%d" % number) for number in range(3)]
        segment, byte_offset = ends[1]
        journal.replicas.reach(Position(segment, byte_offset - 1))
        assert journal.told == [b"0"]
        journal.replicas.reach(ends[1])
        journal.replicas.reach(ends[0])
        assert journal.told == [b"0", b"1"]
        journal.replicas.reach(ends[2])
        assert journal.told == [b"0", b"1", b"2"]


async def test_a_place_in_the_next_segment_covers_all_of_the_one_before(tmp_path: Path) -> None:
    """A rotation between a write and its acknowledgement: the larger offset of the older segment counts as smaller."""
    async with Replicating(tmp_path, max_segment_bytes=200) as journal:
        journal.replicas.go_up()
        last = await journal.write(b"x" * 400)
        following = await journal.write(b"y")
        assert (last.segment, following.segment) == (1, 2)
        assert following.byte_offset < last.byte_offset
        journal.replicas.reach(Position(2, 0))
        assert journal.told == [b"x" * 400]
        journal.replicas.reach(following)
        assert len(journal.told) == 2


async def test_a_place_beyond_the_journal_vouches_for_nothing(tmp_path: Path) -> None:
    """R4: neither what waits nor what is written later is confirmed by it."""
    async with Replicating(tmp_path) as journal:
        journal.replicas.go_up()
        end = await journal.write(b"waits")
        for place in (Position(end.segment, end.byte_offset + 1), Position(end.segment + 1, 0), Position(10**9, 10**18)):
            with pytest.raises(ValueError, match="beyond the journal's end"):
                journal.replicas.reach(place)
        later = await journal.write(b"later")
        assert not journal.told
        journal.replicas.reach(later)
        assert journal.told == [b"waits", b"later"]


async def test_closing_waits_for_the_acknowledgement_that_is_on_its_way(tmp_path: Path) -> None:
    """It is confirmed as replicated, not as fallen back."""
    async with Replicating(tmp_path) as journal:
        links = await journal.linked()
        end = await journal.write(b"last")
        closing = asyncio.create_task(journal.close())
        await until(lambda: journal.syncs_us)
        assert not journal.told
        links.acknowledged(journal.journal_id, end)
        await asyncio.wait_for(closing, 20)
        assert (journal.told, journal.watch.confirmations, journal.watch.reasons) == ([b"last"], 1, [])


async def test_after_a_failed_fsync_no_acknowledgement_confirms_anything(tmp_path: Path) -> None:
    """C4 holds for replicated answers too; closing does not wait for them."""
    disk = SlowDisk()
    async with Replicating(tmp_path, disk) as journal:
        journal.replicas.go_up()
        disk.failing = {"sync_data"}
        await journal.write(b"conversion")
        await until(lambda: journal.broken)
        journal.replicas.reach(journal.end)
        journal.replicas.go_down(UNLINKED)
        await asyncio.wait_for(journal.close(), 20)
        assert not journal.told


async def test_the_fault_of_one_waiter_keeps_no_other_from_its_answer(tmp_path: Path) -> None:
    """It is reported, and that is all."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def fail(is_written: bool) -> None:
        raise ZeroDivisionError

    async with Replicating(tmp_path) as journal:
        journal.replicas.go_up()
        journal.commit.append(b"faulty", fail, is_droppable=False, durability=REPLICATED)
        journal.replicas.reach(await journal.write(b"its neighbour"))
        assert journal.told == [b"its neighbour"]
        assert [type(error) for error in reported] == [ZeroDivisionError]


class Shipping:
    """A shipper of moods: reads the journal, acknowledges what it read, stalls, goes away and comes again."""

    def __init__(self, journal: Replicating, chance: random.Random) -> None:
        self._journal = journal
        self._chance = chance
        self._reader = JournalReader(journal.writer.directory)
        self._links: WorkerLinks | None = None
        self._read = Position(1, 0)
        self._count = 0
        self.acknowledged = 0
        """How many of the journal's events were acknowledged before now."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            mood = self._chance.random()
            links = self._links = self._links or await self._journal.shipper()
            if mood < 0.02:
                await links.close()
                self._links = None
            links.set_stream_up(mood > 0.06)
            if mood > 0.1:
                self._ship(links)
            await asyncio.sleep(self._chance.choice((0, 0.001, 0.003)))

    def _ship(self, links: WorkerLinks) -> None:
        batch = self._reader.read(self._chance.randrange(1, 200), 1 << 20)
        self._count += len(batch.records)
        self.acknowledged = self._count
        links.acknowledged(self._journal.journal_id, batch.end)


async def test_whatever_happens_each_answer_leaves_once_and_only_when_it_is_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over rotations, restarts of the shipper and a stream that comes and goes: acknowledged, or on the disk."""
    monkeypatch.setattr(storage.journal.replicas, "PATIENCE_S", 0.2)
    monkeypatch.setattr(edge.replication, "RECONNECT_S", 0.02)
    chance = random.Random(20261122)
    told: list[int] = []
    unsafe: list[int] = []
    async with Replicating(tmp_path, max_segment_bytes=20_000) as journal:
        shipping = Shipping(journal, chance)
        task = asyncio.create_task(shipping.run())
        journal.follow()
        end_bytes = 0

        def expect(number: int, ticket: int, durability: int) -> Callable[[bool], None]:
            def done(is_written: bool) -> None:
                told.append(number)
                is_synced = journal.writer.synced_bytes >= ticket
                is_replicated = durability == REPLICATED and shipping.acknowledged > number
                is_safe = durability == PROCESS or is_synced or is_replicated
                if not is_written or not is_safe:
                    unsafe.append(number)

            return done

        for number in range(3_000):
            payload = b"%d " % number + b"." * chance.randrange(200)
            end_bytes += HEAD_BYTES + len(payload)
            durability = chance.choice((PROCESS, DISK, REPLICATED, REPLICATED))
            journal.commit.append(payload, expect(number, end_bytes, durability), False, durability)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice((0, 0, 0.001, 0.002)))
        await until(lambda: len(told) == 3_000)
        task.cancel()
        assert sorted(told) == list(range(3_000))
        assert not unsafe
        assert journal.writer.appended.segment > 5
        assert journal.watch.confirmations > 20
        assert len(journal.watch.reasons) > 20
