"""Restarts under load that no client notices: SIGHUP, and a new `serve` on the service manager's sockets."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.load import Say
from tests.faults.unbroken import Unbroken
from tests.node import Node, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

RELOADED_S = 60.0
ROLES = ("worker", "drain", "sender", "admin")


async def reload(node: Node, times: int = 1) -> None:
    """SIGHUP, and wait for the end of that reload; `times`: how many there have then been."""
    os.kill(node.pid, signal.SIGHUP)

    async def is_done() -> bool:
        return node.log_path.read_text().count('"reloaded"') >= times

    await eventually(is_done, RELOADED_S, node.describe)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_reload_under_load_fails_no_request_and_loses_nothing(
    make_node: Callable[..., Node], catalog: Path, say: Say, workers: int
) -> None:
    """All processes are others afterwards; clients with kept and with new connections have all their answers."""
    node = await make_node(catalog=catalog, EDGE_WORKERS=str(workers)).start()
    before = {role: node.pids(role) for role in ROLES}
    load = Unbroken(node.port, kept=6, fresh=6)
    await load.run(lambda: reload(node))
    after = {role: node.pids(role) for role in ROLES}
    say(f"reload, {workers} workers: {len(load.latencies)} requests, {len(load.failures)} failed, slowest {load.slowest_ms:.0f} ms")
    assert not load.failures, load.failures[:10]
    assert {role: len(pids) for role, pids in after.items()} == {role: len(pids) for role, pids in before.items()}
    assert not any(set(before[role]) & set(after[role]) for role in ROLES)
    await load.expect_all_stored(node)
    assert await node.stop() == 0
    print(node.log_path.read_text())


