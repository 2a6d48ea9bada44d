"""The soak's reckoning for several edges: all ledgers against the one database, and the stream itself."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from benchmarks.cluster.parts import Parts
from benchmarks.cluster.programs import COMMAND
from benchmarks.cluster.progress import AWAY, ends_of, unstored
from benchmarks.cluster.scene import Scene
from benchmarks.soak.ledger import Entry
from benchmarks.soak.node import SoakFailed
from benchmarks.soak.reckoning import Reckoning, _is_told, reckon

STORED_S, TOLD_S = 120.0, 120.0


async def settle_and_reckon(scene: Scene) -> Reckoning:
    """Wait until all that was answered is stored and partners have heard, then count."""
    parts = scene.parts
    stored_after_s = await wait_until_stored(parts)
    await _wait(parts, _untold, TOLD_S)
    await scene.count_all()
    told: Counter[str] = Counter()
    for partner in scene.partners:
        told.update(partner.told)
    entries: dict[str, Entry] = {mark: one for book in scene.books() for mark, one in book.items()}
    conn = await parts.connect()
    try:
        found = await reckon(
            conn, entries, dropped=scene.dropped, unstored=scene.unstored, told=told, over_nodes=True
        )
    finally:
        await conn.close()
    found.stored_after_s = round(stored_after_s, 1)
    return found


async def wait_until_stored(parts: Parts, timeout_s: float = STORED_S) -> float:
    """Until all that the edges' journals hold now is in PostgreSQL and no conversion waits; how long that took."""
    ends = ends_of(parts.edges)

    async def missing(conn: object) -> str:
        if faults := await unstored(conn, ends):
            return "; ".join(faults)
        waiting = await conn.fetchval("SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL")  # type: ignore[attr-defined]
        return f"{waiting} conversions wait for their click" if waiting else ""

    return await _wait(parts, missing, timeout_s)


async def _untold(conn: object) -> str:
    return "" if await _is_told(conn) else "partners' postbacks are still to be sent"


async def _wait(parts: Parts, missing: Callable[[object], Awaitable[str]], timeout_s: float) -> float:
    began_s, fault = time.monotonic(), "the database is away"
    while True:
        try:
            conn = await parts.connect()
            try:
                fault = await missing(conn)
            finally:
                conn.terminate()
        except AWAY as error:
            fault = f"the database is away: {error!r}"
        if not fault:
            return time.monotonic() - began_s
        if time.monotonic() - began_s > timeout_s:
            raise SoakFailed(f"after {timeout_s:.0f} s {fault}")
        await asyncio.sleep(0.2)


async def ask_of_stream(parts: Parts) -> str:
    """What `clickedge stream` prints. SoakFailed when it fails."""
    env = {**os.environ, **parts.settings, "EDGE_NODE_ID": "0"}
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), "stream", env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode(errors="replace")
    if process.returncode:
        raise SoakFailed(f"`clickedge stream` ended with code {process.returncode}: {said[-1500:]}")
    return said
