"""One soak, from the first process to the last count."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from benchmarks.scraping import read_page, total
from benchmarks.soak import ledger
from benchmarks.soak.catalog import catalog_text
from benchmarks.soak.faults.processes import can_reload
from benchmarks.soak.load import Load
from benchmarks.soak.node import SoakFailed, SoakNode
from benchmarks.soak.partners import listening_partners
from benchmarks.soak.plan import CALM_S, FAULTS, Fault, schedule
from benchmarks.soak.reckoning import Reckoning, reckon, wait_until_stored, wait_until_told
from benchmarks.soak.scene import Scene
from benchmarks.soak.watch import Watch

HOLD_S = 8.0
WARM_UP_S = 3.0


@dataclass
class Struck:
    """One fault as it was: from `began_s` to `well_s` (Unix time), when the node was whole and had caught up again."""

    fault: Fault
    began_s: float
    well_s: float = 0.0
    saw: str = ""
    failure: str = ""


@dataclass
class Soak:
    """All that is known at the end."""

    rate_per_s: int
    began_s: float = 0.0
    ended_s: float = 0.0
    struck: list[Struck] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    entries: dict[str, ledger.Entry] = field(default_factory=dict)
    watch: Watch | None = None
    reckoning: Reckoning = field(default_factory=Reckoning)
    exit_code: int | None = None
    failures: list[str] = field(default_factory=list)
    """Of the soak itself: a fault that was not felt, a node that did not heal or end."""


async def soak(
    minutes: float, rate_per_s: int, seed: int, directory: str, only: Sequence[str] | None = None
) -> tuple[Soak, SoakNode]:
    """Start, load, hurt, count, end; the node's directory is left for who wants to look. `only`: names of faults."""
    found = Soak(rate_per_s)
    faults = [fault for fault in FAULTS if not only or fault.name in only]
    async with listening_partners() as partners:
        scratch = Path(directory)
        catalog = scratch / f"soak-catalog-{seed}.toml"
        catalog.write_text(catalog_text([one.origin for one in partners]), encoding="utf-8")
        node = SoakNode(catalog, directory)
        scene = Scene(node, partners, node.directory, random.Random(seed), HOLD_S)
        try:
            await asyncio.to_thread(node.__enter__)
            try:
                await _run(found, scene, minutes, seed, faults)
            finally:
                await asyncio.to_thread(node.__exit__)
        finally:
            catalog.unlink(missing_ok=True)
    found.exit_code = node.exit_code
    return found, node


async def _run(found: Soak, scene: Scene, minutes: float, seed: int, faults: Sequence[Fault]) -> None:
    node = scene.node
    await node.wait_until_well()
    found.watch = Watch(node)
    watching = asyncio.create_task(found.watch.run())
    try:
        load = Load(node, node.directory, found.rate_per_s, seed)
        await asyncio.to_thread(load.__enter__)
        try:
            await asyncio.sleep(WARM_UP_S)
            found.began_s = time.time()
            await _hurt(found, scene, load, minutes, faults)
            found.ended_s = time.time()
        finally:
            await asyncio.to_thread(load.__exit__)
        await _reckon(found, scene)
    except SoakFailed as error:
        found.failures.append(str(error))
    finally:
        found.ended_s = found.ended_s or time.time()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        found.entries = found.entries or ledger.read(node.directory.glob("*.ledger"))


async def _hurt(found: Soak, scene: Scene, load: Load, minutes: float, faults: Sequence[Fault]) -> None:
    """One fault after the other, never two at a time; one that takes long puts off the next."""
    possible = [fault for fault in faults if fault.name != "restart" or can_reload(scene.node)]
    found.left_out = [fault.name for fault in FAULTS if fault not in possible]
    for due_s, fault in schedule(minutes, scene.chance, possible):
        await asyncio.sleep(max(0.0, found.began_s + due_s - time.time()))
        load.check()
        struck = Struck(fault, time.time())
        found.struck.append(struck)
        await _strike(struck, scene)
        print(f"{struck.began_s - found.began_s:6.0f} s  {fault.name}: {struck.failure or struck.saw}", flush=True)
    await asyncio.sleep(max(CALM_S, found.began_s + minutes * 60 - time.time()))
    load.check()


async def _strike(struck: Struck, scene: Scene) -> None:
    try:
        struck.saw = await struck.fault.strike(scene)
    except Exception as error:
        struck.failure = f"{type(error).__name__}: {error}"
    try:
        await scene.node.wait_until_well()
    except SoakFailed as error:
        struck.failure = struck.failure or str(error)
    struck.well_s = time.time()


async def _reckon(found: Soak, scene: Scene) -> None:
    node = scene.node
    stored_after_s = await wait_until_stored(node)
    await wait_until_told(node)
    page = await asyncio.to_thread(read_page, node)
    told: Counter[str] = Counter()
    for partner in scene.partners:
        told.update(partner.told)
    found.entries = ledger.read(node.directory.glob("*.ledger"))
    conn = await asyncpg.connect(node.database_url)
    try:
        found.reckoning = await reckon(
            conn,
            found.entries,
            dropped=int(total(page, "edge_events_dropped_total")),
            unstored=int(total(page, "edge_unstored_refusals_total")),
            told=told,
        )
    finally:
        await conn.close()
    found.reckoning.stored_after_s = round(stored_after_s, 1)
