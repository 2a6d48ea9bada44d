"""A supervised process of the tests' own: a small script stands where the interpreter would be started."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edge.counters import Counters, cell, new_block
from edge.offspring import Child
from edge.processes import ChildOrders
from edge.settings import Settings
from tests.node import eventually

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


def is_gone(pid: int) -> bool:
    """Whether no such process is left, not even a dead one that nobody asked about."""
    return not Path(f"/proc/{pid}").exists()


def our_children() -> set[int]:
    """The processes that this one started and that are still there."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


@contextmanager
def open_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slot]:
    """A slot whose script ends when told; whoever still runs it at the end is killed."""
    block = new_block()
    made = Slot(tmp_path, block)
    made.write(OBEDIENT)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "script"))
    yield made
    for pid in our_children() & set(made.pids()):
        os.kill(pid, signal.SIGKILL)
    os.close(block)
