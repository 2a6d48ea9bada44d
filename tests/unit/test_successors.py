"""edge/offspring.py: a process replaced by a successor, on real processes that run a small script."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from edge.settings import Settings
from edge.supervisor_crew import Crew
from tests.unit.scripted_child import LIMIT_S, LISTEN, OBEDIENT, STARTS, UP, Slot, is_gone, open_slot

pytestmark = pytest.mark.both_loops

# As a worker does: it says that it stands by, waits for the slot's lock, says that it answers; SIGHUP ends it.
HANDS_OVER = f"""
import re
number = re.search(rb"progress_fd(?:\\xcd(..)|\\xcc?(.))", orders, re.S)  # above 255 in a process with many files open
progress = int.from_bytes(number[1] or number[2], "big")
def end(number, frame):
    say("handed over" if number == signal.SIGHUP else "told")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGHUP, end)
say("stands by")
os.write(progress, b"s")
{LISTEN.replace("signal.SIGINT", "signal.SIGINT, signal.SIGHUP")}
fcntl.flock(lock, fcntl.LOCK_EX)
say("up " + str(os.getpid()))
os.write(progress, b"a")
forever()
"""


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """What is logged."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slot]:
    """A slot whose script ends when told."""
    with open_slot(tmp_path, monkeypatch) as made:
        yield made


async def test_a_successor_stands_by_before_its_predecessor_is_told(slot: Slot, log: list[Any]) -> None:
    """A replacement: the new one has loaded, the old one hears SIGHUP, and only then does the new one take the slot."""
    slot.write(HANDS_OVER)
    slot.child.start()
    await slot.child.answers()
    assert await slot.child.replace(LIMIT_S, stands_by=True)
    first, second = slot.pids()
    assert slot.said() == ["stands by", f"up {first}", "overlap", "stands by", "handed over", f"up {second}"]
    assert is_gone(first)
    assert (slot.counters.cells[STARTS], slot.counters.cells[UP]) == (2, 1)
    assert not log
    await slot.child.stop(LIMIT_S)
    assert is_gone(second)


async def test_a_successor_that_cannot_run_leaves_its_predecessor_at_work(slot: Slot, log: list[Any]) -> None:
    """A broken release: the old process hears nothing of it."""
    slot.write(HANDS_OVER)
    slot.child.start()
    await slot.child.answers()
    slot.write("sys.exit(3)")
    assert not await slot.child.replace(LIMIT_S, stands_by=True)
    assert [(line["event"], line["code"]) for line in log] == [("successor_failed", 3)]
    assert "handed over" not in slot.said()
    assert not is_gone(slot.pids()[0])
    await slot.child.stop(LIMIT_S)
    assert slot.said()[-1] == "told"


async def test_a_predecessor_that_does_not_end_is_killed_for_its_successor(slot: Slot, log: list[Any]) -> None:
    """SIGKILL when its patience ends: the slot goes on with the new one."""
    slot.write("signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + HANDS_OVER.replace("signal.signal(signal.SIGHUP, end)", ""))
    slot.child.start()
    await slot.child.answers()
    slot.write(HANDS_OVER)
    assert await slot.child.replace(0.3, stands_by=True)
    assert [line["event"] for line in log] == ["child_killed"]
    assert [is_gone(pid) for pid in slot.pids()] == [True, False]
    await slot.child.stop(LIMIT_S)


async def test_a_predecessor_that_dies_meanwhile_is_followed_by_its_successor_at_once(slot: Slot, log: list[Any]) -> None:
    """A crash during a replacement is none beside it, and costs no pause."""
    slot.write(HANDS_OVER)
    slot.child.start()
    await slot.child.answers()
    first = slot.pids()[0]
    seen = f"os.kill({first}, signal.SIGKILL)\nwhile os.path.exists('/proc/{first}'):\n    time.sleep(0.01)\n"
    slot.write(seen + HANDS_OVER)
    assert await slot.child.replace(LIMIT_S, stands_by=True)
    assert {line["event"] for line in log} <= {"child_died"}  # none, if its death is seen only when it was to be told
    assert [is_gone(pid) for pid in slot.pids()] == [True, False]
    assert slot.counters.cells[STARTS] == 2
    await slot.child.stop(LIMIT_S)


async def test_a_stop_during_a_replacement_ends_both(slot: Slot) -> None:
    """Neither the one that is to go nor the one that stands by is left."""
    slot.write(HANDS_OVER)
    slot.child.start()
    await slot.child.answers()
    slot.write("say('second ' + str(os.getpid()))" + OBEDIENT)
    replacing = asyncio.create_task(slot.child.replace(LIMIT_S, stands_by=True))
    await slot.until(lambda: len(slot.pids()) == 2)
    replacing.cancel()
    await slot.child.stop(LIMIT_S)
    assert [is_gone(pid) for pid in slot.pids()] == [True, True]
    assert slot.said().count("told") == 2


async def test_a_process_that_need_not_stand_by_is_replaced_without_a_pause(slot: Slot, log: list[Any]) -> None:
    """The drain, the sender, the admin process: ended, then started again at once, and nothing is called a death."""
    slot.write(HANDS_OVER)
    slot.child.start()
    await slot.child.answers()
    assert await slot.child.replace(LIMIT_S, stands_by=False)
    await slot.until(lambda: len(slot.pids()) == 2)
    assert "overlap" not in slot.said()
    assert not log
    await slot.child.stop(LIMIT_S)


@pytest.mark.parametrize(("code", "event", "processes"), [(0, "reloaded", 2), (1, "reload_given_up", 1)])
async def test_drains_are_replaced_only_once_the_new_code_has_migrated(
    slot: Slot, log: list[Any], code: int, event: str, processes: int
) -> None:
    """SIGHUP to `clickedge drain`: only the code that is installed now knows the tables that it needs."""
    slot.write(f"if sys.argv[-2] == 'migration':\n    say('migrates')\n    sys.exit({code})\n" + HANDS_OVER)
    crew = Crew(Settings(data_dir=str(slot.folder), database_url="postgresql://nobody.invalid/none"), "drain", 1)
    [child] = crew._children
    child.start()
    await child.answers()
    reloading = asyncio.create_task(crew._reload_when_told())
    crew._reload_asked.set()
    await slot.until(lambda: event in [line["event"] for line in log] and len(slot.pids()) == processes)
    assert slot.said()[2:4] == ["overlap", "migrates"]
    reloading.cancel()
    await child.stop(LIMIT_S)
    for block in crew._blocks.values():
        os.close(block)
