"""Who is on which core, and how long a measured server had to wait for its own: whether others spoilt a measurement."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.serving import pin


class Scheduled(NamedTuple):
    """A process's main thread so far: on a core, and ready to run while something else was on it."""

    ran_s: float
    waited_s: float


def scheduled(pid: int) -> Scheduled:
    """By the scheduler's own account, in nanoseconds; `/proc/PID/stat` counts ticks of 10 ms."""
    ran_ns, waited_ns, _ = map(int, Path(f"/proc/{pid}/schedstat").read_text().split())
    return Scheduled(ran_ns / 1e9, waited_ns / 1e9)


class CoreUsage:
    """What one process has had of its core since this was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began_s = time.monotonic()
        self._before = scheduled(pid)

    def shares(self) -> dict[str, float]:
        """Of the time that has passed: on the core, and kept waiting for it."""
        elapsed_s, after = time.monotonic() - self._began_s, scheduled(self._pid)
        return {
            "ran": round((after.ran_s - self._before.ran_s) / elapsed_s, 4),
            "kept_waiting": round((after.waited_s - self._before.waited_s) / elapsed_s, 4),
        }


@contextmanager
def on_core(cpu: int) -> Iterator[None]:
    """This process on that core, with the threads and programs that it starts meanwhile."""
    before = os.sched_getaffinity(0)
    pin(os.getpid(), cpu)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
