"""What /metrics tells while PostgreSQL hangs, and after it was killed: enough to be woken by, and to fall asleep again."""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from tests.faults.watching import stopped
from tests.node import Node, _descendants, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

TOLD_S = 30.0
CLICKS = 50


@contextmanager
def frozen(node: Node) -> Iterator[None]:
    """PostgreSQL, every process of it, does nothing and refuses nothing."""
    [postmaster] = node.pids("postgres")
    with stopped([postmaster, *_descendants(postmaster)]):
        yield


async def click(node: Node, count: int) -> None:
    """So many clicks, all redirected."""
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            url = f"{node.origin}/aff_c?offer_id=17&aff_id=2"
            async with session.get(url, allow_redirects=False) as answer:
                assert answer.status == 302


async def read_offers(node: Node) -> int:
    """The API's answer to a request that asks the database."""
    key = {"Authorization": f"Bearer {(node.data_dir / 'admin.token').read_text('ascii').strip()}"}
    async with aiohttp.ClientSession(headers=key) as session, session.get(f"{node.admin}/api/v1/offers") as answer:
        return answer.status


async def until(node: Node, name: str, low: float, high: float = float("inf"), **labels: str) -> float:
    """Until the metric is within these bounds; its value."""
    found = -1.0

    async def is_within() -> bool:
        nonlocal found
        found = await node.metric(name, **labels)
        return low <= found <= high

    await eventually(is_within, TOLD_S, lambda: f"{name}: {found}\n{node.describe()}")
    return found


async def test_a_hanging_database_is_told_with_the_backlog_that_grows(node: Node) -> None:
    """Down, seconds and bytes of backlog; then up again, both gone, and the clicks stored, each once."""
    await until(node, "edge_database_up", 1)
    await until(node, "edge_drained_through_seconds", 1)
    before = await node.metric("edge_journal_undrained_bytes")
    with frozen(node):
        await click(node, CLICKS)
        await until(node, "edge_journal_undrained_bytes", before + CLICKS * 100)
        await until(node, "edge_database_up", 0, 0)
        await until(node, "edge_drain_lag_seconds", 3)
        assert await node.metric("edge_database_errors_total", role="admin") >= 1
        assert await node.metric("edge_drain_rows_total", table="clicks") == 0
    await until(node, "edge_database_up", 1)
    await until(node, "edge_drain_rows_total", CLICKS, CLICKS, table="clicks")
    await until(node, "edge_drain_lag_seconds", 0, 2)


async def test_a_killed_database_costs_each_that_asks_it_an_error(node: Node) -> None:
    """Drain, sender and admin process; afterwards all is as before, and no process had to be started again."""
    await until(node, "edge_database_up", 1)
    await until(node, "edge_drained_through_seconds", 1)
    assert await read_offers(node) == 200
    node.kill("postgres")
    for role in ("drain", "sender", "admin"):
        await until(node, "edge_database_errors_total", 1, role=role)
    await until(node, "edge_database_up", 1)

    async def are_read() -> bool:
        return await read_offers(node) == 200

    await eventually(are_read, TOLD_S, node.describe)
    await click(node, CLICKS)
    await until(node, "edge_drain_rows_total", CLICKS, CLICKS, table="clicks")
    assert await node.metric("edge_process_starts_total") == 5
