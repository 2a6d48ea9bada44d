"""edge/offspring.py on real processes: a small script stands where the interpreter would be started."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from msgspec.structs import replace

from edge import offspring
from edge.offspring import Child
from edge.processes import ChildOrders
from tests.unit.scripted_child import LIMIT_S, OBEDIENT, STARTS, UP, Slot, is_gone, open_slot, our_children

pytestmark = pytest.mark.both_loops

ROOT = Path(__file__).parent.parent.parent
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
