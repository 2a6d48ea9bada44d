"""One node under clients that mean no good: half requests, endless pipelines, garbage, guesses; and a database away.

Others are served meanwhile, memory stays, and the log says at most a few lines.
"""

import asyncio
import os
import re
import resource
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.faults.load import Outcome, Say, paced_clicks
from tests.faults.offers import catalog_text
from tests.faults.test_database_away import rss_kib
from tests.node import Node, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

HALF_OPEN = 1000
HEAD_S = 10
SWEEP_S = 1
GARBAGE = 10_000
FORGED = 10_000
LOG_INS = 1000
PIPELINED = 10_000
CONNECTIONS = 50
MAX_LINES = 10
AWAY_S = 8.0


@pytest.fixture(scope="module")
def catalog_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalog of the load."""
    path = tmp_path_factory.mktemp("hostile") / "catalog.toml"
    path.write_text(catalog_text())
    return path


@pytest.fixture
async def node(short_directory: Path, catalog_file: Path) -> AsyncIterator[Node]:
    """A node with one worker."""
    node = Node(short_directory / f"hostile-{uuid.uuid4().hex[:8]}", catalog=catalog_file)
    try:
        yield await node.start()
        assert await node.stop() == 0
    finally:
        await node.stop(signal.SIGKILL)


@asynccontextmanager
async def quiet(node: Node, most: int = MAX_LINES) -> AsyncIterator[None]:
    """All processes together may log so many lines meanwhile, and no traceback."""
    before = len(node.log_path.read_text().splitlines())
    yield
    said = node.log_path.read_text().splitlines()[before:]
    assert len(said) <= most, said[:20]
    assert "Traceback" not in "".join(said)


async def exchange(node: Node, data: bytes) -> bytes:
    """All that the port says to these bytes, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        writer.write(data)
        with suppress(ConnectionError):
            return await reader.read()
    finally:
        writer.close()
    return b""


def clicks(node: Node, prefix: str) -> "asyncio.Task[Outcome]":
    """Honest visitors, five hundred a second for three seconds."""
    return asyncio.create_task(paced_clicks(node.port, per_s=500, seconds=3, prefix=prefix, clients=8))


