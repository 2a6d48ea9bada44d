"""What the dashboard asks, in the order in which somebody asks who was woken up; dashboard.py makes Grafana's JSON of it."""

from dataclasses import dataclass
from typing import Literal

HERE = 'job=~"$job",instance=~"$instance"'
JOB = 'job=~"$job"'
"""For what is recorded over all nodes of a job."""
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Query:
    """An expression, the legend of its lines, and whether they belong to the axis on the right, in a unit of its own."""

    legend: str
    expr: str
    right_unit: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture; `unit` is Grafana's name of it. `is_log`: values over several decades."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["lines", "stacked", "number", "heatmap"] = "lines"
    width: int = 8
    is_log: bool = False
    max: float | None = None


@dataclass(frozen=True)
class Row:
    """A question, and the panels that answer it."""

    title: str
    panels: tuple[Panel, ...]


def _here(expr: str) -> str:
    """`{}` after a name becomes the selector of the chosen nodes, `{,` its beginning, `[rate]` the range of a rate."""
    return expr.replace("[rate]", f"[{RATE}]").replace("{}", f"{{{HERE}}}").replace("{,", f"{{{HERE},")


def _quantile(share: float, name: str, labels: str = "") -> str:
    selector = f"{{,{labels}}}" if labels else "{}"
    return _here(f"histogram_quantile({share}, sum by (le) (rate({name}_bucket{selector}[rate])))")


def _query(legend: str, expr: str, right_unit: str = "") -> Query:
    return Query(legend, _here(expr), right_unit)


_CLICKS = 'kind="click"'

UP = (
    Panel(
        "Error budget left",
        "Of 30 days, or of the time since the first scrape. Availability: 99.9 % of the requests get another answer than 503. "
        "Latency: 99.9 % of the clicks are handled within 1 ms. Below 0 the objective is missed.",
        "percentunit",
        (
            Query("availability", f"1 - job:edge_requests_unavailable:ratio_rate30d{{{JOB}}} / 0.001"),
            Query("latency", f"1 - job:edge_clicks_slow:ratio_rate30d{{{JOB}}} / 0.001"),
        ),
        "number",
        max=1,
    ),
    Panel(
        "Processes that run",
        "By kind; a line that dips is a process that was started again. Nodes: those whose admin port answers Prometheus.",
        "short",
        (
            _query("nodes", f"sum(up{{{HERE}}})"),
            _query("{{role}}", "sum by (role) (edge_process_up{})"),
            _query("starts of {{role}} {{slot}}", "increase(edge_process_starts_total{}[rate]) > 0"),
        ),
    ),
    Panel(
        "Open connections and descriptors",
        "Connections on the public port; the fullest process's share of the descriptors that it may open; connections "
        "turned away, for want of one or as too many of one client.",
        "short",
        (
            _query("connections", "sum(edge_connections{})"),
            _query("refused a second", "sum(rate(edge_connections_refused_total{}[rate]))"),
            _query("descriptors in use", "max(edge_process_open_fds{} / edge_process_max_fds{})", "percentunit"),
        ),
    ),
)

FAST = (
    Panel(
        "Requests",
        "Answered, by kind.",
        "reqps",
        (_query("{{kind}}", "sum by (kind) (rate(edge_requests_total{}[rate]))"),),
        "stacked",
    ),
    Panel(
        "Requests not served",
        "Shares of all requests. unavailable: 503, ours, and the budget's. The others are clients': bad_request is no HTTP that "
        "we take, refused a conversion with an unknown or forged id.",
        "percentunit",
        (
            _query(
                "{{outcome}}",
                'sum by (outcome) (rate(edge_requests_total{,outcome=~"unavailable|bad_request|refused"}[rate]))'
                " / on () group_left () sum(rate(edge_requests_total{}[rate]))",
            ),
        ),
    ),
    Panel(
        "Handling of clicks",
        "From a request's bytes to its answer and event, each its share of the loop turn; the journal's write is not in it. "
        "The objective is 99.9 % within 1 ms.",
        "s",
        tuple(
            Query(f"p{share * 100:g}", _quantile(share, "edge_handling_seconds", _CLICKS))
            for share in (0.5, 0.95, 0.99, 0.999)
        ),
        is_log=True,
    ),
    Panel(
        "Handling of clicks, all of them",
        "How many clicks a second took how long.",
        "s",
        (_query("{{le}}", f"sum by (le) (rate(edge_handling_seconds_bucket{{,{_CLICKS}}}[rate]))"),),
        "heatmap",
    ),
    Panel(
        "Delay of the event loop",
        "Each worker's worst in its last second: as long as that did some request wait before it was handled.",
        "s",
        (_query("{{instance}} worker {{slot}}", 'edge_loop_lag_seconds{,role="worker"}'),),
    ),
    Panel(
        "fsync of the journal",
        "Conversions wait for it, clicks only with EDGE_CLICK_DURABILITY=disk.",
        "s",
        tuple(Query(f"p{share * 100:g}", _quantile(share, "edge_journal_sync_seconds")) for share in (0.5, 0.99)),
        is_log=True,
    ),
)

