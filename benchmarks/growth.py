"""What a click costs as the work grows: sessions held, offers and partners in the catalog, clicks stored.

The worker's cost is this thread's CPU per click, through the real lane, handlers and journal in this process
(`in_process.py`). Sessions are at capacity, so that each click evicts. Offers and partners are asked for evenly: all of
them, which no memory of recent parameters can hold, and the same ten offers and hundred partners of every catalog. The
drain's cost is that of a batch of clicks into a table that holds so many already (`stored_clicks.py`): its CPU,
PostgreSQL's, and the time it took. Sizes take turns; medians of the rounds.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import cycle, islice
from typing import Any, TypeVar

import uvloop

from benchmarks import report
from benchmarks.campaigns import catalog_of, clicks_of_traffic, clicks_on
from benchmarks.in_process import InProcessWorker, load_catalog
from benchmarks.plots import Panel, draw_panels
from benchmarks.stored_clicks import DrainCost, measure_stored
from benchmarks.traffic import OFFERS, PARTNERS, Traffic
from edge.logs import configure_logs

SUMMARY = "cost of a click as sessions, offers and stored clicks grow: it must not"
FLAT_WITHIN = 1.25
"""The cost at the largest size, by that at the smallest."""
SESSIONS, OFFER_COUNTS, STORED = (1_000, 10_000, 100_000), (10, 100, 1_000), (100_000, 1_000_000)
MORE_SESSIONS, MORE_OFFERS, MORE_STORED = (1_000_000,), (10_000,), (10_000_000,)
"""Added by --full."""
PARTNERS_OF_AN_OFFER = 10
HELD_WITH_OFFERS = 10_000
DISTINCT_REQUESTS = 20_000
FILL_TIMES = 1.3
PORTION = 10_000
PARTS = ("sessions", "offers", "stored")
ON_ALL, ON_TEN = "clicks on all offers", "clicks on ten of them"
Costs = dict[int, list[float]]
"""By size: µs per click, of each round."""
_Served = tuple[InProcessWorker, Sequence[bytes]]
_Key = TypeVar("_Key", int, tuple[str, int])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--full", action="store_true", help="up to 10^6 sessions, 10^4 offers and 10^7 stored clicks")
    parser.add_argument("--rounds", type=int, default=5, help="of all sizes in turn (default: 5)")
    parser.add_argument("--clicks", type=int, default=20_000, help="of each size in each round (default: 20000)")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS, help="only these (default: all three)")
    parser.add_argument("--directory", default="/var/tmp", help="for databases and journals: on a real disk")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, draw and keep the result."""
    configure_logs("benchmark")
    facts = report.surroundings()
    found: dict[str, dict[str, Costs]] = {}
    for part in arguments.part:
        print(f"measuring {part}")
        found[part] = _MEASURES[part](arguments)
    shown = {
        "rounds": arguments.rounds,
        "clicks_per_round": arguments.clicks,
        "verdict": _verdict(found),
        **{part: {name: _summary(costs) for name, costs in lines.items()} for part, lines in found.items()},
    }
    report.publish("growth", {**facts, **shown})
    panels = [_panel(part, lines) for part, lines in found.items()]
    draw_panels(report.RESULTS / "growth.png", "cost of a click as the work grows", panels)


async def _measure_sessions(arguments: argparse.Namespace) -> dict[str, Costs]:
    catalog = load_catalog(catalog_of(OFFERS, PARTNERS))
    requests = clicks_of_traffic(DISTINCT_REQUESTS)
    async with AsyncExitStack() as stack:
        served: dict[int, _Served] = {}
        for held in SESSIONS + MORE_SESSIONS * arguments.full:
            worker = InProcessWorker(catalog, session_capacity=held, directory=arguments.directory)
            served[held] = await stack.enter_async_context(worker), requests
            for _ in range(0, int(held * FILL_TIMES), PORTION):
                await worker.serve(requests[:PORTION])
            print(f"{held:,} sessions: {len(worker.sessions):,} held")
        return {"worker CPU": await _take_turns(served, arguments)}


