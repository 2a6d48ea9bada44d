"""An open-loop load: clicks are due at fixed times, and each one's latency is counted from when it was due.

A closed loop such as wrk's waits for a slow server and does not ask meanwhile (coordinated omission). Here nothing waits:
what is due while all connections are busy queues in the client, and its latency grows.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

from benchmarks.histogram import Histogram
from benchmarks.serving import REST_CPU

CONNECTIONS = 64
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class OpenLoad:
    """What the client saw; its warm-up is in `answered` and in `failures` only."""

    latency: Histogram
    """From when a click was due to its whole answer."""
    service: Histogram
    """From its sending to its whole answer."""
    own_lag: Histogram
    """The client's own part: from when it was due, and a connection free, to its sending."""
    worst_us: list[int]
    """The worst latency of the clicks due in each second."""
    worst_lag_us: list[int]
    """The client's own worst lag in each second."""
    counts: dict[str, Any]
    """measured, waited (for a free connection), bad_answers, lost, unsent, achieved_per_s, client_cpu_share …"""

    @property
    def answered(self) -> int:
        """Every click answered with a 302 and a Location, warm-up included: what must be in Postgres afterwards."""
        return int(self.counts["answered"])

    @property
    def failures(self) -> int:
        """Clicks with another answer, with none, or never sent."""
        return int(self.counts["bad_answers"] + self.counts["lost"] + self.counts["unsent"])


class OpenLoopClient:
    """The client's process; it is at work once the constructor returns, and is killed at the end of a `with`."""

    def __init__(
        self,
        port: int,
        *,
        rate_per_s: float,
        seconds: float,
        warmup_s: float = 1.0,
        connections: int = CONNECTIONS,
        is_poisson: bool = False,
        priority: str = "fifo",
        cpu: int = REST_CPU,
        seed: int = 1,
    ) -> None:
        """`priority`: fifo, nice or none, as far as it is allowed; `cpu`: -1 for any. RuntimeError: it did not start."""
        options = {
            "port": port, "rate": rate_per_s, "seconds": seconds, "warmup": warmup_s, "connections": connections,
            "priority": priority, "cpu": cpu, "seed": seed,
        }  # fmt: skip
        arguments = [f"--{name}={value}" for name, value in options.items()] + ["--poisson"] * is_poisson
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.openloop_client", *arguments],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._said = cast("IO[bytes]", self._process.stdout)
        if self._said.readline() != b"started\n":
            raise RuntimeError(f"the open-loop client did not start: code {self._process.wait()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._said.close()

    def finish(self) -> OpenLoad:
        """Wait for its end; what it saw. RuntimeError when it failed, as at a server that has gone."""
        said = self._said.read()
        if code := self._process.wait():
            raise RuntimeError(f"the open-loop client ended with code {code}")
        seen = json.loads(said)
        latency, service, own_lag = (
            Histogram.from_pairs(*seen.pop(name)) for name in ("latency", "service", "own_lag")
        )
        return OpenLoad(latency, service, own_lag, seen.pop("worst_us"), seen.pop("worst_lag_us"), seen)


def run_open_loop(port: int, **options: Any) -> OpenLoad:
    """Load that port of this machine from start to end; the options are OpenLoopClient's."""
    with OpenLoopClient(port, **options) as client:
        return client.finish()
