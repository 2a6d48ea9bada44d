"""An edge's disk lost, and everything replaced in turn."""

import asyncio
import time

from benchmarks.cluster.faults.processes import BACK_S
from benchmarks.cluster.faults.servers import STREAM, until_events_flow
from benchmarks.cluster.programs import Edge, eventually
from benchmarks.cluster.progress import journal_ends, unstored
from benchmarks.cluster.scene import Scene
from benchmarks.scraping import total
from benchmarks.soak.node import SoakFailed

IDLE_S, REFUSED_S = 60.0, 60.0
BETWEEN_S = 1.0


async def restart_in_turn(scene: Scene) -> str:
    """Edges by SIGHUP, drains and NATS servers ended and started, one at a time: no request may fail."""
    began_s = time.monotonic()
    for edge in scene.parts.edges:
        await _reload(edge)
    for drain in scene.parts.drains:
        if (code := await drain.stop()) != 0:
            raise SoakFailed(f"{drain.name} ended with code {code}")
        drain.launch()
        await drain.wait_ready(BACK_S)
    for server in scene.parts.nats.servers:
        server.stop()
        server.launch()
        await scene.parts.nats.wait_ready(STREAM, BACK_S)
    took_s = await until_events_flow(scene)
    return f"after {time.monotonic() - began_s:.0f} s everything is another process; all stored {took_s:.1f} s after"


async def _reload(edge: Edge) -> None:
    before = {pid for role in edge.expected for pid in edge.pids(role)}
    edge.reload()

    async def are_others() -> bool:
        now = {pid for role in edge.expected for pid in edge.pids(role)}
        return not now & before and await edge.is_well()

    await eventually(are_others, 120, f"{edge.name} did not replace its processes")


async def lose_idle_disk(scene: Scene) -> str:
    """Nothing is sent to it, all it has is stored; its machine and disk are gone, an empty one takes its place."""
    edge = scene.parts.edges[1]
    scene.load.leave(edge.number)
    try:
        await eventually(lambda: _is_left(scene, edge), IDLE_S, f"{edge.name} is still visited")
        await eventually(lambda: _is_stored(scene, edge), IDLE_S, f"{edge.name} has more than is stored")
        said = await _lose_disk(scene, edge)
    finally:
        scene.load.come_back(edge.number)
    return said


async def _is_left(scene: Scene, edge: Edge) -> bool:
    return not scene.load.is_visiting(edge.number)


async def _is_stored(scene: Scene, edge: Edge) -> bool:
    conn = await scene.parts.connect()
    try:
        return not await unstored(conn, journal_ends(edge.data_dir))
    finally:
        await conn.close()


async def lose_busy_disk(scene: Scene) -> str:
    """In the middle of the load; with `replicated`, what was answered is on other machines."""
    edge = scene.parts.edges[0]
    replicated, fallen_back = await _replicated(edge)
    if not replicated:
        raise SoakFailed(f"{edge.name} has replicated no answer")
    await eventually(lambda: _stays_replicated(edge), BACK_S, f"{edge.name} falls back to its disk all the time")
    said = await _lose_disk(scene, edge)
    return f"{replicated:.0f} answers had waited for the stream, {fallen_back:.0f} had fallen back to its disk before; {said}"


async def _replicated(edge: Edge) -> tuple[float, float]:
    """(answers that waited for the stream, those that left after an fsync instead)."""
    page = await edge.metrics()
    return total(page, "edge_replicated_answers_total"), total(page, "edge_replication_fallbacks_total")


async def _stays_replicated(edge: Edge) -> bool:
    """For a second and a half: what falls back is on one disk alone until it is shipped, and so it is documented."""
    before = await _replicated(edge)
    await asyncio.sleep(1.5)
    after = await _replicated(edge)
    return after[0] > before[0] and after[1] == before[1]


async def _lose_disk(scene: Scene, edge: Edge) -> str:
    """An empty machine is refused the node's number until the operator releases it; its journals are then closed."""
    await scene.count(edge)
    journals = list(journal_ends(edge.data_dir))
    await edge.kill_all()
    edge.lose_disk()
    edge.launch()
    await eventually(lambda: _is_refused(edge), REFUSED_S, f"{edge.name} began on an empty disk as if nothing had been")
    await until_read(scene)
    closed = await release(scene, edge.number)
    if edge.is_up:
        await edge.stop()
    edge.launch()
    await edge.wait_ready(BACK_S)
    return f"refused until its number was released; {closed} of {len(journals)} journals closed; it serves again"


async def _is_refused(edge: Edge) -> bool:
    return "DELETE FROM nodes" in edge.last_words() and not edge.is_up


async def until_read(scene: Scene) -> None:
    """Until the drains have stored all that the stream holds at this moment: what the lost machine had shipped too."""
    leader = await scene.parts.nats.leader(STREAM)
    last = await leader.last_sequence(STREAM)

    async def is_read() -> bool:
        return bool(await scene.stored("SELECT min(sequence) >= $1 FROM stream_partitions", last))

    await eventually(is_read, 60, f"the stream is not stored up to its message {last}")


async def release(scene: Scene, node_id: int) -> int:
    """The operator's part, once the machine is gone for good and all it had shipped is stored; how many journals it closed.

    The number may be leased again, and nobody waits any more for what its journals may have had beyond.
    """
    conn = await scene.parts.connect()
    try:
        async with conn.transaction():
            await conn.execute("DELETE FROM nodes WHERE node_id = $1", node_id)
            await conn.execute(
                "UPDATE stream_positions SET finished_at = now() WHERE finished_at IS NULL AND journal_id IN"
                " (SELECT journal_id FROM journal_positions WHERE node_id = $1)",
                node_id,
            )
            closed = await conn.fetch(
                "UPDATE journal_positions SET finished_at = now() WHERE finished_at IS NULL AND node_id = $1"
                " RETURNING journal_id",
                node_id,
            )
    finally:
        await conn.close()
    await asyncio.sleep(BETWEEN_S)
    return len(closed)
