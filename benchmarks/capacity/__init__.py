"""How many machines a rate of clicks needs, what saturates first, and what a billion clicks cost.

A model (figures.py, model.py) says it from costs that were measured; a simulation (simulation.py) of the queues between
the parts says whether the model is right, and what outages do to the lag.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.capacity.checks import agree, outages, runs
from benchmarks.capacity.figures import FIGURES, load, write
from benchmarks.capacity.model import RATES_PER_S, limits, plan
from benchmarks.capacity.page import publish, render

SUMMARY = "machines needed for 10k to 10M clicks/s, what saturates first, and a simulation of the queues between the parts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--figures", type=Path, default=FIGURES, help="costs, choices and prices (default: results/capacity.json)")
    parser.add_argument("--seed", type=int, default=7, help="of the simulation (default: 7)")
    parser.add_argument("--seconds", type=float, default=60, help="simulated, of each run (default: 60)")
    parser.add_argument("--measure", action="store_true", help="first measure how long a batch keeps others out, and write it into the figures")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="of that database: on a real disk")
    parser.add_argument("--publish", action="store_true", help="write the tables into docs/scaling.md as well")


def run(arguments: argparse.Namespace) -> None:
    """Reckon, simulate, compare, print; SystemExit where model and simulation disagree."""
    if arguments.measure:
        _measure(arguments.figures, arguments.directory)
    book = load(arguments.figures)
    figures = book.figures
    found: dict[str, Any] = {
        "plans": [plan(figures, rate).as_dict() for rate in RATES_PER_S],
        "limits": [limit.as_dict() for limit in limits(figures)],
        "agreement": [one.as_dict() for one in agree(figures, arguments.seed, arguments.seconds)],
        "runs": [one.as_dict() for one in runs(figures, arguments.seed, arguments.seconds)],
        "outages": [one.as_dict() for one in outages(figures, arguments.seed, arguments.seconds)],
    }
    report.RESULTS.mkdir(exist_ok=True)
    report.publish("capacity_found", {**report.surroundings(), "seed": arguments.seed, **found})
    tables = render(book, found)
    print(f"\n{tables}")
    if arguments.publish:
        publish(tables)
    wrong = [one["name"] for one in found["agreement"] if not one["agrees"]]
    if wrong:
        raise SystemExit(f"model and simulation disagree: {', '.join(wrong)}")


def _measure(figures: Path, directory: Path) -> None:
    measuring = import_module("benchmarks.capacity.measuring")  # the model needs neither drain nor database
    said = json.loads(figures.read_text(encoding="utf-8"))
    said["figures"] |= measuring.measure(directory)
    write(figures, said)
