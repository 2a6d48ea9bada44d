"""Deadlines of all connections by one cheap sweep a second, a thousand at a time: no timer per request."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

HEAD_S = 10
IDLE_S = 75
SWEEP_S = 1.0
SLICE = 1000


class Watched(Protocol):
    """A connection: how long it may still go on as it is, in the coarse seconds of `Clock`."""

    @property
    def deadline_s(self) -> int: ...

    def expire(self) -> None: ...


class Clock:
    """Coarse seconds, moved on by the sweep: reading an attribute is all that a request pays."""

    def __init__(self, on_second: Callable[[], None]) -> None:
        self.now_s = 0
        self.idle_s = IDLE_S
        """When a connection that says nothing from now on is idle for too long."""
        self._on_second = on_second

    def move_on(self) -> None:
        """A second has passed."""
        self.now_s += 1
        self.idle_s += 1
        self._on_second()


async def sweep(clock: Clock, connections: Iterable[Watched]) -> None:
    """Expire what is overdue, for ever; never holds the loop for more than a slice (about 0.1 ms)."""
    while True:
        await asyncio.sleep(SWEEP_S)
        clock.move_on()
        watched = list(connections)
        for start in range(0, len(watched), SLICE):
            for connection in watched[start : start + SLICE]:
                if connection.deadline_s <= clock.now_s:
                    connection.expire()
            await asyncio.sleep(0)
