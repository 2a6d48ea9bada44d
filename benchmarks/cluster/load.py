"""The soak's traffic, to both edges: each request goes to either, so that half of the postbacks come where the click did not.

One ledger an edge, so that it is known whose requests were not answered.
"""

import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cluster.programs import Edge
from benchmarks.mixed_traffic import Reply
from benchmarks.soak import ledger
from benchmarks.soak.node import SoakFailed
from benchmarks.soak.traffic import Marked, SoakTraffic
from benchmarks.soak.visiting import Visiting

PER_VISITOR_PER_S = 8
ENDS_S = 60.0


class SharedTraffic(SoakTraffic):
    """For several threads."""

    def __init__(self, catalog: Path, prefix: str, seed: int) -> None:
        super().__init__(catalog, prefix, seed)
        self._lock = threading.Lock()

    def next_request(self, now_s: float) -> Marked:
        """What is due now, marked."""
        with self._lock:
            return super().next_request(now_s)

    def settle(self, request: Marked, reply: Reply, now_s: float) -> tuple[str, str, str]:
        """(outcome, the click's id or "", what is wrong or "")."""
        with self._lock:
            return super().settle(request, reply, now_s)


class Load:
    """`rate_per_s` requests a second in all, by as many visitors as that takes, until `stop`."""

    def __init__(self, edges: Sequence[Edge], catalog: Path, directory: Path, rate_per_s: int, seed: int) -> None:
        self._edges = edges
        self._visited = set(range(len(edges)))
        self._directory = directory
        self._traffic = SharedTraffic(catalog, f"c{seed}", seed)
        self._ledgers = [ledger.Writer(path) for path in self._paths()]
        self._stopping = threading.Event()
        self._failures: list[str] = []
        self._visitors = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(max(1, rate_per_s // PER_VISITOR_PER_S))
        ]
        self._begun: dict[int, float] = {}

    def start(self) -> None:
        """From now on."""
        for visitor in self._visitors:
            visitor.start()

    def stop(self) -> None:
        """No more; every request in hand is answered or given up at its end."""
        self._stopping.set()
        for visitor in self._visitors:
            visitor.join(ENDS_S)
        if any(visitor.is_alive() for visitor in self._visitors):
            raise SoakFailed("the load did not end")
        self.check()

    def check(self) -> None:
        """SoakFailed when a visitor has ended by itself."""
        if self._failures:
            raise SoakFailed(f"the load failed: {self._failures[0]}")

    def leave(self, number: int) -> None:
        """That edge gets no more requests; what is in hand is over soon."""
        self._visited = self._visited - {number}

    def come_back(self, number: int) -> None:
        """That edge gets its share again."""
        self._visited = self._visited | {number}

    def is_visiting(self, number: int) -> bool:
        """Whether a request to that edge may still be in hand."""
        return number in self._visited or number in set(self._begun.values())

    def entries(self) -> list[dict[str, ledger.Entry]]:
        """What was sent to each edge, by mark."""
        return [ledger.read([path]) for path in self._paths()]

    def _paths(self) -> list[Path]:
        return [self._directory / f"{edge.name.replace(' ', '')}.ledger" for edge in self._edges]

    def _run(self, visitor: int) -> None:
        chance = random.Random(visitor)
        visitings = [
            Visiting(("127.0.0.1", edge.port), self._traffic, book)
            for edge, book in zip(self._edges, self._ledgers, strict=True)
        ]
        due_s = time.monotonic() + chance.random() / PER_VISITOR_PER_S
        try:
            while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
                due_s = max(due_s + 1 / PER_VISITOR_PER_S, time.monotonic() - 1)
                number = self._begun[visitor] = chance.choice(sorted(self._visited))
                if number in self._visited:
                    self._visit(visitings[number], number)
                del self._begun[visitor]
        except Exception as error:
            self._failures.append(repr(error))
        for visiting in visitings:
            visiting.close()

    def _visit(self, visiting: Visiting, number: int) -> None:
        request, _, fault = visiting.visit(time.monotonic())
        if fault and not isinstance(fault, OSError):
            print(f"{time.time():.3f} edge {number} {request.mark}: {fault!r}", file=sys.stderr, flush=True)
