"""Processes killed, and the supervisor told to replace them.

Kills hit slot 0 only: the other worker and the other drain live through the whole soak, so that their memory can be judged.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.soak.node import EXPECTED, SoakFailed, SoakNode, eventually, is_running, kill
from benchmarks.soak.scene import Scene

BACK_S = 60.0
RELOADED_S = 180.0


async def kill_worker(scene: Scene) -> str:
    """Its journal ends where it was; its socket's queue waits for its successor."""
    return await _kill(scene, "worker")


async def kill_drain(scene: Scene) -> str:
    """Perhaps within a transaction."""
    return await _kill(scene, "drain")


async def kill_sender(scene: Scene) -> str:
    """Perhaps between a partner's 2xx and its log line."""
    return await _kill(scene, "sender")


async def kill_admin(scene: Scene) -> str:
    """Catalogs, caps and metrics stand still meanwhile."""
    return await _kill(scene, "admin")


async def _kill(scene: Scene, role: str) -> str:
    began_s, before = time.monotonic(), scene.node.slot(role, 0)
    await kill(before)
    after = await _successor(scene.node, role, 0, before)
    return f"{role} 0 was process {before}, is {after} since {time.monotonic() - began_s:.1f} s after"


async def _successor(node: SoakNode, role: str, slot: int, before: int, timeout_s: float = BACK_S) -> int:
    """The process that has the slot alone, once `before` is gone."""
    found: list[int] = []

    async def is_back() -> bool:
        if is_running(before):  # a reload's successor is there before its predecessor is gone
            return False
        with suppress(SoakFailed):
            found[:] = [node.slot(role, slot)]
        return bool(found)

    await eventually(is_back, timeout_s, f"no other {role} {slot} runs")
    return found[0]


def can_reload(node: SoakNode) -> bool:
    """Whether the supervisor listens to SIGHUP: one that does not would be ended by it."""
    caught = int(Path(f"/proc/{node.process.pid}/status").read_text().partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGHUP - 1) & 1)


async def reload(scene: Scene) -> str:
    """No request may fail."""
    node = scene.node
    before = {(role, slot): node.slot(role, slot) for role, count in EXPECTED.items() for slot in range(count)}
    began_s = time.monotonic()
    os.kill(node.process.pid, signal.SIGHUP)
    for (role, slot), pid in before.items():
        await _successor(node, role, slot, pid, RELOADED_S)
    return f"{len(before)} processes are others after {time.monotonic() - began_s:.1f} s"
