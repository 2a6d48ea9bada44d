"""Prometheus looked at all the while: which alerts were raised, which fired, and in which words."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from benchmarks.prometheus import Alert, Prometheus
from tests.node import eventually

SEEN_S = 30.0


class Watch:
    """`plain` has the rules as they are. `hurried` may have tests.ops.hurried's: what only waits there fires here."""

    def __init__(self, plain: Prometheus | None, hurried: Prometheus | None = None) -> None:
        self._servers = [server for server in (plain, hurried) if server]
        self._plain = plain
        self.raised: set[str] = set()
        """Pending or firing, by the rules as they are."""
        self.fired: set[str] = set()
        """By either."""
        self.fired_as_they_are: set[str] = set()
        self.said: list[Alert] = []

    @asynccontextmanager
    async def looking(self) -> AsyncIterator["Watch"]:
        """Twice a second, within."""
        task = asyncio.create_task(self._look())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _look(self) -> None:
        while True:
            for server in self._servers:
                self._note(server is self._plain, await asyncio.to_thread(server.alerts))
            await asyncio.sleep(0.5)

    def _note(self, is_plain: bool, alerts: list[Alert]) -> None:
        self.said += alerts
        firing = {alert.name for alert in alerts if alert.state == "firing"}
        self.fired |= firing
        if is_plain:
            self.fired_as_they_are |= firing
            self.raised |= {alert.name for alert in alerts}

    def lacking(self, *names: str) -> set[str]:
        """Those that have not fired, or that the rules as they are have not raised."""
        done = self.fired & self.raised if self._plain else self.fired
        return set(names) - done

    async def sees(self, *names: str, within_s: float = SEEN_S) -> None:
        """Wait until none of them lacks."""

        async def is_seen() -> bool:
            return not self.lacking(*names)

        await eventually(is_seen, within_s, lambda: f"{self.lacking(*names)} of {names} not seen")

    async def sees_fired(self, *names: str) -> None:
        """Wait until all of them have fired, if only in a hurry."""

        async def is_seen() -> bool:
            return self.fired >= set(names)

        await eventually(is_seen, SEEN_S, lambda: f"{set(names) - self.fired} of {names} not fired")


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Those processes stand still, within."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
