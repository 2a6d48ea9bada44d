"""Every metric family that the processes count: name, help, labels, buckets, and how processes add up on the page.

Their order is the layout of the processes' memory (`counters`): what is new stands at the end.
"""

from collections.abc import Iterator
from itertools import product
from typing import Literal, NamedTuple

from edge.tracking.status_codes import REJECTIONS

MICROSECONDS = 1e-6
HANDLING_BUCKETS_US = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000)
SYNC_BUCKETS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000)
ADMIN_BUCKETS_US = (1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 10_000_000, 60_000_000)
POSTBACK_BUCKETS_US = (10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000)
BATCH_BUCKETS_US = (1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000)

ADMIN_PARTS = ("api", "console", "metrics", "health")
ADMIN_CODES = ("1xx", "2xx", "3xx", "4xx", "5xx")
GENERATIONS = ("0", "1", "2")
ROLES = ("worker", "drain", "sender", "admin", "supervisor", "shipper")
CLIENT_ROLES = ("drain", "sender", "admin")
"""Those that ask PostgreSQL."""


class Metric(NamedTuple):
    """A family: its Prometheus name, help, label values (all combinations exist) and, for a histogram, bucket edges."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - never mutated
    buckets_us: tuple[int, ...] = ()
    scale: float = 1.0
    across: Literal["sum", "max", "oldest", "role", "process"] = "sum"
    """How the processes' cells become lines of the page: added up; the greatest, where each measures the same; the least
    that is not 0; added up for each role; a line for each process."""
    roles: tuple[str, ...] = ROLES
    """Which of them have a line of their own."""

    @property
    def width(self) -> int:
        """Cells per label combination: a histogram has its buckets, one for +Inf and the sum of microseconds."""
        return len(self.buckets_us) + 2 if self.kind == "histogram" else 1

    def combinations(self) -> Iterator[tuple[str, ...]]:
        return product(*self.labels.values())


KINDS = ("click", "impression", "postback", "pixel", "other")
OUTCOMES = ("redirected", "fallback", "rejected", "recorded", "refused", "unavailable", "bad_request")
RETAINED = (
    "converted_clicks",
    "click_values",
    "conversions_waiting",
    "quarantine",
    "external_ids",
    "idempotent_answers",
    "conversions.ip",
    "imports.examples",
    "audit_log",
)
"""What is deleted row by row; `table.column`: the row stays, the column is blanked."""

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
    Metric("edge_sessions_max", "gauge", "Sessions that the workers have room for."),
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
    Metric("edge_journal_undrained_bytes", "gauge", "Journal bytes of this node that Postgres does not have yet.", across="max"),
    Metric("edge_journal_max_bytes", "gauge", "EDGE_JOURNAL_MAX_BYTES."),
    Metric("edge_journal_disk_free_bytes", "gauge", "Free bytes of the disk that the journals are on."),
    Metric("edge_journal_rotations_total", "counter", "Segments begun because the one before was full."),
    Metric("edge_journal_corrupt_records_total", "counter", "Damaged places found in journals; they are in quarantine."),
    Metric("edge_journal_write_errors_total", "counter", "Journal writes that failed or were cut short."),
    Metric("edge_journal_sync_seconds", "histogram", "Duration of a journal fsync.", {}, SYNC_BUCKETS_US),
    Metric(
        "edge_loop_lag_seconds",
        "gauge",
        "Worst delay of a worker's event loop in its last second.",
        {},
        (),
        MICROSECONDS,
        "process",
        ("worker",),
    ),
    Metric("edge_connections", "gauge", "Connections open on the public port."),
    Metric(
        "edge_connections_refused_total",
        "counter",
        "Connections closed at once: no descriptor was left for them, or their client had too many.",
        {"reason": ("full", "client")},
    ),
    Metric("edge_catalog_revision", "gauge", "Catalog revision in force.", {}, (), 1.0, "process", ("worker",)),
    Metric("edge_catalog_published_seconds", "gauge", "Unix time of the newest catalog revision."),
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
        "edge_conversions_rejected_total",
        "counter",
        "Conversions that the drain rejected, by reason.",
        {"reason": REJECTIONS},
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
        "edge_drained_through_seconds",
        "gauge",
        "Unix time up to which journalled events are stored.",
        {},
        (),
        1e-3,
        "process",
        ("drain",),
    ),
    Metric("edge_visits_held", "gauge", "Entries in the drains' memory of visits; a click adds up to two."),
    Metric(
        "edge_visits_forgotten_total",
        "counter",
        "Entries that left the memory of visits before their time: it was full.",
    ),
    Metric("edge_drain_errors_total", "counter", "Drain transactions that failed and were tried again."),
    Metric("edge_conversions_waiting", "gauge", "Conversions waiting for their click, or for the one that they take back.", {}, (), 1.0, "max"),
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
    Metric(
        "edge_retention_partitions_total",
        "counter",
        "Days dropped because they were older than the retention.",
        {"table": ("clicks", "impressions")},
    ),
    Metric(
        "edge_retention_rows_total",
        "counter",
        "Rows deleted or blanked because they were older than they may be kept.",
        {"table": RETAINED},
    ),
    Metric(
        "edge_retention_done_seconds",
        "gauge",
        "Unix time at which this node last found nothing more that was kept too long.",
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
    Metric("edge_postback_seconds", "histogram", "Until a partner's answer, or none.", {}, POSTBACK_BUCKETS_US),
    Metric("edge_postbacks_in_flight", "gauge", "Partner postbacks that wait for an answer now."),
    Metric("edge_postbacks_pending", "gauge", "Partner postbacks not yet answered with 2xx, of all nodes."),
    Metric("edge_postbacks_oldest_seconds", "gauge", "Age of the oldest pending partner postback."),
    Metric(
        "edge_admin_requests_total",
        "counter",
        "Requests answered on the admin port.",
        {"part": ADMIN_PARTS, "code": ADMIN_CODES},
    ),
    Metric(
        "edge_admin_answer_seconds",
        "histogram",
        "Until an answer on the admin port begins.",
        {"part": ADMIN_PARTS},
        ADMIN_BUCKETS_US,
    ),
    Metric("edge_geoip_built_seconds", "gauge", "When the geo database was built; 0: none.", across="oldest"),
    Metric("edge_database_up", "gauge", "1 while the admin process's queries are answered."),
    Metric("edge_database_errors_total", "counter", "Failed queries and connections.", across="role", roles=CLIENT_ROLES),
    Metric(
        "edge_database_pool_connections",
        "gauge",
        "The admin process's connections for the API and the console.",
        {"state": ("idle", "used")},
    ),
    Metric("edge_partitions_ahead", "gauge", "Daily partitions of clicks that are ready beyond today."),
    Metric(
        "edge_process_starts_total", "counter", "Processes started, first starts included.", across="process"
    ),
    Metric("edge_process_up", "gauge", "1 while the slot's process runs.", across="process"),
    Metric("edge_process_resident_memory_bytes", "gauge", "Resident memory.", across="process"),
    Metric("edge_process_open_fds", "gauge", "Open descriptors.", across="process"),
    Metric("edge_process_max_fds", "gauge", "Descriptors that the process may open.", across="process"),
    Metric("edge_process_cpu_seconds_total", "counter", "Processor time.", {}, (), 1e-9, "process"),
    Metric(
        "edge_process_gc_collections_total",
        "counter",
        "Runs of Python's garbage collector.",
        {"generation": GENERATIONS},
        across="process",
    ),
    # What the stream adds stands at the end: a supervisor of an earlier release has the cells above where they are.
    Metric("edge_shipped_messages_total", "counter", "Messages that the stream has acknowledged."),
    Metric("edge_shipped_events_total", "counter", "Journalled events in messages that the stream has acknowledged."),
    Metric("edge_shipped_bytes_total", "counter", "Bytes of messages that the stream has acknowledged."),
    Metric("edge_ship_errors_total", "counter", "Times that the stream did not take a message, or not in time."),
    Metric("edge_ship_resends_total", "counter", "Requests of drains for events that were shipped before."),
    Metric("edge_ship_unshipped_bytes", "gauge", "Journal bytes of this node that the stream has not acknowledged yet."),
    Metric(
        "edge_shipped_through_seconds", "gauge", "Unix time up to which this node's journalled events are in the stream.",
        {}, (), 1e-3, "process", ("shipper",),
    ),
    Metric("edge_ship_seconds", "histogram", "From a message's sending until its acknowledgement.", {}, SYNC_BUCKETS_US),
    Metric("edge_stream_up", "gauge", "1 while connected to the stream.", across="role", roles=("shipper", "drain")),
    Metric("edge_stream_unsynced", "gauge", "1 if a server of the stream does not sync each message.", across="max"),
    Metric("edge_stream_bytes", "gauge", "Bytes that the stream holds.", across="max"),
    Metric("edge_stream_max_bytes", "gauge", "EDGE_STREAM_MAX_BYTES; 0: as much as the servers allow.", across="max"),
    Metric("edge_stream_messages", "gauge", "Messages that the stream holds.", across="max"),
    Metric(
        "edge_stream_pending_messages", "gauge", "Messages of the process's partitions that it has not read yet.",
        across="process", roles=("drain",),
    ),
    Metric("edge_stream_redelivered_total", "counter", "Messages of which all was stored before; they were skipped."),
    Metric("edge_stream_gaps_total", "counter", "Messages that begin behind what is stored; they must come again."),
    Metric("edge_stream_resend_requests_total", "counter", "Times that a shipper was asked to send again."),
    Metric(
        "edge_stream_partitions_owned", "gauge", "Partitions that the process drains.", across="process", roles=("drain",)
    ),
    Metric("edge_stream_partitions_unowned", "gauge", "Partitions that nobody drains just now.", across="max"),
    Metric("edge_stream_takeovers_total", "counter", "Partitions taken over from a drain that let its lease run out."),
    Metric("edge_replicated_answers_total", "counter", "Answers that left with the stream's acknowledgement."),
    Metric("edge_replication_fallbacks_total", "counter", "Answers that should have, and left after an fsync instead."),
    Metric("edge_replication_seconds", "histogram", "From an event's journal write to its acknowledgement.", {}, SYNC_BUCKETS_US),
)  # fmt: skip
OF_A_LIVING_PROCESS = (
    "edge_sessions",
    "edge_connections",
    "edge_loop_lag_seconds",
    "edge_visits_held",
    "edge_postbacks_in_flight",
    "edge_stream_up",
    "edge_stream_pending_messages",
    "edge_stream_partitions_owned",
    "edge_process_resident_memory_bytes",
    "edge_process_open_fds",
)
"""Gauges that nothing is left of when their process ends."""
