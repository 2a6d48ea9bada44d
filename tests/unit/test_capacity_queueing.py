"""The queues that the simulation is made of, against what the textbooks know of them."""

from random import Random

import pytest
import simpy

from benchmarks.capacity.queueing import Population, Station, Steps, lognormal_parameters, poisson, weighted_percentile

JOBS = 30_000


def mean_stay_s(utilisation: float, *, is_fixed: bool, servers: int = 1) -> tuple[float, Population, Station]:
    """Jobs of a second on average at Poisson arrivals; the mean time from arrival to end."""
    env, random = simpy.Environment(), Random(11)
    station, population = Station(env, servers), Population(env)

    def job() -> Steps:
        came_s = env.now
        population.enter(1)
        yield from station.serve(1.0 if is_fixed else random.expovariate(1.0))
        population.leave(came_s, 1)

    def arrivals() -> Steps:
        for _ in range(JOBS):
            yield env.timeout(random.expovariate(utilisation * servers))
            env.process(job())

    env.process(arrivals())
    env.run()
    return sum(stay for stay, _ in population.stays) / JOBS, population, station


def test_random_service_waits_as_long_as_mm1_says() -> None:
    """At half the capacity a job stays twice its own time: 1 / (mu - lambda)."""
    found, population, station = mean_stay_s(0.5, is_fixed=False)
    assert found == pytest.approx(2.0, rel=0.05)
    assert station.busy_s / population.stays[-1][0] > 0


def test_fixed_service_waits_as_long_as_md1_says() -> None:
    """At 0.8 of the capacity: 1 + 0.8 / (2 * 0.2), half of what random service waits."""
    found, _, _ = mean_stay_s(0.8, is_fixed=True)
    assert found == pytest.approx(3.0, rel=0.06)


def test_two_servers_wait_as_long_as_erlang_says() -> None:
    """M/M/2 at 0.5: 1 / (1 - 0.25) of the service time."""
    found, _, _ = mean_stay_s(0.5, is_fixed=False, servers=2)
    assert found == pytest.approx(4 / 3, rel=0.05)


def test_the_number_inside_is_the_rate_times_the_stay() -> None:
    """Little's law, from two counts that know nothing of each other; and a server works as often as jobs come."""
    found, population, station = mean_stay_s(0.5, is_fixed=True)
    seconds = population.area / population.mean_inside()
    assert population.mean_inside() == pytest.approx(JOBS / seconds * found, rel=1e-6)
    assert station.busy_s / seconds == pytest.approx(0.5, rel=0.03)
    assert (population.inside, population.arrived, population.left) == (0, JOBS, JOBS)


@pytest.mark.parametrize("mean", [0.3, 4.0, 29.0, 200.0])
def test_poisson_numbers_have_their_mean_and_variance(mean: float) -> None:
    """Small ones are drawn exactly, large ones nearly."""
    random = Random(5)
    drawn = [poisson(random, mean) for _ in range(8000)]
    average = sum(drawn) / len(drawn)
    assert average == pytest.approx(mean, rel=0.05)
    assert sum((one - average) ** 2 for one in drawn) / len(drawn) == pytest.approx(mean, rel=0.08)


def test_latencies_have_the_percentiles_that_were_asked_for() -> None:
    """Half of a lognormal's values below its p50, one in a hundred above its p99."""
    mu, sigma = lognormal_parameters(0.8, 5.0)
    random = Random(3)
    drawn = [(random.lognormvariate(mu, sigma), 1) for _ in range(20_000)]
    assert weighted_percentile(drawn, 0.5) == pytest.approx(0.8, rel=0.05)
    assert weighted_percentile(drawn, 0.99) == pytest.approx(5.0, rel=0.1)


def test_a_percentile_counts_each_value_as_often_as_it_weighs() -> None:
    """Nine clicks of one second and one of ten; without any, nothing."""
    stays = [(10.0, 1), (1.0, 9)]
    assert [weighted_percentile(stays, share) for share in (0.5, 0.9, 0.95)] == [1.0, 1.0, 10.0]
    assert weighted_percentile([], 0.5) == 0.0
