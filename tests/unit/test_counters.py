"""edge/counters.py: cells that outlive the processes that count in them."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.counters import BLOCK_BYTES, CELL_COUNT, Counters, cell, new_block
from edge.metric_families import HANDLING_BUCKETS_US, KINDS, METRICS, SYNC_BUCKETS_US

ROOT = Path(__file__).parent.parent.parent
DROPPED = cell("edge_events_dropped_total")
SYNC = cell("edge_journal_sync_seconds")

CHILD = """
import os, signal, sys
from edge.counters import Counters, cell
from edge.metric_families import SYNC_BUCKETS_US
counters = Counters.of_fd(int(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    counters.cells[cell("edge_events_dropped_total")] += 1
counters.observe(cell("edge_journal_sync_seconds"), SYNC_BUCKETS_US, 700)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def block() -> Iterator[int]:
    """A slot's memory."""
    descriptor = new_block()
    yield descriptor
    os.close(descriptor)


def count_in_a_child(block: int, times: int) -> int:
    """A process of its own counts and dies by SIGKILL; its exit code."""
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(block), str(times)], pass_fds=[block], cwd=ROOT, timeout=60, check=False
    ).returncode


def test_every_cell_belongs_to_one_metric_only() -> None:
    """The layout has no overlap, no gap, and fits its block of whole pages."""
    places = [
        place
        for metric in METRICS
        for values in metric.combinations()
        for place in range(cell(metric.name, *values), cell(metric.name, *values) + metric.width)
    ]
    assert sorted(places) == list(range(CELL_COUNT))
    assert BLOCK_BYTES >= CELL_COUNT * 8
    assert BLOCK_BYTES % os.sysconf("SC_PAGESIZE") == 0


def test_a_name_or_label_that_does_not_exist_is_refused_at_import() -> None:
    """A slip in a metric's name cannot count into another's cell."""
    for name, *labels in (
        ("edge_events_droped_total",),
        ("edge_session_lookups_total", "maybe"),
        ("edge_sessions", "x"),
    ):
        with pytest.raises(KeyError):
            cell(name, *labels)


def test_what_a_killed_process_counted_stays_and_its_successor_goes_on(block: int) -> None:
    """The memory comes through fork and exec, and each count is there although nobody closed anything."""
    counters = Counters.of_fd(block)
    for total in (3, 10):
        assert count_in_a_child(block, total - counters.cells[DROPPED]) == -signal.SIGKILL
        assert counters.cells[DROPPED] == total
    bucket = SYNC_BUCKETS_US.index(1_000)
    histogram = list(counters.cells[SYNC : SYNC + len(SYNC_BUCKETS_US) + 2])
    assert histogram == [0] * bucket + [2] + [0] * (len(SYNC_BUCKETS_US) - bucket) + [1_400]


def test_two_mappings_of_a_slot_see_each_other_and_no_other_slot(block: int) -> None:
    """The admin process reads what a worker counts, at once."""
    worker, admin, private = Counters.of_fd(block), Counters.of_fd(block), Counters.private()
    worker.cells[DROPPED] += 5
    assert (admin.cells[DROPPED], private.cells[DROPPED]) == (5, 0)


def test_a_supervisor_of_fewer_counters_does_not_keep_a_later_release_from_starting(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is too short for what is installed now: it grows, and what is mapped of it already stays."""
    known = Counters.of_fd(block)
    known.cells[0] = 7
    monkeypatch.setattr("edge.counters.BLOCK_BYTES", 2 * BLOCK_BYTES)
    later = Counters.of_fd(block)
    assert (later.cells[0], later.cells[BLOCK_BYTES // 8]) == (7, 0)
    later.cells[0] += 1
    assert known.cells[0] == 8


def test_a_slot_is_handed_on_only_on_purpose(block: int) -> None:
    """Postgres and other programs that are started get no descriptor of it."""
    assert fcntl.fcntl(block, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert os.fstat(block).st_size == BLOCK_BYTES
    assert not any(Counters.of_fd(block).cells)


@pytest.mark.parametrize(
    ("duration_us", "bucket"),
    [(0, 0), (9, 0), (10, 0), (11, 1), (25, 1), (250_000, 11), (250_001, 12), (10**9, 12)],
)
def test_a_duration_falls_into_the_first_bucket_that_is_not_below_it(duration_us: int, bucket: int) -> None:
    """Prometheus's `le`: an edge belongs to its bucket, and beyond the last one is +Inf."""
    counters = Counters.private()
    click = cell("edge_handling_seconds", "click")
    counters.observe(click, HANDLING_BUCKETS_US, duration_us)
    width = len(HANDLING_BUCKETS_US) + 2
    expected = [int(index == bucket) for index in range(width - 1)]
    assert list(counters.cells[click : click + width]) == [*expected, duration_us]
    assert sum(counters.cells) == 1 + duration_us


def test_a_histogram_of_one_kind_leaves_the_others_alone() -> None:
    """Neighbours in the layout do not run into each other, whatever the bucket."""
    counters = Counters.private()
    for kind in KINDS:
        counters.observe(cell("edge_handling_seconds", kind), HANDLING_BUCKETS_US, 10**6)
    first = cell("edge_handling_seconds", KINDS[0])
    width = len(HANDLING_BUCKETS_US) + 2
    one = [0] * len(HANDLING_BUCKETS_US) + [1, 10**6]
    assert list(counters.cells[first : first + width * len(KINDS)]) == one * len(KINDS)
    assert sum(counters.cells) == len(KINDS) * (1 + 10**6)
