"""Locust: mixed traffic with checked answers, a ramp, a plateau and a spike, and in the end sent = stored.

    make run                                                              # in another terminal
    CLICKEDGE_DATABASE_URL="$(cat DATA_DIR/database.url)" CLICKEDGE_ADMIN=http://127.0.0.1:8081 \\
        .venv/bin/locust -f benchmarks/locustfile.py --headless --host http://127.0.0.1:8080

Without CLICKEDGE_DATABASE_URL nothing is reconciled. `python -m benchmarks locust` starts a server of its own and does all
of it. The exit code is 1 past a threshold: see the options' help. One process only: what was sent is counted in it.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import gevent
from locust import FastHttpUser, LoadTestShape, constant_throughput, events, task
from locust.env import Environment
from locust.runners import LocalRunner

from benchmarks.mixed_traffic import MixedTraffic, Reply
from benchmarks.report import percentile
from benchmarks.serving import metric_of

ROOT = Path(__file__).resolve().parent.parent
PER_USER_PER_S = 10
FINISH_S = 10.0
"""At the end each user may finish the request in hand for so long."""


@events.init_command_line_parser.add_listener
def add_options(parser: Any, **_: Any) -> None:
    """Each is an environment variable too: --plateau-s is LOAD_PLATEAU_S."""

    def add(name: str, default: Any, text: str) -> None:
        variable = "LOAD_" + name.upper().replace("-", "_")
        parser.add_argument(f"--{name}", type=type(default), default=default, env_var=variable, help=text)

    add("catalog", str(ROOT / "examples" / "catalog.toml"), "the catalog file that the server has applied")
    add("rate", 200, "requests a second on the plateau")
    add("ramp-s", 10.0, "seconds from nothing to the plateau")
    add("plateau-s", 60.0, "seconds on the plateau")
    add("spike-s", 10.0, "seconds of a spike after it")
    add("spike-factor", 2.0, "the spike's rate, in plateaus")
    add("max-failures", 0, "threshold: answers that are wrong or missing")
    add("max-p95-ms", 100.0, "threshold: 95th percentile of all requests")
    add("min-rate-share", 0.9, "threshold: rate achieved on the plateau, as a share of --rate")
    add("report", "", "a file for the figures, as JSON")


class Run:
    """One test from start to stop: its traffic, its latencies, the rate on its plateau."""

    def __init__(self, environment: Environment) -> None:
        options: Any = environment.parsed_options
        self.options = options
        self.traffic = MixedTraffic(Path(options.catalog), f"load-{uuid4().hex[:16]}")
        self.latencies_ms: dict[str, list[float]] = defaultdict(list)
        self.failures: dict[str, int] = defaultdict(int)
        self.is_over = False
        self.plateau: list[tuple[float, int]] = []
        """(seconds, requests so far) at each tick on the plateau, and at the first after it."""
        self.is_past_plateau = False
        if admin := os.environ.get("CLICKEDGE_ADMIN"):
            self.traffic.ledger.unstored_before = metric_of(admin, "edge_unstored_refusals_total")

    @property
    def requests(self) -> int:
        """Answered or failed so far."""
        return sum(map(len, self.latencies_ms.values()))

    def mark_plateau(self, now_s: float, *, is_past: bool) -> None:
        """Note how many requests there were by now."""
        if not self.is_past_plateau:
            self.plateau.append((now_s, self.requests))
            self.is_past_plateau = is_past

    @property
    def plateau_rate_per_s(self) -> float:
        """0 when the plateau was too short to tell."""
        if len(self.plateau) < 2:
            return 0.0
        (from_s, before), (to_s, after) = self.plateau[0], self.plateau[-1]
        return (after - before) / (to_s - from_s)

    def report(self) -> dict[str, Any]:
        """The figures, without the reconciliation."""
        everything = [one for some in self.latencies_ms.values() for one in some]
        return {
            "requests": self.requests,
            "failures": sum(self.failures.values()),
            "plateau_rate_per_s": round(self.plateau_rate_per_s, 1),
            **_percentiles(everything),
            "by_kind": {
                kind: {"requests": len(some), "failures": self.failures[kind], **_percentiles(some)}
                for kind, some in sorted(self.latencies_ms.items())
            },
        }

    def faults(self, report: Mapping[str, Any]) -> list[str]:
        """Thresholds that were passed, a line each."""
        options, faults = self.options, []
        if report["failures"] > options.max_failures:
            faults.append(f"{report['failures']} failures; {options.max_failures} are allowed")
        if self.plateau_rate_per_s < options.rate * options.min_rate_share:
            faults.append(f"{self.plateau_rate_per_s:.0f} requests a second on the plateau, not {options.rate}")
        if report["p95_ms"] > options.max_p95_ms:
            faults.append(f"p95 {report['p95_ms']} ms; {options.max_p95_ms} ms is allowed")
        return faults


def _percentiles(values_ms: list[float]) -> dict[str, float]:
    return {f"p{share}_ms": round(percentile(values_ms or [0.0], share / 100), 2) for share in (50, 95, 99)}


RUN: list[Run] = []
"""The one in progress, and last."""


class Visitor(FastHttpUser):
    """Many strangers one after the other, over a few connections."""

    wait_time = constant_throughput(PER_USER_PER_S)

    def on_start(self) -> None:
        """No cookies from one stranger to the next, and users that do not all ask in the same instant."""
        self.client.client.cookiejar = None
        gevent.sleep(random.random() / PER_USER_PER_S)

    @task
    def visit(self) -> None:
        """Send what is next, check the answer."""
        if RUN[-1].is_over:
            return
        traffic = RUN[-1].traffic
        plan = traffic.next_plan(time.monotonic())
        with self.client.request(
            plan.method,
            plan.target,
            name=plan.kind,
            headers=plan.headers,
            data=plan.body or None,
            allow_redirects=False,
            catch_response=True,
        ) as response:
            reply = Reply(response.status_code, response.headers or {}, response.content or b"")
            fault = traffic.settle(plan, reply, time.monotonic())
            if fault and reply.status:  # without a status Locust says itself what went wrong
                response.failure(fault)


class Stages(LoadTestShape):
    """Ramp, plateau, spike, end."""

    def tick(self) -> tuple[int, float] | None:
        """Users, and how many of them to start in a second; None at the end."""
        options: Any = self.runner.environment.parsed_options  # type: ignore[union-attr]
        now_s = self.get_run_time()
        plateau_s, spike_s = now_s - options.ramp_s, now_s - options.ramp_s - options.plateau_s
        users = options.rate / PER_USER_PER_S
        if RUN and plateau_s >= 0 and self.get_current_user_count() >= round(users):
            RUN[-1].mark_plateau(now_s, is_past=spike_s >= 0)
        if spike_s >= options.spike_s:
            return None
        if plateau_s < 0:
            users *= now_s / options.ramp_s
        elif spike_s >= 0:
            users *= options.spike_factor
        return max(1, round(users)), max(1.0, users)


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Requests in hand are finished at the end: what is cut off cannot be reconciled."""
    if not isinstance(environment.runner, LocalRunner):
        sys.exit("this locustfile counts in one process: no --processes, --master or --worker")
    environment.stop_timeout = environment.stop_timeout or FINISH_S


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """A run of its own for each press of the button."""
    RUN[:] = [Run(environment)]


