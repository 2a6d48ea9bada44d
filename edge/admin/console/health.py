"""Health: are the processes up, how far behind are they, what went wrong."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web

from edge.admin.api.operation import READERS
from edge.admin.console import formats
from edge.admin.console.page import Page, Route, Visit
from edge.admin.metrics import Slot, drain_lag_s
from edge.counters import METRICS, cell
from storage.postgres.health import DatabaseHealth, measure_health

LATE_S = 60.0
_UP, _STARTS, _LAG = cell("edge_process_up"), cell("edge_process_starts_total"), cell("edge_loop_lag_seconds")
_DROPPED = next(metric for metric in METRICS if metric.name == "edge_events_dropped_total")
_DROPPED_CELLS = [cell(_DROPPED.name, *values) for values in _DROPPED.combinations()]
_REVISION, _STATE = cell("edge_catalog_revision"), cell("edge_state_published_seconds")
_UNDRAINED = cell("edge_journal_undrained_bytes")
_TROUBLES = {
    "Journal writes that failed": cell("edge_journal_write_errors_total"),
    "Drain transactions tried again": cell("edge_drain_errors_total"),
    "Catalogs that could not be taken": cell("edge_catalog_loads_total", "failed"),
    "Forged ids": cell("edge_forged_ids_total"),
}


class Process(NamedTuple):
    """One process. `lag_ms`: the worst delay of its event loop in the last second; None where it has none."""

    role: str
    slot: str
    is_up: bool
    starts: int
    lag_ms: float | None
    revision: int


class Reading(NamedTuple):
    """One figure. `tone`: good, wait or bad."""

    label: str
    value: str
    tone: str
    note: str


async def show(visit: Visit) -> web.Response:
    """The page, or its readings alone."""
    slots = visit.shared.backend.slots
    async with visit.connection() as conn:
        database = await measure_health(conn)
    return visit.render(
        "health_readings.html" if visit.is_fragment else "health.html",
        readings=_readings(visit, slots, database),
        processes=[_process(slot) for slot in slots],
        troubles=[(label, sum(slot.cells[index] for slot in slots)) for label, index in _TROUBLES.items()],
        database=database,
    )


def _process(slot: Slot) -> Process:
    cells, (role, number) = slot.cells, slot.labels
    is_worker = role == "worker"
    return Process(
        role,
        number,
        bool(cells[_UP]),
        cells[_STARTS],
        cells[_LAG] / 1000 if is_worker else None,
        cells[_REVISION] if is_worker else 0,
    )


def _readings(visit: Visit, slots: Sequence[Slot], database: DatabaseHealth) -> list[Reading]:
    down = [" ".join(slot.labels) for slot in slots if not slot.cells[_UP]]
    lag_s = drain_lag_s(slots)
    undrained = max((slot.cells[_UNDRAINED] for slot in slots), default=0)
    cap = visit.shared.backend.settings.journal_max_bytes
    dropped = sum(slot.cells[index] for slot in slots for index in _DROPPED_CELLS)
    published = max((slot.cells[_STATE] for slot in slots), default=0) / 1000
    late = database.postbacks_oldest_s > 3600
    return [
        Reading("Processes", "all up" if not down else f"{len(down)} down", "bad" if down else "good", ", ".join(down)),
        Reading("Drain", formats.duration(lag_s), "bad" if lag_s > LATE_S else "good", "how far the figures are behind"),
        Reading(
            "Journal not yet stored",
            formats.size(undrained),
            "bad" if undrained > cap * 0.8 else "good",
            f"of {formats.size(cap)} that it may hold",
        ),
        Reading("Events dropped", f"{dropped:,}", "bad" if dropped else "good", "while the journal was full"),
        Reading("Quarantine", f"{database.quarantined:,}", "bad" if database.quarantined else "good", "records that could not be stored"),
        Reading("Conversions waiting", f"{database.conversions_waiting:,}", "wait" if database.conversions_waiting else "good", "for their click"),
        Reading(
            "Postbacks pending",
            f"{database.postbacks_pending:,}",
            "bad" if late else "good",
            f"the oldest for {formats.duration(database.postbacks_oldest_s)}" if database.postbacks_pending else "none waits",
        ),
        Reading(
            "Postbacks given up",
            f"{database.postbacks_dead:,}",
            "wait" if database.postbacks_dead else "good",
            "see the log of postbacks",
        ),
        Reading(
            "Caps compared",
            f"{formats.duration(max(0.0, time.time() - published))} ago" if published else "not yet",
            "good" if published and time.time() - published < LATE_S else "bad",
            "each second, when all is well",
        ),
    ]


PAGE = Page(
    path="/health",
    title="Health",
    group="System",
    icon="health",
    letter="h",
    scopes=READERS,
    routes=(Route("GET", "/health", show),),
)
