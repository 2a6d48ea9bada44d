"""Processes killed, and the supervisor told to replace them.

Kills hit slot 0 only: the other worker and the other drain live through the whole soak, so that their memory can be judged.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.soak.node import SoakFailed, SoakNode, eventually, kill
from benchmarks.soak.scene import Scene

BACK_S = 30.0


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


async def _successor(node: SoakNode, role: str, slot: int, before: int) -> int:
    found: list[int] = []

    async def is_back() -> bool:
        with suppress(SoakFailed):
            found[:] = [pid for pid in [node.slot(role, slot)] if pid != before]
        return bool(found)

    await eventually(is_back, BACK_S, f"no other {role} {slot} runs")
    return found[0]


def can_reload(node: SoakNode) -> bool:
    """Whether the supervisor listens to SIGHUP: one that does not would be ended by it."""
    caught = int(Path(f"/proc/{node.process.pid}/status").read_text().partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGHUP - 1) & 1)


async def reload_workers(scene: Scene) -> str:
    """No request may fail."""
    node = scene.node
    before = [node.slot("worker", number) for number in (0, 1)]
    os.kill(node.process.pid, signal.SIGHUP)
    after = [await _successor(node, "worker", number, pid) for number, pid in enumerate(before)]
    return f"workers were processes {before}, are {after}"
