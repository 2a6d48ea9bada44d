"""edge/offspring.py on real processes: a small script stands where the interpreter would be started."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from msgspec.structs import replace

from edge import offspring
from edge.counters import Counters, cell, new_block
from edge.offspring import Child
from edge.processes import ChildOrders
from edge.settings import Settings
from edge.supervisor_crew import Crew
from tests.node import eventually

pytestmark = pytest.mark.both_loops

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 30.0
STARTS, UP = cell("edge_process_starts_total"), cell("edge_process_up")

# Holds a lock for its life, so that a second one beside it is noticed, and notes what it was started with.
PREAMBLE = f"""#!{os.path.realpath(sys.executable)} -ISs
import fcntl, os, signal, sys, time
here = os.path.dirname(os.path.abspath(__file__))
lock = os.open(here + "/lock", os.O_RDWR | os.O_CREAT)
def say(line):
    with open(here + "/said", "a") as file:
        file.write(line + chr(10))
def forever():
    while True:
        time.sleep(60)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    say("overlap")
orders = sys.stdin.buffer.read()
"""
LISTEN = """
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])
"""
OBEDIENT = """
def end(number, frame):
    say("told")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
say("up " + str(os.getpid()))
{LISTEN}
forever()
""".replace("{LISTEN}", LISTEN)
DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
say("up " + str(os.getpid()))
forever()
"""
SHORT_LIVED = """
say("up " + str(os.getpid()))
sys.exit(3)
"""

SUICIDAL_PARENT = """
import os, subprocess
from edge.processes import die_with_parent
child = subprocess.Popen(["sleep", "600"], stdout=2, preexec_fn=die_with_parent(), start_new_session=True)
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


class Slot:
    """A child that runs a script, and what became of it."""

    def __init__(self, folder: Path, block: int) -> None:
        self.folder = folder
        self.orders = ChildOrders("worker", 3, Settings(data_dir="/nowhere", secrets=("not for eyes" * 2,)), block, [])
        self.counters = Counters.of_fd(block)
        self.child = Child(self.orders, self.counters)

    def write(self, body: str) -> None:
        """From the next start on the script does this."""
        script = self.folder / "script"
        unfinished = self.folder / "script.new"
        unfinished.write_text(PREAMBLE + body)
        unfinished.chmod(0o700)
        unfinished.rename(script)

    def said(self) -> list[str]:
        """The lines of all processes so far."""
        with suppress(FileNotFoundError):
            return (self.folder / "said").read_text().splitlines()
        return []

    def pids(self) -> list[int]:
        """Everybody who came up, in order."""
        return [int(line.split()[1]) for line in self.said() if line.startswith("up ")]

    async def until(self, check: Callable[[], Any]) -> None:
        """Until `check` holds."""

        async def is_so() -> bool:
            return bool(check())

        await eventually(is_so, LIMIT_S, lambda: "\n".join(self.said()))


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """What is logged."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slot]:
    """A slot whose script ends when told."""
    block = new_block()
    made = Slot(tmp_path, block)
    made.write(OBEDIENT)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "script"))
    yield made
    for pid in our_children() & set(made.pids()):
        os.kill(pid, signal.SIGKILL)
    os.close(block)


def is_gone(pid: int) -> bool:
    """Whether no such process is left, not even a dead one that nobody asked about."""
    return not Path(f"/proc/{pid}").exists()