@events.request.add_listener
def note(name: str, response_time: float, exception: Exception | None, **_: Any) -> None:
    """Latencies as they are: Locust's own statistics round them to milliseconds and more."""
    RUN[-1].latencies_ms[name].append(response_time)
    RUN[-1].failures[name] += exception is not None


@events.test_stopping.add_listener
def close(environment: Environment, **_: Any) -> None:
    """No more requests: Locust ends a waiting user a moment after it looked, when it may be sending again."""
    RUN[-1].is_over = True


@events.test_stop.add_listener
def finish(environment: Environment, **_: Any) -> None:
    """Reconcile, judge, say so."""
    run = RUN[-1]
    report = run.report()
    report["faults"] = run.faults(report)
    if os.environ.get("CLICKEDGE_DATABASE_URL"):
        report["reconciliation"], more = _reconcile(run)
        report["faults"] += more
    _print(report)
    if run.options.report:
        Path(run.options.report).write_text(json.dumps(report), encoding="utf-8")
    environment.process_exit_code = 1 if report["faults"] else 0


def _reconcile(run: Run) -> tuple[dict[str, Any], list[str]]:
    """The table and what is wrong in it."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reconcile"],
        cwd=ROOT,
        input=json.dumps(vars(run.traffic.ledger)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {}, [done.stderr.strip() or f"the reconciliation ended with code {done.returncode}"]
    found = json.loads(done.stdout)
    return found, found.pop("faults")


def _print(report: Mapping[str, Any]) -> None:
    print(f"\n{'request':<20}{'sent':>8}{'failed':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}")
    for kind, one in report["by_kind"].items():
        times = "".join(f"{one[name]:>9.2f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        print(f"{kind:<20}{one['requests']:>8}{one['failures']:>8}{times}")
    if table := report.get("reconciliation"):
        print(f"\n{'row':<24}{'sent':>8}{'answered':>10}{'stored':>8}{'difference':>12}")
        for row in table["rows"]:
            print(f"{row['kind']:<24}{row['sent']:>8}{row['answered']:>10}{row['stored']:>8}{row['difference']:>12}")
    for fault in report["faults"]:
        print(f"FAULT: {fault}")
