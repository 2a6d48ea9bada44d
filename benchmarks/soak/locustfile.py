"""The soak's load: a steady rate of mixed requests until the file `stop` appears; every one of them in a ledger.

Run by `benchmarks.soak.load`, which sets the environment: SOAK_DIRECTORY, SOAK_CATALOG, SOAK_RATE, SOAK_SEED.
"""

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, User, constant_throughput, events, task
from locust.env import Environment

from benchmarks.mixed_traffic import Reply
from benchmarks.soak.client import Client, Unanswered
from benchmarks.soak.ledger import UNANSWERED, Writer
from benchmarks.soak.traffic import Marked, SoakTraffic

DIRECTORY = Path(os.environ["SOAK_DIRECTORY"])
RATE_PER_S = int(os.environ["SOAK_RATE"])
PER_USER_PER_S = 8
FINISH_S = 60
"""At the end each user may finish the request in hand for so long: an answer that was cut off could not be reckoned with."""

TRAFFIC = SoakTraffic(Path(os.environ["SOAK_CATALOG"]), f"s{os.environ['SOAK_SEED']}", int(os.environ["SOAK_SEED"]))
LEDGER = Writer(DIRECTORY / "load.ledger")
STOP = DIRECTORY / "stop"


class Visitor(User):
    """Many strangers one after the other, over one connection."""

    wait_time = constant_throughput(PER_USER_PER_S)

    def on_start(self) -> None:
        """Users that do not all ask in the same instant."""
        host, _, port = str(self.host).rpartition("//")[2].partition(":")
        self._client = Client((host, int(port)))
        self._for_bad_ones = Client((host, int(port)))
        gevent.sleep(random.random() / PER_USER_PER_S)

    @task
    def visit(self) -> None:
        """Write down what is next, send it, write down what came of it."""
        if STOP.exists():
            return
        request = TRAFFIC.next_request(time.monotonic())
        LEDGER.sent(request.mark, request.kind, time.time(), request.family)
        began_s = time.perf_counter()
        try:
            reply = self._send(request)
        except Unanswered as error:
            took_ms = (time.perf_counter() - began_s) * 1000
            LEDGER.answered(request.mark, UNANSWERED, time.time(), took_ms)
            self._tell(request, took_ms, error)
            return
        took_ms = (time.perf_counter() - began_s) * 1000
        outcome, click_id, fault = TRAFFIC.settle(request, reply, time.monotonic())
        LEDGER.answered(request.mark, outcome, time.time(), took_ms, click_id)
        self._tell(request, took_ms, ValueError(fault) if fault else None)

    def _send(self, request: Marked) -> Reply:
        """Bad requests end their connection, and have one of their own."""
        if request.plan is not None:
            return self._client.ask(request.method, request.target, request.headers, request.body)
        try:
            if request.raw:
                return self._for_bad_ones.exchange(request.raw)
            return self._for_bad_ones.ask(request.method, request.target, request.headers)
        finally:
            self._for_bad_ones.close()

    def _tell(self, request: Marked, took_ms: float, fault: Exception | None) -> None:
        if fault:
            print(f"{time.time():.3f} {request.mark}: {fault!r}", file=sys.stderr, flush=True)
        self.environment.events.request.fire(
            request_type=request.method, name=request.kind, response_time=took_ms, response_length=0, exception=fault,
            context={},
        )  # fmt: skip


class Steady(LoadTestShape):
    """As many users as make the rate, until the stop."""

    def tick(self) -> tuple[int, float] | None:
        """Users, and how many of them to start in a second; None at the end."""
        users = max(1, RATE_PER_S // PER_USER_PER_S)
        return None if STOP.exists() else (users, users)


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Requests in hand are finished at the end."""
    environment.stop_timeout = FINISH_S
