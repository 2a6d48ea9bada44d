"""Clicks per second with one worker and with several, each worker on a core of its own as far as there are any.

wrk needs a core too. Where the workers leave one, it runs there; else it shares theirs, and the rate is that of workers and
client together: what shows then whether workers hinder each other is the CPU that a click costs, and the rate that it allows
a worker with a core to itself.
"""

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from benchmarks.peers.loads import LOADS, SCRIPT, Account, ClientUsage, Sample
from benchmarks.peers.servers import running_node
from benchmarks.report import publish, surroundings
from benchmarks.serving import Cpu, Node, cpu_of, run_wrk

SUMMARY = "clicks/s and CPU per click by the number of workers"
WARM_UP_S = 1
_LOAD = LOADS["clicks"]


class Round(NamedTuple):
    """What one round said, and each worker's CPU seconds."""

    sample: Sample
    seconds: int
    workers: Sequence[Cpu]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers to compare (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=5, help="of all numbers in turn (default: 5)")
    parser.add_argument("--seconds", type=int, default=5, help="a round (default: 5)")
    parser.add_argument("--connections", type=int, default=64, help="kept alive, one request each (default: 64)")
    parser.add_argument("--directory", default="/var/tmp", help="for journals: on a real disk")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and keep the result."""
    facts = surroundings()
    cores = len(os.sched_getaffinity(0))
    rounds: dict[int, list[Round]] = {number: [] for number in arguments.workers}
    with ExitStack() as stack:
        nodes = {number: stack.enter_context(running_node("process", arguments.directory, number)) for number in rounds}
        accounts = {number: Account(node) for number, node in nodes.items()}
        for node in nodes.values():
            run_wrk(node.origin + _LOAD.path, seconds=WARM_UP_S, cpu=_client_cpu(node, cores))
        for _ in range(arguments.rounds):
            for number, node in nodes.items():
                rounds[number].append(_measure(node, accounts[number], arguments, _client_cpu(node, cores)))
                print(f"{number} workers: {rounds[number][-1].sample.rate_per_s:,.0f}/s")
        journal = {str(number): account.check_journal() for number, account in accounts.items()}
    settings = {name: getattr(arguments, name) for name in ("rounds", "seconds", "connections")}
    publish("workers", {**facts, **settings, "by_workers": _summarise(rounds, cores), "journal": journal})


def _client_cpu(node: Node, cores: int) -> int | None:
    """The last core if no worker is on it, else whichever the scheduler finds."""
    return max(os.sched_getaffinity(0)) if len(node.pids("worker")) < cores else None


def _measure(node: Node, account: Account, arguments: argparse.Namespace, client_cpu: int | None) -> Round:
    pids = sorted(node.pids("worker"))
    used: list[Cpu] = []

    def measured() -> Sample:
        before, client = [cpu_of(pid) for pid in pids], ClientUsage()
        seen = run_wrk(
            node.origin + _LOAD.path,
            seconds=arguments.seconds,
            connections=arguments.connections,
            script=SCRIPT,
            arguments=[_LOAD.mode],
            cpu=client_cpu,
        )
        client_cores = client.cores()
        for pid, began in zip(pids, before, strict=True):
            ended = cpu_of(pid)
            used.append(Cpu(ended.user_s - began.user_s, ended.system_s - began.system_s))
        together = Cpu(sum(one.user_s for one in used), sum(one.system_s for one in used))
        return Sample.of(seen, together, seen.failures, client_cores)

    sample = account.check_round(_LOAD, arguments.connections, measured, probes=0)
    return Round(sample, arguments.seconds, used)


def _summarise(rounds: Mapping[int, Sequence[Round]], cores: int) -> dict[str, dict[str, Any]]:
    first = [one.sample.rate_per_s for one in next(iter(rounds.values()))]
    return {str(number): _figures(number, taken, first, cores) for number, taken in rounds.items()}


def _figures(number: int, taken: Sequence[Round], first: Sequence[float], cores: int) -> dict[str, Any]:
    rates = [one.sample.rate_per_s for one in taken]
    cpu_us = statistics.median(one.sample.user_us + one.sample.system_us for one in taken)
    shares = [[sum(cpu) / one.seconds for cpu in one.workers] for one in taken]
    return {
        "client": "on a core of its own" if number < cores else f"shares {cores} cores with {number} workers",
        "clicks_per_s": round(statistics.median(rates)),
        "lowest_per_s": round(min(rates)),
        "highest_per_s": round(max(rates)),
        "ratio_to_first": round(statistics.median(a / b for a, b in zip(rates, first, strict=True)), 3),
        "user_us_per_click": round(statistics.median(one.sample.user_us for one in taken), 2),
        "system_us_per_click": round(statistics.median(one.sample.system_us for one in taken), 2),
        "clicks_per_cpu_s_of_a_worker": round(1e6 / cpu_us),
        "cores_used_by_each_worker": [
            round(statistics.median(share[index] for share in shares), 2) for index in range(number)
        ],
        "cores_used_by_wrk": round(statistics.median(one.sample.client_cores for one in taken), 2),
        "failures": sum(one.sample.failures for one in taken),
    }
