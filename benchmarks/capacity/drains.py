"""The drains of the simulation: who owns which partition, batches, the shared PostgreSQL, the lock of unique visits."""

from collections import deque
from typing import TYPE_CHECKING

from benchmarks.capacity.model import is_shared, overtaken_share, serial_us
from benchmarks.capacity.queueing import Station, Steps

if TYPE_CHECKING:
    from benchmarks.capacity.simulation import Cohort, World

RETRY_S = 0.25
Batch = list[tuple[int, "Cohort"]]
"""Cohorts, each with the partition that it came from."""


class Interrupted(Exception):
    """PostgreSQL or this drain went away within a batch: nothing of it is stored."""


class Drain:
    """One process: its number, and what it knows of the others' visits."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.stored = self.visits_known = 0
        """Clicks that it stored itself; clicks of others that it has learned of."""


class Drains:
    """All drains of a run."""

    def __init__(self, world: "World") -> None:
        layout = world.scenario.layout
        self.world, self.env = world, world.env
        self.postgres = Station(world.env, layout.postgres_cores)
        self.lock = Station(world.env)
        self.is_shared = is_shared(layout)
        self.serial = serial_us(world.figures, layout) / world.costs.batch
        """Of a batch's time, that of which only one drain at a time can have its own."""
        self.all = [Drain(number) for number in range(layout.drains)]
        self.busy_s = 0.0
        """Making rows and waiting for PostgreSQL's answers, not for its free core or the lock; of all together."""
        self.batches = self.overtaken = self.in_batches = self.stored = 0

    def start(self) -> None:
        """Begin to drain."""
        for drain in self.all:
            self.env.process(self._follow(drain))

    def owned(self, drain: Drain) -> range:
        """The partitions of a drain. While the first one is dead: nobody's for `takeover_s`, then shared by the others."""
        partitions, count, number = len(self.world.partitions), len(self.all), drain.number
        died_s = next((one.from_s for one in self.world.scenario.outages if one.part == "drain" and self._is_dead(one)), None)
        if died_s is None:
            return range(number, partitions, count)
        if number == 0:
            return range(0)
        if self.env.now < died_s + self.world.figures.takeover_s:
            return range(number, partitions, count)
        return range(number - 1, partitions, count - 1)

    def _is_dead(self, outage: "tuple[str, float, float]") -> bool:
        return outage[1] <= self.env.now < outage[2]

    def _follow(self, drain: Drain) -> Steps:
        figures = self.world.figures
        while True:
            batch = self._take(drain, figures.batch_rows)
            count = sum(cohort[1] for _, cohort in batch)
            if batch:
                self.in_batches += count
                stored = yield from self._try(drain, batch, count)
                self.in_batches -= count
                if not stored:
                    self._give_back(batch)
                    yield self.env.timeout(RETRY_S)
                    continue
            if count < figures.batch_rows:
                yield self.env.timeout(figures.batch_interval_ms / 1000)

    def _take(self, drain: Drain, rows: int) -> Batch:
        """As many clicks as a batch holds, from the partitions in turn; a cohort that is too large is cut."""
        batch: Batch = []
        partitions = self.world.partitions
        waiting = deque(number for number in self.owned(drain) if partitions[number])
        while rows > 0 and waiting:
            number = waiting.popleft()
            at_s, count = partitions[number].popleft()
            taken = min(count, rows)
            batch.append((number, (at_s, taken)))
            rows -= taken
            if taken < count:
                partitions[number].appendleft((at_s, count - taken))
            elif partitions[number]:
                waiting.append(number)
        return batch

    def _give_back(self, batch: Batch) -> None:
        for number, cohort in reversed(batch):
            self.world.partitions[number].appendleft(cohort)

    def _try(self, drain: Drain, batch: Batch, count: int) -> "Steps":
        """Whether the batch was stored."""
        try:
            yield from self._store(drain, count)
        except Interrupted:
            return False
        self.batches += 1
        self.stored += count
        drain.stored += count
        for _, (at_s, clicks) in batch:
            self.world.clicks.leave(at_s, clicks)
        return True

    def _store(self, drain: Drain, count: int) -> Steps:
        """The batch's transaction: rows and COPY; then, alone, what follows the agreement or the roll-ups; the commit."""
        world = self.world
        free = 1 - self.serial
        is_overtaken = self.is_shared and world.random.random() < overtaken_share(world.figures, world.scenario.layout, count)
        for _ in range(1 + is_overtaken):
            yield from self._learn(drain)
            yield from self._work(drain, count * free, commits=not self.serial)
        self.overtaken += is_overtaken
        if not self.serial:
            return
        with self.lock.hold() as turn:
            yield turn
            began_s, waited_s = self.env.now, 0.0
            try:
                waited_s = yield from self._work(drain, count * (1 - free), commits=True)
            finally:
                self.lock.busy_s += self.env.now - began_s - (waited_s or 0.0)

    def _learn(self, drain: Drain) -> Steps:
        """Take in the visits that the other drains have stored."""
        if self.is_shared:
            others = self.stored - drain.stored
            yield from self._spend((others - drain.visits_known) * self.world.figures.visit_us_per_click / 1e6)
            drain.visits_known = others

    def _work(self, drain: Drain, clicks: float, *, commits: bool) -> Steps:
        """The drain's own part for so many clicks, then PostgreSQL's; returns for how long it waited for a free core."""
        costs, figures = self.world.costs, self.world.figures
        yield from self._spend(clicks * costs.drain / 1e6)
        self._check(drain)
        seconds = clicks * costs.postgres / 1e6 + (figures.postgres_ms_per_batch / 1000 if commits else 0.0)
        began_s = self.env.now
        yield from self.postgres.serve(seconds)
        self.busy_s += seconds
        self._check(drain)
        return self.env.now - began_s - seconds

    def _spend(self, seconds: float) -> Steps:
        yield self.env.timeout(seconds)
        self.busy_s += seconds

    def _check(self, drain: Drain) -> None:
        """Interrupted, where PostgreSQL is away, or this drain."""
        if self.world.is_down("postgres") or (drain.number == 0 and self.world.is_down("drain")):
            raise Interrupted
