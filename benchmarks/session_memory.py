"""What a session costs in a worker's memory, at capacity: the growth of a fresh process, divided by the entries.

The sessions are those of real clicks through the real lane and handlers, each on a connection and from an address of its
own, until the LRU is full. `traffic`: user agents as they come, few of which have most clicks, so that sessions share
them where the edge does. `all_different`: no two sessions have the same one, the worst case. The resident memory is what
counts; what Python itself says that it has allocated (tracemalloc, a run of its own) is the cross-check.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import report
from benchmarks.campaigns import catalog_of, clicks_of_traffic
from benchmarks.in_process import InProcessWorker, load_catalog
from benchmarks.traffic import OFFERS, PARTNERS, Traffic

SUMMARY = "bytes of process memory per session, at capacity"
GOAL_BYTES = 400
DISTINCT_REQUESTS = 20_000
WARM_CAPACITY = 1_000
FULL_SHARE = 0.99
"""Ids fall into the LRU's shards by chance: the last entries take many clicks, and the shards' rounding has a few."""
MOST_CLICKS_PER_ENTRY = 3
PORTION = 10_000
AGENTS = ("traffic", "all_different")
_ROOT = Path(__file__).parent.parent
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--capacity", type=int, nargs="+", default=[200_000], help="entries (default: 200000; in full: 200000 1000000)"
    )
    parser.add_argument("--directory", default="/var/tmp", help="for the journal")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and keep the result."""
    facts = report.surroundings()
    found: dict[str, Any] = {}
    for capacity in arguments.capacity:
        for agents in AGENTS:
            grown = _in_fresh_process(capacity, agents, arguments.directory, is_traced=False)
            traced = _in_fresh_process(capacity, agents, arguments.directory, is_traced=True)
            found[f"{capacity}_{agents}"] = {
                "entries": grown["entries"],
                "clicks": grown["clicks"],
                "resident_bytes_per_entry": round(grown["bytes"] / grown["entries"], 1),
                "traced_bytes_per_entry": round(traced["bytes"] / traced["entries"], 1),
            }
    worst = max(one["resident_bytes_per_entry"] for name, one in found.items() if name.endswith("traffic"))
    verdict = f"{'reached' if worst <= GOAL_BYTES else 'MISSED'}: {worst} resident bytes, at most {GOAL_BYTES} wanted"
    report.publish("session_memory", {**facts, "verdict": verdict, "by_capacity_and_agents": found})


def _in_fresh_process(capacity: int, agents: str, directory: str, *, is_traced: bool) -> dict[str, int]:
    options = [f"--capacity={capacity}", f"--agents={agents}", f"--directory={directory}"] + ["--trace"] * is_traced
    command = [sys.executable, "-m", "benchmarks.session_memory", *options]
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


async def _fill(capacity: int, agents: str, directory: str, *, is_traced: bool) -> dict[str, int]:
    """Bytes that a process has grown by, from before the LRU was made until it is full."""
    catalog = load_catalog(catalog_of(OFFERS, PARTNERS))
    requests, addresses = clicks_of_traffic(DISTINCT_REQUESTS), Traffic(random.Random(1)).addresses
    async with InProcessWorker(catalog, session_capacity=WARM_CAPACITY, directory=directory) as worker:
        await worker.serve_visitors(requests, addresses)  # what is made once is made now, and not counted
    if is_traced:
        tracemalloc.start()
    before = _memory_bytes(is_traced)
    clicks = _clicks(requests, agents)
    async with InProcessWorker(catalog, session_capacity=capacity, directory=directory) as worker:
        asked = 0
        while len(worker.sessions) < FULL_SHARE * capacity and asked < MOST_CLICKS_PER_ENTRY * capacity:
            await worker.serve_visitors(islice(clicks, PORTION), addresses[asked % len(addresses) :])
            asked += PORTION
        await asyncio.sleep(0.2)  # the last fsync, and what it held
        return {
            "entries": len(worker.sessions),
            "clicks": asked,
            "bytes": _memory_bytes(is_traced) - before,
        }


def _clicks(requests: list[bytes], agents: str) -> Iterator[bytes]:
    if agents == "traffic":
        yield from cycle(requests)
    for number, request in enumerate(cycle(requests)):
        head, found, rest = request.partition(b"User-Agent: Mozilla/5.0 ")
        yield b"%b%bb%d %b" % (head, found, number, rest)


def _memory_bytes(is_traced: bool) -> int:
    gc.collect()
    if is_traced:
        return tracemalloc.get_traced_memory()[0]
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def main() -> int:
    """Be the fresh process: one line of JSON."""
    parser = argparse.ArgumentParser(description=SUMMARY)
    parser.add_argument("--capacity", type=int, required=True)
    parser.add_argument("--agents", choices=AGENTS, required=True)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    print(
        json.dumps(uvloop.run(_fill(options.capacity, options.agents, options.directory, is_traced=options.trace))),
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
