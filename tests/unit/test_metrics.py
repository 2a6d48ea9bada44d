"""edge/admin/metrics.py: one page for all processes, as Prometheus reads it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.admin.metrics import Slot, drain_lag_s, render
from edge.counters import Counters, cell, new_block
from edge.metric_families import HANDLING_BUCKETS_US, METRICS, SYNC_BUCKETS_US
from tests.unit.test_counters import count_in_a_child

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

CLICKS = cell("edge_requests_total", "click", "redirected")
DROPPED = cell("edge_events_dropped_total")
SESSIONS = cell("edge_sessions")
HIT, MISS = cell("edge_session_lookups_total", "hit"), cell("edge_session_lookups_total", "miss")
THROUGH = cell("edge_drained_through_seconds")
UNDRAINED = cell("edge_journal_undrained_bytes")
ERRORS = "edge_database_errors_total"


@pytest.fixture
def slots() -> list[Slot]:
    """Two workers, two drains, the admin process and a shipper."""
    names = [("worker", 0), ("worker", 1), ("drain", 0), ("drain", 1), ("admin", 0), ("shipper", 0)]
    return [Slot(role, number, Counters.private()) for role, number in names]


@pytest.fixture
def block() -> Iterator[int]:
    """A slot's memory."""
    descriptor = new_block()
    yield descriptor
    os.close(descriptor)


def scrape(slots: list[Slot]) -> Samples:
    """The page's samples, as Prometheus's own parser reads them; none is there twice."""
    samples: Samples = {}
    for family in text_string_to_metric_families(render(slots).decode()):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample."""
    return samples[name, frozenset(labels.items())]


def test_every_metric_is_on_the_page_before_anything_happened(slots: list[Slot]) -> None:
    """All label combinations are there from the start, at zero: a rate over them has no gap."""
    samples = scrape(slots)
    names = {name for name, _ in samples}
    for metric in METRICS:
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        assert {metric.name + suffix for suffix in suffixes} <= names
    assert {name for (name, _), number in samples.items() if number} == {"edge_build_info"}


def test_the_names_that_others_rely_on_are_there(slots: list[Slot]) -> None:
    """Names others rely on: dropped events, sessions, and look-ups by result."""
    slots[0].cells[DROPPED] = 3
    slots[1].cells[SESSIONS] = 200
    slots[0].cells[HIT] = 5
    slots[1].cells[MISS] = 7
    samples = scrape(slots)
    assert value(samples, "edge_events_dropped_total") == 3
    assert value(samples, "edge_sessions") == 200
    assert value(samples, "edge_session_lookups_total", result="hit") == 5
    assert value(samples, "edge_session_lookups_total", result="miss") == 7


def test_what_processes_count_is_added_up(slots: list[Slot]) -> None:
    """One figure for the node, whichever worker answered; the labels are the metric's own."""
    for number, slot in enumerate(slots):
        slot.cells[CLICKS] = 10**number
        slot.cells[SESSIONS] = 2 * 10**number
    samples = scrape(slots)
    assert value(samples, "edge_requests_total", kind="click", outcome="redirected") == 111_111
    assert value(samples, "edge_requests_total", kind="click", outcome="fallback") == 0
    assert value(samples, "edge_sessions") == 222_222


def test_what_is_measured_of_the_whole_node_by_each_drain_is_not_added_up(slots: list[Slot]) -> None:
    """Two drains look at the same disk and at the same table."""
    for slot in slots[2:4]:
        slot.cells[UNDRAINED] = 4_096
        slot.cells[cell("edge_conversions_waiting")] = 17
    samples = scrape(slots)
    assert value(samples, "edge_journal_undrained_bytes") == 4_096
    assert value(samples, "edge_conversions_waiting") == 17


