"""What any queue of the simulation needs: a server with a queue, arrivals, and counting."""

import math
from collections.abc import Generator
from random import Random
from typing import Any

import simpy

Steps = Generator[simpy.Event, Any, Any]
"""A process of simpy: it yields what it waits for."""

LARGE_MEAN = 30.0
"""From here on a Poisson number is drawn as a rounded normal one."""


class Station:
    """`servers` that each do one job at a time, first come first served; knows how long they worked."""

    def __init__(self, env: simpy.Environment, servers: int = 1) -> None:
        self.env = env
        self.servers = servers
        self.busy_s = 0.0
        """Of all servers together; a job counts when it ends."""
        self._slots = simpy.Resource(env, servers)

    def serve(self, seconds: float) -> Steps:
        """Wait for a server and keep it for so long."""
        with self._slots.request() as turn:
            yield turn
            yield self.env.timeout(seconds)
        self.busy_s += seconds

    def hold(self) -> simpy.resources.resource.Request:
        """A turn of one's own, to be used with `with`; `busy_s` is the holder's to count."""
        return self._slots.request()


class Population:
    """How many are inside, its integral over time, and how long those that left were there."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._changed_s = env.now
        self.inside = self.arrived = self.left = 0
        self.area = 0.0
        """Of the number inside over time, in seconds."""
        self.stays: list[tuple[float, int]] = []
        """Seconds inside, and how many left after that; in the order in which they left."""

    def enter(self, count: int) -> None:
        """So many arrive now."""
        self._integrate()
        self.inside += count
        self.arrived += count

    def leave(self, since_s: float, count: int) -> None:
        """So many leave now, who arrived at `since_s`."""
        self._integrate()
        self.inside -= count
        self.left += count
        self.stays.append((self._env.now - since_s, count))

    def _integrate(self) -> None:
        self.area += self.inside * (self._env.now - self._changed_s)
        self._changed_s = self._env.now

    def mean_inside(self) -> float:
        """Over all the time until now."""
        self._integrate()
        return self.area / self._env.now if self._env.now else 0.0


def poisson(random: Random, mean: float) -> int:
    """A Poisson number; of a large mean by the normal distribution, which differs by less than a per cent there."""
    if mean >= LARGE_MEAN:
        return max(0, round(random.gauss(mean, math.sqrt(mean))))
    limit, number, product = math.exp(-mean), 0, random.random()
    while product > limit:
        number += 1
        product *= random.random()
    return number


def lognormal_parameters(p50: float, p99: float) -> tuple[float, float]:
    """mu and sigma of the lognormal distribution with these percentiles."""
    return math.log(p50), max(0.0, math.log(p99 / p50) / 2.3263)


def weighted_percentile(pairs: list[tuple[float, int]], share: float) -> float:
    """The value that `share` of the weights are at or below; 0 without any."""
    wanted = share * sum(count for _, count in pairs)
    below = 0
    for value, count in sorted(pairs):
        below += count
        if below >= wanted:
            return value
    return 0.0
