"""`python -m benchmarks.dashboard`: the dashboard over a real run, drawn from Prometheus's answers into docs/images.

Mixed traffic by Locust; meanwhile a worker is killed, PostgreSQL stands still, the drain stands still. Prints which alerts were
raised, and what Locust's reconciliation found.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.dashboard_plots import draw
from benchmarks.mixed_load import MixedNode, run_locust
from benchmarks.prometheus import Prometheus, Series, fill
from benchmarks.serving import Node
from deploy.grafana.panels import panels

SCRAPE_S = 2
RATE_INTERVAL = "10s"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "dashboard.png"
Fault = Callable[[Node], None]


def kill_worker(node: Node) -> None:
    """It is started again."""
    os.kill(node.pids("worker")[0], signal.SIGKILL)


def stop(role: str) -> Fault:
    """Its processes stand still."""
    return lambda node: node.pause(role)


def go_on(role: str) -> Fault:
    """They work again."""
    return lambda node: node.resume(role)


def faults(seconds: float) -> list[tuple[float, str, Fault]]:
    """What is done when, in a run of that length."""
    return [
        (seconds * 0.2, "worker killed", kill_worker),
        (seconds * 0.35, "PostgreSQL stopped", stop("postgres")),
        (seconds * 0.6, "goes on", go_on("postgres")),
        (seconds * 0.75, "drain stopped", stop("drain")),
        (seconds * 0.85, "goes on ", go_on("drain")),
    ]


def main() -> None:
    """Run, draw, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--rate", type=int, default=150, help="requests a second (150)")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long (300)")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where to draw")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clickedge-prometheus-") as directory, MixedNode() as node:
        target = node.admin.removeprefix("http://")
        with Prometheus(Path(directory), [target], SCRAPE_S) as prometheus:
            began_s = time.time()
            found, marks = run_with_faults(node, arguments.rate, arguments.seconds)
            ended_s = time.time()
            answers = ask_all(prometheus, began_s, ended_s)
            print_alerts(prometheus, began_s, ended_s)
    print(f"requests that went wrong: {found['faults'] or 'none'}")
    title = f"ClickEdge's dashboard: {arguments.rate} requests a second, {arguments.seconds:.0f} s, with faults"
    draw(arguments.picture, title, answers, {name: at - began_s for name, at in marks.items()})


def run_with_faults(node: Node, rate: int, seconds: float) -> tuple[dict[str, Any], dict[str, float]]:
    """Locust's report, and when each fault was done."""
    marks: dict[str, float] = {}
    done = threading.Event()

    def break_things() -> None:
        began_s = time.time()
        for at_s, name, fault in faults(seconds):
            if done.wait(max(0.0, began_s + at_s - time.time())):
                return
            marks[name] = time.time()
            fault(node)

    breaker = threading.Thread(target=break_things, name="faults")
    breaker.start()
    try:
        return run_locust(node, rate=rate, ramp_s=10.0, plateau_s=seconds - 10, spike_s=0.0), marks
    finally:
        done.set()
        breaker.join()
        for role in ("postgres", "drain"):
            node.resume(role)


def ask_all(prometheus: Prometheus, began_s: float, ended_s: float) -> dict[tuple[str, str], list[Series]]:
    """What each query of the dashboard was over the run, at seconds since it began."""
    return {
        (panel.title, query.legend): [
            Series(series.labels, [(at - began_s, value) for at, value in series.points])
            for series in prometheus.query_range(
                fill(query.expr, rate_interval=RATE_INTERVAL), began_s, ended_s, SCRAPE_S
            )
        ]
        for panel in panels()
        for query in panel.queries
    }


def print_alerts(prometheus: Prometheus, began_s: float, ended_s: float) -> None:
    """Which were pending, which fired, and when for the first time."""
    for series in prometheus.query_range("min by (alertname, alertstate) (ALERTS)", began_s, ended_s, SCRAPE_S):
        first_s, last_s = series.points[0][0] - began_s, series.points[-1][0] - began_s
        print(f"{series.labels['alertname']:24} {series.labels['alertstate']:8} {first_s:5.0f} s to {last_s:5.0f} s")


if __name__ == "__main__":
    main()