def test_what_is_one_process_s_own_names_it(slots: list[Slot]) -> None:
    """A lagging loop, an old catalog and a restarted process can be told from their neighbours; units are Prometheus's."""
    slots[1].cells[cell("edge_loop_lag_seconds")] = 2_500
    slots[1].cells[cell("edge_catalog_revision")] = 12
    slots[2].cells[cell("edge_process_starts_total")] = 4
    slots[3].cells[cell("edge_process_up")] = 1
    slots[3].cells[THROUGH] = 1_700_000_000_500
    samples = scrape(slots)
    assert value(samples, "edge_loop_lag_seconds", role="worker", slot="1") == pytest.approx(0.0025)
    assert value(samples, "edge_loop_lag_seconds", role="worker", slot="0") == 0
    assert value(samples, "edge_catalog_revision", role="worker", slot="1") == 12
    assert value(samples, "edge_process_starts_total", role="drain", slot="0") == 4
    assert value(samples, "edge_process_up", role="drain", slot="1") == 1
    assert value(samples, "edge_process_up", role="admin", slot="0") == 0
    assert value(samples, "edge_drained_through_seconds", role="drain", slot="1") == 1_700_000_000.5


def test_a_process_s_own_lines_are_of_those_that_measure_it(slots: list[Slot]) -> None:
    """Else the least catalog revision would be a drain's, which has none, and the mean lag of loops nobody's."""
    samples = scrape(slots)
    roles: dict[str, set[str]] = {}
    for name, labels in samples:
        if "slot" in dict(labels):
            roles.setdefault(name, set()).add(dict(labels)["role"])
    everybody = {"worker", "drain", "admin", "shipper"}
    assert roles.pop("edge_loop_lag_seconds") == roles.pop("edge_catalog_revision") == {"worker"}
    of_drains = ("edge_drained_through_seconds", "edge_stream_pending_messages", "edge_stream_partitions_owned")
    assert all(roles.pop(name) == {"drain"} for name in of_drains)
    assert roles.pop("edge_shipped_through_seconds") == {"shipper"}
    assert roles
    assert all(found == everybody for found in roles.values())


def test_failed_queries_are_added_up_for_each_role_that_asks(slots: list[Slot]) -> None:
    """Two drains are one line; workers, which never ask, have none, and the sender has one before it runs."""
    for number, slot in enumerate(slots):
        slot.cells[cell("edge_database_errors_total")] = 10**number
    samples = scrape(slots)
    counted = {dict(labels)["role"]: number for (name, labels), number in samples.items() if name == ERRORS}
    assert counted == {"drain": 1_100, "sender": 0, "admin": 10_000}


def test_of_several_geo_databases_the_oldest_is_told(slots: list[Slot]) -> None:
    """A worker that has not followed yet; those without any do not count."""
    for slot, built_s in zip(slots, (1_700_000_000, 1_600_000_000), strict=False):
        slot.cells[cell("edge_geoip_built_seconds")] = built_s
    assert value(scrape(slots), "edge_geoip_built_seconds") == 1_600_000_000


def test_the_build_says_what_runs(slots: list[Slot]) -> None:
    """The release and the interpreter, as one line that is always 1."""
    python = ".".join(map(str, sys.version_info[:3]))
    assert value(scrape(slots), "edge_build_info", version=version("clickedge"), python=python) == 1


def test_both_service_levels_are_edges_of_buckets(slots: list[Slot]) -> None:
    """Shares within 1 ms and within 5 ms are counted, not guessed."""
    edges = {dict(labels).get("le") for name, labels in scrape(slots) if name == "edge_handling_seconds_bucket"}
    assert {"0.001", "0.005"} <= edges


