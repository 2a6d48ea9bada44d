"""Processes of the edges and drains killed; and a postback at one edge before the click at the other was shipped."""

import asyncio
import os
import re
import signal
import time
from typing import Any
from uuid import UUID

import aiohttp

from benchmarks.cluster.faults.servers import until_events_flow
from benchmarks.cluster.programs import DrainProgram, Edge, eventually
from benchmarks.cluster.progress import leases
from benchmarks.cluster.scene import Scene
from benchmarks.soak.ledger import OK
from benchmarks.soak.node import SoakFailed

BACK_S, TAKEN_S, MAX_TAKEOVER_S = 60.0, 30.0, 10.0
UNSHIPPED_S = 3.0
_ID = re.compile(r"\b[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}\b")


async def kill_each_drain(scene: Scene) -> str:
    """All processes of one `clickedge drain`, as if its machine was gone: the other takes over its partitions."""
    took = [await _kill_drain(scene, drain) for drain in scene.parts.drains]
    if max(took) > MAX_TAKEOVER_S:
        raise SoakFailed(f"partitions were taken over after {max(took):.1f} s")
    return f"taken over after {', '.join(f'{one:.1f}' for one in took)} s"


async def _kill_drain(scene: Scene, drain: DrainProgram) -> float:
    """Seconds until all its partitions had another owner."""
    await _until_shared(scene)
    conn = await scene.parts.connect()
    try:
        before = await _owners(conn)
        began_s = time.monotonic()
        await drain.kill_all()

        async def is_taken() -> bool:
            now = await _owners(conn)
            return len(now) == len(before) and len(set(now.values())) == len(set(before.values())) - 1

        await eventually(is_taken, TAKEN_S, f"the partitions of {drain.name} have no other owner", 0.05)
        took_s = time.monotonic() - began_s
        await until_events_flow(scene)
    finally:
        await conn.close()
        drain.launch()
    await drain.wait_ready(BACK_S)
    await _until_shared(scene)
    return took_s


async def _until_shared(scene: Scene) -> None:
    """Until all partitions are owned, and as many drains own some as run."""
    conn = await scene.parts.connect()
    try:

        async def are_shared() -> bool:
            owners = await _owners(conn)
            return len(owners) == len(await leases(conn)) > 0 and len(set(owners.values())) == len(scene.parts.drains)

        await eventually(are_shared, BACK_S, "the partitions are not shared by all drains", 0.2)
    finally:
        await conn.close()


async def _owners(conn: Any) -> dict[int, UUID]:
    """Of each partition that somebody drains now."""
    return {number: lease.owner for number, lease in (await leases(conn)).items() if lease.owner}


async def kill_drain_processes(scene: Scene) -> str:
    """The process alone, perhaps within a transaction; its parent starts another one."""
    return await _kill_role(scene, "drain", scene.parts.drains)


async def kill_workers(scene: Scene) -> str:
    """Of each edge; its journal ends where it was."""
    return await _kill_role(scene, "worker", scene.parts.edges)


async def kill_shippers(scene: Scene) -> str:
    """Of each edge, with shipments on their way."""
    return await _kill_role(scene, "shipper", scene.parts.edges)


async def _kill_role(scene: Scene, role: str, programs: list[Edge] | list[DrainProgram]) -> str:
    said = []
    for program in programs:
        before = await program.kill_role(role)
        await program.wait_ready(BACK_S)
        [after] = program.pids(role)
        said.append(f"{before} is {after}")
    took_s = await until_events_flow(scene)
    return f"{', '.join(said)}; all stored {took_s:.1f} s after"


async def kill_edges(scene: Scene) -> str:
    """The whole supervisor of one edge after the other: its children end with it."""
    for edge in scene.parts.edges:
        await scene.count(edge)
        await edge.kill_supervisor()
        if await edge.metrics():
            raise SoakFailed(f"{edge.name} was killed and still answers")
        await asyncio.sleep(1)
        edge.launch()
        await edge.wait_ready(BACK_S)
    took_s = await until_events_flow(scene)
    return f"both started again; all stored {took_s:.1f} s after"


async def convert_before_the_click(scene: Scene) -> str:
    """The click's edge does not ship; the postback at the other edge is answered and waits, then earns, once."""
    here, there = scene.parts.edges
    [shipper] = here.pids("shipper")
    os.kill(shipper, signal.SIGSTOP)
    try:
        click_id = await _click(scene, here)
        mark = await _convert(scene, there, click_id)
        await asyncio.sleep(UNSHIPPED_S)
        early = await _verdicts(scene, mark)
        if early != 0:
            raise SoakFailed(f"the conversion was decided before its click was there: {early} earn")
    finally:
        os.kill(shipper, signal.SIGCONT)

    async def is_decided() -> bool:
        return await _verdicts(scene, mark) == 1

    took_s = await eventually(is_decided, BACK_S, "the conversion does not earn")
    return f"answered at once, waited {UNSHIPPED_S:.0f} s for its click, earned {took_s:.1f} s after that was shipped"


async def _verdicts(scene: Scene, mark: str) -> object:
    return await scene.stored("SELECT count(*) FROM conversions WHERE adv_sub4 = $1 AND status = 'approved'", mark)


async def _click(scene: Scene, edge: Edge) -> str:
    mark, began_s = scene.mark(), time.time()
    scene.ledger.sent(mark, "clicks", began_s)
    target = f"{edge.origin}/aff_c?offer_id=1&aff_id=1&aff_sub4={mark}"
    async with aiohttp.ClientSession() as session, session.get(target, allow_redirects=False) as answer:
        found = _ID.search(answer.headers.get("Location", ""))
    if found is None:
        raise SoakFailed(f"a click was answered with {answer.status}")
    scene.ledger.answered(mark, OK, time.time(), (time.time() - began_s) * 1000, found[0])
    return found[0]


async def _convert(scene: Scene, edge: Edge, click_id: str) -> str:
    mark, began_s = scene.mark(), time.time()
    scene.ledger.sent(mark, "conversions approved", began_s, f"{click_id}/")
    target = f"{edge.origin}/aff_lsr?transaction_id={click_id}&adv_sub4={mark}&amount=10"
    async with aiohttp.ClientSession() as session, session.get(target) as answer:
        said = await answer.text()
    if said != "success=true;":
        raise SoakFailed(f"a postback was answered with {answer.status} {said[:100]!r}")
    scene.ledger.answered(mark, OK, time.time(), (time.time() - began_s) * 1000)
    return mark
