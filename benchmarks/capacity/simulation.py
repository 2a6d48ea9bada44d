"""The queues between the parts, event by event: edges, journals, shippers, the stream, partitions, drains, PostgreSQL.

Clicks that arrive at a worker in one tick are a cohort and travel together until a drain's batch cuts it. What a part does
with a cohort takes its costs (model.py) times the clicks. The same seed gives the same run.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from random import Random

import simpy

from benchmarks.capacity.drains import Drains
from benchmarks.capacity.figures import Figures
from benchmarks.capacity.model import costs, serial_part
from benchmarks.capacity.queueing import Population, Station, Steps, lognormal_parameters, poisson, weighted_percentile
from benchmarks.capacity.scenario import Result, Scenario

TICK_S = 0.02
SAMPLE_S = 0.2
RETRY_S = 0.1
BURST = ((2.0, 1.0), (0.5, 2.0))
"""The rate's factor, and for how many seconds on average: 1 in the mean."""

Cohort = tuple[float, int]
"""When they arrived, and how many."""


class World:
    """All parts of one run."""

    def __init__(self, figures: Figures, scenario: Scenario) -> None:
        self.figures, self.scenario = figures, scenario
        self.env = simpy.Environment()
        self.random = Random(scenario.seed)
        self.costs = costs(figures)
        layout = scenario.layout
        self.workers = [[Station(self.env) for _ in range(layout.workers)] for _ in range(layout.edges)]
        self.journals: list[deque[Cohort]] = [deque() for _ in range(layout.edges)]
        self.shippers = [Station(self.env) for _ in range(layout.edges)]
        self.stream = Station(self.env)
        self.partitions: list[deque[Cohort]] = [deque() for _ in range(figures.partitions)]
        self.clicks = Population(self.env)
        self.in_workers = self.in_flight = 0
        self.backlog: list[tuple[float, int]] = []
        self.drains = Drains(self)
        self._next_partition = 0
        self._at_warm_up: tuple[dict[str, float], int] = ({}, 0)

    def is_down(self, part: str) -> bool:
        """Whether it is away at this moment."""
        return any(one.part == part and one.from_s <= self.env.now < one.to_s for one in self.scenario.outages)

    def run(self) -> Result:
        """Everything until nothing is left, or for as long again where the parts do not keep up."""
        env, scenario = self.env, self.scenario
        for edge, workers in enumerate(self.workers):
            factor = self._bursts() if scenario.arrivals == "bursty" else None
            for worker in workers:
                env.process(self._arrivals(edge, worker, factor))
            env.process(self._shipper(edge))
        self.drains.start()
        env.process(self._sampling())
        env.run(until=scenario.warm_up_s)
        self._at_warm_up = self._busy_s(), len(self.clicks.stays)
        env.run(until=scenario.seconds)
        utilisation = self._utilisation()
        while self.clicks.inside and env.now < 2 * scenario.seconds:
            env.run(until=env.now + SAMPLE_S)
        return self._result(utilisation)

    def _arrivals(self, edge: int, worker: Station, factor: "Bursts | None") -> Steps:
        layout = self.scenario.layout
        per_tick = self.scenario.rate_per_s * TICK_S / (layout.edges * layout.workers)
        while self.env.now < self.scenario.seconds:
            yield self.env.timeout(TICK_S)
            count = poisson(self.random, per_tick * (factor.at(self.env.now) if factor else 1.0))
            if count:
                self.clicks.enter(count)
                self.in_workers += count
                self.env.process(self._answer(edge, worker, (self.env.now, count)))

    def _bursts(self) -> "Bursts":
        return Bursts(Random(self.random.random()))

    def _answer(self, edge: int, worker: Station, cohort: Cohort) -> Steps:
        yield from worker.serve(cohort[1] * self.costs.worker / 1e6)
        self.in_workers -= cohort[1]
        self.journals[edge].append(cohort)

    def _shipper(self, edge: int) -> Steps:
        """One pass after the other; at most `ship_window` of them wait for the stream."""
        window = simpy.Resource(self.env, max(1, self.figures.ship_window))
        journal = self.journals[edge]
        while True:
            yield self.env.timeout(self.figures.ship_interval_ms / 1000)
            if not journal:
                continue
            turn = window.request()
            yield turn
            cohorts = list(journal)
            journal.clear()
            count = sum(one[1] for one in cohorts)
            self.in_flight += count
            yield from self.shippers[edge].serve(count * self.costs.shipper / 1e6)
            self.env.process(self._publish(cohorts, count, window, turn))

    def _publish(self, cohorts: list[Cohort], count: int, window: simpy.Resource, turn: simpy.resources.resource.Request) -> Steps:
        mu, sigma = lognormal_parameters(self.figures.stream_ack_p50_ms / 1000, self.figures.stream_ack_p99_ms / 1000)
        while self.is_down("stream"):
            yield self.env.timeout(RETRY_S)
        yield from self.stream.serve(count * self.costs.stream / 1e6)
        yield self.env.timeout(self.random.lognormvariate(mu, sigma))
        self._deal(cohorts)
        self.in_flight -= count
        window.release(turn)

    def _deal(self, cohorts: list[Cohort]) -> None:
        """Spread over all partitions evenly, as a hash of the click id does; the odd ones in turn."""
        partitions = len(self.partitions)
        together: dict[float, int] = defaultdict(int)
        for at_s, count in cohorts:
            together[at_s] += count
        for at_s, count in together.items():
            each, odd = divmod(count, partitions)
            for step in range(partitions if each else odd):
                partition = (self._next_partition + step) % partitions
                self.partitions[partition].append((at_s, each + (step < odd)))
            self._next_partition = (self._next_partition + odd) % partitions

    def _sampling(self) -> Steps:
        while True:
            self.backlog.append((round(self.env.now, 3), self.clicks.inside))
            yield self.env.timeout(SAMPLE_S)

    def _busy_s(self) -> dict[str, float]:
        """Seconds worked until now, of all servers of a part together."""
        busy = {
            "workers": sum(one.busy_s for edge in self.workers for one in edge),
            "shipper": sum(one.busy_s for one in self.shippers),
            "stream": self.stream.busy_s,
            "drains": self.drains.busy_s,
            "postgres": self.drains.postgres.busy_s,
        }
        return busy | ({serial_part(self.scenario.layout): self.drains.lock.busy_s} if self.drains.serial else {})

    def _utilisation(self) -> dict[str, float]:
        layout, before = self.scenario.layout, self._at_warm_up[0]
        servers = {"workers": layout.edges * layout.workers, "shipper": layout.edges, "drains": layout.drains,
                   "postgres": layout.postgres_cores}  # fmt: skip
        seconds = self.env.now - self.scenario.warm_up_s
        return {name: (busy - before[name]) / seconds / servers.get(name, 1) for name, busy in self._busy_s().items()}

    def _queues(self) -> Iterator[int]:
        yield self.in_workers
        yield self.in_flight
        yield self.drains.in_batches
        for queue in (*self.journals, *self.partitions):
            yield sum(count for _, count in queue)

    def _result(self, utilisation: dict[str, float]) -> Result:
        clicks = self.clicks
        stays = clicks.stays[self._at_warm_up[1] :]
        return Result(
            arrived=clicks.arrived, stored=clicks.left, queued=sum(self._queues()),
            lag_p50_s=weighted_percentile(stays, 0.5), lag_p99_s=weighted_percentile(stays, 0.99),
            lag_max_s=max((stay for stay, _ in stays), default=0.0), utilisation=utilisation, backlog=self.backlog,
            mean_inside=clicks.mean_inside(),
            mean_stay_s=sum(stay * count for stay, count in clicks.stays) / max(1, clicks.left),
            overtaken=self.drains.overtaken, batches=self.drains.batches, ended_s=self.env.now,
        )  # fmt: skip


class Bursts:
    """The factor of a rate that changes between two states, each for an exponentially distributed time."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._state = 1
        self._until_s = 0.0

    def at(self, now_s: float) -> float:
        """The factor now; asked with times that do not go back."""
        while now_s >= self._until_s:
            self._state = 1 - self._state
            self._until_s += self._random.expovariate(1 / BURST[self._state][1])
        return BURST[self._state][0]


def simulate(figures: Figures, scenario: Scenario) -> Result:
    """One run of `scenario`."""
    if scenario.seconds <= scenario.warm_up_s:
        raise ValueError(f"{scenario.seconds} s are not longer than the warm-up of {scenario.warm_up_s} s")
    return World(figures, scenario).run()
