"""One mode, from the first process to the last count."""

import asyncio
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cluster.database import DatabaseFailed
from benchmarks.cluster.faults.plan import Fault, Mode
from benchmarks.cluster.load import Load
from benchmarks.cluster.parts import Parts
from benchmarks.cluster.reckoning import ask_of_stream, settle_and_reckon
from benchmarks.cluster.scene import Scene
from benchmarks.nats import NatsFailed
from benchmarks.soak import ledger
from benchmarks.soak.catalog import catalog_text
from benchmarks.soak.node import SoakFailed
from benchmarks.soak.partners import Listener, listening_partners
from benchmarks.soak.reckoning import Reckoning
from storage.errors import StorageError

WARM_UP_S, CALM_S, HEALED_S = 4.0, 2.0, 120.0
FAILURES = (SoakFailed, NatsFailed, DatabaseFailed, StorageError)


@dataclass
class Struck:
    """One fault as it was: from `began_s` to `well_s` (Unix time), when the cluster was whole again."""

    fault: Fault
    began_s: float
    well_s: float = 0.0
    saw: str = ""
    failure: str = ""


@dataclass
class Run:
    """All that is known of one mode at the end."""

    mode: Mode
    directory: Path
    struck: list[Struck] = field(default_factory=list)
    books: list[dict[str, ledger.Entry]] = field(default_factory=list)
    """What was sent to each edge; last what faults sent themselves."""
    reckoning: Reckoning = field(default_factory=Reckoning)
    stream: str = ""
    """What `clickedge stream` said in the end."""
    failures: list[str] = field(default_factory=list)
    """Of the run itself: a part that did not start, heal or end."""
    seconds: float = 0.0


async def run(mode: Mode, directory: Path, rate_per_s: int, seed: int) -> Run:
    """Start, load, hurt, count, end."""
    found = Run(mode, directory)
    began_s = time.monotonic()
    try:
        async with listening_partners() as partners:
            catalog = directory / "catalog.toml"
            catalog.write_text(catalog_text([one.origin for one in partners]), encoding="utf-8")
            async with Parts(directory, catalog, settings=mode.settings) as parts:
                await _hurt_and_count(found, parts, partners, catalog, rate_per_s, seed)
    except FAILURES as error:
        found.failures.append(str(error))
    found.seconds = time.monotonic() - began_s
    return found


async def _hurt_and_count(
    found: Run, parts: Parts, partners: list[Listener], catalog: Path, rate_per_s: int, seed: int
) -> None:
    load = Load(parts.edges, catalog, found.directory, rate_per_s, seed)
    scene = Scene(parts, load, partners, found.directory, random.Random(seed))
    load.start()
    try:
        await asyncio.sleep(WARM_UP_S)
        for fault in found.mode.faults:
            await _strike(found, scene, fault)
        await asyncio.sleep(CALM_S)
    finally:
        await asyncio.to_thread(load.stop)
        found.books = scene.books()
    found.reckoning = await settle_and_reckon(scene)
    found.stream = await ask_of_stream(parts)


async def _strike(found: Run, scene: Scene, fault: Fault) -> None:
    scene.load.check()
    struck = Struck(fault, time.time())
    found.struck.append(struck)
    try:
        struck.saw = await fault.strike(scene)
    except Exception as error:
        struck.failure = f"{type(error).__name__}: {error}"
    try:
        await scene.parts.wait_until_well(HEALED_S)
    except FAILURES as error:
        struck.failure = struck.failure or str(error)
        raise
    finally:
        struck.well_s = time.time()
        line = f"{struck.well_s - struck.began_s:5.0f} s  {fault.name}: {struck.failure or struck.saw}"
        print(line, flush=True)
    await asyncio.sleep(CALM_S)


def judge(found: Run) -> list[str]:
    """A line for whatever must not be; empty: all is well."""
    faults = [*found.failures, *found.reckoning.faults]
    faults += [f"{one.fault.name}: {one.failure}" for one in found.struck if one.failure]
    for number, book in enumerate(found.books[:-1]):
        for name, entries in _by_phase(found.struck, book.values()).items():
            allowed = next((one.fault.unanswered for one in found.struck if one.fault.name == name), frozenset[int]())
            unanswered = sum(one.outcome == ledger.UNANSWERED for one in entries)
            refused = sum(one.outcome == ledger.REFUSED for one in entries)
            if unanswered and number not in allowed:
                faults.append(f"{name}: {unanswered} requests to edge {number} were not answered")
            if refused:
                faults.append(f"{name}: {refused} conversions at edge {number} were refused")
    return faults


def _by_phase(struck: list[Struck], entries: Iterable[ledger.Entry]) -> dict[str, list[ledger.Entry]]:
    """By the fault during which they were under way, else "without a fault"."""
    found: dict[str, list[ledger.Entry]] = {}
    for entry in entries:
        ended_s = entry.answered_s if entry.answered_s == entry.answered_s else entry.sent_s
        name = next(
            (one.fault.name for one in struck if entry.sent_s <= one.well_s and ended_s >= one.began_s), "without a fault"
        )
        found.setdefault(name, []).append(entry)
    return found


def costs(found: Run) -> dict[str, dict[str, float]]:
    """By fault: requests, those unanswered, and the slowest hundredth of the answers, in milliseconds."""
    entries = [one for book in found.books[:-1] for one in book.values()]
    table = {}
    for name, those in _by_phase(found.struck, entries).items():
        took = sorted(one.took_ms for one in those if one.outcome == ledger.OK) or [0.0]
        table[name] = {
            "requests": len(those),
            "unanswered": sum(one.outcome == ledger.UNANSWERED for one in those),
            "p50_ms": round(took[len(took) // 2], 1),
            "p99_ms": round(took[int(len(took) * 0.99)], 1),
            "max_ms": round(took[-1], 1),
        }
    return table
