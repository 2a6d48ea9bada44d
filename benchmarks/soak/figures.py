"""What a soak comes to in figures, and what of it is not as it must be."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from benchmarks.report import percentile
from benchmarks.soak.ledger import OK, REFUSED, UNANSWERED, WRONG, Entry
from benchmarks.soak.load import PER_USER_PER_S
from benchmarks.soak.run import Soak, Struck
from benchmarks.soak.scene import OWN_MARKS
from benchmarks.soak.watch import Life

MIN_RATE_SHARE = 0.5
"""Of the rate asked for, while there is no fault: a busy machine makes the load slow, and the counts no less strict. Beside
other work on both cores it was 100 %."""
MIN_LIFE_S, MIN_LIFE_SHARE = 180.0, 1 / 6
"""Who lived shorter, in seconds or as a share of the soak, was still filling what it holds."""
MAX_SLOPE_KIB_PER_MIN = 512.0
MAX_GROWTH_KIB = 2048
"""Growth that is still flat however steep: an arena or two."""
WINDOWS, JUMPS, MIN_CALM_SAMPLES = 12, 2, 48
"""Memory is compared between so many parts of a life; so many of the steps from one to the next do not count: the first
batch of the largest rows makes a process larger for good, and that is no leak."""
CATCHING_UP_S = 15.0
"""After a fault a drain takes what has piled up, its largest batches, and keeps the room for them. That is judged apart:"""
MAX_LEAP_KIB = 96 * 1024
"""what all faults together may add to a process in the judged part of its life. A flood's batch takes half of it."""
CONNECTIONS_OF_A_USER = 2


def summarize(found: Soak) -> dict[str, Any]:
    """The report's figures; durations in seconds, latencies in milliseconds."""
    quiet, struck = _by_phase(found)
    return {
        "rate_asked_per_s": found.rate_per_s,
        "seconds": round(found.ended_s - found.began_s, 1),
        "requests": len(found.entries),
        "quiet": _phase(quiet, found.rate_per_s, _quiet_seconds(found)),
        "under_fault": _phase([one for some in struck for one in some], found.rate_per_s, _struck_seconds(found)),
        "faults_struck": [
            {
                "name": one.fault.name,
                "does": one.fault.does,
                "at_s": round(one.began_s - found.began_s, 1),
                "well_after_s": round(one.well_s - one.began_s, 1),
                "saw": one.saw,
                **_phase(entries, found.rate_per_s, one.well_s - one.began_s),
            }
            for one, entries in zip(found.struck, struck, strict=True)
        ],
        "left_out": found.left_out,
        "counts": {kind: asdict(count) for kind, count in found.reckoning.counts.items()},
        "dropped_counted": found.reckoning.dropped_counted,
        "forged_ids_counted_only": found.reckoning.forged_unstored,
        "partners_told": found.reckoning.told,
        "partners_told_again": found.reckoning.told_again,
        "all_stored_after_s": found.reckoning.stored_after_s,
        "memory": [memory_of(life, found.struck) for life in judged_lives(found)],
        "memory_bound_kib_per_min": MAX_SLOPE_KIB_PER_MIN,
        "exit_code": found.exit_code,
    }


def judge(found: Soak) -> list[str]:
    """A line for whatever must not be; empty: all is well."""
    faults = [*found.failures, *found.reckoning.faults]
    if found.exit_code != 0:
        faults.append(f"the node ended with code {found.exit_code}")
    quiet, struck = _by_phase(found)
    for one, entries in zip(found.struck, struck, strict=True):
        faults += [f"{one.fault.name}: {one.failure}"] if one.failure else []
        faults += [f"{one.fault.name}: {line}" for line in _cost_faults(one, entries, found.rate_per_s)]
    faults += [f"without a fault: {line}" for line in _failures(quiet)]
    rate = len(quiet) / max(1.0, _quiet_seconds(found))
    if rate < found.rate_per_s * MIN_RATE_SHARE:
        faults.append(f"without a fault {rate:.0f} requests a second were sent, not {found.rate_per_s}")
    return faults + [line for life in judged_lives(found) for line in memory_faults(life, found.struck)]


def judged_lives(found: Soak) -> list[Life]:
    """Processes that lived long enough."""
    lives = found.watch.lives.values() if found.watch else ()
    least_s = max(MIN_LIFE_S, (found.ended_s - found.began_s) * MIN_LIFE_SHARE)
    return [life for life in lives if life.seconds[-1] - life.seconds[0] >= least_s]


def memory_of(life: Life, struck: Sequence[Struck]) -> dict[str, Any]:
    """Of one process: what it held, how it grew, and what faults added."""
    slope, growth = slope_of(calm_part(life, struck))
    return {
        "process": life.name,
        "lived_s": round(life.seconds[-1] - life.seconds[0]),
        "max_mib": round(max(life.kib) / 1024, 1),
        "slope_kib_per_min": round(slope, 1),
        "growth_kib": round(growth),
        "leap_kib": leap_of(life, struck),
    }


