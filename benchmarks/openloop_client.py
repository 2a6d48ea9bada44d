"""The open-loop client's process (`openloop.py` starts it): one thread, epoll, non-blocking sockets, no event loop.

Pinned, without garbage collection, its requests made beforehand. It sleeps until the next click is due by a timerfd: the
timers of epoll, asyncio and uvloop count whole milliseconds. It does not spin, so that the drain and PostgreSQL have
what it leaves of their common core (30 % of a core at 10,000/s, 75 % at 25,000/s); real-time priority gets it that core
back at once. Beside a program that never sleeps on the same core, its own lag at p99 was 14 us with SCHED_FIFO, 2 ms with
nice -10 and 4 ms without either (10,000/s, 2 shared Xeon cores, 2026-11-22).
"""

import argparse
import ctypes
import gc
import json
import os
import random
import re
import select
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.campaigns import clicks_of_traffic
from benchmarks.histogram import Histogram
from benchmarks.serving import pin

DISTINCT_REQUESTS = 20_000
LAST_ANSWERS_S = 10.0
"""How long after the end the client goes on with what is late."""
FIFO_PRIORITY = 10
NICE = -10
READ_BYTES = 65_536
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SECOND_NS = 1_000_000_000


class _Timer:
    """A timerfd: wakes epoll at a nanosecond of CLOCK_MONOTONIC, which is what `perf_counter_ns` reads."""

    _MONOTONIC, _ABSOLUTE = 1, 1

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(self._MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = (ctypes.c_long * 4)()  # the interval's s and ns (none), then the time's

    def set(self, at_ns: int) -> None:
        """Wake then; at once if it is past. With EPOLLET there is nothing to read afterwards."""
        self._spec[2], self._spec[3] = divmod(at_ns, _SECOND_NS)
        self._libc.timerfd_settime(self.fd, self._ABSOLUTE, self._spec, None)


class _Connection:
    __slots__ = ("buffer", "due_ns", "free_ns", "sent_ns", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.buffer = b""
        self.due_ns = self.sent_ns = self.free_ns = 0


class Client:
    """Sends what is due on free connections, sleeps, takes answers; one click at a time on each connection."""

    def __init__(self, options: argparse.Namespace, requests: Sequence[bytes]) -> None:
        self._requests = requests
        self._port: int = options.port
        self._timer = _Timer()
        self._epoll = select.epoll()
        self._epoll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)
        self._connections: dict[int, _Connection] = {}
        self._free: deque[_Connection] = deque()
        self.latency, self.service, self.own_lag = Histogram(), Histogram(), Histogram()
        seconds = int(options.seconds) + 1
        self.worst_us, self.worst_lag_us = array("Q", bytes(8 * seconds)), array("Q", bytes(8 * seconds))
        self.sent = self.answered = self.measured = self.bad_answers = self.lost = self.unsent = self.waited = 0
        self.duration_s = 0.0
        for _ in range(options.connections):
            self._connect()
        start_ns = time.perf_counter_ns() + _SECOND_NS // 2
        self._measured_from_ns = start_ns + int(options.warmup * _SECOND_NS)
        self._until_ns = self._measured_from_ns + int(options.seconds * _SECOND_NS)
        self._due = _due_times(start_ns, options.rate, random.Random(options.seed) if options.poisson else None)
        self._next_due_ns = next(self._due)

    def run(self) -> None:
        """From the first click due to the last answer; 10 s after the end the rest is lost, or was never sent."""
        end_ns = self._until_ns + int(LAST_ANSWERS_S * _SECOND_NS)
        poll, connections, timer_fd = self._epoll.poll, self._connections, self._timer.fd
        while self._is_unfinished() and time.perf_counter_ns() < end_ns:
            self._send_due()
            is_waiting_for_time = self._free and self._next_due_ns < self._until_ns
            self._timer.set(self._next_due_ns if is_waiting_for_time else end_ns)
            for fd, _ in poll():
                if fd != timer_fd:
                    self._take(connections[fd])
        last_answer_ns = max(connection.free_ns for connection in connections.values())
        self.duration_s = (last_answer_ns - self._measured_from_ns) / _SECOND_NS
        self.lost += len(self._connections) - len(self._free)
        while self._next_due_ns < self._until_ns:
            self.unsent += 1
            self._next_due_ns = next(self._due)

    def _is_unfinished(self) -> bool:
        return self._next_due_ns < self._until_ns or len(self._free) < len(self._connections)

    def _send_due(self) -> None:
        free, requests, clock = self._free, self._requests, time.perf_counter_ns
        while free and self._next_due_ns < self._until_ns and self._next_due_ns <= (now_ns := clock()):
            connection = free.popleft()
            connection.due_ns, connection.sent_ns = self._next_due_ns, now_ns
            self._count_lag(connection)
            try:
                connection.sock.send(requests[self.sent % len(requests)])
            except OSError:
                self._replace(connection)
            self.sent += 1
            self._next_due_ns = next(self._due)

    def _take(self, connection: _Connection) -> None:
        try:
            received = connection.sock.recv(READ_BYTES)
        except BlockingIOError:  # told of a connection that was replaced meanwhile, under the same number
            return
        except OSError:
            received = b""
        if not received:
            self._replace(connection)
            return
        data = connection.buffer + received if connection.buffer else received
        end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data, 0, end) if end >= 4 else None
        if end < 4 or (length and len(data) < end + int(length[1])):
            connection.buffer = data
            return
        connection.buffer = b""
        self._count_answer(connection, data.startswith(b"HTTP/1.1 302 ") and data.find(b"\r\nLocation: ", 0, end) > 0)
        self._free.append(connection)

    def _count_lag(self, connection: _Connection) -> None:
        since_ns = connection.due_ns - self._measured_from_ns
        if since_ns < 0:
            return
        self.waited += connection.free_ns > connection.due_ns
        lag_us = (connection.sent_ns - max(connection.due_ns, connection.free_ns)) // 1000
        _add(self.own_lag, self.worst_lag_us, since_ns // _SECOND_NS, lag_us)

    def _count_answer(self, connection: _Connection, is_good: bool) -> None:
        now_ns = time.perf_counter_ns()
        connection.free_ns = now_ns
        if not is_good:
            self.bad_answers += 1
            return
        self.answered += 1
        since_ns = connection.due_ns - self._measured_from_ns
        if since_ns < 0:
            return
        self.measured += 1
        self.service.add((now_ns - connection.sent_ns) // 1000)
        _add(self.latency, self.worst_us, since_ns // _SECOND_NS, (now_ns - connection.due_ns) // 1000)

    def _connect(self) -> None:
        connection = _Connection(self._port)
        self._connections[connection.sock.fileno()] = connection
        self._epoll.register(connection.sock.fileno(), select.EPOLLIN)
        self._free.append(connection)

    def _replace(self, connection: _Connection) -> None:
        """A closed connection: its click, if it had one, is lost; another takes its place."""
        if connection in self._free:
            self._free.remove(connection)
        else:
            self.lost += 1
        self._epoll.unregister(connection.sock.fileno())
        del self._connections[connection.sock.fileno()]
        connection.sock.close()
        self._connect()


def _add(histogram: Histogram, worst_us: "array[int]", second: int, duration_us: int) -> None:
    histogram.add(duration_us)
    worst_us[second] = max(worst_us[second], duration_us)


def _due_times(start_ns: int, rate_per_s: float, chance: random.Random | None) -> Iterator[int]:
    """Nanoseconds at which clicks are due: evenly spaced, or with `chance` as independent visitors come (Poisson)."""
    if chance is None:
        number = 0
        while True:
            yield start_ns + int(number * _SECOND_NS / rate_per_s)
            number += 1
    at_ns = float(start_ns)
    while True:
        at_ns += chance.expovariate(rate_per_s) * _SECOND_NS
        yield int(at_ns)


def _raise_priority(wanted: str) -> str:
    """What was granted of fifo (real-time), nice or none."""
    try:
        if wanted == "fifo":
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
            return f"SCHED_FIFO {FIFO_PRIORITY}"
        if wanted == "nice":
            return f"nice {os.nice(NICE)}"
    except PermissionError:
        return f"none: {wanted} is not allowed"
    return "none"


def _stolen_s() -> float:
    """Seconds that the hypervisor has kept all cores from running, so far."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")


def _report(client: Client, seconds: float) -> dict[str, Any]:
    histograms = {"latency": client.latency, "service": client.service, "own_lag": client.own_lag}
    counts = ("answered", "measured", "bad_answers", "lost", "unsent", "waited")
    return {
        **{name: (histogram.pairs(), histogram.max_us) for name, histogram in histograms.items()},
        "worst_us": list(client.worst_us)[: int(seconds)],
        "worst_lag_us": list(client.worst_lag_us)[: int(seconds)],
        **{name: getattr(client, name) for name in counts},
        "achieved_per_s": round(client.measured / max(client.duration_s, seconds), 1),
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, kind in (("port", int), ("rate", float), ("seconds", float), ("warmup", float), ("connections", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--cpu", type=int, required=True, help="-1: any")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--priority", choices=("fifo", "nice", "none"), required=True)
    parser.add_argument("--poisson", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Be the client: `started` on stdout, then one line of JSON."""
    options = _parse()
    if options.cpu >= 0:
        pin(os.getpid(), options.cpu)
    requests = clicks_of_traffic(DISTINCT_REQUESTS, options.seed)
    client = Client(options, requests)
    gc.collect()
    gc.disable()
    priority = _raise_priority(options.priority)
    print("started", flush=True)
    began_s, began_cpu_s, began_stolen_s = time.perf_counter(), time.process_time(), _stolen_s()
    client.run()
    cpu_share = (time.process_time() - began_cpu_s) / (time.perf_counter() - began_s)
    if priority.startswith("SCHED_FIFO"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    figures = {
        "client_priority": priority,
        "client_cpu_share": round(cpu_share, 3),
        "stolen_s": round(_stolen_s() - began_stolen_s, 2),
    }
    print(json.dumps({**_report(client, options.seconds), **figures}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