LOSING = (
    Panel(
        "Events in, rows out",
        "What was written to journals and what the drain stored of it, a second. Over time both are the same; what is dropped "
        "was in neither.",
        "cps",
        (
            _query("journalled", "sum(rate(edge_events_journalled_total{}[rate]))"),
            _query("stored", "sum(rate(edge_drain_rows_total{}[rate]))"),
            _query("dropped", "sum(rate(edge_events_dropped_total{}[rate]))"),
        ),
    ),
    Panel(
        "Lost or laid aside",
        "All of these are 0 when all is well. dropped: answered, not recorded. quarantine: kept whole, not a row. corrupt: "
        "damaged on disk. write errors: the journal's disk.",
        "short",
        (
            _query("dropped", "sum(increase(edge_events_dropped_total{}[rate]))"),
            _query("quarantine", 'sum(increase(edge_drain_rows_total{,table="quarantine"}[rate]))'),
            _query("corrupt", "sum(increase(edge_journal_corrupt_records_total{}[rate]))"),
            _query("write errors", "sum(increase(edge_journal_write_errors_total{}[rate]))"),
        ),
    ),
    Panel(
        "Room in the journal",
        "Of EDGE_JOURNAL_MAX_BYTES: what PostgreSQL does not have yet, and what it will be in four hours if the last half hour goes "
        "on. At 90 % clicks are dropped, at 100 % conversions get 503. On the right what is free on its disk.",
        "percentunit",
        (
            _query("in use {{instance}}", "edge_journal_undrained_bytes{} / edge_journal_max_bytes{}"),
            _query(
                "in four hours {{instance}}",
                "clamp_min(predict_linear(edge_journal_undrained_bytes{}[30m], 4 * 3600), 0) / edge_journal_max_bytes{}",
            ),
            _query("free on disk {{instance}}", "edge_journal_disk_free_bytes{}", "bytes"),
        ),
    ),
)

BEHIND = (
    Panel(
        "Age of the oldest event not stored",
        "Reports, decisions and caps are as old. Beside it how long ago caps were compared and published.",
        "s",
        (
            _query("drain {{instance}}", "edge_drain_lag_seconds{}"),
            _query("caps {{instance}}", "time() - (edge_state_published_seconds{} > 0)"),
        ),
    ),
    Panel(
        "Transactions of the drain",
        "How long one takes, decoding included, and how many a second failed and were tried again.",
        "s",
        (
            *(Query(f"p{share * 100:g}", _quantile(share, "edge_drain_batch_seconds")) for share in (0.5, 0.99)),
            _query("failed a second", "sum(rate(edge_drain_errors_total{}[rate]))", "cps"),
        ),
    ),
    Panel(
        "PostgreSQL",
        "1 while the admin process reaches it; its connections for the API; errors of queries by kind of process; days for "
        "which clicks' partitions are made ahead.",
        "short",
        (
            _query("up {{instance}}", "edge_database_up{}"),
            _query("connections {{state}}", "sum by (state) (edge_database_pool_connections{})"),
            _query("errors of {{role}} a second", "sum by (role) (rate(edge_database_errors_total{}[rate]))"),
            _query("partitions ahead", "min(edge_partitions_ahead{})"),
        ),
    ),
    Panel(
        "CPU",
        "Cores that each process uses. A worker near 1 is at its end.",
        "short",
        (_query("{{instance}} {{role}} {{slot}}", "rate(edge_process_cpu_seconds_total{}[rate])"),),
    ),
    Panel(
        "Memory",
        "Resident. Flat after the sessions' memory is full.",
        "bytes",
        (_query("{{instance}} {{role}} {{slot}}", "edge_process_resident_memory_bytes{}"),),
    ),
    Panel(
        "Age of catalog and geo database",
        "Since the revision in force was published, and since EDGE_GEOIP_DB was built.",
        "s",
        (
            _query("catalog {{instance}}", "time() - (edge_catalog_published_seconds{} > 0)"),
            _query("geo database {{instance}}", "time() - (edge_geoip_built_seconds{} > 0)"),
        ),
    ),
)

