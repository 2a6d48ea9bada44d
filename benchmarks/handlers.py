"""CPU and memory of one request in this process: the real lane, handlers, sessions and journal, no socket (`in_process.py`).

The time is that of this thread alone, the journal's write included, its fsync not: the best of the rounds, since whatever
else runs on the machine can only add to it. CPython keeps no count of bytes allocated and freed again, so two others are
taken: what is alive at most while 64 requests of one loop turn are answered, and what stays of a request afterwards, with
sessions at capacity (nothing may).
"""

import argparse
import asyncio
import gc
import re
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any, NamedTuple

import uvloop

from benchmarks.in_process import CONNECTIONS, REDIRECT, InProcessWorker, load_catalog
from benchmarks.report import publish, surroundings
from benchmarks.serving import EXAMPLE_CATALOG

SUMMARY = "µs of CPU and bytes of memory for a click, an impression and a postback, in this process"
DISTINCT = 100 * CONNECTIONS
SESSION_CAPACITY = 2 * DISTINCT
"""So many that the postbacks find their clicks, so few that clicks evict."""
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

    requests: Sequence[bytes]
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
        best_us = dict.fromkeys([*loads, "postback, click in memory"], float("inf"))
        gc.collect()
        gc.freeze()  # as a worker does
        for _ in range(arguments.rounds):
            # First, so that the clicks after it find memory full of sessions.
            loads["postback, click in memory"] = await _postbacks(worker)
            for name, load in reversed(loads.items()):
                best_us[name] = min(best_us[name], await _cpu_us(worker, load, arguments.requests))
        found: dict[str, dict[str, float]] = {}
        for name, load in reversed(loads.items()):
            found[name] = {"cpu_us": round(best_us[name], 2), **await _bytes(worker, load)}
    return found


def _loads() -> dict[str, Load]:
    varied = [_request(_VARIED_CLICK.format(number), number) for number in range(DISTINCT)]
    return {
        "impression": Load([_request(_IMPRESSION)] * DISTINCT, b"image/gif"),
        "click, header lines never seen before": Load(varied, REDIRECT),
        "click, header lines seen before": Load([_request(_CLICK)] * DISTINCT, REDIRECT),
    }


def _request(path: str, build: int = 7000) -> bytes:
    return _HEAD.format(path=path, build=build).encode()


async def _postbacks(worker: InProcessWorker) -> Load:
    """A postback for each of so many clicks made now: the newest sessions."""
    clicks = [_request(_CLICK)] * CONNECTIONS
    said = [answer for _ in range(DISTINCT // CONNECTIONS) for answer in await worker.answers(clicks)]
    ids = [found[1].decode() for answer in said if (found := re.search(rb"clickid=([0-9a-f]{32})", answer))]
    return Load([_request(_POSTBACK.format(id_, number)) for number, id_ in enumerate(ids)], b"success=true;")


async def _cpu_us(worker: InProcessWorker, load: Load, count: int) -> float:
    """Microseconds of this thread's CPU a request."""
    requests = (load.requests * (count // len(load.requests) + 1))[:count]
    began_s = time.thread_time()
    await worker.serve(requests, load.wanted)
    return (time.thread_time() - began_s) / count * 1e6


async def _bytes(worker: InProcessWorker, load: Load) -> dict[str, Any]:
    """Of a request: alive at most during its loop turn, and kept; the first round fills what is filled once."""
    await worker.serve(load.requests, load.wanted)
    tracemalloc.start()
    try:
        await worker.serve(load.requests, load.wanted)
        kept_before, _ = tracemalloc.get_traced_memory()
        peaks = []
        for start in range(0, len(load.requests), CONNECTIONS):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            await worker.serve(load.requests[start : start + CONNECTIONS], load.wanted)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        kept = tracemalloc.get_traced_memory()[0] - kept_before
    finally:
        tracemalloc.stop()
    await asyncio.sleep(0)
    return {
        "alive_at_most_bytes": round(sorted(peaks)[len(peaks) // 2] / CONNECTIONS),
        "kept_bytes": round(kept / len(load.requests), 1),
    }
