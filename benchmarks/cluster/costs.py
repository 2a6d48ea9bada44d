"""What a click costs in each part of a cluster, and how much more two edges or two drains do than one.

One cluster runs through; rounds take turns between the layouts, every second one backwards. A round sends varied clicks
as fast as they are answered, to one edge or to both, and ends when all of them are in PostgreSQL. All parts and the client
share this machine's cores: what two of a kind bring is seen in CPU time a click, not in the rate, which the cores bound.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cluster.parts import Parts
from benchmarks.cluster.programs import Edge, eventually
from benchmarks.cluster.progress import leases
from benchmarks.cluster.reckoning import wait_until_stored
from benchmarks.peers.loads import SCRIPT
from benchmarks.report import publish, surroundings
from benchmarks.scraping import total
from benchmarks.serving import _descendants, run_wrk
from benchmarks.traffic import catalog_text

SUMMARY = "CPU of a click in each part of a cluster; 1 and 2 edges, 1 and 2 drains"
LAYOUTS = ((1, 1), (2, 1), (1, 2), (2, 2))
"""Edges that get clicks, drains that run."""
COMPONENTS = ("worker", "shipper", "NATS leader", "NATS followers", "drain", "PostgreSQL", "rest")
PATH = "/aff_c?offer_id=17&aff_id=2"
SETTLED_S = 120.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Round(NamedTuple):
    """`cpu_s`: by component, from the first click to the last stored row."""

    clicks: int
    answering_s: float
    storing_s: float
    cpu_s: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=5, help="of all layouts in turn (default: 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of clicks in a round (default: 2)")
    parser.add_argument("--connections", type=int, default=32, help="to each edge (default: 32)")
    parser.add_argument("--directory", default="/var/tmp", help="for all data: on a real disk")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and keep the result."""
    facts = surroundings()
    directory = Path(tempfile.mkdtemp(prefix="clickedge-bench-", dir=arguments.directory))
    directory.chmod(0o711)
    try:
        rounds = asyncio.run(_measure(directory, arguments))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    settings = {name: getattr(arguments, name) for name in ("rounds", "seconds", "connections")}
    layouts = {f"{edges} edges, {drains} drains": _figures(rounds, (edges, drains)) for edges, drains in LAYOUTS}
    publish("cluster", {**facts, **settings, "shared_by_all": f"{facts['cores']} cores", "layouts": layouts})
    print(f"\n{_table(layouts)}")


async def _measure(directory: Path, arguments: argparse.Namespace) -> dict[tuple[int, int], list[Round]]:
    catalog = directory / "catalog.toml"
    catalog.write_text(catalog_text(), encoding="utf-8")
    rounds: dict[tuple[int, int], list[Round]] = {layout: [] for layout in LAYOUTS}
    async with Parts(directory, catalog, settings={}) as parts:
        await _load(parts, parts.edges, 1, arguments.connections)
        await wait_until_stored(parts, SETTLED_S)
        for number in range(arguments.rounds):
            for edges, drains in LAYOUTS if number % 2 == 0 else reversed(LAYOUTS):
                await _set_drains(parts, drains)
                taken = await _round(parts, parts.edges[:edges], arguments)
                rounds[edges, drains].append(taken)
                print(
                    f"{edges} edges, {drains} drains: {taken.clicks:,} clicks, answered at"
                    f" {taken.clicks / taken.answering_s:,.0f}/s, stored at {taken.clicks / taken.storing_s:,.0f}/s",
                    flush=True,
                )
    return rounds


async def _set_drains(parts: Parts, wanted: int) -> None:
    """So many run, and share all partitions."""
    for number, drain in enumerate(parts.drains):
        if number >= wanted and drain.is_up:
            await drain.stop()
        elif number < wanted and not drain.is_up:
            drain.launch()
            await drain.wait_ready()

    async def are_shared() -> bool:
        conn = await parts.connect()
        try:
            owners = {lease.owner for lease in (await leases(conn)).values()}
        finally:
            await conn.close()
        return None not in owners and len(owners) == wanted

    await eventually(are_shared, 60, f"the partitions are not shared by {wanted} drains")


async def _round(parts: Parts, edges: Sequence[Edge], arguments: argparse.Namespace) -> Round:
    stored, answered = await _stored(parts), await _answered(parts)
    components = await _components(parts)
    before, began_s = {name: look() for name, look in components.items()}, time.monotonic()
    await _load(parts, edges, arguments.seconds, arguments.connections)
    answering_s = time.monotonic() - began_s
    await wait_until_stored(parts, SETTLED_S)
    storing_s = time.monotonic() - began_s
    used = {name: look() - before[name] for name, look in components.items()}
    clicks = await _answered(parts) - answered
    if (found := await _stored(parts) - stored) != clicks:
        raise RuntimeError(f"{clicks} clicks were answered, {found} are stored")
    return Round(clicks, answering_s, storing_s, used)


