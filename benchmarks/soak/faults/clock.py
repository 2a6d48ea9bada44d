"""The clock of the node's own processes put ahead and back; PostgreSQL and the load keep the machine's.

Ids only grow, so after the step back they stay ahead of the clock until it has caught up: a worker killed meanwhile must
find the lease of its predecessor (that fault follows this one).
"""

import asyncio
import time

from benchmarks.scraping import read_page, total
from benchmarks.soak.node import SoakFailed, eventually
from benchmarks.soak.scene import Scene

STEP_S = 120
SEEN_S = 15.0


async def step(scene: Scene) -> str:
    """Ahead, held, and back."""
    before = await _ids(scene)
    try:
        scene.node.step_clock(STEP_S)
        await _await_clock(scene, STEP_S)
        ahead = await _ids_from(scene, _ms(max(before)) + STEP_S * 900)
        await asyncio.sleep(scene.hold_s / 2)
    finally:
        scene.node.step_clock(0)
    await _await_clock(scene, 0)
    after = await _ids(scene)
    gained_s = (_ms(min(ahead)) - _ms(max(before))) / 1000
    if _ms(min(after)) < _ms(min(ahead)):
        raise SoakFailed(f"ids went back with the clock: {ahead}, {after}")
    return f"ids went ahead by {gained_s:.0f} s, and were not below that after the step back"


async def _await_clock(scene: Scene, offset_s: int) -> None:
    """Until the admin process stamps what it publishes with that clock."""

    async def is_seen() -> bool:
        page = await asyncio.to_thread(read_page, scene.node)
        return abs(total(page, "edge_state_published_seconds") - time.time() - offset_s) < STEP_S / 4

    await eventually(is_seen, SEEN_S, f"the node's clock is not {offset_s} s from ours")


async def _ids_from(scene: Scene, at_ms: int) -> list[str]:
    """The first few clicks in a row with ids of that time or later: each worker takes up a step when it looks at its clock."""
    ids: list[str] = []

    async def are_there() -> bool:
        ids[:] = await _ids(scene)
        return _ms(min(ids)) >= at_ms

    await eventually(are_there, SEEN_S, "the clock's step is not seen in the ids")
    return ids


async def _ids(scene: Scene) -> list[str]:
    """Of a few clicks, over connections of their own: of both workers, in all likelihood."""
    return [await scene.click() for _ in range(8)]


def _ms(click_id: str) -> int:
    return int(click_id[:12], 16)
