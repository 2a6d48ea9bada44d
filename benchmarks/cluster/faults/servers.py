"""NATS servers and PostgreSQL killed, cut off, and away for a while."""

import asyncio
import time
from uuid import UUID

from benchmarks.cluster.progress import Place, ends_of, stored_events, unstored
from benchmarks.cluster.reckoning import wait_until_stored
from benchmarks.cluster.scene import Scene
from benchmarks.nats import NatsServer
from benchmarks.soak.node import SoakFailed
from storage.journal.capacity import undrained_bytes

STREAM = "CLICKEDGE"
GOES_ON_S = 60.0
DOWN_S = 3.0
CUT_OFF_S = 15.0
AWAY_S = 20.0


async def kill_each_nats(scene: Scene) -> str:
    """One after the other, the stream's leader first; each comes back before the next one goes."""
    leader = await scene.parts.nats.leader(STREAM)
    servers = sorted(scene.parts.nats.servers, key=lambda one: one is not leader)
    took = [await _kill_nats(scene, server) for server in servers]
    return f"leader {leader.name} first; events were stored again after {', '.join(f'{one:.1f}' for one in took)} s"


async def _kill_nats(scene: Scene, server: NatsServer) -> float:
    server.kill()
    try:
        if await server.monitor("varz"):
            raise SoakFailed(f"{server.name} was killed and still answers")
        took_s = await until_events_flow(scene)
        await asyncio.sleep(DOWN_S)
    finally:
        server.launch()
    await scene.parts.nats.wait_ready(STREAM, GOES_ON_S)
    return took_s


async def until_events_flow(scene: Scene) -> float:
    """Until what the journals hold at this moment is stored; how long that took."""
    return await wait_until_stored(scene.parts, GOES_ON_S)


async def cut_off_nats(scene: Scene) -> str:
    """The stream's leader neither reads nor says anything, its connections stay open."""
    server = await scene.parts.nats.leader(STREAM)
    server.pause()
    try:
        began_s = time.monotonic()
        if await server.monitor("varz"):
            raise SoakFailed(f"{server.name} was stopped and still answers")
        took_s = await until_events_flow(scene)
        await asyncio.sleep(max(0.0, CUT_OFF_S - (time.monotonic() - began_s)))
        other = await scene.parts.nats.leader(STREAM)
    finally:
        server.resume()
    await scene.parts.nats.wait_ready(STREAM, GOES_ON_S)
    return f"{server.name} led, then {other.name}; events were stored again after {took_s:.1f} s"


async def lose_majority(scene: Scene) -> str:
    """Two of three away: edges answer and their journals grow, everything arrives once they are back."""
    away = scene.parts.nats.servers[:2]
    before = sum(undrained_bytes(edge.data_dir / "journal") for edge in scene.parts.edges)
    for server in away:
        server.kill()
    try:
        await _see_nothing_stored(scene)
    finally:
        for server in away:
            server.launch()
    grown = sum(undrained_bytes(edge.data_dir / "journal") for edge in scene.parts.edges) - before
    if grown <= 0:
        raise SoakFailed("two NATS servers were killed, and the journals did not grow")
    await scene.parts.nats.wait_ready(STREAM, GOES_ON_S)
    took_s = await until_events_flow(scene)
    return f"{grown / 1024:.0f} KiB waited in the journals; all of it stored {took_s:.1f} s after the servers were well"


async def _see_nothing_stored(scene: Scene) -> None:
    """In the second half of the time: what was acknowledged before is stored by then."""
    await asyncio.sleep(AWAY_S / 2)
    ends, before = ends_of(scene.parts.edges), await _stored(scene)
    await asyncio.sleep(AWAY_S / 2)
    stored = await _stored(scene) - before
    if stored or not await _is_behind(scene, ends):
        raise SoakFailed(f"two NATS servers were killed, and {stored} events were stored all the same")


async def _stored(scene: Scene) -> int:
    conn = await scene.parts.connect()
    try:
        return await stored_events(conn)
    finally:
        await conn.close()


async def _is_behind(scene: Scene, ends: dict[UUID, Place]) -> bool:
    conn = await scene.parts.connect()
    try:
        return bool(await unstored(conn, ends))
    finally:
        await conn.close()


async def kill_database(scene: Scene) -> str:
    """Its main process: a crash, and recovery from its own log."""
    database = scene.parts.database
    before = database.pid
    await database.kill()
    if await database.answers():
        raise SoakFailed("PostgreSQL was killed and still takes connections")
    await asyncio.sleep(DOWN_S)
    await database.start()
    took_s = await until_events_flow(scene)
    return f"process {before} is {database.pid}; events were stored again {took_s:.1f} s after it took connections"
