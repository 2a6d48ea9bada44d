"""Restarts under load that no client notices: SIGHUP, and a new `serve` on the service manager's sockets."""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.faults.load import Say
from tests.faults.managed import ManagedNode, restart
from tests.faults.unbroken import Unbroken
from tests.node import Node, end, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

RELOADED_S = 60.0
ROLES = ("worker", "drain", "sender", "admin")


async def reload(node: Node, reloads: int) -> None:
    """SIGHUP, and as often again while that is at work, or once; wait for the end of that many reloads."""
    os.kill(node.pid, signal.SIGHUP)
    await eventually(lambda: says(node, "reloading", 1), RELOADED_S, node.describe)
    for _ in range(3 * (reloads - 1)):
        os.kill(node.pid, signal.SIGHUP)
    await eventually(lambda: says(node, "reloaded", reloads), RELOADED_S, node.describe)


async def says(node: Node, event: str, times: int) -> bool:
    """Whether the log has that event so often."""
    return node.log_path.read_text().count(f'"event":"{event}"') >= times


@pytest.mark.parametrize(("workers", "reloads"), [(1, 2), (2, 1)])
async def test_a_reload_under_load_fails_no_request_and_loses_nothing(
    make_node: Callable[..., Node], catalog: Path, say: Say, workers: int, reloads: int
) -> None:
    """All processes are others afterwards; clients with kept and with new connections have all their answers.

    A SIGHUP during a reload makes one more, however many come.
    """
    node = await make_node(catalog=catalog, EDGE_WORKERS=str(workers)).start()
    before = {role: node.pids(role) for role in ROLES}
    load = Unbroken(node.port, kept=6, fresh=6)
    await load.run(lambda: reload(node, reloads))
    after = {role: node.pids(role) for role in ROLES}
    say(
        f"{reloads} reloads, {workers} workers: {len(load.latencies)} requests, {len(load.failures)} failed,"
        f" slowest {load.slowest_ms:.0f} ms"
    )
    assert not load.failures, load.failures[:10]
    assert {role: len(pids) for role, pids in after.items()} == {role: len(pids) for role, pids in before.items()}
    assert not any(set(before[role]) & set(after[role]) for role in ROLES)
    await load.expect_all_stored(node)
    assert await node.stop() == 0
    assert node.log_path.read_text().count('"event":"reloading"') == reloads




@pytest.fixture
async def managed(data_dir: Path, catalog: Path) -> AsyncIterator[ManagedNode]:
    """A node of two workers on one socket of the service manager, and what it tells that one."""
    node = ManagedNode(data_dir, catalog=catalog, env={"EDGE_WORKERS": "2"})
    node.launch()
    await node.wait_heard("READY=1")
    await node.wait_ready()
    yield node
    await end(node)
    node.release()
    shutil.rmtree(node.data_dir, ignore_errors=True)


async def test_a_new_serve_on_the_manager_s_sockets_fails_no_request(managed: ManagedNode, say: Say) -> None:
    """Stopped and started again under load: who connects meanwhile waits in the queue of a socket that stays."""
    load = Unbroken(managed.port, kept=6, fresh=6)
    await load.run(lambda: restart(managed))
    assert managed.heard[-2:] == ["STOPPING=1", "READY=1"]
    say(f"restart of serve: {len(load.latencies)} requests, {len(load.failures)} failed, slowest {load.slowest_ms:.0f} ms")
    assert not load.failures, load.failures[:10]
    await managed.wait_ready()
    await load.expect_all_stored(managed)
    os.kill(managed.pid, signal.SIGHUP)
    assert "MONOTONIC_USEC=" in await managed.wait_heard("RELOADING=1")
    await managed.wait_heard("READY=1")
