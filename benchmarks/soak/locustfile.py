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

from benchmarks.soak.ledger import Writer
from benchmarks.soak.load import PER_USER_PER_S
from benchmarks.soak.traffic import SoakTraffic
from benchmarks.soak.visiting import Visiting

DIRECTORY = Path(os.environ["SOAK_DIRECTORY"])
RATE_PER_S = int(os.environ["SOAK_RATE"])
FINISH_S = 60
"""At the end each user may finish the request in hand for so long: an answer that was cut off could not be reckoned with."""

TRAFFIC = SoakTraffic(Path(os.environ["SOAK_CATALOG"]), f"s{os.environ['SOAK_SEED']}", int(os.environ["SOAK_SEED"]))
LEDGER = Writer(DIRECTORY / "load.ledger")
STOP = DIRECTORY / "stop"


class Visitor(User):
    """One of as many as make the rate."""

    wait_time = constant_throughput(PER_USER_PER_S)

    def on_start(self) -> None:
        """Users that do not all ask in the same instant."""
        host, _, port = str(self.host).rpartition("//")[2].partition(":")
        self._visiting = Visiting((host, int(port)), TRAFFIC, LEDGER)
        gevent.sleep(random.random() / PER_USER_PER_S)

    @task
    def visit(self) -> None:
        """One request, told to Locust and, if something is wrong, to the log."""
        if STOP.exists():
            return
        request, took_ms, fault = self._visiting.visit(time.monotonic())
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