def our_children() -> set[int]:
    """The processes that this one started and that are still there."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


async def test_a_child_gets_its_orders_on_stdin_and_no_secret_on_its_command_line(slot: Slot) -> None:
    """`ps` shows role and slot; the settings come by a pipe that then ends."""
    slot.write("open(here + '/orders', 'wb').write(orders)\nopen(here + '/argv', 'w').write(repr(sys.argv))" + OBEDIENT)
    slot.child.start()
    await slot.until(slot.pids)
    orders = msgspec.msgpack.decode((slot.folder / "orders").read_bytes(), type=ChildOrders)
    assert orders == replace(slot.orders, progress_fd=orders.progress_fd)
    command = Path(f"/proc/{slot.pids()[0]}/cmdline").read_bytes()
    assert command.endswith(b"\0-m\0edge.child\0worker\x003\0")
    assert b"not for eyes" not in command
    await slot.child.stop(LIMIT_S)


async def test_a_child_that_is_told_ends_in_its_own_time_and_is_not_replaced(slot: Slot, log: list[Any]) -> None:
    """SIGTERM once; `stop` returns when the process is gone, well before patience ends."""
    slot.child.start()
    await slot.until(slot.pids)
    assert (slot.counters.cells[STARTS], slot.counters.cells[UP]) == (1, 1)
    began_s = time.monotonic()
    await slot.child.stop(LIMIT_S)
    assert time.monotonic() - began_s < LIMIT_S / 2
    assert slot.said()[1:] == ["told"]
    assert is_gone(slot.pids()[0])
    assert (slot.counters.cells[STARTS], slot.counters.cells[UP]) == (1, 0)
    assert not log


async def test_a_successor_starts_only_when_its_predecessor_is_gone(slot: Slot) -> None:
    """Killed again and again: each time one comes after it, never beside it."""
    slot.child.start()
    for lives in range(1, 5):
        await slot.until(lambda lives=lives: len(slot.pids()) == lives)  # type: ignore[misc]
        os.kill(slot.pids()[-1], signal.SIGKILL)
    await slot.until(lambda: len(slot.pids()) == 5)
    assert "overlap" not in slot.said()
    assert [is_gone(pid) for pid in slot.pids()] == [True] * 4 + [False]
    assert slot.counters.cells[STARTS] == 5
    await slot.child.stop(LIMIT_S)


async def test_the_pause_before_a_restart_doubles_up_to_a_limit(
    slot: Slot, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who dies at once costs little, and the exit code is said each time."""
    monkeypatch.setattr(offspring, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(offspring, "MAX_BACKOFF_S", 0.1)
    slot.write(SHORT_LIVED)
    slot.child.start()
    await slot.until(lambda: len(log) >= 6)
    await slot.child.stop(LIMIT_S)
    deaths = [line for line in log if line["event"] == "child_died"]
    assert [line["restart_in_s"] for line in deaths[:6]] == [0.02, 0.04, 0.08, 0.1, 0.1, 0.1]
    assert {(line["role"], line["slot"], line["code"]) for line in deaths} == {("worker", 3, 3)}


async def test_no_restart_comes_before_its_pause_is_over(slot: Slot, log: list[Any]) -> None:
    """The first three pauses as they are in production: 0.2, 0.4 and 0.8 s."""
    slot.write("say('at ' + str(time.monotonic()))" + SHORT_LIVED)
    slot.child.start()
    await slot.until(lambda: len(slot.pids()) == 4)
    await slot.child.stop(LIMIT_S)
    starts_s = [float(line.split()[1]) for line in slot.said() if line.startswith("at ")]
    pauses_s = [later - earlier for earlier, later in pairwise(starts_s)]
    assert all(pause_s >= least_s for pause_s, least_s in zip(pauses_s, (0.2, 0.4, 0.8), strict=False))
    assert offspring.MAX_BACKOFF_S <= 5


async def test_who_lived_long_is_restarted_without_delay(
    slot: Slot, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ran well does not pay for those that died at their start."""
    monkeypatch.setattr(offspring, "STEADY_AFTER_S", 1.5)
    slot.write(SHORT_LIVED)
    slot.child.start()
    await slot.until(lambda: len(log) == 2)
    slot.write("time.sleep(2)" + SHORT_LIVED)
    await slot.until(lambda: any(line["restart_in_s"] == offspring.FIRST_BACKOFF_S for line in log))
    await slot.child.stop(LIMIT_S)


async def test_a_child_told_to_stop_in_its_pause_is_not_started_again(
    slot: Slot, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stop` does not wait for the pause's end."""
    monkeypatch.setattr(offspring, "FIRST_BACKOFF_S", 600.0)
    monkeypatch.setattr(offspring, "MAX_BACKOFF_S", 600.0)
    slot.write(SHORT_LIVED)
    slot.child.start()
    await slot.until(lambda: log)
    began_s = time.monotonic()
    await slot.child.stop(LIMIT_S)
    assert time.monotonic() - began_s < LIMIT_S / 2
    assert slot.counters.cells[STARTS] == 1
    assert [line["event"] for line in log] == ["child_died"]


async def test_a_child_that_does_not_listen_is_killed_when_patience_ends(slot: Slot, log: list[Any]) -> None:
    """SIGKILL after SIGTERM and `patience_s`; nobody takes its place."""
    slot.write(DEAF)
    slot.child.start()
    await slot.until(slot.pids)
    began_s = time.monotonic()
    await slot.child.stop(0.5)
    assert 0.5 <= time.monotonic() - began_s < LIMIT_S / 2
    assert is_gone(slot.pids()[0])
    assert log == [{"event": "child_killed", "log_level": "error", "role": "worker", "slot": 3, "patience_s": 0.5}]
    assert slot.counters.cells[STARTS] == 1


def test_a_stop_at_any_moment_of_a_start_leaves_no_process(slot: Slot) -> None:
    """Before the fork, between fork and exec, while the orders are written: all the same, on the supervisor's loop."""

    async def stop_after(turns: int) -> None:
        child = Child(slot.orders, slot.counters)
        child.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await child.stop(LIMIT_S)

    before = our_children()
    for turns in range(12):
        asyncio.run(stop_after(turns))
        assert our_children() <= before
        assert slot.counters.cells[UP] == 0


async def test_a_child_that_was_never_started_is_stopped_at_once(slot: Slot) -> None:
    """The supervisor may be told to end before the drain has begun."""
    await slot.child.stop(LIMIT_S)
    assert slot.counters.cells[STARTS] == 0


def test_a_child_dies_with_its_parent() -> None:
    """Kill -9 of the supervisor leaves nobody behind to hold sockets and journals."""
    parent = subprocess.run(
        [
            sys.executable,
            "-c",
            SUICIDAL_PARENT,
        ],
        cwd=ROOT,
        timeout=LIMIT_S,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert parent.returncode == -signal.SIGKILL
    state = Path(f"/proc/{int(parent.stdout)}/stat")
    deadline = time.monotonic() + LIMIT_S
    # Gone, or dead and waiting for whoever inherited it.
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline


# As a worker does: it says that it stands by, waits for the slot's lock, says that it answers; SIGHUP ends it.
HANDS_OVER = f"""
import re
progress = int(re.search(rb"progress_fd\\xcc?(.)", orders, re.S)[1][0])
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
