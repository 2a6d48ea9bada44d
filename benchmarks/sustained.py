"""The rate of clicks at which the drain keeps up: an open loop at a constant rate, and the backlog every second.

Everything runs where the system puts it, as an operator's node does, the client too: on a machine with few cores it
takes its part from the drain (`--pin`: the worker alone on the first core, all else on the second). A rate is sustained
when what is stored is never more than 5 s behind and the backlog of the last third of the run is no more than a batch
above that of the middle third. `--find` first tries rising rates, for too short a time to be sure; the long run decides.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.campaigns import catalog_editions
from benchmarks.latency import reconcile
from benchmarks.openloop import OpenLoad, OpenLoopClient
from benchmarks.plots import Panel, draw_panels
from benchmarks.scraping import Scrape, Scraper, backlog_clicks, total, wait_until_drained
from benchmarks.serving import REST_CPU, Node, cpu_of
from benchmarks.traffic import OFFERS

SUMMARY = "the rate of clicks at which the drain keeps up, and the backlog over time"
MAX_LAG_S = 5.0
GROWTH_ALLOWED_CLICKS = 5_000
"""From the middle third of a run to the last: one batch of the drain. In a short run that hides much; in 300 s, 50/s."""
STEP = 1.15
LESS = 0.9
WARMUP_S = 2.0
SLOWEST_DRAIN_PER_S = 2_000
ROLES = ("worker", "drain", "postgres")


@dataclass(frozen=True)
class Run:
    """One rate, and what came of it."""

    rate_per_s: float
    load: OpenLoad
    scrapes: Sequence[Scrape]
    """Every second while clicks came."""
    cpu_share: dict[str, float]
    drained_after_s: float

    @property
    def backlogs(self) -> list[int]:
        """Clicks answered and not yet stored, every second."""
        return [backlog_clicks(scrape.page) for scrape in self.scrapes]

    @property
    def lags_s(self) -> list[float]:
        """How far the drain was behind, every second: its own gauge, or the backlog in seconds where that is more."""
        return [
            round(max(total(scrape.page, "edge_drain_lag_seconds"), backlog / self.rate_per_s), 2)
            for scrape, backlog in zip(self.scrapes, self.backlogs, strict=True)
        ]

    @property
    def is_sustained(self) -> bool:
        """Whether the drain kept up and no click failed."""
        _, middle, last = map(statistics.fmean, _thirds(self.backlogs))
        is_steady = last - middle <= GROWTH_ALLOWED_CLICKS
        has_rate = self.load.counts["achieved_per_s"] >= 0.99 * self.rate_per_s
        return is_steady and has_rate and max(self.lags_s) <= MAX_LAG_S and not self.load.failures

    def figures(self) -> dict[str, Any]:
        """What to report of it."""
        return {
            "rate_per_s": round(self.rate_per_s),
            "is_sustained": self.is_sustained,
            "achieved_per_s": self.load.counts["achieved_per_s"],
            "failures": self.load.failures,
            "lag_max_s": max(self.lags_s),
            "backlog_max_clicks": max(self.backlogs),
            "backlog_mean_by_third": [round(statistics.fmean(part)) for part in _thirds(self.backlogs)],
            "stored_all_s_after": round(self.drained_after_s, 1),
            "cpu_share": self.cpu_share,
            "client_cpu_share": self.load.counts["client_cpu_share"],
            "latency_from_due": self.load.latency.summary(),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--rate", type=float, default=6_000, help="clicks per second, or the first to try (default: 6000)"
    )
    parser.add_argument("--seconds", type=int, default=30, help="of the long run (default: 30)")
    parser.add_argument(
        "--find", action="store_true", help="try rising rates first, then run long at the last good one"
    )
    parser.add_argument("--try-seconds", type=int, default=15, help="of each rate that --find tries (default: 15)")
    parser.add_argument("--tries", type=int, default=3, help="of the long run, each 10 %% slower (default: 3)")
    parser.add_argument("--pin", action="store_true", help="the worker alone on the first core, all else on the second")
    parser.add_argument("--directory", default="/var/tmp", help="for the database and journals: on a real disk")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, draw and keep the result."""
    facts = report.surroundings()
    with (
        catalog_editions(Path(arguments.directory), OFFERS) as editions,
        Node(catalog=editions[0], directory=arguments.directory, EDGE_WORKERS="1") as node,
    ):
        if not arguments.pin:
            _unpin(node)
        tried = _find(node, arguments) if arguments.find else []
        long_runs = _run_long(node, tried, arguments)
        answered = sum(one.load.answered for one in [*tried, *long_runs])
        reconciled = asyncio.run(reconcile(node, answered))
    last = long_runs[-1]
    found = {
        "workers": 1,
        "placement": "worker on the first core, all else on the second" if arguments.pin else "not pinned",
        "client": f"open loop, 64 connections, {last.load.counts['client_priority']}",
        "seconds": arguments.seconds,
        "sustained_per_s": last.load.counts["achieved_per_s"] if last.is_sustained else None,
        "verdict": f"{'sustained' if last.is_sustained else 'NOT sustained'}: at most {MAX_LAG_S:.0f} s behind, no growth",
        "tried": {f"{one.rate_per_s:.0f}_per_s": _brief(one) for one in [*tried, *long_runs[:-1]]},
        "long_run": last.figures(),
        "backlog_clicks_each_second": last.backlogs,
        "undrained_bytes_each_second_in_whole_segments": [
            int(total(scrape.page, "edge_journal_undrained_bytes")) for scrape in last.scrapes
        ],
        "reconciliation": reconciled,
    }
    report.publish("sustained", {**facts, **found})
    _draw(last)