async def _measure_offers(arguments: argparse.Namespace) -> dict[str, Costs]:
    """With clicks on all offers, and on ten of them in any catalog."""
    agents = Traffic().user_agents
    sizes = OFFER_COUNTS + MORE_OFFERS * arguments.full
    served: dict[tuple[str, int], _Served] = {}
    async with AsyncExitStack() as stack:
        for offers in sizes:
            partners = offers * PARTNERS_OF_AN_OFFER
            catalog = load_catalog(catalog_of(offers, partners))
            worker = InProcessWorker(catalog, session_capacity=HELD_WITH_OFFERS, directory=arguments.directory)
            await stack.enter_async_context(worker)
            step = offers // min(sizes)
            for name, each in ((ON_ALL, 1), (ON_TEN, step)):
                asked, by = range(each, offers + 1, each), range(each, partners + 1, each)
                requests = list(clicks_on(asked, by, agents, DISTINCT_REQUESTS))
                served[name, offers] = worker, requests
                await worker.serve(requests)
            print(f"{offers:,} offers, {partners:,} partners: loaded")
        costs = await _take_turns(served, arguments)
    return {name: {size: costs[name, size] for size in sizes} for name in (ON_ALL, ON_TEN)}


def _measure_stored(arguments: argparse.Namespace) -> dict[str, Costs]:
    sizes = STORED + MORE_STORED * arguments.full
    costs = measure_stored(sizes, arguments.clicks, arguments.rounds, arguments.directory)
    names = {"drain CPU": "drain_cpu_us", "PostgreSQL CPU": "server_cpu_us", "elapsed": "wall_us"}
    return {name: {size: _field(costs[size], field) for size in sizes} for name, field in names.items()}


_MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Costs]]] = {
    "sessions": lambda arguments: uvloop.run(_measure_sessions(arguments)),
    "offers": lambda arguments: uvloop.run(_measure_offers(arguments)),
    "stored": _measure_stored,
}


async def _take_turns(served: Mapping[_Key, _Served], arguments: argparse.Namespace) -> dict[_Key, list[float]]:
    """µs of this thread's CPU per click, of each round; a first round is left out."""
    costs: dict[_Key, list[float]] = {key: [] for key in served}
    gc.collect()
    gc.freeze()  # as a worker's process does with what was there before its clicks
    for number in range(arguments.rounds + 1):
        for key, (worker, requests) in sorted(served.items(), key=lambda item: item[0], reverse=number % 2 == 0):
            clicks = list(islice(cycle(requests), arguments.clicks))
            began_s = time.thread_time()
            await worker.serve(clicks)
            if number:
                costs[key].append((time.thread_time() - began_s) / arguments.clicks * 1e6)
    gc.unfreeze()
    return costs


def _field(costs: Sequence[DrainCost], name: str) -> list[float]:
    return [getattr(cost, name) for cost in costs]


def _medians(costs: Costs) -> dict[int, float]:
    return {size: statistics.median(values) for size, values in costs.items()}


def _ratio(costs: Costs) -> float:
    """The cost at the largest size, by that at the smallest: the median of the rounds' ratios."""
    smallest, largest = costs[min(costs)], costs[max(costs)]
    return statistics.median(large / small for small, large in zip(smallest, largest, strict=True))


def _summary(costs: Costs) -> dict[str, Any]:
    return {
        "us_per_click": {f"{size}": round(value, 2) for size, value in _medians(costs).items()},
        "us_per_click_by_round": {f"{size}": [round(one, 2) for one in values] for size, values in costs.items()},
        "largest_to_smallest": round(_ratio(costs), 3),
    }


def _verdict(found: Mapping[str, Mapping[str, Costs]]) -> str:
    ratios = {f"{part}, {name}": _ratio(costs) for part, lines in found.items() for name, costs in lines.items()}
    grown = [f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio > FLAT_WITHIN]
    return f"NOT flat: {'; '.join(grown)}" if grown else f"flat: the largest costs at most {FLAT_WITHIN} x the smallest"


def _panel(part: str, lines: Mapping[str, Costs]) -> Panel:
    labels = {"sessions": "sessions held", "offers": "offers (10 x partners)", "stored": "clicks stored before"}
    medians = {name: _medians(costs) for name, costs in lines.items()}
    drawn = {name: (list(points), list(points.values())) for name, points in medians.items()}
    drawn = {f"{name}: x {_ratio(lines[name]):.2f}": line for name, line in drawn.items()}
    return Panel(part, labels[part], "µs per click", drawn, is_log_x=True, marker="o")
