"""What a fault of the cluster may lay hands on."""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cluster.load import Load
from benchmarks.cluster.parts import Parts
from benchmarks.cluster.programs import Edge
from benchmarks.cluster.progress import AWAY
from benchmarks.scraping import total
from benchmarks.soak import ledger
from benchmarks.soak.partners import Listener


@dataclass
class Scene:
    """The cluster under load and its surroundings."""

    parts: Parts
    load: Load
    partners: Sequence[Listener]
    directory: Path
    chance: random.Random
    dropped: int = 0
    """Clicks and impressions that edges counted as answered and not recorded."""
    unstored: int = 0
    """Refused conversions that edges only counted."""

    def __post_init__(self) -> None:
        self.ledger = ledger.Writer(self.directory / "faults.ledger")
        self._sent = 0

    def mark(self) -> str:
        """A new one, of a request that a fault sends itself."""
        self._sent += 1
        return f"f-{self._sent}"

    def books(self) -> list[dict[str, ledger.Entry]]:
        """Everything sent: to each edge by the load, then by faults."""
        return [*self.load.entries(), ledger.read([self.directory / "faults.ledger"])]

    async def count(self, edge: Edge) -> None:
        """What an edge's counters say, before they end with its supervisor."""
        page = await edge.metrics()
        self.dropped += int(total(page, "edge_events_dropped_total"))
        self.unstored += int(total(page, "edge_unstored_refusals_total"))

    async def count_all(self) -> None:
        """At the end."""
        for edge in self.parts.edges:
            await self.count(edge)

    async def stored(self, query: str, *arguments: object) -> object:
        """One value from the database; None while it is away."""
        with suppress(*AWAY):
            conn = await self.parts.connect()
            try:
                return await conn.fetchval(query, *arguments)
            finally:
                conn.terminate()
        return None
