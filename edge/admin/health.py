"""How the installation is: its processes, how far each stage is behind, what waits, what was given up, the room left."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge.admin.backend import Backend, DatabaseAway
from edge.admin.metrics import Slot, drain_lag_s
from edge.counters import cell
from storage.postgres.connection import is_retryable
from storage.postgres.health import DatabaseHealth, measure_health

LAG_S = 60.0
POSTBACK_AGE_S = 3600.0
DISK_FREE_SHARE = 0.05

_UP = cell("edge_process_up")
_STARTS = cell("edge_process_starts_total")
_REVISION = cell("edge_catalog_revision")
_UNDRAINED = cell("edge_journal_undrained_bytes")
_DROPPED = cell("edge_events_dropped_total")
_LAG, _STATE = cell("edge_loop_lag_seconds"), cell("edge_state_published_seconds")
_ERRORS = {
    "journal_writes": cell("edge_journal_write_errors_total"),
    "drain_transactions": cell("edge_drain_errors_total"),
    "catalogs": cell("edge_catalog_loads_total", "failed"),
    "forged_ids": cell("edge_forged_ids_total"),
}


class Process(msgspec.Struct, frozen=True):
    """One of this node's. `starts` counts the first one too; `catalog_revision` 0: it has none; `loop_lag_ms`: the worst
    delay of a worker's event loop in its last second, null for others.
    """

    role: str
    slot: int
    is_up: bool
    starts: int
    catalog_revision: int
    loop_lag_ms: float | None


class Health(msgspec.Struct, frozen=True):
    """Of this node and the database. What the database knows is null while it does not answer."""

    is_well: bool
    troubles: list[str]
    """In words, the worst first; empty: all is well."""
    processes: list[Process]
    drain_lag_s: float
    journal_backlog_bytes: int
    journal_max_bytes: int
    events_dropped: int
    is_database_reachable: bool
    disk_free_bytes: int
    disk_total_bytes: int
    caps_compared_s: float | None
    """How long ago caps were last compared; null: not since the start."""
    errors: dict[str, int]
    """Since the start: journal_writes, drain_transactions, catalogs that could not be taken, forged_ids."""
    catalog_revision: int | None = None
    postbacks_pending: int | None = None
    postbacks_oldest_s: float | None = None
    postbacks_dead: int | None = None
    quarantined: int | None = None
    conversions_waiting: int | None = None
    database_bytes: int | None = None
    database_version: str | None = None
    open_journals: int | None = None


async def check_health(backend: Backend) -> Health:
    """All of it, now. Never raises for a database that is away."""
    found = await _ask(backend)
    slots = backend.slots
    usage = _disk(backend.settings.data_path)
    processes = [_process(slot) for slot in slots]
    lag_s = drain_lag_s(slots)
    troubles = list(_troubles(processes, lag_s, found, usage))
    return Health(
        not troubles,
        troubles,
        processes,
        lag_s,
        max((slot.cells[_UNDRAINED] for slot in slots), default=0),
        backend.settings.journal_max_bytes,
        sum(slot.cells[_DROPPED] for slot in slots),
        found is not None,
        *usage,
        _caps_compared_s(slots),
        {name: sum(slot.cells[index] for slot in slots) for name, index in _ERRORS.items()},
        **(found._asdict() if found else {}),
    )


async def _ask(backend: Backend) -> DatabaseHealth | None:
    try:
        async with backend.connection() as conn:
            return await measure_health(conn)
    except DatabaseAway:
        return None
    except Exception as error:
        if is_retryable(error):
            return None
        raise


def _process(slot: Slot) -> Process:
    role, number = slot.labels
    cells = slot.cells
    lag_ms = cells[_LAG] / 1000 if role == "worker" else None
    return Process(role, int(number), bool(cells[_UP]), cells[_STARTS], cells[_REVISION], lag_ms)


def _caps_compared_s(slots: Sequence[Slot]) -> float | None:
    published_s = max((slot.cells[_STATE] for slot in slots), default=0) / 1000
    return max(0.0, time.time() - published_s) if published_s else None


def _disk(path: Path) -> tuple[int, int]:
    """Free and all bytes where the data dir is; zeros where that cannot be told."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return 0, 0
    return usage.free, usage.total


def _troubles(
    processes: Sequence[Process], lag_s: float, found: DatabaseHealth | None, usage: tuple[int, int]
) -> list[str]:
    free, total = usage
    down = [f"{one.role} {one.slot}" for one in processes if not one.is_up]
    said = [
        (found is None, "the database does not answer"),
        (bool(down), f"not running: {', '.join(down)}"),
        (lag_s > LAG_S, f"the drain is {lag_s:.0f} s behind"),
        (bool(total) and free < total * DISK_FREE_SHARE, f"the disk is nearly full: {free} bytes are free"),
    ]
    if found is not None:
        said += [
            (found.quarantined > 0, f"{found.quarantined} records are in quarantine"),
            (found.postbacks_dead > 0, f"{found.postbacks_dead} postbacks were given up"),
            (found.postbacks_oldest_s > POSTBACK_AGE_S, f"a postback is pending for {found.postbacks_oldest_s:.0f} s"),
        ]
    return [text for is_so, text in said if is_so]
