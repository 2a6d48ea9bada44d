"""The tail at a constant rate: a node with everything at work, beside a bare aiohttp redirect under the same client.

The measured server has the first core to itself; the client, the drain, PostgreSQL and the admin process share the
second, the client first among them (`openloop_client.py` says how). Rounds take turns. During a node's round its sessions
evict, its drain stores, its metrics are scraped every second and in the middle a catalog is applied in which every
offer's URL has changed. Afterwards the clicks answered are counted in PostgreSQL.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import report
from benchmarks.campaigns import catalog_editions
from benchmarks.cores import CoreUsage, on_core
from benchmarks.histogram import Histogram
from benchmarks.openloop import OpenLoad, OpenLoopClient, run_open_loop
from benchmarks.plots import Panel, draw_latency
from benchmarks.scraping import Scraper, handling_summary, read_page, total, wait_until_drained
from benchmarks.serving import REST_CPU, SERVER_CPU, Node, cpu_of, free_port, start, stop, wait_until_answers

SUMMARY = "latency at a constant rate (open loop) with everything at work, beside a bare aiohttp redirect"
P99_ABOVE_US, P999_ABOVE_US = 1_000, 5_000
"""What is promised: no more than this above aiohttp."""
BARE_AIOHTTP = Path(__file__).parent / "peers" / "apps" / "aiohttp_app.py"
WARMUP_S = 1.0
FILL_RATE_PER_S = 20_000
FILL_TIMES = 1.5
"""Clicks per session of the capacity, before the first round: then it is full, and each click evicts."""
SLOWEST_DRAIN_PER_S = 2_000
DISTURBED_ABOVE = 0.02
"""The share of a round in which a server was kept waiting for its core: beyond it, other programs spoilt the round."""
ROLES = ("worker", "drain", "admin", "postgres")


@dataclass
class Rounds:
    """What was seen of one server."""

    loads: list[OpenLoad] = field(default_factory=list)
    core_shares: list[dict[str, float]] = field(default_factory=list)
    """By round: how long the server ran, and how long it was kept waiting for its core."""
    notes: list[dict[str, Any]] = field(default_factory=list)
    """Of a node's rounds: what the node itself said."""

    def latency(self) -> Histogram:
        """Of all rounds."""
        return Histogram.merged([load.latency for load in self.loads])

    def figures(self) -> dict[str, Any]:
        """Percentiles of all rounds together and by round, and what the client counted."""
        waits = {"from_due": self.latency(), "from_sent": Histogram.merged([load.service for load in self.loads])}
        by_round = [load.latency.summary() for load in self.loads]
        return {
            **{name: histogram.summary() for name, histogram in waits.items()},
            "client_own_lag": Histogram.merged([load.own_lag for load in self.loads]).summary(),
            "p99_us_by_round": [one["p99_us"] for one in by_round],
            "p99.9_us_by_round": [one["p99.9_us"] for one in by_round],
            "achieved_per_s_by_round": [load.counts["achieved_per_s"] for load in self.loads],
            "clicks": sum(load.counts["measured"] for load in self.loads),
            "failures": sum(load.failures for load in self.loads),
            "waited_for_a_connection": sum(load.counts["waited"] for load in self.loads),
            "client_cpu_share": round(statistics.median(load.counts["client_cpu_share"] for load in self.loads), 3),
            "server_ran_share_by_round": [shares["ran"] for shares in self.core_shares],
            "server_kept_waiting_share_by_round": [shares["kept_waiting"] for shares in self.core_shares],
            "stolen_by_hypervisor_s": round(sum(load.counts["stolen_s"] for load in self.loads), 2),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--rate", type=int, default=10_000, help="clicks per second (default: 10000)")
    parser.add_argument("--seconds", type=int, default=20, help="of each server in each round (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="of aiohttp and clickedge in turn (default: 3)")
    parser.add_argument("--offers", type=int, default=2_000, help="in the catalog (default: 2000)")
    parser.add_argument("--sessions", type=int, default=50_000, help="EDGE_SESSION_CAPACITY (default: 50000)")
    parser.add_argument("--poisson", action="store_true", help="clicks come by chance instead of evenly spaced")
    parser.add_argument("--priority", choices=("fifo", "nice", "none"), default="fifo", help="the client's")
    parser.add_argument("--directory", default="/var/tmp", help="for the database and journals: on a real disk")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, draw and keep the result."""
    facts = report.surroundings()
    settings = {"EDGE_SESSION_CAPACITY": str(arguments.sessions)}
    aiohttp, clickedge = Rounds(), Rounds()
    with (
        catalog_editions(Path(arguments.directory), arguments.offers) as editions,
        Node(catalog=editions[0], directory=arguments.directory, **settings) as node,
        bare_aiohttp() as aiohttp_server,
        on_core(REST_CPU),
    ):
        filled = _fill(node, arguments.sessions)
        for number in range(arguments.rounds):
            _run_aiohttp_round(aiohttp_server, aiohttp, arguments, number)
            _run_node_round(node, editions[(number + 1) % 2], clickedge, arguments, number)
            print(f"round {number + 1}: aiohttp {_short(aiohttp)}; clickedge {_short(clickedge)}")
        answered = filled.answered + sum(load.answered for load in clickedge.loads)
        reconciled = asyncio.run(reconcile(node, answered))
    shown = ("rate", "seconds", "rounds", "offers", "sessions", "poisson")
    found = {name: getattr(arguments, name) for name in shown} | {
        "client": f"64 connections, {clickedge.loads[0].counts['client_priority']}, second core",
        **_compare(aiohttp, clickedge),
        "clickedge": clickedge.figures(),
        "aiohttp": aiohttp.figures(),
        "node_by_round": {f"round_{number + 1}": note for number, note in enumerate(clickedge.notes)},
        "reconciliation": reconciled,
    }
    report.publish("latency", {**facts, **found})
    _draw(aiohttp, clickedge, arguments)


@contextmanager
def bare_aiohttp() -> Iterator[tuple[int, int]]:
    """A redirect by aiohttp that records nothing, on the first core; its port and process id."""
    port = free_port()
    process = start([sys.executable, str(BARE_AIOHTTP), str(port)], cpu=SERVER_CPU)
    try:
        wait_until_answers(f"http://127.0.0.1:{port}/aff_c", process)
        yield port, process.pid
    finally:
        stop(process)


async def reconcile(node: Node, answered: int) -> dict[str, int]:
    """Clicks answered, stored and dropped; RuntimeError unless each answered one is in Postgres once."""
    conn = await asyncpg.connect(node.database_url)
    try:
        stored = await conn.fetchval("SELECT count(*) FROM clicks")
    finally:
        await conn.close()
    dropped = int(node.metric("edge_events_dropped_total"))
    if stored != answered:
        raise RuntimeError(f"{answered} clicks answered, {stored} stored, {dropped} dropped at a full journal")
    return {"answered": answered, "stored": stored, "dropped": dropped}


def _load_of(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "rate_per_s": arguments.rate,
        "seconds": arguments.seconds,
        "warmup_s": WARMUP_S,
        "is_poisson": arguments.poisson,
        "priority": arguments.priority,
    }


def _fill(node: Node, sessions: int) -> OpenLoad:
    """Clicks until the sessions are full, all stored before anything is measured."""
    clicks = max(1, int(sessions * FILL_TIMES))
    filled = run_open_loop(node.port, rate_per_s=FILL_RATE_PER_S, seconds=clicks / FILL_RATE_PER_S, warmup_s=0)
    wait_until_drained(node, 30 + clicks / SLOWEST_DRAIN_PER_S)
    return filled


def _run_aiohttp_round(server: tuple[int, int], rounds: Rounds, arguments: argparse.Namespace, seed: int) -> None:
    port, pid = server
    with OpenLoopClient(port, seed=seed, **_load_of(arguments)) as client:
        usage = CoreUsage(pid)
        rounds.loads.append(client.finish())
    rounds.core_shares.append(usage.shares())


def _run_node_round(node: Node, edition: Path, rounds: Rounds, arguments: argparse.Namespace, seed: int) -> None:
    """One round of the node, the catalog changed in its middle; then until the drain has stored it."""
    before = read_page(node)
    with Scraper(node) as scraper, OpenLoopClient(node.port, seed=seed, **_load_of(arguments)) as client:
        began_cpu_s, began_s = _cpu_by_role(node), time.monotonic()
        usage = CoreUsage(node.pids("worker")[0])
        time.sleep(WARMUP_S + arguments.seconds / 2)
        apply_catalog(node, edition)
        load = client.finish()
        rounds.core_shares.append(usage.shares())
        elapsed_s, ended_cpu_s = time.monotonic() - began_s, _cpu_by_role(node)
    after = read_page(node)
    behind_s = wait_until_drained(node, 30 + arguments.rate * arguments.seconds / SLOWEST_DRAIN_PER_S)
    rounds.loads.append(load)
    rounds.notes.append(
        {
            "handling": handling_summary(before, after),
            "loop_lag_ms_each_second": [
                round(total(scrape.page, "edge_loop_lag_seconds", role="worker") * 1000, 2)
                for scrape in scraper.scrapes
            ],
            "scrapes": len(scraper.scrapes),
            "catalog_loads": int(_grown(before, after, "edge_catalog_loads_total", result="ok")),
            "fsyncs": int(_grown(before, after, "edge_journal_sync_seconds_count")),
            "sessions_at_start": int(total(before, "edge_sessions")),
            "dropped": int(_grown(before, after, "edge_events_dropped_total")),
            "cpu_share": {role: round((ended_cpu_s[role] - began_cpu_s[role]) / elapsed_s, 3) for role in ROLES},
            "stored_all_s_after": round(behind_s, 1),
        }
    )


def apply_catalog(node: Node, path: Path) -> None:
    """Run `clickedge apply`, where this process runs; CalledProcessError when it fails."""
    command = [str(Path(sys.executable).with_name("clickedge")), "apply", str(path), "--data-dir", str(node.data_dir)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)


def _cpu_by_role(node: Node) -> dict[str, float]:
    return {role: sum(sum(cpu_of(pid)) for pid in node.pids(role)) for role in ROLES}


def _grown(before: dict[str, float], after: dict[str, float], name: str, **labels: str) -> float:
    return total(after, name, **labels) - total(before, name, **labels)


def _compare(aiohttp: Rounds, clickedge: Rounds) -> dict[str, Any]:
    """The promise: medians of what each round's percentiles are above aiohttp's in the same round."""
    above: dict[str, list[int]] = {"p50_us": [], "p99_us": [], "p99.9_us": []}
    for ours, theirs in zip(clickedge.loads, aiohttp.loads, strict=True):
        ours_us, theirs_us = ours.latency.summary(), theirs.latency.summary()
        for name, values in above.items():
            values.append(ours_us[name] - theirs_us[name])
    medians = {name: round(statistics.median(values)) for name, values in above.items()}
    is_kept = medians["p99_us"] <= P99_ABOVE_US and medians["p99.9_us"] <= P999_ABOVE_US
    disturbed = sum(
        max(ours["kept_waiting"], theirs["kept_waiting"]) > DISTURBED_ABOVE
        for ours, theirs in zip(clickedge.core_shares, aiohttp.core_shares, strict=True)
    )
    return {
        "above_aiohttp": medians,
        "above_aiohttp_by_round": above,
        "promise": f"p99 at most {P99_ABOVE_US} us and p99.9 at most {P999_ABOVE_US} us above aiohttp, medians of the rounds",
        "verdict": ("kept" if is_kept else "NOT KEPT") + ", on a disturbed machine" * bool(disturbed),
        "disturbed_rounds": f"{disturbed} of {len(clickedge.loads)}: a server was kept from its core"
        f" for more than {DISTURBED_ABOVE:.0%} of the time",
    }


def _short(rounds: Rounds) -> str:
    summary = rounds.loads[-1].latency.summary()
    return ", ".join(f"{name.removesuffix('_us')} {value:,}" for name, value in summary.items()) + " µs"


def _draw(aiohttp: Rounds, clickedge: Rounds, arguments: argparse.Namespace) -> None:
    worst = {
        "clickedge": [us for load in clickedge.loads for us in load.worst_us],
        "aiohttp": [us for load in aiohttp.loads for us in load.worst_us],
        "client's own lag": [us for load in clickedge.loads for us in load.worst_lag_us],
    }
    middles = [arguments.seconds * (number + 0.5) for number in range(arguments.rounds)]
    panel = Panel(
        "the worst click of each second, rounds one after the other",
        "second",
        "µs",
        {name: (range(len(values)), values) for name, values in worst.items()},
        marks={"catalog applied": middles},
        is_log_y=True,
    )
    own_lag = Histogram.merged([load.own_lag for load in clickedge.loads])
    latencies = {"clickedge": clickedge.latency(), "aiohttp": aiohttp.latency(), "client's own lag": own_lag}
    title = f"{arguments.rate:,} clicks/s, open loop, one worker on one core, all else on the other"
    draw_latency(report.RESULTS / "latency.png", title, latencies, panel)