@pytest.mark.reliability(number=21)
async def test_a_thousand_half_open_heads_are_closed_and_slow_down_nobody(node: Node, say: Say) -> None:
    """Within ten seconds (and a sweep); who clicks meanwhile is answered as fast as before."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    await clicks(node, "warm")
    before = await clicks(node, "b")
    loop = asyncio.get_running_loop()

    async def hold() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        began_s = loop.time()
        writer.write(b"GET /aff_c?offer_id=1 HTTP/1.1\r\nHost: half")
        try:
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        finally:
            writer.close()
        return loop.time() - began_s

    async with quiet(node):
        holders = [asyncio.create_task(hold()) for _ in range(HALF_OPEN)]
        meanwhile = await clicks(node, "m")
        lasted_s = await asyncio.gather(*holders)
    p99_ms = [outcome.percentile_ms(0.99) for outcome in (before, meanwhile)]
    say(f"{HALF_OPEN} half heads closed after {max(lasted_s):.1f} s at most; p99 before {p99_ms[0]:.2f} ms, meanwhile {p99_ms[1]:.2f} ms")
    assert max(lasted_s) <= HEAD_S + SWEEP_S + 0.5
    assert before.others == meanwhile.others == []
    # A tenth, as promised, on a quiet machine; what a busy one adds by itself is far more.
    assert p99_ms[1] <= p99_ms[0] * 1.1 + 15


@pytest.mark.reliability(number=22)
async def test_ten_thousand_pipelined_requests_cost_no_memory(node: Node, say: Say) -> None:
    """Sent at once on one connection, answered one and all; the worker has grown by 10 MiB at most."""
    await exchange(node, b"GET /aff_c?offer_id=1&aff_id=1&aff_sub=m HTTP/1.1\r\nHost: x\r\n\r\n" * 3000 + b"x\r\n\r\n")
    [worker] = node.pids("worker")
    before_kib = rss_kib(worker)
    request = b"GET /aff_c?offer_id=1&aff_id=1&aff_sub=m HTTP/1.1\r\nHost: x\r\n\r\n"
    said = await exchange(node, request * (PIPELINED - 1) + request.replace(b"Host", b"Connection: close\r\nHost"))
    growth_mib = (rss_kib(worker) - before_kib) / 1024
    say(f"{PIPELINED} pipelined requests: the worker grew by {growth_mib:.1f} MiB")
    assert said.count(b"HTTP/1.1 302 Found\r\n") == PIPELINED
    assert growth_mib <= 10


@pytest.mark.reliability(number=23)
async def test_ten_thousand_malformed_requests_are_hardly_logged_and_not_echoed(node: Node) -> None:
    """Each gets a 400 that holds nothing of it, on a connection of its own."""
    forms = [
        b"GET /%s HTTP/1.1\r\n\r\n",
        b"%s\r\n\r\n",
        b"GET /aff_c HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n",
        b"POST /aff_lsr HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n",
        b"GET /aff_c HTTP/1.1\r\nHost: x\r\nX: \x01%s\r\n\r\n",
    ]

    async def send(first: int) -> None:
        for number in range(first, GARBAGE, CONNECTIONS):
            said = await exchange(node, forms[number % len(forms)] % b"Q7zX-mark")
            assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n"), said
            assert b"Q7zX" not in said

    async with quiet(node):
        await asyncio.gather(*map(send, range(CONNECTIONS)))


async def test_guesses_and_an_absent_database_are_hardly_logged(node: Node, say: Say) -> None:
    """10,000 forged ids, 1,000 wrong log-ins and API keys, eight seconds without PostgreSQL under load: a few lines each."""
    async with quiet(node):
        request = b"GET /aff_lsr?transaction_id=%032x HTTP/1.1\r\nHost: x\r\n\r\n"
        said = await exchange(node, b"".join(request % number for number in range(FORGED)) + b"x\r\n\r\n")
        assert said.count(b"success=false;") == FORGED
        stored = FORGED - int(await node.metric("edge_unstored_refusals_total"))
        say(f"{FORGED} forged ids: {stored} stored")
        assert 100 <= stored <= 100 + 10 * 60
    async with quiet(node), aiohttp.ClientSession(node.admin) as session:
        statuses = set()
        for number in range(LOG_INS):
            async with session.post("/login", data={"key": f"ce_guess{number}"}) as answer:
                statuses.add(answer.status)
            async with session.get("/api/v1/whoami", headers={"Authorization": f"Bearer ce_{number}"}) as answer:
                statuses.add(answer.status)
        assert statuses == {401, 429}
    before = len(node.log_path.read_text().splitlines())
    [postmaster] = node.pids("postgres")
    loading = asyncio.create_task(paced_clicks(node.port, per_s=200, seconds=AWAY_S, prefix="away", clients=4))
    signal_all(node, postmaster, signal.SIGSTOP)
    outcome = await loading
    signal_all(node, postmaster, signal.SIGCONT)
    node.kill("postgres")
    assert outcome.others == []

    async def is_whole() -> bool:
        return "database_died" in node.describe() and len(node.pids("postgres")) == 1

    await eventually(is_whole, 30, node.describe)
    await node.wait_ready()
    lines = node.log_path.read_text().splitlines()[before:]
    events = re.findall(r'"event":"(\w+)"', "\n".join(lines))
    say(f"PostgreSQL hung for {AWAY_S:.0f} s, then died: {len(lines)} lines: {' '.join(events)}")
    assert len(lines) <= 4 * MAX_LINES
    # What a library says of a connection that was cut under it is its own; those who answer the public have none.
    assert [line for line in lines if "Traceback" in line and '"role":"worker"' in line] == []


def signal_all(node: Node, postmaster: int, number: int) -> None:
    """To PostgreSQL and every process of it."""
    for pid in [postmaster, *node.backends()]:
        os.kill(pid, number)