def calm_part(life: Life, struck: Sequence[Struck]) -> Life:
    """The last two thirds of a life without faults and what follows on them, put together: time and memory stand still there."""
    calm, skipped_s, skipped_kib = Life(life.pid, life.name), 0.0, 0
    samples = list(zip(life.seconds, life.kib, strict=True))[len(life.kib) // 3 :]
    for (before_s, before_kib), (at_s, kib) in pairwise(samples):
        if any(one.began_s <= at_s and before_s <= one.well_s + CATCHING_UP_S for one in struck):
            skipped_s, skipped_kib = skipped_s + at_s - before_s, skipped_kib + kib - before_kib
            continue
        calm.seconds.append(at_s - skipped_s)
        calm.kib.append(kib - skipped_kib)
    return calm


def leap_of(life: Life, struck: Sequence[Struck]) -> int:
    """KiB that faults added, in the same part of its life."""
    calm, later = calm_part(life, struck).kib, life.kib[len(life.kib) // 3 :]
    return later[-1] - later[0] - (calm[-1] - calm[0] if calm else 0)


def slope_of(calm: Life) -> tuple[float, float]:
    """(KiB per minute, KiB in all) by which a process steadily grew; nought where there is too little to judge by."""
    if len(calm.kib) < MIN_CALM_SAMPLES:
        return 0.0, 0.0
    count, minutes = len(calm.kib), (calm.seconds[-1] - calm.seconds[0]) / 60
    levels = [statistics.median(calm.kib[count * n // WINDOWS : count * (n + 1) // WINDOWS]) for n in range(WINDOWS)]
    steps = sorted(after - before for before, after in pairwise(levels))
    growth = sum(steps[:-JUMPS]) * len(steps) / (len(steps) - JUMPS)
    return growth / (minutes * len(steps) / WINDOWS), growth


def memory_faults(life: Life, struck: Sequence[Struck] = ()) -> list[str]:
    """What is wrong with a process's memory."""
    slope, growth = slope_of(calm_part(life, struck))
    faults = []
    if slope > MAX_SLOPE_KIB_PER_MIN and growth > MAX_GROWTH_KIB:
        faults.append(f"{life.name} ({life.pid}) grows by {slope:.0f} KiB a minute")
    if (leap := leap_of(life, struck)) > MAX_LEAP_KIB:
        faults.append(f"{life.name} ({life.pid}) grew by {leap} KiB through faults")
    return faults


def _by_phase(found: Soak) -> tuple[list[Entry], list[list[Entry]]]:
    """The load's requests while there was no fault, and at each fault: what was under way at its beginning counts to it."""
    quiet: list[Entry] = []
    struck: list[list[Entry]] = [[] for _ in found.struck]
    spans = [(one.began_s, one.well_s) for one in found.struck]
    for mark, entry in found.entries.items():
        if mark.startswith(OWN_MARKS):
            continue
        ended_s = entry.sent_s if math.isnan(entry.answered_s) else entry.answered_s
        for number, (began_s, well_s) in enumerate(spans):
            if entry.sent_s <= well_s and ended_s >= began_s:
                struck[number].append(entry)
                break
        else:
            if found.began_s <= entry.sent_s <= found.ended_s:
                quiet.append(entry)
    return quiet, struck


def _struck_seconds(found: Soak) -> float:
    return sum(one.well_s - one.began_s for one in found.struck)


def _quiet_seconds(found: Soak) -> float:
    return found.ended_s - found.began_s - _struck_seconds(found)


def _phase(entries: Sequence[Entry], rate_per_s: int, seconds: float) -> dict[str, Any]:
    outcomes = {outcome: sum(one.outcome == outcome for one in entries) for outcome in (OK, REFUSED, UNANSWERED, WRONG)}
    failed = outcomes[UNANSWERED] + outcomes[WRONG]
    return {
        "requests": len(entries),
        "achieved_share": round(len(entries) / max(1.0, rate_per_s * seconds), 3),
        "unanswered": outcomes[UNANSWERED],
        "wrong": outcomes[WRONG],
        "refused": outcomes[REFUSED],
        "error_rate": round(failed / max(1, len(entries)), 6),
        **percentiles(one.took_ms for one in entries if one.outcome in (OK, REFUSED)),
    }


def percentiles(took_ms: Iterable[float]) -> Mapping[str, float]:
    """p50, p99, p99.9 and the worst."""
    values = sorted(took_ms) or [0.0]
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "p99_9_ms": 0.999, "max_ms": 1.0}
    return {name: round(percentile(values, share), 2) for name, share in shares.items()}


def _failures(entries: Sequence[Entry]) -> list[str]:
    found = _phase(entries, 1, 1)
    return [f"{found[name]} requests {name}" for name in (UNANSWERED, REFUSED) if found[name]]


def _cost_faults(one: Struck, entries: Sequence[Entry], rate_per_s: int) -> list[str]:
    """Wrong answers are the reckoning's; here what the fault may not cost."""
    found = _phase(entries, 1, 1)
    unanswered, refused = found[UNANSWERED], found[REFUSED]
    faults = []
    if refused and not one.fault.refused:
        faults.append(f"{refused} conversions were refused")
    if unanswered > (rate_per_s // PER_USER_PER_S * CONNECTIONS_OF_A_USER if one.fault.unanswered else 0):
        faults.append(f"{unanswered} requests were not answered")
    return faults
