"""One client's requests: written down, sent, judged, written down again."""

import time
from typing import NamedTuple

from benchmarks.mixed_traffic import Reply
from benchmarks.soak.client import Client, Unanswered
from benchmarks.soak.ledger import UNANSWERED, Writer
from benchmarks.soak.traffic import Marked, SoakTraffic


class Visit(NamedTuple):
    """A request and what came of it; `fault`: what is wrong with its answer, or that there was none; else None."""

    request: Marked
    took_ms: float
    fault: Exception | None


class Visiting:
    """Many strangers one after the other over one connection; bad requests, which end theirs, have another."""

    def __init__(self, address: tuple[str, int], traffic: SoakTraffic, ledger: Writer) -> None:
        self._traffic = traffic
        self._ledger = ledger
        self._client, self._for_bad_ones = Client(address), Client(address)

    def visit(self, now_s: float) -> Visit:
        """The next request. `now_s`: the traffic's own clock, by which conversions follow clicks."""
        request = self._traffic.next_request(now_s)
        self._ledger.sent(request.mark, request.kind, time.time(), request.family)
        began_s = time.perf_counter()
        try:
            reply = self._send(request)
        except Unanswered as error:
            took_ms = (time.perf_counter() - began_s) * 1000
            self._ledger.answered(request.mark, UNANSWERED, time.time(), took_ms)
            return Visit(request, took_ms, error)
        took_ms = (time.perf_counter() - began_s) * 1000
        outcome, click_id, fault = self._traffic.settle(request, reply, now_s)
        self._ledger.answered(request.mark, outcome, time.time(), took_ms, click_id)
        return Visit(request, took_ms, ValueError(fault) if fault else None)

    def _send(self, request: Marked) -> Reply:
        if request.plan is not None:
            return self._client.ask(request.method, request.target, request.headers, request.body)
        try:
            if request.raw:
                return self._for_bad_ones.exchange(request.raw)
            return self._for_bad_ones.ask(request.method, request.target, request.headers)
        finally:
            self._for_bad_ones.close()

    def close(self) -> None:
        """Let go of both connections."""
        self._client.close()
        self._for_bad_ones.close()
