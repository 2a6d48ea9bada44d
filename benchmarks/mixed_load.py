"""Locust against a real node, on cores of their own; the answers checked, the rows counted."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.report import publish, surroundings
from benchmarks.serving import REST_CPU, Node, pin
from benchmarks.traffic import catalog_text

SUMMARY = "mixed traffic by Locust, the answers checked, sent = stored"
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_GOAL = '[[offers.goals]]\nid = 1\nname = "lead"\npayout = "1.00"\nrevenue = "1.50"\n'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m benchmarks locust`."""
    parser.add_argument("--rate", type=int, default=600, help="requests a second on the plateau (600)")
    parser.add_argument("--ramp", type=float, default=10.0, metavar="SECONDS", help="up to the plateau (10)")
    parser.add_argument("--seconds", type=float, default=60.0, help="on the plateau (60)")
    parser.add_argument("--spike", type=float, default=10.0, metavar="SECONDS", help="at twice the rate, after it (10)")


def run(arguments: argparse.Namespace) -> None:
    """Measure and publish; RuntimeError past one of the locustfile's thresholds."""
    settings = {
        "rate": arguments.rate,
        "ramp_s": arguments.ramp,
        "plateau_s": arguments.seconds,
        "spike_s": arguments.spike,
    }
    around = surroundings()
    with MixedNode() as node:
        found = run_locust(node, **settings)
    rows = found["reconciliation"].pop("rows", [])
    found["reconciliation"] |= {row.pop("kind"): row for row in rows}
    publish("locust", {**around, **settings, **found})
    if found["faults"]:
        raise RuntimeError("; ".join(found["faults"]))


class MixedNode(Node):
    """A node with the traffic's catalog that believes its X-Forwarded-For."""

    def __init__(self) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="clickedge-catalog-")
        catalog = Path(self._own.name) / "catalog.toml"
        catalog.write_text(catalog_with_goals(), encoding="utf-8")
        super().__init__(catalog=catalog, EDGE_TRUSTED_PROXIES="127.0.0.1")

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._own.cleanup()


def catalog_with_goals() -> str:
    """The traffic's catalog, each offer with a goal."""
    first, *offers = catalog_text().split("[[offers]]")
    return first + "".join(f"[[offers]]{offer.rstrip()}\n{_GOAL}\n" for offer in offers)


def run_locust(node: Node, **options: Any) -> dict[str, Any]:
    """The locustfile's report, `faults` in it; RuntimeError when it ends without one. `options`: those of the locustfile."""
    with tempfile.TemporaryDirectory(prefix="clickedge-locust-") as directory:
        report = Path(directory) / "report.json"
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        done = subprocess.run(
            [
                sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--loglevel", "WARNING",
                "--host", node.origin, "--catalog", str(node.catalog), "--report", str(report), *flags,
            ],
            cwd=LOCUSTFILE.parent.parent,
            env={**os.environ, "CLICKEDGE_DATABASE_URL": node.database_url, "CLICKEDGE_ADMIN": node.admin},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: pin(os.getpid(), REST_CPU),
        )  # fmt: skip
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
            return found
    raise RuntimeError(f"locust ended with code {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