STREAM = (
    Panel(
        "Events shipped",
        "What the edges' journals took, what the stream has acknowledged of it, and what was stored, a second, all nodes. Over "
        "time they are the same. Refused: messages that the stream did not take, or not in time; they are sent again.",
        "cps",
        (
            _query("journalled", "sum(rate(edge_events_journalled_total{}[rate]))"),
            _query("shipped", "sum(rate(edge_shipped_events_total{}[rate]))"),
            _query("stored", "sum(rate(edge_drain_rows_total{}[rate]))"),
            _query("messages refused", "sum(rate(edge_ship_errors_total{}[rate]))"),
        ),
    ),
    Panel(
        "Not shipped yet",
        "Age of the oldest event of a node that the stream does not have; on the right its journal's bytes. All of it is on that "
        "node's disk alone.",
        "s",
        (
            _query("age {{instance}}", "time() - (edge_shipped_through_seconds{} > 0)"),
            _query("bytes {{instance}}", "edge_ship_unshipped_bytes{}", "bytes"),
        ),
    ),
    Panel(
        "The stream's acknowledgement",
        "From a message's sending, and from an event's journal write where its answer waits for it (durability replicated).",
        "s",
        (
            *(Query(f"message p{share * 100:g}", _quantile(share, "edge_ship_seconds")) for share in (0.5, 0.99)),
            *(Query(f"answer p{share * 100:g}", _quantile(share, "edge_replication_seconds")) for share in (0.5, 0.99)),
        ),
        is_log=True,
    ),
    Panel(
        "Answers that waited for the stream",
        "With durability replicated, a second; and those that should have and left after an fsync, because it was away.",
        "cps",
        (
            _query("replicated", "sum(rate(edge_replicated_answers_total{}[rate]))"),
            _query("fallen back {{instance}}", "rate(edge_replication_fallbacks_total{}[rate]) > 0"),
        ),
    ),
    Panel(
        "What the stream holds",
        "Stored events stay for EDGE_STREAM_KEEP; then it is cut off. On the right the messages of their partitions that drains "
        "have not read yet.",
        "bytes",
        (
            Query("bytes", f"job:edge_stream_bytes:max{{{JOB}}}"),
            _query("limit", "max(edge_stream_max_bytes{} > 0)"),
            _query("waiting for {{instance}} {{slot}}", "edge_stream_pending_messages{}", "short"),
        ),
    ),
    Panel(
        "Who drains",
        "Partitions by drain, those that nobody has, and those taken over from a drain that did not renew its lease.",
        "short",
        (
            _query("{{instance}} drain {{slot}}", "edge_stream_partitions_owned{}"),
            _query("nobody", "max(edge_stream_partitions_unowned{})"),
            _query("taken over", "sum(increase(edge_stream_takeovers_total{}[rate]))"),
        ),
    ),
    Panel(
        "Connected to the stream",
        "Processes that are; unsynced: servers that may lose in a power cut what they acknowledged.",
        "short",
        (
            _query("{{role}}s of {{instance}}", "edge_stream_up{}"),
            _query("unsynced, says {{instance}}", "edge_stream_unsynced{} > 0"),
        ),
    ),
    Panel(
        "Sent again",
        "redelivered: messages of which all was stored, skipped; usual after a takeover or a restart. Gaps: messages that begin "
        "behind what is stored; drains then ask the shipper to send again.",
        "short",
        (
            _query("redelivered", "sum(increase(edge_stream_redelivered_total{}[rate]))"),
            _query("gaps", "sum(increase(edge_stream_gaps_total{}[rate]))"),
            _query("asked for", "sum(increase(edge_stream_resend_requests_total{}[rate]))"),
            _query("sent again", "sum(increase(edge_ship_resends_total{}[rate]))"),
        ),
    ),
)

CONVERSIONS = (
    Panel(
        "Conversions decided",
        "By verdict, and how many wait for their click.",
        "cps",
        (
            _query("{{status}}", "sum by (status) (rate(edge_conversions_decided_total{}[rate]))"),
            _query("waiting", "max(edge_conversions_waiting{})", "short"),
        ),
    ),
    Panel(
        "Rejected, by reason",
        "What each reason means is in docs/status-codes.md.",
        "cps",
        (_query("{{reason}}", "sum by (reason) (rate(edge_conversions_rejected_total{}[rate])) > 0"),),
        "stacked",
    ),
    Panel(
        "Ids that are not ours, clicks that are known",
        "Postbacks with a forged or malformed id, a second; and the share of the others whose click was in a worker's memory "
        "(the drain finds the rest).",
        "cps",
        (
            _query("forged", "sum(rate(edge_forged_ids_total{}[rate]))"),
            _query(
                "click in memory",
                'sum(rate(edge_session_lookups_total{,result="hit"}[rate])) / sum(rate(edge_session_lookups_total{}[rate]))',
                "percentunit",
            ),
        ),
    ),
    Panel(
        "Postbacks to partners",
        "Attempts by how they ended; failed ones are tried again. On the right how old the oldest is that is still to be delivered.",
        "cps",
        (
            _query("{{result}}", "sum by (result) (rate(edge_postbacks_total{}[rate]))"),
            _query("oldest", "max(edge_postbacks_oldest_seconds{})", "s"),
        ),
    ),
)

ROWS = (
    Row("Is it up?", UP),
    Row("Is it fast?", FAST),
    Row("Is it losing anything?", LOSING),
    Row("Is it behind?", BEHIND),
    Row("Is the stream well? (empty without one)", STREAM),
    Row("What are the conversions doing?", CONVERSIONS),
)

RELEASES = f"edge_build_info{{{HERE}}} unless on (instance, version) edge_build_info{{{HERE}}} offset 2m"
"""Present for two minutes after a node began to run another release."""
FIRING = f'ALERTS{{alertstate="firing",{JOB}}}'


def panels() -> list[Panel]:
    """All of them, from the top."""
    return [panel for row in ROWS for panel in row.panels]
