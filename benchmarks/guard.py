"""Has the hot path become dearer? A click's cost beside that of a bare aiohttp redirect; then mixed traffic, sent = stored.

Both servers are loaded at the same time and share one core in the kernel's slices of milliseconds: what else the machine
does slows both alike. On two shared cores, 2026-11-22, six runs, four of them with programs on both cores that burn CPU or
memory bandwidth: ratios of 0.71 to 0.76 and 1.16 to 1.33 (same and varied clicks, the lower ones on the busy machine)
while the microseconds of a click went from 42 to 64. Rounds one after the other had spread by 25 %; and with 64
connections instead of 16 a busy machine made aiohttp dearer than us, by 20 %.

The cost is user-space instructions where `perf` can count them, as few virtual machines let it; else those of both in
process, which valgrind counts exactly (`instructions.py`); else CPU time, the kernel's share included: the split between
user and system comes from samples at 100 Hz, and alone moved the ratio by 15 %. CPU time is always shown. It says what
memory costs, of which a click wants more than a bare redirect: on 2026-11-22 the same code had 0.52 in the morning and 0.83
at noon, on an idle machine whose host had other guests. So it only judges where nothing can be counted.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.instructions import can_count, count_instructions
from benchmarks.mixed_load import run_locust
from benchmarks.report import surroundings
from benchmarks.serving import Node, free_port, pin, run_wrk, start, stop, wait_until_answers

SUMMARY = "a click's cost beside a bare aiohttp redirect's, against the recorded ratio; Locust with reconciliation"
RECORD = Path(__file__).with_name("guard.json")
BARE_AIOHTTP = Path(__file__).with_name("peers") / "apps" / "aiohttp_app.py"
CLICKS = Path(__file__).with_name("clicks.lua")
CLICK = "/aff_c?offer_id=17&aff_id=2&aff_sub=abc123&source=news"
REQUESTS = ("same", "varied")
"""What clicks.lua sends: the same click again and again, and 20,000 in turn that differ in headers and parameters."""
ALLOWED = {"instructions": 1.10, "in_process": 1.10, "cpu_time": 1.25}
"""How much dearer than recorded; instructions are exact, CPU time also depends on the machine."""
CONNECTIONS = 16
UNITS = {"instructions": "instructions", "in_process": "instructions in process", "cpu_time": "us"}
EVENT = "instructions:u"
PERF_STARTS_S = 0.3
LOCUST = {"rate": 200, "ramp_s": 0.0, "plateau_s": 15.0, "spike_s": 0.0, "max_p95_ms": 500.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m benchmarks guard`."""
    parser.add_argument("--rounds", type=int, default=6, help="of both servers together, for each kind of clicks (6)")
    parser.add_argument("--seconds", type=int, default=1, help="of each round (1)")
    parser.add_argument(
        "--record", action="store_true", help=f"make the measured ratio the one to keep, in {RECORD.name}"
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure and judge: exit code 1 when something is wrong, 2 when it cannot be measured."""
    if shutil.which("wrk") is None:
        print("guard: wrk is missing; as root: make system", file=sys.stderr)
        raise SystemExit(2)
    with Node() as node:
        mixed = run_locust(node, **LOCUST)
        faults = [f"mixed traffic: {fault}" for fault in mixed["faults"]]
        print(f"mixed traffic: {mixed['requests']} requests, p95 {mixed['p95_ms']} ms, {len(faults)} faults")
        costs = measure(node, arguments.rounds, arguments.seconds)
    for cost in costs:
        print(cost)
    if arguments.record:
        RECORD.write_text(json.dumps(_record(costs), indent=2) + "\n", encoding="utf-8")
        print(f"recorded in {RECORD}")
    else:
        faults += cost_faults(costs, json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {})
    for fault in faults:
        print(f"guard: {fault}", file=sys.stderr)
    if faults:
        raise SystemExit(1)


class Cost(NamedTuple):
    """What a click costs both servers: medians of the rounds, and the median of the rounds' ratios."""

    requests: str
    measure: str
    ours: float
    bare: float
    ratio: float
    ratios: list[float]

    def __str__(self) -> str:
        unit, rounds = UNITS[self.measure], " ".join(f"{ratio:.3f}" for ratio in self.ratios)
        return (
            f"{self.requests} clicks: {self.ours:,.1f} {unit} each, bare aiohttp {self.bare:,.1f}:"
            f" ratio {self.ratio:.3f} (rounds {rounds})"
        )


class Usage(NamedTuple):
    """A server's share of one round, for each request."""

    cpu_us: float
    instructions: float | None


def cost_faults(costs: Sequence[Cost], recorded: Mapping[str, Any]) -> list[str]:
    """A line for each kind of requests that is dearer than allowed, by the first measure that the record has too."""
    faults = []
    for requests in dict.fromkeys(cost.requests for cost in costs):
        known = recorded.get(requests, {})
        cost = next((one for one in costs if one.requests == requests and one.measure in known), None)
        if cost is None:
            faults.append(f"{RECORD.name} has no ratio for {requests} clicks: make guard GUARD_ARGS=--record")
        elif cost.ratio > (limit := known[cost.measure] * ALLOWED[cost.measure]):
            faults.append(
                f"the hot path has become dearer: ratio {cost.ratio:.3f} by {cost.measure} for {requests} clicks,"
                f" recorded {known[cost.measure]:.3f}, at most {limit:.3f}"
            )
    return faults


def measure(node: Node, rounds: int, seconds: int) -> list[Cost]:
    """Costs by each measure that this machine has, the best one first; RuntimeError when an answer was no redirect."""
    port = free_port()
    [worker] = node.pids("worker")
    bare = start([sys.executable, str(BARE_AIOHTTP), str(port)], cpu=min(os.sched_getaffinity(worker)))
    servers = {worker: node.origin, bare.pid: f"http://127.0.0.1:{port}"}
    node.pause("drain")  # it shares wrk's core
    try:
        wait_until_answers(f"http://127.0.0.1:{port}/", bare)
        with _clients_core(), ThreadPoolExecutor(len(servers)) as pool:
            costs = [cost for kind in REQUESTS for cost in _costs(kind, _rounds(pool, servers, kind, rounds, seconds))]
    finally:
        node.resume("drain")
        stop(bare)
    is_counted = any(cost.measure == "instructions" for cost in costs)
    return costs if is_counted or not can_count() else [*_counted(), *costs]


def _counted() -> list[Cost]:
    counts = count_instructions((*REQUESTS, "bare"))
    return [_cost(kind, "in_process", [[counts[kind], counts["bare"]]]) for kind in REQUESTS]


def _rounds(pool: Executor, servers: Mapping[int, str], requests: str, rounds: int, seconds: int) -> list[list[Usage]]:
    """Each server's usage in each round; one more goes before them, to warm up."""
    load = partial(_load, requests, seconds)
    return [list(pool.map(load, servers.keys(), servers.values())) for _ in range(1 + rounds)][1:]


def _load(requests: str, seconds: int, pid: int, origin: str) -> Usage:
    counter = _count_instructions(pid)
    before_ns = _cpu_ns(pid)
    seen = run_wrk(
        f"{origin}{CLICK}", seconds=seconds, script=CLICKS, arguments=[requests], cpu=None, connections=CONNECTIONS
    )
    used_ns = _cpu_ns(pid) - before_ns
    instructions = _read_instructions(counter)
    if seen.failures:
        raise RuntimeError(f"{origin}: {seen.failures} of {seen.requests} answers were wrong or missing")
    return Usage(used_ns / 1000 / seen.requests, instructions and instructions / seen.requests)


def _costs(requests: str, rounds: list[list[Usage]]) -> list[Cost]:
    costs = []
    if all(usage.instructions for usages in rounds for usage in usages):
        counts = [[usage.instructions or 0.0 for usage in usages] for usages in rounds]
        costs.append(_cost(requests, "instructions", counts))
    return [*costs, _cost(requests, "cpu_time", [[usage.cpu_us for usage in usages] for usages in rounds])]


def _cost(requests: str, measure: str, rounds: list[list[float]]) -> Cost:
    ours, bare = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratios = [one / other for one, other in rounds]
    return Cost(requests, measure, ours, bare, statistics.median(ratios), ratios)


@contextmanager
def _clients_core() -> Iterator[None]:
    """What is started within it stays off the servers' core."""
    cores = os.sched_getaffinity(0)
    pin(os.getpid(), max(cores))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _cpu_ns(pid: int) -> int:
    """CPU time of the process with all its threads: the clock that clock_getcpuclockid(3) names."""
    return time.clock_gettime_ns(~pid << 3 | 2)


def _count_instructions(pid: int) -> "subprocess.Popen[str] | None":
    """A running `perf stat`; None without perf."""
    if shutil.which("perf") is None:
        return None
    command = ["perf", "stat", "-x;", "-e", EVENT, "-p", str(pid)]
    counter = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    time.sleep(PERF_STARTS_S)
    return counter


def _read_instructions(counter: "subprocess.Popen[str] | None") -> float | None:
    """What it has counted; None where the machine does not count, as most virtual ones."""
    if counter is None:
        return None
    counter.send_signal(signal.SIGINT)
    _, said = counter.communicate(timeout=10)
    counted = re.search(rf"^(\d+)[^;]*;[^;]*;{re.escape(EVENT)}", said, re.MULTILINE)
    return float(counted[1]) if counted else None


def _record(costs: Sequence[Cost]) -> dict[str, Any]:
    around = surroundings()
    record: dict[str, Any] = {requests: {} for requests in REQUESTS}
    for cost in costs:
        unit = UNITS[cost.measure]
        record[cost.requests] |= {
            cost.measure: round(cost.ratio, 3),
            f"{unit} a click": round(cost.ours, 1),
            f"{unit} a bare redirect": round(cost.bare, 1),
        }
    return {**record, "recorded_at_commit": around["commit"], "cpu": around["cpu"], "python": around["python"]}
