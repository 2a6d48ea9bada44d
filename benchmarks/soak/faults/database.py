"""PostgreSQL killed, and stopped in its tracks."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from benchmarks.soak.node import SoakFailed, SoakNode, eventually, kill
from benchmarks.soak.scene import Scene

BACK_S = 90.0


async def kill_server(scene: Scene) -> str:
    """Its children end by themselves; the supervisor starts another, which recovers from its own log."""
    began_s, before = time.monotonic(), scene.node.postmaster()
    await kill(before)
    if await scene.has_database(0.2) and scene.node.postmaster() == before:
        raise SoakFailed("PostgreSQL was killed and still takes connections")

    async def is_back() -> bool:
        return await scene.has_database()

    await eventually(is_back, BACK_S, "PostgreSQL did not come back")
    return f"process {before} is {scene.node.postmaster()}, took connections again after {time.monotonic() - began_s:.1f} s"


async def pause(scene: Scene) -> str:
    """Connections stay open and nobody answers."""
    async with paused(scene):
        await asyncio.sleep(scene.hold_s)

    async def is_back() -> bool:
        return await scene.has_database()

    await eventually(is_back, BACK_S, "PostgreSQL did not go on")
    return f"no answer for {scene.hold_s:.0f} s"


@asynccontextmanager
async def paused(scene: Scene) -> AsyncIterator[None]:
    """All of PostgreSQL's processes stopped within. SoakFailed when it still answers."""
    try:
        _signal(scene.node, signal.SIGSTOP)
        if await scene.has_database():
            raise SoakFailed("PostgreSQL was stopped and still answers")
        yield
    finally:
        _signal(scene.node, signal.SIGCONT)


def _signal(node: SoakNode, number: signal.Signals) -> None:
    """The postmaster first: while it stands it forks nobody, and who its children are does not change."""
    os.kill(node.postmaster(), number)
    for pid in node.postgres_family():
        with suppress(ProcessLookupError):
            os.kill(pid, number)
