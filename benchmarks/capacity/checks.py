"""Runs of the simulation: whether it agrees with the model, how late clicks are stored, what outages do."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.capacity.figures import Figures
from benchmarks.capacity.model import Layout, capacity, utilisations
from benchmarks.capacity.scenario import Outage, Result, Scenario
from benchmarks.capacity.simulation import simulate

APART_ALLOWED = 0.05
"""Of a utilisation: the simulation's from the model's."""
GROWTH_ALLOWED = 0.02
"""Of the rate: what a backlog that does not grow may seem to grow."""
SLOPE_ALLOWED = 0.1
"""Of what the backlog must grow by, where the rate is above the model's capacity."""
LAYOUTS = {
    "2 drains, unique clicks off": Layout(edges=2, workers=2, drains=2, postgres_cores=8, unique_hours=0),
    "8 drains, unique clicks off": Layout(edges=2, workers=4, drains=8, postgres_cores=8, unique_hours=0),
    "16 drains, unique clicks on": Layout(edges=2, workers=4, drains=16, postgres_cores=8, unique_hours=24),
}


@dataclass(frozen=True)
class Agreement:
    """One layout: the model's capacity and utilisations beside the simulation's."""

    name: str
    part: str
    """What saturates, by the model."""
    capacity_per_s: float
    utilisations: dict[str, tuple[float, float]]
    """At 0.8 of the capacity: (model, simulation)."""
    grew_below: float
    """At 0.9 of the capacity, as a share of the rate."""
    grew_above: float
    """At 1.2 of the capacity, as a share of what is too much."""

    @property
    def agrees(self) -> bool:
        """Whether the utilisations are the same and the backlog grows above the capacity only."""
        apart = [abs(ours - seen) / ours for ours, seen in self.utilisations.values()]
        return max(apart) <= APART_ALLOWED and self.grew_below <= GROWTH_ALLOWED and abs(self.grew_above - 1) <= SLOPE_ALLOWED

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "agrees": self.agrees}


def agree(figures: Figures, seed: int, seconds: float) -> Iterator[Agreement]:
    """Each layout at 0.8, 0.9 and 1.2 of its capacity."""
    for name, layout in LAYOUTS.items():
        most, part = capacity(figures, layout)
        shares = {share: simulate(figures, Scenario(most * share, layout, seconds, seed)) for share in (0.8, 0.9, 1.2)}
        modelled = utilisations(figures, layout, most * 0.8)
        yield Agreement(
            name, part, round(most),
            {one: (round(used, 4), round(shares[0.8].utilisation[one], 4)) for one, used in modelled.items()},
            round(_growth(shares[0.9], seconds) / (most * 0.9), 4),
            round(_growth(shares[1.2], seconds) / (most * 0.2), 4),
        )  # fmt: skip


def _growth(result: Result, seconds: float) -> float:
    return result.grew_per_s(seconds / 3, seconds)


@dataclass(frozen=True)
class Run:
    """One run, in short."""

    layout: str
    what: str
    rate_per_s: int
    share: float
    """Of the model's capacity."""
    lag_p50_s: float
    lag_p99_s: float
    backlog_most: int
    caught_up_s: float | None
    """After an outage's end."""
    used: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def _run(figures: Figures, layout_name: str, what: str, share: float, scenario: Scenario) -> Run:
    found = simulate(figures, scenario)
    if found.arrived != found.stored + found.queued:
        raise RuntimeError(f"{what}: {found.arrived} arrived, {found.stored} stored, {found.queued} queued")
    caught_up = found.caught_up_s(scenario.outages[0]) if scenario.outages else None
    return Run(
        layout_name, what, round(scenario.rate_per_s), share, round(found.lag_p50_s, 2), round(found.lag_p99_s, 2),
        max(count for _, count in found.backlog), caught_up, {name: round(used, 3) for name, used in found.utilisation.items()},
    )  # fmt: skip


def runs(figures: Figures, seed: int, seconds: float) -> Iterator[Run]:
    """Lag by how much of the capacity is used, steady and bursty."""
    for name, layout in LAYOUTS.items():
        most, _ = capacity(figures, layout)
        for share in (0.3, 0.6, 0.9):
            yield _run(figures, name, "steady", share, Scenario(most * share, layout, seconds, seed))
        yield _run(figures, name, "bursty", 0.6, Scenario(most * 0.6, layout, seconds, seed, arrivals="bursty"))


def outages(figures: Figures, seed: int, seconds: float) -> Iterator[Run]:
    """Each part away for a sixth of the run (a drain for a third), at 0.6 of the capacity."""
    for name, layout in LAYOUTS.items():
        rate = capacity(figures, layout)[0] * 0.6
        begin_s = seconds / 3
        for part, ends_s in (("postgres", begin_s + seconds / 6), ("stream", begin_s + seconds / 6), ("drain", 2 * begin_s)):
            outage = Outage(part, begin_s, ends_s)  # type: ignore[arg-type]
            what = f"{part} away for {ends_s - begin_s:.0f} s"
            yield _run(figures, name, what, 0.6, Scenario(rate, layout, seconds * 1.5, seed, outages=(outage,)))
