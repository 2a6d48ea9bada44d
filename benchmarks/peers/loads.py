"""One row of the comparison: what is asked of which server, for some seconds; and whether all of it was answered."""

import http.client
import re
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from benchmarks.peers.servers import Target
from benchmarks.serving import Cpu, Node, run_wrk
from benchmarks.serving import Load as WrkRun

SCRIPT = Path(__file__).parent.parent / "clicks.lua"
CLICK = "/aff_c?offer_id=17&aff_id=2&aff_sub=abc123&source=news"
IMPRESSION = "/aff_i?offer_id=17&aff_id=2&aff_sub=abc123&source=news"
POSTBACK = "/aff_lsr?transaction_id={id}&amount=9.99&adv_sub=o-{number}"
PROBES = 2
"""Requests of `measure` itself: one before and one after."""
SETTLE_S = 0.3
"""Between wrk's end and the counters: what it had under way is answered, or found closed."""


class Load(NamedTuple):
    """What wrk asks for, how our counters file it, and what is said to it."""

    path: str
    mode: str
    kind: str
    outcome: str
    status: int


LOADS = {
    "clicks": Load(CLICK, "same", "click", "redirected", 302),
    "varied clicks": Load(CLICK, "varied", "click", "redirected", 302),
    "impressions": Load(IMPRESSION, "same", "impression", "recorded", 200),
    "postbacks": Load("/aff_lsr", "paths", "postback", "recorded", 200),
}


class Sample(NamedTuple):
    """One round of one row; CPU is the server's, latencies are wrk's."""

    rate_per_s: float
    user_us: float
    system_us: float
    p50_us: float
    p99_us: float
    requests: int
    failures: int
    client_cores: float
    """What wrk used of its core: near 1, the client is what was measured."""

    @classmethod
    def of(cls, seen: WrkRun, used: Cpu, failures: int, client_cores: float) -> Self:
        """What wrk saw, and what the server and wrk used meanwhile."""
        return cls(
            seen.rate_per_s,
            used.user_s / seen.requests * 1e6,
            used.system_s / seen.requests * 1e6,
            seen.p50_us,
            seen.p99_us,
            seen.requests,
            failures,
            client_cores,
        )


def measure(target: Target, load: Load, paths: Path, *, seconds: int, connections: int) -> Sample:
    """Load the server; any answer but the expected one to a request before or after counts as a failure.

    wrk counts statuses from 400 on by itself; for the others see `Account`.
    """
    failures = _wrong_answers(target, load, paths)
    before, client = target.cpu(), ClientUsage()
    seen = run_wrk(
        target.origin + load.path,
        seconds=seconds,
        connections=connections,
        script=SCRIPT,
        arguments=[load.mode, str(paths)],
    )
    after, client_cores = target.cpu(), client.cores()
    failures += seen.failures + _wrong_answers(target, load, paths)
    used = Cpu(after.user_s - before.user_s, after.system_s - before.system_s)
    return Sample.of(seen, used, failures, client_cores)


class ClientUsage:
    """Cores used since this was made by programs that have begun and ended meanwhile: by wrk, its start included."""

    def __init__(self) -> None:
        self._began_s, self._used_s = time.monotonic(), self._ended_programs_s()

    def cores(self) -> float:
        """Of one core, as wrk has one thread."""
        return (self._ended_programs_s() - self._used_s) / (time.monotonic() - self._began_s)

    def _ended_programs_s(self) -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


def _wrong_answers(target: Target, load: Load, paths: Path) -> int:
    path = paths.read_text(encoding="ascii").partition("\n")[0] if load.mode == "paths" else load.path
    connection = http.client.HTTPConnection(target.origin.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    is_right = answer.status == load.status
    if load.status == 302:
        is_right = is_right and answer.getheader("Location", "").startswith("https://shop.example.com/landing?clickid=")
    if load.kind == "postback":
        is_right = is_right and body.startswith(b"success=true;")
    return int(not is_right)


class Account:
    """A node's own counters, against which everything that wrk saw is checked."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._since_s = time.monotonic()
        self._requests, self._journalled = self._answered(), node.metric("edge_events_journalled_total")

    def check_round(self, load: Load, connections: int, measured: Callable[[], Sample], probes: int = PROBES) -> Sample:
        """The sample; RuntimeError unless just its requests were answered as expected, postbacks with their click."""
        before = self._count(load)
        sample = measured()
        time.sleep(SETTLE_S)
        for name, count in self._count(load).items():
            # When wrk hangs up it has a request under way on each connection.
            surplus = count - before[name] - sample.requests - probes
            if not 0 <= surplus <= connections:
                raise RuntimeError(f"{name}: {surplus:+.0f} beside the {sample.requests} that wrk counted")
        return sample

    def check_journal(self) -> dict[str, int]:
        """Answered and journalled in all; RuntimeError when an answered request is not in the journal."""
        answered = self._answered() - self._requests
        journalled = self._node.metric("edge_events_journalled_total") - self._journalled
        # One a second and worker.
        heartbeats_at_most = (time.monotonic() - self._since_s + 2) * len(self._node.pids("worker"))
        dropped = self._node.metric("edge_events_dropped_total")
        if dropped or not 0 <= journalled - answered <= heartbeats_at_most:
            raise RuntimeError(f"{answered:.0f} answered, {journalled:.0f} journalled, {dropped:.0f} dropped")
        return {"answered": int(answered), "journalled_with_heartbeats": int(journalled)}

    def _answered(self) -> float:
        return sum(self._count(load)[load.kind] for load in {one.kind: one for one in LOADS.values()}.values())

    def _count(self, load: Load) -> dict[str, float]:
        counts = {load.kind: self._node.metric("edge_requests_total", kind=load.kind, outcome=load.outcome)}
        if load.kind == "postback":
            counts["session hit"] = self._node.metric("edge_session_lookups_total", result="hit")
        return counts


def write_postbacks(node: Node, count: int, path: Path) -> None:
    """Make so many clicks now, and write down a postback for each: their sessions are the newest."""
    lines = (POSTBACK.format(id=id_, number=number) for number, id_ in enumerate(_click_ids(node.port, count)))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _click_ids(port: int, count: int, together: int = 20) -> Iterator[str]:
    request = f"GET {CLICK} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: clicks\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(0, count, together):
            connection.sendall(request * together)
            said = b""
            while said.count(b"\r\n\r\n") < together:
                if not (read := connection.recv(65536)):
                    raise RuntimeError("the connection was closed while clicks were made")
                said += read
            yield from (found.decode() for found in re.findall(rb"clickid=([0-9a-f]{32})", said))
