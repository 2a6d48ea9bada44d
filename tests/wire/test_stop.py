"""Ending and dying: an end loses nothing and leaves nothing running, and whatever dies is started again."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg
import pytest

from storage.journal.capacity import undrained_bytes
from tests.node import Node, eventually, free_port
from tests.wire.whole_nodes import EXTERNAL, click


def survivors(node: Node) -> list[str]:
    """What of the node still runs: its processes inherit the mark, PostgreSQL names the data dir."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if os.fsencode(node.data_dir) in command or mark_of(node) in (process / "environ").read_bytes():
                found.append(f"{process.name} {command.decode()}")
    return found


def mark_of(node: Node) -> bytes:
    """How its processes are told from those of other tests."""
    return f"NODE_MARK={node.port}-{node.admin_port}".encode()


def mark(node: Node) -> Node:
    """The node, its processes to be."""
    name, _, value = mark_of(node).decode().partition("=")
    node._env[name] = value
    return node


async def is_gone(node: Node) -> bool:
    """Whether nothing of it runs."""
    return not await asyncio.to_thread(survivors, node)


@pytest.mark.parametrize("sign", ["postgres", "postgres.socket", "database.url", "catalog.snapshot"])
async def test_sigterm_while_starting_ends_everything(make_node: Callable[..., Node], sign: str) -> None:
    """During initdb, PostgreSQL's start, the migration, the workers' start: exit code 0, and the next start works."""
    node = mark(make_node())
    node.launch()

    async def is_there() -> bool:
        return os.path.lexists(node.data_dir / sign)

    await eventually(is_there, 30, node.describe)
    assert await node.stop(timeout_s=30) == 0
    await eventually(lambda: is_gone(node), 10, lambda: str(survivors(node)))
    await node.start()
    assert await node.stop() == 0
    assert "Traceback" not in node.log_path.read_text()


@pytest.mark.reliability(number=16)
async def test_sigterm_while_the_database_is_away_ends_everything(make_node: Callable[..., Node]) -> None:
    """A first start waits for its database and says so; it can be stopped meanwhile."""
    node = mark(make_node(EDGE_DATABASE_URL=f"postgresql://u:hunter22@127.0.0.1:{free_port()}/x", **EXTERNAL))
    node.launch()

    async def is_waiting() -> bool:
        return all(event in node.log_path.read_text() for event in ("database_away", "worker_waiting"))

    await eventually(is_waiting, 30, node.describe)
    assert await node.stop(timeout_s=30) == 0
    assert await is_gone(node)
    assert "hunter22" not in node.log_path.read_text()


@pytest.mark.reliability(number=15)
async def test_sigterm_under_load_loses_no_answered_click(make_node: Callable[..., Node], database: str) -> None:
    """Not ready, then refused; exit code 0 within 30 s, and every click that was answered is in the database."""
    node = await mark(make_node(EDGE_DATABASE_URL=database, **EXTERNAL)).start()
    answered: list[UUID] = []

    async def visit() -> None:
        with suppress(aiohttp.ClientConnectionError):
            while True:
                answered.append(await click(session, node))

    async def has_begun() -> bool:  # the drain may still be starting: a stop must not find it deaf
        return len(answered) > 50

    async def is_not_ready() -> bool:
        async with session.get(f"{node.origin}/readyz") as answer:
            return answer.status == 503

    conn = await asyncpg.connect(database)
    async with aiohttp.ClientSession() as session:
        visitors = [asyncio.create_task(visit()) for _ in range(8)]
        await eventually(has_begun, 30, node.describe)
        stopping = asyncio.create_task(node.stop(timeout_s=30))
        await eventually(is_not_ready, 10, node.describe)
        assert await stopping == 0
        await asyncio.gather(*visitors)
    assert await is_gone(node)
    assert await conn.fetchval("SELECT count(*) FROM clicks WHERE click_id = ANY($1)", answered) == len(answered)
    assert await conn.fetchval("SELECT count(*) FROM journal_positions WHERE finished_at IS NULL") == 0
    await conn.close()
    assert undrained_bytes(node.data_dir / "journal") == 0


@pytest.mark.faults
@pytest.mark.reliability(number=15)
async def test_a_request_that_never_ends_delays_the_end_by_ten_seconds_at_most(
    make_node: Callable[..., Node], database: str
) -> None:
    """Then its connection is closed without an answer, no process has to be killed, and the exit code is 0."""
    node = await make_node(EDGE_DATABASE_URL=database, **EXTERNAL).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        writer.write(b"POST /aff_lsr HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\ntransaction_id=")
        await writer.drain()
        assert await node.stop(timeout_s=30) == 0
        assert await reader.read() == b""
    finally:
        writer.close()
    assert "child_killed" not in node.log_path.read_text()


@pytest.mark.reliability(number=15)
async def test_while_the_drain_finishes_new_clients_are_refused(make_node: Callable[..., Node], database: str) -> None:
    """Not left waiting in a queue that nobody serves; the admin port says that no worker runs."""
    node = await make_node(EDGE_DATABASE_URL=database, **EXTERNAL).start()
    drain = node.kill("drain", number=signal.SIGSTOP)
    stopping = asyncio.create_task(node.stop(timeout_s=60))

    async def is_refused() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    async def is_said() -> bool:
        async with session.get(f"{node.admin}/readyz") as answer:
            return (answer.status, await answer.text()) == (503, "no worker runs\n")

    await eventually(is_refused, 15, node.describe)
    async with aiohttp.ClientSession() as session:
        await eventually(is_said, 15, node.describe)
    assert not stopping.done()
    os.kill(drain, signal.SIGCONT)
    assert await stopping == 0


async def test_whatever_dies_is_back(node: Node) -> None:
    """Worker, drain, sender, admin process, each killed once; afterwards a click arrives in the database as before."""
    for role in ("worker", "drain", "sender", "admin"):
        killed = node.kill(role)

        async def is_back(role: str = role, killed: int = killed) -> bool:
            return any(pid != killed for pid in node.pids(role))

        await eventually(is_back, 30, node.describe)
    await node.wait_ready()
    async with aiohttp.ClientSession() as session:
        click_id = await click(session, node)

    async def is_stored() -> bool:
        return bool(await node.fetch("SELECT FROM clicks WHERE click_id = $1", click_id))

    await eventually(is_stored, 30, node.describe)
    assert await node.metric("edge_process_starts_total", role="worker") == 2
    assert await node.stop(signal.SIGINT) == 0


async def test_nothing_outlives_a_killed_supervisor(make_node: Callable[..., Node]) -> None:
    """Workers, drain, admin process and PostgreSQL end with it; the next start has the click."""
    node = await mark(make_node()).start()
    async with aiohttp.ClientSession() as session:
        click_id = await click(session, node)
    assert await node.stop(signal.SIGKILL) == -signal.SIGKILL
    await eventually(lambda: is_gone(node), 30, lambda: str(survivors(node)))
    await node.start()

    async def is_stored() -> bool:
        return bool(await node.fetch("SELECT FROM clicks WHERE click_id = $1", click_id))

    await eventually(is_stored, 30, node.describe)
    assert await node.stop() == 0
