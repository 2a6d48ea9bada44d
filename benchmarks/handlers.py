"""CPU and memory of one request in this process: the real lane, handlers, sessions and journal, no socket (`in_process.py`).

The time is that of this thread alone, the journal's write included, its fsync not: the best of the rounds, since whatever
else runs on the machine can only add to it. CPython keeps no count of bytes allocated and freed again, so two others are
taken: what is alive at most while 64 requests of one loop turn are answered, and what stays of a request afterwards, with
sessions at capacity: a few bytes, up and down with the sessions' tables and the lane's memory of header lines.
"""

import argparse
import gc
import re
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from typing import NamedTuple

import uvloop

from benchmarks.in_process import CONNECTIONS, REDIRECT, InProcessWorker, load_catalog
from benchmarks.report import publish, surroundings
from benchmarks.serving import EXAMPLE_CATALOG
from edge.counters import cell

SUMMARY = "µs of CPU and bytes of memory for a click, an impression and a postback, in this process"
DISTINCT = 100 * CONNECTIONS
SESSION_CAPACITY = 2 * DISTINCT
"""So many that the postbacks find their clicks, so few that clicks evict."""
TURNOVERS = 4
"""Rounds until every session was made under tracemalloc, which does not see others go."""
POSTBACK = "postback, click in memory"
RECORDED = b"success=true;"
_HITS = cell("edge_session_lookups_total", "hit")
_CLICK = "/aff_c?offer_id=17&aff_id=2&aff_sub=abc123&source=news"
_VARIED_CLICK = "/aff_c?offer_id=17&aff_id=2&aff_sub=ad{0}&aff_click_id={0:016x}&source=site{0}"
_IMPRESSION = "/aff_i?offer_id=17&aff_id=2&aff_sub=abc123&source=news"
_POSTBACK = "/aff_lsr?transaction_id={0}&amount=9.99&adv_sub=o-{1}"
_HEAD = (
    "GET {path} HTTP/1.1\r\nHost: click.example.com\r\n"
    "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.{build}.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.9\r\nAccept-Encoding: gzip, deflate, br\r\n"
    "Referer: https://deal.blog/holiday/{build}\r\n\r\n"
)


class Load(NamedTuple):
    """Requests of one kind, and what must be in each answer."""

    requests: list[bytes]
    wanted: bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=15, help="of all kinds in turn (default: 15)")
    parser.add_argument("--requests", type=int, default=20_000, help="of a kind and round (default: 20000)")
    parser.add_argument("--directory", default="/var/tmp", help="for the journal: on a real disk")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and keep the result."""
    facts = surroundings()
    settings = {"rounds": arguments.rounds, "requests_a_round": arguments.requests, "in_a_loop_turn": CONNECTIONS}
    publish("handlers", {**facts, **settings, "request": uvloop.run(_measure(arguments))})


async def _measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    catalog = load_catalog(EXAMPLE_CATALOG.read_text(encoding="utf-8"))
    async with InProcessWorker(
        catalog, session_capacity=SESSION_CAPACITY, directory=arguments.directory, durable_conversions=False
    ) as worker:
        loads = _loads()
        best_us = dict.fromkeys([*loads, POSTBACK], float("inf"))
        gc.collect()
        gc.freeze()  # as a worker does
        for _ in range(arguments.rounds):
            for name in best_us:
                load = loads[name] if name in loads else await _postbacks(worker)
                best_us[name] = min(best_us[name], await _cpu_us(worker, load, arguments.requests))
        return {
            name: {"cpu_us": round(cpu_us, 2), **await _bytes(worker, loads.get(name) or await _postbacks(worker))}
            for name, cpu_us in best_us.items()
        }


def _loads() -> dict[str, Load]:
    varied = [_request(_VARIED_CLICK.format(number), number) for number in range(DISTINCT)]
    return {
        "click, header lines seen before": Load([_request(_CLICK)] * DISTINCT, REDIRECT),
        "click, header lines new": Load(varied, REDIRECT),
        "impression": Load([_request(_IMPRESSION)] * DISTINCT, b"image/gif"),
    }


def _request(path: str, build: int = 7000) -> bytes:
    return _HEAD.format(path=path, build=build).encode()


async def _postbacks(worker: InProcessWorker) -> Load:
    """A postback for each of so many clicks made now: the newest sessions."""
    clicks = [_request(_CLICK)] * CONNECTIONS
    said = [answer for _ in range(DISTINCT // CONNECTIONS) for answer in await worker.answers(clicks)]
    ids = [found[1].decode() for answer in said if (found := re.search(rb"clickid=([0-9a-f]{32})", answer))]
    return Load([_request(_POSTBACK.format(id_, number)) for number, id_ in enumerate(ids)], RECORDED)


async def _cpu_us(worker: InProcessWorker, load: Load, count: int) -> float:
    """Microseconds of this thread's CPU a request."""
    requests = (load.requests * (count // len(load.requests) + 1))[:count]
    began_s = time.thread_time()
    await _serve(worker, load, requests)
    return (time.thread_time() - began_s) / count * 1e6


async def _serve(worker: InProcessWorker, load: Load, requests: Sequence[bytes]) -> None:
    """RuntimeError unless all are answered as expected, postbacks with their click in memory."""
    hits = worker.counters.cells[_HITS]
    await worker.serve(requests, load.wanted)
    if load.wanted == RECORDED and worker.counters.cells[_HITS] - hits != len(requests):
        raise RuntimeError(f"of {len(requests)} postbacks {worker.counters.cells[_HITS] - hits} found their click")


async def _bytes(worker: InProcessWorker, load: Load) -> dict[str, float]:
    """Of a request: alive at most during its loop turn (the median turn's peak), and kept."""
    tracemalloc.start()
    try:
        for _ in range(TURNOVERS):
            await _serve(worker, load, load.requests)
        began_with, _ = tracemalloc.get_traced_memory()
        peaks = []
        for start in range(0, len(load.requests), CONNECTIONS):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            await _serve(worker, load, load.requests[start : start + CONNECTIONS])
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        kept = tracemalloc.get_traced_memory()[0] - began_with
    finally:
        tracemalloc.stop()
    return {
        "alive_at_most_bytes": round(statistics.median(peaks) / CONNECTIONS),
        "kept_bytes": round(kept / len(load.requests), 1),
    }
