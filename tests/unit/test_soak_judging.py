"""How a soak is planned, written down and judged."""

import random
import time
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.soak import figures, ledger
from benchmarks.soak.plan import CALM_S, FAULTS, schedule
from benchmarks.soak.run import Soak, Struck
from benchmarks.soak.watch import Life

BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.mark.parametrize("minutes", [5, 30])
def test_each_kind_of_fault_comes_and_none_too_soon(minutes: int) -> None:
    """Five minutes have room for each kind once; thirty for more, still spaced, with what must follow right behind."""
    planned = schedule(minutes, random.Random(1), list(FAULTS))
    names = [fault.name for _, fault in planned]
    assert set(names) == set(BY_NAME)
    assert len(names) == (len(FAULTS) if minutes == 5 else 29)
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(planned)]
    assert min(gaps) >= 20
    assert planned[0][0] >= CALM_S
    assert planned[-1][0] <= minutes * 60 - CALM_S
    stepped = [number for number, name in enumerate(names[:-1]) if name == "clock step"]
    assert all(names[number + 1] == "worker kill" for number in stepped)


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Requests that were never answered are known too; a mark that was used twice is refused."""
    path = tmp_path / "a.ledger"
    writer = ledger.Writer(path)
    writer.sent("m1", "clicks by bots", 10.0)
    writer.sent("m2", "conversions approved", 10.5, "abc/goal")
    writer.answered("m1", ledger.OK, 11.0, 2.5, "abc")
    found = ledger.read([path])
    assert found["m1"] == ledger.Entry("clicks by bots", 10.0, "", ledger.OK, 11.0, 2.5, "abc")
    assert (found["m2"].outcome, found["m2"].family) == (ledger.UNANSWERED, "abc/goal")
    writer.sent("m1", "clicks", 12.0)
    with pytest.raises(ValueError, match="m1"):
        ledger.read([path])


def soaked(name: str, outcome: str, count: int) -> Soak:
    """One fault during which so many requests had that outcome, and an ordinary minute after it."""
    soak = Soak(rate_per_s=16, began_s=100.0, ended_s=170.0, exit_code=0)
    soak.struck = [Struck(BY_NAME[name], 100.0, 110.0)]
    soak.entries = {f"q{n}": ledger.Entry("clicks", 111 + n / 17, "", ledger.OK, 111 + n / 17, 1.0) for n in range(1000)}
    soak.entries |= {f"f{n}": ledger.Entry("clicks", 105.0, "", outcome, 105.1, 1.0) for n in range(count)}
    return soak


@pytest.mark.parametrize(
    ("name", "outcome", "count", "is_allowed"),
    [
        ("worker kill", ledger.UNANSWERED, 4, True),
        ("worker kill", ledger.UNANSWERED, 5, False),
        ("drain kill", ledger.UNANSWERED, 1, False),
        ("journal full", ledger.REFUSED, 50, True),
        ("worker kill", ledger.REFUSED, 1, False),
    ],
)
def test_a_fault_may_cost_what_its_row_says_and_no_more(name: str, outcome: str, count: int, *, is_allowed: bool) -> None:
    """A killed worker costs a request in each of its connections at most, a full journal conversions, the rest nothing."""
    assert (figures.judge(soaked(name, outcome, count)) == []) is is_allowed


def test_what_fails_without_a_fault_is_one() -> None:
    """An answer that is missing between the faults, a node that did not end well, a fault that was not felt."""
    soak = soaked("drain kill", ledger.OK, 1)
    assert figures.judge(soak) == []
    soak.entries["q1"].outcome = ledger.UNANSWERED
    soak.exit_code, soak.struck[0].failure = -9, "not felt"
    assert len(figures.judge(soak)) == 3


def grown(kib_per_min: float, minutes: int, *, step_kib: int = 0) -> Life:
    """A process's memory: 60 MiB, what it grows by, and two steps on the way."""
    life, now_s = Life(1, "worker 1"), time.time()
    for second in range(minutes * 60):
        life.seconds.append(now_s + second)
        stepped = step_kib * ((second > minutes * 30) + (second > minutes * 50))
        life.kib.append(61440 + stepped + round(kib_per_min * second / 60) + second % 3 * 40)
    return life


def test_a_slow_leak_is_seen_and_a_plateau_is_not() -> None:
    """Growth that goes on is a leak; becoming larger once or twice is not."""
    assert figures.memory_faults(grown(0, 30)) == []
    assert figures.memory_faults(grown(0, 30, step_kib=30_000)) == []
    assert figures.memory_faults(grown(1.2 * figures.MAX_SLOPE_KIB_PER_MIN, 30)) != []
    assert figures.memory_faults(grown(0.8 * figures.MAX_SLOPE_KIB_PER_MIN, 30)) == []
    assert figures.memory_faults(grown(3 * figures.MAX_SLOPE_KIB_PER_MIN, 4, step_kib=30_000)) != []


def test_what_faults_add_is_judged_apart() -> None:
    """A step at each of many faults is a larger batch; all of them together have a bound, and between them nothing may grow."""
    life, leak = grown(0, 30), grown(2 * figures.MAX_SLOPE_KIB_PER_MIN, 30)
    struck = []
    for number in range(5):
        at_s = life.seconds[800 + number * 150]
        struck.append(Struck(FAULTS[0], at_s, at_s + 3))
    for kib_each, is_well in ((5_000, True), (25_000, False)):
        stepped = Life(1, "drain 1", life.seconds, [kib + kib_each * sum(one.began_s < at_s for one in struck)
                                                    for at_s, kib in zip(life.seconds, life.kib, strict=True)])  # fmt: skip
        assert (figures.memory_faults(stepped, struck) == []) is is_well
    assert figures.memory_faults(Life(1, "drain 1", life.seconds, leak.kib), struck) != []
