"""The simulation of the queues between the parts: nothing is lost in it, and it does what the model says."""

from dataclasses import replace
from typing import Literal

import pytest

from benchmarks.capacity.checks import Agreement
from benchmarks.capacity.figures import FIGURES, load
from benchmarks.capacity.model import Layout, capacity, utilisations
from benchmarks.capacity.scenario import Outage, Result, Scenario
from benchmarks.capacity.simulation import simulate

FIGURES_OF_TESTS = replace(load(FIGURES).figures, partitions=4, takeover_s=3.0)
TWO = Layout(edges=1, workers=2, drains=2, postgres_cores=4, unique_hours=0)
FOUR = Layout(edges=1, workers=2, drains=4, postgres_cores=4, unique_hours=24)
DEAR_LOCK = replace(FIGURES_OF_TESTS, locked_share=0.5)


def run(share: float, layout: Layout = TWO, *, seconds: float = 12, seed: int = 1, outages: tuple[Outage, ...] = ()) -> Result:
    """At that share of the model's capacity."""
    rate, _ = capacity(FIGURES_OF_TESTS, layout)
    return simulate(FIGURES_OF_TESTS, Scenario(rate * share, layout, seconds, seed, outages=outages, warm_up_s=2))


@pytest.mark.parametrize("layout", [TWO, FOUR], ids=["unique clicks off", "unique clicks on"])
def test_used_is_each_part_as_the_model_says(layout: Layout) -> None:
    """Within a twentieth, at 0.7 of the capacity."""
    rate, _ = capacity(FIGURES_OF_TESTS, layout)
    found = run(0.7, layout, seconds=20)
    for part, used in utilisations(FIGURES_OF_TESTS, layout, rate * 0.7).items():
        assert found.utilisation[part] == pytest.approx(used, rel=0.05), part


def test_the_backlog_grows_beyond_the_models_capacity_and_not_below() -> None:
    """A fifth too much is what stays behind each second."""
    rate, _ = capacity(FIGURES_OF_TESTS, TWO)
    below, above = run(0.9), run(1.2)
    assert below.grew_per_s(4, 12) < 0.02 * rate
    assert above.grew_per_s(4, 12) == pytest.approx(0.2 * rate, rel=0.25)
    assert above.lag_p99_s > 2 * below.lag_p99_s


def test_a_lock_that_all_drains_need_is_what_saturates() -> None:
    """Four drains could do more; the knee is where the lock is always held."""
    rate, part = capacity(DEAR_LOCK, FOUR)
    assert part == "unique lock"
    found = simulate(DEAR_LOCK, Scenario(rate * 1.2, FOUR, 12, warm_up_s=2))
    assert found.utilisation["unique lock"] == pytest.approx(1.0, abs=0.03)
    assert found.utilisation["drains"] < 0.9
    assert found.grew_per_s(4, 12) == pytest.approx(0.2 * rate, rel=0.3)


@pytest.mark.parametrize("part", ["postgres", "stream", "drain"])
def test_outages_lose_nothing_and_are_caught_up(part: Literal["postgres", "stream", "drain"]) -> None:
    """All that arrived is stored in the end, each click once; the backlog grew meanwhile and went again."""
    outage = Outage(part, 4, 8)
    found, quiet = run(0.5, outages=(outage,)), run(0.5)
    assert (found.stored, found.queued) == (found.arrived, 0)
    assert max(count for _, count in found.backlog) > 2 * max(count for _, count in quiet.backlog)
    assert found.caught_up_s(outage) > 0
    assert found.lag_max_s > quiet.lag_max_s + 2


def test_what_arrived_is_stored_or_stands_in_a_queue() -> None:
    """Counted queue by queue, in the midst of an overload that does not end in time."""
    found = run(3.0, seconds=6)
    assert 0 < found.queued < found.arrived
    assert found.arrived == found.stored + found.queued


def test_the_clicks_inside_are_the_rate_times_their_lag() -> None:
    """Little's law, over a run that ends with nothing inside."""
    found = run(0.6)
    assert found.queued == 0
    assert found.mean_inside == pytest.approx(found.stored / found.ended_s * found.mean_stay_s, rel=1e-6)


def test_the_same_seed_gives_the_same_run_and_another_gives_another() -> None:
    """To the last click and moment."""
    assert run(0.6, FOUR, seconds=5) == run(0.6, FOUR, seconds=5)
    assert run(0.6, FOUR, seconds=5).arrived != run(0.6, FOUR, seconds=5, seed=2).arrived


def test_bursts_of_the_same_mean_wait_longer() -> None:
    """Twice the rate for a third of the time."""
    rate, _ = capacity(FIGURES_OF_TESTS, TWO)
    steady = simulate(FIGURES_OF_TESTS, Scenario(rate * 0.7, TWO, 20, 3, "poisson", warm_up_s=2))
    bursty = simulate(FIGURES_OF_TESTS, Scenario(rate * 0.7, TWO, 20, 3, "bursty", warm_up_s=2))
    assert bursty.lag_p99_s > steady.lag_p99_s


def test_more_use_means_more_lag() -> None:
    """From a quiet node to a full one."""
    lags = [run(share).lag_p50_s for share in (0.3, 0.6, 0.9)]
    assert lags == sorted(lags)


def test_a_run_that_is_over_before_it_counts_is_refused() -> None:
    """Its figures would be of nothing."""
    with pytest.raises(ValueError, match="not longer than the warm-up"):
        simulate(FIGURES_OF_TESTS, Scenario(1000, TWO, 5, warm_up_s=5))


@pytest.mark.parametrize(
    ("seen", "below", "above", "agrees"),
    [(0.5, 0.0, 1.0, True), (0.54, 0.0, 1.0, False), (0.5, 0.03, 1.0, False), (0.5, 0.0, 0.6, False)],
)
def test_disagreement_is_seen(seen: float, below: float, above: float, agrees: bool) -> None:
    """A part that is used otherwise, a backlog that grows too early, or too slowly."""
    assert Agreement("a", "drains", 1000, {"drains": (0.5, seen)}, below, above).agrees is agrees
