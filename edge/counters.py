"""What the processes count: plain 64-bit cells in memory that the supervisor owns, one block per process slot.

A process adds to its slot's cells in place, so a count outlives `kill -9`, and the admin process sums the slots for
`/metrics`. A slot's memory outlives the process in it: totals stay monotonic over a restart. The layout is fixed here,
by the order of `METRICS`; all processes of one `serve` run the same code.
"""

import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator
from itertools import product
from typing import Literal, NamedTuple

MICROSECONDS = 1e-6
HANDLING_BUCKETS_US = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000)
SYNC_BUCKETS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000)
BATCH_BUCKETS_US = (1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000)


class Metric(NamedTuple):
    """A family: its Prometheus name, help, label values (all combinations exist) and, for a histogram, bucket edges."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - never mutated
    buckets_us: tuple[int, ...] = ()
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Cells per label combination: a histogram has its buckets, one for +Inf and the sum of microseconds."""
        return len(self.buckets_us) + 2 if self.kind == "histogram" else 1

    def combinations(self) -> Iterator[tuple[str, ...]]:
        return product(*self.labels.values())


KINDS = ("click", "impression", "postback", "pixel", "other")
OUTCOMES = ("redirected", "fallback", "rejected", "recorded", "refused", "unavailable", "bad_request")

METRICS = (
    Metric("edge_requests_total", "counter", "Requests answered.", {"kind": KINDS, "outcome": OUTCOMES}),
    Metric(
        "edge_handling_seconds",
        "histogram",
        "From a request's bytes to its answer and event, each its share of the loop turn; the journal's write is not in it.",
        {"kind": KINDS},
        HANDLING_BUCKETS_US,
    ),
    Metric("edge_sessions", "gauge", "Sessions held in the workers' memory."),
    Metric("edge_session_lookups_total", "counter", "Session look-ups by postbacks.", {"result": ("hit", "miss")}),
    Metric("edge_forged_ids_total", "counter", "Conversions whose id is malformed or forged, stored or not."),
    Metric("edge_unstored_refusals_total", "counter", "Forged or session-less conversions beyond the stored rate."),
    Metric(
        "edge_events_dropped_total",
        "counter",
        "Clicks and impressions answered but not journalled: the journal was full.",
    ),
    Metric("edge_events_journalled_total", "counter", "Events written to a journal."),
    Metric("edge_journal_bytes_total", "counter", "Bytes appended to the journals."),
    Metric("edge_journal_undrained_bytes", "gauge", "Journal bytes of this node that Postgres does not have yet."),
    Metric("edge_journal_write_errors_total", "counter", "Journal writes that failed or were cut short."),
    Metric("edge_journal_sync_seconds", "histogram", "Duration of a journal fsync.", {}, SYNC_BUCKETS_US),
    Metric("edge_loop_lag_seconds", "gauge", "Worst delay of a worker's event loop in its last second.", {}, (), 1e-6),
    Metric("edge_catalog_revision", "gauge", "Catalog revision in force."),
    Metric("edge_catalog_loads_total", "counter", "Catalog snapshots taken into use.", {"result": ("ok", "failed")}),
    Metric(
        "edge_drain_rows_total",
        "counter",
        "Rows stored by the drain.",
        {"table": ("clicks", "impressions", "conversions", "conversions_waiting", "quarantine")},
    ),
    Metric(
        "edge_conversions_decided_total",
        "counter",
        "Conversions by the drain's verdict.",
        {"status": ("approved", "pending", "rejected")},
    ),
    Metric(
        "edge_conversion_changes_total",
        "counter",
        "Changes of earlier conversions by later ones.",
        {"kind": ("approved", "rejected", "reversed", "adjusted")},
    ),
    Metric(
        "edge_events_erased_total",
        "counter",
        "Drained events of people who were erased: clicks and impressions counted and not stored, conversions without a name.",
        {"kind": ("click", "impression", "conversion")},
    ),
    Metric("edge_drain_batch_seconds", "histogram", "One drain transaction, decoding included.", {}, BATCH_BUCKETS_US),
    Metric(
        "edge_drained_through_seconds", "gauge", "Unix time up to which journalled events are stored.", {}, (), 1e-3
    ),
    Metric("edge_visits_held", "gauge", "Entries in the drains' memory of visits; a click adds up to two."),
    Metric(
        "edge_visits_forgotten_total",
        "counter",
        "Entries that left the memory of visits before their time: it was full.",
    ),
    Metric("edge_drain_errors_total", "counter", "Drain transactions that failed and were tried again."),
    Metric("edge_conversions_waiting", "gauge", "Conversions waiting for their click."),
    Metric("edge_capped_pairs", "gauge", "Offers, and partners in offers, that have reached a cap."),
    Metric(
        "edge_state_published_seconds",
        "gauge",
        "Unix time at which caps were last compared and published.",
        {},
        (),
        1e-3,
    ),
    Metric(
        "edge_rolled_up_through_seconds",
        "gauge",
        "Unix time before which reports take the coarser sums; 0: they take the hours.",
        {},
        (),
        1e-3,
    ),
    Metric("edge_state_loads_total", "counter", "Published states taken into use.", {"result": ("ok", "failed")}),
    Metric(
        "edge_postbacks_total",
        "counter",
        "Attempts to tell a partner, by how they ended.",
        {"result": ("delivered", "failed", "dead")},
    ),
    Metric("edge_postbacks_pending", "gauge", "Partner postbacks not yet answered with 2xx, of all nodes."),
    Metric("edge_postbacks_oldest_seconds", "gauge", "Age of the oldest pending partner postback."),
    Metric("edge_process_starts_total", "counter", "Processes started, first starts included."),
    Metric("edge_process_up", "gauge", "1 while the slot's process runs."),
)

_BY_NAME = {metric.name: metric for metric in METRICS}


def _lay_out() -> tuple[dict[tuple[str, ...], int], int]:
    places: dict[tuple[str, ...], int] = {}
    position = 0
    for metric in METRICS:
        for values in metric.combinations():
            places[(metric.name, *values)] = position
            position += metric.width
    return places, position


_PLACES, CELL_COUNT = _lay_out()
BLOCK_BYTES = -(-CELL_COUNT * 8 // mmap.PAGESIZE) * mmap.PAGESIZE


def cell(name: str, *label_values: str) -> int:
    """The index of a counter or gauge, or of a histogram's first bucket. Resolve it once, at import."""
    return _PLACES[(name, *label_values)]


class Counters:
    """One slot's cells. `cells[i] += n` is the whole interface of the hot path."""

    def __init__(self, block: mmap.mmap | bytearray) -> None:
        self.cells = memoryview(block).cast("Q")

    @classmethod
    def private(cls) -> "Counters":
        """Cells of nobody else's, for a process without a supervisor (tests, tools)."""
        return cls(bytearray(BLOCK_BYTES))

    @classmethod
    def of_fd(cls, fd: int) -> "Counters":
        return cls(mmap.mmap(fd, BLOCK_BYTES))

    def observe(self, name_cell: int, buckets_us: tuple[int, ...], duration_us: float, count: int = 1) -> None:
        """Add a duration, so many times, to the histogram whose first cell is `name_cell`."""
        cells = self.cells
        cells[name_cell + bisect_left(buckets_us, duration_us)] += count
        cells[name_cell + len(buckets_us) + 1] += round(duration_us * count)


def new_block() -> int:
    """A file descriptor of zeroed shared memory for one slot; it lives as long as somebody holds it."""
    fd = os.memfd_create("clickedge-counters", os.MFD_CLOEXEC)
    os.ftruncate(fd, BLOCK_BYTES)
    return fd