def _find(node: Node, arguments: argparse.Namespace) -> list[Run]:
    """Short runs at rising rates, until one is not sustained."""
    runs: list[Run] = []
    rate = arguments.rate
    while not runs or runs[-1].is_sustained:
        runs.append(_run_once(node, rate, arguments.try_seconds, arguments.pin))
        rate *= STEP
    return runs


def _run_long(node: Node, tried: Sequence[Run], arguments: argparse.Namespace) -> list[Run]:
    """The long run at the best rate tried, or at the one asked for; slower while the drain does not keep up."""
    rate = max((one.rate_per_s for one in tried if one.is_sustained), default=arguments.rate)
    runs: list[Run] = []
    while not runs or (not runs[-1].is_sustained and len(runs) < arguments.tries):
        runs.append(_run_once(node, rate, arguments.seconds, arguments.pin))
        rate *= LESS
    return runs


def _run_once(node: Node, rate: float, seconds: int, is_pinned: bool) -> Run:
    cpu = REST_CPU if is_pinned else -1
    with OpenLoopClient(node.port, rate_per_s=rate, seconds=seconds, warmup_s=WARMUP_S, cpu=cpu) as client:
        time.sleep(WARMUP_S)
        began_s, began_cpu_s = time.monotonic(), _cpu_by_role(node)
        with Scraper(node) as scraper:
            time.sleep(seconds)
        elapsed_s, ended_cpu_s = time.monotonic() - began_s, _cpu_by_role(node)
        load = client.finish()
    drained_after_s = wait_until_drained(node, 60 + rate * seconds / SLOWEST_DRAIN_PER_S)
    shares = {role: round((ended_cpu_s[role] - began_cpu_s[role]) / elapsed_s, 3) for role in ROLES}
    done = Run(rate, load, scraper.scrapes, shares, drained_after_s)
    print(f"{rate:,.0f}/s for {seconds} s: {'sustained' if done.is_sustained else 'not sustained'}, {_brief(done)}")
    return done


def _unpin(node: Node) -> None:
    """Let all the node's processes run anywhere again."""
    everywhere = os.sched_getaffinity(0)
    for role in (*ROLES, "admin"):
        for pid in node.pids(role):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), everywhere)


def _cpu_by_role(node: Node) -> dict[str, float]:
    return {role: sum(sum(cpu_of(pid)) for pid in node.pids(role)) for role in ROLES}


def _thirds(values: Sequence[int]) -> list[Sequence[int]]:
    third = max(1, len(values) // 3)
    return [values[:third], values[third:-third], values[-third:]]


def _brief(one: Run) -> str:
    shares = ", ".join(f"{role} {share:.0%}" for role, share in one.cpu_share.items())
    return f"lag at most {max(one.lags_s):.1f} s, backlog at most {max(one.backlogs):,} clicks, CPU {shares}"


def _draw(last: Run) -> None:
    seconds = [scrape.at_s for scrape in last.scrapes]
    panels = [
        Panel("not yet stored", "seconds", "clicks", {"answered, not in PostgreSQL": (seconds, last.backlogs)}),
        Panel("how far behind", "seconds", "s", {"lag": (seconds, last.lags_s)}),
    ]
    title = f"{last.rate_per_s:,.0f} clicks/s with the drain running, one worker"
    draw_panels(report.RESULTS / "sustained.png", title, panels, is_stacked=True)
