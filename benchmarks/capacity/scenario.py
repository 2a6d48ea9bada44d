"""What is simulated, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from benchmarks.capacity.model import Layout


class Outage(NamedTuple):
    """A part is away from one second of the run to another. A drain's partitions are taken over meanwhile."""

    part: Literal["postgres", "stream", "drain"]
    from_s: float
    to_s: float


@dataclass(frozen=True)
class Scenario:
    """One run. `bursty`: a third of the time twice the rate, else half of it, for seconds at a time."""

    rate_per_s: float
    layout: Layout
    seconds: float
    seed: int = 1
    arrivals: Literal["poisson", "bursty"] = "poisson"
    outages: tuple[Outage, ...] = ()
    warm_up_s: float = 5.0
    """What comes before counts neither for utilisation nor for lag."""


class Result(NamedTuple):
    """What a run found. Lags are of clicks stored after the warm-up, from arrival to commit."""

    arrived: int
    stored: int
    queued: int
    """Of the clicks that arrived, those that stand somewhere at the end, counted queue by queue."""
    lag_p50_s: float
    lag_p99_s: float
    lag_max_s: float
    utilisation: Mapping[str, float]
    backlog: list[tuple[float, int]]
    """Clicks not yet stored: (second of the run, how many)."""
    mean_inside: float
    mean_stay_s: float
    """Of the clicks that are stored; Little's law wants all to have left."""
    overtaken: int
    batches: int
    ended_s: float

    def grew_per_s(self, from_s: float, to_s: float) -> float:
        """By how many clicks a second the backlog grew between two moments: the slope of a straight line through it."""
        points = [(at, count) for at, count in self.backlog if from_s <= at <= to_s]
        mean_at = sum(at for at, _ in points) / len(points)
        mean_count = sum(count for _, count in points) / len(points)
        spread = sum((at - mean_at) ** 2 for at, _ in points)
        return sum((at - mean_at) * (count - mean_count) for at, count in points) / spread if spread else 0.0

    def caught_up_s(self, outage: Outage) -> float:
        """Seconds from the outage's end until the backlog is again no more than it ever was before; -1: not in this run."""
        usual = max((count for at, count in self.backlog if at < outage.from_s), default=0)
        after = (at for at, count in self.backlog if at >= outage.to_s and count <= usual)
        return round(next(after, outage.to_s - 1) - outage.to_s, 1)
