"""Clients that mean no good: connections that never finish a request, and keys guessed."""

import asyncio
import os
from collections import Counter
from contextlib import suppress

import aiohttp

from benchmarks.soak.node import SoakFailed, SoakNode, eventually
from benchmarks.soak.scene import Scene

CONNECTIONS = 1_000
HEAD_DEADLINE_S = 10.0
CLOSED_S = HEAD_DEADLINE_S + 20.0
GUESSES, GUESSERS = 300, 6
_PART = b"GET /aff_c?offer_id=1&aff_id=1 HTTP/1.1\r\nHost: edge.test\r\nX-Slow: "
_HTTP = aiohttp.ClientTimeout(total=10)


async def leave_half_open(scene: Scene) -> str:
    """Each from one of 250 addresses; the node must hold them all and end them at the head's deadline."""
    before = _descriptors(scene.node)
    streams = await asyncio.gather(*(_begin(scene.node.port, number) for number in range(CONNECTIONS)))
    try:
        held = await _await_held(scene.node, before)
        closed = await asyncio.gather(*(_await_end(reader) for reader, _ in streams))
    finally:
        for _, writer in streams:
            writer.close()
    if not all(closed):
        raise SoakFailed(f"{closed.count(False)} of {CONNECTIONS} connections were still open after {CLOSED_S:.0f} s")
    return f"{held} held, all ended by the workers"


async def _await_held(node: SoakNode, before: int) -> int:
    """How many more descriptors the workers have now; SoakFailed when that are too few."""

    async def are_held() -> bool:
        return _descriptors(node) - before > CONNECTIONS * 0.9

    await eventually(are_held, HEAD_DEADLINE_S - 1, f"the workers do not hold {CONNECTIONS} more connections")
    return _descriptors(node) - before


async def _begin(port: int, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.1.0.{number % 250 + 1}", 0))
    writer.write(_PART)
    return reader, writer


async def _await_end(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionError):
        try:
            async with asyncio.timeout(CLOSED_S):
                await reader.read()
        except TimeoutError:
            return False
    return True


def _descriptors(node: SoakNode) -> int:
    """Open ones of all workers; the load's own connections come and go by a few."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in node.pids("worker"))


async def guess_keys(scene: Scene) -> str:
    """Wrong keys from a few addresses; none gets in, each address is soon told to wait, and the right key still works."""
    async with aiohttp.ClientSession(timeout=_HTTP) as session:
        answers: Counter[int] = Counter()
        for number in range(GUESSES):
            for status in await _guess(session, scene.node, number):
                answers[status] += 1
        right = await _ask_api(session, scene.node, _admin_token(scene.node), "127.0.0.1")
    if set(answers) != {401, 429} or right != 200:
        raise SoakFailed(f"guesses were answered with {dict(answers)}, the right key with {right}")
    return f"{answers[401]} guesses were wrong, {answers[429]} not even looked at; the right key got in"


async def _guess(session: aiohttp.ClientSession, node: SoakNode, number: int) -> tuple[int, int]:
    """Both ways in."""
    address, key = f"203.0.113.{number % GUESSERS + 1}", f"guess-{number}"
    headers = {"X-Forwarded-For": address}
    async with session.post(
        f"{node.admin}/login", data={"key": key}, headers=headers, allow_redirects=False
    ) as answer:
        form = answer.status
    return form, await _ask_api(session, node, key, address)


async def _ask_api(session: aiohttp.ClientSession, node: SoakNode, key: str, address: str) -> int:
    headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": address}
    async with session.get(f"{node.admin}/api/v1/whoami", headers=headers) as answer:
        return answer.status


def _admin_token(node: SoakNode) -> str:
    return (node.data_dir / "admin.token").read_text().strip()
