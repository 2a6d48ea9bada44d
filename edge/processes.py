"""What the supervisor tells a child, and how a child begins: settings on stdin, sockets and counters by descriptor."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

import msgspec

from edge.settings import Settings
from storage.postgres.connection import resolve_url

_PR_SET_PDEATHSIG = 1
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STANDS_BY = b"s"
ANSWERS = b"a"


class ChildOrders(msgspec.Struct, frozen=True):
    """Everything a child process needs. `slot`: worker or drain number; `listen_fds`: sockets already bound.

    A supervisor may be older than the child that it starts: a new field needs a default.
    """

    role: str
    slot: int
    settings: Settings
    counters_fd: int
    listen_fds: list[int]
    slots: list[tuple[str, int, int]] = []
    """For the admin process: (role, slot, counters descriptor) of everybody."""
    progress_fd: int = -1
    """Where a worker writes `STANDS_BY` once it has loaded all that it needs, and `ANSWERS` once it accepts."""
    is_successor: bool = False
    """Whether the slot's predecessor still answers: stand by, and take over when it has let go of the slot."""

    def resolve_database(self) -> str:
        """Where Postgres is now: a restarted embedded one may have moved. DatabaseUnusable while there is none."""
        return resolve_url(self.settings.database_url or None, self.settings.data_path)


def read_orders() -> ChildOrders:
    """The orders that the supervisor wrote to this process's stdin."""
    return msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ChildOrders)


class Stop(asyncio.Event):
    """Set when this process is to end."""

    is_handover = False
    """Whether a successor takes over at once: SIGHUP asked, not SIGTERM or SIGINT."""

    def take(self, number: signal.Signals) -> None:
        """That signal came."""
        self.is_handover = number == signal.SIGHUP
        self.set()

    async def within(self, seconds: float) -> None:
        """Until the end is asked for, at most so long."""
        try:
            await asyncio.wait_for(self.wait(), seconds)
        except TimeoutError:
            pass


class Schedule(dict[str, float]):
    """When what a loop does every so often is due next, by name: seconds of the monotonic clock."""

    def is_due(self, name: str, interval_s: float) -> bool:
        """Whether it is; then it is due again after the interval."""
        now_s = time.monotonic()
        if now_s < self.get(name, 0.0):
            return False
        self[name] = now_s + interval_s
        return True


def stop_requested() -> Stop:
    """Set by SIGTERM, SIGINT or SIGHUP from now on, and by one that came since this process was started."""
    stop = Stop()
    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.take, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    return stop


def die_with_parent(death_signal: int = signal.SIGKILL) -> Callable[[], None]:
    """For a child, between fork and exec: die when the parent does, even if it is already gone."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arm() -> None:
        # A stop that comes while the child still imports waits until it listens, see `stop_requested`.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return arm