@pytest.mark.debian("prometheus")
def test_promtool_accepts_a_page_on_which_everything_has_happened(slots: list[Slot]) -> None:
    """Each metric has had a value, small and large, in every process."""
    for number, slot in enumerate(slots):
        for place in range(len(slot.cells)):
            slot.cells[place] = place << (number * 10)
    checked = subprocess.run(["promtool", "check", "metrics"], input=render(slots), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_page_of_a_large_node_is_small(slots: list[Slot]) -> None:
    """62 workers and 8 drains: its lines are bounded, and so is the time that the admin process takes for them."""
    names = [("worker", number) for number in range(62)] + [("drain", number) for number in range(8)]
    large = [*slots[4:], *(Slot(role, number, Counters.private()) for role, number in names)]
    assert render(large).count(b"\n") < 2_000


def test_a_histogram_s_buckets_are_cumulative_over_all_processes(slots: list[Slot]) -> None:
    """Each bucket holds those below it too, +Inf all of them, and the sum is in seconds."""
    sync = cell("edge_journal_sync_seconds")
    for slot, duration_us in ((slots[0], 90), (slots[0], 700), (slots[1], 1_000), (slots[1], 9_000_000)):
        Counters.observe(_of(slot), sync, SYNC_BUCKETS_US, duration_us)
    samples = scrape(slots)
    buckets = [value(samples, "edge_journal_sync_seconds_bucket", le=f"{edge / 1e6:g}") for edge in SYNC_BUCKETS_US]
    assert buckets == [1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3]
    assert value(samples, "edge_journal_sync_seconds_bucket", le="+Inf") == 4
    assert value(samples, "edge_journal_sync_seconds_count") == 4
    assert value(samples, "edge_journal_sync_seconds_sum") == pytest.approx(9.00179)


def test_the_histograms_of_two_kinds_stay_apart(slots: list[Slot]) -> None:
    """A slow postback is no slow click."""
    Counters.observe(_of(slots[0]), cell("edge_handling_seconds", "postback"), HANDLING_BUCKETS_US, 40)
    samples = scrape(slots)
    assert value(samples, "edge_handling_seconds_count", kind="postback") == 1
    assert value(samples, "edge_handling_seconds_bucket", kind="postback", le="2.5e-05") == 0
    assert value(samples, "edge_handling_seconds_bucket", kind="postback", le="5e-05") == 1
    assert value(samples, "edge_handling_seconds_count", kind="click") == 0


def test_no_counter_falls_when_a_slot_s_process_is_killed_and_replaced(block: int) -> None:
    """Scrapes before, between and after two lives of a slot: each counter and bucket only grows."""
    slots = [Slot("worker", 0, Counters.of_fd(block)), Slot("worker", 1, Counters.private())]
    slots[1].cells[DROPPED] = 100
    pages = [scrape(slots)]
    for times in (4, 6):
        count_in_a_child(block, times)
        pages.append(scrape(slots))
    assert [value(page, "edge_events_dropped_total") for page in pages] == [100, 104, 110]
    for before, after in pairwise(pages):
        assert before.keys() == after.keys()
        assert all(
            after[key] >= before[key] for key in before if key[0].endswith(("_total", "_bucket", "_count", "_sum"))
        )


def test_the_lag_is_the_slowest_drain_s_and_grows_while_nothing_is_stored(slots: list[Slot]) -> None:
    """The age of what the slowest drain has stored; a drain that has no journal, and other processes, do not count."""
    assert drain_lag_s(slots) == 0
    now_ms = int(time.time() * 1000)
    slots[0].cells[THROUGH] = now_ms - 900_000
    slots[2].cells[THROUGH] = now_ms - 30_000
    assert 30 <= drain_lag_s(slots) < 60
    slots[3].cells[THROUGH] = now_ms - 120_000
    first = drain_lag_s(slots)
    assert 120 <= first < 150
    assert first <= value(scrape(slots), "edge_drain_lag_seconds") <= drain_lag_s(slots)


def test_a_clock_that_stepped_back_gives_no_negative_lag(slots: list[Slot]) -> None:
    """What is stored may be of a later moment than now."""
    slots[2].cells[THROUGH] = int(time.time() * 1000) + 60_000
    assert drain_lag_s(slots) == 0


def _of(slot: Slot) -> Counters:
    counters = Counters.private()
    counters.cells = slot.cells
    return counters
