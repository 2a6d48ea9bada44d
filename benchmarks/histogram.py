"""Durations counted by whole microseconds: percentiles that are exact to one of them, whatever the number of durations."""

from array import array
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Self

TOP_US = 1_000_000
"""What took longer is counted here; `max_us` stays exact."""
SHARES = (0.5, 0.9, 0.99, 0.999)


class Histogram:
    """How many durations there were of each length."""

    __slots__ = ("counts", "max_us")

    def __init__(self) -> None:
        self.counts = array("Q", bytes(8 * (TOP_US + 1)))
        self.max_us = 0

    @classmethod
    def from_pairs(cls, pairs: Iterable[Sequence[int]], max_us: int) -> Self:
        """From (duration in µs, count)."""
        made = cls()
        for duration_us, count in pairs:
            made.counts[duration_us] += count
        made.max_us = max_us
        return made

    @classmethod
    def merged(cls, histograms: Iterable[Self]) -> Self:
        """The durations of all of them."""
        made = cls()
        for histogram in histograms:
            for duration_us, count in histogram.pairs():
                made.counts[duration_us] += count
            made.max_us = max(made.max_us, histogram.max_us)
        return made

    def add(self, duration_us: int) -> None:
        """Count one."""
        self.counts[min(duration_us, TOP_US)] += 1
        self.max_us = max(self.max_us, duration_us)

    def pairs(self) -> list[tuple[int, int]]:
        """(duration in µs, count), ascending, without the empty ones."""
        return [(at, self.counts[at]) for at in compress(range(TOP_US + 1), self.counts)]

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def percentiles_us(self, shares: Sequence[float]) -> list[int]:
        """What each of the ascending `shares` of all durations did not exceed (nearest rank); zeros if there are none."""
        found: list[int] = []
        total, reached = self.total, 0
        pairs = iter(self.pairs())
        duration_us = 0
        for share in shares:
            wanted = share * total - 1e-6  # a share of a whole number may come out a hair above it
            while reached < wanted:
                duration_us, count = next(pairs)
                reached += count
            found.append(self.max_us if duration_us == TOP_US else duration_us)
        return found

    def summary(self) -> dict[str, int]:
        """The usual percentiles by name, in µs."""
        values = self.percentiles_us(SHARES)
        return {**{f"p{share * 100:g}_us": us for share, us in zip(SHARES, values, strict=True)}, "max_us": self.max_us}
