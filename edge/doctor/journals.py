"""The journal: what waits in it, and for how long PostgreSQL may be away before it is full."""

import http.client
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from edge.doctor.findings import Finding, fail, format_bytes, ok, warn
from edge.doctor.installation import Installation
from storage.journal.capacity import undrained_bytes
from storage.journal.segments import list_journals, list_segments

WINDOW_S = 3600.0
LEAST_SAMPLE_S = 1.0
LITTLE_TIME_S = 4 * 3600.0
FULL_SHARE = 0.9
"""From here on clicks are answered and not recorded."""
BEHIND_BYTES = 64 * 2**20
_COUNTER = "edge_journal_bytes_total"
_TIMEOUT_S = 2.0


class Growth:
    """The running node's journal bytes, looked at twice: at the making, and when asked for."""

    def __init__(self, found: Installation) -> None:
        self._found = found
        self._first = self._sample()

    def bytes_per_s(self) -> float | None:
        """How fast the journals grow now; None where no running node says."""
        if self._first is None:
            return None
        began_s, before = self._first
        time.sleep(max(0.0, began_s + LEAST_SAMPLE_S - time.monotonic()))
        second = self._sample()
        if second is None or second[1] < before:
            return None
        return (second[1] - before) / (second[0] - began_s)

    def check(self, found: Installation) -> Iterator[Finding]:
        """How long the database may be away."""
        yield _judge_room(found, self.bytes_per_s())

    def _sample(self) -> tuple[float, float] | None:
        settings = self._found.settings
        if not self._found.is_running or not settings.admin_port:
            return None
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.admin_host, settings.admin_host)
        return read_counter(host, settings.admin_port)


def read_counter(host: str, port: int) -> tuple[float, float] | None:
    """Monotonic seconds and the journals' bytes by the metrics page; None when nothing of ours answers there."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode("utf-8", "replace")
        lines = [line for line in page.splitlines() if line.startswith(f"{_COUNTER} ")]
        return (time.monotonic(), float(lines[0].split(" ")[1])) if lines else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def check_backlog(found: Installation) -> Iterator[Finding]:
    """What the database does not have yet."""
    root = found.data_dir / "journal"
    waiting, cap = undrained_bytes(root), found.settings.journal_max_bytes
    said = f"{format_bytes(waiting)} wait in {len(list_journals(root))} journals; the cap is {format_bytes(cap)}"
    if waiting >= cap * FULL_SHARE:
        advice = "bring PostgreSQL back, or restart with a larger EDGE_JOURNAL_MAX_BYTES: clicks go unrecorded now"
        yield fail("journal", said, advice)
    elif waiting > max(BEHIND_BYTES, cap // 10):
        yield warn("journal", said, "the drain is behind: is PostgreSQL there, and EDGE_DRAINS large enough?")
    else:
        yield ok("journal", said)


def _judge_room(found: Installation, now_per_s: float | None) -> Finding:
    room = _room(found)
    past_per_s = measure_growth(found.data_dir / "journal", time.time())
    per_s = max(now_per_s or 0.0, past_per_s)
    if per_s <= 0:
        return ok("time without PostgreSQL", f"no traffic to judge by; there is room for {format_bytes(room)}")
    source = "now" if now_per_s and now_per_s >= past_per_s else "in the last hour of traffic"
    lasts_s = room / per_s
    said = f"{_in_hours(lasts_s)}: room for {format_bytes(room)}, growth of {format_bytes(per_s)}/s {source}"
    if lasts_s < LITTLE_TIME_S:
        return warn("time without PostgreSQL", said, "raise EDGE_JOURNAL_MAX_BYTES (and have the disk for it)")
    return ok("time without PostgreSQL", said)


def _in_hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.1f} hours" if hours < 10_000 else "more than 10,000 hours"


def _room(found: Installation) -> float:
    """Bytes until clicks are no longer recorded, by the cap and by the disk."""
    waiting = undrained_bytes(found.data_dir / "journal")
    free = shutil.disk_usage(found.existing_dir()).free
    return max(0.0, min(found.settings.journal_max_bytes * FULL_SHARE - waiting, free))


def measure_growth(root: Path, now_s: float) -> float:
    """Bytes a second that all journals grew by in the hour before their newest byte, taken as even in each segment."""
    spans = [span for journal in list_journals(root) for span in _spans(journal.path, journal.created_ms / 1000)]
    newest_s = min(now_s, max((end_s for _, end_s, _ in spans), default=now_s))
    oldest_s = min((start_s for start_s, _, _ in spans), default=newest_s)
    window_s = min(WINDOW_S, newest_s - oldest_s)
    if window_s < LEAST_SAMPLE_S:
        return 0.0
    total = 0.0
    for start_s, end_s, size in spans:
        shared_s = min(end_s, newest_s) - max(start_s, newest_s - window_s)
        if shared_s > 0:
            total += size * min(1.0, shared_s / max(end_s - start_s, LEAST_SAMPLE_S))
    return total / window_s


def _spans(directory: Path, created_s: float) -> Iterator[tuple[float, float, int]]:
    """For each segment: when it began, when it was last written (or drained, soon after), its bytes."""
    start_s = created_s
    for segment in list_segments(directory):
        try:
            status = segment.path.stat()
        except FileNotFoundError:
            continue
        yield start_s, max(start_s, status.st_mtime), status.st_size
        start_s = max(start_s, status.st_mtime)