async def _load(parts: Parts, edges: Sequence[Edge], seconds: int, connections: int) -> None:
    def send(edge: Edge) -> int:
        load = run_wrk(
            edge.origin + PATH, seconds=seconds, connections=connections, script=SCRIPT, arguments=["varied"], cpu=None
        )
        return load.failures

    if failures := sum(await asyncio.gather(*(asyncio.to_thread(send, edge) for edge in edges))):
        raise RuntimeError(f"{failures} clicks failed")


async def _stored(parts: Parts) -> int:
    conn = await parts.connect()
    try:
        return int(await conn.fetchval("SELECT count(*) FROM clicks"))
    finally:
        await conn.close()


async def _answered(parts: Parts) -> int:
    pages = [await edge.metrics() for edge in parts.edges]
    return round(sum(total(page, "edge_requests_total", kind="click") for page in pages))


async def _components(parts: Parts) -> dict[str, Callable[[], float]]:
    """By name: CPU seconds used so far."""
    leader = await parts.nats.leader("CLICKEDGE")
    programs = parts.programs
    known = {role: [pid for program in programs for pid in program.pids(role)] for role in ("worker", "shipper", "drain")}
    counted = {pid for pids in known.values() for pid in pids}
    rest = [pid for program in programs if program.is_up for pid in program.family() if pid not in counted]
    followers = [server.pid for server in parts.nats.servers if server is not leader]
    return {
        **{role: _looking(pids) for role, pids in known.items()},
        "NATS leader": _looking([leader.pid]),
        "NATS followers": _looking(followers),
        "PostgreSQL": lambda: _family_s(parts.database.pid),
        "rest": _looking(rest),
    }


def _looking(pids: Sequence[int]) -> Callable[[], float]:
    return lambda: sum(_cpu_s(pid) for pid in pids)


def _family_s(pid: int) -> float:
    """Those of its children that have ended count too."""
    return _cpu_s(pid, fields=4) + sum(map(_cpu_s, _descendants(pid)))


def _cpu_s(pid: int, fields: int = 2) -> float:
    """User and system time; with 4 fields that of children that ended, too. 0 for who is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, words[11 : 11 + fields])) / _TICKS_PER_S


def _figures(rounds: Mapping[tuple[int, int], Sequence[Round]], layout: tuple[int, int]) -> dict[str, Any]:
    taken, first = rounds[layout], rounds[LAYOUTS[0]]
    return {
        "answered_per_s": round(statistics.median(one.clicks / one.answering_s for one in taken)),
        "stored_per_s": round(statistics.median(one.clicks / one.storing_s for one in taken)),
        "ratio_answered": _ratio(taken, first, lambda one: one.clicks / one.answering_s),
        "ratio_stored": _ratio(taken, first, lambda one: one.clicks / one.storing_s),
        "cpu_us_per_click": {name: _cpu_us(taken, name) for name in COMPONENTS},
        "ratio_cpu_us_per_click": {
            name: _ratio(taken, first, lambda one, name=name: one.cpu_s[name] / one.clicks)  # type: ignore[misc]
            for name in COMPONENTS
        },
    }


def _cpu_us(taken: Sequence[Round], name: str) -> float:
    return round(statistics.median(one.cpu_s[name] / one.clicks for one in taken) * 1e6, 1)


def _ratio(taken: Sequence[Round], first: Sequence[Round], figure: Callable[[Round], float]) -> float:
    """To the first layout in the same turn, the median of all turns."""
    return round(statistics.median(figure(one) / max(figure(other), 1e-9) for one, other in zip(taken, first, strict=True)), 3)


def _table(layouts: Mapping[str, Mapping[str, Any]]) -> str:
    """In Markdown."""
    lines = [
        f"| layout | answered/s | stored/s | ÷ first: answered, stored | {' | '.join(f'{name}, µs' for name in COMPONENTS)} |",
        "|---" * (4 + len(COMPONENTS)) + "|",
    ]
    for name, one in layouts.items():
        costs = " | ".join(f"{one['cpu_us_per_click'][part]:.1f}" for part in COMPONENTS)
        ratios = f"{one['ratio_answered']:.2f}, {one['ratio_stored']:.2f}"
        lines.append(f"| {name} | {one['answered_per_s']:,} | {one['stored_per_s']:,} | {ratios} | {costs} |")
    return "\n".join(lines)
